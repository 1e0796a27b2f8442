"""A corpus of tars that want to do harm: each with what must become of it.

The stage:   STAGE/outside/secret      must never change
             STAGE/outside/open/       a directory anybody may enter
             STAGE/target/             what is unpacked into

"held" tars may be unpacked, for what they do stays inside the target, as it would under chroot.
"refused" ones end in ImageError with the words given.
"""

from __future__ import annotations

import gzip
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from minicontainer.image.stream import Limits
from tests.image.tars import (
    BLOCK,
    DIR,
    END,
    FIFO,
    FILE,
    HARD,
    SYM,
    entry,
    patched,
    raw,
    tar,
    tgz,
)

SMALL = Limits(total=8 << 20, entries=5000, depth=64, header=1 << 16, ratio=50, ratio_from=1 << 16)

HELD = ""
REFUSED = "archive"  # in words of tarfile or of the kernel, which differ from version to version


class Evil(NamedTuple):
    """``build`` makes the tar from the absolute path of STAGE/outside."""

    build: Callable[[str], bytes]
    refused: str = HELD  # words of the error; "" if it is unpacked, harmlessly
    #: the naive extractor gets out with it
    escapes: bool = False
    root: bool = False
    #: too heavy, or of a kind tarfile does not even read, to be given to the naive extractor
    ours_alone: bool = False


def stage(place: Path) -> Path:
    """The stage, set; returns the target."""
    (place / "outside/open").mkdir(parents=True)
    (place / "outside/secret").write_text("secret\n")
    (place / "outside/open").chmod(0o755)
    (place / "target").mkdir()
    return place / "target"


def sparse(name: str, size: int, *holes: tuple[int, int], content: bytes = b"") -> bytes:
    """An old GNU sparse file: a map of (offset, length) in the header itself."""
    info, _ = entry(name)
    header = info.tobuf(tarfile.GNU_FORMAT)
    numbers = b"".join(b"%011o\0" % number for hole in holes for number in hole)
    header = patched(header, 156, b"S")
    header = patched(header, 124, b"%011o\0" % len(content))
    header = patched(header, 386, numbers)
    big = b"\x80" + size.to_bytes(11, "big")
    return patched(header, 483, big) + content + b"\0" * (-len(content) % 512) + END


def deep(levels: int) -> bytes:
    """Directories in directories."""
    return tar(*(entry("d/" * level + "d", DIR) for level in range(levels)))


def pax_of(size: int) -> bytes:
    """An extended header that says it is enormous, and is rather big."""
    header = entry("x", tarfile.XHDTYPE)[0].tobuf(tarfile.USTAR_FORMAT)
    return patched(header, 124, b"\x80" + size.to_bytes(11, "big")) + b"0" * (4 << 20)


def long_names(count: int) -> bytes:
    """A GNU long name whose header has a long name whose header has ..."""
    header = entry("x", tarfile.GNUTYPE_LONGNAME, b"x\0")
    return raw(*[header] * count, entry("file")) + END


def bad_checksum() -> bytes:
    """Two files; the second one's header is damaged."""
    first, second = raw(entry("a", content=b"1")), bytearray(raw(entry("b", content=b"2")))
    second[100] ^= 1
    return first + bytes(second) + END


EVIL = {
    # names that lead out
    "dot-dot": Evil(lambda out: tar(entry("../outside/pwned")), "'..'", True),
    "dot-dot in the middle": Evil(lambda out: tar(entry("a", DIR), entry("a/../../outside/pwned")),
                                  "'..'", True),
    "dot-dot as a directory": Evil(lambda out: tar(entry("../outside", DIR, mode=0)), "'..'", True),
    "absolute": Evil(lambda out: tar(entry(f"{out}/pwned")), HELD, True),
    "absolute over a file": Evil(lambda out: tar(entry(f"{out}/secret", content=b"x")), HELD, True),
    "absolute in a pax header": Evil(
        lambda out: tar(entry("x", pax={"path": f"{out}/pwned"})), HELD, True),
    # links that lead out, and something through them
    "link as parent": Evil(
        lambda out: tar(entry("x", SYM, target=out), entry("x/pwned")), HELD, True),
    "relative link as parent": Evil(
        lambda out: tar(entry("x", SYM, target="../outside"), entry("x/pwned")), HELD, True),
    "link over link": Evil(
        lambda out: tar(entry("a", SYM, target="."), entry("a/b", SYM, target=".."),
                        entry("b/outside/pwned")), HELD, True),
    "link to a file, then the file": Evil(
        lambda out: tar(entry("x", SYM, target=f"{out}/secret"), entry("x", content=b"pwned")),
        HELD, True),
    "link, then a directory of that name, then a file": Evil(
        lambda out: tar(entry("x", SYM, target=out), entry("x", DIR), entry("x/pwned")),
        HELD, True),
    "directory, then a link of that name": Evil(
        lambda out: tar(entry("x", DIR, mode=0o777), entry("x", SYM, target=f"{out}/open"),
                        entry("x/pwned"))),
    "mode for a directory that became a link": Evil(
        lambda out: tar(entry("x/y", DIR, mode=0o700), entry("x", SYM, target=out),
                        entry("x/open", DIR, mode=0o700))),
    "link loop": Evil(
        lambda out: tar(entry("a", SYM, target="b"), entry("b", SYM, target="a"), entry("a/x")),
        "ELOOP"),
    "the root as a link": Evil(lambda out: tar(entry("./", SYM, target=out), entry("pwned")),
                               "the root is not a directory"),
    "a file without a name": Evil(lambda out: tar(entry("")), "the root is not a directory"),
    "an empty link": Evil(lambda out: tar(entry("x", SYM)), "No such file"),
    "a link with a NUL": Evil(lambda out: tar(entry("x", SYM, pax={"linkpath": "a\0b"})), "null"),
    # hard links
    "hard link out": Evil(
        lambda out: tar(entry("h", HARD, target=f"{out}/secret")), "No such file", True),
    "hard link out by dot-dot": Evil(
        lambda out: tar(entry("h", HARD, target="../outside/secret")), "'..'", True),
    "hard link through a link": Evil(
        lambda out: tar(entry("d", SYM, target=out), entry("h", HARD, target="d/secret")),
        "no such path", True),
    "hard link out, then written": Evil(
        lambda out: tar(entry("h", HARD, target=f"{out}/secret"), entry("h", content=b"pwned")),
        "No such file", True),
    "hard link to a link, then written": Evil(
        lambda out: tar(entry("s", SYM, target=f"{out}/secret"), entry("h", HARD, target="s"),
                        entry("h", content=b"pwned")), HELD, True),
    "hard link to what comes later": Evil(
        lambda out: tar(entry("h", HARD, target="f"), entry("f")), "No such file"),
    "hard link to itself": Evil(
        lambda out: tar(entry("h"), entry("h", HARD, target="h")), "No such file"),
    "hard link to a directory": Evil(
        lambda out: tar(entry("d", DIR), entry("h", HARD, target="d")), "not permitted"),
    # kinds
    "a disk": Evil(lambda out: tar(entry("sda", BLOCK, mode=0o666, devmajor=8)), HELD, root=True),
    "a FIFO for a password file": Evil(
        lambda out: tar(entry("etc/passwd", FIFO), entry("etc/passwd", FIFO)), HELD,
        ours_alone=True),
    "an unknown kind": Evil(lambda out: tar(entry("x", b"Z")), "unknown type", ours_alone=True),
    "a device of no number": Evil(
        lambda out: patched(tar(entry("x", BLOCK)), 329, b"\xff" * 8), REFUSED, root=True,
        ours_alone=True),
    # sizes
    "a sparse file of a tebibyte": Evil(
        lambda out: sparse("x", 1 << 40, (0, 1), content=b"x"), "more than", ours_alone=True),
    "a sparse map that overlaps": Evil(
        lambda out: sparse("x", 4096, (0, 512), (100, 512), content=b"x" * 1024), "map of holes",
        ours_alone=True),
    "a sparse map beyond the end": Evil(
        lambda out: sparse("x", 100, (4096, 512), content=b"x" * 512), "map of holes",
        ours_alone=True),
    "gzip bomb": Evil(lambda out: tgz(tar(entry("x", content=bytes(6 << 20)))), "bomb",
                      ours_alone=True),
    "an enormous header": Evil(lambda out: pax_of(1 << 33), "headers", ours_alone=True),
    "gzip bomb of a header": Evil(lambda out: tgz(pax_of(1 << 33)), "bomb", ours_alone=True),
    "too much in all": Evil(lambda out: tar(*(entry(str(i), content=bytes(1 << 20))
                                              for i in range(9))), "more than", ours_alone=True),
    "too many": Evil(lambda out: tar(*[entry("x")] * 5001), "5000 entries", ours_alone=True),
    "too deep": Evil(lambda out: deep(65), "directories"),
    "a size below zero": Evil(
        lambda out: patched(raw(entry("x")), 124, b"\xff" * 12) + END, REFUSED,
        ours_alone=True),
    "a name of 300 bytes": Evil(lambda out: tar(entry("x" * 300)), "too long", ours_alone=True),
    "long names of long names": Evil(lambda out: long_names(3000), "damaged", ours_alone=True),
    # damage
    "cut in the middle of gzip": Evil(
        lambda out: tgz(tar(entry("x", content=b"1" * 5000)))[:-20], "cut short", ours_alone=True),
    "cut in the middle of a file": Evil(
        lambda out: tar(entry("x", content=b"1" * 5000))[:2048], "cut short", ours_alone=True),
    "cut between files": Evil(lambda out: raw(entry("a"), entry("b")), "damaged"),
    "a bad checksum in the middle": Evil(lambda out: bad_checksum(), "bad checksum"),
    "rubbish after gzip": Evil(lambda out: tgz(tar(entry("x"))) + b"rubbish", "damaged"),
    "nothing": Evil(lambda out: b"", "empty", ours_alone=True),
    "no tar": Evil(lambda out: b"#!/bin/sh\n" * 500, "not a tar", ours_alone=True),
    "a zip": Evil(lambda out: b"PK\x03\x04" + b"x" * 1000, "zip", ours_alone=True),
    # names and numbers that surprise
    "a NUL in a name": Evil(lambda out: tar(entry("x", pax={"path": "a\0b"})), "NUL",
                            ours_alone=True),
    "line ends and escapes in names": Evil(
        lambda out: tar(entry("new\nline"), entry("\x1b[2J\x1b]0;title\x07"), entry("-rf"))),
    "the same name again and again": Evil(
        lambda out: tar(entry("x", content=b"1"), entry("x", DIR), entry("x/y"),
                        entry("x", SYM, target=out), entry("x", FILE, b"last"))),
    "an owner that means nobody": Evil(
        lambda out: tar(entry("x", pax={"uid": str(0xFFFFFFFF)})), "impossible owner"),
    "a time that is none": Evil(
        lambda out: tar(entry("x", pax={"mtime": "nan"})), "not a time", ours_alone=True),
    "a time beyond all clocks": Evil(
        lambda out: tar(entry("x", pax={"mtime": "9" * 300})), "out of range", ours_alone=True),
    # whiteouts
    "a whiteout of dot-dot": Evil(lambda out: tar(entry("a/.wh...")), "whiteout"),
    "a whiteout of dot": Evil(lambda out: tar(entry("a/.wh..")), "whiteout"),
    "a whiteout of nothing": Evil(lambda out: tar(entry("a/.wh.")), "whiteout"),
    "a whiteout with a path": Evil(lambda out: tar(entry(".wh.x/y")), "below a whiteout"),
    "a whiteout with dot-dot": Evil(lambda out: tar(entry(".wh.x/../../outside/secret")), "'..'"),
    "a whiteout through a link": Evil(
        lambda out: tar(entry("x", SYM, target=out), entry("x/.wh.secret")), HELD, True),
    "an opaque mark through a link": Evil(
        lambda out: tar(entry("x", SYM, target=out), entry("x/.wh..wh..opq")), HELD, True,
        root=True),
    "attributes that redirect overlayfs": Evil(
        lambda out: tar(entry("x", DIR, pax={
            "SCHILY.xattr.trusted.overlay.redirect": "/etc",
            "SCHILY.xattr.user.overlay.redirect": "/etc",
        }))),
}  # fmt: skip


def broken_gzip() -> bytes:
    """Right until the checksum."""
    data = bytearray(gzip.compress(tar(entry("x"))))
    data[-8] ^= 1
    return bytes(data)


EVIL["a gzip with a wrong checksum"] = Evil(lambda out: broken_gzip(), "damaged", ours_alone=True)
