"""kernel/terminal.py: the pty of the container's own devpts, and what a program finds of it."""

from __future__ import annotations

import errno
import os
import pty
import re
import select
import signal
import socket
import termios
import tty
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from minicontainer import mountcalls
from minicontainer.errors import KernelError
from minicontainer.kernel import terminal
from minicontainer.kernel.terminal import OpenConsole
from minicontainer.step import Context
from tests.kernel.terminal_runtime import Started, enter, make_root, start
from tests.support import forked

pytestmark = pytest.mark.requires_root


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_root(tmp_path / "root")


class Program:
    """A program at a terminal, spoken to through the master as a person would."""

    def __init__(self, started: Started) -> None:
        self.pid, self.pidfd, self.master = started
        self.seen = b""

    def expect(self, pattern: str) -> re.Match[str]:
        """Read until the output matches; what matched is taken away."""
        while not (match := re.search(pattern.encode(), self.seen)):
            assert select.select([self.master], [], [], 10)[0], f"not seen: {self.seen!r}"
            try:
                self.seen += os.read(self.master, 4096)
            except OSError as error:
                raise AssertionError(f"the end came first: {self.seen!r}") from error
        self.seen = self.seen[match.end() :]
        return re.search(pattern, match[0].decode())  # type: ignore[return-value]

    def type(self, keys: str) -> None:
        os.write(self.master, keys.encode())

    def status(self) -> int:
        assert select.select([self.pidfd], [], [], 10)[0], "it still runs"
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


@pytest.fixture
def run(root: Path) -> Iterator[Callable[..., Program]]:
    """Start programs at terminals; end them after the test."""
    programs: list[Program] = []

    def run_program(*program: str, step: OpenConsole | None = None, uid: int = 0) -> Program:
        programs.append(Program(start(root, *program, step=step, uid=uid)))
        return programs[-1]

    yield run_program
    for program in programs:
        signal.pidfd_send_signal(program.pidfd, signal.SIGKILL) if alive(program) else None
        try:
            os.waitpid(program.pid, 0)
        except ChildProcessError:
            pass
        os.close(program.pidfd)
        os.close(program.master)


def alive(program: Program) -> bool:
    return not select.select([program.pidfd], [], [], 0)[0]


# ---- what the program finds


def test_the_terminal_is_the_containers_own(run):
    program = run(
        "sh", "-c", "tty; stat -c %t:%T /dev/console /dev/pts/0; "
        "grep -c ' /dev/console .* devpts ' /proc/self/mountinfo; exec cat", uid=1000,
    )  # fmt: skip
    program.expect("^/dev/pts/0\r\n88:0\r\n88:0\r\n1\r\n")


def check_controlling(program: Program) -> None:
    """It leads a session whose terminal this is, and is in front of it."""
    fields = program.expect(r"(\d+) \(.*\) \S \d+ (\d+) (\d+) (\d+) (-?\d+) ")
    pid, group, session, number, foreground = map(int, fields.groups())
    assert pid == group == session == foreground
    assert number == os.makedev(136, 0)
    program.expect("opened /dev/tty")


CONTROLLING = ("sh", "-c", "cat /proc/$$/stat; : >/dev/tty && echo opened /dev/tty; exec cat")


def test_it_controls_the_session(run):
    check_controlling(run(*CONTROLLING))


class NotControlling(OpenConsole):
    """The mutant: opened, and not made the controlling terminal."""

    def run(self, context: Context) -> None:
        kept, terminal.set_controlling_terminal = terminal.set_controlling_terminal, lambda fd: None
        try:
            super().run(context)
        finally:
            terminal.set_controlling_terminal = kept


def test_the_check_of_the_session_can_fail(run):
    with pytest.raises(AssertionError):
        check_controlling(run(*CONTROLLING, step=NotControlling()))


def test_keys_become_signals(run):
    program = run(
        "sh", "-c", "trap 'echo INTERRUPTED' INT; echo ready; while :; do sleep 0.1; done"
    )
    program.expect("ready\r\n")
    program.type("\x03")
    program.expect("INTERRUPTED")


def test_lines_are_edited_and_echoed(run):
    program = run("sh", "-c", 'echo ready; read line; echo "<$line>"')
    program.expect("ready\r\n")
    program.type("one\x7fly\n")  # backspace takes the e
    program.expect("<only>\r\n")
    assert program.status() == 0


def test_the_window_size_is_there_from_the_start_and_follows(run):
    script = "trap 'stty size' WINCH; stty size; while :; do sleep 0.1; done"
    program = run("sh", "-c", script, step=OpenConsole(rows=33, columns=77))
    program.expect("33 77\r\n")
    assert terminal.get_window_size(program.master) == (33, 77)
    terminal.set_window_size(program.master, 50, 132)
    program.expect("50 132\r\n")


@pytest.mark.parametrize(("uid", "gid", "owner"), [(0, -1, "0:5"), (7, -1, "7:5"), (7, 9, "7:9")])
def test_the_user_owns_it(run, uid, gid, owner):
    """fchown(2) on the descriptor; group tty as devpts's gid= says, for write(1) and wall(1)."""
    program = run("sh", "-c", "stat -c '%u:%g %a' /dev/pts/0; : </dev/pts/0 && echo readable; cat",
                  step=OpenConsole(uid=uid, gid=gid), uid=uid)  # fmt: skip
    program.expect(f"{owner} 620\r\n")
    program.expect("readable")


def test_when_the_host_hangs_up_the_program_hears_it(run):
    """Closing the master is pulling the plug: SIGHUP."""
    program = run("sh", "-c", "echo ready; exec sleep 60")
    program.expect("ready\r\n")
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, program.master)
    os.close(null)
    assert program.status() == -signal.SIGHUP


def test_a_second_program_gets_a_pty_and_no_console(run, root):
    """docker exec -t: the console belongs to the first."""
    program = run("sh", "-c", "ls /dev; tty; cat", step=OpenConsole(console=False))
    names = program.expect(r"^((?:.|\r\n)*)/dev/pts/0\r\n")[1]
    assert "console" not in names


# ---- what is refused


def opened(prepare: Callable[[], object], path: str = "/dev/pts") -> str:
    """What open_ptmx says about a /dev/pts that somebody has prepared."""

    def attempt() -> str:
        prepare()
        try:
            return os.readlink(f"/proc/self/fd/{terminal.open_ptmx(path)}")
        except KernelError as error:
            return f"{error.call}: {errno.errorcode[error.errno]}"

    return str(forked(attempt))


def new_devpts(path: str) -> None:
    mountcalls.mount("devpts", path, "devpts", 0, "newinstance,ptmxmode=0666")


def test_only_the_ptmx_of_a_devpts_is_opened(tmp_path):
    place = tmp_path / "pts"
    place.mkdir()
    (tmp_path / "link").symlink_to(place)
    assert opened(lambda: new_devpts(str(place)), str(place)) == f"{place}/ptmx"
    # a directory of the image's, with a real ptmx in it
    (place / "ptmx").touch()
    os.mknod(place / "other", 0o20666, os.makedev(5, 2))
    os.rename(place / "other", place / "ptmx")
    assert opened(lambda: None, str(place)) == "fstatfs: ENOTTY"
    # a link to a devpts
    assert opened(lambda: new_devpts(str(place)), str(tmp_path / "link")) == "openat: ENOTDIR"

    def cover() -> None:
        new_devpts(str(place))
        mountcalls.mount("/dev/null", f"{place}/ptmx", None, mountcalls.MS_BIND)

    assert opened(cover, str(place)) == "openat2: EXDEV"


def bound(root: Path, prepare: Callable[[], object]) -> str:
    """What bind_console does with a /dev/console that somebody has prepared."""

    def attempt() -> str:
        enter(str(root))
        prepare()
        try:
            terminal.bind_console(terminal.open_peer(terminal.open_ptmx()))
        except KernelError as error:
            return f"{error.call}: {errno.errorcode[error.errno]}"
        mounted = Path("/proc/self/mountinfo").read_text().splitlines()[-1].split()
        return f"{mounted[3]} on {mounted[4]}"

    return str(forked(attempt))


@pytest.mark.parametrize(
    ("prepare", "outcome"),
    [
        (lambda: None, "/0 on /dev/console"),
        (lambda: Path("/dev/console").touch(), "/0 on /dev/console"),
        (lambda: os.mkfifo("/dev/console"), "/0 on /dev/console"),  # a FIFO is not waited for
        # CVE-2025-52565: the pty would land on a file that the runtime is about to protect
        (lambda: os.symlink("/proc/sysrq-trigger", "/dev/console"), "move_mount: ELOOP"),
        (lambda: os.mkdir("/dev/console"), "move_mount: EINVAL"),
    ],
)
def test_where_the_console_lands(root, prepare, outcome):
    assert bound(root, prepare) == outcome


def test_it_says_what_an_errno_means(tmp_path):
    with open(tmp_path / "file", "w") as file, pytest.raises(KernelError, match="no terminal"):
        terminal.get_window_size(file.fileno())
    master, slave = pty.openpty()
    with pytest.raises(KernelError, match="do not lead a session"):
        forked(lambda: terminal.set_controlling_terminal(slave))
    os.close(master)
    os.close(slave)


def test_raw_mode_is_what_the_standard_library_calls_raw():
    """The oracle: tty.setraw on another terminal, and cfmakeraw(3)'s list in termios(3)."""
    master, slave = pty.openpty()
    before = termios.tcgetattr(slave)
    raw = terminal.make_raw(before)
    assert termios.tcgetattr(slave) == before  # nothing was changed in place
    tty.setraw(slave)
    theirs = termios.tcgetattr(slave)
    termios.tcsetattr(slave, termios.TCSANOW, raw)
    ours = termios.tcgetattr(slave)
    assert ours == raw  # the kernel took all of it
    # Python 3.11's setraw leaves these on; cfmakeraw(3) does not
    theirs[0] &= ~(termios.IGNBRK | termios.PARMRK | termios.INLCR | termios.IGNCR)
    theirs[3] &= ~termios.ECHONL
    # and 3.12's turns these off, which mean nothing without ICANON; cfmakeraw(3) does not
    theirs[3] |= before[3] & (termios.ECHOE | termios.ECHOK)
    assert ours == theirs
    os.close(master)
    os.close(slave)


def test_the_master_is_the_hosts_alone(root):
    """The program has no descriptor of the master: nothing in there can read what is typed."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    started = start(root, "sh", "-c", "ls -l /proc/$$/fd; exec cat")
    program = Program(started)
    listing = program.expect(r"((?:.|\r\n)*2 -> \S+)\r\n")[1]
    assert re.findall(r"(\d+) -> (\S+)", listing) == [(n, "/dev/pts/0") for n in "012"]
    os.kill(program.pid, signal.SIGKILL)
    program.status()
    for fd in (program.master, program.pidfd):
        os.close(fd)
    ours.close()
    theirs.close()
