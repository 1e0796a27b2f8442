"""A pytest plugin: a test states what it needs of the kernel, and runs where that is to be had.

    @pytest.mark.kernel("memory", "pids")      # words of needs.py
    def test_oom_kill(): ...

Where the machine meets the needs, the test just runs.  Otherwise it is run in the first guest
kernel that does, by a second pytest in there over the same files (inside.py), and reported here
as a test of its own.  A guest is booted once for all its tests, and works while the tests of this
machine run.  When it dies or hangs, the test it was at fails, and a new one takes the rest.

``--again uml,shared`` also runs the tests of containers a second time where they have no need to:
in User-Mode Linux (another kernel, all of cgroup2, all capabilities), and on this machine where
``/`` is shared.  A test that runs again has its place behind its name: ``test_run.py::test_x@uml``.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest

from tests.guest import needs, places


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("guest", "tests in guest kernels")
    again = "run the tests of containers again in: uml, shared (or both: uml,shared)"
    group.addoption("--again", default="", metavar="PLACES", help=again)
    limit = "how long one test may take in a guest (%(default)s)"
    group.addoption("--guest-timeout", type=float, default=360, metavar="SECONDS", help=limit)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "kernel(*needs): words of tests/guest/needs.py")
    if "MINICONTAINER_TESTS_INSIDE" not in os.environ:
        config.pluginmanager.register(Outside(config))


def needs_of(item: pytest.Item) -> frozenset[str]:
    """The words of all kernel marks of a test; a word that is not in the table is an error."""
    words = frozenset(word for mark in item.iter_markers("kernel") for word in mark.args)
    if unknown := words - needs.NEEDS.keys():
        raise pytest.UsageError(f"{item.nodeid}: no such need: {', '.join(sorted(unknown))}")
    return words


def in_ci() -> bool:
    """Where nothing may be missing."""
    return os.environ.get("CI") == "true"


def refuse(lacking: str) -> NoReturn:
    """A test can run nowhere: that is an error in CI, else a skip."""
    words = f"needs {lacking}: neither this machine has it nor a guest kernel installed here"
    if in_ci():
        pytest.fail(words, pytrace=False)
    pytest.skip(words)


class Elsewhere(pytest.Item):
    """Stands for a test that is run at another place, and brings its reports back."""

    def __init__(self, *, test: pytest.Item, place: str, **more: Any) -> None:
        super().__init__(**more)
        self.test = test
        self.place = place
        self.own_markers = list(test.own_markers)
        self.keywords.update({mark.name: mark for mark in test.iter_markers()})
        # pytest-timeout is not to count how long we wait for a guest; it counts in there
        self.add_marker(pytest.mark.timeout(0), append=False)

    def reportinfo(self) -> tuple[os.PathLike[str] | str, int | None, str]:
        path, line, _ = self.test.reportinfo()
        return path, line, self.name

    def runtest(self) -> None:
        raise AssertionError("Outside.pytest_runtest_protocol runs it")


class Outside:
    """In the pytest that the user started: sends tests to their places and reports them."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.runs: dict[str, places.Run] = {}
        self.absent: dict[str, str] = {}  # places of --again, and why not

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Put each test where its needs are met; add those to be run again; guests' go last."""
        again = self.again()
        here: list[pytest.Item] = []
        elsewhere: dict[str, list[pytest.Item]] = {}
        for test in items:
            words = needs_of(test)
            place = places.guest_for(words) if needs.unmet(words) else ""
            if place:
                elsewhere.setdefault(place, []).append(stand_in(test, place, test.name))
            else:  # also what can run nowhere: its set-up will say so
                here.append(test)
            for name in again:
                if name != place and self.is_to_run_again(test, name, words):
                    name_there = f"{test.name}@{name}"
                    elsewhere.setdefault(name, []).append(stand_in(test, name, name_there))
        items[:] = here
        for place in sorted(elsewhere, key=places.is_guest):  # the longer a guest has, the better
            items += elsewhere[place]

    def again(self) -> list[str]:
        """The places of --again that are there; in CI they have to be."""
        wanted = [name for name in self.config.getoption("--again").split(",") if name]
        for place in wanted:
            if place not in places.AGAIN:
                raise pytest.UsageError(f"--again: no such place: {place}")
            if package := places.missing(place):
                self.absent[place] = f"not run again in {place}, which wants {package}"
        if self.absent and in_ci():
            raise pytest.UsageError(", ".join(self.absent.values()))
        return [place for place in wanted if place not in self.absent]

    def is_to_run_again(self, test: pytest.Item, place: str, words: frozenset[str]) -> bool:
        """Is it a test of containers, and can it run there?"""
        file = test.path.relative_to(self.config.rootpath).as_posix()
        return places.is_run_again(place, file, test.name) and places.meets(place, words)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Whatever is not sent elsewhere runs here, if it can."""
        if lacking := needs.unmet(needs_of(item)):
            refuse(lacking)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtestloop(self, session: pytest.Session) -> Iterator[None]:
        """Boot the guests first, so that they work while the tests of this machine do."""
        tests: dict[str, list[pytest.Item]] = {}
        for item in session.items:
            if isinstance(item, Elsewhere):
                tests.setdefault(item.place, []).append(item.test)
        if not self.config.option.collectonly:
            self.runs = {place: places.Run(self.config, place, tests[place]) for place in tests}
        for place, run in self.runs.items():
            if places.is_guest(place):  # the others are this machine: their tests take turns
                run.start()
        try:
            return (yield)
        finally:
            for run in self.runs.values():
                run.stop()

    def pytest_runtest_protocol(self, item: pytest.Item) -> bool | None:
        """Wait for the reports of a test that runs elsewhere, and give them out as ours."""
        if not isinstance(item, Elsewhere):
            return None
        item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        for data in self.runs[item.place].reports_of(item.test.nodeid):
            report = self.config.hook.pytest_report_from_serializable(config=self.config, data=data)
            report.nodeid = item.nodeid
            report.location = item.location
            if isinstance(report.longrepr, list):  # of a skip: it was a tuple before JSON
                report.longrepr = tuple(report.longrepr)
            item.ihook.pytest_runtest_logreport(report=report)
        item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
        return True

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        for line in [run.summary() for run in self.runs.values()] + [*self.absent.values()]:
            terminalreporter.write_line(line)


def stand_in(test: pytest.Item, place: str, name: str) -> Elsewhere:
    """An item in the place of ``test``."""
    assert test.parent is not None
    return Elsewhere.from_parent(test.parent, name=name, test=test, place=place)


@pytest.fixture
def spare_disk(tmp_path: Path) -> Iterator[Path]:
    """A block device of 64 MiB to write over; tests that use it need ``disk``."""
    if needs.in_guest():
        yield next(Path(path) for path in needs.GUEST_DISKS if os.path.exists(path))
        return
    file = tmp_path / "spare-disk"
    file.touch()
    os.truncate(file, 64 << 20)
    attach = ["losetup", "--find", "--show", str(file)]
    device = subprocess.run(attach, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
    yield Path(device)
    subprocess.run(["losetup", "--detach", device], check=True)
