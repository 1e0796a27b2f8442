"""kernel/pivot.py: no name and no trick leads back to the old root."""

from __future__ import annotations

import os
import tempfile

import pytest

from minicontainer.errors import KernelError, MinicontainerError
from minicontainer.kernel import pivot
from minicontainer.kernel.mounts import MountFilesystem
from tests.kernel.room import PROC, Room
from tests.support import forked
from tests.unit.mutants import fails, mutant

pytestmark = pytest.mark.requires_root


def furnished(tmp_path) -> Room:
    """A root with a procfs and a marker."""
    room = Room(tmp_path / "root")
    (tmp_path / "root/inside").touch()
    MountFilesystem("/proc", *PROC).run(room)
    os.chdir("/")
    return room


def check_old_root(tmp_path, module=pivot):
    """Not by a path, not by "..", not by the classic way out of a chroot."""

    def inside():
        room = furnished(tmp_path)
        module.PivotRoot().run(room)
        assert "root" not in room.fds
        seen = [os.getcwd(), sorted(os.listdir("/")), sorted(os.listdir("/.."))]
        with open("/proc/self/mountinfo") as file:
            seen.append(sorted(line.split()[4] for line in file))
        os.mkdir("/jail")
        os.chroot("/jail")  # the working directory stays outside of the new root
        for _ in range(64):
            os.chdir("..")
        os.chroot(".")
        seen.append(os.path.exists("/inside"))
        return seen

    names = ["inside", "proc"]
    assert forked(inside) == ["/", names, names, ["/", "/proc"], True]


def test_the_old_root_is_out_of_reach(tmp_path, propagation):
    check_old_root(tmp_path)


PIVOT = '        pivot_root(".", ".")\n        umount(".", MNT_DETACH)\n'


@pytest.mark.parametrize(
    "new",
    ["        os.chroot('.')\n", '        pivot_root(".", ".")\n', ""],
    ids=["chroot only", "no umount", "nothing"],
)
def test_the_check_on_the_old_root_can_fail(tmp_path, new):
    fails(check_old_root, tmp_path, mutant(pivot, PIVOT, new))


def test_what_is_no_mount_point(tmp_path):
    def inside():
        room = Room(tmp_path / "root")
        os.mkdir(tmp_path / "root/plain")
        room.fds["root"] = os.open(tmp_path / "root/plain", os.O_PATH)
        pivot.PivotRoot().run(room)

    with pytest.raises(KernelError, match=r"pivot_root.*EINVAL.*not a mount point"):
        forked(inside)


def test_a_shared_root_is_refused_by_the_kernel(tmp_path):
    with pytest.raises(KernelError, match=r"pivot_root.*EINVAL.*shared"):
        forked(lambda: pivot.PivotRoot().run(furnished(tmp_path)), shared_root=True)


def test_the_root_that_is_the_root_already():
    def inside():
        room = Room()
        room.fds["root"] = os.open("/", os.O_PATH)
        pivot.PivotRoot().run(room)

    with pytest.raises(KernelError, match=r"pivot_root.*EBUSY.*the root already"):
        forked(inside)


def check_nodev(tmp_path, module=pivot):
    """Where there is no device filter, the image's own nodes open nothing."""

    def inside():
        room = furnished(tmp_path)
        room.unfiltered = True
        module.PivotRoot().run(room)
        return bool(os.statvfs("/").f_flag & os.ST_NODEV)

    assert forked(inside) is True


def test_without_a_filter_no_device_opens(tmp_path):
    check_nodev(tmp_path)


def test_the_check_on_nodev_can_fail(tmp_path):
    fails(check_nodev, tmp_path, mutant(pivot, "if context.unfiltered:", "if False:"))


# ---- the working directory


def entered(tmp_path, path, make=False, module=pivot, prepare=lambda: None):
    def inside():
        outside = os.open("/", os.O_PATH)
        room = furnished(tmp_path)
        os.mkdir(tmp_path / "root/there")
        os.symlink("/there", tmp_path / "root/link")
        os.symlink(f"/proc/self/fd/{outside}", tmp_path / "root/out")
        pivot.PivotRoot().run(room)
        prepare()
        module.EnterDirectory(path.format(fd=outside), make).run(room)
        return os.getcwd()

    return forked(inside)


def test_starting_somewhere(tmp_path):
    assert entered(tmp_path, "/there") == "/there"
    assert entered(tmp_path, "/link") == "/there"
    assert entered(tmp_path, "/new/and/deep", make=True) == "/new/and/deep"
    assert entered(tmp_path, "/link/x", make=True) == "/there/x"
    for missing in ("/nowhere", "/inside", "/inside/x"):
        with pytest.raises(MinicontainerError, match=f"cannot start in .*{missing}"):
            entered(tmp_path, missing)
    with pytest.raises(MinicontainerError):
        entered(tmp_path, "/inside/x", make=True)


def check_inside(tmp_path, module=pivot):
    """CVE-2024-21626: a descriptor of the host's that was left open, as working directory."""
    for make in (False, True):
        for path in ("/proc/self/fd/{fd}", "/proc/self/fd/{fd}/tmp", "/out", "/out/tmp"):
            with pytest.raises(MinicontainerError, match=r"outside|cannot start"):
                entered(tmp_path, path, make, module)


def test_outside_is_refused(tmp_path):
    check_inside(tmp_path)


def test_the_check_on_outside_can_fail(tmp_path):
    fails(check_inside, tmp_path, mutant(pivot, "    if not inside:", "    if False:"))


def test_a_directory_that_was_removed_is_not_inside():
    def inside():
        with tempfile.TemporaryDirectory() as place:
            os.chdir(place)
        pivot.verify_cwd_inside()

    with pytest.raises(MinicontainerError, match="outside"):
        forked(inside)
