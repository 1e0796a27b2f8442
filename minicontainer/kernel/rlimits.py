"""Resource limits: the old ones, counted per process (or per user), from before cgroups.

Each limit is a pair.  The soft one is what the kernel enforces; a process may raise its own up to
the hard one.  Lowering the hard limit is for ever, raising it needs CAP_SYS_RESOURCE.  Limits are
inherited by fork(2) and survive execve(2), so setting them last thing limits the whole container,
one process at a time; to limit the sum, there are cgroups.

Man page: getrlimit(2), prlimit(1).
By hand:   prlimit --nofile=64:64 sh -c 'ulimit -n'
See it:    cat /proc/self/limits
"""

from __future__ import annotations

import errno

from minicontainer.libc import address, check, ffi, syscall
from minicontainer.step import HOST, Context, Step, quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import ClassVar

# ---- vocabulary: asm-generic/resource.h

NUMBERS = {
    "RLIMIT_CPU": 0, "RLIMIT_FSIZE": 1, "RLIMIT_DATA": 2, "RLIMIT_STACK": 3, "RLIMIT_CORE": 4,
    "RLIMIT_RSS": 5, "RLIMIT_NPROC": 6, "RLIMIT_NOFILE": 7, "RLIMIT_MEMLOCK": 8, "RLIMIT_AS": 9,
    "RLIMIT_LOCKS": 10, "RLIMIT_SIGPENDING": 11, "RLIMIT_MSGQUEUE": 12, "RLIMIT_NICE": 13,
    "RLIMIT_RTPRIO": 14, "RLIMIT_RTTIME": 15,
}  # fmt: skip

UNLIMITED = 0xFFFFFFFFFFFFFFFF

# ---- verbs


def prlimit(pid: int, kind: str, soft: int, hard: int) -> None:
    """Set a process's pair of limits (0: our own); -1 is "unlimited": prlimit(2).

    Not by Python's ``resource``: it would be imported in the container, from the image's files."""
    pair = ffi.new("struct rlimit64 *", {"soft": soft & UNLIMITED, "hard": hard & UNLIMITED})
    check(
        syscall("prlimit64", pid, NUMBERS[kind], address(pair)),
        "prlimit", pid, kind, f"{{soft={soft}, hard={hard}}}",
        meaning={
            errno.EPERM: "raising the hard limit needs CAP_SYS_RESOURCE, which this root lacks",
            errno.EINVAL: "the soft limit is above the hard one",
        },
    )  # fmt: skip


# ---- steps


class SetResourceLimits(Step):
    """docker's --ulimit, set while we may still have CAP_SYS_RESOURCE to raise a hard limit."""

    name = "rlimits"
    without = "the container's processes keep the limits of the shell that started them"
    look = ("limits",)

    limits: tuple[tuple[str, int, int], ...]

    def title(self) -> str:
        """In a few words."""
        return "set " + ", ".join(kind for kind, _, _ in self.limits)

    def shell_prefix(self) -> str:
        """prlimit(1)."""
        words = [(f"--{kind[7:].lower()}", soft, hard) for kind, soft, hard in self.limits]
        flags = [f"{flag}={soft}:{hard}".replace("-1", "unlimited") for flag, soft, hard in words]
        return quote("prlimit", *flags)

    def run(self, context: Context) -> None:
        """prlimit(2) for each."""
        for kind, soft, hard in self.limits:
            prlimit(0, kind, soft, hard)


class SetResourceLimitsFromOutside(SetResourceLimits):
    """In a user namespace nobody may raise a hard limit: the kernel asks for CAP_SYS_RESOURCE over
    the *host*.  So the host does it, while the child waits."""

    side: ClassVar[str] = HOST

    def shell(self) -> str:
        """prlimit(1)."""
        return f'{super().shell_prefix()} --pid "$PID"'

    def shell_prefix(self) -> str:
        """None: it is done to another process."""
        return ""

    def run(self, context: Context) -> None:
        """prlimit(2) for each."""
        for kind, soft, hard in self.limits:
            prlimit(context.pid, kind, soft, hard)
