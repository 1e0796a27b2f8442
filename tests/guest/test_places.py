"""The plugin, seen from outside: small suites of every colour, and what is reported of them.

Its mutants are tests that panic, hang, die or fail in a guest: each must be seen, as itself.
"""

from __future__ import annotations

import json
import os
import re

import pytest

from tests.guest import needs, places
from tests.support import CHECKOUT

pytestmark = pytest.mark.requires_root

LOST_GUESTS = """
import os, pathlib, time
import pytest

pytestmark = pytest.mark.kernel("guest")

@pytest.fixture
def broken():
    raise LookupError("no such thing")

@pytest.fixture
def breaks_at_the_end():
    yield
    raise LookupError("not closed")

def test_passes():
    assert os.uname().release != {release!r}

@pytest.mark.parametrize("number", [1, 2])
def test_fails(number):
    print("printed before", number)
    assert number == 0, "of course not"

def test_panics_the_guest():
    pathlib.Path("/proc/sysrq-trigger").write_text("c")
    time.sleep(5)

def test_passes_after_the_panic():
    pass

def test_hangs():
    time.sleep(1000)

def test_kills_pytest():
    os.kill(os.getpid(), 9)

def test_is_skipped():
    pytest.skip("not today")

@pytest.mark.xfail(reason="not yet")
def test_is_expected_to_fail():
    assert False

def test_has_a_broken_fixture(broken):
    pass

def test_has_a_fixture_that_breaks_at_the_end(breaks_at_the_end):
    pass
"""

OUTCOMES = {
    "test_passes": "PASSED",
    "test_fails[1]": "FAILED",
    "test_fails[2]": "FAILED",
    "test_panics_the_guest": "FAILED",
    "test_passes_after_the_panic": "PASSED",
    "test_hangs": "FAILED",
    "test_kills_pytest": "FAILED",
    "test_is_skipped": "SKIPPED",
    "test_is_expected_to_fail": "XFAIL",
    "test_has_a_broken_fixture": "ERROR",
    "test_has_a_fixture_that_breaks_at_the_end": "PASSED",
}


@pytest.fixture
def suite(pytester, monkeypatch):
    """Run a suite under the plugin: its exit status and its words."""
    monkeypatch.setenv("PYTHONPATH", str(CHECKOUT))
    monkeypatch.delenv("CI", raising=False)

    def run(text, *options, name="test_suite", inside=False):
        pytester.makepyfile(**{name: text})
        start = pytester.runpytest_inprocess if inside else pytester.runpytest_subprocess
        result = start("-p", "tests.guest.plugin", "--import-mode=importlib", *options)
        return int(result.ret), result.stdout.str() + result.stderr.str()

    return run


@pytest.fixture
def lacking(monkeypatch):
    """Let this machine lack a need, and the guests have what the test says."""

    def lack(word, guests=()):
        need = needs.NEEDS[word]._replace(probe=lambda: False, guests=guests)
        monkeypatch.setitem(needs.NEEDS, word, need)
        needs.met.cache_clear()

    yield lack
    needs.met.cache_clear()


# ---- in a guest


@pytest.mark.kernel("guest")
def test_this_very_test_runs_in_a_guest():
    assert os.path.realpath("/proc/1/exe").rpartition("/")[2].startswith("python3")


@pytest.fixture
def lost_guests(guest, suite):
    """What became of the tests above: the words, and the outcome of each."""
    text = LOST_GUESTS.format(release=os.uname().release)
    status, words = suite(text, "-v", "--guest-timeout", "10")
    outcomes = {}
    for line in words.splitlines():
        name, _, outcome = line.partition("::")[2].partition(" ")
        if name and "[" in outcome:  # the percentage
            outcomes.setdefault(name, outcome.split()[0])
    return status, words, outcomes


def test_each_test_is_reported_as_itself_whatever_becomes_of_the_guest(lost_guests):
    status, words, outcomes = lost_guests
    assert outcomes == OUTCOMES, words
    assert status == pytest.ExitCode.TESTS_FAILED
    for why in (
        "sysrq triggered crash",  # the console of the guest that panicked
        "no word within 10 s (--guest-timeout)",
        "ended with status 137",
        "of course not",
        "printed before 2",
        "no such thing",
        "not closed",
        "uml: 11 tests, 4 start(s)",  # the first, and one after each that was lost
    ):
        assert why in words, words


def test_a_guest_without_a_pytest_fails_its_tests_once(suite, lacking, monkeypatch):
    """It would end the same way for each of them."""
    lacking("psi", guests=("uml",))
    monkeypatch.setattr(places, "missing", lambda place: "")
    monkeypatch.setattr(places.Run, "command", lambda *_: ["sh", "-c", "echo no pytest; exit 3"])
    text = NEEDS_PSI + "\n@pytest.mark.kernel('psi')\ndef test_three(): pass"
    status, words = suite(text, inside=True)
    assert status == pytest.ExitCode.TESTS_FAILED
    assert "2 failed, 1 passed" in words, words
    assert words.count("ended with status 3\nno pytest") == 2
    assert "uml: 2 tests, 1 start(s)" in words


# ---- nowhere


NEEDS_PSI = "import pytest\n@pytest.mark.kernel('psi')\ndef test_one(): pass\ndef test_two(): pass"


def test_a_need_that_is_met_here_runs_here(suite, lacking, monkeypatch):
    lacking("psi")
    monkeypatch.setitem(needs.NEEDS, "psi", needs.NEEDS["psi"]._replace(probe=lambda: True))
    needs.met.cache_clear()
    status, words = suite(NEEDS_PSI, inside=True)
    assert (status, "2 passed" in words) == (0, True), words


def test_a_need_that_nobody_meets_is_a_skip(suite, lacking):
    lacking("psi")
    status, words = suite(NEEDS_PSI, "-ra", inside=True)
    assert (status, "1 passed, 1 skipped" in words) == (0, True), words
    assert "needs psi: neither this machine has it nor a guest kernel installed here" in words


def test_a_need_that_nobody_meets_is_an_error_in_ci(suite, lacking, monkeypatch):
    lacking("psi")
    monkeypatch.setenv("CI", "true")
    status, words = suite(NEEDS_PSI, inside=True)
    assert status == pytest.ExitCode.TESTS_FAILED
    assert "1 passed, 1 error" in words, words


def test_a_need_that_is_in_no_table_is_a_mistake(suite):
    status, words = suite("import pytest\n@pytest.mark.kernel('pidz')\ndef test_one(): pass")
    assert status == pytest.ExitCode.USAGE_ERROR
    assert "test_one: no such need: pidz" in words


def test_a_table_that_promises_too_much_is_found_out(suite, lacking, tmp_path, monkeypatch):
    """In the guest, a test whose needs are not met fails."""
    lacking("psi", guests=("uml",))
    (tmp_path / "tests").write_text(json.dumps(["test_suite.py::test_one"]))
    read, write = os.pipe()
    monkeypatch.setenv("MINICONTAINER_TESTS_INSIDE", str(tmp_path / "tests"))
    monkeypatch.setenv("GUEST_LINE", str(write))
    status, words = suite(NEEDS_PSI, "-p", "tests.guest.inside", inside=True)
    os.close(write)
    assert status == pytest.ExitCode.TESTS_FAILED
    assert "was sent here for psi, which is not here either" in words, words
    with os.fdopen(read) as events:
        told = [json.loads(line) for line in events]
    assert [kind for kind, _ in told] == ["start", "report", "report", "finish"]
    assert told[1][1]["outcome"] == "failed"


# ---- again

WHERE = """
def test_where():
    root = next(l for l in open("/proc/self/mountinfo") if l.split()[4] == "/")
    assert False, f"kernel {__import__('os').uname().release} {'shared:' in root}"
"""


# A process with threads may launch no container, and there are tests that count our children: the
# plugin has neither while it waits for guests.
ALONE = """
import os, pytest
def test_alone():
    assert len(os.listdir('/proc/self/task')) == 1
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)
"""


def test_tests_of_containers_run_again(guest, suite, pytester):
    pytester.makepyfile(**{"tests/e2e/test_it": WHERE, "tests/unit/test_it": WHERE})
    _, words = suite(ALONE, "-v", "--again", "uml,shared")
    assert "4 failed, 1 passed" in words, words
    for name in ("e2e/test_it.py::test_where", "e2e/test_it.py::test_where@uml",
                 "e2e/test_it.py::test_where@shared", "unit/test_it.py::test_where"):  # fmt: skip
        assert f"tests/{name} FAILED" in words
    release = os.uname().release
    kernels = re.findall(r"^E .*kernel (\S+) (\w+)$", words, re.MULTILINE)
    assert kernels[2] == (release, "True"), words
    assert kernels[3][0] != release, words


def test_a_place_that_does_not_exist(suite):
    status, words = suite("def test_one(): pass", "--again", "uml,moon")
    assert status == pytest.ExitCode.USAGE_ERROR
    assert "--again: no such place: moon" in words


def test_a_place_that_is_not_installed_is_told_and_an_error_in_ci(suite, monkeypatch):
    monkeypatch.setattr(places, "missing", lambda place: "some-package")
    status, words = suite("def test_one(): pass", "--again", "uml", inside=True)
    assert (status, "not run again in uml, which wants some-package" in words) == (0, True), words
    monkeypatch.setenv("CI", "true")
    status, words = suite("def test_one(): pass", "--again", "uml", inside=True)
    assert status == pytest.ExitCode.USAGE_ERROR, words


def test_the_second_choice_is_taken_where_the_first_is_not_installed(monkeypatch):
    monkeypatch.setattr(places, "missing", lambda place: "some-package" if place == "uml" else "")
    assert places.guest_for(frozenset({"memory"})) == "qemu"
    monkeypatch.setattr(places, "missing", lambda place: "")
    assert places.guest_for(frozenset({"memory"})) == "uml"
    assert places.guest_for(frozenset({"memory", "cpuset"})) == "qemu"


@pytest.mark.parametrize(
    ("place", "file", "name", "expected"),
    [
        ("uml", "tests/e2e/test_run.py", "test_volumes", True),
        ("uml", "tests/kernel/test_console.py", "test_it_sleeps", True),
        ("uml", "tests/kernel/test_console.py", "test_the_checks_can_fail[1]", False),
        ("uml", "tests/e2e/test_as_shell.py", "test_status", False),
        ("shared", "tests/e2e/test_as_shell.py", "test_status", True),
        ("shared", "tests/kernel/test_console.py", "test_it_sleeps", False),
        ("uml", "tests/unit/test_step.py", "test_it", False),
    ],
)
def test_what_is_run_again(place, file, name, expected):
    assert places.is_run_again(place, file, name) is expected
