"""A container's cgroup where cgroup2 has its controllers: natively, or in a guest kernel."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from minicontainer.kernel import cgroup
from tests.support import Cli

pytestmark = pytest.mark.kernel("memory", "pids")

COUNTERS = {"memory.current", "pids.current"}


def start(busybox: Cli, script: str, *flags: str) -> tuple[subprocess.Popen[str], Path]:
    """Run a script, up to its first output, "ready"; the process, and the container's cgroup."""
    shell = ("busybox", "sh", "-c", f"echo ready; read go; {script}")
    process = busybox.start("run", "--rm", "-i", "--network", "none", *flags, *shell)
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    (name,) = (entry for entry in os.listdir(busybox.run) if len(entry) == 64)
    return process, Path(cgroup.mount_point(), "minicontainer", name)


def go_on(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Let the script go on, to its end: status, output, errors."""
    out, err = process.communicate("go\n", timeout=60)
    return process.returncode, out, err


def test_the_tree_is_pure_and_hands_its_controllers_down():
    root = Path(cgroup.mount_point())
    assert {"memory", "pids"} <= set((root / "cgroup.subtree_control").read_text().split())
    assert not list(Path("/sys/fs/cgroup").glob("*/tasks")), "a v1 hierarchy"


def test_a_container_is_born_in_its_own_cgroup(busybox, leaves_nothing):
    """It sees itself at the root; from outside it is the only process of its cgroup."""
    process, own = start(busybox, "cat /proc/self/cgroup")
    (pid,) = (own / "cgroup.procs").read_text().split()
    assert Path(f"/proc/{pid}/comm").read_text() == "sh\n"
    assert go_on(process) == (0, "0::/\n", "")
    assert not own.exists()


@pytest.mark.parametrize("flags", [(), ("--without", "accounting")], ids=["whole", "mutant"])
def test_what_nobody_limits_is_counted(busybox, leaves_nothing, flags):
    process, own = start(busybox, "true", *flags)
    counted = {file for file in COUNTERS if (own / file).exists()}
    assert counted == (set() if flags else COUNTERS)
    assert go_on(process) == (0, "", "")


@pytest.mark.parametrize("limit", ["3", "max"])
def test_a_number_of_processes_written_by_hand_bites(busybox, leaves_nothing, limit):
    """Two sleeps and the shell are three; without the limit (the mutant) nothing happens."""
    process, own = start(busybox, "sleep 0.1 & sleep 0.1 & sleep 0.1 & wait")
    (own.parent / "cgroup.subtree_control").write_text("+pids")
    (own / "pids.max").write_text(limit)
    status, _, err = go_on(process)
    assert (status != 0, "can't fork" in err) == (limit != "max",) * 2, err


@pytest.mark.parametrize("limit", ["16M", "max"])
def test_an_amount_of_memory_written_by_hand_bites(busybox, leaves_nothing, limit):
    """dd fills one buffer of 64 MiB; the shell, which is small, is spared and tells."""
    fill = "dd if=/dev/zero of=/dev/null bs=64M count=1 2> /dev/null; echo $?"
    process, own = start(busybox, fill)
    (own.parent / "cgroup.subtree_control").write_text("+memory")
    (own / "memory.max").write_text(limit)
    status, out, _ = go_on(process)
    assert (status, out) == (0, "0\n" if limit == "max" else "137\n")
