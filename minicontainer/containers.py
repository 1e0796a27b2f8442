"""Containers: who is on record, how to find one, and what state it is in.

A runtime writes what it knows into its container's state file (state.py); any other terminal reads
it there, and asks the kernel about the rest: /proc for the process, the cgroup for all of them.
Nothing is kept in a daemon, so nothing can be out of date.

By hand:   cat /run/minicontainer/*/state
"""

from __future__ import annotations

import os

from minicontainer import state
from minicontainer.errors import MinicontainerError
from minicontainer.kernel import freezer
from minicontainer.step import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


class NoSuchContainer(MinicontainerError):
    """No container, or more than one, is meant by a word; docker's exit status for it is 1."""

    exit_code = 1


class Known(Record):
    """One container, as far as its runtime has written.  Times are seconds since the epoch."""

    id: str
    name: str = ""
    image: str = ""
    command: tuple[str, ...] = ()
    created: float = 0.0
    started: float = 0.0  # 0: not yet
    pid: int = 0  # its first process, as the host counts
    birth: str = ""  # state.start_time of it: pid and birth together mean one process only
    cgroup: str = ""  # its directory
    finished: float = 0.0  # 0: not yet
    exit_code: int = 0
    oom_kills: int = 0
    post_mortem: tuple[str, ...] = ()

    @property
    def status(self) -> str:
        """docker's word for it: created, running, paused, exited."""
        if self.finished or not self.pid:
            return "exited" if self.finished else "created"
        if state.start_time(self.pid) != self.birth:
            return "exited"  # its runtime is about to say so
        return "paused" if freezer.is_frozen(self.cgroup) else "running"

    @property
    def has_cgroup(self) -> bool:
        """Has it one of its own?  Not where cgroup2 is not mounted, or not ours to write."""
        return bool(self.cgroup) and os.path.isdir(self.cgroup)


def everyone(say: Callable[[str], None]) -> list[Known]:
    """All containers on record, the youngest first, after a sweep (which ``say`` tells of)."""
    found = [known(name, facts) for name, facts in state.all_facts(say).items()]
    return sorted(found, key=lambda one: -one.created)


def find(word: str, among: list[Known]) -> Known:
    """The one container that ``word`` means: an id, else a name, else the beginning of an id.

    Raises NoSuchContainer, in docker's words."""
    for one in among:
        if one.id == word:
            return one
    for one in among:
        if one.name and one.name == word.removeprefix("/"):
            return one
    found = [one for one in among if word and one.id.startswith(word)]
    if len(found) > 1:
        raise NoSuchContainer(
            f"multiple IDs found with provided prefix: {word}",
            "they are " + ", ".join(one.id[:12] for one in found),
        )
    if not found:
        raise NoSuchContainer(f"No such container: {word}", "see minicontainer ps")
    return found[0]


def known(container_id: str, facts: dict[str, str]) -> Known:
    """A container's state file, understood."""
    import ast

    def literal(name: str, default: Any) -> Any:
        try:
            return ast.literal_eval(facts[name])
        except (KeyError, ValueError, SyntaxError):
            return default

    pid, _, birth = facts.get("process", "").partition(" ")
    finished, status, oom_kills, lines = literal("ended", (0.0, 0, 0, ()))
    return Known(
        id=container_id,
        name=facts.get("name", ""),
        image=literal("image", ""),
        command=literal("command", ()),
        created=literal("created", 0.0),
        started=literal("started", 0.0),
        pid=int(pid or 0),
        birth=birth,
        cgroup=facts.get("cgroup", ""),
        finished=finished,
        exit_code=status,
        oom_kills=oom_kills,
        post_mortem=lines,
    )


def open_process(one: Known) -> int:
    """A pidfd of its first process, pidfd_open(2); the caller closes it.

    Raises NoSuchContainer if it does not run."""
    if one.pid and not one.finished:
        try:
            pidfd = os.pidfd_open(one.pid)
        except ProcessLookupError:
            pidfd = -1
        # Opened first, compared after: from here the descriptor means this very process.
        if pidfd >= 0 and state.start_time(one.pid) == one.birth:
            return pidfd
        if pidfd >= 0:
            os.close(pidfd)
    raise NoSuchContainer(f"container {one.id} is not running")
