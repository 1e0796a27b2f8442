"""docker's flags for limits: each value understood, each bad one refused in docker's words."""

from __future__ import annotations

import os
import stat
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicontainer import resources
from minicontainer.cli import limitflags, request
from minicontainer.cli.flags import parse
from minicontainer.cli.runflags import RUN
from minicontainer.compose import compose
from minicontainer.errors import UsageError
from minicontainer.image.config import Image, ImageConfig
from minicontainer.resources import (
    BlockIO,
    Cpu,
    DeviceNumber,
    HugepageLimit,
    Memory,
    Resources,
)
from tests.unit.mutants import fails, mutant

ID = "0123456789abcdef" * 4
MIB = 1 << 20
CPUS = len(os.sched_getaffinity(0))

# the words -> what is asked for; disks need a /dev of our own: see below
MEANINGS = [
    ("-m 64m", Resources(Memory(64 * MIB, swap=128 * MIB))),
    ("--memory=64mb --memory-swap 64m", Resources(Memory(64 * MIB, swap=64 * MIB))),
    ("-m 64m --memory-swap -1", Resources(Memory(64 * MIB, swap=-1))),
    ("-m 64m --memory-swap 0", Resources(Memory(64 * MIB, swap=128 * MIB))),
    ("-m 6m --memory-reservation 6m", Resources(Memory(6 * MIB, 6 * MIB, 12 * MIB))),
    ("--memory-reservation 1g", Resources(Memory(reservation=1 << 30))),
    ("--memory-swap -1", Resources(Memory(swap=-1))),
    ("-m 0", None),
    ("--memory-swappiness -1", None),
    ("--oom-group", Resources(unified=(("memory.oom.group", "1"),))),
    ("--oom-group=false --oom-kill-disable=false", None),
    ("--cpus 0.5", Resources(cpu=Cpu(quota=50_000, period=100_000))),
    ("--cpus .01", Resources(cpu=Cpu(quota=1000, period=100_000))),
    (f"--cpus {CPUS}.000000000", Resources(cpu=Cpu(quota=CPUS * 100_000, period=100_000))),
    ("--cpus 0", None),
    ("-c 512", Resources(cpu=Cpu(shares=512))),
    ("--cpu-shares 1", Resources(cpu=Cpu(shares=2))),
    ("-c 999999999", Resources(cpu=Cpu(shares=262_144))),
    ("-c 0", None),
    ("--cpu-period 1000 --cpu-quota 1000", Resources(cpu=Cpu(quota=1000, period=1000))),
    ("--cpu-quota -1", Resources(cpu=Cpu(quota=-1))),
    ("--cpu-quota 0 --cpu-period 0", None),
    ("--cpuset-cpus 0 --cpuset-mems 0-0", Resources(cpu=Cpu(cpus="0", mems="0-0"))),
    ("--pids-limit 20", Resources(pids=20)),
    ("--pids-limit 0", Resources(pids=-1)),
    ("--pids-limit -1", Resources(pids=-1)),
    ("--blkio-weight 10", Resources(block_io=BlockIO(weight=10))),
    ("--blkio-weight 0", None),
    ("--hugetlb 2MB=64m --hugetlb 1GB=0",
     Resources(hugepage_limits=(HugepageLimit("2MB", 64 * MIB), HugepageLimit("1GB", 0)))),
    ("--cgroup memory.high=48M --cgroup cgroup.max.depth=1",
     Resources(unified=(("memory.high", "48M"), ("cgroup.max.depth", "1")))),
    ("--cgroup io.max=8:0=x", Resources(unified=(("io.max", "8:0=x"),))),
    ("--oom-group --cgroup memory.oom.group=0",
     Resources(unified=(("memory.oom.group", "1"), ("memory.oom.group", "0")))),
]  # fmt: skip
WITH_DISKS = [
    ("--blkio-weight-device /dev/d:500", BlockIO(weight_device=(DeviceNumber(8, 16, 500),))),
    ("--device-read-bps /dev/d:1mb", BlockIO(read_bps=(DeviceNumber(8, 16, MIB),))),
    ("--device-write-bps /dev/d:5", BlockIO(write_bps=(DeviceNumber(8, 16, 5),))),
    ("--device-read-iops /dev/d:7", BlockIO(read_iops=(DeviceNumber(8, 16, 7),))),
    ("--device-write-iops /dev/d:7 --device-write-iops /dev/e:8",
     BlockIO(write_iops=(DeviceNumber(8, 16, 7), DeviceNumber(259, 3, 8)))),
    ("--device-write-iops /dev/d:0 --device-read-bps /dev/d:0 --blkio-weight-device /dev/d:0",
     BlockIO()),
]  # fmt: skip


def asked(text):
    return request.read([*text.split(), "x"], ID, {}).options.resources


def check_meanings(module):
    for text, wanted in MEANINGS:
        assert module.resources(parse(RUN, [*text.split(), "x"])) == wanted, text


def test_meanings():
    check_meanings(limitflags)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("(swap or 2 * limit) or None", "swap or None"),
        ('return UNLIMITED if text == "-1" else values.size(text)', "return values.size(text)"),
        ("* PERIOD // 10**9", "// 10**9"),
        ("period=(PERIOD if cpus else period) or None", "period=period or None"),
        ("return number and min(max(number, 2), 262_144)", "return number"),
        ("return number if number > 0 else UNLIMITED", "return number"),
        ('(("memory.oom.group", "1"),) if', "() if"),
        ('text.partition("=")\n    number', 'text.rpartition("m")\n    number'),
        ("return None if found == Resources() else found", "return found"),
    ],
)
def test_meanings_mutants(old, new):
    fails(check_meanings, mutant(limitflags, old, new))


def check_disks(module):
    """In a /dev of its own."""
    subprocess.run(["mount", "-t", "tmpfs", "dev", "/dev"], check=True)
    os.mknod("/dev/d", stat.S_IFBLK, os.makedev(8, 16))
    os.mknod("/dev/e", stat.S_IFBLK, os.makedev(259, 3))
    os.mknod("/dev/c", stat.S_IFCHR, os.makedev(1, 3))
    for text, wanted in WITH_DISKS:
        found = module.resources(parse(RUN, [*text.split(), "x"])) or Resources()
        assert found == Resources(block_io=wanted), text
    for text, message in REFUSED_DISKS:
        with pytest.raises(UsageError) as refused:
            module.resources(parse(RUN, [*text.split(), "x"]))
        assert message in refused.value.message, text


REFUSED_DISKS = [
    ("--device-read-bps /dev/c:1", "/dev/c is not a block device"),
    ("--device-read-bps /dev/no:1", "/dev/no: no such file or directory"),
    ("--device-read-bps /dev/d", "bad format: /dev/d"),
    ("--device-read-bps /dev/d:", "bad format: /dev/d:"),
    ("--device-read-bps d:1", "bad format for device path: d:1"),
    ("--device-write-bps /dev/d:-1", "invalid rate for device: /dev/d:-1. The correct format is"),
    ("--device-write-iops /dev/d:1k", "invalid rate for device: /dev/d:1k. The correct format is"),
    ("--blkio-weight-device /dev/d:9", "invalid weight for device: /dev/d:9"),
    ("--blkio-weight-device /dev/d:1001", "invalid weight for device: /dev/d:1001"),
    ("--blkio-weight-device /dev/d:x", "invalid weight for device: /dev/d:x"),
]


def test_disks(forked):
    forked(lambda: check_disks(limitflags))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("if not stat.S_ISBLK(status.st_mode):", "if False:"),
        ('if not path.startswith("/dev/"):', "if False:"),
        ("if weight and not 10 <= weight <= 1000:", "if False:"),
        ("if not colon or not value:", "if False:"),
        ("if int(rate) else None", ""),
        ("os.minor(status.st_rdev)", "0"),
        ('each("device-write-bps"', 'each("device-read-bps"'),
    ],
)  # fmt: skip
def test_disks_mutants(forked, old, new):
    fails(forked, lambda: check_disks(mutant(limitflags, old, new)))


REFUSED = [
    ("-m 1x", 'invalid argument "1x" for "-m, --memory" flag: invalid size'),
    ("-m -1", 'invalid argument "-1" for "-m, --memory" flag: invalid size'),
    ("-m 5m", "Minimum memory limit allowed is 6MB"),
    ("--memory-reservation 5m", "Minimum memory reservation allowed is 6MB"),
    ("-m 64m --memory-reservation 65m", "Minimum memory limit can not be less than memory res"),
    ("--memory-swap 64m", "You should always set the Memory limit when using Memoryswap limit"),
    ("-m 64m --memory-swap 63m", "Minimum memoryswap limit should be larger than memory limit"),
    ("--memory-swap -2", 'for "--memory-swap" flag: invalid size'),
    ("--memory-swappiness 101", "invalid value: 101. Valid memory swappiness range is 0-100"),
    ("--memory-swappiness -2", "invalid value: -2. Valid memory swappiness range is 0-100"),
    ("--oom-kill-disable", "--oom-kill-disable cannot be had: cgroup v2"),
    ("--cpus x", 'for "--cpus" flag: failed to parse x as a rational number'),
    ("--cpus -1", f"range of CPUs is from 0.01 to {CPUS}.00, as there are only {CPUS} CPUs"),
    ("--cpus --1", "failed to parse --1 as a rational number"),
    ("--cpus 0.0000000001", "value is too precise"),
    ("--cpus 0.001", f"range of CPUs is from 0.01 to {CPUS}.00, as there are only {CPUS} CPUs"),
    (f"--cpus {CPUS}.1", f"range of CPUs is from 0.01 to {CPUS}.00"),
    ("--cpus 1 --cpu-quota 1000", "Conflicting options: Nano CPUs and CPU Quota cannot both be"),
    ("--cpus 1 --cpu-period 1000", "Conflicting options: Nano CPUs and CPU Period cannot both"),
    ("--cpu-period 999", "CPU cfs period can not be less than 1ms (i.e. 1000) or larger"),
    ("--cpu-period 1000001", "CPU cfs period can not be less than 1ms (i.e. 1000) or larger"),
    ("--cpu-quota 999", "CPU cfs quota can not be less than 1ms (i.e. 1000)"),
    ("--cpu-quota -2", "out of range: -2"),
    ("-c -1", "invalid CPU shares (-1): value must be a positive integer"),
    ("--cpuset-cpus 0-", "Invalid value 0- for cpuset cpus"),
    ("--cpuset-cpus x", "Invalid value x for cpuset cpus"),
    ("--cpuset-cpus 99998", "Requested CPUs are not available - requested 99998, available: 0"),
    ("--cpuset-mems 0,99", "Requested memory nodes are not available - requested 0,99, available"),
    ("--cpuset-mems 1-0", "Invalid value 1-0 for cpuset nodes"),
    ("--pids-limit x", 'for "--pids-limit" flag: not a whole number'),
    ("--blkio-weight 9", "Range of blkio weight is from 10 to 1000"),
    ("--blkio-weight 1001", "Range of blkio weight is from 10 to 1000"),
    ("--hugetlb 2M=1", "bad format: 2M=1"),
    ("--hugetlb 2MB", "bad format: 2MB"),
    ("--hugetlb 2MB=x", "invalid size: 'x'"),
    ("--cgroup memory.high", "bad format: memory.high"),
    ("--cgroup memory.high=", "memory.high: there is no value to write"),
    ("--cgroup ../x.y=1", "'../x.y' is not the name of a cgroup's file"),
    ("--cgroup a/b.c=1", "'a/b.c' is not the name of a cgroup's file"),
    ("--cgroup memory=1", "'memory' is not the name of a cgroup's file"),
    ("--cgroup .x=1", "'.x' is not the name of a cgroup's file"),
    ("--cgroup cgroup.procs=1", "cgroup.procs is no limit"),
    ("--cgroup cgroup.freeze=1", "cgroup.freeze is no limit"),
    ("--cgroup cgroup.subtree_control=+pids", "cgroup.subtree_control is no limit"),
]


def check_refused(module):
    for text, message in REFUSED:
        try:
            got = module.resources(parse(RUN, [*text.split(), "x"]))
        except UsageError as error:
            assert message in error.message, (text, error.message)
        else:
            raise AssertionError(f"{text}: {got}")


def test_refused():
    check_refused(limitflags)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("if 0 < number < LEAST_MEMORY:", "if False:"),
        ("if swap > 0 and not limit:", "if False:"),
        ("if 0 < swap < limit:", "if False:"),
        ("if limit and reservation > limit:", "if False:"),
        ("if not -1 <= number <= 100:", "if False:"),
        ('if parsed.on("oom-kill-disable"):', "if False:"),
        ('if part[9:].strip("0"):', "if False:"),
        ("(billionths and not 10**7 <= billionths <= here * 10**9)", "False"),
        ("if negative or", "if"),
        ('text.removeprefix("-").partition', "text.partition"),
        ("if cpus and given:", "if False:"),
        ("if number and not 1000 <= number <= 1_000_000:", "if False:"),
        ("if 0 < number < 1000:", "if False:"),
        ("if number < 0:", "if False:"),
        ("if not _numbers(text) <= _numbers(available):", "if False:"),
        ("if number and not 10 <= number <= 1000:", "if False:"),
        ("return cgroup_file(name, value)", "return name, value"),
    ],
)
def test_refused_mutants(old, new):
    fails(check_refused, mutant(limitflags, old, new))


def check_negative(module):
    """docker's words, which do not say what is wrong with -1; and -0 is 0."""
    for text in ("-1", "-0.5", f"-{CPUS + 1}"):
        with pytest.raises(UsageError) as told:
            module.resources(parse(RUN, ["--cpus", text, "x"]))
        assert told.value.hint == "it must not be negative"
    with pytest.raises(UsageError) as told:
        module.resources(parse(RUN, ["--cpus", "0.001", "x"]))
    assert "negative" not in told.value.hint
    assert module.resources(parse(RUN, ["--cpus", "-0", "x"])) is None


def test_cpus_must_not_be_negative():
    check_negative(limitflags)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('negative" if negative else ""', 'negative" if True else ""'),
        ('negative" if negative else ""', 'negative" if False else ""'),
        ('negative = billionths and text.startswith("-")', 'negative = text.startswith("-")'),
    ],
)
def test_the_check_on_negative_cpus_can_fail(old, new):
    fails(check_negative, mutant(limitflags, old, new))


def test_every_flag_has_a_meaning_here():
    texts = [text for text, _ in [*MEANINGS, *WITH_DISKS]]
    names = {w.lstrip("-").partition("=")[0] for text in texts for w in text.split() if w[0] == "-"}
    names |= {RUN.shorts[n][0] for n in names if n in RUN.shorts}
    assert names >= request.LIMITS
    heading = next(rows for heading, rows in RUN.groups if heading.startswith("Limits"))
    assert {row[0] for row in heading} - {"oom-score-adj"} == request.LIMITS


def test_swappiness_is_said_to_have_no_effect(capsys):
    assert limitflags.resources(parse(RUN, ["--memory-swappiness", "60", "x"])) is None
    assert "warning: --memory-swappiness has no effect" in capsys.readouterr().err


def test_the_way_to_the_spec():
    options = request.read("-m 64m --pids-limit 5 x".split(), ID, {}).options
    spec = compose(Image("x", "", (), ImageConfig(cmd=("sh",))), options, ID)
    assert spec.linux.resources == Resources(Memory(64 * MIB, swap=128 * MIB), pids=5)
    assert asked("") is None
    assert asked("--cap-drop ALL") is None


@given(st.text("0123456789,-", max_size=12))
def test_a_list_of_cpus_is_understood_or_refused(text):
    try:
        assert resources.cpu_list(text) == text
    except UsageError:
        return
    assert limitflags._numbers(text)
