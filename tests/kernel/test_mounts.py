"""kernel/mounts.py and mountcalls.py: what is mounted, with which flags, and who hears of it."""

from __future__ import annotations

import errno
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicontainer import mountcalls
from minicontainer.errors import KernelError, UsageError
from minicontainer.kernel import mounts
from minicontainer.mountcalls import OPTIONS, PROPAGATION, attribute_changes, parse_options
from tests.kernel.room import PROC, Room, in_child, unshare
from tests.support import forked
from tests.unit.mutants import fails, mutant

NEWNS = 0x00020000
root_only = pytest.mark.requires_root


def mountinfo(place: str) -> list[list[str]]:
    """The lines of mountinfo for a place, in fields; the last mount is on top."""
    with open("/proc/self/mountinfo") as file:
        return [line.split() for line in file if line.split()[4] == place]


def flags_of(place: str) -> set[str]:
    """The flags of the mount on top, and those of its file system."""
    fields = mountinfo(place)[-1]
    return {*fields[5].split(","), *fields[-1].split(",")}


# ---- words


WORDS = [*OPTIONS, *PROPAGATION, "size=64k", "mode=755", "newinstance"]


@given(st.lists(st.sampled_from(WORDS)))
def test_the_last_word_wins_and_nothing_is_lost(words):
    flags, cleared, propagation, data = parse_options(tuple(words))
    assert flags & cleared == 0
    said = [word for word in words if word in PROPAGATION]
    assert propagation == (PROPAGATION[said[-1]] if said else 0)
    ours = [word for word in words if word not in OPTIONS and word not in PROPAGATION]
    assert data == ",".join(ours)
    for on, off in (("ro", "rw"), ("nosuid", "suid"), ("noexec", "exec"), ("nodev", "dev")):
        last = [word for word in words if word in (on, off)][-1:]
        assert bool(flags & OPTIONS[on][0]) == (last == [on])
        assert bool(cleared & OPTIONS[on][0]) == (last == [off])


@given(st.text(st.characters(exclude_characters=","), min_size=1).filter(lambda w: w not in WORDS))
def test_an_unknown_word_is_the_file_systems_own(word):
    assert parse_options(("ro", word, "nodev")) == (5, 0, 0, word)


def test_attributes_are_numbered_otherwise():
    assert attribute_changes(("ro", "nosuid", "nodev", "noexec")) == (0xF, 0)
    assert attribute_changes(("rw", "exec")) == (0, 0x9)
    assert attribute_changes(("nosymfollow",)) == (0x200000, 0)
    assert attribute_changes(("noatime",)) == (0x10, 0x70)
    assert attribute_changes(("relatime",)) == (0, 0x70)
    assert attribute_changes(("strictatime",)) == (0x20, 0x70)
    assert attribute_changes(("rbind", "rprivate")) == (0, 0)


# ---- propagation: on a machine of either kind


def check_private(propagation, tmp_path, module=mounts):
    """A mount made after the step, in a copy of the mount tree, does not show in the original."""
    place = tmp_path / "place"
    place.mkdir(exist_ok=True)

    def inside():
        def copy():
            unshare(NEWNS)
            module.MakeMountsPrivate().run(Room())
            mountcalls.mount("tmpfs", str(place), "tmpfs", 0)
            assert mountinfo(str(place))

        assert in_child(copy) == 0
        return len(mountinfo(str(place)))

    assert forked(inside, propagation == "shared") == 0


@root_only
def test_mounts_stay_private(propagation, tmp_path):
    check_private(propagation, tmp_path)


@root_only
def test_the_check_on_privacy_can_fail(tmp_path):
    broken = mutant(mounts, 'propagation: str = "rprivate"', 'propagation: str = "private"')
    check_private("private", tmp_path, broken)  # where nothing is shared, it goes unnoticed
    broken = mutant(
        mounts,
        '        """One mount(2) that only changes propagation."""\n'
        '        mount(None, "/", None, PROPAGATION[self.propagation])\n\n\nclass MountF',
        '        """Nothing."""\n\n\nclass MountF',
    )
    fails(check_private, "shared", tmp_path, broken)


@root_only
def test_a_slave_hears_and_does_not_speak(tmp_path):
    def inside():
        mountcalls.mount("tmpfs", str(tmp_path), "tmpfs", 0)
        (tmp_path / "ours").mkdir()
        (tmp_path / "theirs").mkdir()
        read, write = os.pipe()
        ready, made = os.pipe()
        pid = os.fork()
        if pid == 0:
            unshare(NEWNS)
            mounts.MakeMountsPrivate("rslave").run(Room())
            mountcalls.mount("tmpfs", str(tmp_path / "theirs"), "tmpfs", 0)
            os.write(made, b"x")
            os.read(read, 1)
            os._exit(len(mountinfo(str(tmp_path / "ours"))))
        os.read(ready, 1)
        heard_of_theirs = len(mountinfo(str(tmp_path / "theirs")))
        mountcalls.mount("tmpfs", str(tmp_path / "ours"), "tmpfs", 0)
        os.write(write, b"x")
        return heard_of_theirs, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    assert forked(inside, shared_root=True) == (0, 1)


# ---- mounting


def mounted(tmp_path, *arguments, prepare=lambda root: None, module=mounts):
    """A file system in a room: its place and its flags."""

    def inside():
        room = Room(tmp_path / "root")
        prepare(tmp_path / "root")
        module.MountFilesystem(*arguments).run(room)
        os.chdir("/")
        place = str(tmp_path / "root") + arguments[0]
        return mountinfo(place)[-1], flags_of(place), os.stat(place).st_mode & 0o7777

    return forked(inside)


@root_only
def test_a_file_system_with_flags_and_data_of_its_own(tmp_path):
    line, flags, mode = mounted(
        tmp_path, "/a/b", "tmpfs", "scratch", ("nosuid", "noexec", "size=64k", "mode=1750")
    )
    assert line[-3:-1] == ["tmpfs", "scratch"]
    assert {"rw", "nosuid", "noexec", "size=64k"} <= flags
    assert "nodev" not in flags
    assert mode == 0o1750


@root_only
def test_a_tmpfs_takes_the_mode_of_what_it_covers(tmp_path):
    def prepare(root):
        (root / "there").mkdir()
        (root / "there").chmod(0o1703)

    assert mounted(tmp_path, "/there", "tmpfs", "tmpfs", prepare=prepare)[2] == 0o1703
    assert mounted(tmp_path, "/new", "tmpfs", "tmpfs")[2] == 0o1777


@root_only
def test_a_readonly_tmpfs_is_writable_until_all_is_in_it(tmp_path):
    def inside():
        room = Room(tmp_path / "root")
        mounts.MountFilesystem("/dev", "tmpfs", "tmpfs", ("ro", "nosuid")).run(room)
        place = tmp_path / "root/dev"
        (place / "node").touch()
        mounts.MakeReadonly((str(place),)).run(room)
        with pytest.raises(OSError, match="Read-only"):
            (place / "another").touch()
        flags = flags_of(str(place))
        return "nosuid" in flags, "ro" in flags

    assert forked(inside) == (True, True)


@root_only
def test_only_this_mount_becomes_readonly(tmp_path):
    """Per mount, not per file system: the layers of others stay as they are."""

    def inside():
        mountcalls.mount("tmpfs", str(tmp_path), "tmpfs", 2)
        for name in ("here", "there"):
            (tmp_path / name).mkdir()
        mountcalls.mount(str(tmp_path / "there"), str(tmp_path / "here"), None, 4096)
        mounts.make_readonly(str(tmp_path / "here"))
        (tmp_path / "there/x").touch()
        assert "nosuid" in flags_of(str(tmp_path / "here"))
        with pytest.raises(OSError) as caught:
            (tmp_path / "here/y").touch()
        return caught.value.errno

    assert forked(inside) == errno.EROFS


@root_only
def test_a_link_in_the_image_leads_no_mount_out(tmp_path):
    """CVE-2019-16884 and its kin: the host's directory must not be covered."""
    (tmp_path / "host").mkdir()

    def prepare(root):
        (root / "absolute").symlink_to(tmp_path / "host")
        (root / "relative").symlink_to("../host")

    def inside(name):
        room = Room(tmp_path / "root")
        prepare(tmp_path / "root")
        mounts.MountFilesystem(f"/{name}/x", "tmpfs", "tmpfs").run(room)
        os.chdir("/")
        return mountinfo(str(tmp_path / "host/x")), (tmp_path / "host/x").exists()

    for name in ("absolute", "relative"):
        assert forked(lambda name=name: inside(name)) == ([], False)


def check_real_directory(tmp_path, module=mounts):
    """CVE-2019-19921: with /proc a link, /proc/self/attr would be what the image says."""

    def inside(name, target):
        room = Room(tmp_path / "root")
        (tmp_path / "root/fake").mkdir()
        if target == "file":
            (tmp_path / f"root/{name}").touch()
        else:
            (tmp_path / f"root/{name}").symlink_to(target)
        module.MountFilesystem(f"/{name}", "tmpfs", "tmpfs").run(room)

    for name in ("proc", "sys", "dev"):
        for target in ("fake", "/fake", "nowhere", "file"):
            with pytest.raises(UsageError, match=f"^/{name} of this root file system is not a di"):
                forked(lambda name=name, target=target: inside(name, target))


@root_only
def test_proc_sys_and_dev_are_real_directories(tmp_path):
    check_real_directory(tmp_path)


@root_only
def test_the_check_on_real_directories_can_fail(tmp_path):
    broken = mutant(mounts, "        real_directory(root, self.destination)\n", "")
    fails(check_real_directory, tmp_path, broken)


def check_proc(tmp_path, module=mounts):
    """On /proc only a procfs, below it next to nothing, by whatever way it is reached."""

    def inside(destination, *what):
        room = Room(tmp_path / "root")
        (tmp_path / "root/run").symlink_to("proc")
        module.MountFilesystem("/proc", *PROC).run(room)
        module.MountFilesystem(destination, *what).run(room)

    for bad in ("/proc/self/attr", "/proc/sys", "/run/sys", "/x/../proc/fs", "/proc/1"):
        with pytest.raises((UsageError, KernelError), match=r"inside /proc|no such path"):
            forked(lambda bad=bad: inside(bad, "tmpfs", "tmpfs"))
    with pytest.raises(UsageError, match="inside /proc"):
        forked(lambda: inside("/proc", "tmpfs", "tmpfs"))
    forked(lambda: inside("/proc", *PROC))
    forked(lambda: inside("/procfs", "tmpfs", "tmpfs"))


@root_only
def test_nothing_goes_on_proc(tmp_path):
    check_proc(tmp_path)


@root_only
def test_the_check_on_proc_can_fail(tmp_path):
    old = '            check_proc_place(root, place, self.destination, self.fstype == "proc")\n'
    fails(check_proc, tmp_path, mutant(mounts, old, ""))


@root_only
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("/x", "nosuchfs", "x"), "ENODEV.*no such file system"),
        (("/x", "tmpfs", "x", ("nonsense",)), "EINVAL.*an option is wrong"),
    ],
)
def test_what_the_kernel_says_is_translated(tmp_path, arguments, words):
    with pytest.raises(KernelError, match=words):
        mounted(tmp_path, *arguments)


@root_only
def test_root_propagation():
    def inside():
        mounts.SetRootPropagation("rshared").run(Room())
        shared = any(word.startswith("shared:") for word in mountinfo("/")[-1])
        mounts.SetRootPropagation("private").run(Room())
        return shared, any(word.startswith("shared:") for word in mountinfo("/")[-1])

    assert forked(inside) == (True, False)
