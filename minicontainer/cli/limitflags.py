"""docker's flags for what a container may use: understood, or refused in docker's words.

Apart from ``cli/rare.py`` only so that a container without limits does not load what reads them.
What the values become in cgroup v2 is in resources.py; that a limit is impossible on this machine
shows when it is to be written, and then nothing is left behind.

By hand:  docker run --help; docker-run(1)
"""

from __future__ import annotations

import os
import stat

from minicontainer import values
from minicontainer.cli.flags import Parsed
from minicontainer.cli.output import say
from minicontainer.errors import UsageError
from minicontainer.kernel.limits import UNLIMITED
from minicontainer.resources import (
    PERIOD,
    BlockIO,
    Cpu,
    DeviceNumber,
    HugepageLimit,
    Memory,
    Resources,
    cgroup_file,
    cpu_list,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

LEAST_MEMORY = 6 << 20  # docker's: in less, the runtime's own few pages leave no room
_TOP = (1 << 63) - 1


def resources(parsed: Parsed) -> Resources | None:
    """What the flags ask for, None if nothing.  Raises UsageError."""
    group = (("memory.oom.group", "1"),) if parsed.on("oom-group") else ()
    if parsed.on("oom-kill-disable"):
        raise UsageError(
            "--oom-kill-disable cannot be had: cgroup v2 cannot switch the OOM killer off",
            "it would leave processes waiting for ever; --oom-score-adj says who is to go first",
        )
    found = Resources(
        memory=_memory(parsed),
        cpu=_cpu(parsed),
        pids=parsed.one("pids-limit", _pids, None),
        block_io=BlockIO(
            weight=parsed.one("blkio-weight", _weight, None),
            weight_device=_given(parsed.each("blkio-weight-device", _weight_device)),
            read_bps=_given(parsed.each("device-read-bps", _bytes_per_second)),
            write_bps=_given(parsed.each("device-write-bps", _bytes_per_second)),
            read_iops=_given(parsed.each("device-read-iops", _requests_per_second)),
            write_iops=_given(parsed.each("device-write-iops", _requests_per_second)),
        ),
        hugepage_limits=parsed.each("hugetlb", _hugepages),
        unified=group + parsed.each("cgroup", _any_file),
    )
    return None if found == Resources() else found


# ---- memory


def _memory(parsed: Parsed) -> Memory:
    """-m, --memory-reservation, --memory-swap: 0 is "not asked for", as with docker."""
    limit = parsed.one("memory", values.size, 0)
    reservation = parsed.one("memory-reservation", values.size, 0)
    swap = parsed.one("memory-swap", _swap, 0)
    for number, what in ((limit, "limit"), (reservation, "reservation")):
        if 0 < number < LEAST_MEMORY:
            raise UsageError(f"Minimum memory {what} allowed is 6MB")
    if swap > 0 and not limit:
        raise UsageError(
            "You should always set the Memory limit when using Memoryswap limit, see usage",
            "--memory-swap is memory and swap together, -m the memory in it",
        )
    if 0 < swap < limit:
        raise UsageError(
            "Minimum memoryswap limit should be larger than memory limit, see usage",
            "--memory-swap is memory and swap together; the same as -m is no swap",
        )
    if limit and reservation > limit:
        raise UsageError(
            "Minimum memory limit can not be less than memory reservation limit, see usage"
        )
    if parsed.one("memory-swappiness", _swappiness, UNLIMITED) != UNLIMITED:
        say("warning: --memory-swappiness has no effect: cgroup v2 has no swappiness of its own")
    # docker's default: as much swap again as memory
    return Memory(limit or None, reservation or None, (swap or 2 * limit) or None)


def _swap(text: str) -> int:
    return UNLIMITED if text == "-1" else values.size(text)


def _swappiness(text: str) -> int:
    number = values.whole_number(text)
    if not -1 <= number <= 100:
        raise UsageError(f"invalid value: {number}. Valid memory swappiness range is 0-100")
    return number


# ---- cpu


def _cpu(parsed: Parsed) -> Cpu:
    cpus = parsed.one("cpus", _cpus, 0)
    period = parsed.one("cpu-period", _period, 0)
    quota = parsed.one("cpu-quota", _quota, 0)
    for name, given in (("Period", period), ("Quota", quota)):
        if cpus and given:
            raise UsageError(
                f"Conflicting options: Nano CPUs and CPU {name} cannot both be set.",
                "--cpus 0.5 is --cpu-quota 50000 --cpu-period 100000",
            )
    return Cpu(
        shares=parsed.one("cpu-shares", _shares, 0) or None,
        quota=(cpus or quota) or None,
        period=(PERIOD if cpus else period) or None,
        cpus=parsed.one("cpuset-cpus", _online("cpu", "CPUs"), ""),
        mems=parsed.one("cpuset-mems", _online("node", "memory nodes"), ""),
    )


def _cpus(text: str) -> int:
    """A number of CPUs such as 1.5, as the quota of a period.  docker counts in milliardths."""
    whole, _, part = text.removeprefix("-").partition(".")
    digits = whole + part
    if not (digits.isascii() and digits.isdecimal() and len(digits) < 20):
        raise UsageError(f"failed to parse {text} as a rational number")
    if part[9:].strip("0"):
        raise UsageError("value is too precise")
    billionths = int(whole or "0") * 10**9 + int(part[:9].ljust(9, "0"))
    here = len(os.sched_getaffinity(0))
    negative = billionths and text.startswith("-")
    if negative or (billionths and not 10**7 <= billionths <= here * 10**9):
        raise UsageError(
            f"range of CPUs is from 0.01 to {here}.00, as there are only {here} CPUs available",
            "it must not be negative" if negative else "",
        )
    return billionths * PERIOD // 10**9


def _period(text: str) -> int:
    number = values.integer(text, 0, _TOP)
    if number and not 1000 <= number <= 1_000_000:
        raise UsageError(
            "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)"
        )
    return number


def _quota(text: str) -> int:
    number = values.integer(text, -1, _TOP)
    if 0 < number < 1000:
        raise UsageError("CPU cfs quota can not be less than 1ms (i.e. 1000)")
    return number


def _shares(text: str) -> int:
    """docker takes any number and gives the nearest that the kernel has, from 2 to 262144."""
    number = values.integer(text, -_TOP, _TOP)
    if number < 0:
        raise UsageError(f"invalid CPU shares ({number}): value must be a positive integer")
    return number and min(max(number, 2), 262_144)


def _online(kind: str, what: str) -> Callable[[str], str]:
    """A reader of lists of CPUs (kind "cpu") or memory nodes ("node") that there are."""

    def read(text: str) -> str:
        try:
            cpu_list(text)
        except UsageError as error:
            raise UsageError(f"Invalid value {text} for cpuset {kind}s", error.hint) from None
        try:
            with open(f"/sys/devices/system/{kind}/online") as file:
                available = file.read().strip()
        except FileNotFoundError:
            available = "0"  # a kernel for one CPU, or one without NUMA
        if not _numbers(text) <= _numbers(available):
            raise UsageError(
                f"Requested {what} are not available - requested {text}, available: {available}"
            )
        return text

    return read


def _numbers(text: str) -> set[int]:
    """ "0-2,7" is 0, 1, 2 and 7; a number of five digits is already none that there is."""
    found: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return found


# ---- processes


def _pids(text: str) -> int | None:
    """-1 is unlimited, as is 0 with docker."""
    number = values.integer(text, -_TOP, _TOP)
    return number if number > 0 else UNLIMITED


# ---- disks


def _weight(text: str) -> int | None:
    number = values.integer(text, 0, _TOP)
    if number and not 10 <= number <= 1000:
        raise UsageError("Range of blkio weight is from 10 to 1000")
    return number or None


def _weight_device(text: str) -> DeviceNumber | None:
    path, number = _pair(text)
    if not (number.isascii() and number.isdecimal() and len(number) < 20):
        raise UsageError(f"invalid weight for device: {text}")
    weight = int(number)
    if weight and not 10 <= weight <= 1000:
        raise UsageError(f"invalid weight for device: {text}")
    return DeviceNumber(*_disk(path), weight) if weight else None


def _bytes_per_second(text: str) -> DeviceNumber | None:
    path, rate = _pair(text)
    try:
        number = values.size(rate)
    except UsageError:
        raise UsageError(
            f"invalid rate for device: {text}. The correct format is "
            "<device-path>:<number>[<unit>]. Number must be a positive integer. Unit is optional "
            "and can be kb, mb, or gb"
        ) from None
    return DeviceNumber(*_disk(path), number) if number else None


def _requests_per_second(text: str) -> DeviceNumber | None:
    path, rate = _pair(text)
    if not (rate.isascii() and rate.isdecimal() and len(rate) < 20):
        raise UsageError(
            f"invalid rate for device: {text}. The correct format is <device-path>:<number>. "
            "Number must be a positive integer"
        )
    return DeviceNumber(*_disk(path), int(rate)) if int(rate) else None


def _pair(text: str) -> tuple[str, str]:
    path, colon, value = text.partition(":")
    if not colon or not value:
        raise UsageError(f"bad format: {text}")
    if not path.startswith("/dev/"):
        raise UsageError(f"bad format for device path: {text}")
    return path, value


def _disk(path: str) -> tuple[int, int]:
    """The numbers of a block device.  Raises UsageError."""
    try:
        status = os.stat(path)
    except OSError as error:
        raise UsageError(f"{path}: {(error.strerror or '').lower()}") from None
    if not stat.S_ISBLK(status.st_mode):
        raise UsageError(f"{path} is not a block device", "lsblk lists them")
    return os.major(status.st_rdev), os.minor(status.st_rdev)


def _given(devices: tuple[DeviceNumber | None, ...]) -> tuple[DeviceNumber, ...]:
    """Without those whose value was 0, which is docker's for "not asked for"."""
    return tuple(device for device in devices if device)


# ---- ours


def _hugepages(text: str) -> HugepageLimit:
    """``SIZE=BYTES`` as in 2MB=64m."""
    size, equals, limit = text.partition("=")
    number, unit = size[:-2], size[-2:]
    if not (equals and number.isascii() and number.isdecimal() and unit in ("KB", "MB", "GB")):
        raise UsageError(f"bad format: {text}", "as in --hugetlb 2MB=64m")
    return HugepageLimit(size, values.size(limit))


def _any_file(text: str) -> tuple[str, str]:
    """``FILE=VALUE`` as in memory.high=48M."""
    name, equals, value = text.partition("=")
    if not equals:
        raise UsageError(f"bad format: {text}", "as in --cgroup memory.high=48M")
    return cgroup_file(name, value)
