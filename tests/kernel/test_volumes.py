"""kernel/volumes.py: the host's files in the container, and nothing else of the host."""

from __future__ import annotations

import errno
import os

import pytest

from minicontainer.errors import KernelError, UsageError
from minicontainer.kernel import volumes
from minicontainer.mountcalls import mount
from tests.kernel.room import Room, in_child, unshare
from tests.support import forked
from tests.unit.mutants import fails, mutant

pytestmark = pytest.mark.requires_root

NEWNS = 0x00020000


@pytest.fixture
def source(tmp_path):
    """A directory of the host with a file and a place for a mount below."""
    (tmp_path / "source/below").mkdir(parents=True)
    (tmp_path / "source/file").write_text("the host's")
    return tmp_path / "source"


def attach(tmp_path, source, destination="/data", options=("rbind",), module=volumes, **more):
    """Open, attach: the root's path and the context."""
    room = Room(tmp_path / "root")
    if prepare := more.pop("prepare", None):
        prepare(tmp_path / "root")
    opened = module.OpenVolume(str(source), destination, options, **more)
    opened.run(room)
    module.AttachVolume(str(source), destination, options).run(room)
    opened.undo(room)
    return tmp_path / "root", room


def error_of(action) -> int:
    """The errno of what is refused; 0 if it is not."""
    try:
        action()
    except OSError as error:
        return error.errno or -1
    return 0


def test_both_sides_see_every_change(tmp_path, source):
    def inside():
        root, room = attach(tmp_path, source, "/made/for/it")
        (root / "made/for/it/new").write_text("from inside")
        (source / "back").write_text("from outside")
        assert list(room.fds) == ["root"]
        return (root / "made/for/it/back").read_text()

    assert forked(inside) == "from outside"
    assert (source / "new").read_text() == "from inside"


def test_a_file_on_a_file(tmp_path, source):
    def inside():
        root, _ = attach(tmp_path, source / "file", "/etc/thing")
        return (root / "etc/thing").read_text(), error_of(lambda: (root / "etc/thing").unlink())

    assert forked(inside) == ("the host's", errno.EBUSY)


def check_readonly(tmp_path, source, module=volumes):
    """ro is for the mount itself, rro for all below it."""

    def inside(*options):
        mount("tmpfs", str(source / "below"), "tmpfs", 0)
        root, _ = attach(tmp_path, source, "/data", ("rbind", *options), module)
        return tuple(
            error_of(place.touch)
            for place in (root / "data/new", root / "data/below/new", source / "from-the-host")
        )

    assert forked(lambda: inside()) == (0, 0, 0)
    assert forked(lambda: inside("ro")) == (errno.EROFS, 0, 0)
    assert forked(lambda: inside("ro", "rro")) == (errno.EROFS, errno.EROFS, 0)
    assert forked(lambda: inside("rro")) == (errno.EROFS, errno.EROFS, 0)


def test_readonly(tmp_path, source):
    check_readonly(tmp_path, source)


def test_flags(tmp_path, source):
    def inside():
        root, _ = attach(tmp_path, source, "/d", ("bind", "nosuid", "nodev", "noexec", "noatime"))
        bits = os.statvfs(root / "d").f_flag
        names = ("ST_NOSUID", "ST_NODEV", "ST_NOEXEC", "ST_NOATIME", "ST_RDONLY")
        return [name for name in names if bits & getattr(os, name)]

    assert forked(inside) == ["ST_NOSUID", "ST_NODEV", "ST_NOEXEC", "ST_NOATIME"]


def check_recursion(tmp_path, source, module=volumes):
    """bind leaves out what is mounted below; rbind brings it."""

    def inside(word):
        mount("tmpfs", str(source / "below"), "tmpfs", 0)
        (source / "below/deep").touch()
        root, _ = attach(tmp_path, source, "/data", (word,), module)
        return (root / "data/below/deep").exists()

    assert forked(lambda: inside("rbind")) is True
    assert forked(lambda: inside("bind")) is False


def test_recursion(tmp_path, source):
    check_recursion(tmp_path, source)


def check_propagation(propagation, tmp_path, source, module=volumes):
    """What the container mounts below a volume does not show on the host."""

    def inside():
        read, write = os.pipe()

        def container():
            room = Room()
            opened = module.OpenVolume(str(source), "/data", ("rbind",))
            opened.run(room)
            unshare(NEWNS)
            mount(None, "/", None, 1 << 18 | 16384)
            inner = Room(tmp_path / "root")
            room.fds["root"] = inner.fds["root"]
            module.AttachVolume(str(source), "/data", ("rbind",)).run(room)
            mount("tmpfs", str(tmp_path / "root/data/below"), "tmpfs", 0)
            (tmp_path / "root/data/below/secret").touch()

        assert in_child(container) == 0
        os.close(read)
        os.close(write)
        return (source / "below/secret").exists()

    assert forked(inside, propagation == "shared") is False


def test_mounts_below_a_volume_stay_inside(propagation, tmp_path, source):
    check_propagation(propagation, tmp_path, source)


def test_a_missing_source_is_found_first(tmp_path):
    with pytest.raises(UsageError, match="bind source path does not exist"):
        forked(lambda: volumes.OpenVolume(str(tmp_path / "gone"), "/data").run(Room()))


def check_links(tmp_path, source, module=volumes):
    """CVE-2021-30465: the place is found inside the root, whatever links lie on the way."""
    (tmp_path / "outside").mkdir(exist_ok=True)

    def inside(target):
        root, _ = attach(
            tmp_path, source, "/link/data", module=module,
            prepare=lambda root: (root / "link").symlink_to(target),
        )  # fmt: skip
        return (tmp_path / "outside/data").exists(), sorted(
            str(p.relative_to(root)) for p in root.rglob("data/file")
        )

    for target in (str(tmp_path / "outside"), "../outside", "../../../.." + str(tmp_path)):
        leaked, found = forked(lambda target=target: inside(target))
        assert not leaked
        assert found and all(name.endswith("data/file") for name in found)


def test_links_in_the_image_lead_no_volume_out(tmp_path, source):
    check_links(tmp_path, source)


def check_proc(tmp_path, source, module=volumes):
    def inside(destination, prepare=lambda root: None):
        attach(tmp_path, source, destination, module=module, prepare=prepare)

    for bad in ("/proc", "/proc/self", "/x/../proc/sys"):
        with pytest.raises(UsageError, match="inside /proc"):
            forked(lambda bad=bad: inside(bad))
    with pytest.raises(UsageError, match="symbolic link"):
        forked(lambda: inside("/dev/x", lambda root: (root / "dev").symlink_to("etc")))
    with pytest.raises(UsageError, match="inside /proc"):
        forked(lambda: inside("/run/x", lambda root: (root / "run").symlink_to("proc")))


def test_nothing_goes_on_proc(tmp_path, source):
    check_proc(tmp_path, source)


CHECK_PROC = "            check_proc_place(root, place, self.destination, is_procfs(tree))\n"


@pytest.mark.parametrize(
    ("check", "old", "new"),
    [
        (check_readonly, "if set_ or clear:", "if False:"),
        (check_readonly, "((here, False), (below, True))", "((here, True), (below, True))"),
        (check_readonly, "((here, False), (below, True))", "((here, False),)"),
        (check_recursion, 'recursive="rbind" in self.options', "recursive=True"),
        (check_recursion, 'recursive="rbind" in self.options', "recursive=False"),
        (check_proc, CHECK_PROC, ""),
        (check_proc, "        real_directory(root, self.destination)\n", ""),
    ],
)
def test_the_checks_can_fail(tmp_path, source, check, old, new):
    fails(check, tmp_path, source, mutant(volumes, old, new))


def test_the_check_on_propagation_can_fail(tmp_path, source):
    old = "mount_setattr(tree, propagation=propagation & ~MS_REC, recursive=True)"
    fails(check_propagation, "shared", tmp_path, source, mutant(volumes, old, "pass"))


def test_the_check_on_links_can_fail(tmp_path, source):
    old = "        place = make(root, self.destination)\n"
    new = (
        "        path = os.readlink(f'/proc/self/fd/{root}') + self.destination\n"
        "        os.makedirs(path, exist_ok=True)\n"
        "        place = os.open(path, os.O_PATH)\n"
    )
    fails(check_links, tmp_path, source, mutant(volumes, old, new))


def test_undo_closes_what_was_never_attached(tmp_path, source):
    def inside():
        room = Room()
        step = volumes.OpenVolume(str(source), "/data")
        step.run(room)
        before = len(os.listdir("/proc/self/fd"))
        step.undo(room)
        step.undo(room)
        return room.fds, before - len(os.listdir("/proc/self/fd"))

    assert forked(inside) == ({}, 1)


# ---- the root of a bundle


def test_a_bundles_root_is_a_mount_point_of_its_own(tmp_path, source):
    def inside():
        room = Room()
        before = os.stat(source).st_ino
        volumes.BindRoot(str(source)).run(room)
        with open("/proc/self/mountinfo") as file:
            places = [line.split()[4] for line in file]
        return str(source) in places, os.fstat(room.fds["root"]).st_ino == before

    assert forked(inside) == (True, True)


def test_a_root_that_is_no_directory(tmp_path, source):
    for path in (source / "file", source / "gone"):
        with pytest.raises((OSError, KernelError)):
            forked(lambda path=path: volumes.BindRoot(str(path)).run(Room()))


def test_procfs_is_recognised():
    for path, expected in (("/proc", True), ("/proc/self/fd", True), ("/", False), ("/dev", False)):
        fd = os.open(path, os.O_PATH)
        assert volumes.is_procfs(fd) is expected
        os.close(fd)
