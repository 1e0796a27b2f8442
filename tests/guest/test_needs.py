"""needs.py: what a probe says of a kernel, tried on made-up trees, and on this kernel."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.guest import needs

ROOT = {"cgroup.controllers": "cpu memory pids", "cgroup.subtree_control": "cpu"}


@pytest.mark.requires_root
@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (ROOT, ["cpu", "memory"]),  # the real root may hand out all that it has
        ({**ROOT, "cgroup.type": "domain"}, ["cpu"]),  # any other what it has handed out
        ({**ROOT, "cgroup.controllers": "cpu"}, ["cpu"]),
        ({"cgroup.controllers": ROOT["cgroup.controllers"]}, []),  # no cgroup2
        ({}, []),
    ],
    ids=["root", "below", "one", "broken", "v1"],
)
def test_controllers(tmp_path: Path, files: dict[str, str], expected: list[str]) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    found = [name for name in ("cpu", "memory", "io") if needs.controller(name, tmp_path)]
    assert found == expected


@pytest.mark.kernel("guest", "memory", "pids", "cpu", "io")
@pytest.mark.parametrize("name", ["memory", "pids", "cpu", "io"])
def test_a_controller_that_is_promised_can_be_used(name: str) -> None:
    """The probe only looks; this does it."""
    root = Path("/sys/fs/cgroup")
    (root / "cgroup.subtree_control").write_text(f"+{name}")
    below = root / f"minicontainer-test-{os.getpid()}"
    below.mkdir()
    try:
        assert list(below.glob(f"{name}.*"))
    finally:
        below.rmdir()


@pytest.mark.kernel("guest", "cpuset", "io.weight", "psi", "memory")
def test_what_only_the_emulated_machine_has() -> None:
    root = Path("/sys/fs/cgroup")
    below = root / f"minicontainer-test-{os.getpid()}"
    (root / "cgroup.subtree_control").write_text("+cpuset +io +memory")
    below.mkdir()
    try:
        (below / "cpuset.cpus").write_text("0")
        (below / "io.weight").write_text("50")
        assert (below / "cpuset.cpus.effective").read_text() == "0\n"
        assert (below / "memory.pressure").read_text().startswith("some ")
    finally:
        below.rmdir()


@pytest.mark.kernel("disk", "guest")
def test_the_spare_disk_of_a_guest(spare_disk: Path) -> None:
    check_disk(spare_disk)


@pytest.mark.kernel("disk")
def test_the_spare_disk(spare_disk: Path) -> None:
    check_disk(spare_disk)


def check_disk(device: Path) -> None:
    """It is a block device, and keeps what is written."""
    assert device.is_block_device()
    device.write_bytes(b"x" * 4096)
    with open(device, "rb") as file:
        assert file.read(4097) == b"x" * 4096 + b"\0"


@pytest.mark.kernel("sys_resource")
def test_the_capability_is_there() -> None:
    """Without it this is EACCES: oom_score_adj, proc_pid_oom_score_adj(5)."""
    pid = os.fork()
    if pid == 0:
        try:
            Path("/proc/self/oom_score_adj").write_text("-1000")
            os._exit(0)
        except OSError as error:
            os._exit(error.errno or 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_every_need_has_an_answer_and_a_guest() -> None:
    assert all(isinstance(needs.met(word), bool) for word in needs.NEEDS)
    assert all(need.guests for need in needs.TABLE)
