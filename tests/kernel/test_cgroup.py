"""kernel/cgroup.py on the real tree, in a cgroup of this test's own."""

from __future__ import annotations

import os
import select
import signal
import subprocess

import pytest

from minicontainer.errors import KernelError
from minicontainer.kernel import cgroup
from tests.kernel.room import Paused, Room, clone3
from tests.unit.mutants import fails, mutant

pytestmark = pytest.mark.requires_root


@pytest.fixture
def below():
    """A path below the mount point, whose directory is ours to make and remove."""
    path = f"/minicontainer-test-{os.getpid()}"
    yield path
    cgroup.remove(cgroup.mount_point() + path)


@pytest.fixture
def place(below):
    return cgroup.mount_point() + below


def test_the_mount_point_is_a_cgroup2():
    with open("/proc/self/mountinfo") as file:
        places = [line.split()[4] for line in file if " - cgroup2 " in line]
    assert cgroup.mount_point() in places


def sleeper_in(place) -> subprocess.Popen:
    """A process that is a member."""
    process = subprocess.Popen(["sleep", "600"])
    with open(place + "/cgroup.procs", "w") as file:
        file.write(str(process.pid))
    return process


# ---- the step


def check_step(below, place, module=cgroup):
    room = Room()
    step = module.MakeCgroup(below + "/minicontainer/id")
    step.run(room)
    born = module.BeBornInCgroup()
    with Paused(make=lambda: clone3(born.wish(room), room.cgroup_fd)) as pid:
        with open(f"/proc/{pid}/cgroup") as file:
            assert f"0::{below}/minicontainer/id\n" in file.read()
        with pytest.raises(KernelError, match=r"mkdir.*EEXIST.*another container lives"):
            module.MakeCgroup(below + "/minicontainer/id").run(Room())
        os.mkdir(place + "/minicontainer/id/of-its-own")
    step.undo(room)
    step.undo(room)
    assert not os.path.exists(place + "/minicontainer"), "the parent called after us goes too"
    assert os.path.exists(place), "and no other"
    assert (room.cgroup_fd, room.said) == (-1, [])


def test_a_child_is_born_in_its_cgroup(below, place):
    check_step(below, place)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("return self.flag if context.cgroup_fd >= 0 else 0", "return 0"),
        ('                if "populated 1" in file.read():', "                if False:"),
        ('            remove(directory.removesuffix(" (deleted)"))', "            pass"),
        ("            os.rmdir(parent)", "            pass"),
        ("        if entry.is_dir(follow_symlinks=False):", "        if False:"),
    ],
)
def test_the_check_on_the_step_can_fail(below, place, old, new):
    fails(check_step, below, place, mutant(cgroup, old, new))


def test_an_empty_cgroup_that_is_there_will_do(below, place):
    os.mkdir(place)
    room = Room()
    cgroup.MakeCgroup(below).run(room)
    assert os.path.samestat(os.fstat(room.cgroup_fd), os.stat(place))
    cgroup.MakeCgroup(below).undo(room)
    assert not os.path.exists(place)


def test_without_a_cgroup_there_is_nothing_to_be_born_in():
    assert cgroup.BeBornInCgroup().wish(Room()) == 0
    cgroup.MakeCgroup("/minicontainer-never-made").undo(Room())


def test_a_limit_of_the_tree_is_told(below, place):
    os.mkdir(place)
    with open(place + "/cgroup.max.descendants", "w") as file:
        file.write("0")
    with pytest.raises(KernelError, match=r"mkdir.*EAGAIN.*cgroup.max.descendants"):
        cgroup.MakeCgroup(below + "/id").run(Room())


# ---- the end


def check_remove(place, module=cgroup):
    """Whatever lives there and below is killed; nothing else is."""
    cgroup.make(place + "/a/b")
    members = [sleeper_in(place + "/a"), sleeper_in(place + "/a/b")]
    stranger = subprocess.Popen(["sleep", "600"])
    try:
        module.remove(place + "/a")
        module.remove(place + "/a")  # gone is fine
        assert not os.path.exists(place + "/a")
        assert [member.wait(10) for member in members] == [-signal.SIGKILL] * 2
        assert stranger.poll() is None
    finally:
        for each in (*members, stranger):
            each.kill()
            each.wait()


def test_remove_ends_all_that_lives_in_it(place):
    check_remove(place)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("    kill_all(path)\n    wait", "    wait"),
        ("            _remove(entry.path)", "            pass"),
        ("if error.errno not in (errno.EBUSY, errno.ENOTEMPTY):", "if True:"),
        ("    except FileNotFoundError:\n        return\n", ""),
    ],
)
def test_the_check_on_remove_can_fail(place, old, new):
    broken = mutant(cgroup, old, new)
    if old.startswith("    kill_all"):
        broken = mutant(cgroup, old + "_empty(path)\n", "    wait_empty(path, 100)\n")
    fails(check_remove, place, broken)


def test_waiting_sees_the_end(place):
    os.mkdir(place)
    assert cgroup.wait_empty(place) is True
    member = sleeper_in(place)
    assert cgroup.wait_empty(place, 1) is False
    pidfd = os.pidfd_open(member.pid)
    cgroup.kill_all(place)
    assert cgroup.wait_empty(place) is True
    assert select.select([pidfd], [], [], 10)[0]
    os.close(pidfd)
    assert member.wait() == -signal.SIGKILL


# ---- races


def check_parent_goes(place, monkeypatch, module=cgroup):
    """Others make the parent just before we do, and take it away just after."""
    makedirs, mkdir, times = os.makedirs, os.mkdir, []
    parent = place + "/minicontainer"
    mkdir(place)

    def with_others(path):
        assert path == parent
        times.append(path)
        try:
            if len(times) == 1:
                mkdir(parent)  # now ours fails: EEXIST
            with monkeypatch.context() as patch:
                patch.setattr(os, "makedirs", makedirs)
                makedirs(path)
        finally:
            if len(times) < 3:
                os.rmdir(parent)

    with monkeypatch.context() as patch:
        patch.setattr(os, "makedirs", with_others)
        module.make(parent + "/id")
    assert os.path.isdir(parent + "/id")
    assert len(times) == 3


def test_the_parent_may_go_at_any_moment(place, monkeypatch):
    check_parent_goes(place, monkeypatch)


@pytest.mark.parametrize("left", ["FileNotFoundError", "OverflowError"])
def test_the_check_on_the_parent_can_fail(place, monkeypatch, left):
    broken = mutant(cgroup, "except (FileExistsError, FileNotFoundError)", f"except {left}")
    fails(check_parent_goes, place, monkeypatch, broken)


def test_many_come_and_go_at_once(place):
    children = []
    for number in range(4):
        pid = os.fork()
        if pid == 0:
            try:
                for turn in range(50):
                    cgroup.make(f"{place}/minicontainer/{number}-{turn}")
                    cgroup.remove(f"{place}/minicontainer/{number}-{turn}")
                os._exit(0)
            finally:
                os._exit(1)
        children.append(pid)
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0, 0, 0, 0]
    assert not os.path.exists(place + "/minicontainer")
