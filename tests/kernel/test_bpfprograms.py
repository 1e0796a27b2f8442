"""kernel/bpfprograms.py and devicelist.py: what was loaded comes back, as text and as rules."""

from __future__ import annotations

import os
import struct
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minicontainer import devicelist
from minicontainer.errors import KernelError
from minicontainer.kernel import bpfprograms, cgroup, devicefilter
from minicontainer.kernel.devicefilter import ALWAYS, ANY, assemble
from tests.unit.mutants import fails, mutant

INSTRUCTION = struct.Struct("=BBhi")


def program(*instructions: tuple[int, int, int, int, int]) -> bytes:
    """Of (code, destination, source, offset, constant)."""
    return b"".join(
        INSTRUCTION.pack(code, source << 4 | to, offset, constant)
        for code, to, source, offset, constant in instructions
    )


# ---- as text, by the instruction set's own tables (instruction-set.rst)

TEXT = (
    ((0xB7, 0, 0, 0, 1), "r0 = 1"), ((0xBF, 6, 1, 0, 0), "r6 = r1"),
    ((0xB4, 0, 0, 0, -1), "w0 = -1"), ((0xBC, 2, 3, 0, 0), "w2 = w3"),
    ((0x07, 2, 0, 0, -8), "r2 += -8"), ((0x1F, 2, 3, 0, 0), "r2 -= r3"),
    ((0x57, 2, 0, 0, 65535), "r2 &= 65535"), ((0x54, 2, 0, 0, 15), "w2 &= 15"),
    ((0x4F, 6, 7, 0, 0), "r6 |= r7"), ((0x77, 3, 0, 0, 16), "r3 >>= 16"),
    ((0xC7, 3, 0, 0, 16), "r3 s>>= 16"), ((0x67, 3, 0, 0, 16), "r3 <<= 16"),
    ((0x27, 3, 0, 0, 7), "r3 *= 7"), ((0x97, 3, 0, 0, 7), "r3 %= 7"),
    ((0xAF, 3, 4, 0, 0), "r3 ^= r4"), ((0x87, 3, 0, 0, 0), "r3 = -r3"),
    ((0x61, 2, 1, 4, 0), "r2 = *(u32 *)(r1 +4)"), ((0x71, 2, 10, -1, 0), "r2 = *(u8 *)(r10 -1)"),
    ((0x69, 2, 1, 0, 0), "r2 = *(u16 *)(r1 +0)"), ((0x79, 2, 1, 8, 0), "r2 = *(u64 *)(r1 +8)"),
    ((0x63, 10, 2, -4, 0), "*(u32 *)(r10 -4) = r2"), ((0x7A, 10, 0, -8, 5), "*(u64 *)(r10 -8) = 5"),
    ((0x55, 2, 0, 3, 1), "if r2 != 1 goto {at4}"), ((0x1D, 2, 3, 1, 0), "if r2 == r3 goto {at2}"),
    ((0x16, 2, 0, 0, 5), "if w2 == 5 goto {at1}"), ((0x2D, 2, 3, 0, 0), "if r2 > r3 goto {at1}"),
    ((0xC5, 2, 0, 0, -1), "if r2 s< -1 goto {at1}"), ((0x45, 2, 0, 0, 4), "if r2 & 4 goto {at1}"),
    ((0x05, 0, 0, 1, 0), "goto {at2}"), ((0x85, 0, 0, 0, 14), "call 0xe"),
    ((0xDB, 1, 2, 0, 0), "(code 0xdb, registers 1 2, offset 0, constant 0)"),
    ((0x95, 0, 0, 0, 0), "exit"),
)  # fmt: skip


def check_text(module=bpfprograms):
    lines = module.disassemble(program(*(one for one, _ in TEXT))).splitlines()
    assert len(lines) == len(TEXT)
    for at, (line, (_, text)) in enumerate(zip(lines, TEXT, strict=True)):
        assert line == f"{at:4}: " + text.format(at1=at + 1, at2=at + 2, at4=at + 4)


def test_instructions_as_text():
    check_text()
    wide = program((0x18, 1, 0, 0, 0x1234), (0, 0, 0, 0, 0), (0x95, 0, 0, 0, 0))
    assert bpfprograms.disassemble(wide) == "   0: r1 = 0x1234 ll\n   2: exit"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('letter = "r" if kind in (_ALU64, _JMP) else "w"', 'letter = "r"'),
        ("if code & 8 else str(constant)", "if code & 16 else str(constant)"),
        ("goto {at + 1 + offset}\"\n    if kind", "goto {at + offset}\"\n    if kind"),
        ("{_COMPARISONS[code & 0xF0]} {other} goto {at + 1 + offset}",
         "{_COMPARISONS[code & 0xF0]} {other} goto {at + offset}"),
        ('0x40: "|=", 0x50: "&="', '0x40: "&=", 0x50: "|="'),
        ("to, source = code & 7, registers & 15, registers >> 4",
         "source, to = code & 7, registers & 15, registers >> 4"),
    ],
)  # fmt: skip
def test_the_check_on_text_can_fail(old, new):
    fails(check_text, mutant(bpfprograms, old, new))


# ---- as rules

numbers = st.one_of(st.just(ANY), st.integers(0, 2**31 - 1))
rules = st.tuples(
    st.booleans(), st.sampled_from("abc"), numbers, numbers,
    st.sampled_from(["r", "w", "m", "rw", "rm", "wm", "rwm"]),
)  # fmt: skip


@settings(max_examples=200)
@given(st.lists(rules, max_size=8).map(tuple))
def test_the_rules_of_a_program_are_those_it_was_made_of(some):
    assert devicelist.rules_of(assemble(some)) == some


@settings(max_examples=300)
@given(st.lists(rules, min_size=1, max_size=3).map(tuple), st.data())
def test_what_is_not_exactly_ours_is_not_taken_for_it(some, data):
    """One byte changed: another program, so other rules, or none at all; never the same."""
    code = bytearray(assemble(some))
    at = data.draw(st.integers(0, len(code) - 1))
    code[at] ^= data.draw(st.integers(1, 255))
    found = devicelist.rules_of(bytes(code))
    assert found is None or (found != some and assemble(found) == bytes(code))


def check_only_ours(module=devicelist):
    cut = assemble(ALWAYS)[:-8]
    foreign = program((0xB7, 0, 0, 0, 1), (0x95, 0, 0, 0, 0))  # "yes", as systemd's without rules
    assert module.rules_of(assemble(ALWAYS)) == ALWAYS
    assert (module.rules_of(cut), module.rules_of(foreign)) == (None, None)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("or devicefilter.assemble(found) != code", ""),
        ("numbers[compared] = constant", "numbers[4] = constant"),
        ("what == _GRANT, kind", "True, kind"),
        ("            numbers = {}\n    found", "    found"),
    ],
)
def test_the_check_on_rules_can_fail(old, new):
    broken = mutant(devicelist, old, new)

    def check():
        check_only_ours(broken)
        some = (
            (False, "c", 1, 3, "w"),
            *ALWAYS,
            (True, "c", 1, ANY, "r"),
            (True, "a", ANY, 4, "r"),
        )
        assert broken.rules_of(assemble(some)) == some

    fails(check)


# ---- from the kernel

needs_root = pytest.mark.requires_root


@pytest.fixture
def box():
    path = f"{cgroup.mount_point()}/minicontainer-test-{os.getpid()}"
    os.mkdir(path)
    yield path
    cgroup.remove(path)


def attach(path: str, code: bytes) -> None:
    """Load and attach; the cgroup alone holds it then."""
    program_fd = devicefilter.bpf_prog_load(code)
    cgroup_fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    devicefilter.bpf_prog_attach(cgroup_fd, program_fd)
    os.close(cgroup_fd)
    os.close(program_fd)


def check_read_back(box, module=bpfprograms):
    assert module.device_programs(box) == ()
    attach(box, assemble(ALWAYS))
    os.mkdir(box + "/below")
    (number,) = module.device_programs(box)
    assert module.device_programs(box + "/below") == ()
    assert number in module.device_programs(box + "/below", effective=True)
    info = module.program_info(number)
    assert info.code == assemble(ALWAYS)
    assert (info.id, info.uid, info.length) == (number, 0, len(info.code))
    assert len(info.tag) == 16
    age = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - info.loaded
    assert 0 < age < 60e9
    # a second one, of somebody else's
    attach(box, program((0xB7, 0, 0, 0, 1), (0x95, 0, 0, 0, 0)))
    first, second = module.device_programs(box)
    assert first == number
    assert module.program_info(second).length == 16
    assert module.program_info(second).tag != info.tag


@needs_root
def test_what_was_attached_is_read_back(box):
    check_read_back(box)


@needs_root
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("flags = _QUERY_EFFECTIVE if effective else 0", "flags = 0"),
        ("count = struct.unpack_from(\"=I\", union, 24)[0]", "count = 1"),
        ("0, length, 0, libc.address(code)", "0, 8, 0, libc.address(code)"),
        ("return ProgramInfo(number, tag.hex()", "return ProgramInfo(number, '0' * 16"),
    ],
)  # fmt: skip
def test_the_check_on_reading_back_can_fail(box, old, new):
    fails(check_read_back, box, mutant(bpfprograms, old, new))


@needs_root
def test_what_is_gone_is_told(box):
    attach(box, assemble(()))
    (number,) = bpfprograms.device_programs(box)
    cgroup.remove(box)
    with pytest.raises(FileNotFoundError):
        bpfprograms.device_programs(box)
    end = time.monotonic() + 30
    with pytest.raises(KernelError, match=r"BPF_PROG_GET_FD_BY_ID.*that program is gone"):
        while time.monotonic() < end:  # the kernel lets go of it a little later
            bpfprograms.program_info(number)
    os.mkdir(box)


# ---- the report


def check_report(box, module=devicelist):
    below = box + "/below"
    os.mkdir(below)
    assert "every device may be opened" in module.report(below)
    attach(box, program((0xB7, 0, 0, 0, 1), (0x95, 0, 0, 0, 0)))
    attach(below, assemble(((True, "c", 10, 229, "rw"), (False, "b", 8, ANY, "rwm"), *ALWAYS)))
    own, outer = module.report(below).split("\n\n")
    assert own.startswith(below + "\nprogram ")
    lines = [" ".join(line.split()) for line in own.splitlines()]
    assert lines[3:6] == ["refuse everything", "allow c 10:229 rw", "refuse b 8:* rwm"] or (
        lines[3:6] == ["refuse everything", "allow c 10:229 rw /dev/fuse", "refuse b 8:* rwm"]
    )
    assert "allow c 1:3 rwm /dev/null" in lines
    assert "allow c 136:* rwm /dev/pts/*" in lines
    assert "exit" not in own
    assert outer.startswith(box + "\nprogram ")
    assert "not a program of minicontainer's:\n   0: r0 = 1\n   1: exit" in outer
    assert "\n   0: r3 = *(u32 *)(r1 +0)\n" in module.report(below, instructions=True)


@needs_root
def test_the_report_names_each_program_that_is_asked(box):
    check_report(box)


@needs_root
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("        path = os.path.dirname(path)\n", "        break\n"),
        ("if rules is None or instructions:", "if rules is None:"),
        ("    if rules is not None:\n", "    if False:\n"),
        ('return f"/dev/{lines[', 'return f"{lines['),
    ],
)
def test_the_check_on_the_report_can_fail(box, old, new):
    fails(check_report, box, mutant(devicelist, old, new))
