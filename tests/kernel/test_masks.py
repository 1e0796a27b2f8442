"""kernel/masks.py: what is hidden reads as nothing, what is protected takes no write."""

from __future__ import annotations

import errno
import os

import pytest

from minicontainer.errors import MinicontainerError
from minicontainer.kernel import masks
from minicontainer.mountcalls import mount
from tests.kernel.room import Room
from tests.support import forked
from tests.unit.mutants import fails, mutant

pytestmark = pytest.mark.requires_root
MS_BIND = 4096


@pytest.fixture
def place(tmp_path):
    (tmp_path / "directory/below").mkdir(parents=True)
    (tmp_path / "directory/secret").write_text("secret")
    (tmp_path / "file").write_text("secret")
    return tmp_path


def paths(place) -> tuple[str, ...]:
    """A file, a directory, and two that this kernel has not."""
    names = ("file", "gone", "directory", "file/not-a-directory")
    return tuple(str(place / name) for name in names)


def check_masks(place, module=masks):
    def inside():
        module.MaskPaths(paths(place)).run(Room())
        (place / "file").write_text("swallowed")
        with pytest.raises(OSError) as caught:
            (place / "directory/new").touch()
        return (
            (place / "file").read_bytes(), os.listdir(place / "directory"),
            caught.value.errno, os.getcwd(), (place / "gone").exists(),
        )  # fmt: skip

    assert forked(inside) == (b"", [], errno.EROFS, "/", False)
    assert (place / "file").read_text() == "secret"


def test_masked_paths_are_empty(place):
    check_masks(place)


def check_protected(place, module=masks):
    def inside():
        mount("tmpfs", str(place / "directory/below"), "tmpfs", 0)
        module.ProtectPaths(paths(place)).run(Room())
        refused = []
        for path in ("file", "directory/secret", "directory/new", "directory/below/new"):
            with pytest.raises(OSError) as caught:
                (place / path).write_text("x")
            refused.append(caught.value.errno)
        return (place / "file").read_text(), set(refused)

    assert forked(inside) == ("secret", {errno.EROFS})


def test_protected_paths_take_no_write(place):
    check_protected(place)


def test_the_real_paths_of_proc():
    """sysrq-trigger and kcore are the ones that count."""

    def inside():
        masks.ProtectPaths(("/proc/sys", "/proc/sysrq-trigger")).run(Room())
        masks.MaskPaths(("/proc/kcore", "/proc/interrupts")).run(Room())
        for path in filter(os.path.exists, ("/proc/sys/kernel/hostname", "/proc/sysrq-trigger")):
            with pytest.raises(OSError, match="Read-only file system"):
                os.close(os.open(path, os.O_WRONLY))
        with open("/proc/interrupts", "rb") as file:
            return file.read()

    assert forked(inside) == b""


def check_null(place, module=masks):
    """CVE-2025-31133: an image offers something else as /dev/null, to have it bound over /proc."""
    fakes = {
        "another file": lambda: mount(str(place / "file"), "/dev/null", None, MS_BIND),
        "another device": lambda: mount("/dev/zero", "/dev/null", None, MS_BIND),
    }

    def inside(fake):
        fake()
        module.MaskPaths((str(place / "file"),)).run(Room())

    for fake in fakes.values():
        with pytest.raises(MinicontainerError, match="not the null device"):
            forked(lambda fake=fake: inside(fake))

    def link():
        """A link to the true one is not followed: it may change while we look."""
        mount("tmpfs", "/dev", "tmpfs", 0)
        os.mknod("/dev/true-null", 0o20666, os.makedev(1, 3))
        os.symlink("true-null", "/dev/null")
        module.MaskPaths((str(place / "file"),)).run(Room())

    with pytest.raises(MinicontainerError, match="not the null device"):
        forked(link)


def test_a_fake_null_device_is_refused(place):
    check_null(place)


def test_no_descriptor_stays_open(place):
    def inside():
        before = len(os.listdir("/proc/self/fd"))
        masks.MaskPaths(paths(place)).run(Room())
        masks.ProtectPaths(paths(place)).run(Room())
        return len(os.listdir("/proc/self/fd")) - before

    assert forked(inside) == 0


@pytest.mark.parametrize(
    ("check", "old", "new"),
    [
        (check_masks, 'mount("tmpfs", ".", "tmpfs", MS_RDONLY)', "pass"),
        (check_masks, 'mount("tmpfs", ".", "tmpfs", MS_RDONLY)', 'mount("x", ".", "tmpfs", 0)'),
        (check_masks, '            os.chdir("/")\n', ""),
        (check_masks, "except (FileNotFoundError, NotADirectoryError)", "except FileNotFoundError"),
        (check_protected, "                mount_setattr(tree, _MOUNT_ATTR_RDONLY)\n", ""),
        (check_protected, "(tree, _MOUNT_ATTR_RDONLY)", "(tree, _MOUNT_ATTR_RDONLY, recursive=0)"),
        (check_null, "or device != NULL_DEVICE:", "or False:"),
        (check_null, "if not stat.S_ISCHR(status.st_mode) or device != NULL_DEVICE:", "if 0:"),
        (check_null, 'os.open("/dev/null", os.O_PATH | os.O_NOFOLLOW', 'os.open("/dev/null", 0'),
    ],
)
def test_the_checks_can_fail(place, check, old, new):
    fails(check, place, mutant(masks, old, new))
