"""The kernel's side of seccomp, in Python: verify a program, run it, and break its compiler.

``run`` executes a classic BPF program on one system call, as linux/net/core/filter.c would;
``verify`` refuses what the kernel's verifier refuses; ``mutant`` loads a module with one change in
its source, for tests that must fail then.
"""

from __future__ import annotations

import importlib.util
import struct
from pathlib import Path
from types import ModuleType

INSTRUCTION = struct.Struct("=HBBI")
LD, AND, JA, RET = 0x20, 0x54, 0x05, 0x06
TESTS = {
    0x15: lambda a, k: a == k,
    0x25: lambda a, k: a > k,
    0x35: lambda a, k: a >= k,
    0x45: lambda a, k: a & k != 0,
}


def decode(program: bytes) -> list[tuple[int, int, int, int]]:
    return list(INSTRUCTION.iter_unpack(program))


def verify(program: bytes) -> None:
    """bpf_check_classic and seccomp_check_filter: lengths, jumps, offsets, the last instruction."""
    assert 0 < len(program) <= 4096 * 8
    code = decode(program)
    for at, (op, yes, no, k) in enumerate(code):
        if op == LD:
            assert k % 4 == 0 and k < 64, f"{at}: loads outside seccomp_data"
        elif op == JA:
            assert at + 1 + k < len(code), f"{at}: jumps out"
        elif op in TESTS:
            assert at + 1 + max(yes, no) < len(code), f"{at}: jumps out"
        else:
            assert op in (AND, RET), f"{at}: {op:#x} is no instruction of a filter"
    assert code[-1][0] == RET


def run(
    program: bytes | list[tuple[int, int, int, int]],
    number: int,
    architecture: int,
    args: tuple[int, ...] = (),
) -> int:
    """The verdict on one system call."""
    code = decode(program) if isinstance(program, bytes) else program
    six = [*args, 0, 0, 0, 0, 0, 0][:6]
    data = struct.pack("=IIQ6Q", number, architecture, 0, *six)
    a = at = 0
    while True:
        op, yes, no, k = code[at]
        at += 1
        if op == LD:
            a = int.from_bytes(data[k : k + 4], "little")
        elif op == AND:
            a &= k
        elif op == JA:
            at += k
        elif op == RET:
            return k
        else:
            at += yes if TESTS[op](a, k) else no


def steps(program: bytes, number: int, architecture: int) -> int:
    """How many instructions it takes to judge a call whose arguments are 0."""
    code, count, at, a = decode(program), 0, 0, 0
    while True:
        op, yes, no, k = code[at]
        at, count = at + 1, count + 1
        if op == LD:
            a = {0: number, 4: architecture}.get(k, 0)
        elif op == AND:
            a &= k
        elif op == JA:
            at += k
        elif op == RET:
            return count
        else:
            at += yes if TESTS[op](a, k) else no


def mutant(module: ModuleType, old: str, new: str) -> ModuleType:
    """``module`` loaded anew, with ``old`` in its source replaced by ``new``, everywhere."""
    source = Path(str(module.__file__)).read_text()
    assert old in source, f"{module.__name__} no longer says {old!r}: this mutant is void"
    spec = importlib.util.spec_from_loader(f"{module.__name__}_mutant", loader=None)
    assert spec
    broken = importlib.util.module_from_spec(spec)
    broken.__file__ = module.__file__
    exec(compile(source.replace(old, new), str(module.__file__), "exec"), broken.__dict__)
    return broken
