"""The few words of an ELF file that tests look at: its segments (elf(5))."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import NamedTuple

PT_LOAD, PT_DYNAMIC, PT_INTERP, PT_GNU_STACK = 1, 2, 3, 0x6474E551
EXECUTE, WRITE = 1, 2


class Segment(NamedTuple):
    """One program header of a 64-bit file, and the bytes it speaks of."""

    kind: int
    flags: int
    data: bytes


def segments(program: bytes) -> list[Segment]:
    """The program headers of an ELF file."""
    assert program[:5] == b"\x7fELF\x02", "a 64-bit ELF file"
    (start,) = struct.unpack_from("<Q", program, 32)
    size, count = struct.unpack_from("<HH", program, 54)
    found = []
    for place in range(start, start + count * size, size):
        kind, flags, offset, _, _, length = struct.unpack_from("<IIQQQQ", program, place)
        found.append(Segment(kind, flags, program[offset : offset + length]))
    return found


def interpreter(path: Path) -> str:
    """The loader that the program asks for, "" for a static one."""
    for segment in segments(path.read_bytes()):
        if segment.kind == PT_INTERP:
            return segment.data.rstrip(b"\0").decode()
    return ""
