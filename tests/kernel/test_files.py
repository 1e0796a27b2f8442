"""kernel/files.py: our three files lie over the image's, which stay as they are."""

from __future__ import annotations

import os
import stat

import pytest

from minicontainer.errors import UsageError
from minicontainer.kernel import files
from tests.kernel.room import Room
from tests.support import forked
from tests.unit.mutants import fails, mutant

pytestmark = pytest.mark.requires_root


@pytest.fixture
def place(tmp_path):
    (tmp_path / "scratch").mkdir()
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/hosts").write_text("the host's")
    return tmp_path


def provide(place, what, prepare=lambda root: None, module=files):
    """The root's files after the step: content and mode."""

    def inside():
        room = Room(place / "root")
        prepare(place / "root")
        before = len(os.listdir("/proc/self/fd"))
        module.ProvideFiles(str(place / "scratch"), what).run(room)
        assert len(os.listdir("/proc/self/fd")) == before, "a descriptor stays open"
        found = {}
        for directory, _, names in os.walk(place / "root"):
            for name in names:
                path = os.path.join(directory, name)
                if os.path.isfile(path) and not os.path.islink(path):
                    with open(path) as file:
                        mode = stat.S_IMODE(os.stat(path).st_mode)
                        found[path.removeprefix(str(place / "root"))] = (file.read(), mode)
        return found

    return forked(inside)


WHAT = (("/etc/hosts", "127.0.0.1 localhost\né\n", 0o644), ("/etc/deep/own", "", 0o600))


def check_provided(place, module=files):
    def prepare(root):
        (root / "etc").mkdir()
        (root / "etc/hosts").write_text("the image's")
        (root / "etc/other").write_text("other")
        (root / "etc/other").chmod(0o640)

    os.umask(0o077)
    try:
        found = provide(place, WHAT, prepare, module)
    finally:
        os.umask(0o022)
    assert found == {
        "/etc/hosts": ("127.0.0.1 localhost\né\n", 0o644), "/etc/deep/own": ("", 0o600),
        "/etc/other": ("other", 0o640),
    }  # fmt: skip
    assert (place / "scratch/etc0").read_text().startswith("127.0.0.1")


def test_they_are_there_with_content_and_mode(place):
    check_provided(place)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("            os.write(fd, content.encode())\n", ""),
        ("            os.fchmod(fd, mode)\n", ""),
        ("            move_mount(tree, place, destination)\n", ""),
        ("            os.close(tree)\n", ""),
        ("        os.close(here)\n", ""),
    ],
)
def test_the_check_can_fail(place, old, new):
    fails(check_provided, place, mutant(files, old, new))


def test_the_images_own_file_is_under_ours_and_untouched(place):
    def inside():
        room = Room(place / "root")
        (place / "root/etc").mkdir()
        (place / "root/etc/hosts").write_text("the image's")
        under = os.open(place / "root/etc/hosts", os.O_RDONLY)
        files.ProvideFiles(str(place / "scratch"), WHAT[:1]).run(room)
        (place / "root/etc/hosts").write_text("written by the container")
        return os.read(under, 100)

    assert forked(inside) == b"the image's"
    assert (place / "scratch/etc0").read_text() == "written by the container"


@pytest.mark.parametrize("target", ["../run/resolv", "/run/resolv", "../outside/hosts", "{out}"])
def test_a_link_is_followed_inside_the_root(place, target):
    """/etc/resolv.conf often is a link; one that climbs out ends at the root."""
    target = target.format(out=place / "outside/hosts")

    def prepare(root):
        (root / "etc").mkdir()
        (root / "etc/resolv.conf").symlink_to(target)

    found = provide(place, (("/etc/resolv.conf", "ours", 0o644),), prepare)
    assert [content for content, _ in found.values()] == ["ours"]
    assert (place / "outside/hosts").read_text() == "the host's"


def check_directory_link(place, module=files):
    found = provide(
        place, WHAT[:1], lambda root: (root / "etc").symlink_to(place / "outside"), module
    )
    assert len(found) == 1
    assert (place / "outside/hosts").read_text() == "the host's"


def test_a_linked_directory_is_followed_inside_the_root(place):
    check_directory_link(place)


def check_proc(place, module=files):
    for path in ("/proc/version", "/link"):
        with pytest.raises(UsageError, match="inside /proc"):
            provide(
                place, ((path, "", 0o644),), lambda root: (root / "link").symlink_to("proc/x"),
                module,
            )  # fmt: skip
        for left in (place / "scratch").iterdir():
            left.unlink()


def test_nothing_goes_into_proc(place):
    check_proc(place)


def test_the_check_on_proc_can_fail(place):
    old = '            check_proc_place(context.fds["root"], place, destination, procfs=False)\n'
    fails(check_proc, place, mutant(files, old, ""))


def test_what_lies_in_the_scratch_directory_is_not_followed(place):
    """The upper directory is beside it: O_EXCL."""
    (place / "scratch/etc0").symlink_to(place / "outside/hosts")
    with pytest.raises(FileExistsError):
        provide(place, WHAT)
    assert (place / "outside/hosts").read_text() == "the host's"
