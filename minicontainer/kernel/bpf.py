"""Classic BPF: the small machine in the kernel that judges each system call, and an assembler.

The machine has one register, A, and looks at one struct seccomp_data: the call's number, the
architecture it was made for, and six arguments.  Six instructions are all a filter needs:

    ld  offset         A = the 32 bits at this offset of seccomp_data
    and mask           A = A & mask
    jeq k, yes, no     compare A with k; skip ``yes`` instructions if true, ``no`` if not
    jgt, jge           ... the same with A > k and A >= k, unsigned
    ja  distance       skip so many, always
    ret verdict        done: let the call pass, make it fail with an errno, kill, ...

Two rules let the kernel trust any program without running it first.  Jumps go *forward* only, so
every program ends; and a program has at most 4096 instructions, so it ends soon.  One nuisance:
the distances of conditional jumps are 8 bits wide.  Farther goes only ``ja``.

Since a jump only ever looks forward, programs are easiest written *backwards*: by the time an
instruction is written, everything it may jump to already stands, and its distance is known.  A
filter then grows as a decision tree does, leaves first: ``ret`` gives a label, ``jump`` joins two
labels into a new one, and the last label made is the root, where the machine begins.

linux/filter.h, linux/seccomp.h, seccomp(2); Documentation/networking/filter.rst.
See it: ``python3 -c "from minicontainer.kernel import bpf; ..."``, ``disassemble(program)``.
"""

from __future__ import annotations

import errno
import struct

# ---- vocabulary: struct sock_filter { u16 code; u8 jt, jf; u32 k }

_INSTRUCTION = struct.Struct("=HBBI")
MAX_INSTRUCTIONS = 4096  # BPF_MAXINSNS

_LD, _AND, _JA, _RET = 0x20, 0x54, 0x05, 0x06
JEQ, JGT, JGE = 0x15, 0x25, 0x35

# struct seccomp_data { int nr; u32 arch; u64 instruction_pointer; u64 args[6] }
NUMBER = 0
ARCHITECTURE = 4


def low_half(index: int) -> int:
    """The offset of the lower 32 bits of argument ``index``.  The machine loads 32 bits at a time,
    so a 64-bit argument takes two loads; x86 and ARM are little-endian: the low half comes first.
    """
    return 16 + 8 * index


def high_half(index: int) -> int:
    """The offset of the upper 32 bits of argument ``index``."""
    return low_half(index) + 4


# Verdicts, strictest first: where several filters are loaded, the kernel obeys the strictest.
KILL_PROCESS = 0x80000000
KILL_THREAD = 0x00000000
TRAP = 0x00030000
ERRNO = 0x00050000  # | the errno
TRACE = 0x7FF00000  # | a number for the tracer
LOG = 0x7FFC0000
ALLOW = 0x7FFF0000
_NAMES = {
    KILL_PROCESS: "KILL_PROCESS", KILL_THREAD: "KILL_THREAD", TRAP: "TRAP", ERRNO: "ERRNO",
    TRACE: "TRACE", LOG: "LOG", ALLOW: "ALLOW",
}  # fmt: skip


def strictness(verdict: int) -> int:
    """0 for the strictest kind of verdict, 6 for ALLOW."""
    return list(_NAMES).index(verdict & 0xFFFF0000)


# ---- the assembler

_FARTHEST = 255


class Program:
    """A program being written from its last instruction to its first.

    Each method writes one instruction and returns its *label*: how many instructions follow it.
    """

    def __init__(self) -> None:
        self._backwards: list[tuple[int, int, int, int]] = []
        self._verdicts: dict[int, int] = {}

    def ret(self, verdict: int) -> int:
        """End with ``verdict``.  One near enough to be jumped to is used again."""
        label = self._verdicts.get(verdict, -1)
        if label < 0 or not self._near(label):
            label = self._verdicts[verdict] = self._write(_RET, 0, 0, verdict)
        return label

    def jump(self, test: int, k: int, yes: int, no: int) -> int:
        """``test`` (JEQ, JGT, JGE) A against ``k``; go on at label ``yes`` or ``no``."""
        if yes == no:
            return yes
        yes, no = self._within_reach(yes), self._within_reach(no)
        return self._write(test, self._distance(yes), self._distance(no), k)

    def load(self, offset: int, then: int) -> int:
        """A = the 32 bits at ``offset`` of seccomp_data; go on at label ``then``."""
        self._make_next(then)
        return self._write(_LD, 0, 0, offset)

    def mask(self, mask: int, then: int) -> int:
        """A = A & ``mask``; go on at label ``then``."""
        self._make_next(then)
        return self._write(_AND, 0, 0, mask)

    def assemble(self, root: int) -> bytes:
        """The finished program, for seccomp_set_mode_filter; it begins at label ``root``."""
        self._make_next(root)
        return b"".join([_INSTRUCTION.pack(*one) for one in reversed(self._backwards)])

    def _write(self, code: int, yes: int, no: int, k: int) -> int:
        self._backwards.append((code, yes, no, k))
        return len(self._backwards) - 1

    def _distance(self, label: int) -> int:
        """How many instructions the one written next must skip to come to ``label``."""
        return len(self._backwards) - 1 - label

    def _near(self, label: int) -> bool:
        # One less than the farthest: the other branch may yet put one instruction in between.
        return self._distance(label) < _FARTHEST

    def _within_reach(self, label: int) -> int:
        """``label``, or something nearer that comes to the same."""
        if self._near(label):
            return label
        code, _, _, k = self._backwards[label]
        return self.ret(k) if code == _RET else self._signpost(label)

    def _make_next(self, label: int) -> None:
        """Only jumps choose where to go on; all else goes on with the instruction that follows."""
        if self._distance(label) != 0:
            self._signpost(label)

    def _signpost(self, label: int) -> int:
        return self._write(_JA, 0, 0, self._distance(label))


def disassemble(program: bytes) -> str:
    """The program as text, an instruction a line: ``12  jge 64, 13, 20`` (absolute targets)."""
    lines = []
    words = {_LD: "ld", _AND: "and", _JA: "ja", _RET: "ret", JEQ: "jeq", JGT: "jgt", JGE: "jge"}
    for at, (code, yes, no, k) in enumerate(_INSTRUCTION.iter_unpack(program)):
        word = words.get(code, f"{code:#x}")
        if code == _RET:
            what = _NAMES.get(k & 0xFFFF0000, hex(k))
            if k & 0xFFFF:
                what += " " + errno.errorcode.get(k & 0xFFFF, str(k & 0xFFFF))
        elif code == _LD:
            half = f"args[{(k - 16) // 8}].{'high' if k % 8 else 'low'}"
            what = {NUMBER: "nr", ARCHITECTURE: "arch"}.get(k, half)
        elif code == _JA:
            what = str(at + 1 + k)
        elif code == _AND:
            what = hex(k)
        else:
            what = f"{k:#x}, {at + 1 + yes}, {at + 1 + no}"
        lines.append(f"{at:4}  {word:3} {what}")
    return "\n".join(lines)
