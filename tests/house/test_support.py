"""The tests' own tools can fail: a leak is seen, a failure in a child comes back."""

from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
import time

import pytest

from minicontainer.errors import KernelError
from tests import support
from tests.house.source import tracked_files
from tests.support import CHECKOUT, SHARED_ROOT, ChildFailed, Host

SHARED = re.compile(r"shared:\d+")


def root_mount() -> str:
    """The line of mountinfo for `/`, as proc_pid_mountinfo(5) describes it."""
    with open("/proc/self/mountinfo") as file:
        return next(line for line in file if line.split()[4] == "/")


def test_nothing_done_leaves_nothing(tmp_path):
    assert Host(tmp_path).leftovers() == []


def test_an_open_descriptor_is_seen(tmp_path):
    host = Host(tmp_path)
    with open(os.devnull) as file:
        assert f"{file.fileno()} -> /dev/null" in "".join(host.leftovers(patience=0))
    assert host.leftovers() == []


def test_a_closed_descriptor_is_seen(tmp_path):
    spare = os.open(os.devnull, os.O_RDONLY)
    host = Host(tmp_path)
    os.close(spare)
    assert host.leftovers(patience=0) == [f"descriptors lost: {spare} -> /dev/null"]


def test_a_file_in_the_run_directory_is_seen(tmp_path):
    host = Host(tmp_path)
    (tmp_path / "run/a-container").mkdir(parents=True)
    (tmp_path / "containers/another").mkdir(parents=True)
    assert host.leftovers(patience=0) == [
        f"files left: {tmp_path}/containers/another",
        f"files left: {tmp_path}/run/a-container",
    ]


def test_a_surviving_process_is_seen(tmp_path):
    host = Host(tmp_path)
    with subprocess.Popen(["sleep", "60"], env={"PLACE": str(tmp_path)}) as process:
        try:
            # until the exec is done, it is a copy of this process
            while f"pid {process.pid}: sleep 60" not in "".join(host.leftovers(patience=0)):
                time.sleep(0.01)
        finally:
            process.kill()
    assert host.leftovers() == []


def test_a_mount_is_seen(forked, tmp_path):
    def leak() -> list[str]:
        host = Host(tmp_path)
        subprocess.run(["mount", "-t", "tmpfs", "leak", tmp_path], check=True)
        return host.leftovers(patience=0)

    (line,) = forked(leak)
    assert line.startswith("mounts left:")
    assert str(tmp_path) in line


def test_a_cgroup_is_seen(forked, tmp_path):
    def leak() -> list[str]:
        subprocess.run(["mount", "-t", "tmpfs", "own", tmp_path], check=True)
        subprocess.run(["mount", "-t", "cgroup2", "none", tmp_path], check=True)
        folder = tmp_path / f"minicontainer-test-{os.getpid()}" / "leak"
        host = Host(tmp_path / "run")
        folder.mkdir(parents=True)
        try:
            return host.leftovers(patience=0)
        finally:
            folder.rmdir()
            folder.parent.rmdir()

    assert f"{tmp_path}/minicontainer-test-" in "".join(forked(leak))


@pytest.mark.parametrize(
    "change",
    [
        lambda: signal.signal(signal.SIGUSR2, signal.SIG_IGN),
        lambda: signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2]),
        lambda: os.umask(0o123),
        lambda: os.chdir("/proc"),
    ],
    ids=["ignored", "blocked", "umask", "directory"],
)
def test_what_children_would_inherit_is_seen(forked, change):
    def changes() -> bool:
        before = support.inheritance()
        assert before == support.inheritance()
        change()
        return before != support.inheritance()

    assert forked(changes)


def test_a_child_hands_back_its_value(forked):
    assert forked(lambda: [os.getpid()]) != [os.getpid()]


def test_a_child_hands_back_its_failure(forked):
    def fail() -> None:
        assert os.getpid() == 0, "of course not"

    with pytest.raises(AssertionError, match="of course not"):
        forked(fail)


def test_a_child_hands_back_a_kernel_error(forked):
    def refuse() -> None:
        raise KernelError("mount", '"/"', errno.EPERM, "not root here", "become root")

    with pytest.raises(KernelError, match="not root here") as caught:
        forked(refuse)
    assert (caught.value.errno, caught.value.hint) == (errno.EPERM, "become root")


def test_a_child_whose_value_cannot_travel_is_no_success(forked):
    with pytest.raises(Exception, match="pickle"):
        forked(lambda: lambda: None)


def test_a_child_hands_back_its_skip(forked):
    with pytest.raises(pytest.skip.Exception, match="not here"):
        forked(lambda: pytest.skip("not here"))


def test_a_child_that_dies_silently_is_no_success(forked):
    with pytest.raises(ChildFailed, match="with -9, silently"):
        forked(lambda: os.kill(os.getpid(), 9))
    with pytest.raises(ChildFailed, match="with 3, silently"):
        forked(lambda: os._exit(3))


def test_a_child_mounts_for_itself_only(forked, tmp_path):
    before = support.mounts()
    forked(lambda: subprocess.run(["mount", "-t", "tmpfs", "x", tmp_path], check=True))
    forked(lambda: subprocess.run(["mount", "-t", "tmpfs", "x", tmp_path], check=True), True)
    assert support.mounts() == before


@pytest.mark.requires_root
def test_a_shared_root_is_shared_and_private_is_private(forked):
    here = root_mount()
    assert not SHARED.search(forked(root_mount))
    assert SHARED.search(forked(root_mount, shared_root=True))
    command = [*SHARED_ROOT, "cat", "/proc/self/mountinfo"]
    seen = subprocess.run(command, capture_output=True, check=True, text=True).stdout
    assert SHARED.search(next(line for line in seen.splitlines() if line.split()[4] == "/"))
    assert root_mount() == here


def test_every_decision_is_in_the_index():
    index = (CHECKOUT / "docs/adr/README.md").read_text()
    pages = [path.name for path in (CHECKOUT / "docs/adr").glob("[0-9]*.md")]
    assert pages
    assert [name for name in pages if f"({name})" not in index] == []


def test_the_list_of_files_is_not_empty():
    names = {str(path.relative_to(CHECKOUT)) for path in tracked_files()}
    assert {"Makefile", "minicontainer/libc.py", "tests/skips.md"} <= names
    assert not any(name.startswith(".venv/") for name in names)
