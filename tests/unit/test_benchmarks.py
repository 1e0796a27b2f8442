"""The benchmark's own arithmetic: a wrong median would be believed for years."""

from __future__ import annotations

import json
import math
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import bundle  # noqa: E402
import figures  # noqa: E402
import harness  # noqa: E402
import ours  # noqa: E402
import peers  # noqa: E402
import report  # noqa: E402

# --- statistics: each check is a function, so that a mutant can be put through it


def check_quantile(quantile):
    assert quantile([4, 1, 3, 2], 0.5) == 2.5
    assert quantile([5, 1, 3], 0.5) == 3
    assert quantile(range(101), 0.9) == 90
    assert quantile([7], 0.9) == 7
    assert quantile([1, 2], 0.0) == 1
    assert quantile([1, 2], 1.0) == 2
    assert math.isnan(quantile([], 0.5))


def check_bootstrap(ratio):
    assert ratio([], [1.0]) is None
    assert ratio([1.0], []) is None
    exact = ratio([6.0] * 9, [3.0] * 9)
    assert (exact.value, exact.low, exact.high) == (2, 2, 2)
    rng = random.Random(5)
    slow = [rng.gauss(30, 3) for _ in range(80)]
    fast = [rng.gauss(10, 1) for _ in range(80)]
    seen = ratio(slow, fast)
    assert seen.low < seen.value < seen.high
    assert seen.low < 3 < seen.high
    assert seen.high - seen.low < 0.5
    # four times the spread: the interval must say so
    wild = ratio([30 + 4 * (x - 30) for x in slow], fast)
    assert wild.high - wild.low > 2 * (seen.high - seen.low)


def test_quantile():
    check_quantile(figures.quantile)


def test_quantile_mutants():
    def nearest(values, q):
        ordered = sorted(values)
        return ordered[int((len(ordered) - 1) * q)] if ordered else math.nan

    def unsorted(values, q):
        values = list(values)
        return values[int((len(values) - 1) * q)] if values else math.nan

    for mutant in (nearest, unsorted):
        with pytest.raises(AssertionError):
            check_quantile(mutant)


def test_bootstrap():
    check_bootstrap(figures.bootstrap_ratio)


def test_bootstrap_mutant_that_never_draws_again(monkeypatch):
    class Unmoved(random.Random):
        def choices(self, population, k):
            return population

    monkeypatch.setattr(figures.random, "Random", Unmoved)
    with pytest.raises(AssertionError):
        check_bootstrap(figures.bootstrap_ratio)


# --- running commands


def test_a_contender_is_timed_and_its_id_is_new_each_time():
    contender = harness.Contender(
        "id", ["sh", "-c", "test {id} != x && cat <&9"], files={9: "/dev/null"}
    )
    assert contender.probe() == ""
    harness.interleave([contender], 3, lambda number: None)
    assert len(contender.times) == len(contender.cpu) == 3
    assert contender.failures == 0
    assert contender.command() != contender.command()


def test_a_contender_that_fails_is_counted_dropped_and_explained():
    contender = harness.Contender("bad", ["sh", "-c", "echo this is why >&2; exit 3"])
    assert contender.probe() == "exit status 3: this is why"
    harness.interleave([contender], 10, lambda number: None)
    assert contender.times == []
    assert contender.failures == harness.GIVE_UP


def test_a_slow_contender_takes_part_now_and_then():
    slow = harness.Contender("slow", ["true"], every=4)
    harness.interleave([slow], 8, lambda number: None)
    assert len(slow.times) == 2


def test_a_worker_answers_with_times_or_with_its_last_words():
    good = harness.Worker("good", ["sh", "-c", "while read n; do echo 1.5 2.5; done"])
    assert good.batch(2) == [1.5, 2.5]
    good.close()
    bad = harness.Worker("bad", ["sh", "-c", "echo no clone3 here >&2; exit 1"])
    with pytest.raises(RuntimeError, match="no clone3 here"):
        bad.batch(2)
    bad.close()


# --- peers


def rule(name, includes=None, excludes=None):
    conditions = {"includes": includes or {}, "excludes": excludes or {}}
    return {"names": [name], "action": "SCMP_ACT_ALLOW", "args": [], "comment": "", **conditions}


def test_a_profile_is_resolved_for_our_capabilities_and_machine():
    profile = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 38,
        "syscalls": [
            rule("read"),
            rule("chroot", includes={"caps": ["CAP_SYS_CHROOT"]}),
            rule("mount", includes={"caps": ["CAP_SYS_ADMIN"]}),
            rule("bpf", excludes={"caps": ["CAP_SYS_ADMIN"]}),
            rule("socket", excludes={"caps": ["CAP_AUDIT_WRITE"]}),
            rule("arch_prctl", includes={"arches": ["amd64"]}),
            rule("cacheflush", includes={"arches": ["arm64"]}),
        ],
    }

    def names(machine):
        rules = bundle.oci_seccomp(profile, machine)["syscalls"]
        assert all(set(rule) <= {"names", "action", "args", "errnoRet"} for rule in rules)
        return [name for rule in rules for name in rule["names"]]

    assert names("x86_64") == ["read", "chroot", "bpf", "arch_prctl"]
    assert names("aarch64") == ["read", "chroot", "bpf", "cacheflush"]
    assert bundle.oci_seccomp(profile, "x86_64")["defaultErrnoRet"] == 38


def test_a_peer_that_is_not_installed_says_so(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(peers.Unavailable, match="crun is not installed"):
        peers.find("crun")


def test_floor_compiles_without_a_warning(tmp_path):
    source = BENCHMARKS / "floor.c"
    words = ["cc", "-O2", "-Wall", "-Wextra", "-Werror", "-o", tmp_path / "floor", source]
    assert shutil.which("cc"), "make install brings a C compiler"
    subprocess.run(words, check=True)
    usage = subprocess.run([tmp_path / "floor"], capture_output=True, text=True)
    assert usage.returncode == 2
    assert "floor.c" in usage.stderr


# --- the report


def result_with(**times):
    result = report.Result(["a machine"], 1)
    for name, values in times.items():
        one = harness.Contender(name.replace("_", " "), [])
        one.times = values
        result.cold.append(one)
    return result


def verdicts(result):
    return {budget.what: budget.verdict() for budget in report.budgets(result)}


def test_budgets_are_met_not_met_or_not_measured():
    result = result_with(minicontainer_run=[15.0] * 9, crun_run=[20.0] * 9, runc_run=[25.0] * 9)
    seen = verdicts(result)
    assert seen["cold CLI / crun run"] == "met"
    assert seen["cold CLI / runc run"] == "not met"
    assert seen["peak RSS of the CLI, MB"] == "not measured"
    assert set(verdicts(report.Result([], 1)).values()) == {"not measured"}


def test_a_least_budget_is_the_other_way_round():
    assert report.Budget("", 130, 131.0, "", least=True).verdict() == "met"
    assert report.Budget("", 130, 129.0, "", least=True).verdict() == "not met"
    assert report.Budget("", 0, 0.0, "").verdict() == "met"


def test_the_import_log_is_read():
    log = (
        "import time: self [us] | cumulative | imported package\n"
        "import time:       100 |        100 |     errno\n"
        "a line of the program's own\n"
        "import time:       250 |        350 |   minicontainer.libc\n"
    )
    assert ours.parse_importtime(log) == [
        ours.Import("errno", 100, 100),
        ours.Import("minicontainer.libc", 250, 350),
    ]


@pytest.mark.skipif(
    not os.environ.get("MINICONTAINER_IMAGES"),
    reason="no Alpine image: MINICONTAINER_IMAGES is not set",
)
def test_the_whole_benchmark_on_the_floor(tmp_path):
    out = tmp_path / "out.json"
    words = [sys.executable, BENCHMARKS / "run.py", "--quick", "--only", "floor", "--json", out]
    mounts = Path("/proc/self/mountinfo").read_text()
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    env = {**os.environ, "TMPDIR": str(scratch)}
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, env=env)
    assert done.returncode == 0, done.stderr
    assert "| floor " in done.stdout
    assert "not measured" in done.stdout
    assert len(json.loads(out.read_text())["cold_ms"]["floor"]) == 5
    assert list(scratch.iterdir()) == []
    assert Path("/proc/self/mountinfo").read_text() == mounts
