"""kernel/session.py: a session of its own, descriptors that were meant, signals at default."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile

import pytest

from minicontainer.kernel import session
from minicontainer.mountcalls import mount
from tests.kernel.room import Room, status
from tests.support import forked
from tests.unit.mutants import fails, mutant

pytestmark = pytest.mark.requires_root  # for forked


def check_session(module=session):
    def inside():
        before = os.getsid(0)
        module.NewSession().run(Room())
        return before != os.getpid(), os.getsid(0) == os.getpid() == os.getpgid(0)

    assert forked(inside) == (True, True)


def check_no_terminal(module=session):
    """Who leads a new session has no controlling terminal: /dev/tty answers ENXIO."""

    def inside():
        os.setsid()
        _, slave = os.openpty()
        tty = os.open(os.ttyname(slave), os.O_RDWR)  # a leader without one gets it
        pid = os.fork()
        if pid == 0:
            had = os.access("/dev/tty", os.R_OK)
            os.close(os.open("/dev/tty", os.O_RDWR))
            module.NewSession().run(Room())
            try:
                os.open("/dev/tty", os.O_RDWR)
            except OSError:
                os._exit(0 if had else 3)
            os._exit(4)
        os.fstat(tty)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    assert forked(inside) == 0


def check_stdio(module=session):
    """Also when the sources are the targets, the other way round."""

    def inside(order):
        pipes = [os.pipe()[1] for _ in range(3)]
        for target, fd in enumerate(pipes):
            os.dup2(fd, target)
        names = [os.readlink(f"/proc/self/fd/{fd}") for fd in (0, 1, 2)]
        before = len(os.listdir("/proc/self/fd"))
        module.RedirectStdio(order).run(Room())
        assert len(os.listdir("/proc/self/fd")) == before
        assert all(os.get_inheritable(fd) for fd in (0, 1, 2))
        wanted = ["/dev/null" if source < 0 else names[source] for source in order]
        return [os.readlink(f"/proc/self/fd/{fd}") for fd in (0, 1, 2)] == wanted

    for order in ((0, 1, 2), (2, 1, 0), (1, 2, 0), (-1, 0, 0), (-1, -1, -1), (1, 1, 1)):
        assert forked(lambda order=order: inside(order)) is True, order


def check_signals(module=session):
    """As a new program sees them: an ignored signal stays ignored across execve."""

    def inside():
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGPIPE, signal.SIGRTMAX):
            signal.signal(number, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, lambda *_: None)
        signal.pthread_sigmask(signal.SIG_SETMASK, (signal.SIGUSR1, signal.SIGCHLD))
        before = int(status("SigIgn"), 16), int(status("SigBlk"), 16)
        module.ResetSignals().run(Room())
        words = "SigIgn", "SigBlk", "SigCgt"
        here = [int(status(word), 16) for word in words]
        after = subprocess.run(
            ["cat", "/proc/self/status"], capture_output=True, text=True, restore_signals=False
        ).stdout
        lines = dict(line.split(":\t") for line in after.splitlines() if ":\t" in line)
        return all(before), here, [int(lines[word], 16) for word in words]

    # signals 32 and 33 are the C library's own
    ours = ~(1 << 31 | 1 << 32)
    had, here, after = forked(inside)
    assert had
    assert [mask & ours for mask in here] == [0, 0, 0]
    assert after == [0, 0, 0]


def check_null(module=session):
    """A null device of the host's becomes the container's own, and nothing else does."""

    def inside(place, make):
        mount("tmpfs", place, "tmpfs", 0)
        host = os.open("/dev/null", os.O_RDWR)
        write = os.pipe()[1]
        for target, fd in enumerate((host, write, host)):
            os.dup2(fd, target)
        os.chroot(place)
        os.mkdir("/dev")
        make()
        before = len(open_descriptors(host))
        module.ReopenNull().run(Room())
        assert len(open_descriptors(host)) == before
        assert all(os.get_inheritable(fd) for fd in (0, 1, 2))
        same = [os.path.sameopenfile(fd, host) for fd in (0, 2)]
        return same, os.path.sameopenfile(1, write), [os.fstat(fd).st_rdev for fd in (0, 2)]

    def room(make):
        with tempfile.TemporaryDirectory() as place:
            return forked(lambda: inside(place, make))

    null = os.makedev(1, 3)
    kept = [True, True], True, [null, null]
    assert room(lambda: os.mknod("/dev/null", 0o20666, null)) == ([False, False], True, [null] * 2)
    assert room(lambda: None) == kept
    assert room(lambda: os.mknod("/dev/null", 0o20666, os.makedev(1, 5))) == kept
    assert room(lambda: os.close(os.open("/dev/null", os.O_CREAT | os.O_RDWR))) == kept

    def link():
        os.mknod("/dev/true", 0o20666, null)
        os.symlink("true", "/dev/null")

    assert room(link) == kept


def open_descriptors(some: int) -> list[int]:
    """Which numbers are open; there is no /proc to ask."""
    found = []
    for fd in range(some + 64):
        try:
            os.fstat(fd)
            found.append(fd)
        except OSError:
            continue
    return found


CHECKS = [check_session, check_no_terminal, check_stdio, check_null, check_signals]


@pytest.mark.parametrize("check", CHECKS)
def test_the_program_starts_as_if_init_had_started_it(check):
    check()


@pytest.mark.parametrize(
    ("check", "old", "new"),
    [
        (check_session, "        os.setsid()", "        pass"),
        (check_session, "        os.setsid()", "        os.setpgid(0, 0)"),
        (check_no_terminal, "        os.setsid()", "        pass"),
        (check_stdio, "os.dup(fd if fd >= 0 else null)", "(fd if fd >= 0 else null)"),
        (check_stdio, "        os.close(null)\n\n\nclass ReopenNull", "\n\nclass ReopenNull"),
        (check_stdio, "            os.close(source)\n", ""),
        (check_stdio, "(source, target, inheritable=True", "(source, target, inheritable=False"),
        (check_null, "os.dup2(null, fd, inheritable=True)", "os.dup2(null, fd, inheritable=False)"),
        (check_null, "os.dup2(null, fd, inheritable=True)", "pass"),
        (check_null, "        if is_null(null):", "        if True:"),
        (check_null, "                if is_null(fd):", "                if True:"),
        (check_null, " | os.O_NOFOLLOW", ""),
        (check_null, "        os.close(null)\n\n\nclass ResetSignals", "\n\nclass ResetSignals"),
        (check_signals, "        reset_signals()", "        pass"),
        (check_signals, "        _signal.pthread_sigmask(_signal.SIG_SETMASK, ())", "        pass"),
    ],
)
def test_the_checks_can_fail(check, old, new):
    fails(check, mutant(session, old, new))
