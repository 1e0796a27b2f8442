"""The skip list holds: an unlisted skip fails a run in CI, and only there."""

from __future__ import annotations

import pytest

SKIPPED = """
import pytest
def test_one(): pass
def test_two(): pytest.skip({reason!r})
"""


@pytest.fixture
def outcome(pytester, monkeypatch):
    """Run a small suite under the plugin; its exit status and its words."""

    def run(suite: str, ci: bool) -> tuple[int, str]:
        monkeypatch.setenv("CI", "true" if ci else "")
        pytester.mkdir("tests").joinpath("skips.md").write_text("- `no oracle *` because\n")
        pytester.makepyfile(suite)
        result = pytester.runpytest("-p", "tests.skips")
        return int(result.ret), result.stdout.str()

    return run


def test_a_listed_reason_passes(outcome):
    status, words = outcome(SKIPPED.format(reason="no oracle here"), ci=True)
    assert status == 0
    assert "does not list" not in words


def test_an_unlisted_reason_fails_in_ci(outcome):
    status, words = outcome(SKIPPED.format(reason="not today"), ci=True)
    assert status == pytest.ExitCode.TESTS_FAILED
    assert "not today" in words


def test_an_unlisted_reason_is_named_elsewhere(outcome):
    status, words = outcome(SKIPPED.format(reason="not today"), ci=False)
    assert status == 0
    assert "not today" in words


@pytest.mark.parametrize(
    "suite",
    [
        "import pytest\npytest.skip('not today', allow_module_level=True)\ndef test_one(): pass",
        "import pytest\ndef test_one(): pass\n"
        "@pytest.mark.xfail(reason='not yet')\ndef test_two(): assert False",
    ],
    ids=["a module", "an expected failure"],
)
def test_no_side_door(outcome, suite):
    status, _ = outcome(suite, ci=True)
    assert status != 0


def test_a_run_without_a_passed_test_fails_in_ci(outcome):
    suite = "import pytest\ndef test_one(): pytest.skip('no oracle here')"
    assert outcome(suite, ci=True)[0] == pytest.ExitCode.NO_TESTS_COLLECTED
