"""An honest archive comes out as tar(1) would unpack it, and deletions as overlayfs wants them."""

from __future__ import annotations

import os
import stat
import subprocess
from io import BytesIO
from pathlib import Path

import pytest

from minicontainer.errors import ImageError
from minicontainer.image import nodes
from minicontainer.image.stream import Limits, TarStream
from tests.image.evil import sparse
from tests.image.tars import CHAR, DIR, FIFO, HARD, SYM, entry, extract, tar, tgz, tree

root = pytest.mark.requires_root
ROOT = {"uid": 0, "gid": 0}


def test_modes_times_and_links(tmp_path: Path):
    old = os.umask(0o077)  # an archive's modes are its own
    try:
        done = extract(
            tar(
                entry("./", DIR, mode=0o711, mtime=1),
                entry("tmp", DIR, mode=0o1777, mtime=2),
                entry("tmp/su", content=b"abc", mode=0o6755, mtime=3),
                entry("tmp/hard", HARD, target="./tmp/su"),
                entry("tmp/sym", SYM, target="/nowhere/../at all", mtime=4),
                entry("fifo", FIFO, mode=0o622, mtime=5),
                entry("no/mention/of/parents", mtime=6),
                entry("exact", pax={"mtime": "7.123456789"}),
                entry("before", pax={"mtime": "-1.5"}),
                entry("closed", DIR, mode=0o500, mtime=8),
                entry("closed/in", mtime=9),
            ),
            tmp_path,
        )
    finally:
        os.umask(old)
    assert (done.entries, done.size, done.newest) == (11, 3, 1_000_000_000)

    def look(name: str) -> tuple[int, int]:
        found = os.lstat(tmp_path / name)
        return stat.S_IMODE(found.st_mode), found.st_mtime_ns

    second = 10**9
    assert look("") == (0o711, 1 * second)
    assert look("tmp") == (0o1777, 2 * second)
    assert look("tmp/su") == (0o6755, 3 * second)
    assert look("tmp/sym")[1] == 4 * second
    assert look("fifo") == (0o622, 5 * second)
    assert look("no/mention/of")[0] == 0o755
    assert look("exact")[1] == 7_123_456_789
    assert look("before")[1] == -1_500_000_000
    assert look("closed") == (0o500, 8 * second)
    assert os.readlink(tmp_path / "tmp/sym") == "/nowhere/../at all"
    assert os.lstat(tmp_path / "tmp/hard").st_ino == os.lstat(tmp_path / "tmp/su").st_ino
    assert (tmp_path / "tmp/su").read_bytes() == b"abc"


def test_later_entries_win(tmp_path: Path):
    extract(
        tar(
            entry("a", content=b"1"), entry("a", content=b"2"),
            entry("d", DIR, mode=0o700), entry("d/kept"), entry("d", DIR, mode=0o750),
            entry("gone", DIR), entry("gone/below"), entry("gone", content=b"a file now"),
        ),
        tmp_path,
    )  # fmt: skip
    assert (tmp_path / "a").read_bytes() == b"2"
    assert (tmp_path / "d/kept").exists()
    assert stat.S_IMODE((tmp_path / "d").stat().st_mode) == 0o750
    assert (tmp_path / "gone").read_bytes() == b"a file now"


def test_holes_stay_holes(tmp_path: Path):
    size = 1 << 30
    extract(sparse("hole", size, (0, 4096), (size - 4096, 4096), content=b"x" * 8192), tmp_path)
    found = os.stat(tmp_path / "hole")
    assert found.st_size == size
    assert found.st_blocks * 512 < 1 << 20
    with (tmp_path / "hole").open("rb") as file:
        assert file.read(4097) == b"x" * 4096 + b"\0"
        file.seek(size - 4096)
        assert file.read() == b"x" * 4096


@pytest.mark.parametrize("flag", ["--format=gnu", "--format=posix"])
def test_holes_as_gnu_tar_writes_them(tmp_path: Path, flag: str):
    (tmp_path / "in").mkdir()
    with (tmp_path / "in/file").open("wb") as file:
        file.truncate(50 << 20)
        for offset in range(0, 50 << 20, 2 << 20):
            file.seek(offset)
            file.write(b"data" * 1024)
    command = ["tar", "-C", tmp_path / "in", flag, "--sparse", "-cf", tmp_path / "t", "file"]
    subprocess.run(command, check=True)
    extract((tmp_path / "t").read_bytes(), tmp_path / "out")
    assert (tmp_path / "out/file").read_bytes() == (tmp_path / "in/file").read_bytes()
    assert os.stat(tmp_path / "out/file").st_blocks * 512 < 5 << 20


@root
def test_capabilities_survive_the_owner(tmp_path: Path):
    """chown(2) takes file capabilities and set-user-id away, so the order is part of the lesson."""
    net_raw = bytes.fromhex("0100000200200000000000000000000000000000")
    attributes = {
        "SCHILY.xattr.security.capability": net_raw.decode("latin-1"),
        "SCHILY.xattr.user.note": "hello",
        "SCHILY.xattr.user.overlay.opaque": "y",
        "SCHILY.xattr.trusted.overlay.redirect": "/etc",
    }
    extract(tar(entry("ping", uid=7, gid=8, mode=0o4755, pax=attributes)), tmp_path)
    ping = tmp_path / "ping"
    assert os.getxattr(ping, "security.capability") == net_raw
    assert set(os.listxattr(ping)) == {"security.capability", "user.note"}
    found = ping.stat()
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (7, 8, 0o4755)


@root
def test_the_wrong_order_loses_them(tmp_path: Path):
    """The mutant of the test above."""
    info, _ = entry("x", uid=7, mode=0o4755)
    (tmp_path / "x").touch()
    with (tmp_path / "x").open("rb") as file:
        os.fchmod(file.fileno(), info.mode)
        os.fchown(file.fileno(), info.uid, info.gid)
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) != 0o4755
    with (tmp_path / "x").open("rb") as file:
        nodes.set_metadata(file.fileno(), info)
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == 0o4755


@root
def test_devices(tmp_path: Path):
    extract(tar(entry("null", CHAR, mode=0o666, devmajor=1, devminor=3)), tmp_path)
    found = os.lstat(tmp_path / "null")
    assert (found.st_mode, found.st_rdev) == (stat.S_IFCHR | 0o666, os.makedev(1, 3))


# ---- deletions

LOWER = tar(
    entry("kept", content=b"lower"), entry("gone", content=b"lower"), entry("dir", DIR),
    entry("dir/old"), entry("swapped", DIR), entry("swapped/old"), entry("first", DIR),
    entry("first/old"), entry("second", DIR), entry("second/old"), entry("third", DIR),
    entry("third/old"),
)  # fmt: skip
UPPER = tar(
    entry(".wh.gone"),
    entry("dir", DIR), entry("dir/.wh..wh..opq"), entry("dir/new"),
    entry(".wh.swapped"), entry("swapped", content=b"a file now"),
    entry(".wh.first"), entry("first", DIR), entry("first/new"),  # in either order, a whiteout
    entry("second", DIR), entry("second/new"), entry(".wh.second"),  # speaks of layers below
    entry("third/.wh.old"), entry(".wh..wh.plnk", DIR), entry(".wh..wh.aufs"),
)  # fmt: skip


@root
@pytest.mark.parametrize("extra", ["", ",userxattr"])
def test_the_kernel_understands_the_deletions(tmp_path: Path, forked, extra: str):
    """The oracle is overlayfs itself, mounted as for root and as in a user namespace."""
    from minicontainer.libc import C, check

    for name, data in (("low", LOWER), ("up", UPPER)):
        extract(data, tmp_path / name)
    merged = tmp_path / "merged"
    merged.mkdir()

    def mounted() -> list[str]:
        options = f"lowerdir={tmp_path}/up:{tmp_path}/low{extra}".encode()
        check(C.mount(b"overlay", bytes(merged), b"overlay", 0, options), "mount", "overlay")
        return sorted(str(path.relative_to(merged)) for path in merged.rglob("*"))

    assert forked(mounted) == [
        "dir", "dir/new", "first", "first/new", "kept", "second", "second/new", "swapped", "third",
    ]  # fmt: skip


@root
def test_without_the_translation_nothing_is_deleted(tmp_path: Path, forked, monkeypatch):
    """The mutant: an unpacker that knows no whiteouts."""
    monkeypatch.setattr("minicontainer.image.layers.WHITEOUT", "no such prefix")
    with pytest.raises(AssertionError):
        test_the_kernel_understands_the_deletions(tmp_path, forked, "")


def test_a_whiteout_is_a_device_0_0(tmp_path: Path):
    extract(tar(entry("a/.wh.b")), tmp_path)
    found = os.lstat(tmp_path / "a/b")
    assert nodes.is_whiteout(found)
    assert os.listdir(tmp_path / "a") == ["b"]


# ---- the stream


def zstd(data: bytes) -> bytes:
    try:
        from compression.zstd import compress
    except ImportError:
        from backports.zstd import compress
    return bytes(compress(data))


class Drip:
    """A pipe that gives a few bytes at a time."""

    def __init__(self, data: bytes) -> None:
        self.file = BytesIO(data)

    def read(self, size: int = -1) -> bytes:
        return self.file.read(min(size, 5) if size > 0 else 5)


@pytest.mark.parametrize("pack", [bytes, tgz, zstd])
@pytest.mark.parametrize("source", [BytesIO, Drip])
def test_every_packing_is_the_same_layer(tmp_path: Path, pack, source):
    from hashlib import sha256

    from minicontainer.image.layers import unpack

    data = tar(entry("a", content=b"1" * 3000), entry("b", SYM, target="a")) + bytes(9000)
    stream = TarStream(source(pack(data)), Limits())
    fd = os.open(tmp_path, os.O_RDONLY)
    unpack(stream, fd)
    os.close(fd)
    assert stream.diff_id == "sha256:" + sha256(data).hexdigest(), "with the padding at its end"
    assert stream.digest == "sha256:" + sha256(pack(data)).hexdigest()
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]


def test_two_gzip_members_are_one_archive(tmp_path: Path):
    data = tar(entry("a", content=b"1" * 3000), entry("b"))
    extract(tgz(data[:1500]) + tgz(data[1500:]), tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]


def test_a_full_disk_is_told(tmp_path: Path, monkeypatch):
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(ImageError, match=r"'file' in the archive: No space left"):
        extract(tar(entry("file", content=b"x")), tmp_path)


# ---- the real one


@root
def test_alpine_is_as_tar_unpacks_it(tmp_path: Path, alpine_archive: Path):
    extract(alpine_archive.read_bytes(), tmp_path / "ours")
    (tmp_path / "tar").mkdir()
    command = ["tar", "--numeric-owner", "-xpf", alpine_archive, "-C", tmp_path / "tar"]
    subprocess.run(command, check=True)
    ours, theirs = (
        {path.removeprefix(str(tmp_path / name)): what for path, what in found.items()}
        for name in ("ours", "tar")
        for found in [tree(tmp_path / name)]
    )
    assert ours == theirs
    assert len(ours) > 500
    for path in theirs:
        mine, his = (os.lstat(f"{tmp_path}/{name}{path}") for name in ("ours", "tar"))
        assert mine.st_mtime_ns == his.st_mtime_ns, path
