"""What a process inherits without asking: a session, three descriptors, ignored signals.

clone(2) hands all of it on and execve(2) keeps it.  A program in a container should start as if
init had started it: leader of a session of its own, with input and output that were meant for it,
and every signal at its default.

Man pages: setsid(2), credentials(7), dup2(2), signal(7).
By hand:   setsid sh -c 'ps -o pid,sid,tty' < /dev/null
See it:    grep Sig /proc/self/status ; ls -l /proc/self/fd
"""

from __future__ import annotations

import _signal
import os
import stat

from minicontainer.libc import C, check
from minicontainer.step import Context, Step

# ---- vocabulary

NULL_DEVICE = os.makedev(1, 3)  # Documentation/admin-guide/devices.txt

# ---- verbs: setsid, dup2, signal are in os and _signal


def is_null(fd: int) -> bool:
    """Is it a null device, whichever inode?  fstat(2); False for a closed descriptor."""
    try:
        status = os.fstat(fd)
    except OSError:
        return False
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == NULL_DEVICE


def reset_signals() -> None:
    """Give every signal its default disposition: rt_sigaction(2), 62 times.

    Past the C library (libc_build.py), which keeps 32 and 33 for itself and hides them: nptl(7).
    Whoever started us may have had them ignored for good."""
    check(C.reset_signals(), "rt_sigaction", "1..64", "SIG_DFL")


# ---- steps


class NewSession(Step):
    """The program leads a session of its own: it has no controlling terminal of the host's, so
    it cannot push keystrokes into it (TIOCSTI), and Ctrl-C at the host is ours to forward."""

    name = "session"
    without = "the program could type into the terminal that started it (CVE-2017-5226)"

    def title(self) -> str:
        """In a few words."""
        return "start a session of its own"

    def shell_prefix(self) -> str:
        """setsid(1)."""
        return "setsid"

    def run(self, context: Context) -> None:
        """setsid(2)."""
        os.setsid()


class RedirectStdio(Step):
    """Standard input, output and error of the program: descriptors of the runtime's, or nothing.

    Without docker's -i, input is /dev/null: a container in the background of a shell script must
    not eat the script's own input."""

    name = "stdio"
    without = "the container reads the terminal or the script that started it"
    look = ("fd/0",)

    stdio: tuple[int, int, int]  # descriptors of the runtime's; -1 is /dev/null

    def title(self) -> str:
        """In a few words."""
        return "connect standard input, output and error"

    def shell(self) -> str:
        """A redirection."""
        return "exec < /dev/null" if self.stdio[0] < 0 else ""

    def run(self, context: Context) -> None:
        """dup2(2); first upwards, so that no source is overwritten before it is used."""
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        sources = [os.dup(fd if fd >= 0 else null) for fd in self.stdio]
        for target, source in enumerate(sources):
            os.dup2(source, target, inheritable=True)
            os.close(source)
        os.close(null)


class ReopenNull(Step):
    """What still points to the host's /dev/null is pointed to the container's.

    An open descriptor is the inode: root in the container could chmod(2) it through
    /proc/self/fd/0, and no one on the host could write to /dev/null any more.  Behind pivot_root
    there is a node of our own with the same numbers."""

    name = "null"
    without = "`chmod 0 /proc/self/fd/0` in the container breaks the host's /dev/null"
    look = ("fd/0",)

    def title(self) -> str:
        """In a few words."""
        return "exchange the host's /dev/null for the container's"

    def run(self, context: Context) -> None:
        """open(2), fstat(2), dup2(2)."""
        try:
            null = os.open("/dev/null", os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            return  # a bundle may have none; then there is nothing to exchange it for
        if is_null(null):
            for fd in (0, 1, 2):
                if is_null(fd):
                    os.dup2(null, fd, inheritable=True)
        os.close(null)


class ResetSignals(Step):
    """Ignored signals stay ignored across execve(2), and CPython ignores SIGPIPE: every program
    in the container would inherit that.  All dispositions and the mask go back to default."""

    name = "signals"
    without = "`yes | head` in the container never ends by SIGPIPE: the write error is ignored"
    look = ("status:SigIgn", "status:SigBlk")

    def title(self) -> str:
        """In a few words."""
        return "reset all signal dispositions"

    def shell_prefix(self) -> str:
        """env(1) of GNU coreutils; a shell cannot take back what was ignored when it started."""
        return "env --default-signal"

    def run(self, context: Context) -> None:
        """rt_sigaction(2) for each, sigprocmask(2) once."""
        reset_signals()
        _signal.pthread_sigmask(_signal.SIG_SETMASK, ())
