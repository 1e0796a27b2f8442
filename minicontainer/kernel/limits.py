"""Limits: a number written to a file of the cgroup; the kernel does the rest.

    memory.max       bytes; beyond, after trying to reclaim, the OOM killer ends a process in here
    memory.low       bytes that are reclaimed last, when the whole machine runs short
    memory.swap.max  bytes of swap, apart from memory.max: swap is not "memory + swap" here
    cpu.max          "50000 100000": 50 of each 100 ms of one CPU, then wait; "max 100000" is free
    cpu.weight       1 to 10000, 100 by default: whose turn it is when others want the CPU too
    cpuset.cpus      "0-3,7": on which CPUs; cpuset.mems: from which NUMA nodes
    pids.max         processes and threads; beyond, fork(2) says EAGAIN
    io.max           "8:0 rbps=1048576": bytes or requests a second of one disk, then wait
    io.weight        1 to 10000, 100 by default: whose turn it is at the disk
    hugetlb.*.max    bytes in huge pages; beyond, mmap(2) says ENOMEM or a touch is SIGBUS

Some say no (pids), some kill (memory), some slow down (cpu, io).  Each holds for all that is in the
cgroup and below, together.  Written while the trampoline waits, they hold from the program's first
instruction on; they can be changed any time, which is all that `docker update` does.

Documentation/admin-guide/cgroup-v2.rst, "Controllers"; cgroups(7).
By hand:   echo 64M > /sys/fs/cgroup/box/memory.max ; echo 20 > /sys/fs/cgroup/box/pids.max
See it:    cd /sys/fs/cgroup/box ; cat memory.events pids.events cpu.stat io.stat
"""

from __future__ import annotations

import errno

from minicontainer.cgrouptree import write
from minicontainer.errors import KernelError, MinicontainerError
from minicontainer.step import HOST, Context, Step, quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import ClassVar

# ---- vocabulary

File = tuple[str, str]  # name, value
UNLIMITED = -1  # the file's word for it is "max"

_MEANING = {
    errno.ENOENT: "this kernel has no such file, or its controller was not handed down (cgroup."
    "subtree_control of the cgroup above)",
    **dict.fromkeys((errno.EINVAL, errno.ERANGE), "the kernel does not take this value here"),
    errno.ENODEV: "no disk has this number (a partition has no limits of its own, its disk has)",
    errno.EOPNOTSUPP: "the disk's driver or scheduler does not support it",
    errno.ENOSPC: "none of these CPUs or memory nodes is the parent cgroup's to give",
}

# ---- verbs


def number(value: int) -> str:
    """A limit as a cgroup's file has it: -1 is "max"."""
    return "max" if value == UNLIMITED else str(value)


# ---- steps


class Limit(Step):
    """Write limits of one controller: ``files`` says which file gets what text."""

    side: ClassVar[str] = HOST
    name = "limit"
    without = "the container may use all there is"
    optional: ClassVar[tuple[str, ...]] = ()  # files that a kernel may lack;
    lacking: ClassVar[str] = ""  # if it has none of them, this is said, and we go on

    def files(self) -> tuple[File, ...]:
        """Pairs of a cgroup's file and its new text."""
        return ()

    def title(self) -> str:
        """In a few words."""
        return "set " + ", ".join(f"{file} to {value}" for file, value in self.files())

    def shell(self) -> str:
        """echo; where a kernel may lack the file, only if it is there."""
        lines = []
        for file, value in self.files():
            place = f'"$CGROUP/{file}"'
            test = f"[ ! -e {place} ] || " if file in self.optional else ""
            lines.append(f"{test}echo {quote(value)} > {place}")
        return "\n".join(lines)

    def run(self, context: Context) -> None:
        """write(2), once for each value."""
        files = self.files()
        if context.cgroup_fd < 0:
            raise MinicontainerError(f"there is no cgroup whose {files[0][0]} could be written")
        done = set()
        for file, value in files:
            try:
                write(context.cgroup_fd, file, value, _MEANING)
                done.add(file)
            except KernelError as error:
                if error.errno != errno.ENOENT or file not in self.optional:
                    raise
        asked = [file for file, _ in files if file in self.optional]
        if asked and not done.intersection(asked):
            context.warn(f"this kernel has no {asked[0]}: {self.lacking}")


class LimitMemory(Limit):
    """Memory is counted page by page, whoever in the cgroup touches it first: programs' own pages,
    cached files, and what the kernel keeps for them.  At memory.max the kernel reclaims what it
    can, then the OOM killer chooses a process of this cgroup, and of no other."""

    name = "memory"
    without = "one container can use up the memory of the machine"
    optional = ("memory.swap.max",)
    lacking = "memory is limited, swap is not"

    max: int | None = None  # bytes; UNLIMITED; None leaves it as it is
    low: int | None = None
    swap_max: int | None = None

    def files(self) -> tuple[File, ...]:
        """memory.max, memory.low, memory.swap.max."""
        named = {"memory.max": self.max, "memory.low": self.low, "memory.swap.max": self.swap_max}
        return tuple((file, number(value)) for file, value in named.items() if value is not None)


class LimitCpu(Limit):
    """A weight shares the CPUs when they are all wanted; a maximum holds even when they are idle:
    the cgroup may run for so long in each period, then it is throttled until the next."""

    name = "cpu"
    without = "one container can take the CPUs from all others"

    weight: int | None = None
    quota: int | None = None  # microseconds of each period, of all CPUs together; UNLIMITED
    period: int = 100_000
    burst: int | None = None  # microseconds saved up from quiet periods
    idle: int | None = None  # 1: only when nobody else wants the CPU

    def files(self) -> tuple[File, ...]:
        """cpu.weight, cpu.max, cpu.max.burst, cpu.idle."""
        named = {
            "cpu.weight": self.weight,
            "cpu.max": None if self.quota is None else f"{number(self.quota)} {self.period}",
            "cpu.max.burst": self.burst,
            "cpu.idle": self.idle,
        }
        return tuple((file, str(value)) for file, value in named.items() if value is not None)


class PinToCpus(Limit):
    """Only these CPUs run the container, only these NUMA nodes give it memory: cpuset(7).
    sched_setaffinity(2) cannot widen that."""

    name = "cpuset"
    without = "the container runs on any CPU"

    cpus: str = ""  # a list such as 0-3,7
    mems: str = ""

    def files(self) -> tuple[File, ...]:
        """cpuset.cpus, cpuset.mems."""
        named = ("cpuset.cpus", self.cpus), ("cpuset.mems", self.mems)
        return tuple(pair for pair in named if pair[1])


class LimitProcesses(Limit):
    """There are only so many pids.  Threads count too, and the container's first process is one."""

    name = "pids"
    without = "a fork bomb in the container takes the machine's last pid"

    max: int

    def files(self) -> tuple[File, ...]:
        """pids.max."""
        return (("pids.max", number(self.max)),)


class LimitIo(Limit):
    """A weight shares a disk among those who want it (if its scheduler is bfq, or with io.cost); a
    rate holds even when it is idle.  Both are for whole disks, and for what really reaches them:
    what the page cache has costs nothing."""

    name = "io"
    without = "one container can keep a disk busy for all others"
    optional = ("io.bfq.weight", "io.weight")
    lacking = "the disks are not shared by weight"

    weights: tuple[File, ...] = ()  # ("io.weight", "default 100"), ("io.weight", "8:0 200")
    rates: tuple[str, ...] = ()  # "8:0 rbps=1048576"

    def files(self) -> tuple[File, ...]:
        """io.weight and io.max, a line for each disk."""
        return self.weights + tuple(("io.max", line) for line in self.rates)


class LimitHugepages(Limit):
    """Huge pages are a reserve that all of the machine shares.  Counted when touched (max) and when
    reserved by mmap(2) (rsvd.max), which fails in time instead of killing by SIGBUS later."""

    name = "hugetlb"
    without = "one container can take all of the machine's huge pages"

    limits: tuple[tuple[str, int], ...]  # page size as in the file's name ("2MB"), bytes

    def files(self) -> tuple[File, ...]:
        """hugetlb.SIZE.max and hugetlb.SIZE.rsvd.max."""
        kinds = ("max", "rsvd.max")
        return tuple((f"hugetlb.{s}.{k}", number(n)) for s, n in self.limits for k in kinds)


class SetCgroupFiles(Limit):
    """Any other file that the kernel has for a cgroup, by its name: memory.high, io.latency."""

    name = "cgroup-files"
    without = "what was asked for by --cgroup is not set"

    values: tuple[File, ...]

    def files(self) -> tuple[File, ...]:
        """Those that were asked for."""
        return self.values
