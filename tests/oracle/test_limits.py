"""The same linux.resources under minicontainer, runc and crun: the same numbers in the cgroup.

Differences are those of the table "Limits" in docs/oracle-differences.md.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.oracle.oracle import CRUN, DIFFERENCES, RUNC, version

pytestmark = [pytest.mark.requires_root, pytest.mark.kernel("memory", "cpu", "pids", "io")]

# What a container finds in its own cgroup, a line for each value.
PROBE = (
    "cd /sys/fs/cgroup; for f in memory.m* memory.low memory.high memory.swap.max memory.oom.group "
    "cpu.max* cpu.weight cpu.idle pids.max io.max cgroup.max.*; do "
    "case $f in *peak) continue;; esac; while read -r line; do echo $f $line; done < $f; done"
)
DISK = "DISK"  # stands for the numbers of the spare disk

VARIANTS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "memory": {"memory": {"limit": 64 << 20}},
    "memory-reservation": {"memory": {"limit": 64 << 20, "reservation": 32 << 20}},
    "memory-swap": {"memory": {"limit": 64 << 20, "swap": 96 << 20}},
    "memory-no-swap": {"memory": {"limit": 64 << 20, "swap": 64 << 20}},
    "memory-any-swap": {"memory": {"limit": 64 << 20, "swap": -1}},
    "memory-any": {"memory": {"limit": -1}},
    "cpu": {"cpu": {"quota": 50_000, "period": 200_000}},
    "cpu-quota": {"cpu": {"quota": 50_000}},
    "cpu-period": {"cpu": {"period": 50_000}},
    "cpu-any": {"cpu": {"quota": -1, "period": 50_000}},
    "cpu-shares-usual": {"cpu": {"shares": 1024}},
    "cpu-shares-least": {"cpu": {"shares": 2}},
    "cpu-shares-most": {"cpu": {"shares": 262_144}},
    "cpu-burst": {"cpu": {"quota": 50_000, "period": 100_000, "burst": 10_000}},
    "cpu-idle": {"cpu": {"idle": 1}},
    "pids": {"pids": {"limit": 20}},
    "pids-any": {"pids": {"limit": -1}},
    "io": {
        "blockIO": {
            "throttleReadBpsDevice": [{**{DISK: 0}, "rate": 1 << 20}],
            "throttleWriteBpsDevice": [{**{DISK: 0}, "rate": 2 << 20}],
            "throttleReadIOPSDevice": [{**{DISK: 0}, "rate": 30}],
            "throttleWriteIOPSDevice": [{**{DISK: 0}, "rate": 40}],
        }
    },
    "unified": {"unified": {"memory.high": "48M", "memory.oom.group": "1"}},
    "unified-wins": {"memory": {"limit": 64 << 20}, "unified": {"memory.max": "32M"}},
}  # fmt: skip

ORACLES = (RUNC, CRUN)
COMPARED = re.findall(r"`(\w+ [\d.]+)`", DIFFERENCES.read_text().split("|")[0])


def listed() -> set[tuple[str, str]]:
    """The rows of the table of limits: a runtime, and a variant with a file."""
    table = DIFFERENCES.read_text().split("## Limits")[1]
    rows = [line.strip("| ").split("|") for line in table.splitlines() if line.startswith("| `")]
    return {
        (runtime, what)
        for runtimes, places, _ in rows
        for runtime in re.findall(r"`([^`]+)`", runtimes)
        for what in re.findall(r"`([^`]+)`", places)
    }


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with busybox as its root, and runc's own config.json to begin with."""
    program = shutil.which("busybox")
    if not program:
        pytest.skip("busybox is not installed")
    if not version(RUNC):
        pytest.skip("runc is not installed")
    place = tmp_path_factory.mktemp("bundle")
    for name in ("bin", "proc", "sys", "dev"):
        (place / "rootfs" / name).mkdir(parents=True)
    shutil.copy(program, place / "rootfs/bin/sh")
    subprocess.run(["runc", "spec", "--bundle", place], check=True)
    return place


def write_config(bundle: Path, resources: dict[str, Any], disk: Path) -> None:
    config = json.loads((bundle / "config.json").read_text())
    number = os.stat(disk).st_rdev
    text = json.dumps(resources)
    numbers = f'"major": {os.major(number)}, "minor": {os.minor(number)}'
    asked = json.loads(text.replace(f'"{DISK}": 0', numbers))
    config["process"].update(terminal=False, args=["sh", "-c", PROBE], rlimits=[], capabilities={})
    devices = config["linux"]["resources"]["devices"]
    config["linux"]["resources"] = {"devices": devices, **asked}
    (bundle / "config.json").write_text(json.dumps(config))


def files(command: list[str | Path], **how: Any) -> list[str]:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, **how)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.fixture
def observe(bundle, busybox, spare_disk, tmp_path):
    """What a runtime's container finds in its cgroup."""

    def look(runtime, variant, without="") -> dict[str, str]:
        write_config(bundle, VARIANTS[variant], spare_disk)
        if runtime is None:
            less = ["--without", without] if without else []
            lines = files(busybox.argv("run", "--bundle", bundle, *less), env=busybox.env)
        else:
            state = tmp_path / "state"
            command = [runtime.program, "--root", state, "run", "--bundle", bundle, "oracle-limits"]
            lines = files(command, stdin=subprocess.DEVNULL)
        found: dict[str, str] = {}
        for line in lines:
            file, _, value = line.partition(" ")
            found[file] = found.get(file, "") + value
        return found

    return look


def unexplained(observe, runtime, variant, without="") -> list[str]:
    """Where the numbers differ.  A cgroup of theirs has all controllers, of ours those that are
    needed: what we have no file for, they must have left as it was."""
    ours, theirs = observe(None, variant, without), observe(runtime, variant)
    untouched = observe(runtime, "nothing")
    full_name = f"{runtime.name} {version(runtime)}"
    known = {
        what for name, what in listed() if f"{full_name}.".startswith((f"{name} ", f"{name}."))
    }
    return [
        f"{file}: ours {ours.get(file)!r}, theirs {theirs.get(file)!r}"
        for file in sorted({*ours, *theirs})
        if (ours.get(file, untouched.get(file)) != theirs.get(file))
        != (f"{variant} {file}" in known)
    ]


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("oracle", ORACLES, ids=lambda oracle: oracle.name)
def test_the_same_limits(observe, oracle, variant):
    """And no listed difference that is not there."""
    found = version(oracle)
    if not found:
        pytest.skip(f"{oracle.name} is not installed")
    if f"{oracle.name} {found}" not in COMPARED:
        pytest.skip(f"{oracle.name} {found} has not been compared with")
    assert unexplained(observe, oracle, variant) == []


@pytest.mark.parametrize(
    ("variant", "step"),
    [
        ("memory", "memory"),
        ("cpu", "cpu"),
        ("pids", "pids"),
        ("io", "io"),
        ("unified", "cgroup-files"),
    ],
)
def test_the_comparison_can_fail(observe, variant, step):
    assert unexplained(observe, RUNC, variant, without=step) != []


# ---- the flags, as podman understands docker's

FLAGS = [
    "-m 64m",
    "-m 64m --memory-swap 96m --memory-reservation 32m",
    "-m 64m --memory-swap -1",
    "-m 64m --memory-swap 64m",
    "--cpus 0.5",
    "--cpus 1",
    "--cpu-period 50000 --cpu-quota 10000",
    "--cpu-quota 20000",
    "--pids-limit 20",
    "--pids-limit -1",
    "--device-read-bps DISK:1mb --device-write-bps DISK:2mb",
    "--device-read-iops DISK:30 --device-write-iops DISK:40",
]


@pytest.fixture(scope="module")
def podman() -> Iterator[list[str | Path]]:
    """podman with a place of its own, which it wants to have a short name."""
    if not shutil.which("podman"):
        pytest.skip("podman is not installed")
    place = Path(tempfile.mkdtemp(prefix="podman-"))
    yield ["podman", "--cgroup-manager", "cgroupfs", "--root", place / "root",
           "--runroot", place / "run", "--tmpdir", place / "tmp"]  # fmt: skip
    subprocess.run(["umount", place / "root/overlay"], capture_output=True)
    shutil.rmtree(place, ignore_errors=True)


def by_flags(podman, bundle, busybox, flags, ours=None) -> list[str]:
    """The files that differ when the same flags are given to both."""
    words = flags.split()
    common = ["run", "--rm", "--network", "none"]
    files_of = {}
    # podman has a limit of processes of its own where none was asked for
    more = [] if "--pids-limit" in words else ["--pids-limit", "-1"]
    rootfs = ["--ulimit", "host", "--rootfs", bundle / "rootfs"]
    for name, command, env in (
        ("podman", [*podman, *common, *words, *more, *rootfs, "/bin/sh", "-c", PROBE], None),
        ("ours", busybox.argv(*common, *(words if ours is None else ours), "busybox", "sh", "-c",
                              PROBE), busybox.env),
    ):  # fmt: skip
        found: dict[str, str] = {}
        for line in files(command, env=env):
            file, _, value = line.partition(" ")
            found[file] = found.get(file, "") + value
        files_of[name] = found
    theirs, mine = files_of["podman"], files_of["ours"]
    return [f"{f}: {mine[f]!r}, {theirs.get(f)!r}" for f in mine if mine[f] != theirs.get(f)]


@pytest.mark.parametrize("flags", FLAGS)
def test_the_same_flags(podman, bundle, busybox, spare_disk, flags):
    assert by_flags(podman, bundle, busybox, flags.replace(DISK, str(spare_disk))) == []


def test_the_comparison_of_flags_can_fail(podman, bundle, busybox):
    assert by_flags(podman, bundle, busybox, "-m 64m", ours=["-m", "32m"]) == [
        "memory.max: '33554432', '67108864'", "memory.swap.max: '33554432', '67108864'",
    ]  # fmt: skip
