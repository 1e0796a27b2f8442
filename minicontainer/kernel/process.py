"""A process told about its own life: who may look into it, when it dies, what it may become.

A process is made by clone3(2) (kernel/clone.py) and lives until it ends or is killed.  Its parent
holds a pidfd, a descriptor that, unlike a pid, can never come to mean another process
(pidfd_open(2)); it becomes readable when the process has ended.  Some of what the kernel keeps
about a process has no call of its own: prctl(2) has a number for each, or /proc/PID a file.

By hand:   setpriv --pdeathsig KILL --no-new-privs sh ; choom -p $$ -n 500
See it:    grep NoNewPrivs /proc/self/status ; cat /proc/self/oom_score_adj ; ls -l /proc/self/fd
Man pages: prctl(2), waitid(2), pidfd_send_signal(2), proc(5)
"""

from __future__ import annotations

import _signal
import os

from minicontainer.libc import C, check
from minicontainer.step import HOST, Context, Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import ClassVar

# ---- vocabulary

# include/uapi/linux/prctl.h; by cffi: importing python-prctl costs a millisecond (docs/adr/0004)
_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_NO_NEW_PRIVS = 38

_SIGCHLD = 17
_SIGKILL = 9

# ---- verbs


def wait(pidfd: int) -> int:
    """Sleep until the child behind ``pidfd`` ends; docker's exit status: its own, or 128+signal.

    waitid(2) with P_PIDFD."""
    while True:
        ended = os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
        if ended is not None:
            break
    if ended.si_code == os.CLD_EXITED:
        return int(ended.si_status)
    return 128 + int(ended.si_status)


def kill(pidfd: int, signal: int = _SIGKILL) -> None:
    """Send a signal through the pidfd; a process that has already ended is no error."""
    try:
        _signal.pidfd_send_signal(pidfd, signal)
    except ProcessLookupError:
        return


def set_no_new_privileges() -> None:
    """From here on execve(2) can never give more privilege: PR_SET_NO_NEW_PRIVS of prctl(2)."""
    check(C.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl", "PR_SET_NO_NEW_PRIVS", 1)


def set_dumpable(dumpable: bool) -> None:
    """False closes /proc/PID/{exe,fd,mem} to all without CAP_SYS_PTRACE: prctl(2)."""
    value = int(dumpable)
    check(C.prctl(_PR_SET_DUMPABLE, value, 0, 0, 0), "prctl", "PR_SET_DUMPABLE", value)


def set_parent_death_signal(signal: int) -> None:
    """Ask for ``signal`` when the thread that made us ends: PR_SET_PDEATHSIG of prctl(2)."""
    check(C.prctl(_PR_SET_PDEATHSIG, signal, 0, 0, 0), "prctl", "PR_SET_PDEATHSIG", signal)


# ---- steps


class HideFromContainer(Step):
    """Until the program is executed this process is the host's runtime with the host's memory.

    A process that already lives in the namespaces we enter must not open our /proc/PID/exe, mem
    or fd (CVE-2019-5736, CVE-2024-21626): not dumpable means the kernel refuses.  execve(2)
    makes the program itself dumpable again."""

    name = "undumpable"
    without = "a process that shares the pid namespace could reach the host through /proc/PID/fd"

    def title(self) -> str:
        """In a few words."""
        return "close our /proc entry to others until execve"

    def run(self, context: Context) -> None:
        """One prctl."""
        set_dumpable(False)


class DieWithRuntime(Step):
    """A foreground container does not outlive its runtime: kill -9 the one, the kernel ends both.

    It comes after the change of user: changing credentials clears the wish (prctl(2))."""

    name = "death-signal"
    without = "kill -9 of the runtime would leave the container running with no one to wait for it"

    def title(self) -> str:
        """In a few words."""
        return "die when the runtime dies"

    def shell_prefix(self) -> str:
        """The setpriv(1) flag."""
        return "setpriv --pdeathsig KILL"

    def run(self, context: Context) -> None:
        """One prctl.  A runtime that is gone by now is noticed before the exec (clone.c)."""
        set_parent_death_signal(_SIGKILL)


class NoNewPrivileges(Step):
    """No program run from here on gains privilege: set-user-ID bits and file capabilities are
    ignored.  Never to be undone, inherited by every child: Documentation/userspace-api/
    no_new_privs.rst."""

    name = "no-new-privileges"
    without = "a set-user-ID root program in the image makes a user root again"
    look = ("status:NoNewPrivs",)

    def title(self) -> str:
        """In a few words."""
        return "forbid gaining privileges by execve"

    def shell_prefix(self) -> str:
        """The setpriv(1) flag."""
        return "setpriv --no-new-privs"

    def run(self, context: Context) -> None:
        """One prctl."""
        set_no_new_privileges()


class SetOomScore(Step):
    """Tell the out-of-memory killer how willingly to choose this container: proc(5),
    /proc/PID/oom_score_adj, -1000 (never) to 1000 (first).  The host side writes it: lowering
    needs CAP_SYS_RESOURCE in the host's user namespace.  And it does so late: processes that share
    their memory share this number, too."""

    side: ClassVar[str] = HOST
    name = "oom-score"
    without = "the kernel treats the container like any other process when memory runs out"
    look = ("oom_score_adj",)

    value: int

    def title(self) -> str:
        """In a few words."""
        return f"set oom_score_adj to {self.value}"

    def shell(self) -> str:
        """echo, or choom(1)."""
        return f"echo {self.value} > /proc/$PID/oom_score_adj"

    def run(self, context: Context) -> None:
        """Write /proc/PID/oom_score_adj."""
        with open(f"/proc/{context.pid}/oom_score_adj", "w") as file:
            file.write(str(self.value))
