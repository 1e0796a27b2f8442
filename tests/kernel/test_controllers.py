"""kernel/controllers.py and cgrouptree.py: handing controllers down, and who is in the way."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from minicontainer import cgrouptree
from minicontainer.cgrouptree import home, mount_point, whereabouts
from minicontainer.errors import KernelError, MinicontainerError
from minicontainer.kernel import cgroup, controllers
from minicontainer.kernel.controllers import EnableControllers
from tests.kernel.room import Room
from tests.unit.mutants import fails, mutant

pytestmark = pytest.mark.requires_root


@pytest.fixture
def below():
    path = f"/minicontainer-test-{os.getpid()}"
    yield path
    cgroup.remove(mount_point() + path)


@pytest.fixture
def place(below):
    return Path(mount_point() + below)


def made(path):
    room = Room()
    cgroup.MakeCgroup(path).run(room)
    return room


# ---- from the top down


def check_handed_down(below, place, module=controllers):
    room = made(below + "/minicontainer/id")
    module.EnableControllers(below + "/minicontainer/id", ("memory", "pids")).run(room)
    given = (place / "minicontainer/cgroup.subtree_control").read_text().split()
    assert set(given) == {"memory", "pids"}, "these, and no others"
    assert (place / "minicontainer/id/pids.max").exists()
    cgroup.MakeCgroup(below + "/minicontainer/id").undo(room)


@pytest.mark.kernel("memory", "pids")
def test_controllers_are_handed_down_from_the_top(below, place):
    check_handed_down(below, place)


TOP_DOWN = """self._depth(), 0, -1):
            above = "../" * depth
            if new :="""
WRITING = """    raise self._crowded(cgroup_fd, above, len(living))
                write(cgroup_fd, above + _SUBTREE_CONTROL, \""""


@pytest.mark.kernel("memory", "pids")
@pytest.mark.parametrize(
    ("old", "new"),
    [
        (TOP_DOWN, TOP_DOWN.replace("self._depth()", "1")),
        ('return self.path.rstrip("/").count("/")', "return 1"),
        (WRITING, WRITING.replace("write(cgroup_fd, above + _SUBTREE_CONTROL,", "print(")),
    ],
)  # fmt: skip
def test_the_check_on_handing_down_can_fail(below, place, old, new):
    fails(check_handed_down, below, place, mutant(controllers, old, new))


@pytest.mark.kernel("pids")
def test_what_is_there_is_not_written_again(below, place, monkeypatch):
    room = made(below + "/minicontainer/id")
    step = EnableControllers(below + "/minicontainer/id", ("pids",))
    step.run(room)
    monkeypatch.setattr(controllers, "write", lambda *words: pytest.fail(f"written: {words}"))
    step.run(room)
    cgroup.MakeCgroup(below + "/minicontainer/id").undo(room)


def test_a_controller_that_there_is_not(below):
    room = made(below + "/id")
    with pytest.raises(MinicontainerError, match="no way to limit tea here: no such cgroup file"):
        EnableControllers(below + "/id", ("tea",)).run(room)
    cgroup.MakeCgroup(below + "/id").undo(room)


def test_without_a_cgroup():
    with pytest.raises(MinicontainerError, match="the container has no cgroup, so nothing can lim"):
        EnableControllers("/a/b", ("memory",)).run(Room())


# ---- no internal processes


def sleeper(place) -> subprocess.Popen:
    process = subprocess.Popen(["sleep", "600"])
    (place / "cgroup.procs").write_text(str(process.pid))
    return process


def check_not_moved(below, place, wanted, module=controllers):
    """Somebody else lives where controllers would have to be handed down."""
    (place / "box").mkdir(parents=True)
    stranger = sleeper(place / "box")
    room = made(below + "/box/id")
    try:
        with pytest.raises(KernelError, match="EBUSY") as told:
            module.EnableControllers(below + "/box/id", wanted).run(room)
        assert f"processes live in {place}/box itself (1 of them)" in told.value.message
        assert (place / "box/cgroup.type").read_text() == "domain\n"
        assert f"mkdir {place}/box/init; for p in" in told.value.hint
        assert (place / "box/cgroup.procs").read_text() == f"{stranger.pid}\n"
    finally:
        stranger.kill()
        stranger.wait()
        cgroup.MakeCgroup(below + "/box/id").undo(room)


@pytest.mark.kernel("memory", "pids")
@pytest.mark.parametrize("wanted", [("memory",), ("pids",), ("pids", "memory")])
def test_a_process_that_is_not_ours_is_never_moved(below, place, wanted):
    """Nor made a member of a threaded cgroup, as the kernel would for pids alone."""
    check_not_moved(below, place, wanted)


def check_wish(below, place, module=controllers):
    """Counting is a wish: where somebody lives in the way, all stays as it is."""
    (place / "box").mkdir(parents=True)
    stranger = sleeper(place / "box")
    room = made(below + "/box/id")
    try:
        # pids alone: for memory, the kernel itself says EBUSY
        module.CountResources(below + "/box/id", ("pids",)).run(room)
        assert (place / "box/cgroup.subtree_control").read_text().split() == []
        assert (place / "box/cgroup.type").read_text() == "domain\n"
    finally:
        stranger.kill()
        stranger.wait()
        cgroup.MakeCgroup(below + "/box/id").undo(room)
    room = made(below + "/other/id")
    module.CountResources(below + "/other/id").run(room)
    assert (place / "other/id/memory.current").exists()
    cgroup.MakeCgroup(below + "/other/id").undo(room)
    module.CountResources(below + "/other/id").run(Room())  # without a cgroup: nothing


@pytest.mark.kernel("memory", "pids")
def test_counting_moves_nobody_and_fails_nothing(below, place):
    check_wish(below, place)


@pytest.mark.kernel("memory", "pids")
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("            if inhabitants(cgroup_fd, above):\n                return\n", ""),
        ("if name in have and name not in given]", "if name in given]"),
    ],
)
def test_the_check_on_counting_can_fail(below, place, old, new):
    fails(check_wish, below, place, mutant(controllers, old, new))


@pytest.mark.kernel("pids")
def test_the_check_on_threaded_cgroups_can_fail(below, place):
    trusting = mutant(controllers, "living = inhabitants(cgroup_fd, above)", "living = []")
    fails(check_not_moved, below, place, ("pids",), trusting)


@pytest.mark.kernel("pids")
def test_the_check_on_moving_can_fail(below, place):
    greedy = mutant(
        controllers,
        "                if living == [str(os.getpid())]:\n",
        "                for pid in living:\n"
        "                    os.makedirs(f'/proc/self/fd/{cgroup_fd}/{above}x', exist_ok=True)\n"
        "                    write(cgroup_fd, f'{above}x/cgroup.procs', pid)\n"
        "                living = []\n"
        "                if living:\n",
    )
    fails(check_not_moved, below, place, ("memory",), greedy)


def check_steps_aside(below, place, module=controllers):
    """In a child: we alone are in the way, as in a unit of systemd's that was made for us."""
    (place / "box").mkdir(parents=True)
    (place / "box/cgroup.procs").write_text("0")
    room = made(below + "/box/minicontainer/id")
    module.EnableControllers(below + "/box/minicontainer/id", ("pids",)).run(room)
    assert (place / "box/minicontainer/id/pids.max").exists()
    assert (place / "box/runtime/cgroup.procs").read_text() == f"{os.getpid()}\n"


@pytest.mark.kernel("pids")
def test_we_step_aside_ourselves(below, place, forked):
    forked(lambda: check_steps_aside(below, place))


@pytest.mark.kernel("pids")
def test_the_check_on_stepping_aside_can_fail(below, place, forked):
    stubborn = mutant(controllers, "if living == [str(os.getpid())]:", "if False:")
    fails(forked, lambda: check_steps_aside(below, place, stubborn))


# ---- where in the tree


def check_home(place, module=cgrouptree):
    """In a child that goes from cgroup to cgroup."""

    def from_there(*parts):
        folder = place.joinpath(*parts)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "cgroup.procs").write_text("0")
        return module.home()

    assert from_there("plain") == mount_point()
    assert from_there("user.service", "mine.scope") == mount_point()
    os.setxattr(place / "user.service", "trusted.delegate", b"1")
    assert from_there("user.service", "mine.scope") == mount_point(), "delegated to somebody else"
    os.setxattr(place / "user.service/mine.scope", "trusted.delegate", b"1")
    ours = str(place / "user.service/mine.scope")
    assert from_there("user.service", "mine.scope") == ours
    assert from_there("user.service", "mine.scope", "runtime") == ours
    os.setxattr(place / "user.service/mine.scope", "trusted.delegate", b"0")
    assert from_there("user.service", "mine.scope", "runtime") == mount_point()


def test_a_delegated_unit_is_our_home(place, forked):
    forked(lambda: check_home(place))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('if os.getxattr(base + own, name) == b"1":', "if os.getxattr(base + own, name):"),
        ("if name.endswith(_UNITS):", "if False:"),
        ("if name.endswith(_UNITS):", "if True:"),
        ('("trusted.delegate", "user.delegate")', '("user.delegate",)'),
    ],
)
def test_the_check_on_our_home_can_fail(place, forked, old, new):
    fails(forked, lambda: check_home(place, mutant(cgrouptree, old, new)))


def test_a_container_in_a_delegated_unit_is_in_it(place, busybox):
    """The whole way: the container's cgroup is in the unit, and gone with the container."""
    unit = place / "mine.scope"
    unit.mkdir(parents=True)
    os.setxattr(unit, "trusted.delegate", b"1")
    argv = busybox.argv("run", "--rm", "--network", "none", "--cgroupns", "host", "busybox",
                        "cat", "/proc/self/cgroup")  # fmt: skip
    enter = f'echo $$ > {unit}/cgroup.procs; exec "$@"'
    done = subprocess.run(["sh", "-c", enter, "sh", *argv], env=busybox.env, capture_output=True,
                          text=True)  # fmt: skip
    assert done.returncode == 0, done.stderr
    own = next(line for line in done.stdout.splitlines() if line.startswith("0::"))
    assert own.startswith(f"0::/{place.name}/mine.scope/minicontainer/")
    assert [entry.name for entry in unit.iterdir() if entry.is_dir()] == []


# ---- who has the controllers: the sentences, from files that are mounted over the kernel's

CGROUPS = "#subsys_name\thierarchy\tnum_cgroups\tenabled\nmemory\t{}\t1\t{}\nblkio\t3\t1\t1\n"
MOUNTS = """\
30 24 0:26 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
31 24 0:27 / /sys/fs/cgroup/blk rw - cgroup cgroup rw,net_cls,blkio
"""


def check_whereabouts(tmp_path, hierarchy, enabled, mounts, controller, module=cgrouptree):
    (tmp_path / "cgroups").write_text(CGROUPS.format(hierarchy, enabled))
    (tmp_path / "mountinfo").write_text(mounts)
    for file in ("/proc/cgroups", f"/proc/{os.getpid()}/mountinfo"):
        subprocess.run(["mount", "--bind", tmp_path / os.path.basename(file), file], check=True)
    return " | ".join(module.whereabouts(controller))


CASES = [
    (2, 1, MOUNTS, "memory", "belongs to cgroup v1 here (mounted at /sys/fs/cgroup/memory)"),
    (2, 1, MOUNTS, "memory", "| boot with systemd.unified_cgroup_hierarchy=1"),
    (2, 1, "", "memory", "belongs to cgroup v1 here (not mounted here)"),
    (2, 1, MOUNTS, "io", "io controller belongs to cgroup v1 here (mounted at /sys/fs/cgroup/blk"),
    (0, 0, MOUNTS, "memory", "was switched off when this machine was started | boot without cgro"),
    (0, 1, MOUNTS, "memory", "was not handed down to us from above | in a container or a unit"),
    (0, 1, MOUNTS, "cpuset", "this kernel was built without the cpuset controller"),
    (0, 1, MOUNTS, "nosuch", "no such cgroup file or controller: nosuch | the controllers are"),
]  # fmt: skip


@pytest.mark.parametrize(("hierarchy", "enabled", "mounts", "controller", "said"), CASES)
def test_who_has_a_controller(tmp_path, forked, hierarchy, enabled, mounts, controller, said):
    assert said in forked(
        lambda: check_whereabouts(tmp_path, hierarchy, enabled, mounts, controller)
    )


@pytest.mark.parametrize(
    ("old", "new", "case"),
    [
        ('{"io": "blkio"}', "{}", 3),
        ('if enabled == "0":', "if False:", 4),
        ('if hierarchy == "0":', "if False:", 5),
        ("if old not in rows and not below_the_root:", "if False:", 6),
        ("if old not in rows and controller not in _CONTROLLERS:", "if False:", 7),
        ("if old not in rows and controller not in _CONTROLLERS:", "if old not in rows:", 6),
        ('place = f"mounted at {fields.split()[4]}"', "pass", 0),
    ],
)
def test_the_check_on_whereabouts_can_fail(tmp_path, forked, old, new, case):
    *words, said = CASES[case]

    def check():
        assert said in check_whereabouts(tmp_path, *words, module=mutant(cgrouptree, old, new))

    fails(forked, check)


def test_below_the_root_a_controller_may_be_there_unlisted(tmp_path, forked):
    """As in a container on a kernel that lists only what version 1 could have."""

    def check():
        place = Path(mount_point(), f"minicontainer-test-{os.getpid()}")
        place.mkdir()
        try:
            subprocess.run(["mount", "--bind", place, mount_point()], check=True)
            return check_whereabouts(tmp_path, 0, 1, MOUNTS, "cpuset")
        finally:
            subprocess.run(["umount", mount_point()], check=True)
            place.rmdir()

    assert "the cpuset controller was not handed down to us from above" in forked(check)


def test_the_mount_point_and_home_of_this_process():
    assert mount_point()
    assert home().startswith(mount_point())
    assert whereabouts("tea")[0] == "no such cgroup file or controller: tea"


# ---- born in it, or moved into it


def check_gap(place, join_first):
    """A child that joins: what it forked before is outside."""
    place.mkdir()
    pid = os.fork()
    if pid == 0:

        def join():
            (place / "cgroup.procs").write_text("0")

        if join_first:
            join()
        grandchild = subprocess.Popen(["sleep", "600"])
        if not join_first:
            join()
        Path(place.name + ".pid").write_text(str(grandchild.pid))
        os._exit(0)
    os.waitpid(pid, 0)
    grandchild = int(Path(place.name + ".pid").read_text())
    try:
        return f"0::/{place.name}\n" in Path(f"/proc/{grandchild}/cgroup").read_text()
    finally:
        os.kill(grandchild, signal.SIGKILL)


def test_joining_late_leaves_a_gap(place, tmp_path, monkeypatch):
    """Why BeBornInCgroup is a flag of the clone: what was forked before the join stays outside."""
    monkeypatch.chdir(tmp_path)
    assert not check_gap(place, join_first=False)
    cgroup.remove(str(place))
    assert check_gap(place, join_first=True)


@pytest.mark.kernel("memory", "pids")
def test_many_come_and_go_at_once(below, place):
    """The parent goes with its last child, and with it what it handed down."""
    children = []
    for number in range(4):
        pid = os.fork()
        if pid == 0:
            try:
                for turn in range(25):
                    path = f"{below}/minicontainer/{number}-{turn}"
                    room = made(path)
                    EnableControllers(path, ("memory", "pids")).run(room)
                    assert os.path.exists(f"{mount_point()}{path}/pids.max")
                    cgroup.MakeCgroup(path).undo(room)
                os._exit(0)
            finally:
                os._exit(1)
        children.append(pid)
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0, 0, 0, 0]
    assert not (place / "minicontainer").exists()
