"""The seccomp compiler against a model of what a profile means, and against libseccomp.

Nothing here asks the kernel: programs run in an interpreter (tests/bpf_machine.py), so that every
number, every architecture and any argument can be tried.  tests/kernel/test_seccomp.py loads them.
"""

from __future__ import annotations

import errno
import json
import tempfile
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minicontainer.errors import UsageError
from minicontainer.kernel import bpf, seccomp_compile
from minicontainer.kernel.seccomp_compile import AARCH64, ARM, MACHINES, X86, X86_64, Abi
from minicontainer.kernel.seccomp_profile import DEFAULT
from minicontainer.kernel.seccomp_rules import Arg, Profile, Rule, When, parse_profile
from minicontainer.spec import DEFAULT_CAPABILITIES
from tests.bpf_machine import decode, mutant, run, steps, verify

EPERM, ENOSYS = bpf.ERRNO | errno.EPERM, bpf.ERRNO | errno.ENOSYS
ALLOW, KILL = bpf.ALLOW, bpf.KILL_PROCESS
X32 = 0x40000000
TIOCSTI, TIOCLINUX = 0x5412, 0x541C
NEW = (6, 18)
HIGH = 1 << 32
# Where comparisons go wrong: around 0, around half-words, and with the high half alone
EDGES = [0, 1, 2, 7, 8, 2**31, 2**32 - 1, HIGH, HIGH + 1, HIGH + 7, 2**63, 2**64 - 1, 0x7E020000]
words = st.sampled_from(EDGES) | st.integers(0, 2**64 - 1)

# ---- what a profile means, in the most direct words


def holds(arg: Arg, args: tuple[int, ...], bits: int) -> bool:
    every_bit = 2**bits - 1
    value, wanted = args[arg.index] & every_bit, arg.value & every_bit
    if arg.op in ("&==", "&!="):
        return (value & wanted == arg.value_two & wanted) == (arg.op == "&==")
    return {
        "==": value == wanted, "!=": value != wanted, "<": value < wanted,
        "<=": value <= wanted, ">": value > wanted, ">=": value >= wanted,
    }[arg.op]  # fmt: skip


def meaning(profile: Profile, abi: Abi, number: int, args: tuple[int, ...]) -> int:
    """The verdict on a call, for a profile whose rules hold everywhere.  (Not for socketcall.)"""
    if abi is X86_64 and number >= X32:
        return ENOSYS
    known = [abi.numbers[name] for rule in profile.rules for name in rule.names
             if name in abi.numbers]  # fmt: skip
    if number not in known:
        newest = max((n for n in known if n < 0xF0000), default=0)
        refuses = profile.default not in (bpf.ALLOW, bpf.LOG) and profile.default < bpf.TRACE
        refuses = refuses or profile.default == bpf.KILL_PROCESS
        return ENOSYS if known and number > newest and refuses else profile.default
    rules = [rule for rule in profile.rules
             for name in rule.names
             if abi.numbers.get(name) == number and rule.verdict != profile.default]  # fmt: skip
    for rule in rules:
        if not rule.args:
            return rule.verdict
    matching = [rule.verdict for rule in rules if all(holds(a, args, abi.bits) for a in rule.args)]
    return min(matching, key=bpf.strictness, default=profile.default)


# ---- the assembler


def tree_of(depth: int) -> st.SearchStrategy[object]:
    """A decision tree: a verdict, or (test, k, yes, no)."""
    leaf = st.sampled_from([ALLOW, EPERM, KILL, bpf.LOG])
    if depth == 0:
        return leaf
    below = tree_of(depth - 1)
    tests = st.sampled_from([bpf.JEQ, bpf.JGT, bpf.JGE])
    return leaf | st.tuples(tests, st.integers(0, 20), below, below)


def write(program: bpf.Program, tree: object) -> int:
    if isinstance(tree, int):
        return program.ret(tree)
    test, k, yes, no = tree  # type: ignore[misc]
    return program.jump(test, k, write(program, yes), write(program, no))


def walk(tree: object, a: int) -> int:
    while not isinstance(tree, int):
        test, k, yes, no = tree  # type: ignore[misc]
        true = {bpf.JEQ: a == k, bpf.JGT: a > k, bpf.JGE: a >= k}[test]
        tree = yes if true else no
    return tree


@given(tree_of(6))
@settings(deadline=None, max_examples=60)
def test_a_tree_becomes_a_program(tree):
    program = bpf.Program()
    finished = program.assemble(program.load(bpf.NUMBER, write(program, tree)))
    verify(finished)
    for number in range(22):
        assert run(finished, number, 0) == walk(tree, number)


def check_far_jumps(machine: ModuleType) -> None:
    """A list of n comparisons, each with an exit at its far end, for n around 255 and beyond."""
    for length in (1, 126, 127, 128, 252, 253, 254, 255, 256, 257, 258, 511, 1000):
        program = machine.Program()
        first, last = program.ret(machine.ALLOW), program.ret(machine.LOG)
        label = program.ret(machine.ERRNO | 7)
        for number in reversed(range(length)):
            label = program.jump(machine.JEQ, number, first if number % 2 else last, label)
        finished = program.assemble(program.load(machine.NUMBER, label))
        verify(finished)
        code = decode(finished)
        for number in range(length):
            assert run(code, number, 0) == (machine.ALLOW if number % 2 else machine.LOG)
        assert run(code, length, 0) == machine.ERRNO | 7


def check_signposts(machine: ModuleType) -> None:
    """What is far and no verdict is reached by ``ja``."""
    program = machine.Program()
    far = program.load(16, program.jump(machine.JEQ, 5, program.ret(ALLOW), program.ret(EPERM)))
    label = program.ret(bpf.LOG)
    for number in range(1, 700):
        label = program.jump(machine.JEQ, number, program.ret(machine.ERRNO | number), label)
    finished = program.assemble(program.load(0, program.jump(machine.JEQ, 0, far, label)))
    verify(finished)
    assert [run(finished, 0, 0, (arg,)) for arg in (5, 6)] == [ALLOW, EPERM]
    assert [run(finished, n, 0) for n in (1, 300, 699, 700)] == [
        *(bpf.ERRNO | n for n in (1, 300, 699)),
        bpf.LOG,
    ]


def test_far_jumps():
    check_far_jumps(bpf)
    check_signposts(bpf)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("_FARTHEST = 255", "_FARTHEST = 257"),
        ("_FARTHEST = 255", "_FARTHEST = 1000"),
        ("len(self._backwards) - 1 - label", "len(self._backwards) - label"),
        ("self.ret(k) if code == _RET else self._signpost(label)", "self.ret(k)"),
    ],
)
def test_broken_assemblers_are_found(old, new):
    broken = mutant(bpf, old, new)
    with pytest.raises(Exception):  # noqa: B017 - wrong verdicts, or an unencodable jump
        check_far_jumps(broken)
        check_signposts(broken)


def test_disassemble():
    program = bpf.Program()
    yes, no = program.ret(ALLOW), program.ret(bpf.ERRNO | errno.EPERM)
    high = program.load(bpf.high_half(1), program.mask(0xF0, program.jump(bpf.JEQ, 0x10, yes, no)))
    assert bpf.disassemble(program.assemble(high)).splitlines() == [
        "   0  ld  args[1].high",
        "   1  and 0xf0",
        "   2  jeq 0x10, 4, 3",
        "   3  ret ERRNO EPERM",
        "   4  ret ALLOW",
    ]


# ---- the compiler against the meaning


def profile_of(*rules: Rule, default: int = EPERM) -> Profile:
    return Profile(default, rules, architectures=(X86.name, ARM.name))


def compiled(compiler: ModuleType, profile: Profile, machine: str) -> bytes:
    program: bytes = compiler.compile_profile(profile, (), machine, NEW)
    verify(program)
    return program


def check_numbers(compiler: ModuleType) -> None:
    """Every number around every named one, on every architecture, for several defaults."""
    some = Rule(("read", "write", "close", "mount", "umount2", "mseal", "getpid"), ALLOW)
    odd = Rule(("open", "openat", "ptrace", "cacheflush", "set_tls"), bpf.ERRNO | 77)
    for default in (EPERM, ALLOW, KILL, bpf.LOG, bpf.ERRNO | 77):
        for rules in ((some, odd), (some,), ()):
            profile = profile_of(*rules, default=default)
            for machine, (_, abis) in MACHINES.items():
                code = decode(compiled(compiler, profile, machine))
                for abi in abis:
                    for number in (*range(520), 0xEFFFF, *range(0xF0000, 0xF0008), 0x3FFFFFFF):
                        expected = meaning(profile, abi, number, (0,) * 6)
                        assert run(code, number, abi.audit) == expected, (abi.name, number)


def check_architecture(compiler: ModuleType) -> None:
    """32-bit mount is not 64-bit mount, and an architecture that is not listed is killed."""
    profile = profile_of(Rule(("mount",), EPERM), default=ALLOW)
    code = decode(compiled(compiler, profile, "x86_64"))
    assert run(code, 165, X86_64.audit) == EPERM
    assert run(code, 165, X86.audit) == ALLOW
    assert run(code, 21, X86.audit) == EPERM
    assert run(code, 21, X86_64.audit) == ALLOW
    for foreign in (0, AARCH64.audit, 0xC00000F3, 0xFFFFFFFF):
        assert run(code, 0, foreign) == KILL
    native_only = Profile(ALLOW, profile.rules)
    code = decode(compiled(compiler, native_only, "x86_64"))
    assert run(code, 0, X86.audit) == KILL
    by_machine = Profile(ALLOW, (), arch_map=((AARCH64.name, (ARM.name,)), (X86.name, (X86.name,))))
    assert run(compiled(compiler, by_machine, "aarch64"), 0, ARM.audit) == ALLOW
    assert run(compiled(compiler, by_machine, "x86_64"), 0, X86.audit) == KILL


def check_x32(compiler: ModuleType) -> None:
    """Bit 30 gets ENOSYS, whatever the default and whatever the profile lists."""
    for default in (ALLOW, EPERM, bpf.LOG):
        profile = Profile(default, (Rule(("mount",), EPERM),), ("SCMP_ARCH_X32",))
        code = decode(compiled(compiler, profile, "x86_64"))
        for number in (0, 39, 165, 512, 547, 0x3FFFFFFF):
            assert run(code, X32 | number, X86_64.audit) == ENOSYS
        assert run(code, 0xFFFFFFFF, X86_64.audit) == ENOSYS


def check_doors(compiler: ModuleType) -> None:
    """socketcall and ipc of 32-bit x86 answer as the call they stand for."""
    deny = Rule(("socket", "shmget"), bpf.ERRNO | 5)
    code = decode(compiled(compiler, profile_of(deny, default=ALLOW), "x86_64"))
    assert run(code, 102, X86.audit, (1,)) == bpf.ERRNO | 5
    assert run(code, 102, X86.audit, (2,)) == ALLOW
    assert run(code, 117, X86.audit, (23,)) == bpf.ERRNO | 5
    assert run(code, 117, X86.audit, (1 << 16 | 23,)) == bpf.ERRNO | 5
    # what depends on arguments is forbidden without looking, and never allowed so
    vsock = Rule(("socket",), bpf.ERRNO | 5, (Arg(0, "==", 40),))
    code = decode(compiled(compiler, profile_of(vsock, default=ALLOW), "x86_64"))
    assert run(code, 102, X86.audit, (1,)) == bpf.ERRNO | 5
    inet = Rule(("socket",), ALLOW, (Arg(0, "==", 2),))
    code = decode(compiled(compiler, profile_of(inet), "x86_64"))
    assert run(code, 359, X86.audit, (2,)) == ALLOW
    assert run(code, 102, X86.audit, (1,)) == EPERM


def check_conditions(compiler: ModuleType) -> None:
    """Each comparison, at its edges, with 64 and with 32 bits."""
    for op in ("==", "!=", "<", "<=", ">", ">=", "&==", "&!="):
        for value in EDGES:
            for two in (0, 1, value) if "&" in op else (0,):
                condition = Arg(2, op, value, two)
                profile = profile_of(Rule(("read",), ALLOW, (condition,)))
                code = decode(compiled(compiler, profile, "x86_64"))
                for arg in EDGES:
                    for abi in (X86_64, X86):
                        args = (9, 9, arg & (2**abi.bits - 1), 9, 9, 9)
                        expected = meaning(profile, abi, abi.numbers["read"], args)
                        found = run(code, abi.numbers["read"], abi.audit, args)
                        assert found == expected, (abi.name, condition, hex(arg))


def check_choices(compiler: ModuleType) -> None:
    """Several rules on one call: the first without conditions, else the strictest that matches."""
    five, six = Arg(0, ">=", 5), Arg(1, "==", 6)
    kill, errno_2, log = bpf.KILL_PROCESS, bpf.ERRNO | 2, bpf.LOG
    choices = [
        (Rule(("read",), ALLOW, (five,)), Rule(("read",), errno_2)),
        (Rule(("read",), errno_2, (five,)), Rule(("read",), ALLOW)),
        (Rule(("read",), ALLOW), Rule(("read",), errno_2)),
        (Rule(("read",), EPERM, (five,)), Rule(("read",), ALLOW)),
        (Rule(("read",), EPERM), Rule(("read",), ALLOW, (five,))),
        (Rule(("read",), ALLOW, (five,)), Rule(("read",), errno_2, (six,))),
        (Rule(("read",), errno_2, (six,)), Rule(("read",), ALLOW, (five,))),
        (Rule(("read",), log, (five,)), Rule(("read",), kill, (five, six))),
        (Rule(("read",), ALLOW, (five, six)),),
    ]
    for rules in choices:
        profile = profile_of(*rules)
        code = decode(compiled(compiler, profile, "x86_64"))
        for args in ((0, 0), (5, 0), (0, 6), (5, 6), (4, 6), (HIGH, HIGH)):
            expected = meaning(profile, X86_64, 0, args)
            assert run(code, 0, X86_64.audit, args) == expected, (rules, args)


def check_where(compiler: ModuleType) -> None:
    """includes and excludes: capabilities, architecture, kernel."""

    def verdict(rule: Rule, caps: tuple[str, ...] = (), machine: str = "x86_64") -> int:
        profile = Profile(EPERM, (rule, Rule(("mseal",), ALLOW)))
        program = compiler.compile_profile(profile, caps, machine, (5, 10))
        abi = MACHINES[machine][1][0]
        return run(program, abi.numbers["read"], abi.audit)

    def only(**words: object) -> Rule:
        return Rule(("read",), ALLOW, includes=When(**words))

    def never(**words: object) -> Rule:
        return Rule(("read",), ALLOW, excludes=When(**words))

    assert verdict(only(caps=("A", "B")), ("A", "B")) == ALLOW
    assert verdict(only(caps=("A", "B")), ("A",)) == EPERM
    assert verdict(never(caps=("A", "B")), ("A",)) == EPERM
    assert verdict(never(caps=("A", "B")), ("C",)) == ALLOW
    assert verdict(only(caps=("A", "B")), ("ALL",)) == ALLOW
    assert verdict(never(caps=("A", "B")), ("ALL",)) == EPERM
    assert verdict(only(arches=("amd64", "arm"))) == ALLOW
    assert verdict(only(arches=("amd64", "arm")), machine="aarch64") == EPERM
    assert verdict(never(arches=("arm64",)), machine="aarch64") == EPERM
    assert verdict(only(min_kernel=(5, 10))) == ALLOW
    assert verdict(only(min_kernel=(5, 11))) == EPERM
    assert verdict(never(min_kernel=(5, 10))) == EPERM
    assert verdict(never(min_kernel=(6, 1))) == ALLOW


CHECKS = [
    check_numbers, check_architecture, check_x32, check_doors, check_conditions, check_choices,
    check_where,
]  # fmt: skip


@pytest.mark.parametrize("check", CHECKS)
def test_compiler(check):
    check(seccomp_compile)


MUTANTS = [
    # no question for the architecture; an unknown one passes
    ("program.jump(bpf.JEQ, abi.audit, program.load(bpf.NUMBER, search), root)",
     "program.load(bpf.NUMBER, search)", check_architecture),
    ("program.ret(bpf.KILL_PROCESS)", "program.ret(bpf.ALLOW)", check_architecture),
    ("if abi.name in listed:", "if True:", check_architecture),
    # x32 overlooked
    ("if abi is X86_64:", "if False:", check_x32),
    ("X32_BIT = 0x40000000", "X32_BIT = 0x40000001", check_x32),
    # a search that is off by one
    ("program.jump(bpf.JGE, ranges[middle][0], above, below)",
     "program.jump(bpf.JGT, ranges[middle][0], above, below)", check_numbers),
    ("free = number + 1", "free = number + 2", check_numbers),
    ("newest = number", "newest = number + 1", check_numbers),
    ("if newest < number < ARM_PRIVATE:", "if newest < number:", check_numbers),
    ("unknown = default if passes or not named else", "unknown = default if True else",
     check_numbers),
    ("unknown = default if passes or not named else", "unknown = default if not named else",
     check_numbers),
    # half an argument
    ("return found if abi.bits == 32 else _half(", "return found\n    return _half(",
     check_conditions),
    ("if abi.bits == 32:  # there is nothing above", "if True:", check_conditions),
    ("return found if abi.bits == 32 else _half(", "return _half(", check_conditions),
    ("program.jump(bpf.JEQ, arg.value >> 32, found, no)",
     "program.jump(bpf.JEQ, arg.value >> 32, found, yes)", check_conditions),
    ("bpf.JGT if arg.op == \">\" else bpf.JGE", "bpf.JGE", check_conditions),
    ("wanted & mask, yes, no", "wanted, yes, no", check_conditions),
    # another order of rules
    ("sorted(rules, key=lambda rule: bpf.strictness(rule[1]))", "rules", check_choices),
    ("if rule[1] != default]", "if True]", check_choices),
    ("if not rule[0]:", "if False:", check_choices),
    # the second door
    ("if abi is X86:", "if False:", check_doors),
    ("Arg(0, \"&==\", 0xFFFF, inside[name])", "Arg(0, \"==\", inside[name])", check_doors),
    ("and not (rule.args and rule.verdict == bpf.ALLOW)", "", check_doors),
    # conditions on where
    ("all(cap in capabilities", "any(cap in capabilities", check_where),
    ('if "ALL" in capabilities:', "if False:", check_where),
    ("not any(cap in capabilities", "not all(cap in capabilities", check_where),
    ("kernel >= yes.min_kernel", "kernel > yes.min_kernel", check_where),
    ("and arch not in no.arches", "", check_where),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "check"), MUTANTS)
def test_broken_compilers_are_found(old, new, check):
    broken = mutant(seccomp_compile, old, new)
    for name in ("X86", "X86_64", "ARM", "AARCH64", "MACHINES"):  # compared by identity
        setattr(broken, name, getattr(seccomp_compile, name))
    with pytest.raises(AssertionError):
        check(broken)


def test_a_profile_can_be_too_long():
    many = tuple(Rule(("read",), ALLOW, (Arg(0, "==", n),)) for n in range(1100))
    with pytest.raises(UsageError, match="4096"):
        seccomp_compile.compile_profile(Profile(EPERM, many), (), "x86_64", NEW)
    verify(seccomp_compile.compile_profile(Profile(EPERM, many[:1000]), (), "x86_64", NEW))


def test_an_unknown_machine():
    with pytest.raises(UsageError, match="riscv64"):
        seccomp_compile.compile_profile(DEFAULT, (), "riscv64", NEW)


# ---- any profile: hypothesis, and libseccomp

NAMES = [
    "read", "write", "open", "mount", "umount2", "clone", "clone3", "ioctl", "personality", "kcmp",
    "setuid32", "mmap2", "newfstatat", "close_range", "statx", "futex_waitv", "no_such_call",
]  # fmt: skip
OPERATORS = ["SCMP_CMP_NE", "SCMP_CMP_LT", "SCMP_CMP_LE", "SCMP_CMP_EQ", "SCMP_CMP_GE",
             "SCMP_CMP_GT", "SCMP_CMP_MASKED_EQ"]  # fmt: skip

conditions = st.lists(
    st.fixed_dictionaries(
        {"index": st.integers(0, 5), "op": st.sampled_from(OPERATORS), "value": words},
        optional={"valueTwo": words},
    ),
    max_size=3,
    unique_by=lambda arg: arg["index"],
)
syscalls = st.lists(
    st.fixed_dictionaries(
        {
            "names": st.lists(st.sampled_from(NAMES), min_size=1, max_size=4, unique=True),
            "action": st.sampled_from(["SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_KILL"]),
            "args": conditions,
        }
    ),
    max_size=8,
)
profiles = st.fixed_dictionaries(
    {
        "defaultAction": st.sampled_from(["SCMP_ACT_ERRNO", "SCMP_ACT_ALLOW", "SCMP_ACT_LOG"]),
        "architectures": st.just(["SCMP_ARCH_X86"]),
        "syscalls": syscalls,
    }
)
arguments = st.lists(st.tuples(words, words, words, words, words, words), min_size=1, max_size=5)


def interesting(profile: Profile, more: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """Arguments at the edges of a profile's conditions, and some others."""
    values = {0}
    for rule in profile.rules:
        for arg in rule.args:
            values |= {arg.value, arg.value - 1, arg.value + 1, arg.value_two, arg.value ^ HIGH}
    return [(value % 2**64,) * 6 for value in sorted(values)] + more


def calls(abi: Abi) -> list[int]:
    named = {abi.numbers[name] for name in NAMES if name in abi.numbers}
    return sorted({n + d for n in named for d in (-1, 0, 1) if n + d >= 0} | {0, 600})


@given(profiles, arguments)
@settings(deadline=None, max_examples=60)
def test_any_profile_means_what_it_says(text, more):
    profile = parse_profile(json.dumps(text))
    code = decode(compiled(seccomp_compile, profile, "x86_64"))
    for abi in (X86_64, X86):
        for number in calls(abi):
            for args in interesting(profile, more):
                narrow = tuple(arg & (2**abi.bits - 1) for arg in args)
                expected = meaning(profile, abi, number, narrow)
                assert run(code, number, abi.audit, narrow) == expected, (abi.name, number, narrow)


def oracle(profile: Profile, capabilities: tuple[str, ...]) -> list[tuple[int, int, int, int]]:
    """What libseccomp, driven as runc drives it, makes of a profile."""
    try:
        import pyseccomp
    except RuntimeError:
        pytest.skip("libseccomp is not installed")
    ops = {
        "!=": pyseccomp.NE, "<": pyseccomp.LT, "<=": pyseccomp.LE, "==": pyseccomp.EQ,
        ">=": pyseccomp.GE, ">": pyseccomp.GT, "&==": pyseccomp.MASKED_EQ,
    }  # fmt: skip
    library = pyseccomp.SyscallFilter(profile.default)
    library.add_arch(pyseccomp.Arch.X86)
    for rule in profile.rules:
        wanted = [cap in capabilities for cap in rule.includes.caps]
        unwanted = [cap in capabilities for cap in rule.excludes.caps]
        elsewhere = rule.includes.arches and "amd64" not in rule.includes.arches
        if not all(wanted) or any(unwanted) or elsewhere or rule.verdict == profile.default:
            continue
        for name in rule.names:
            args = [pyseccomp.Arg(a.index, ops[a.op], a.value, a.value_two) for a in rule.args]
            try:
                library.add_rule(rule.verdict, name, *args)
            except OSError as error:
                # a name it does not know; the same conditions again
                assert error.errno in (errno.EINVAL, errno.EEXIST, errno.EFAULT), (error, rule)
    with tempfile.TemporaryFile() as file:
        library.export_bpf(file)
        file.seek(0)
        return decode(file.read())


def crowded(profile: Profile) -> set[str]:
    """Names with several conditional rules.  libseccomp merges those into one tree, in an order of
    its own, and 2.5.4 does so wrongly: on 32-bit x86, "kill if arg0 < 2" with "kill if arg0 != 0
    and arg1 is even" kills 3, 3 as well."""
    names = [name for rule in profile.rules for name in set(rule.names)
             if rule.args and rule.verdict != profile.default]  # fmt: skip
    return {name for name in names if names.count(name) > 1}


@given(profiles, arguments)
@settings(deadline=None, max_examples=60)
def test_any_profile_is_libseccomps(text, more):
    profile = parse_profile(json.dumps(text))
    ours = decode(compiled(seccomp_compile, profile, "x86_64"))
    theirs = oracle(profile, ())
    for abi in (X86_64, X86):
        named = {abi.numbers[n] for rule in profile.rules for n in rule.names if n in abi.numbers}
        unclear = {abi.numbers[n] for n in crowded(profile) if n in abi.numbers}
        for number in sorted(named - unclear):
            for args in interesting(profile, more):
                narrow = tuple(arg & (2**abi.bits - 1) for arg in args)
                expected = run(theirs, number, abi.audit, narrow)
                assert run(ours, number, abi.audit, narrow) == expected, (abi.name, number, narrow)


FAMILIES = ((0, 11), (13, 18), (21, 22), (24, 24), (26, 33), (35, 36), (39, 39), (41, 45))
# libseccomp 2.5.4 knows calls up to here; newer ones only the kernel's own tables tell of
ORACLE_KNOWS = 450
CAPABILITY_SETS = [
    (), DEFAULT_CAPABILITIES, (*DEFAULT_CAPABILITIES, "CAP_SYS_ADMIN"),
    ("CAP_SYS_PTRACE", "CAP_SYS_TIME", "CAP_SYS_MODULE", "CAP_BPF", "CAP_SYSLOG", "CAP_PERFMON"),
]  # fmt: skip


@pytest.mark.parametrize("capabilities", CAPABILITY_SETS, ids=len)
def test_the_default_profile_is_libseccomps(capabilities):
    """Every number, on both architectures; ``&!=`` and ranges, which libseccomp cannot express,
    are put to it as the calls they let pass."""
    plain = [r for r in DEFAULT.rules if r.names not in (("ioctl",), ("socket",))]
    families = [n for first, last in FAMILIES for n in range(first, last + 1)]
    plain += [Rule(("socket",), ALLOW, (Arg(0, "==", family),)) for family in families]
    plain += [Rule(("ioctl",), ALLOW)]
    theirs = oracle(DEFAULT.replace(rules=tuple(plain)), capabilities)
    ours = decode(seccomp_compile.compile_profile(DEFAULT, capabilities, "x86_64", NEW))
    values = [0, 1, 2, 8, 17, 38, 39, 40, 45, 46, 0x20000, 0x20008, 2**32 - 1, 0x10000000, 0x5401]
    differences = []
    for abi in (X86_64, X86):
        for number in sorted(n for n in abi.numbers.values() if n <= ORACLE_KNOWS):
            for value in (*values, *(HIGH | v for v in values if abi.bits == 64)):
                found = run(ours, number, abi.audit, (value, value))
                if found != run(theirs, number, abi.audit, (value, value)):
                    differences.append((abi.name, number, hex(value), hex(found)))
    uretprobe = [(X86_64.name, 335)]  # newer than its number
    assert [d for d in differences if d[:2] not in uretprobe] == []


def test_numbers_are_libseccomps():
    """The tables, name by name, both ways."""
    try:
        import pyseccomp
    except RuntimeError:
        pytest.skip("libseccomp is not installed")
    arches = pyseccomp.Arch
    for abi, arch in (
        (X86_64, arches.X86_64), (X86, arches.X86), (AARCH64, arches.AARCH64), (ARM, arches.ARM),
    ):  # fmt: skip
        for name, number in abi.numbers.items():
            try:
                theirs = pyseccomp.resolve_syscall(arch, name)
            except ValueError:
                continue
            if theirs >= 0:  # negative: it gives this call a number of its own
                assert theirs == number, (abi.name, name)


def test_numbers_are_the_headers():
    """Against the kernel headers of this machine, where there are any (they may be older)."""
    compared = 0
    for abi, name in ((X86_64, "unistd_64.h"), (X86, "unistd_32.h")):
        for folder in ("/usr/include/x86_64-linux-gnu/asm", "/usr/include/asm"):
            header = Path(folder, name)
            if header.exists():
                lines = [line.split() for line in header.read_text().splitlines()]
                pairs = {w[1][5:]: int(w[2]) for w in lines if len(w) == 3 and w[2].isdigit()}
                assert {n: abi.numbers.get(n) for n in pairs} == pairs
                compared += 1
                break
    assert compared in (0, 2)


# ---- the default profile


def default_program(machine: str = "x86_64", *more: str) -> list[tuple[int, int, int, int]]:
    capabilities = (*DEFAULT_CAPABILITIES, *more)
    return decode(seccomp_compile.compile_profile(DEFAULT, capabilities, machine, NEW))


@pytest.mark.parametrize("machine", MACHINES)
def test_default_profile_lets_the_last_steps_pass(machine):
    """What minicontainer itself still does after loading the filter."""
    code = default_program(machine)
    abi = MACHINES[machine][1][0]
    for name in (
        "setresuid", "setresgid", "setgroups", "capset", "capget", "prctl", "close_range", "execve",
        "execveat", "fcntl", "sendmsg", "sendto", "recvmsg", "write", "read", "close", "exit_group",
        "openat", "openat2", "fchdir", "chdir", "umask", "prlimit64", "setsid", "rt_sigprocmask",
        "rt_sigaction", "getrandom", "brk", "mmap", "munmap", "mprotect", "seccomp", "wait4",
    ):  # fmt: skip
        assert run(code, abi.numbers[name], abi.audit) == ALLOW, name


@pytest.mark.parametrize("machine", MACHINES)
def test_default_profile_holds_back(machine):
    for abi in MACHINES[machine][1]:
        code = default_program(machine)
        for name in (
            "mount", "umount2", "pivot_root", "unshare", "setns", "move_mount", "fsopen", "bpf",
            "keyctl", "add_key", "request_key", "init_module", "finit_module", "kexec_load",
            "reboot", "swapon", "io_uring_setup", "userfaultfd", "perf_event_open",
            "open_by_handle_at", "settimeofday", "clock_settime", "sethostname", "quotactl",
            "process_madvise", "lookup_dcookie", "acct", "move_pages",
        ):  # fmt: skip
            assert run(code, abi.numbers[name], abi.audit) == EPERM, (abi.name, name)
        assert run(code, abi.numbers["clone3"], abi.audit) == ENOSYS
        assert run(code, abi.numbers["ptrace"], abi.audit) == ALLOW
        assert run(code, abi.numbers["listns"], abi.audit) == ENOSYS  # newer than the profile
        assert run(code, 2000, abi.audit) == ENOSYS


def test_default_profile_and_arguments():
    code = default_program()

    def verdict(name: str, *args: int) -> int:
        return run(code, X86_64.numbers[name], X86_64.audit, args)

    for command in (TIOCSTI, TIOCLINUX):
        assert verdict("ioctl", 0, command) == EPERM
        assert verdict("ioctl", 0, HIGH | command) == EPERM
    assert verdict("ioctl", 0, 0x5413) == ALLOW
    allowed = {family for first, last in FAMILIES for family in range(first, last + 1)}
    for family in range(64):
        assert verdict("socket", family) == (ALLOW if family in allowed else EPERM)
        assert verdict("socket", HIGH | family) == EPERM
    assert verdict("clone", 0x01200011) == ALLOW  # fork(3)
    assert verdict("clone", 0x3D0F00) == ALLOW  # pthread_create(3)
    for flag in (17, 25, 26, 27, 28, 29, 30):
        assert verdict("clone", 1 << flag) == EPERM
    assert verdict("personality", 0xFFFFFFFF) == ALLOW
    assert verdict("personality", 0x0040000) == EPERM
    admin = default_program("x86_64", "CAP_SYS_ADMIN")
    for name in ("mount", "unshare", "clone", "clone3", "setns", "fsopen", "bpf"):
        assert run(admin, X86_64.numbers[name], X86_64.audit, (1 << 28,)) == ALLOW
    old = seccomp_compile.compile_profile(DEFAULT, (), "x86_64", (4, 7))
    assert run(old, X86_64.numbers["ptrace"], X86_64.audit) == EPERM


def test_default_profile_is_a_short_search():
    """Common calls are judged in a few instructions; a list of the calls would take hundreds."""
    program = seccomp_compile.compile_profile(DEFAULT, DEFAULT_CAPABILITIES, "x86_64", NEW)
    common = ("read", "write", "openat", "close", "mmap", "futex", "statx", "mount")
    assert max(steps(program, X86_64.numbers[name], X86_64.audit) for name in common) <= 14
    assert len(program) // 8 < 500


# ---- reading JSON


def parse(**words: object) -> Profile:
    return parse_profile(json.dumps({"defaultAction": "SCMP_ACT_ALLOW", **words}))


def call(**words: object) -> dict[str, object]:
    return {"names": ["read"], "action": "SCMP_ACT_ALLOW", **words}


def test_parse_everything():
    text = json.dumps(
        {
            "defaultAction": "SCMP_ACT_ERRNO",
            "defaultErrnoRet": 38,
            "archMap": [
                {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]},
                {"architecture": "SCMP_ARCH_RISCV64", "subArchitectures": None},
            ],
            "flags": ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_TSYNC"],
            "listenerPath": "",
            "unknown": "is ignored, as OCI demands",
            "syscalls": [
                {
                    "names": ["read", "write"],
                    "action": "SCMP_ACT_ERRNO",
                    "errnoRet": 13,
                    "args": [
                        {"index": 1, "value": 2**64 - 1, "valueTwo": 3, "op": "SCMP_CMP_MASKED_EQ"},
                        {"index": 0, "value": 2, "op": "SCMP_CMP_GE"},
                    ],
                    "includes": {"caps": ["CAP_CHOWN"], "minKernel": "4.8"},
                    "excludes": {"arches": ["s390x"]},
                    "comment": "",
                },
                {"name": "openat", "action": "SCMP_ACT_TRACE", "args": None, "includes": {}},
                {"names": ["close"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1, "errno": "EACCES"},
            ],
        }
    )
    assert parse_profile(text) == Profile(
        ENOSYS,
        (
            Rule(
                ("read", "write"),
                bpf.ERRNO | 13,
                (Arg(1, "&==", 2**64 - 1, 3), Arg(0, ">=", 2)),
                When(caps=("CAP_CHOWN",), min_kernel=(4, 8)),
                When(arches=("s390x",)),
            ),
            Rule(("openat",), bpf.TRACE | errno.EPERM),
            Rule(("close",), bpf.ERRNO | errno.EACCES),
        ),
        arch_map=(("SCMP_ARCH_X86_64", ("SCMP_ARCH_X86",)), ("SCMP_ARCH_RISCV64", ())),
        flags=2,
    )


def test_two_conditions_on_one_argument_are_runcs_or():
    twice = [{"index": 0, "value": v, "op": "SCMP_CMP_EQ"} for v in (1, 2)]
    profile = parse(syscalls=[call(args=twice)])
    assert [rule.args for rule in profile.rules] == [(Arg(0, "==", 1),), (Arg(0, "==", 2),)]


def test_flags_that_are_not_named_are_runcs():
    assert parse().flags == 4
    assert parse(flags=[]).flags == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"defaultAction": None}, "linux.seccomp.defaultAction: is missing"),
        ({"defaultAction": "ALLOW"}, "linux.seccomp.defaultAction: 'ALLOW' is not one of"),
        ({"defaultAction": "SCMP_ACT_NOTIFY"}, "linux.seccomp.defaultAction: SCMP_ACT_NOTIFY is"),
        ({"defaultErrnoRet": 1}, "linux.seccomp.defaultErrnoRet: SCMP_ACT_ALLOW carries no errno"),
        ({"architectures": ["x86"]}, "linux.seccomp.architectures[0]: 'x86' is not one of"),
        ({"architectures": "x86"}, "linux.seccomp.architectures: must be an array"),
        ({"architectures": ["SCMP_ARCH_X86"], "archMap": [{"architecture": "SCMP_ARCH_X86"}]},
         "linux.seccomp.archMap: cannot stand beside architectures"),
        ({"archMap": [{"architecture": "SCMP_ARCH_X86", "subArchitectures": [7]}]},
         "linux.seccomp.archMap[0].subArchitectures[0]: must be a string"),
        ({"flags": ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]}, "linux.seccomp.flags[0]: "),
        ({"syscalls": {}}, "linux.seccomp.syscalls: must be an array"),
        ({"syscalls": [7]}, "linux.seccomp.syscalls[0]: must be an object"),
        ({"syscalls": [call(), call(names=[])]}, "linux.seccomp.syscalls[1].names: must name at"),
        ({"syscalls": [call(names=[""])]}, "linux.seccomp.syscalls[0].names[0]: must be a string"),
        ({"syscalls": [call(name="write")]}, "linux.seccomp.syscalls[0].name: cannot stand beside"),
        ({"syscalls": [call(action=None)]}, "linux.seccomp.syscalls[0].action: is missing"),
        ({"syscalls": [call(action="SCMP_ACT_NOTIFY")]}, "linux.seccomp.syscalls[0].action: SCMP_"),
        ({"syscalls": [call(errnoRet=1)]}, "linux.seccomp.syscalls[0].errnoRet: SCMP_ACT_ALLOW"),
        ({"syscalls": [call(action="SCMP_ACT_ERRNO", errnoRet=4096)]},
         "linux.seccomp.syscalls[0].errnoRet: must be a whole number from 0 to 4095"),
        ({"syscalls": [call(action="SCMP_ACT_ERRNO", errno="EFOO")]},
         "linux.seccomp.syscalls[0].errno: 'EFOO' is not one of"),
        ({"syscalls": [call(args=[{"index": 6, "value": 0, "op": "SCMP_CMP_EQ"}])]},
         "linux.seccomp.syscalls[0].args[0].index: must be a whole number from 0 to 5"),
        ({"syscalls": [call(args=[{"index": 0, "value": -1, "op": "SCMP_CMP_EQ"}])]},
         "linux.seccomp.syscalls[0].args[0].value: must be a whole number"),
        ({"syscalls": [call(args=[{"index": 0, "value": True, "op": "SCMP_CMP_EQ"}])]},
         "linux.seccomp.syscalls[0].args[0].value: must be a whole number"),
        ({"syscalls": [call(args=[{"index": 0, "value": 2**64, "op": "SCMP_CMP_EQ"}])]},
         "linux.seccomp.syscalls[0].args[0].value: must be a whole number"),
        ({"syscalls": [call(args=[{"index": 0, "value": 0, "op": "=="}])]},
         "linux.seccomp.syscalls[0].args[0].op: '==' is not one of"),
        ({"syscalls": [call(args=[{"value": 0, "op": "SCMP_CMP_EQ"}])]},
         "linux.seccomp.syscalls[0].args[0].index: must be a whole number"),
        ({"syscalls": [call(includes={"minKernel": "new"})]},
         "linux.seccomp.syscalls[0].includes.minKernel: must be a version"),
        ({"syscalls": [call(excludes={"caps": "CAP_CHOWN"})]},
         "linux.seccomp.syscalls[0].excludes.caps: must be an array"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_by_its_path(words, message):
    with pytest.raises(UsageError) as caught:
        parse(**words)
    assert caught.value.message.startswith(message)


@pytest.mark.parametrize("text", ["", "{", "[]", "7", '"default"', "[" * 100_000], ids=len)
def test_what_is_no_profile_at_all(text):
    with pytest.raises(UsageError, match=r"^profile: "):
        parse_profile(text, "profile")


SHIPPED = [
    path
    for path in (Path("/usr/share/containers/seccomp.json"), Path("/etc/containers/seccomp.json"))
    if path.exists()
]


@pytest.mark.parametrize("machine", MACHINES)
def test_profiles_of_others_are_understood(machine):
    """podman's, where it is installed: it compiles, and its deny list is obeyed."""
    if not SHIPPED:
        pytest.skip("no seccomp profile of podman's is installed")
    abi = MACHINES[machine][1][0]
    for path in SHIPPED:
        profile = parse_profile(path.read_text())
        program = seccomp_compile.compile_profile(profile, DEFAULT_CAPABILITIES, machine, NEW)
        verify(program)
        assert run(program, abi.numbers["read"], abi.audit) == ALLOW
        assert run(program, abi.numbers["kexec_load"], abi.audit) != ALLOW
