"""Usage: what a cgroup's processes take, as the kernel counts it, file by file.

    memory.current        bytes charged to the cgroup, of which memory.stat says what they are:
      anon                the processes' own pages: heap, stack.  Only swap or their end frees them
      file                cached files, and tmpfs.  What is clean of it goes when memory is short
      inactive_file       the part of it that has not been used lately: the first to go
      kernel              the kernel's own data on their behalf: page tables, stacks, dentries
    cpu.stat              usage_usec, user and system; nr_throttled of nr_periods, if cpu.max is set
    io.stat               bytes and operations of each block device, by its numbers
    pids.current          processes and threads
    *.pressure            PSI: the share of time in which somebody had to wait for it

How much memory does a container "use"?  memory.current counts every file it ever read, until
someone else needs the room; so docker, and Kubernetes when it evicts, look at the *working set*:
memory.current less inactive_file.

A file is there only if its controller is: another may own it (cgroup v1), the parent may not have
handed it down (cgroup.subtree_control), the kernel may lack it.  Then the answer is "not known",
never 0.  cpu.stat is there always, but tells nothing of throttling without the controller.

Documentation/admin-guide/cgroup-v2.rst, Documentation/accounting/psi.rst, cgroups(7).
By hand:   cat /sys/fs/cgroup/box/memory.current ; grep -w inactive_file .../memory.stat
See it:    minicontainer stats ; systemd-cgtop
"""

from __future__ import annotations

import errno
import os

from minicontainer.cgroupfiles import UNLIMITED as UNLIMITED
from minicontainer.cgroupfiles import as_number, number, pairs, text
from minicontainer.step import Record

# ---- vocabulary

# Before Linux 5.18 memory.stat had no "kernel": its parts
_KERNEL_PARTS = ("kernel_stack", "pagetables", "percpu", "slab", "sec_pagetables")


class Usage(Record):
    """One reading.  Bytes, microseconds, counts; None where the kernel does not say.

    Limits may be UNLIMITED.  ``*_pressure`` is the percentage of the last ten seconds in which at
    least one task waited ("some avg10")."""

    memory: int | None = None
    memory_max: int | None = None
    memory_peak: int | None = None  # since Linux 5.19
    swap: int | None = None
    anon: int | None = None
    file: int | None = None
    inactive_file: int | None = None
    kernel: int | None = None
    cpu_quota: int | None = None  # microseconds of each cpu_period; UNLIMITED
    cpu_period: int | None = None
    cpu_usec: int | None = None
    user_usec: int | None = None
    system_usec: int | None = None
    periods: int | None = None
    throttled: int | None = None
    throttled_usec: int | None = None
    read_bytes: int | None = None
    written_bytes: int | None = None
    reads: int | None = None
    writes: int | None = None
    pids: int | None = None
    pids_max: int | None = None
    cpu_pressure: float | None = None
    memory_pressure: float | None = None
    io_pressure: float | None = None

    @property
    def working_set(self) -> int | None:
        """memory.current less inactive_file: what cannot be had back for the asking."""
        if self.memory is None or self.inactive_file is None:
            return None
        return max(self.memory - self.inactive_file, 0)  # two files, so two moments


# ---- verbs


def read(path: str) -> Usage:
    """Everything about the cgroup whose directory is ``path``, in one pass over its files.

    Raises FileNotFoundError if there is no such cgroup (any more)."""
    cpu = pairs(path, "cpu.stat")
    if not cpu:  # every cgroup but the root's has this file, with or without controllers
        raise FileNotFoundError(errno.ENOENT, "no such cgroup", path)
    memory = pairs(path, "memory.stat")
    kernel = memory.get("kernel")
    if kernel is None and memory:
        kernel = sum(memory.get(part, 0) for part in _KERNEL_PARTS)
    quota, period = (text(path, "cpu.max") or " ").split(" ")
    io = _io(text(path, "io.stat"))
    return Usage(
        memory=number(path, "memory.current"),
        memory_max=number(path, "memory.max"),
        memory_peak=number(path, "memory.peak"),
        swap=number(path, "memory.swap.current"),
        anon=memory.get("anon"),
        file=memory.get("file"),
        inactive_file=memory.get("inactive_file"),
        kernel=kernel,
        cpu_quota=as_number(quota),
        cpu_period=as_number(period),
        cpu_usec=cpu.get("usage_usec"),
        user_usec=cpu.get("user_usec"),
        system_usec=cpu.get("system_usec"),
        periods=cpu.get("nr_periods"),
        throttled=cpu.get("nr_throttled"),
        throttled_usec=cpu.get("throttled_usec"),
        read_bytes=io.get("rbytes"),
        written_bytes=io.get("wbytes"),
        reads=io.get("rios"),
        writes=io.get("wios"),
        pids=number(path, "pids.current"),
        pids_max=number(path, "pids.max"),
        cpu_pressure=_some(text(path, "cpu.pressure")),
        memory_pressure=_some(text(path, "memory.pressure")),
        io_pressure=_some(text(path, "io.pressure")),
    )


def processes(path: str) -> list[int]:
    """The pids in the cgroup and in those below it, as cgroup.procs has them, sorted.

    A process that this pid namespace cannot see is not among them (the kernel writes 0)."""
    found = {int(pid) for pid in (text(path, "cgroup.procs") or "").split()}
    try:
        entries = [entry.path for entry in os.scandir(path) if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        entries = []
    for below in entries:
        found.update(processes(below))
    return sorted(found - {0})


def why_missing(path: str, controller: str) -> str:
    """Why the cgroup has no files of ``controller`` ("memory", "cpu", "io", "pids"); "" if it has
    them.  It may be said of several at once.  cgroups(7), /proc/cgroups."""
    if controller in (text(path, "cgroup.controllers") or "").split():
        return ""
    names = {"io": "blkio"}  # what cgroup v1, and with it /proc/cgroups, calls it
    for line in (text("/proc", "cgroups") or "").splitlines():
        name, hierarchy, *rest = line.split()
        if name != names.get(controller, controller):
            continue
        if hierarchy != "0":
            return "counted by cgroup v1 on this machine (/proc/cgroups)"
        if rest[-1] == "0":
            return "switched off at boot (cgroup_disable=)"
        above = f"{os.path.dirname(path)}/cgroup.subtree_control"
        return f"not handed down by {above} (until any container has a limit of that kind)"
    return "no such controller in this kernel"


def why_no_pressure(path: str) -> str:
    """Why the cgroup tells no pressure; "" if it does."""
    if text(path, "cpu.pressure"):
        return ""
    if os.path.exists("/proc/pressure"):
        return "not accounted in this cgroup (cgroup.pressure is 0)"
    return "not accounted by this kernel (CONFIG_PSI, psi=1 at boot)"


def _io(lines: str | None) -> dict[str, int]:
    """io.stat, a line for each device, such as "8:0 rbytes=1 wbytes=2 ...": the sums."""
    if lines is None:
        return {}
    sums = {"rbytes": 0, "wbytes": 0, "rios": 0, "wios": 0}
    for word in lines.split():
        key, equals, value = word.partition("=")
        if equals and key in sums:
            sums[key] += int(value)
    return sums


def _some(line: str | None) -> float | None:
    """Of "some avg10=1.53 avg60=... total=..." the 1.53."""
    return float(line.split()[1].partition("=")[2]) if line else None
