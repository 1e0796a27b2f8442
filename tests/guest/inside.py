"""The pytest plugin of a pytest that places.py started: run the tests asked for, send each report.

The tests are in the file that MINICONTAINER_TESTS_INSIDE names, the reports go to descriptor
$GUEST_LINE, a line of JSON each: ["start", ID], ["report", {...}], ["finish", ID].
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.guest import needs
from tests.guest.init import write_all
from tests.guest.plugin import needs_of


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Inside(config))


class Inside:
    """Chooses, runs, tells."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.line = int(os.environ["GUEST_LINE"])
        os.set_inheritable(self.line, False)  # no child of a test keeps it open
        self.tests = json.loads(Path(os.environ["MINICONTAINER_TESTS_INSIDE"]).read_text())

    def send(self, event: str, value: Any) -> None:
        write_all(self.line, json.dumps([event, value]).encode() + b"\n")

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Just these, in the order of the file."""
        order = {nodeid: number for number, nodeid in enumerate(self.tests)}
        items[:] = sorted(
            (item for item in items if item.nodeid in order), key=lambda item: order[item.nodeid]
        )

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """The table of needs may not promise what is not there."""
        if lacking := needs.unmet(needs_of(item)):
            pytest.fail(f"was sent here for {lacking}, which is not here either", pytrace=False)

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self.send("start", nodeid)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        hook = self.config.hook
        self.send("report", hook.pytest_report_to_serializable(config=self.config, report=report))

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        self.send("finish", nodeid)
