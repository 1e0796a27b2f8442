"""signals.py: what is sent to the runtime arrives at the container, and nothing else changes."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from minicontainer.signals import KEPT, CaughtSignals, forward_signals, send
from tests.support import CHECKOUT

# Says what it gets, one number a line; SIGTERM ends it.
PROGRAM = """
import signal
signals = set(signal.valid_signals()) - {signal.SIGKILL, signal.SIGSTOP}
signal.pthread_sigmask(signal.SIG_BLOCK, signals)
print("ready", flush=True)
while (number := signal.sigwait(signals)) != signal.SIGTERM:
    print(int(number), flush=True)
"""

# Forwards to the pid it is told; MUTANT changes a piece of signals.py first.
RUNTIME = """
import os, sys
sys.path.insert(0, os.getcwd())
from minicontainer import signals
if mutant := os.environ.get("MUTANT"):
    old, new = mutant.split(" => ")
    text = open(signals.__file__).read()
    assert text.count(old) == 1, old
    exec(compile(text.replace(old, new), signals.__file__, "exec"), signals.__dict__)
pidfd = os.pidfd_open(int(sys.argv[1]))
print("ready", flush=True)
signals.forward_signals(pidfd)
print("ended", flush=True)
"""


class Pair:
    """A program, and a runtime that forwards to it."""

    def __init__(self, mutant: str = "", before: str = "") -> None:
        self.program = self.start("-c", PROGRAM)
        self.line(self.program)
        source = before + RUNTIME
        self.runtime = self.start("-c", source, str(self.program.pid), MUTANT=mutant)
        self.line(self.runtime)
        time.sleep(0.1)  # its handlers are set a moment after it says so

    def start(self, *args: str, **env: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, *args], stdout=subprocess.PIPE, bufsize=0, cwd=CHECKOUT,
            env={**os.environ, **env},
        )  # fmt: skip

    def line(self, process: subprocess.Popen[bytes]) -> str:
        assert process.stdout
        assert select.select([process.stdout], [], [], 3)[0], "it says nothing"
        return process.stdout.readline().decode().strip()

    def close(self) -> None:
        for process in (self.program, self.runtime):
            process.kill()
            process.communicate()


@pytest.fixture
def pairs() -> Iterator[list[Pair]]:
    made: list[Pair] = []
    yield made
    for pair in made:
        pair.close()


def check_forwards(pairs: list[Pair], mutant: str = "") -> None:
    """Each signal that can be caught, and that is not about the runtime itself."""
    pairs.append(Pair(mutant))
    pair = pairs[-1]
    ignored = {signal.SIGPIPE, signal.SIGXFSZ}  # by CPython itself
    for number in signal.valid_signals() - KEPT - ignored - {signal.SIGTERM}:
        pair.runtime.send_signal(number)
        assert pair.line(pair.program) == str(int(number))
    pair.runtime.send_signal(signal.SIGTERM)
    assert pair.program.wait(5) == 0
    assert pair.line(pair.runtime) == "ended"
    assert pair.runtime.wait(5) == 0


def check_sleeps(pairs: list[Pair], mutant: str = "") -> None:
    """While nothing is sent, nothing runs."""
    pairs.append(Pair(mutant))
    pid = pairs[-1].runtime.pid
    before = switches(pid)
    time.sleep(0.3)
    assert switches(pid) == before


def switches(pid: int) -> list[str]:
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    return [line for line in status if "ctxt_switches" in line]


def check_nohup(pairs: list[Pair], mutant: str = "") -> None:
    """What was ignored stays ignored: nohup(1) is for the whole job."""
    ignore = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
    pairs.append(Pair(mutant, before=ignore))
    pair = pairs[-1]
    pair.runtime.send_signal(signal.SIGHUP)
    pair.runtime.send_signal(signal.SIGUSR1)
    first = pair.line(pair.program)
    pair.runtime.send_signal(signal.SIGTERM)
    assert pair.program.stdout
    # Two that come together may arrive in either order, so all that came is looked at.
    assert [first, *pair.program.stdout.read().decode().split()] == [str(int(signal.SIGUSR1))]


CHECKS = {"forwards": check_forwards, "sleeps": check_sleeps, "nohup": check_nohup}


@pytest.mark.parametrize("check", CHECKS)
def test_forwarding(pairs, check):
    CHECKS[check](pairs)


@pytest.mark.parametrize(
    ("check", "mutant"),
    [
        ("forwards", "for number in signals.take(): => for number in signals.take()[1:]:"),
        ("forwards", "while pidfd not in ready: => while True:"),
        ("forwards", "_signal.valid_signals() - KEPT => set(range(1, 32)) - KEPT"),
        ("sleeps", "dict(poll.poll()) => dict(poll.poll(20))"),
        ("nohup", "not in (_signal.SIG_IGN, None) => not in (None,)"),
    ],
)
def test_the_checks_can_fail(pairs, check, mutant):
    with pytest.raises((AssertionError, subprocess.TimeoutExpired)):
        CHECKS[check](pairs, mutant)


def test_everything_is_as_before_afterwards():
    before = [signal.getsignal(number) for number in signal.valid_signals()]
    descriptors = sorted(os.listdir("/proc/self/fd"))
    with CaughtSignals() as signals:
        os.kill(os.getpid(), signal.SIGINT)  # no KeyboardInterrupt
        os.kill(os.getpid(), signal.SIGUSR1)
        assert select.select([signals.fd], [], [], 5)[0]
        assert sorted(signals.take()) == [signal.SIGINT, signal.SIGUSR1]
        assert signals.take() == b""
    assert [signal.getsignal(number) for number in signal.valid_signals()] == before
    assert sorted(os.listdir("/proc/self/fd")) == descriptors
    assert signal.set_wakeup_fd(-1) == -1


def test_in_another_thread_it_only_waits():
    """Python catches signals in the main thread alone: a library may be called from any."""
    program = subprocess.Popen(["sleep", "0.2"])
    pidfd = os.pidfd_open(program.pid)
    errors: list[BaseException] = []

    def wait() -> None:
        try:
            forward_signals(pidfd)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    thread.join(5)
    assert not thread.is_alive()
    assert errors == []
    assert program.wait() == 0
    os.close(pidfd)


def test_sending_to_the_dead():
    program = subprocess.Popen(["true"])
    pidfd = os.pidfd_open(program.pid)
    assert program.wait() == 0
    assert not send(pidfd, signal.SIGTERM)
    os.close(pidfd)
