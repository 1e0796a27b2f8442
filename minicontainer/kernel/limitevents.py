"""The post-mortem: the kernel's own record of which limit was met, read before the cgroup goes.

A program that dies for want of memory cannot say so: its last signal is SIGKILL, exit status 137,
as from anybody's `kill -9`.  But the cgroup kept count:

    memory.events         oom_kill   processes of this cgroup and below that the OOM killer ended,
                                     *whoever's* shortage it was
                          oom        how often a limit in this cgroup or below was met and nothing
                                     could be had back
    memory.events.local   the same of this cgroup alone (5.2); so: oom here and oom_kill, it was its
                          own limit; oom_kill without oom, an outer cgroup's, or the whole machine's
    memory.peak           the highest memory.current ever was (5.19)
    memory.oom.group      1: the OOM killer ends all of the cgroup together (oom_group_kill, 5.17)
    pids.events           max        how often a fork was refused for pids.max (EAGAIN)

The counters begin with the cgroup and end with its rmdir.  A cgroup that was there before the
container, and those above, count other things too: what is told is the difference.

Documentation/admin-guide/cgroup-v2.rst, cgroups(7).
By hand:   cat /sys/fs/cgroup/box/memory.events ; dmesg | grep -i oom-kill
See it:    minicontainer run -m 16m alpine tail /dev/zero
"""

from __future__ import annotations

import os

from minicontainer.cgroupfiles import UNLIMITED as UNLIMITED
from minicontainer.cgroupfiles import number, pairs
from minicontainer.step import Record

# ---- vocabulary

_SIGKILL = 9
_UNCOUNTED = (
    "somebody or by the OOM killer, of which the cgroup keeps no count without the memory "
    "controller; see dmesg | grep -i oom"
)


class Events(Record):
    """The counters at one moment; None where the kernel does not count (no controller, or older).

    ``oom`` is this cgroup's own, ``oom_below`` with those below it; ``above`` are the outer
    cgroups' own: (path, oom), the nearest first."""

    oom_kill: int | None = None
    oom: int | None = None
    oom_below: int | None = None
    oom_group_kill: int = 0
    forks_refused: int | None = None
    above: tuple[tuple[str, int], ...] = ()
    memory_peak: int | None = None  # bytes
    memory_max: int | None = None
    pids_max: int | None = None

    def fresh(self) -> Events:
        """As it was when the cgroup was made: nothing counted, but by those above."""
        return Events(above=self.above)

    def until(self, after: Events, end: int, sender: str = "") -> PostMortem:
        """What happened between this reading and the one ``after``: ``compare``."""
        return compare(self, after, end, sender)


class PostMortem(Record):
    """What the counters say about a container that has ended.

    ``oom_kills``  processes ended by the OOM killer; None if nobody counted
    ``lines``      for people, the gravest first; empty if no limit had anything to do with it"""

    oom_kills: int | None = None
    forks_refused: int | None = None
    memory_peak: int | None = None  # bytes
    lines: tuple[str, ...] = ()


# ---- verbs


def read(path: str) -> Events:
    """The counters of the cgroup whose directory is ``path``; all None if there is no such."""
    # Since Linux 6.11 pids.events counts for those below as well, and pids.events.local alone
    pids = pairs(path, "pids.events.local") or pairs(path, "pids.events")
    counted = Events(
        forks_refused=pids.get("max"), pids_max=number(path, "pids.max") if pids else None
    )
    memory = pairs(path, "memory.events")
    if not memory:
        return counted
    return counted.replace(
        oom_kill=memory.get("oom_kill"),
        oom=pairs(path, "memory.events.local").get("oom", memory.get("oom")),
        oom_below=memory.get("oom"),
        oom_group_kill=memory.get("oom_group_kill", 0),
        above=_above(path),
        memory_peak=number(path, "memory.peak"),
        memory_max=number(path, "memory.max"),
    )


def compare(before: Events, after: Events, end: int, sender: str = "") -> PostMortem:
    """What happened between two readings of a cgroup whose container ended as ``end`` says: an exit
    status, or minus a signal.  ``sender`` has put on record that it sent a SIGKILL."""
    refused = kills = None
    if after.forks_refused is not None:
        refused = after.forks_refused - (before.forks_refused or 0)
    if after.oom_kill is not None:
        kills = after.oom_kill - (before.oom_kill or 0)
    lines = []
    if kills:
        who = "killed"
        if end != -_SIGKILL or sender:  # its first process lived on, or ended in another way
            who = "a process was killed" if kills == 1 else f"{kills} processes were killed"
        counted = f"oom_kill {kills}"
        if after.oom_group_kill > before.oom_group_kill:
            counted += ", all together: memory.oom.group 1"
        lines.append(f"{who} by the OOM killer {_where(before, after)} ({counted})")
    if end == -_SIGKILL and sender:
        lines.append(f"killed by SIGKILL: {sender} sent it")
    elif end == -_SIGKILL and not kills:
        whom = "somebody sent it, not the OOM killer (oom_kill 0)"
        whom = whom if kills == 0 else f"by {_UNCOUNTED}"
        lines.append(f"killed by SIGKILL: {whom}")
    elif end == 128 + _SIGKILL and not kills:
        # It was not killed, it exited: as `exit 137` does, and as a shell or an init says that its
        # child got a SIGKILL.  Nobody has seen which; what it was not, the cgroup has.
        what = "exit status 137 is its own, or a process below it was killed by SIGKILL"
        whom = "; no OOM kill was counted (oom_kill 0)"
        lines.append(what + (whom if kills == 0 else ", by " + _UNCOUNTED))
    if refused:
        limit = "pids.max of an outer cgroup"  # until Linux 6.10 that was counted here, too
        if after.pids_max not in (None, UNLIMITED):
            limit = f"pids.max {after.pids_max}"
        times = "once" if refused == 1 else f"{refused} times"
        lines.append(f"fork was refused {times}: {limit} (pids.events max {refused})")
    return PostMortem(kills, refused, after.memory_peak, tuple(lines))


def mebibytes(number: int) -> str:
    """Bytes as "64.0 MiB"."""
    return f"{number / (1 << 20):.1f} MiB"


def _where(before: Events, after: Events) -> str:
    """Whose shortage was it?"""
    if (after.oom or 0) > (before.oom or 0):
        return "in its own cgroup" + _peak(after)
    if (after.oom_below or 0) > (before.oom_below or 0):
        return "in a cgroup of its own making, below its own"
    earlier = dict(before.above)
    for path, oom in after.above:
        if oom > earlier.get(path, 0):
            return f"for the limit of an outer cgroup, {path}" + _limit(path)
    return "of the whole machine, which ran out of memory: it met no limit"


def _peak(after: Events) -> str:
    """How high it got, of how much it might."""
    parts = []
    if after.memory_peak is not None:
        parts.append(f"peak {mebibytes(after.memory_peak)}")
    if after.memory_max not in (None, UNLIMITED):
        assert after.memory_max is not None
        parts.append(f"{'of' if parts else 'memory.max'} {mebibytes(after.memory_max)}")
    return ": " + " ".join(parts) if parts else ""


def _limit(path: str) -> str:
    limit = number(path, "memory.max")
    return "" if limit in (None, UNLIMITED) else f": memory.max {mebibytes(limit or 0)}"


def _above(path: str) -> tuple[tuple[str, int], ...]:
    """The outer cgroups' own count of oom, as far as they are there; the root has no such file."""
    found = []
    while len(path) > 1:
        path = os.path.dirname(path)
        if local := pairs(path, "memory.events.local"):
            found.append((path, local.get("oom", 0)))
    return tuple(found)
