"""Where tests can run besides here: how a second pytest is started there, and what it sends back.

    uml      a guest kernel, User-Mode Linux
    qemu     a guest kernel, on an emulated machine: slow, for the few needs that UML cannot meet
    shared   this machine, in a mount namespace in which ``/`` is shared, as systemd leaves it

The second pytest writes one line of JSON for each event, and a thread here reads them.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.guest import boot, needs
from tests.support import SHARED_ROOT

BOOT = Path(__file__).with_name("boot.py")
SHARED = "shared"
AGAIN = {needs.UML, needs.QEMU, SHARED}


def missing(place: str) -> str:
    """The package without which there is no such place; "" if it is there."""
    return "" if place == SHARED else boot.KERNELS[place].missing()


def meets(place: str, words: frozenset[str]) -> bool:
    """Are these needs met there?"""
    if place == SHARED:
        return not needs.unmet(words)
    return all(place in needs.NEEDS[word].guests for word in words)


class Run(threading.Thread):
    """The tests of one place: as many guests as it takes, one after the other."""

    def __init__(self, config: pytest.Config, place: str, tests: list[pytest.Item]) -> None:
        super().__init__(daemon=True)
        self.config = config
        self.place = place
        self.tests = {test.nodeid: test for test in tests}
        self.reports: dict[str, list[Any]] = {nodeid: [] for nodeid in self.tests}
        self.finished: set[str] = set()
        self.news = threading.Condition()
        self.process: subprocess.Popen[bytes] | None = None
        self.current = ""  # the test it is at
        self.stopping = False
        self.boots = 0
        self.began = time.monotonic()
        self.seconds = 0.0
        self.folder = Path(tempfile.mkdtemp(prefix="minicontainer-guest-"))

    def start_once(self) -> None:
        """Start, unless it has been started."""
        if not self.ident:
            self.start()

    def reports_of(self, nodeid: str) -> list[Any]:
        """Sleep until the test is done; its reports, serialized."""
        with self.news:
            self.news.wait_for(lambda: nodeid in self.finished)
        return self.reports[nodeid]

    def run(self) -> None:
        """Start a pytest there for what is left, until nothing is left."""
        try:
            while left := [nodeid for nodeid in self.tests if nodeid not in self.finished]:
                before = len(self.finished)
                why = self.one_boot(left)
                if self.stopping:
                    break
                if self.current:  # it ended in the middle of a test, whose fault that is
                    self.fail(self.current, why)
                elif len(self.finished) == before:  # it would end the same way again
                    self.fail_all(why)
        except BaseException as error:  # else the session would wait for ever
            self.fail_all(f"{type(error).__name__}: {error}")
        self.seconds = time.monotonic() - self.began

    def one_boot(self, left: list[str]) -> str:
        """One pytest over the tests that are left; what it said, and how it ended."""
        self.boots += 1
        self.current = ""
        (self.folder / "tests").write_text(json.dumps(left))
        read, write = os.pipe()
        with open(self.folder / "log", "w+b") as log:
            self.process = subprocess.Popen(
                self.command(write, left),
                env={**os.environ, **self.environment(write)},
                cwd=self.config.invocation_params.dir,
                pass_fds=[write],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
            os.close(write)
            watch = Watch(self.process, self.config.getoption("--guest-timeout"))
            with os.fdopen(read) as events:
                for line in events:
                    watch.start_again()
                    self.take(*json.loads(line))
            watch.end()
            status = self.process.wait()
            log.seek(0)
            said = log.read().decode(errors="replace")[-8000:]
        return f"{self.place}: {watch.verdict or f'ended with status {status}'}\n{said}"

    def command(self, write: int, left: list[str]) -> list[str]:
        """The words that start pytest there."""
        files = dict.fromkeys(str(self.tests[nodeid].path) for nodeid in left)
        ini = ["-c", str(self.config.inipath)] if self.config.inipath else []
        words = [
            sys.executable, "-m", "pytest", "-p", "tests.guest.plugin", "-p", "tests.guest.inside",
            "-p", "no:cacheprovider", "--rootdir", str(self.config.rootpath), *ini, "-q", *files,
        ]  # fmt: skip
        if self.place == SHARED:
            return [*SHARED_ROOT, *words]
        images = os.environ.get("MINICONTAINER_IMAGES")
        return [
            sys.executable, str(BOOT), "--kernel", self.place, "--line", str(write),
            "--share", str(self.folder), *(["--keep", images] if images else []), "--", *words,
        ]  # fmt: skip

    def environment(self, write: int) -> dict[str, str]:
        """What the pytest there is to know."""
        known = {
            "MINICONTAINER_TESTS_INSIDE": str(self.folder / "tests"),
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            "PYTEST_ADDOPTS": "",
        }
        return {**known, "GUEST_LINE": str(write)} if self.place == SHARED else known

    def take(self, event: str, value: Any) -> None:
        """One line of the pytest there."""
        with self.news:
            if event == "start":
                self.current = value
            elif event == "report":
                self.reports[value["nodeid"]].append(value)
            elif event == "finish":
                self.finished.add(value)
                self.current = ""
                self.news.notify_all()

    def fail(self, nodeid: str, why: str) -> None:
        """Write the report that the pytest there did not."""
        report = pytest.TestReport(
            nodeid, self.tests[nodeid].location, {}, "failed", why, "call", duration=0
        )
        hook = self.config.hook
        data = hook.pytest_report_to_serializable(config=self.config, report=report)
        with self.news:
            self.reports[nodeid].append(data)
            self.finished.add(nodeid)
            self.news.notify_all()

    def fail_all(self, why: str) -> None:
        """The same for every test that is left."""
        for nodeid in self.tests:
            if nodeid not in self.finished:
                self.fail(nodeid, why)

    def stop(self) -> None:
        """The session is over; if it was cut short, so is the guest."""
        if self.finished < self.tests.keys() and self.process:
            self.stopping = True
            end(self.process)
        if self.ident:
            self.join()
        shutil.rmtree(self.folder, ignore_errors=True)

    def summary(self) -> str:
        """For the end of the session."""
        number = len(self.finished)
        return (
            f"{self.place}: {number} tests, {self.boots} start(s), {self.seconds:.0f} s alongside"
        )


class Watch:
    """Ends a process that has been silent for too long."""

    def __init__(self, process: subprocess.Popen[bytes], seconds: float) -> None:
        self.process = process
        self.seconds = seconds
        self.verdict = ""
        self.timer = threading.Timer(0, lambda: None)
        self.start_again()

    def start_again(self) -> None:
        """There was a word."""
        self.end()
        self.timer = threading.Timer(self.seconds, self.expire)
        self.timer.daemon = True
        self.timer.start()

    def expire(self) -> None:
        """There was none."""
        self.verdict = f"no word within {self.seconds:g} s (--guest-timeout)"
        end(self.process)

    def end(self) -> None:
        """No longer."""
        self.timer.cancel()


def end(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM to the whole of it: boot.py takes its guest along, pytest its children."""
    try:
        os.killpg(process.pid, signal.SIGTERM)
    except ProcessLookupError:
        pass
