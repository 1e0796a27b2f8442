#!/usr/bin/env python3
"""How long it takes to look at many containers: `stats --no-stream`, `ps`.

    sudo python benchmarks/observe.py [N]

Whoever looks sees notes in the run directory and cgroups with processes.  So N (500) of both are
made, with a sleeper in each and what controllers there are, by this one process; N real runtimes
would take gigabytes and show the same.  A quarter of a second of each `stats` is the pause between
its two readings.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(CHECKOUT))

from minicontainer import runtime, state  # noqa: E402
from minicontainer.kernel import cgroup  # noqa: E402

ROUNDS = 7
COMMAND = "from minicontainer.cli.main import entry; entry()"


class Crowd:
    """Containers as an observer sees them."""

    def __init__(self, number: int) -> None:
        self.parent = f"{cgroup.mount_point()}/minicontainer-benchmark"
        self.claims: list[state.Claim] = []
        self.sleepers: list[subprocess.Popen[bytes]] = []
        os.mkdir(self.parent)
        wanted = {"cpu", "memory", "io", "pids"}
        self.controllers = sorted(wanted & set(self.text("cgroup.controllers").split()))
        self.write("cgroup.subtree_control", " ".join(f"+{name}" for name in self.controllers))
        for index in range(number):
            self.join(f"box{index}")

    def text(self, name: str) -> str:
        """A file of the cgroup that holds them all."""
        return Path(self.parent, name).read_text()

    def write(self, name: str, text: str) -> None:
        """Write one."""
        Path(self.parent, name).write_text(text)

    def join(self, name: str) -> None:
        """One more."""
        claim = state.claim(runtime.new_id(), name, print)
        self.claims.append(claim)
        os.mkdir(f"{self.parent}/{claim.id}")
        sleeper = subprocess.Popen(["sleep", "3600"])
        self.sleepers.append(sleeper)
        self.write(f"{claim.id}/cgroup.procs", str(sleeper.pid))
        claim.write(
            cgroup=f"{self.parent}/{claim.id}",
            **runtime.facts_of("sleeper", ("sleep", "3600"), time.time()),
        )
        born = state.start_time(sleeper.pid)
        claim.write(process=f"{sleeper.pid} {born}", started=ascii(time.time()))

    def leave(self) -> None:
        """All gone."""
        cgroup.remove(self.parent)
        for sleeper in self.sleepers:
            sleeper.wait()
        for claim in self.claims:
            claim.release()


def timed(*words: str) -> float:
    """Seconds of one command line, by the interpreter that runs this."""
    began = time.monotonic()
    subprocess.run(
        [sys.executable, "-c", COMMAND, *words], cwd=CHECKOUT, check=True, capture_output=True
    )
    return time.monotonic() - began


def main() -> int:
    """Make them, look at them, say how long it took."""
    number = int(sys.argv[1]) if len(sys.argv) > 1 else 500
    with tempfile.TemporaryDirectory(prefix="minibench-") as place:
        os.environ.update(MINICONTAINER_RUN=f"{place}/run", MINICONTAINER_ROOT=f"{place}/data")
        crowd = Crowd(number)
        try:
            kernel = f"{os.uname().release}, controllers: {' '.join(crowd.controllers) or 'none'}"
            print(f"{number} containers on Linux {kernel}")
            for words in (["ps"], ["stats", "--no-stream"]):
                times = [timed(*words) for _ in range(ROUNDS)]
                print(f"{' '.join(words):20} median {statistics.median(times):.2f} s of {ROUNDS}")
        finally:
            crowd.leave()
    return 0


if __name__ == "__main__":
    sys.exit(main())
