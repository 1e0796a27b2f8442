"""A container's path never becomes a descriptor outside its root."""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minicontainer import safepath
from minicontainer.errors import ImageError, KernelError
from minicontainer.libc import C, address, check, ffi
from minicontainer.safepath import make_directory, make_file, open_in_root, read_small


class Root:
    """A root with a secret beside it, and calls that give paths instead of descriptors."""

    def __init__(self, place: Path) -> None:
        self.path = place / "root"
        (self.path / "etc").mkdir(parents=True)
        (self.path / "etc/passwd").write_text("inside\n")
        (place / "secret").write_text("outside\n")
        (place / "etc").mkdir()
        (place / "etc/passwd").write_text("outside\n")
        self.fd = os.open(self.path, os.O_PATH | os.O_DIRECTORY)

    def link(self, name: str, target: str) -> None:
        (self.path / name).symlink_to(target)

    def where(self, fd: int) -> str:
        """Where a descriptor leads, seen from the root; it is closed."""
        try:
            found = os.readlink(f"/proc/self/fd/{fd}")
        finally:
            os.close(fd)
        assert found == str(self.path) or found.startswith(f"{self.path}/"), found
        return found.removeprefix(str(self.path)) or "/"


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Root]:
    made = Root(tmp_path)
    yield made
    os.close(made.fd)


def failure(call, *arguments) -> int:
    with pytest.raises(KernelError) as failed:
        call(*arguments)
    return failed.value.errno


LINKS = [
    ("up", "..", "up/etc/passwd"),
    ("up", "../../../..", "up/etc/passwd"),
    ("slash", "/", "slash/etc/passwd"),
    ("slash", "/", "slash/../../etc/../etc/passwd"),
    ("file", "/etc/passwd", "file"),
    ("file", "../../../etc/passwd", "/file"),
]


def check_inside(root: Root, path: str) -> None:
    assert read_small(root.fd, path) == b"inside\n"
    assert root.where(open_in_root(root.fd, path, os.O_RDONLY)) == "/etc/passwd"


@pytest.mark.parametrize(("name", "target", "path"), LINKS)
def test_links_end_inside(root: Root, name: str, target: str, path: str):
    root.link(name, target)
    check_inside(root, path)


@pytest.mark.parametrize(("name", "target", "path"), LINKS)
def test_without_the_flag_they_lead_out(root: Root, monkeypatch, name, target, path):
    """The mutant: openat2 without RESOLVE_IN_ROOT is openat."""
    root.link(name, target)
    monkeypatch.setattr(safepath, "RESOLVE_IN_ROOT", 0)
    with pytest.raises((AssertionError, KernelError)):
        check_inside(root, path)


def test_magic_links_are_not_followed(root: Root, tmp_path: Path):
    """/proc/PID/root and /proc/PID/fd/N are doors to somewhere else (CVE-2024-21626)."""
    proc = os.open("/proc", os.O_PATH | os.O_DIRECTORY)
    outside = os.open(tmp_path, os.O_PATH)
    try:
        assert failure(open_in_root, proc, "self/root/etc", os.O_PATH) == errno.ELOOP
        assert failure(open_in_root, proc, f"self/fd/{outside}/secret", os.O_PATH) == errno.ELOOP
        assert failure(make_file, proc, f"self/fd/{outside}/new") == errno.ELOOP
        assert failure(make_directory, proc, f"self/fd/{outside}/new") == errno.ELOOP
    finally:
        os.close(proc)
        os.close(outside)


def test_descriptors_are_closed_on_exec(root: Root):
    for fd in (
        open_in_root(root.fd, "/etc", os.O_PATH),
        make_directory(root.fd, "/a/b"),
        make_file(root.fd, "/a/c"),
    ):
        assert not os.get_inheritable(fd)
        os.close(fd)


def test_errors_name_the_call_and_what_it_means(root: Root):
    with pytest.raises(KernelError) as failed:
        open_in_root(root.fd, "/none", os.O_RDONLY | os.O_NOFOLLOW)
    assert failed.value.message == (
        f'openat2({root.fd}, "/none", O_NOFOLLOW|O_CLOEXEC, RESOLVE_IN_ROOT|RESOLVE_NO_MAGICLINKS)'
        " failed: ENOENT (No such file or directory): no such path inside this root"
    )


def test_a_nul_does_not_cut_a_path_short(root: Root):
    """C would open /etc for "/etc\\0/passwd"."""
    assert failure(open_in_root, root.fd, "/etc\0/passwd", os.O_PATH) == errno.EINVAL
    assert failure(make_directory, root.fd, "/a\0/b") == errno.EINVAL


def test_bytes_that_are_no_text(root: Root):
    (root.path / "etc" / os.fsdecode(b"\xff")).write_text("x")
    assert read_small(root.fd, os.fsdecode(b"/etc/\xff")) == b"x"


# ---- make_directory, make_file


@pytest.mark.parametrize(
    ("links", "path", "made"),
    [
        ({}, "/a/b/c", "/a/b/c"),
        ({}, "a//./b/../c/", "/a/c"),
        ({}, "/../../a", "/a"),
        ({}, "/", "/"),
        ({}, "", "/"),
        ({"l": "/"}, "l/l/a", "/a"),
        ({"l": "../../x/y"}, "l/z", "/x/y/z"),  # the target is yet to be made
        ({"run": "/var/run", "m": "run"}, "m/lock", "/var/run/lock"),
        ({"a": "b/../c"}, "a/d", "/c/d"),
    ],
)
def test_directories_are_made_inside(root: Root, links, path: str, made: str):
    for name, target in links.items():
        root.link(name, target)
    assert root.where(make_directory(root.fd, path)) == made
    assert (root.path / made.lstrip("/")).is_dir()
    assert root.where(make_directory(root.fd, path)) == made, "and again, now that it is there"


@pytest.mark.parametrize(
    ("links", "path", "made"),
    [
        ({}, "/new", "/new"),
        ({}, "a/b/new", "/a/b/new"),
        ({}, "../../new", "/new"),
        ({"etc/resolv.conf": "../run/systemd/stub.conf"}, "/etc/resolv.conf",
         "/run/systemd/stub.conf"),
        ({"etc/mtab": "/proc/mounts"}, "etc/mtab", "/proc/mounts"),
        ({"a": "b", "b": "c"}, "a", "/c"),
        ({"up": ".."}, "up/up/new", "/new"),
    ],
)  # fmt: skip
def test_files_are_made_inside(root: Root, links, path: str, made: str):
    for name, target in links.items():
        root.link(name, target)
    assert root.where(make_file(root.fd, path, 0o640)) == made
    found = (root.path / made.lstrip("/")).stat()
    assert stat.S_ISREG(found.st_mode) and found.st_size == 0
    assert root.where(make_file(root.fd, path)) == made


def test_what_is_there_stays(root: Root):
    os.mkfifo(root.path / "fifo")
    assert root.where(make_file(root.fd, "fifo")) == "/fifo"  # and nothing waits for a writer
    assert root.where(make_file(root.fd, "etc")) == "/etc"
    os.close(make_file(root.fd, "/etc/passwd"))
    assert (root.path / "etc/passwd").read_text() == "inside\n"


def test_what_cannot_be_made(root: Root):
    root.link("loop", "loop")
    root.link("to_itself", "x/../to_itself")
    assert failure(make_directory, root.fd, "/loop/a") == errno.ELOOP
    assert failure(make_file, root.fd, "/loop") == errno.ELOOP
    assert failure(make_file, root.fd, "/to_itself") in (errno.ELOOP, errno.EISDIR)
    assert failure(make_directory, root.fd, "/etc/passwd/x") == errno.ENOTDIR
    assert failure(make_directory, root.fd, "/etc/passwd") == errno.ENOTDIR
    assert failure(make_file, root.fd, "/etc/passwd/x") == errno.ENOTDIR
    assert failure(make_file, root.fd, "/none/") == errno.EISDIR
    assert failure(make_directory, root.fd, "/" + "x" * 300) == errno.ENAMETOOLONG


WORDS = st.sampled_from(["a", "b", "l", "m", "..", ".", "", "etc", "passwd"])
PATHS = st.lists(WORDS, max_size=5).map("/".join)


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.tuples(PATHS, PATHS), st.lists(PATHS, min_size=1, max_size=4))
def test_nothing_is_made_outside(tmp_path_factory, targets, paths):
    place = tmp_path_factory.mktemp("fuzz")
    made = Root(place)
    try:
        for name, target in zip("lm", targets, strict=True):
            made.link(name, target or "/")
        for number, path in enumerate(paths):
            for call in (make_directory, make_file)[number % 2 :]:
                try:
                    made.where(call(made.fd, path))  # asserts that it is inside
                except KernelError:
                    pass  # a refusal makes nothing outside either, as the end of the test sees
        assert sorted(os.listdir(place)) == ["etc", "root", "secret"]
        assert os.listdir(place / "etc") == ["passwd"]
    finally:
        os.close(made.fd)


def exchange(one: Path, two: Path) -> None:
    """renameat2(2) with RENAME_EXCHANGE: at no moment is one of the names missing."""
    at_fdcwd, rename_exchange = -100, 2
    names = [ffi.new("char[]", bytes(path)) for path in (one, two)]
    number = {"x86_64": 316, "aarch64": 276}[os.uname().machine]
    check(
        C.system_call(number, at_fdcwd, address(names[0]), at_fdcwd, address(names[1]),
                  rename_exchange, 0),
        "renameat2", one, two,
    )  # fmt: skip


def test_a_swap_while_we_walk(root: Root, tmp_path: Path):
    """A directory and a link to the outside change places for ever (CVE-2018-15664's race)."""
    (root.path / "swap").mkdir()
    root.link("link", str(tmp_path))
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            exchange(root.path / "swap", root.path / "link")

    swapper = threading.Thread(target=swap)
    swapper.start()
    made = 0
    try:
        for number in range(300):
            try:
                root.where(make_directory(root.fd, f"swap/d{number}/e"))
                root.where(make_file(root.fd, f"swap/f{number}"))
                made += 1
            except KernelError as error:
                assert error.errno == errno.ENOENT, error.message
    finally:
        stop.set()
        swapper.join()
    assert made
    assert sorted(os.listdir(tmp_path)) == ["etc", "root", "secret"]


def test_eagain_is_asked_again(root: Root, monkeypatch):
    """The kernel may say EAGAIN when something is renamed while it climbs a ".."."""
    real, answers = safepath.syscall, [errno.EAGAIN, errno.EAGAIN]

    def busy(*arguments: int) -> int:
        if not answers:
            return real(*arguments)
        safepath.ffi.errno = answers.pop()
        return -1

    monkeypatch.setattr(safepath, "syscall", busy)
    assert read_small(root.fd, "/etc/passwd") == b"inside\n"
    answers.append(errno.EACCES)
    assert failure(open_in_root, root.fd, "/etc", os.O_PATH) == errno.EACCES


# ---- read_small


def test_only_small_regular_files_are_read(root: Root):
    """CVE-2024-9676: an image's /etc/passwd may be anything."""
    os.mkfifo(root.path / "fifo")
    root.link("dev", "/etc")
    (root.path / "exact").write_bytes(b"x" * 10)
    (root.path / "big").write_bytes(b"x" * 11)
    assert read_small(root.fd, "exact", 10) == b"x" * 10
    for path, words in (("fifo", "not a regular file"), ("etc", "not a regular"), ("big", "more")):
        with pytest.raises(ImageError, match=words):
            read_small(root.fd, path, 10)
    assert failure(read_small, root.fd, "none") == errno.ENOENT
    (root.path / "empty").touch()
    assert read_small(root.fd, "empty") == b""


@pytest.mark.requires_root
def test_a_device_is_not_even_opened(root: Root):
    """Opening a watchdog starts it: 10:130 here has no driver, and open(2) would say ENXIO."""
    os.mknod(root.path / "passwd", stat.S_IFCHR | 0o600, os.makedev(10, 254))
    with pytest.raises(OSError):
        os.close(os.open(root.path / "passwd", os.O_RDONLY | os.O_NONBLOCK))
    with pytest.raises(ImageError, match="not a regular file"):
        read_small(root.fd, "/passwd")
