"""Entering namespaces that exist, and the two kinds that only a *child* can enter.

setns(2) moves the calling thread into the namespace behind an open /proc/PID/ns file: at once for
most kinds.  A process keeps its pid and its clocks for life, though, so for pid and time it is the
next child that is born in the other namespace.  Whoever does that for a container has to come back
afterwards, or the container after it would be born there too.

The kernel freezes a time namespace's offsets when the first process enters, so they are written
between unshare(2), which prepares it, and the clone: time_namespaces(7).

Man pages: setns(2), unshare(2), namespaces(7).
By hand:   nsenter --target PID --net ip link ; unshare --time --boottime 864000 uptime
See it:    ls -l /proc/self/ns/pid /proc/self/ns/pid_for_children
"""

from __future__ import annotations

import os

from minicontainer.nscalls import FLAGS, setns, unshare
from minicontainer.step import HOST, Context, Step, quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import ClassVar

# ---- vocabulary and verbs: in nscalls.py

# ---- steps


class ShiftClocks(Step):
    """A time namespace adds an offset to the monotonic and the boot clock (never to the date).

    The kernel freezes the offsets when the first process enters, so they are written between
    unshare(2), which prepares the namespace for our next child, and the clone."""

    side: ClassVar[str] = HOST
    name = "time"
    without = "`uptime` in the container tells the host's uptime"
    look = ("ns/time_for_children", "timens_offsets")

    offsets: tuple[tuple[str, int, int], ...]  # clock, seconds, nanoseconds

    def title(self) -> str:
        """In a few words."""
        return "prepare a time namespace with shifted clocks"

    def shell_prefix(self) -> str:
        """unshare(1)'s flags; it knows whole seconds only."""
        flags = [f"--{clock}={seconds}" for clock, seconds, _ in self.offsets]
        return quote("unshare", "--time", "--fork", *flags)

    def run(self, context: Context) -> None:
        """unshare(2), then the file; the way back is kept open for the undo."""
        flags = os.O_RDONLY | os.O_CLOEXEC
        context.fds["time_for_children"] = os.open("/proc/self/ns/time", flags)
        unshare(FLAGS["time"])
        lines = "".join(f"{clock} {seconds} {nano}\n" for clock, seconds, nano in self.offsets)
        with open("/proc/self/timens_offsets", "w") as file:
            file.write(lines)

    def undo(self, context: Context) -> None:
        """Where the launch failed before ReturnToOwn: do what it does."""
        ReturnToOwn("time").run(context)


class ReturnToOwn(Step):
    """The child is born in them; our *next* children must not be."""

    side: ClassVar[str] = HOST
    without = "the runtime's next container would be born in this one's namespace"

    kind: str  # time, pid

    @property
    def name(self) -> str:  # type: ignore[override]
        """The word for --without: that of the step it takes back."""
        return "join" if self.kind == "pid" else self.kind

    def title(self) -> str:
        """In a few words."""
        return f"have our next children in our own {self.kind} namespace again"

    def run(self, context: Context) -> None:
        """setns(2) with the descriptor that was kept."""
        fd = context.fds.pop(self.kind + "_for_children", -1)
        if fd >= 0:
            try:
                setns(fd, self.kind)
            finally:
                os.close(fd)


class JoinNamespace(Step):
    """Instead of a fresh namespace, enter one that another container keeps alive."""

    name = "join"
    without = "the container would keep the host's namespace of this kind"

    kind: str
    path: str

    def title(self) -> str:
        """In a few words."""
        return f"join the {self.kind} namespace {self.path}"

    def shell_prefix(self) -> str:
        """nsenter(1)."""
        flag = "net" if self.kind == "network" else self.kind
        return quote("nsenter", f"--{flag}={self.path}")

    def run(self, context: Context) -> None:
        """open(2) and setns(2)."""
        fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            setns(fd, self.kind)
        finally:
            os.close(fd)


class JoinPidNamespace(JoinNamespace):
    """A process cannot change its own pid namespace, only its children's: the host side joins
    before the clone, and the child is born inside."""

    side: ClassVar[str] = HOST

    def run(self, context: Context) -> None:
        """setns(2) for the children, the way back kept open."""
        context.fds["pid_for_children"] = os.open(
            "/proc/self/ns/pid_for_children", os.O_RDONLY | os.O_CLOEXEC
        )
        super().run(context)

    def undo(self, context: Context) -> None:
        """Where the launch failed before ReturnToOwn: do what it does."""
        ReturnToOwn("pid").run(context)
