"""The device filter: a program of ours that the kernel asks before a device is opened or made.

docker's root keeps CAP_MKNOD: it may make a node with the numbers of the host's disk, and then
open what it made.  An image may even bring such a node along.  What stands in between is a
program on the container's cgroup.  Whenever a process in that cgroup, or below it, is about to
open or make a device node, the kernel runs the program on three numbers,

    struct bpf_cgroup_dev_ctx { u32 access_type, major, minor; }     access << 16 | type

and goes on if the answer is 1; 0 is EPERM.  So it may make any node, and open the harmless ones.
The machine is eBPF, the younger sister of seccomp's (bpf.py): eleven registers of 64 bits; r1 comes
with a pointer to the numbers, r0 is the answer.  The kernel's verifier follows every way through a
program before it takes it.  It lives as long as someone holds it: our descriptor, then the cgroup.

bpf(2); the kernel's Documentation/admin-guide/cgroup-v2.rst, "Device controller".
By hand:   bpftool cgroup attach /sys/fs/cgroup/box device pinned /sys/fs/bpf/program multi
See it:    bpftool cgroup tree ; bpftool prog dump xlated id N
"""

from __future__ import annotations

import errno
import os
import struct

from minicontainer import libc
from minicontainer.errors import KernelError
from minicontainer.step import HOST, Context, Step, quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, ClassVar

# ---- vocabulary: linux/bpf.h

# allow?, type (c, b, or a for all), major, minor, access (r read, w write, m mknod); the last one
# that speaks of an access decides: config-linux.md.
Rule = tuple[bool, str, int, int, str]
ANY = -1  # major or minor

# After all other rules, what every container may do (moby's, runc's and crun's lists): make
# anything; and use null, zero, full, random, urandom, tty, console, ptmx and pts/*.
ALWAYS: tuple[Rule, ...] = (
    (True, "a", ANY, ANY, "m"),
    (True, "c", 1, 3, "rwm"), (True, "c", 1, 5, "rwm"), (True, "c", 1, 7, "rwm"),
    (True, "c", 1, 8, "rwm"), (True, "c", 1, 9, "rwm"),
    (True, "c", 5, 0, "rwm"), (True, "c", 5, 1, "rwm"), (True, "c", 5, 2, "rwm"),
    (True, "c", 136, ANY, "rwm"),
)  # fmt: skip

_ACCESS = {"m": 1, "r": 2, "w": 4}  # BPF_DEVCG_ACC_*
_TYPES = {"b": 1, "c": 2, "a": ANY}  # BPF_DEVCG_DEV_*
_COMMANDS = {"BPF_PROG_LOAD": 5, "BPF_PROG_ATTACH": 8}
_PROG_LOAD, _PROG_ATTACH = _COMMANDS.values()
_PROG_TYPE_CGROUP_DEVICE, _CGROUP_DEVICE = 15, 6
_F_ALLOW_MULTI = 2  # those of the cgroups above and below are asked as well, and each can refuse

# struct bpf_insn { u8 code; u8 dst_reg:4, src_reg:4; s16 off; s32 imm; }
_INSTRUCTION = struct.Struct("=BBhi")
_LOAD, _EXIT = 0x61, 0x95
_MOVE, _ADD, _MULTIPLY, _OR, _AND, _XOR, _SHIFT = 0xB7, 0x07, 0x27, 0x47, 0x57, 0xA7, 0x77
_REGISTER = 0x08  # | one of these: the second operand is a register, not the constant
# what we keep in r0, r1, ...
_ANSWER, _NUMBERS, _ASKED, _TYPE, _MAJOR, _MINOR, _GRANTED, _SAME, _OTHER = range(9)
_last: dict[str, Any] = {}  # what was assembled last

# ---- the program


def assemble(rules: tuple[Rule, ...]) -> bytes:
    """The program (struct bpf_insn[]) that grants what ``rules`` allow and nothing else.

    It never jumps.  With a jump for each comparison the verifier has so many ways to follow that
    loading takes half a millisecond; arithmetic, which leaves it one way, takes a quarter of it."""
    code = [
        _instruction(_LOAD, _TYPE, _NUMBERS, offset=0),
        _instruction(_LOAD, _MAJOR, _NUMBERS, offset=4),
        _instruction(_LOAD, _MINOR, _NUMBERS, offset=8),
        _instruction(_MOVE | _REGISTER, _ASKED, _TYPE),
        _instruction(_SHIFT, _ASKED, constant=16),
        _instruction(_AND, _TYPE, constant=0xFFFF),
        _instruction(_MOVE, _GRANTED, constant=0),
    ]
    for rule in rules:
        code += _rule(*rule)
    code += [  # answer = is_zero(asked & ~granted)
        _instruction(_XOR, _GRANTED, constant=-1),
        _instruction(_AND | _REGISTER, _ASKED, _GRANTED),
        *_is_zero(_ASKED),
        _instruction(_MOVE | _REGISTER, _ANSWER, _ASKED),
        _instruction(_EXIT, _ANSWER),
    ]
    return b"".join(code)


def _rule(allow: bool, kind: str, major: int, minor: int, access: str) -> list[bytes]:
    """same = is_zero(type ^ TYPE | major ^ MAJOR | minor ^ MINOR);  granted |= same * ACCESS"""
    code = [_instruction(_MOVE, _SAME, constant=0)]
    for register, number in ((_TYPE, _TYPES[kind]), (_MAJOR, major), (_MINOR, minor)):
        if number != ANY:
            code += [
                _instruction(_MOVE | _REGISTER, _OTHER, register),
                _instruction(_XOR, _OTHER, constant=number),
                _instruction(_OR | _REGISTER, _SAME, _OTHER),
            ]
    code += _is_zero(_SAME)
    code.append(_instruction(_MULTIPLY, _SAME, constant=sum(_ACCESS[a] for a in access)))
    if not allow:
        code.append(_instruction(_XOR, _SAME, constant=-1))
    return [*code, _instruction((_OR if allow else _AND) | _REGISTER, _GRANTED, _SAME)]


def _is_zero(register: int) -> list[bytes]:
    """1 if it is 0, else 0: of all 32-bit numbers, only 0 minus 1 has the highest bit of 64."""
    less_one = _instruction(_ADD, register, constant=-1)
    return [less_one, _instruction(_SHIFT, register, constant=63)]


def _instruction(code: int, to: int, source: int = 0, offset: int = 0, constant: int = 0) -> bytes:
    return _INSTRUCTION.pack(code, source << 4 | to, offset, constant)


def listing(rules: tuple[Rule, ...]) -> str:
    """The rules as text, a line each, in the order in which they are applied."""
    lines = ["refuse everything"]
    for allow, *words in rules:
        kind, major, minor, access = ("*" if word == ANY else word for word in words)
        lines.append(f"{'allow' if allow else 'refuse'} {kind} {major}:{minor} {access}")
    return "\n".join(lines)


# ---- verbs


def bpf_prog_load(program: bytes) -> int:
    """BPF_PROG_LOAD of bpf(2): have a device program verified and translated; its descriptor."""
    count = len(program) // 8
    code, licence = (libc.ffi.from_buffer("char[]", data) for data in (program, b"MIT\0"))
    pointers = libc.address(code), libc.address(licence)
    union = struct.pack("=IIQQIIQII", _PROG_TYPE_CGROUP_DEVICE, count, *pointers, 0, 0, 0, 0, 0)
    return _bpf(_PROG_LOAD, union, "BPF_PROG_TYPE_CGROUP_DEVICE", f"{count} instructions")


def bpf_prog_attach(cgroup_fd: int, program_fd: int) -> None:
    """BPF_PROG_ATTACH of bpf(2): ask the program about each device the cgroup's processes use."""
    union = struct.pack("=IIII", cgroup_fd, program_fd, _CGROUP_DEVICE, _F_ALLOW_MULTI)
    _bpf(_PROG_ATTACH, union, cgroup_fd, program_fd, "BPF_CGROUP_DEVICE", "BPF_F_ALLOW_MULTI")


def _bpf(command: int, union: bytes, *shown: object) -> int:
    address = libc.address(libc.ffi.from_buffer("char[]", union))
    for _ in range(10):  # EAGAIN: a signal has interrupted the verifier
        result = libc.syscall("bpf", command, address, len(union))
        if result != -1 or libc.ffi.errno != errno.EAGAIN:
            break
    return libc.check(
        result, "bpf", libc.Flags(command, _COMMANDS), *shown,
        meaning={
            errno.EPERM: "it takes CAP_BPF and CAP_NET_ADMIN, and no cgroup above that forbids it",
            errno.EINVAL: "this kernel was built without CONFIG_CGROUP_BPF",
        },
    )  # fmt: skip


# ---- steps


class FilterDevices(Step):
    """Root in the container may make a node for the host's disk; opening it is refused (EPERM).

    Without a cgroup or bpf(2) other walls must do: CAP_MKNOD is left out of the container, and the
    nodes that its image brings along open nothing (nodev)."""

    side: ClassVar[str] = HOST
    name = "device-filter"
    without = "`mknod disk b 8 0 && cat disk` in the container reads the host's disk"

    rules: tuple[Rule, ...] = ()  # before ALWAYS
    mknod: bool = True  # is CAP_MKNOD among what the container would get?

    def title(self) -> str:
        """In a few words."""
        return "let the cgroup open harmless devices only"

    def shell(self) -> str:
        """perl; bpftool(8) would need an ELF file and a mounted bpffs to do the same."""
        rules, number = self.rules + ALWAYS, libc.SYSCALLS["bpf"]
        code = (
            '$p = pack "H*", shift; opendir $c, $ENV{CGROUP} or die "opendir: $!\\n"; '
            f"$f = syscall {number}, {_PROG_LOAD}, pack('LLPPLLQLL', {_PROG_TYPE_CGROUP_DEVICE}, "
            'length($p) / 8, $p, $l = "MIT", (0) x 5), 48; $f < 0 and die "bpf: $!\\n"; '
            f"syscall {number}, {_PROG_ATTACH}, pack('L4', fileno $c, $f, {_CGROUP_DEVICE}, "
            f'{_F_ALLOW_MULTI}), 16 and die "bpf: $!\\n"'
        )
        made_of = listing(rules).replace("\n", "\n#   ")
        words = "# no standard tool makes such a program; its rules, of which the last decides:"
        return f"{words}\n#   {made_of}\n" + quote("perl", "-e", code, assemble(rules).hex())

    def run(self, context: Context) -> None:
        """bpf(2) twice; then the cgroup holds the program, and we let go of it."""
        if context.cgroup_fd < 0:
            self._do_without(context, "no cgroup, so no device filter")
            return
        try:
            if _last.get("rules") != self.rules:  # many containers are alike
                _last.update(rules=self.rules, program=assemble(self.rules + ALWAYS))
            program_fd = bpf_prog_load(_last["program"])
            try:
                bpf_prog_attach(context.cgroup_fd, program_fd)
            finally:
                os.close(program_fd)
        except KernelError as error:
            if error.errno not in (errno.EPERM, errno.EINVAL, errno.ENOSYS):
                raise
            self._do_without(context, f"no device filter ({error.message})")

    def _do_without(self, context: Context, why: str) -> None:
        context.unfiltered = True
        if self.mknod:
            context.warn(f"{why}: CAP_MKNOD is left out of the container")
