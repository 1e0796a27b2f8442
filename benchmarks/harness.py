"""Time commands fairly: interleaved, in random order.

Two commands timed one after the other are timed on two different machines: the clock speed, the
caches and the neighbours have changed in between.  So each round runs every contender once, in
random order, and what is compared are the medians of many rounds.
"""

from __future__ import annotations

import os
import random
import select
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from figures import Noise

PATIENCE = 60  # seconds one run may take before it is killed and counted as failed
GIVE_UP = 3  # failures after which a contender is left out of the remaining rounds


def last_words(text: str) -> str:
    """The end of an error message, on one line: its last line, and a hint after it."""
    lines = [line.strip() for line in text.strip().splitlines()]
    count = 2 if lines and lines[-1].startswith("hint") else 1
    return "; ".join(lines[-count:])[:300]


@dataclass
class Contender:
    """One command to be timed, and what was seen.

    ``{id}`` in ``argv`` becomes a new word for each run.  ``files`` are opened, read-only, at
    these descriptor numbers.  A slow one takes part in every ``every``-th round only.
    """

    name: str
    argv: list[str]
    env: dict[str, str] = field(default_factory=dict)
    files: dict[int, str] = field(default_factory=dict)
    every: int = 1
    note: str = ""
    times: list[float] = field(default_factory=list)  # milliseconds of wall clock
    cpu: list[float] = field(default_factory=list)  # milliseconds, user + system
    failures: int = 0

    _runs = 0

    def command(self) -> list[str]:
        """argv with a new id."""
        Contender._runs += 1
        return [word.replace("{id}", f"b{os.getpid()}x{Contender._runs}") for word in self.argv]

    def probe(self) -> str:
        """Run it once, untimed: "" if it works, else its last words."""
        try:
            seen = subprocess.run(
                ["sh", "-c", self._shell_redirections() + 'exec "$@"', "sh", *self.command()],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                env={**os.environ, **self.env}, text=True, errors="replace", timeout=PATIENCE,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return f"did not end within {PATIENCE} s"
        if seen.returncode == 0:
            return ""
        words = last_words(seen.stderr)
        return f"exit status {seen.returncode}" + (f": {words}" if words else "")

    def _shell_redirections(self) -> str:
        return "".join(f"exec {fd}<'{path}'; " for fd, path in self.files.items())

    def run(self, keep: bool = True) -> None:
        """Run it once and note the time, or the failure."""
        actions: list[tuple[int, int, str, int, int]] = [
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, "/dev/null", os.O_WRONLY, 0),
            (os.POSIX_SPAWN_OPEN, 2, "/dev/null", os.O_WRONLY, 0),
        ]
        actions += [
            (os.POSIX_SPAWN_OPEN, fd, path, os.O_RDONLY, 0) for fd, path in self.files.items()
        ]
        argv, env = self.command(), {**os.environ, **self.env}
        start = time.perf_counter_ns()
        pid = os.posix_spawnp(argv[0], argv, env, file_actions=actions, setpgroup=0)
        pidfd = os.pidfd_open(pid)
        try:
            if not select.select([pidfd], [], [], PATIENCE)[0]:
                os.killpg(pid, signal.SIGKILL)  # the group is the one made just above
        finally:
            os.close(pidfd)
        _, status, usage = os.wait4(pid, 0)
        took = (time.perf_counter_ns() - start) / 1e6
        if status != 0:
            self.failures += 1
        elif keep:
            self.times.append(took)
            self.cpu.append((usage.ru_utime + usage.ru_stime) * 1e3)


class Worker:
    """A process that makes containers while it lives: what a *warm* start costs.

    It is told a number N on its standard input, makes N containers, and answers with one line:
    the N times in milliseconds by its own clock.
    """

    def __init__(self, name: str, argv: list[str], env: Mapping[str, str] | None = None) -> None:
        self.name, self.times = name, list[float]()
        self._process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, **(env or {})},
        )  # fmt: skip

    def batch(self, count: int) -> list[float]:
        """Make ``count`` containers.  Raises RuntimeError with the worker's last words."""
        assert self._process.stdin and self._process.stdout and self._process.stderr
        try:
            self._process.stdin.write(f"{count}\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline().split()
        except BrokenPipeError:
            answer = []
        if len(answer) != count:
            self._process.kill()
            raise RuntimeError(last_words(self._process.stderr.read()) or "no answer")
        return [float(word) for word in answer]

    def close(self) -> None:
        """End of input ends the worker."""
        assert self._process.stdin
        try:
            self._process.stdin.close()
            self._process.wait(timeout=10)
        except (BrokenPipeError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()


def interleave(
    contenders: Sequence[Contender], rounds: int, progress: Callable[[int], None], seed: int = 7
) -> Noise:
    """Run every contender once a round, in random order; the first two rounds only warm up."""
    rng = random.Random(seed)
    with Noise() as noise:
        for number in range(-2, rounds):
            due = [
                c for c in contenders
                if c.failures < GIVE_UP and (number < 0 or number % c.every == 0)
            ]  # fmt: skip
            rng.shuffle(due)
            for contender in due:
                contender.run(keep=number >= 0)
            noise.tick()
            progress(number)
    return noise
