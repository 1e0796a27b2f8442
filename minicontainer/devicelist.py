"""Which devices a container may use: read back from the program in the kernel, as rules again.

kernel/devicefilter.py turns rules into a program, and kernel/bpfprograms.py gets programs back out
of the kernel.  Ours never jumps and has one shape for each rule, so it can be read backwards.  That
the reading is right is not a matter of trust: the rules are assembled again, and must give the same
instructions, byte for byte.  Other people's programs stay instructions.
"""

from __future__ import annotations

import os
import struct

from minicontainer.kernel import bpfprograms, devicefilter
from minicontainer.kernel.devicefilter import ANY

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minicontainer.kernel.devicefilter import Rule

_INSTRUCTION = struct.Struct("=BBhi")  # code, registers, offset, constant
_TYPES = {1: "b", 2: "c", ANY: "a"}  # BPF_DEVCG_DEV_*
_ACCESS = (("r", 2), ("w", 4), ("m", 1))  # BPF_DEVCG_ACC_*
# The instructions of a rule that carry its contents (code, destination); r3, r4, r5 hold the type,
# major and minor that are asked for, r6 what is granted, r7 "it is this rule's device", r8 is spare
_COPY, _DIFFER, _TIMES = (0xBF, 8), (0xA7, 8), (0x27, 7)
_GRANT, _TAKE = (0x4F, 6), (0x5F, 6)


def rules_of(code: bytes) -> tuple[Rule, ...] | None:
    """The rules that ``devicefilter.assemble`` made this program of; None if it is not its."""
    rules: list[Rule] = []
    numbers: dict[int, int] = {}
    compared = access = 0
    for opcode, registers, _, constant in _INSTRUCTION.iter_unpack(code):
        what = opcode, registers & 15
        if what == _COPY:
            compared = registers >> 4
        elif what == _DIFFER:
            numbers[compared] = constant
        elif what == _TIMES:
            access = constant
        elif what in (_GRANT, _TAKE):
            kind = _TYPES.get(numbers.get(3, ANY), "")
            letters = "".join(letter for letter, bit in _ACCESS if access & bit)
            rules.append((what == _GRANT, kind, numbers.get(4, ANY), numbers.get(5, ANY), letters))
            numbers = {}
    found = tuple(rules)
    if any(not rule[1] for rule in found) or devicefilter.assemble(found) != code:
        return None
    return found


def report(cgroup: str, *, instructions: bool = False) -> str:
    """The device programs that are asked for the processes of the cgroup at this path, as text: its
    own and those of the cgroups above it; each has to say yes.

    Raises KernelError (EPERM without CAP_NET_ADMIN)."""
    parts, path = [], cgroup
    while os.path.exists(path + "/cgroup.procs"):
        for number in bpfprograms.device_programs(path):
            parts.append(_program(path, bpfprograms.program_info(number), instructions))
        path = os.path.dirname(path)
    if not parts:
        return f"no device program on {cgroup} or above it: every device may be opened\n"
    return "\n".join(parts)


def _program(path: str, info: bpfprograms.ProgramInfo, instructions: bool) -> str:
    machine = f"{info.jited} bytes of machine code" if info.jited else "interpreted"
    name = f" {info.name}" if info.name else ""
    lines = [
        f"{path}",
        f"program {info.id}{name}: {info.length // 8} instructions, {machine}, tag {info.tag}, "
        f"loaded by uid {info.uid}",
    ]
    if not info.code:
        lines.append("  the kernel does not show its instructions (kptr_restrict, bpf_jit_harden)")
        return "\n".join(lines) + "\n"
    rules = rules_of(info.code)
    if rules is not None:
        lines.append("rules, of which the last that speaks of a device decides:")
        listed = devicefilter.listing(rules).splitlines()
        names = ["", *(device_name(rule) for rule in rules)]
        lines += [f"  {a:<24} {b}".rstrip() for a, b in zip(listed, names, strict=True)]
    if rules is None or instructions:
        what = "instructions:" if rules is not None else "not a program of minicontainer's:"
        lines += [what, bpfprograms.disassemble(info.code)]
    return "\n".join(lines) + "\n"


def device_name(rule: Rule) -> str:
    """What this host calls the device of a rule, such as "/dev/null"; "" if it is not one device,
    or not here.  sysfs(5): /sys/dev/char/1:3/uevent."""
    _, kind, major, minor, _ = rule
    if kind == "c" and major == 136 and minor == ANY:
        return "/dev/pts/*"
    if kind == "a" or ANY in (major, minor):
        return ""
    folder = {"b": "block", "c": "char"}[kind]
    try:
        with open(f"/sys/dev/{folder}/{major}:{minor}/uevent", errors="replace") as file:
            lines = dict(line.strip().partition("=")[::2] for line in file)
    except FileNotFoundError:
        return ""
    return f"/dev/{lines['DEVNAME']}" if "DEVNAME" in lines else ""
