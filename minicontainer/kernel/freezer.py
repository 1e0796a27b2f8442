"""The freezer: stop every process of a cgroup where it stands, and let it go on as if nothing was.

SIGSTOP can be seen (a parent is told by wait(2)), can be undone by whoever may send SIGCONT, and
reaches one process after the other, so that a fork can slip through.  A frozen cgroup has none of
that: the kernel holds all of its processes and all that is below, those born meanwhile included,
and the processes cannot tell, but for the clock.  Only their end is not put off: SIGKILL, and any
signal that ends a process because it has no handler for it.  What has a handler waits for the thaw.

Writing 1 to cgroup.freeze only asks.  Each process freezes at its next return to user space; when
the last one has, the kernel says "frozen 1" in cgroup.events, and to a poll(2) on it: POLLPRI.

Documentation/admin-guide/cgroup-v2.rst, cgroups(7), poll(2).
By hand:   echo 1 > /sys/fs/cgroup/box/cgroup.freeze ; cat /sys/fs/cgroup/box/cgroup.events
See it:    cat /proc/PID/wchan   (do_freezer_trap) ; the state in ps stays S, not T
"""

from __future__ import annotations

import errno
import os
import select
import time

from minicontainer.cgroupfiles import text
from minicontainer.errors import KernelError

# ---- verbs


def freeze(path: str, seconds: float = 10) -> None:
    """Stop all processes in the cgroup and below, and sleep until they stand: cgroups(7).

    Raises KernelError, having let them go on again, if one of them does not come to a halt in
    ``seconds``; and if there is no such cgroup."""
    end = time.monotonic() + seconds
    _write(path, "1")
    # A cgroup with processes of its own says "frozen" when those stand; the ones below it may take
    # longer.  But who could make new ones there stands by now.
    if not _wait(path, b"frozen 1", end) or not all(
        _wait(below, b"frozen 1", end) for below, _, _ in os.walk(path)
    ):
        _write(path, "0")
        raise KernelError(
            "poll", f'"{path}/cgroup.events"', errno.ETIMEDOUT,
            f"not all processes came to a halt in {seconds:g} s; all go on again",
            "a process in uninterruptible sleep (state D in top) holds it up: try again later",
        )  # fmt: skip


def thaw(path: str, seconds: float = 10) -> None:
    """Let them go on, and sleep until they do.

    Raises KernelError if there is no such cgroup, or if one above it is frozen: then they stay."""
    _write(path, "0")
    end = time.monotonic() + (0 if is_frozen(os.path.dirname(path)) else seconds)
    if not _wait(path, b"frozen 0", end):
        raise KernelError(
            "poll", f'"{path}/cgroup.events"', errno.ETIMEDOUT,
            "it is still frozen: so is a cgroup above it", "write 0 to that one's cgroup.freeze",
        )  # fmt: skip


def is_frozen(path: str) -> bool:
    """Do all its processes stand still, on whoever's behalf?  False if there is no such cgroup."""
    return "frozen 1" in (text(path, "cgroup.events") or "")


def _wait(path: str, words: bytes, end: float) -> bool:
    """Sleep until cgroup.events has ``words``, or is gone (True), or the time is over (False)."""
    try:
        fd = os.open(path + "/cgroup.events", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        poll = select.poll()
        poll.register(fd, select.POLLPRI)
        # Reading first arms it: the kernel tells of what changes after the last read.
        while words not in os.pread(fd, 4096, 0):
            left = end - time.monotonic()
            if left <= 0:
                return False
            poll.poll(left * 1000)
        return True
    except OSError as error:
        if error.errno != errno.ENODEV:  # removed just now
            raise
        return True
    finally:
        os.close(fd)


def _write(path: str, value: str) -> None:
    try:
        with open(path + "/cgroup.freeze", "w") as file:
            file.write(value)
    except OSError as error:
        number = error.errno or 0
        raise KernelError(
            "write", f'"{path}/cgroup.freeze", "{value}"', number,
            {errno.ENOENT: "there is no such cgroup, or the kernel is older than 5.2",
             errno.ENODEV: "the cgroup was removed just now",
             errno.EACCES: "only root, or whom the cgroup was given to, may freeze it"}
            .get(number, ""),
        ) from error  # fmt: skip
