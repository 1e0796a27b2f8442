"""Where tests can run besides here: how a second pytest is started there, and what it sends back.

    uml      a guest kernel, User-Mode Linux
    qemu     a guest kernel, on an emulated machine: slow, for the few needs that UML cannot meet
    shared   this machine, in a mount namespace in which ``/`` is shared, as systemd leaves it

The second pytest appends a line of JSON to a file for each event (inside.py), and we read it when
we want to know.  No thread waits for it: the pytest of this machine has to stay single-threaded,
for it launches containers, and a clone copies one thread only.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest

from tests.guest import boot, needs
from tests.support import SHARED_ROOT

BOOT = Path(__file__).with_name("boot.py")
SHARED = "shared"

# What --again runs again, and where: the tests that make containers, and those of each kernel
# feature, which mount in private mount namespaces of their own and so need no shared "/".
AGAIN = {
    needs.UML: ("tests/e2e/", "tests/kernel/"),
    needs.QEMU: ("tests/e2e/", "tests/kernel/"),
    SHARED: ("tests/e2e/",),
}
# Its scripts start programs by the thousand: five minutes in a guest, and no step of ours.
SLOW = "tests/e2e/test_as_shell.py"

SAID = 8000  # how much of a lost pytest's words a report quotes

# Start a command and leave: it becomes nobody's child, for there are tests that count ours.
DETACHED = '{ trap : TERM; "$@"; echo $? > "$0"; } &'


def is_guest(place: str) -> bool:
    """Is it another kernel, which works while this one does?"""
    return place != SHARED


def missing(place: str) -> str:
    """The package without which there is no such place; "" if it is there."""
    return boot.KERNELS[place].missing() if is_guest(place) else ""


def meets(place: str, words: frozenset[str]) -> bool:
    """Are these needs met there?"""
    if place == SHARED:
        return not needs.unmet(words)
    return all(place in needs.NEEDS[word].guests for word in words)


def guest_for(words: frozenset[str]) -> str:
    """The first guest that meets these needs and can be started; "" if there is none."""
    able = (place for place in needs.BOTH if meets(place, words) and not missing(place))
    return next(able, "")


def is_run_again(place: str, file: str, name: str) -> bool:
    """Is this test, of a file whose path is relative to the checkout, run again there?"""
    if "can_fail" in name or (is_guest(place) and file == SLOW):
        return False  # that a check can fail has been seen here
    return file.startswith(AGAIN[place])


class Run:
    """The tests of one place: in one guest, or, when one is lost, the rest in another."""

    def __init__(self, config: pytest.Config, place: str, tests: list[pytest.Item]) -> None:
        self.config = config
        self.place = place
        self.tests = {test.nodeid: test for test in tests}
        self.reports: dict[str, list[Any]] = {nodeid: [] for nodeid in self.tests}
        self.finished: set[str] = set()
        self.current = ""  # the test it is at
        self.starts = 0
        self.began = 0.0
        self.seconds = 0.0  # from the first start to the last word
        self.group = 0  # the process group of what runs now
        self.folder = Path(tempfile.mkdtemp(prefix="minicontainer-tests-"))
        self.events = self.folder / "events"
        self.status = self.folder / "status"  # how it ended, once it has
        self.read = 0  # how much of the events we have

    def left(self) -> list[str]:
        """What has not been done."""
        return [nodeid for nodeid in self.tests if nodeid not in self.finished]

    def start(self) -> None:
        """Start a pytest there for all that is left."""
        self.began = self.began or time.time()
        self.starts += 1
        (self.folder / "tests").write_text(json.dumps(self.left()))
        self.status.unlink(missing_ok=True)
        with open(self.events, "wb") as events, open(self.folder / "log", "wb") as log:
            self.read = 0
            started = subprocess.Popen(
                ["sh", "-c", DETACHED, str(self.status), *self.command(events.fileno())],
                env={**os.environ, **self.environment(events.fileno())},
                cwd=self.config.invocation_params.dir,
                pass_fds=[events.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
            started.wait()
            self.group = started.pid

    def command(self, line: int) -> list[str]:
        """The words that start pytest there."""
        files = dict.fromkeys(str(self.tests[nodeid].path) for nodeid in self.left())
        ini = ["-c", str(self.config.inipath)] if self.config.inipath else []
        words = [
            sys.executable, "-m", "pytest", "-p", "tests.guest.plugin", "-p", "tests.guest.inside",
            "-p", "no:cacheprovider", "--rootdir", str(self.config.rootpath), *ini, "-q", *files,
        ]  # fmt: skip
        if self.place == SHARED:
            return [*SHARED_ROOT, *words]
        images = os.environ.get("MINICONTAINER_IMAGES")
        return [
            sys.executable, str(BOOT), "--kernel", self.place, "--line", str(line),
            "--share", str(self.folder), *(["--keep", images] if images else []), "--", *words,
        ]  # fmt: skip

    def environment(self, line: int) -> dict[str, str]:
        """What the pytest there is to know."""
        known = {
            "MINICONTAINER_TESTS_INSIDE": str(self.folder / "tests"),
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            "PYTEST_ADDOPTS": "",
        }
        return {**known, "GUEST_LINE": str(line)} if self.place == SHARED else known

    def reports_of(self, nodeid: str) -> list[Any]:
        """Sleep until the test is done; its reports, serialized."""
        while nodeid not in self.finished:
            if not self.group:
                self.start()
            ended = self.has_ended()  # asked first: nothing comes after its end
            silent = not self.take_news()
            if nodeid in self.finished:
                break
            if ended:
                self.lost(f"ended with status {self.status.read_text().strip()}")
            elif silent and self.seconds_of_silence() > self.patience():
                self.end()
                self.lost(f"no word within {self.patience():g} s (--guest-timeout)")
            elif silent:
                time.sleep(0.02)
        return self.reports[nodeid]

    def has_ended(self) -> bool:
        """Is the pytest there gone?"""
        return self.status.exists() and self.status.read_text().endswith("\n")

    def take_news(self) -> bool:
        """Read the events that have been written since; were there any?"""
        with open(self.events, "rb") as file:
            file.seek(self.read)
            new = file.read()
        whole = new[: new.rfind(b"\n") + 1]
        self.read += len(whole)
        for line in whole.splitlines():
            event, value = json.loads(line)
            if event == "start":
                self.current = value
            elif event == "report":
                self.reports[value["nodeid"]].append(value)
            elif event == "finish":
                self.finished.add(value)
                self.current = ""
        return bool(whole)

    def seconds_of_silence(self) -> float:
        """Since the last event, or the start."""
        return time.time() - self.events.stat().st_mtime

    def patience(self) -> float:
        """How long that may be."""
        return float(self.config.getoption("--guest-timeout"))

    def lost(self, why: str) -> None:
        """The pytest there is gone, and there are tests left: whose fault is it?"""
        with open(self.folder / "log", "rb") as log:
            said = log.read()[-SAID:].decode(errors="replace")
        why = f"{self.place}: {why}\n{said}"
        if self.current:
            self.fail(self.current, why)
        elif self.read == 0:  # not even one was begun: another start would end the same way
            for nodeid in self.left():
                self.fail(nodeid, why)
        self.current = ""
        self.group = 0

    def fail(self, nodeid: str, why: str) -> None:
        """Write the report that the pytest there did not."""
        report = pytest.TestReport(
            nodeid, self.tests[nodeid].location, {}, "failed", why, "call", duration=0
        )
        hook = self.config.hook
        data = hook.pytest_report_to_serializable(config=self.config, report=report)
        self.reports[nodeid].append(data)
        self.finished.add(nodeid)

    def end(self) -> None:
        """SIGTERM to all of it, and wait: boot.py takes its guest along, pytest its children."""
        for number, seconds in ((signal.SIGTERM, 30), (signal.SIGKILL, 1)):
            try:
                os.killpg(self.group, number)
            except ProcessLookupError:
                return
            patience = time.monotonic() + seconds
            while not self.has_ended() and time.monotonic() < patience:
                time.sleep(0.02)
            if self.has_ended():
                return

    def stop(self) -> None:
        """The session is over; if it was cut short, so is the guest."""
        if self.group and not self.has_ended():
            self.end()
        if self.starts:
            self.seconds = self.events.stat().st_mtime - self.began
        shutil.rmtree(self.folder, ignore_errors=True)

    def summary(self) -> str:
        """For the end of the session."""
        number = len(self.finished)
        return f"{self.place}: {number} tests, {self.starts} start(s), {self.seconds:.0f} s"
