"""Resources: what a container may use, in OCI's words, and what those are to cgroup v2.

OCI's words are cgroup v1's, and docker's flags are OCI's.  Version 2 counts some things otherwise:

    memory.swap      memory and swap together     memory.swap.max   swap alone
    cpu.shares       2 to 262144, usually 1024    cpu.weight        1 to 10000, usually 100
    blockIO.weight   10 to 1000                   io.weight         1 to 10000, usually 100
    quota, period    two numbers                  cpu.max           both in one line
    -1, or nothing   no limit                     "max"

A Resources value keeps what was asked for; ``controller_steps`` and ``limit_steps`` make it Steps.
What is None or empty was not asked for, and its file is left as the kernel made it.

Specs: runtime-spec, config-linux.md, "Control groups"; cgroups(7).
"""

from __future__ import annotations

from minicontainer.errors import UsageError
from minicontainer.kernel.controllers import EnableControllers
from minicontainer.kernel.limits import (
    UNLIMITED,
    Limit,
    LimitCpu,
    LimitHugepages,
    LimitIo,
    LimitMemory,
    LimitProcesses,
    PinToCpus,
    SetCgroupFiles,
)
from minicontainer.step import Record

PERIOD = 100_000  # microseconds: the kernel's own default

# of the files that every cgroup has, those that are limits; the others would move processes,
# freeze a container before it began, or make a cgroup that no process can be born in
_CORE_FILES = ("cgroup.max.depth", "cgroup.max.descendants", "cgroup.pressure")


class Memory(Record):
    """config-linux.md, "memory": bytes, -1 for no limit.  ``swap`` is memory and swap together."""

    limit: int | None = None
    reservation: int | None = None
    swap: int | None = None


class Cpu(Record):
    """config-linux.md, "cpu": times in microseconds; ``cpus``, ``mems`` are lists as in 0-3,7."""

    shares: int | None = None
    quota: int | None = None
    period: int | None = None
    burst: int | None = None
    idle: int | None = None
    cpus: str = ""
    mems: str = ""


class DeviceNumber(Record):
    """config-linux.md, "weightDevice", "throttleReadBpsDevice" and so on: a disk, and its weight,
    or bytes or requests a second."""

    major: int
    minor: int
    value: int


class BlockIO(Record):
    """config-linux.md, "blockIO"."""

    weight: int | None = None
    weight_device: tuple[DeviceNumber, ...] = ()
    read_bps: tuple[DeviceNumber, ...] = ()
    write_bps: tuple[DeviceNumber, ...] = ()
    read_iops: tuple[DeviceNumber, ...] = ()
    write_iops: tuple[DeviceNumber, ...] = ()


class HugepageLimit(Record):
    """config-linux.md, "hugepageLimits": bytes in pages of a size such as "2MB"."""

    page_size: str
    limit: int


class Resources(Record):
    """config-linux.md, "resources", without the devices; ``unified`` are cgroup v2's own files."""

    memory: Memory = Memory()
    cpu: Cpu = Cpu()
    pids: int | None = None
    block_io: BlockIO = BlockIO()
    hugepage_limits: tuple[HugepageLimit, ...] = ()
    unified: tuple[tuple[str, str], ...] = ()


def controller_steps(asked: Resources, path: str) -> tuple[EnableControllers, ...]:
    """The Step that gives the cgroup at ``path`` its files for ``limit_steps``, if it takes one."""
    names = [file for step in limit_steps(asked) for file, _ in step.files()]
    controllers = dict.fromkeys(name.partition(".")[0] for name in names)
    controllers.pop("cgroup", None)
    return (EnableControllers(path, tuple(controllers)),) if controllers else ()


def limit_steps(asked: Resources) -> tuple[Limit, ...]:
    """The Steps that limit a cgroup as ``asked``; none if nothing was.

    Raises UsageError for what contradicts itself."""
    steps: list[Limit] = []
    memory, cpu = asked.memory, asked.cpu
    if memory != Memory():
        steps.append(LimitMemory(memory.limit, memory.reservation, swap_alone(memory)))
    if cpu.replace(cpus="", mems="") != Cpu():
        weight = None if cpu.shares is None else cpu_weight(cpu.shares)
        quota = UNLIMITED if cpu.quota is None and cpu.period is not None else cpu.quota
        steps.append(LimitCpu(weight, quota, cpu.period or PERIOD, cpu.burst, cpu.idle))
    if cpu.cpus or cpu.mems:
        steps.append(PinToCpus(cpu.cpus, cpu.mems))
    if asked.pids is not None:
        steps.append(LimitProcesses(asked.pids))
    if asked.block_io != BlockIO():
        steps.append(LimitIo(_weights(asked.block_io), _rates(asked.block_io)))
    if asked.hugepage_limits:
        steps.append(LimitHugepages(tuple((h.page_size, h.limit) for h in asked.hugepage_limits)))
    if asked.unified:  # last, for it is the most precise
        steps.append(SetCgroupFiles(asked.unified))
    return tuple(steps)


# ---- from version 1 to version 2


def swap_alone(memory: Memory) -> int | None:
    """memory.swap.max for OCI's "swap", which counts the memory as well.  Raises UsageError."""
    if memory.swap is None or memory.swap == UNLIMITED:
        return memory.swap
    if memory.limit is None or memory.limit == UNLIMITED:
        raise UsageError(
            "a limit of memory and swap together needs a limit of memory",
            "cgroup v2 limits swap alone: it is what remains when the memory is taken off",
        )
    if memory.swap < memory.limit:
        raise UsageError("the limit of memory and swap together is below the limit of memory")
    return memory.swap - memory.limit


def cpu_weight(shares: int) -> int:
    """cpu.weight for v1's cpu.shares: least, usual and most of one become those of the other.

    A parabola through (2, 1), (1024, 100) and (262144, 10000), on logarithmic paper; so have crun
    since 1.23 and runc since 1.3.2.  The straight line of before made 39 of the usual 1024: a
    container that asked for its fair share got less than a process that asked for nothing."""
    import math

    binary = math.log2(min(max(shares, 2), 262_144))
    exponent = (binary * binary + 125 * binary) / 612 - 7 / 34
    return math.ceil(10**exponent)


def io_weight(weight: int) -> int:
    """io.weight for v1's blkio.weight: 10 to 1000 become 1 to 10000, by a straight line."""
    return 1 + (weight - 10) * 9999 // 990


def _weights(asked: BlockIO) -> tuple[tuple[str, str], ...]:
    """Lines for the two files of which a kernel has one, or both, or none."""
    found = [("default", asked.weight)] if asked.weight is not None else []
    found += [(f"{d.major}:{d.minor}", d.value) for d in asked.weight_device]
    lines = []
    for disk, weight in found:
        lines.append(("io.bfq.weight", f"{disk} {weight}"))
        lines.append(("io.weight", f"{disk} {io_weight(weight)}"))
    return tuple(lines)


def _rates(asked: BlockIO) -> tuple[str, ...]:
    """A line for each disk: "8:0 rbps=1048576 wiops=100"."""
    rates: dict[str, list[str]] = {}
    for word, devices in (
        ("rbps", asked.read_bps), ("wbps", asked.write_bps),
        ("riops", asked.read_iops), ("wiops", asked.write_iops),
    ):  # fmt: skip
        for d in devices:
            rates.setdefault(f"{d.major}:{d.minor}", []).append(f"{word}={d.value}")
    return tuple(" ".join((disk, *words)) for disk, words in rates.items())


# ---- values that are text


def cpu_list(text: str) -> str:
    """A list of numbers and ranges as in 0-3,7: cpuset(7), "List Format".  Raises UsageError."""
    for part in text.split(","):
        first, dash, last = part.partition("-")
        for word in (first, last) if dash else (first,):
            if not (word.isascii() and word.isdecimal() and len(word) < 6):
                raise UsageError(f"not a list of numbers and ranges: '{text}'", "as in 0-3,7")
        if dash and int(last) < int(first):
            raise UsageError(f"not a range: '{part}'", "as in 0-3,7")
    return text


def cgroup_file(name: str, value: str) -> tuple[str, str]:
    """A file of the kernel's in a cgroup, and its new text: ("memory.high", "48M").

    Raises UsageError for a name that is no plain file's, or that limits nothing."""
    controller, dot, rest = name.partition(".")
    plain = name.replace(".", "").replace("_", "")
    if not (controller and dot and rest and plain.isascii() and plain.isalnum()):
        raise UsageError(f"'{name}' is not the name of a cgroup's file", "as in memory.high")
    if controller == "cgroup" and name not in _CORE_FILES:
        raise UsageError(
            f"{name} is no limit",
            f"of the files that every cgroup has, these are: {', '.join(_CORE_FILES)}",
        )
    if "\0" in value or not value.strip():
        raise UsageError(f"{name}: there is no value to write")
    return name, value
