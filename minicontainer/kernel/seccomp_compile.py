"""From a seccomp profile to a BPF program: the names a person writes, the numbers the kernel sees.

A profile says: these calls, when their arguments are so, get this verdict; and a default for all
others.  Compiling it means four things that a list of names hides:

1. A number means nothing without its architecture.  A 64-bit x86 program may also enter the kernel
   by the 32-bit door (int 0x80), where 59 is not execve but oldolduname.  So the architecture is
   asked for first; one that nobody listed is killed.
2. x32, a third set of x86 numbers, calls itself x86_64 but sets bit 30.  It gets ENOSYS, as from a
   kernel without x32; a filter that overlooks the bit forbids mount and allows x32's mount.
3. Calls newer than the profile get ENOSYS, "there is no such call", not EPERM, "you may not": the
   C library then falls back to an older call instead of giving up.
4. Arguments are 64 bits wide and the machine 32: each comparison is made of two.

Verdicts seldom change from one number to the next, so a table of 400 calls is some 60 *ranges*,
found by binary search: 6 comparisons where a list would take 400.  It counts twice: at every call,
and at loading, when the kernel (since 5.11) tries the program with every number once to remember
which calls are always allowed.

seccomp(2); config-linux.md, "Seccomp".  By hand: ``scmp_bpf_disasm``, or ``bpf.disassemble``.
"""

from __future__ import annotations

import errno

from minicontainer.errors import UsageError
from minicontainer.kernel import bpf, seccomp_syscalls
from minicontainer.kernel.seccomp_rules import Arg, Profile, Rule
from minicontainer.step import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

    # What a rule says of one call: its conditions, and its verdict.
    Choice = tuple[tuple[Arg, ...], int]
    # The choices for one call in the order they are tried; the last has no conditions.
    Decision = tuple[Choice, ...]

# ---- vocabulary

LOW32 = 0xFFFFFFFF
ALL64 = 0xFFFFFFFF_FFFFFFFF
X32_BIT = 0x40000000
ARM_PRIVATE = 0x0F0000  # ARM's own calls begin here, far above all others


class Abi(Record):
    """A set of system call numbers: its name in OCI's words, and how seccomp_data calls it."""

    name: str
    audit: int  # AUDIT_ARCH_* of linux/audit.h
    bits: int
    numbers: dict[str, int]


X86_64 = Abi("SCMP_ARCH_X86_64", 0xC000003E, 64, seccomp_syscalls.X86_64)
X86 = Abi("SCMP_ARCH_X86", 0x40000003, 32, seccomp_syscalls.I386)
AARCH64 = Abi("SCMP_ARCH_AARCH64", 0xC00000B7, 64, seccomp_syscalls.AARCH64)
ARM = Abi("SCMP_ARCH_ARM", 0x40000028, 32, seccomp_syscalls.ARM)

# by uname -m: Go's name for the machine, and the ABIs its kernel speaks, its own first
MACHINES = {"x86_64": ("amd64", (X86_64, X86)), "aarch64": ("arm64", (AARCH64, ARM))}


# ---- the compiler


def compile_profile(
    profile: Profile, capabilities: Collection[str], machine: str, kernel: tuple[int, int]
) -> bytes:
    """The BPF program for a process with this bounding set (CAP_* or "ALL"), on this machine (uname
    -m) and kernel version.

    Raises UsageError for an unknown machine, or a program longer than the kernel takes.
    """
    if machine not in MACHINES:
        raise UsageError(f"no filter can be compiled for {machine}: only {', '.join(MACHINES)}")
    go_name, abis = MACHINES[machine]
    rules = [rule for rule in profile.rules if _holds(rule, capabilities, go_name, kernel)]
    listed = {abis[0].name, *profile.architectures, *dict(profile.arch_map).get(abis[0].name, ())}
    program = bpf.Program()
    root = program.ret(bpf.KILL_PROCESS)
    for abi in reversed(abis):  # written backwards, so the machine's own is asked for first
        if abi.name in listed:
            search = _search(program, ranges(rules, abi, profile.default), abi)
            root = program.jump(bpf.JEQ, abi.audit, program.load(bpf.NUMBER, search), root)
    finished = program.assemble(program.load(bpf.ARCHITECTURE, root))
    if len(finished) // 8 > bpf.MAX_INSTRUCTIONS:
        raise UsageError(
            f"the seccomp profile makes a program of {len(finished) // 8} instructions, "
            f"and the kernel takes {bpf.MAX_INSTRUCTIONS}",
            "use fewer conditions on arguments",
        )
    return finished


def _holds(rule: Rule, capabilities: Collection[str], arch: str, kernel: tuple[int, int]) -> bool:
    yes, no = rule.includes, rule.excludes
    if "ALL" in capabilities:
        capabilities = (*capabilities, *yes.caps, *no.caps)
    return (
        all(cap in capabilities for cap in yes.caps)
        and (not yes.arches or arch in yes.arches)
        and (yes.min_kernel is None or kernel >= yes.min_kernel)
        and not any(cap in capabilities for cap in no.caps)
        and arch not in no.arches
        and (no.min_kernel is None or kernel < no.min_kernel)
    )


def ranges(rules: list[Rule], abi: Abi, default: int) -> list[tuple[int, Decision]]:
    """(first number, decision) of each range of system call numbers, ascending from 0."""
    named: dict[int, list[Choice]] = {}
    newest = 0
    for rule in rules:
        for name in rule.names:
            number = abi.numbers.get(name)  # a name of another architecture is no error
            if number is not None:
                named.setdefault(number, []).append((rule.args, rule.verdict))
                if newest < number < ARM_PRIVATE:
                    newest = number
            if abi is X86:
                _guard_other_door(named, name, rule)

    # Who lets the unnamed pass means new calls too; else, if we know any number at all, ENOSYS.
    passes = bpf.strictness(default) > bpf.strictness(bpf.ERRNO)
    unknown = default if passes or not named else bpf.ERRNO | errno.ENOSYS
    result: list[tuple[int, Decision]] = []

    def begin(number: int, decision: Decision) -> None:
        if not result or result[-1][1] != decision:
            result.append((number, decision))

    free = 0  # the first number not yet in a range
    for number in sorted(named):
        if free < number and free <= newest:
            begin(free, (((), default),))
        if number > newest:
            begin(max(free, newest + 1), (((), unknown),))
        begin(number, _decide(named[number], default))
        free = number + 1
    begin(free, (((), unknown),))
    if abi is X86_64:
        begin(X32_BIT, (((), bpf.ERRNO | errno.ENOSYS),))
    return result


def _guard_other_door(named: dict[int, list[Choice]], name: str, rule: Rule) -> None:
    """Extend a rule on ``name`` to socketcall(2) and ipc(2) of 32-bit x86."""
    # The arguments lie in memory there, where BPF cannot look: what depends on them is forbidden
    # unseen, but never allowed unseen.  Only 16 bits of the first argument are the number.
    for door, inside in seccomp_syscalls.I386_DOORS.items():
        if name in inside and not (rule.args and rule.verdict == bpf.ALLOW):
            condition = Arg(0, "&==", 0xFFFF, inside[name])
            named.setdefault(X86.numbers[door], []).append(((condition,), rule.verdict))


def _decide(rules: list[Choice], default: int) -> Decision:
    """The order of the rules that name one call: that of runc and libseccomp, which profiles are
    written for.  A rule with the default's verdict adds nothing; the first without conditions
    decides alone; of others, the strictest is tried first."""
    rules = [rule for rule in rules if rule[1] != default]
    for rule in rules:
        if not rule[0]:
            return (rule,)
    return (*sorted(rules, key=lambda rule: bpf.strictness(rule[1])), ((), default))


def _search(program: bpf.Program, ranges: list[tuple[int, Decision]], abi: Abi) -> int:
    """Find the range that A, the number, lies in: halve, and halve again."""
    if len(ranges) == 1:
        return _try(program, ranges[0][1], abi)
    middle = len(ranges) // 2
    above = _search(program, ranges[middle:], abi)
    below = _search(program, ranges[:middle], abi)
    return program.jump(bpf.JGE, ranges[middle][0], above, below)


def _try(program: bpf.Program, decision: Decision, abi: Abi) -> int:
    """Try each rule: all its conditions hold, or on to the next."""
    otherwise = program.ret(decision[-1][1])
    for args, verdict in reversed(decision[:-1]):
        matched = program.ret(verdict)
        for arg in reversed(args):
            matched = _condition(program, arg, abi, matched, otherwise)
        otherwise = matched
    return otherwise


def _condition(program: bpf.Program, arg: Arg, abi: Abi, yes: int, no: int) -> int:
    """Go on at ``yes`` if the argument is so, else at ``no``."""
    opposite = {"!=": "==", "&!=": "&==", "<": ">=", "<=": ">"}.get(arg.op)
    if opposite:
        return _condition(program, arg.replace(op=opposite), abi, no, yes)
    low, high = bpf.low_half(arg.index), bpf.high_half(arg.index)
    if arg.op in (">", ">="):
        test = bpf.JGT if arg.op == ">" else bpf.JGE
        found = program.load(low, program.jump(test, arg.value & LOW32, yes, no))
        if abi.bits == 32:  # there is nothing above
            return found
        # As with digits: the high ones decide, unless they are equal.
        equal = program.jump(bpf.JEQ, arg.value >> 32, found, no)
        return program.load(high, program.jump(bpf.JGT, arg.value >> 32, yes, equal))
    mask, wanted = (arg.value, arg.value_two) if arg.op == "&==" else (ALL64, arg.value)
    found = _half(program, low, mask & LOW32, wanted & LOW32, yes, no)
    return found if abi.bits == 32 else _half(program, high, mask >> 32, wanted >> 32, found, no)


def _half(program: bpf.Program, offset: int, mask: int, wanted: int, yes: int, no: int) -> int:
    if mask == 0:  # no bit of this half matters
        return yes
    equal = program.jump(bpf.JEQ, wanted & mask, yes, no)
    return program.load(offset, equal if mask == LOW32 else program.mask(mask, equal))
