"""console.py between two real terminals: pexpect is the person, a shell the program.

Most checks are functions of a mutation of console.py ("" is none), so that each can be shown to
fail where it must.
"""

from __future__ import annotations

import hashlib
import os
import re
import select
import signal
import socket
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pexpect
import pytest

from minicontainer import console
from minicontainer.console import require_terminal
from minicontainer.errors import UsageError
from tests.kernel.terminal_runtime import make_root, mutate
from tests.support import CHECKOUT, SLOWER, forked

pytestmark = pytest.mark.requires_root

RUNTIME = [sys.executable, "-m", "tests.kernel.terminal_runtime"]
FAILURES = (AssertionError, pexpect.TIMEOUT, pexpect.EOF)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_root(tmp_path_factory.mktemp("console") / "root")


class Person:
    """Somebody at a terminal, in which the runtime runs."""

    def __init__(self, argv: list[str], env: dict[str, str]) -> None:
        self.child = pexpect.spawn(
            argv[0], argv[1:], env={**os.environ, **env}, cwd=CHECKOUT, timeout=10, echo=True,
            encoding="utf-8", dimensions=(24, 80),
        )  # fmt: skip
        self.child.delaybeforesend = None
        self.before = self.modes()

    def modes(self) -> list[Any]:
        """What the terminal is set to."""
        return termios.tcgetattr(self.child.child_fd)

    def expect(self, pattern: str) -> re.Match[str]:
        self.child.expect(pattern)
        return self.child.match

    def type(self, keys: str) -> None:
        self.child.send(keys)

    def is_raw(self) -> bool:
        return not self.modes()[3] & termios.ICANON

    def wait_for(self, condition: Callable[[], bool]) -> None:
        """Until it holds; it must within a few seconds."""
        deadline = time.monotonic() + self.child.timeout
        while not condition():
            assert time.monotonic() < deadline, "it never came true"
            time.sleep(0.01)

    def runtime(self) -> int:
        """The pid of the runtime."""
        return self.child.pid


@pytest.fixture
def at_terminal(root: Path) -> Iterator[Callable[..., Person]]:
    """Start the runtime at a terminal; end it after the test."""
    people: list[Person] = []

    def start(*program: str, mutant: str = "", **env: str) -> Person:
        if mutant:
            env["MUTANT"] = mutant
        people.append(Person([*RUNTIME, str(root), *program], env))
        people[-1].child.timeout = (2 if mutant else 10) * SLOWER
        return people[-1]

    yield start
    for person in people:
        person.child.close(force=True)


# ---- a session


def test_a_shell_at_a_terminal(at_terminal):
    person = at_terminal("sh")
    person.expect(r"\$ ")
    person.wait_for(person.is_raw)
    person.type("echo $((6 * 7))\r")
    # echoed once, by the container's terminal and not by ours as well
    assert person.expect(r"([^\n]*)\r\n42\r\n\$ ")[1].count("echo $((6 * 7))") == 1
    person.type("\x04")  # Ctrl-D
    person.expect("status 0\r\n")
    person.expect(pexpect.EOF)
    assert person.modes() == person.before


def test_control_c_is_for_the_program(at_terminal):
    person = at_terminal("cat")
    person.wait_for(person.is_raw)
    person.type("meow\r")
    person.expect("meow\r\nmeow\r\n")  # the echo of the container's terminal, then cat
    person.type("\x03")
    person.expect(r"\^Cstatus -2\r\n")  # SIGINT
    assert person.modes() == person.before


SCRIPT = "sleep 0.5; stty raw; seq 1 5500; echo END"
OUTPUT = "\n".join([*map(str, range(1, 5501)), "END"])


def check_all_output(at_terminal: Callable[..., Person], mutant: str = "") -> None:
    """Every byte arrives, also when it is read only after the end."""
    person = at_terminal("sh", "-c", SCRIPT, mutant=mutant)
    # 26 kB: more than one terminal holds (14 to 22), less than two do.  So the program can end.
    person.wait_for(lambda: "sh" in map(title, children(person.runtime())))
    person.wait_for(lambda: "sh" not in map(title, children(person.runtime())))
    text = ""
    while not text.endswith("status 0\r\n"):
        try:
            text += person.child.read_nonblocking(1 << 12, timeout=10)
        except pexpect.EOF:
            break
    assert text == OUTPUT + "\nstatus 0\r\n"


def test_all_output_arrives(at_terminal):
    check_all_output(at_terminal)


def check_pieces(mutant: str = "") -> None:
    """Nothing is lost where each side takes less than it is offered.

    Terminals seldom do, so here the program sits at a socket with a small buffer."""
    data = bytes(range(256)) * 2000
    script = "seq 1 60000; head -c 512000 | md5sum"

    def relayed() -> bytes:
        if mutant:
            mutate(*mutant.split(" => "))
        ours, theirs = socket.socketpair()
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 0)
        program = subprocess.Popen(["sh", "-c", script], stdin=theirs, stdout=theirs)
        theirs.close()
        mercy = threading.Timer(1.5 if mutant else 20, program.kill)  # it may wait for ever
        mercy.start()
        stdin, keyboard = os.pipe()
        screen, stdout = os.pipe()
        seen: list[bytes] = []
        threads = [
            threading.Thread(target=lambda: type_all(keyboard, data)),
            threading.Thread(target=lambda: seen.extend(iter(lambda: os.read(screen, 5000), b""))),
        ]
        for thread in threads:
            thread.start()
        console.relay(ours.fileno(), os.pidfd_open(program.pid), stdin, stdout)
        mercy.cancel()
        os.close(stdin)
        os.close(stdout)
        for thread in threads:
            thread.join()
        return b"".join(seen)

    lines = forked(relayed).decode().splitlines()
    assert lines[:-1] == [*map(str, range(1, 60001))]
    assert lines[-1] == hashlib.md5(data).hexdigest() + "  -"


def type_all(keyboard: int, data: bytes) -> None:
    """Write all and close; a reader that goes away is no error."""
    try:
        while data:
            data = data[os.write(keyboard, data) :]
    except BrokenPipeError:
        pass
    os.close(keyboard)


def test_nothing_is_lost_in_pieces():
    check_pieces()


@pytest.mark.parametrize(
    "mutant",
    [
        "screen = screen[written:] => screen = b''",
        "keys[max(_write(master, keys), 0) :] => keys[max(_write(master, keys), 0) + 1 :]",
        "if typing and connected and not keys: => if typing and connected:",
        "connected = bool(data) or (data is None and running) => connected = bool(data)",
    ],
)
def test_the_check_of_pieces_can_fail(mutant):
    with pytest.raises(AssertionError):
        check_pieces(mutant)


def check_all_keys(at_terminal: Callable[..., Person], mutant: str = "") -> None:
    """Every byte typed arrives, however slowly the program reads."""
    script = "stty raw -echo; echo ready; sleep 0.3; head -c 300000 | md5sum"
    person = at_terminal("sh", "-c", script, mutant=mutant)
    person.expect("ready")
    data = bytes(range(256)) * 1172
    left = data[:300000]
    summed = hashlib.md5(left).hexdigest()
    fd = person.child.child_fd
    os.set_blocking(fd, False)
    while left:
        assert select.select([], [fd], [], 10)[1], "nobody takes what is typed"
        try:
            left = left[os.write(fd, left[:5000]) :]
        except BlockingIOError:
            continue
    os.set_blocking(fd, True)
    person.expect(summed)


def test_all_keys_arrive(at_terminal):
    check_all_keys(at_terminal)


def check_window(at_terminal: Callable[..., Person], mutant: str = "") -> None:
    """The container's terminal is as large as ours, from the start and afterwards."""
    script = "sleep 0.3; trap 'stty size' WINCH; stty size; while :; do sleep 0.1; done"
    person = at_terminal("sh", "-c", script, mutant=mutant)
    person.expect("24 80\r\n")
    person.child.setwinsize(50, 132)
    person.expect("50 132\r\n")


def test_the_window_is_followed(at_terminal):
    check_window(at_terminal)


def check_sleeps(at_terminal: Callable[..., Person], mutant: str = "") -> None:
    """While nobody types and nothing is written, the runtime does nothing."""
    person = at_terminal("sh", "-c", "echo ready; exec sleep 60", mutant=mutant)
    person.expect("ready")
    time.sleep(0.3)
    before = switches(person.runtime())
    time.sleep(0.5)
    assert switches(person.runtime()) == before


def switches(pid: int) -> list[str]:
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    return [line for line in status if "ctxt_switches" in line]


def test_it_sleeps(at_terminal):
    check_sleeps(at_terminal)


@pytest.mark.parametrize(
    ("check", "mutant"),
    [
        ("all_output", "if not running and not connected and not screen: => if not running:"),
        ("all_keys", "keys = _read(stdin) or b\"\" => keys = (_read(stdin) or b\"\")[:1000]"),
        ("window", "if number == _signal.SIGWINCH: => if number == 0:"),
        ("window", "    typing, connected, running = stdin >= 0, True, True\n"
         "    follow_window_size(master, stdin, stdout) => "
         "    typing, connected, running = stdin >= 0, True, True"),
        ("sleeps", "dict(poll.poll()) => dict(poll.poll(50))"),
    ],
)  # fmt: skip
def test_the_checks_can_fail(at_terminal, check, mutant):
    with pytest.raises(FAILURES):
        globals()["check_" + check](at_terminal, mutant)


def test_typed_ahead(at_terminal):
    """What was typed before the program asked, or even ran, is not thrown away."""
    person = at_terminal("sh", "-c", 'sleep 0.3; read line; echo "<$line>"')
    person.type("early bird\r")
    person.expect("<early bird>")


# ---- the terminal is restored


def test_after_a_signal(at_terminal):
    """SIGTERM is for the program; when that ends by it, all is as before."""
    person = at_terminal("sh", "-c", "echo ready; exec sleep 60")
    person.expect("ready")
    person.wait_for(person.is_raw)
    os.kill(person.runtime(), signal.SIGTERM)
    person.expect("status -15\r\n")
    assert person.modes() == person.before


def test_after_an_exception(at_terminal):
    person = at_terminal(
        "sh", "-c", "echo ready; exec sleep 60",
        mutant="screen = data or => screen = data and 1 / 0 or",
    )  # fmt: skip
    person.expect("ZeroDivisionError")
    person.expect(pexpect.EOF)
    assert person.modes() == person.before


def check_killed(at_terminal: Callable[..., Person], mutant: str = "") -> None:
    """kill -9: nobody is left to restore it but the guard."""
    person = at_terminal("sh", "-c", "echo ready; exec sleep 60", mutant=mutant)
    person.expect("ready")
    person.wait_for(person.is_raw)
    os.kill(person.runtime(), signal.SIGKILL)
    person.wait_for(lambda: person.modes() == person.before)


def test_after_kill_9(at_terminal):
    check_killed(at_terminal)


def test_without_the_guard_it_stays_raw(at_terminal):
    with pytest.raises(AssertionError):
        check_killed(at_terminal, 'if os.read(1, 1) == b"" and => if os.read(1, 1) == 0 and')


def guard_of(person: Person) -> int:
    """The pid of the guard, once it has its name."""
    guards: list[int] = []

    def found() -> bool:
        guards[:] = [pid for pid in children(person.runtime()) if title(pid) == "mini:[guard]"]
        return bool(guards)

    person.wait_for(found)
    return guards[0]


def check_bystander(at_terminal: Callable[..., Person], mutant: str = "") -> None:
    """A terminal that somebody else has set since is not touched by the guard."""
    person = at_terminal("sh", "-c", "echo ready; exec sleep 60", mutant=mutant)
    person.expect("ready")
    person.wait_for(person.is_raw)
    guard = guard_of(person)
    theirs = person.modes()
    theirs[3] |= termios.ECHO
    termios.tcsetattr(person.child.child_fd, termios.TCSANOW, theirs)
    os.kill(person.runtime(), signal.SIGKILL)
    person.wait_for(lambda: title(guard) == "")
    assert person.modes() == theirs


def children(pid: int) -> list[int]:
    return [*map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]


def title(pid: int) -> str:
    """The name of a process, "" when it has ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return ""
    return "" if ") Z " in stat else stat[stat.index("(") + 1 : stat.rindex(")")]


def test_the_guard_minds_its_own_business(at_terminal):
    check_bystander(at_terminal)


def test_the_check_of_the_guard_can_fail(at_terminal):
    with pytest.raises(AssertionError):
        check_bystander(at_terminal, "termios.tcgetattr(0) == raw => raw")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGTSTP])
def test_the_guard_survives_what_is_sent_to_the_group(at_terminal, number):
    person = at_terminal("sh", "-c", "trap '' TERM HUP INT TSTP; echo ready; exec sleep 60")
    person.expect("ready")
    person.wait_for(person.is_raw)
    guard = guard_of(person)
    os.killpg(os.getpgid(person.runtime()), number)
    time.sleep(0.2)
    assert title(guard) == "mini:[guard]"
    os.kill(person.runtime(), signal.SIGKILL)
    person.wait_for(lambda: person.modes() == person.before)


# ---- job control


@pytest.fixture
def shell(root: Path) -> Iterator[Person]:
    """A person in front of an interactive shell, which knows the runtime as ``$R``."""
    env = {"R": " ".join([*RUNTIME, str(root)]), "PS1": "host> ", "PS2": ""}
    person = Person(["bash", "--norc", "--noprofile", "--noediting", "-i"], env)
    person.expect("host> ")
    yield person
    person.child.close(force=True)


def test_in_the_background_it_stops_until_it_is_called(shell):
    shell.type("$R sh &\r")
    shell.type(f"sleep {SLOWER}; jobs\r")
    shell.expect(r"Stopped[^\r]*\r\n")
    shell.type("fg\r")
    shell.expect(r"\r\n\$ ")
    shell.type("echo $((6 * 7)); exit\r")
    shell.expect("\r\n42\r\n")
    shell.expect("status 0\r\n")


def test_stopped_and_continued(shell):
    shell.type("$R sh\r")
    shell.expect(r"\r\n\$ ")
    shell.wait_for(shell.is_raw)
    [runtime] = [p for p in children(shell.child.pid) if "terminal_runtime" in command(p)]
    os.kill(runtime, signal.SIGSTOP)
    shell.expect(r"Stopped[^\r]*\r\n")
    shell.wait_for(lambda: not shell.is_raw())
    shell.child.setwinsize(30, 90)
    shell.type("fg\r")
    shell.wait_for(shell.is_raw)
    shell.type("stty size; exit\r")
    shell.expect("\r\n30 90\r\n")
    shell.expect("status 0\r\n")


def command(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text()


# ---- when there is no terminal on our side, or not any more


def test_input_that_is_no_terminal_is_refused():
    read, write = os.pipe()
    with pytest.raises(UsageError, match="the input device is not a TTY") as caught:
        require_terminal(read)
    assert caught.value.exit_code == 125
    os.close(read)
    os.close(write)


def test_input_from_a_pipe_ends_with_control_d(root):
    """As a library, or with a screen and no keyboard: the program sees the end of the input."""
    done = subprocess.run(
        [*RUNTIME, str(root), "cat"], input=b"piped\n", capture_output=True, cwd=CHECKOUT,
        timeout=20 * SLOWER,
    )  # fmt: skip
    assert done.stdout == b"piped\r\npiped\r\nstatus 0\n"


def test_output_that_nobody_reads_ends_it(root):
    script = f"{' '.join(RUNTIME)} {root} yes | head -n 1"
    done = subprocess.run(
        ["bash", "-c", script + "; echo ${PIPESTATUS[0]}"], stdin=subprocess.DEVNULL,
        capture_output=True, cwd=CHECKOUT, timeout=20 * SLOWER,
    )  # fmt: skip
    # yes is hung up on; the runtime then fails to print its last line, which is the test's own
    assert done.stdout.startswith(b"y\r\n"), done


def test_without_stdin_the_terminal_is_left_alone(at_terminal):
    """-t without -i: Ctrl-C interrupts the runtime, which passes it on."""
    script = "trap 'echo GOT INT; exit 3' INT; echo ready; while :; do sleep 0.1; done"
    person = at_terminal("sh", "-c", script, NO_STDIN="1")
    person.expect("ready")
    assert person.modes() == person.before
    person.type("\x03")
    person.expect("GOT INT")
    person.expect("status 3")


def test_when_our_terminal_goes_away_so_does_the_program(at_terminal):
    person = at_terminal("sh", "-c", "echo ready; exec sleep 60")
    person.expect("ready")
    person.wait_for(person.is_raw)
    runtime = person.runtime()
    pids = [runtime, *children(runtime)]
    assert len(pids) == 3  # the runtime, the guard, the program
    person.child.close(force=False)
    person.wait_for(lambda: not any(map(title, pids)))
