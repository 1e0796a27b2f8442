"""What bundles ask of the kernel files and a comparison with runc does not show."""

from __future__ import annotations

import os
import subprocess

import pytest

from minicontainer.kernel import cgroup
from minicontainer.kernel.joining import JoinPidNamespace, ReturnToOwn, ShiftClocks
from minicontainer.mountcalls import attribute_changes
from minicontainer.step import Context

pytestmark = pytest.mark.requires_root


def links(kind):
    return os.readlink(f"/proc/self/ns/{kind}_for_children")


@pytest.mark.kernel("time_ns")
@pytest.mark.parametrize("returns", [True, False], ids=["returns", "mutant"])
def test_the_next_children_have_our_own_clocks(forked, returns):
    def child():
        before, context = links("time"), Context("id", "")
        ShiftClocks((("monotonic", 5, 0),)).run(context)
        assert links("time") != before
        if returns:
            ReturnToOwn("time").run(context)
        return links("time") == before

    assert forked(child) is returns


@pytest.mark.parametrize("returns", [True, False], ids=["returns", "mutant"])
def test_the_next_children_have_our_own_numbering(forked, returns):
    neighbour = subprocess.Popen(
        ["unshare", "--pid", "--fork", "--kill-child", "sh", "-c", "echo; exec cat"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert neighbour.stdout
    neighbour.stdout.readline()

    def child():
        before, context = links("pid"), Context("id", "")
        JoinPidNamespace("pid", f"/proc/{neighbour.pid}/ns/pid_for_children").run(context)
        assert links("pid") != before
        if returns:
            ReturnToOwn("pid").run(context)
        return links("pid") == before

    try:
        assert forked(child) is returns
    finally:
        neighbour.kill()
        neighbour.communicate()


def test_an_empty_cgroup_may_be_there_already():
    base = cgroup.mount_point()
    if not base:
        pytest.skip("no cgroup2 file system is mounted")
    path = f"{base}/minicontainer-test-{os.getpid()}"
    cgroup.make(path)
    try:
        cgroup.make(path)
        with subprocess.Popen(["sleep", "100"]) as inhabitant:
            with open(path + "/cgroup.procs", "w") as file:
                file.write(str(inhabitant.pid))
            with pytest.raises(FileExistsError):
                cgroup.make(path)
            inhabitant.kill()
    finally:
        cgroup.remove(path)


@pytest.mark.parametrize(
    ("words", "changes"),
    [
        ((), (0, 0)),
        (("bind",), (0, 0)),
        (("ro", "nosuid", "nodev", "noexec"), (0xF, 0)),
        (("rw", "suid"), (0, 0x3)),
        (("ro", "rw"), (0, 0x1)),
        (("noatime",), (0x10, 0x70)),
        (("strictatime",), (0x20, 0x70)),
        (("relatime",), (0, 0x70)),
        (("atime",), (0, 0x70)),
        (("nodiratime", "nosymfollow"), (0x200080, 0)),
    ],
)
def test_words_as_mount_attributes(words, changes):
    """linux/mount.h; the access times are a field of three values in the bits 0x70."""
    assert attribute_changes(words) == changes
