"""BPF programs on a cgroup, read back from the kernel: not what was meant to be loaded, what is.

The device filter of a container (devicefilter.py) is gone from our hands as soon as it is attached:
the cgroup holds it.  But the kernel gives everything back to whoever may ask:

    BPF_PROG_QUERY             the ids of the programs attached to a cgroup; with EFFECTIVE
                               all that are asked for its processes, those of outer cgroups, too
    BPF_PROG_GET_FD_BY_ID      a descriptor for an id
    BPF_OBJ_GET_INFO_BY_FD     name, time, size, and "xlated": the instructions as the verifier left
                               them, before they become machine code

So this works for anybody's program: runc's, systemd's (DeviceAllow=), docker's.  The text is that
of the kernel's own bpftool: registers r0 (the answer) to r10, w0 their lower 32 bits.

bpf(2); include/uapi/linux/bpf.h; the kernel's Documentation/bpf/, instruction-set.rst.
By hand:   bpftool cgroup show /sys/fs/cgroup/box ; bpftool prog dump xlated id N
See it:    minicontainer cgroup devices NAME
"""

from __future__ import annotations

import errno
import os
import struct

from minicontainer import libc
from minicontainer.step import Record

# ---- vocabulary

_PROG_GET_FD_BY_ID, _OBJ_GET_INFO_BY_FD, _PROG_QUERY = 13, 15, 16
_COMMANDS = {
    "BPF_PROG_GET_FD_BY_ID": 13, "BPF_OBJ_GET_INFO_BY_FD": 15, "BPF_PROG_QUERY": 16,
}  # fmt: skip
_CGROUP_DEVICE = 6
_QUERY_EFFECTIVE = 1
_MOST = 64  # BPF_CGROUP_MAX_PROGS: so many may hang on one cgroup

# struct bpf_prog_info up to gpl_compatible: type, id, tag, jited_prog_len, xlated_prog_len, the two
# pointers, load_time, created_by_uid, nr_map_ids, map_ids, name
_INFO = struct.Struct("=II8sIIQQQIIQ16s")
_XLATED_LEN = 4  # where in it

# struct bpf_insn { u8 code; u8 dst_reg:4, src_reg:4; s16 off; s32 imm; }
_INSTRUCTION = struct.Struct("=BBhi")
# code & 7 is the class; in loads and stores, code & 0x18 the size; in the rest, & 8 "a register is
# the second operand" and & 0xf0 the operation
_LD, _LDX, _ST, _STX, _ALU, _JMP, _JMP32, _ALU64 = range(8)
_SIZES = {0x00: "u32", 0x08: "u16", 0x10: "u8", 0x18: "u64"}
_OPERATIONS = {
    0x00: "+=", 0x10: "-=", 0x20: "*=", 0x30: "/=", 0x40: "|=", 0x50: "&=", 0x60: "<<=",
    0x70: ">>=", 0x90: "%=", 0xA0: "^=", 0xB0: "=", 0xC0: "s>>=",
}  # fmt: skip
_COMPARISONS = {
    0x10: "==", 0x20: ">", 0x30: ">=", 0x40: "&", 0x50: "!=", 0x60: "s>", 0x70: "s>=",
    0xA0: "<", 0xB0: "<=", 0xC0: "s<", 0xD0: "s<=",
}  # fmt: skip


class ProgramInfo(Record):
    """A program in the kernel, from struct bpf_prog_info.

    ``loaded`` is in nanoseconds of CLOCK_BOOTTIME; ``code`` are its instructions, empty where the
    kernel keeps them to itself; ``length`` is how many bytes of them there are."""

    id: int
    tag: str  # the kernel's hash of the instructions: equal programs, equal tags
    name: str
    loaded: int
    uid: int
    jited: int  # bytes of machine code; 0 if it is interpreted
    length: int
    code: bytes


# ---- verbs


def device_programs(path: str, *, effective: bool = False) -> tuple[int, ...]:
    """BPF_PROG_QUERY of bpf(2): ids of the device programs attached to the cgroup at ``path``, or
    of all that are asked for its processes.

    Raises KernelError; FileNotFoundError if there is no such cgroup."""
    cgroup_fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        ids = libc.ffi.new(f"unsigned int[{_MOST}]")
        flags = _QUERY_EFFECTIVE if effective else 0
        union = bytearray(struct.pack("=IIIIQIIQQQQ", cgroup_fd, _CGROUP_DEVICE, flags, 0,
                                      libc.address(ids), _MOST, 0, 0, 0, 0, 0))  # fmt: skip
        _bpf(_PROG_QUERY, union, path, "BPF_CGROUP_DEVICE", libc.Flags(flags, {"EFFECTIVE": 1}))
        count = struct.unpack_from("=I", union, 24)[0]
        return tuple(int(ids[index]) for index in range(count))
    finally:
        os.close(cgroup_fd)


def program_info(program_id: int) -> ProgramInfo:
    """BPF_PROG_GET_FD_BY_ID and BPF_OBJ_GET_INFO_BY_FD of bpf(2): all about a program.

    Raises KernelError; ENOENT means it is gone."""
    fd = _bpf(_PROG_GET_FD_BY_ID, bytearray(struct.pack("=III", program_id, 0, 0)), program_id)
    try:
        # Twice: the first answer says how long the program is, the second fills our buffer.
        length = _INFO.unpack(_info(fd, _INFO.pack(*[0] * 2, b"", *[0] * 8, b"")))[_XLATED_LEN]
        code = libc.ffi.new("char[]", max(length, 1))
        wish = _INFO.pack(0, 0, b"", 0, length, 0, libc.address(code), 0, 0, 0, 0, b"")
        answer = _INFO.unpack(_info(fd, wish))
    finally:
        os.close(fd)
    _, number, tag, jited, _, _, shown, loaded, uid, _, _, name = answer
    # The kernel takes our pointer away if it does not let this reader see (kptr_restrict).
    content = bytes(libc.ffi.buffer(code, length)) if shown else b""
    return ProgramInfo(number, tag.hex(), name.rstrip(b"\0").decode(), loaded, uid, jited, length,
                       content)  # fmt: skip


def _info(fd: int, wish: bytes) -> bytes:
    buffer = libc.ffi.new("char[]", wish)
    union = bytearray(struct.pack("=IIQ", fd, _INFO.size, libc.address(buffer)))
    _bpf(_OBJ_GET_INFO_BY_FD, union, fd)
    return bytes(libc.ffi.buffer(buffer, _INFO.size))


def _bpf(command: int, union: bytearray, *shown: object) -> int:
    address = libc.address(libc.ffi.from_buffer("char[]", union))
    return libc.check(
        libc.syscall("bpf", command, address, len(union)),
        "bpf", libc.Flags(command, _COMMANDS), *shown,
        meaning={
            errno.EPERM: "asking for programs takes CAP_NET_ADMIN, their code CAP_SYS_ADMIN",
            errno.EINVAL: "this kernel was built without CONFIG_CGROUP_BPF, or is older than 4.15",
            errno.ENOENT: "that program is gone",
        },
    )  # fmt: skip


def disassemble(code: bytes) -> str:
    """Instructions as text, one a line, as bpftool writes them: ``  3: r3 = *(u32 *)(r1 + 4)``."""
    lines, wide = [], False
    for at, one in enumerate(_INSTRUCTION.iter_unpack(code)):
        if wide:  # the second half of a 64-bit constant has no code of its own
            wide = False
            continue
        wide = one[0] == 0x18
        lines.append(f"{at:4}: {_line(at, *one)}")
    return "\n".join(lines)


def _line(at: int, code: int, registers: int, offset: int, constant: int) -> str:
    kind, to, source = code & 7, registers & 15, registers >> 4
    if code == 0x18:
        return f"r{to} = {constant:#x} ll"
    if kind in (_LDX, _ST, _STX) and code & 0xE0 == 0x60:  # BPF_MEM
        size = _SIZES[code & 0x18]
        if kind == _LDX:
            return f"r{to} = *({size} *)(r{source} {offset:+d})"
        value = f"r{source}" if kind == _STX else f"{constant}"
        return f"*({size} *)(r{to} {offset:+d}) = {value}"
    letter = "r" if kind in (_ALU64, _JMP) else "w"
    other = f"{letter}{source}" if code & 8 else str(constant)
    if kind in (_ALU, _ALU64) and code & 0xF0 in _OPERATIONS:
        return f"{letter}{to} {_OPERATIONS[code & 0xF0]} {other}"
    if kind in (_ALU, _ALU64) and code & 0xF0 == 0x80:
        return f"{letter}{to} = -{letter}{to}"
    if code == 0x95:
        return "exit"
    if code == 0x85:
        return f"call {constant:#x}"
    if code == 0x05:
        return f"goto {at + 1 + offset}"
    if kind in (_JMP, _JMP32) and code & 0xF0 in _COMPARISONS:
        return f"if {letter}{to} {_COMPARISONS[code & 0xF0]} {other} goto {at + 1 + offset}"
    return f"(code {code:#04x}, registers {to} {source}, offset {offset}, constant {constant})"
