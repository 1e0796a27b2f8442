"""A pytest plugin: in CI, no test is skipped for a reason that tests/skips.md does not list.

Elsewhere such skips are only named at the end of the run.  In CI a run in which not one test
passed fails too: "no tests ran" looks green, and is not.
"""

from __future__ import annotations

import os
import re
from fnmatch import fnmatchcase
from pathlib import Path

import pytest


def listed_reasons(text: str) -> list[str]:
    """The patterns of a skip list: what stands between the first backquotes of each item."""
    return re.findall(r"^- `([^`]+)`", text, re.MULTILINE)


def reason_of(report: pytest.TestReport | pytest.CollectReport) -> str:
    """Why a test was skipped, in the words of the test."""
    if hasattr(report, "wasxfail"):
        return f"xfail: {report.wasxfail}"
    words = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return words.removeprefix("Skipped: ")


class SkipWatch:
    """Collects what was skipped and why, and judges at the end."""

    def __init__(self, allowed: list[str], ci: bool) -> None:
        self.allowed = allowed
        self.ci = ci
        self.passed = 0
        self.unlisted: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.passed += report.passed and report.when == "call"
        self.note(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        self.note(report)

    def note(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        if not report.skipped:
            return
        reason = reason_of(report)
        if not any(fnmatchcase(reason, pattern) for pattern in self.allowed):
            self.unlisted.append(f"{report.nodeid}: {reason}")

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if not self.ci or session.config.option.collectonly:
            return
        if self.unlisted and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        if not self.passed and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.NO_TESTS_COLLECTED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self.unlisted:
            terminalreporter.section("skipped for reasons that tests/skips.md does not list")
            for line in self.unlisted:
                terminalreporter.line(line)
        if self.ci and not self.passed:
            terminalreporter.section("not one test passed")


def pytest_configure(config: pytest.Config) -> None:
    file = Path(config.rootpath, "tests", "skips.md")
    allowed = listed_reasons(file.read_text()) if file.exists() else []
    config.pluginmanager.register(SkipWatch(allowed, os.environ.get("CI") == "true"))
