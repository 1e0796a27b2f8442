"""kernel/limits.py on the real kernel: what is written arrives, what cannot be is told."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from minicontainer.cgrouptree import mount_point
from minicontainer.errors import KernelError, MinicontainerError
from minicontainer.kernel import cgroup, limits
from minicontainer.kernel.controllers import EnableControllers
from minicontainer.kernel.limits import (
    LimitCpu,
    LimitHugepages,
    LimitIo,
    LimitMemory,
    LimitProcesses,
    PinToCpus,
    SetCgroupFiles,
)
from tests.kernel.room import Room
from tests.unit.mutants import fails, mutant

pytestmark = pytest.mark.requires_root

MIB = 1 << 20


@pytest.fixture
def room():
    """A Context with a cgroup in it; ``controllers`` are asked for by ``given``."""
    made = Room()
    step = cgroup.MakeCgroup(f"/minicontainer-test-{os.getpid()}/id")
    step.run(made)
    yield made
    step.undo(made)
    os.rmdir(mount_point() + f"/minicontainer-test-{os.getpid()}")


def place(room) -> Path:
    return Path(os.readlink(f"/proc/self/fd/{room.cgroup_fd}"))


def given(room, *controllers):
    EnableControllers(f"/minicontainer-test-{os.getpid()}/id", controllers).run(room)


# the step, what its files say then, and without which controller there are none
STEPS = [
    pytest.param(step, said, marks=pytest.mark.kernel(said[0].partition(".")[0]), id=said[0])
    for step, said in [
        (LimitMemory(64 * MIB, 32 * MIB, 0), ("memory.max", "67108864")),
        (LimitMemory(64 * MIB, 32 * MIB, 0), ("memory.low", "33554432")),
        (LimitMemory(64 * MIB, 32 * MIB, 0), ("memory.swap.max", "0")),
        (LimitMemory(-1), ("memory.max", "max")),
        (LimitCpu(59, 50_000, 100_000), ("cpu.weight", "59")),
        (LimitCpu(59, 50_000, 100_000), ("cpu.max", "50000 100000")),
        (LimitCpu(quota=-1, period=50_000), ("cpu.max", "max 50000")),
        (LimitCpu(quota=50_000, burst=10_000), ("cpu.max.burst", "10000")),
        (LimitCpu(idle=1), ("cpu.idle", "1")),
        (PinToCpus("0", "0"), ("cpuset.cpus", "0")),
        (PinToCpus("0", "0"), ("cpuset.mems", "0")),
        (LimitProcesses(20), ("pids.max", "20")),
        (LimitProcesses(-1), ("pids.max", "max")),
        (SetCgroupFiles((("memory.high", "48M"),)), ("memory.high", "50331648")),
    ]
]


def check(room, step, said):
    file, value = said
    given(room, file.partition(".")[0])
    step.run(room)
    assert (place(room) / file).read_text() == value + "\n"
    assert room.said == []


@pytest.mark.parametrize(("step", "said"), STEPS)
def test_what_is_written_arrives(room, step, said):
    check(room, step, said)


@pytest.mark.kernel("pids")
def test_the_check_can_fail(room):
    broken = mutant(limits, "write(context.cgroup_fd, file, value, _MEANING)", "pass")
    fails(check, room, broken.LimitProcesses(20), ("pids.max", "20"))


@pytest.mark.kernel("io", "disk")
def test_a_line_for_each_disk(room, spare_disk):
    given(room, "io")
    number = os.stat(spare_disk).st_rdev
    disk = f"{os.major(number)}:{os.minor(number)}"
    LimitIo(rates=(f"{disk} rbps=1048576 wiops=10",)).run(room)
    assert (place(room) / "io.max").read_text() == (
        f"{disk} rbps=1048576 wbps=max riops=max wiops=10\n"
    )


# ---- every cgroup has these files, on every machine


def test_a_file_that_every_cgroup_has(room):
    SetCgroupFiles((("cgroup.max.depth", "3"), ("cgroup.max.descendants", "4"))).run(room)
    assert (place(room) / "cgroup.max.depth").read_text() == "3\n"
    assert (place(room) / "cgroup.max.descendants").read_text() == "4\n"


def test_a_value_that_the_kernel_does_not_take_is_told(room):
    with pytest.raises(KernelError, match=r'write\("cgroup.max.depth", "-7"\).*ERANGE') as told:
        SetCgroupFiles((("cgroup.max.depth", "-7"),)).run(room)
    assert told.value.meaning == "the kernel does not take this value here"
    with pytest.raises(KernelError, match=r"EINVAL.*does not take this value here"):
        SetCgroupFiles((("cgroup.max.depth", "deep"),)).run(room)


def test_a_file_that_is_not_there_is_told(room):
    with pytest.raises(KernelError, match=r"ENOENT.*this kernel has no such file, or its contro"):
        SetCgroupFiles((("memory.tea", "1"),)).run(room)
    # that is also what the counterfactual looks like: --without controllers
    with pytest.raises(KernelError, match=r"memory.max.*ENOENT.*cgroup.subtree_control"):
        LimitMemory(64 * MIB).run(room)


def test_what_a_kernel_may_lack_is_done_without_and_told(room):
    """No controller was handed down, so this cgroup has none of these files."""
    LimitMemory(swap_max=0).run(room)
    LimitIo((("io.bfq.weight", "default 500"), ("io.weight", "default 4950"))).run(room)
    assert room.said == [
        "this kernel has no memory.swap.max: memory is limited, swap is not",
        "this kernel has no io.bfq.weight: the disks are not shared by weight",
    ]


def test_one_of_two_files_is_enough(room):
    """Every kernel has cgroup.max.depth: whoever takes that instead of io.weight hears nothing."""

    class Either(LimitIo):
        optional = ("cgroup.max.depth", "io.bfq.weight")

    Either((("io.bfq.weight", "1"), ("cgroup.max.depth", "2"))).run(room)
    assert room.said == []
    assert (place(room) / "cgroup.max.depth").read_text() == "2\n"


def test_without_a_cgroup_a_limit_is_an_error_and_no_wish():
    for step in (LimitMemory(64 * MIB), LimitProcesses(5), LimitHugepages((("2MB", 0),))):
        with pytest.raises(MinicontainerError, match="there is no cgroup whose"):
            step.run(Room())


def check_no_cgroup(module):
    with pytest.raises(MinicontainerError, match="there is no cgroup"):
        module.LimitProcesses(5).run(Room())


def test_the_check_on_no_cgroup_can_fail():
    """Without a descriptor the file would be looked for in the working directory."""
    check_no_cgroup(limits)
    fails(check_no_cgroup, mutant(limits, "if context.cgroup_fd < 0:", "if False:"))
