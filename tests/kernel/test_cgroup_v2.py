"""A container's cgroup where cgroup2 has its controllers: natively, or in a guest kernel."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from minicontainer.kernel import cgroup

pytestmark = pytest.mark.kernel("memory", "pids")


def test_the_tree_is_pure_and_hands_its_controllers_down():
    root = Path(cgroup.mount_point())
    assert {"memory", "pids"} <= set((root / "cgroup.subtree_control").read_text().split())
    assert not list(Path("/sys/fs/cgroup").glob("*/tasks")), "a v1 hierarchy"


def test_a_container_is_born_in_its_own_cgroup(busybox, leaves_nothing):
    """It sees itself at the root; from outside it is the only process of its cgroup."""
    inside = busybox("run", "--rm", "--network", "none", "busybox", "cat", "/proc/self/cgroup")
    assert (inside.status, inside.out) == (0, "0::/\n"), inside.err
    process = busybox.start("run", "--rm", "-i", "--network", "none", "busybox", "cat")
    assert process.stdin
    assert process.stdout
    process.stdin.write("ready\n")
    process.stdin.flush()
    assert process.stdout.readline() == "ready\n"
    (name,) = (entry for entry in os.listdir(busybox.run) if len(entry) == 64)
    own = Path(cgroup.mount_point(), "minicontainer", name, "cgroup.procs")
    (pid,) = own.read_text().split()
    assert Path(f"/proc/{pid}/comm").read_text() == "cat\n"
    process.communicate(timeout=60)
    assert process.returncode == 0
