"""A process, and how one is made: clone3(2), the system call that is the whole idea.

fork(2) makes a copy of the calling process.  clone3 is fork with a list of wishes: each CLONE_NEW*
flag asks that the child see a fresh copy of one of the kernel's tables (mounts, process ids,
network links, ...) instead of sharing its parent's.  A child with such wishes *is* a container;
everything else in this house is furniture.

clone3 also hands back a pidfd: a descriptor for the child that, unlike a pid, can never come to
mean another process (pidfd_open(2)).  It becomes readable when the child has ended.

By hand:   unshare --uts --pid --fork sh
See it:    ls -l /proc/self/ns ; strace -f -e clone3 minicontainer run --rm alpine true
"""

from __future__ import annotations

import _signal
import errno
import os

from minicontainer.libc import C, Flags, address, check, ffi, syscall
from minicontainer.step import HOST, Context, Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import ClassVar

# ---- vocabulary: include/uapi/linux/sched.h

CLONE_PIDFD = 0x00001000
CLONE_INTO_CGROUP = 0x200000000
CLONE_FLAGS = {
    "CLONE_NEWTIME": 0x80, "CLONE_PIDFD": CLONE_PIDFD, "CLONE_NEWNS": 0x00020000,
    "CLONE_NEWCGROUP": 0x02000000, "CLONE_NEWUTS": 0x04000000, "CLONE_NEWIPC": 0x08000000,
    "CLONE_NEWUSER": 0x10000000, "CLONE_NEWPID": 0x20000000, "CLONE_NEWNET": 0x40000000,
    "CLONE_INTO_CGROUP": CLONE_INTO_CGROUP,
}  # fmt: skip

# include/uapi/linux/prctl.h; by cffi: importing python-prctl costs a millisecond (docs/adr/0004)
_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_NO_NEW_PRIVS = 38

_SIGCHLD = 17
_SIGKILL = 9

# ---- verbs


def clone3(flags: int, cgroup_fd: int = -1) -> tuple[int, int]:
    """Make a child with ``flags`` (CLONE_NEW*): (pid, pidfd) in the parent, (0, -1) in the child.

    No stack is given, so the child goes on with a copy of ours, as after fork(2).  The C library
    and CPython are not told: the child must stay single-threaded, print nothing, and exec soon.
    ``cgroup_fd`` is for CLONE_INTO_CGROUP.  Raises KernelError: clone(2), "ERRORS".
    """
    pidfd = ffi.new("int *", -1)
    arguments = ffi.new("struct clone_args *")
    arguments.flags = flags | CLONE_PIDFD
    arguments.pidfd = address(pidfd)
    arguments.exit_signal = _SIGCHLD
    if flags & CLONE_INTO_CGROUP:
        arguments.cgroup = cgroup_fd
    pid = syscall("clone3", address(arguments), ffi.sizeof("struct clone_args"))
    if pid == 0:
        return 0, -1
    check(
        pid, "clone3", Flags(flags | CLONE_PIDFD, CLONE_FLAGS),
        meaning={
            errno.EPERM: "new namespaces need CAP_SYS_ADMIN (or a new user namespace)",
            errno.ENOSPC: "a limit in /proc/sys/user/max_*_namespaces is reached",
            errno.EUSERS: "user namespaces are nested too deep (32), or their limit is reached",
            errno.EINVAL: "this kernel was built without one of these namespaces",
            errno.EBUSY: "the cgroup hands controllers to children, so it may hold no process",
            errno.EOPNOTSUPP: "the cgroup is of type 'domain invalid'",
            errno.EAGAIN: "a limit on the number of processes is reached",
            errno.ENOSYS: "clone3 is forbidden here (an outer container's seccomp filter?)",
        },
    )  # fmt: skip
    return pid, int(pidfd[0])


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
        """One prctl; and if the runtime is gone already, that is the end too."""
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
    needs CAP_SYS_RESOURCE in the host's user namespace."""

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
