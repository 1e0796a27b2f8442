"""From OCI's words to cgroup v2's files: the numbers, and the Steps that they become."""

from __future__ import annotations

import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicontainer import resources
from minicontainer.errors import UsageError
from minicontainer.kernel.controllers import EnableControllers
from minicontainer.kernel.limits import (
    Limit,
    LimitCpu,
    LimitHugepages,
    LimitIo,
    LimitMemory,
    LimitProcesses,
    PinToCpus,
    SetCgroupFiles,
)
from minicontainer.plan import Place, plan
from minicontainer.resources import (
    BlockIO,
    Cpu,
    DeviceNumber,
    HugepageLimit,
    Memory,
    Resources,
    cgroup_file,
    controller_steps,
    cpu_weight,
    io_weight,
    limit_steps,
    swap_alone,
)
from minicontainer.spec import Linux, Process, Root, Spec
from tests.unit.mutants import fails, mutant

MIB = 1 << 20


# ---- numbers


def check_cpu_weight(module):
    """The three points that the curve goes through, some that runc 1.3.2 gives, and the ends."""
    known = {2: 1, 3: 2, 10: 4, 100: 17, 512: 59, 1024: 100, 2000: 170, 2048: 174, 262_144: 10_000}
    assert {shares: module.cpu_weight(shares) for shares in known} == known
    assert (module.cpu_weight(0), module.cpu_weight(1 << 40)) == (1, 10_000)


def test_cpu_weight():
    check_cpu_weight(resources)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("- 7 / 34", "- 7 / 33"),
        ("math.ceil(10**exponent)", "int(10**exponent)"),
        ("min(max(shares, 2), 262_144)", "max(shares, 2)"),
        ("min(max(shares, 2), 262_144)", "min(shares, 262_144)"),
    ],
)
def test_cpu_weight_mutants(old, new):
    fails(check_cpu_weight, mutant(resources, old, new))


@given(st.integers(2, 262_143))
def test_more_shares_are_never_less_weight(shares):
    assert 1 <= cpu_weight(shares) <= cpu_weight(shares + 1) <= 10_000


@given(st.integers(10, 1000))
def test_io_weight_is_in_range_and_grows(weight):
    assert 1 <= io_weight(weight) <= 10_000
    assert (io_weight(10), io_weight(500), io_weight(1000)) == (1, 4950, 10_000)
    assert weight == 10 or io_weight(weight - 1) < io_weight(weight)


@pytest.mark.parametrize(
    ("memory", "alone"),
    [
        (Memory(), None),
        (Memory(100), None),
        (Memory(100, swap=-1), -1),
        (Memory(swap=-1), -1),
        (Memory(100, swap=100), 0),
        (Memory(100, swap=150), 50),
    ],
)
def test_swap_alone(memory, alone):
    assert swap_alone(memory) == alone


@pytest.mark.parametrize("memory", [Memory(swap=100), Memory(-1, swap=100), Memory(101, swap=100)])
def test_swap_that_cannot_be_meant(memory):
    with pytest.raises(UsageError, match="memory and swap together"):
        limit_steps(Resources(memory))


# ---- steps

EVERYTHING = Resources(
    Memory(64 * MIB, 32 * MIB, 96 * MIB),
    Cpu(512, 50_000, None, 10_000, 0, "0-3,7", "0"),
    20,
    BlockIO(
        500,
        (DeviceNumber(8, 16, 100),),
        (DeviceNumber(8, 0, 1), DeviceNumber(8, 16, 5)),
        (DeviceNumber(8, 0, 2),),
        (DeviceNumber(8, 0, 3),),
        (DeviceNumber(8, 0, 4),),
    ),
    (HugepageLimit("2MB", 2 * MIB),),
    (("memory.high", "48M"), ("cgroup.max.depth", "0")),
)
ALL_STEPS = (
    EnableControllers("/a/b", ("memory", "cpu", "cpuset", "pids", "io", "hugetlb")),
    LimitMemory(64 * MIB, 32 * MIB, 32 * MIB),
    LimitCpu(59, 50_000, 100_000, 10_000, 0),
    PinToCpus("0-3,7", "0"),
    LimitProcesses(20),
    LimitIo(
        (
            ("io.bfq.weight", "default 500"), ("io.weight", "default 4950"),
            ("io.bfq.weight", "8:16 100"), ("io.weight", "8:16 910"),
        ),
        ("8:0 rbps=1 wbps=2 riops=3 wiops=4", "8:16 rbps=5"),
    ),
    LimitHugepages((("2MB", 2 * MIB),)),
    SetCgroupFiles((("memory.high", "48M"), ("cgroup.max.depth", "0"))),
)  # fmt: skip
FILES = """\
memory.max 67108864
memory.low 33554432
memory.swap.max 33554432
cpu.weight 59
cpu.max 50000 100000
cpu.max.burst 10000
cpu.idle 0
cpuset.cpus 0-3,7
cpuset.mems 0
pids.max 20
io.bfq.weight default 500
io.weight default 4950
io.bfq.weight 8:16 100
io.weight 8:16 910
io.max 8:0 rbps=1 wbps=2 riops=3 wiops=4
io.max 8:16 rbps=5
hugetlb.2MB.max 2097152
hugetlb.2MB.rsvd.max 2097152
memory.high 48M
cgroup.max.depth 0
"""


def files(steps):
    limits = (step for step in steps if isinstance(step, Limit))
    return "".join(f"{file} {value}\n" for limit in limits for file, value in limit.files())


def test_everything_becomes_steps():
    steps = (*controller_steps(EVERYTHING, "/a/b"), *limit_steps(EVERYTHING))
    assert steps == ALL_STEPS
    assert files(steps) == FILES


@pytest.mark.parametrize("field", Resources._fields)
def test_each_part_counts(field):
    """The mutant of the test above: without a part there are other steps."""
    less = EVERYTHING.replace(**{field: getattr(Resources, field)})
    assert (*controller_steps(less, "/a/b"), *limit_steps(less)) != ALL_STEPS


@pytest.mark.parametrize(
    ("asked", "written"),
    [
        (Resources(), ""),
        (Resources(Memory(-1)), "memory.max max\n"),
        (Resources(cpu=Cpu(period=50_000)), "cpu.max max 50000\n"),
        (Resources(cpu=Cpu(quota=-1)), "cpu.max max 100000\n"),
        (Resources(cpu=Cpu(mems="0")), "cpuset.mems 0\n"),
        (Resources(pids=-1), "pids.max max\n"),
    ],
)
def test_what_is_not_asked_for_is_not_written(asked, written):
    assert files(limit_steps(asked)) == written


def test_files_that_every_cgroup_has_need_no_controller():
    asked = Resources(unified=(("cgroup.max.depth", "0"),))
    (only,) = limit_steps(asked)
    assert isinstance(only, SetCgroupFiles)
    assert controller_steps(asked, "/a") == ()


def test_controllers_come_first_and_limits_when_no_memory_is_shared_any_more():
    linux = Linux(cgroups_path="/a/b", resources=Resources(pids=5))
    names = [s.name for s in plan(Spec(Process(("x",)), Root("/r"), linux=linux), Place("x", "/s"))]
    first = names.index("cgroup")
    assert names[first : first + 3] == ["cgroup", "accounting", "controllers"]
    assert names[first + 3 : first + 5] == ["device-filter", "cgroup"]
    assert names[-2:] == ["exec", "pids"]


def test_the_commands_are_for_a_shell():
    """What --as-shell prints, run by sh(1) where files play the cgroup's."""
    script = "".join(step.shell() + "\n" for step in ALL_STEPS)
    assert (
        'echo "+memory +cpu +cpuset +pids +io +hugetlb" > "${CGROUP%/*/*}/cgroup.subtree' in script
    )
    subprocess.run(["sh", "-n"], input=script, text=True, check=True)
    hostile = SetCgroupFiles((("memory.high", "1; touch /pwned"),))
    assert hostile.shell() == "echo '1; touch /pwned' > \"$CGROUP/memory.high\""


def test_the_commands_write_the_same_files(tmp_path):
    """An append for each echo: then what is written can be compared."""
    (tmp_path / "a/b").mkdir(parents=True)
    for file in {line.split()[0] for line in FILES.splitlines()}:
        (tmp_path / "a/b" / file).touch()
    script = "".join(step.shell() + "\n" for step in ALL_STEPS).replace("> ", ">> ")
    subprocess.run(["sh", "-eu"], input=script, text=True, check=True,
                   env={"CGROUP": f"{tmp_path}/a/b", "PATH": "/usr/bin:/bin"})  # fmt: skip
    wanted: dict[str, str] = {}
    for line in FILES.splitlines():
        file, _, value = line.partition(" ")
        wanted[file] = wanted.get(file, "") + value + "\n"
    assert {p.name: p.read_text() for p in (tmp_path / "a/b").iterdir()} == wanted
    for place in (tmp_path, tmp_path / "a"):
        assert (place / "cgroup.subtree_control").read_text() == (
            "+memory +cpu +cpuset +pids +io +hugetlb\n"
        )


# ---- names of files


@pytest.mark.parametrize(
    "name",
    ["memory.high", "io.bfq.weight", "hugetlb.2MB.max", "cpu.uclamp.min", "cgroup.max.descendants"],
)
def test_a_file_of_the_kernels(name):
    assert cgroup_file(name, "1") == (name, "1")


@given(st.text("abc./_-\0 é\n", max_size=9))
def test_no_name_leads_out_of_the_cgroup(name):
    try:
        cgroup_file(name, "1")
    except UsageError:
        return
    assert "/" not in name
    assert not name.startswith(".")
    assert name.isascii()
    assert name.isprintable()


@pytest.mark.parametrize("value", ["", " ", "1\0"])
def test_no_value(value):
    with pytest.raises(UsageError):
        cgroup_file("memory.high", value)
