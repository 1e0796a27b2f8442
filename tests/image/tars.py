"""Making tars for tests, honest ones and others: entry by entry, or byte by byte."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
from typing import Any

from minicontainer.image.layers import Unpacked, unpack
from minicontainer.image.stream import Limits, TarStream

FILE, HARD, SYM, DIR = tarfile.REGTYPE, tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.DIRTYPE
CHAR, BLOCK, FIFO = tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE

END = b"\0" * 1024


def entry(
    name: str, kind: bytes = FILE, content: bytes = b"", target: str = "", **more: Any
) -> tuple[tarfile.TarInfo, bytes]:
    """One entry, owned by whoever runs the test so that no privilege is needed to unpack it.

    ``more`` are attributes of TarInfo (mode, mtime, uid, devmajor); ``pax`` extra pax headers."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, target, len(content)
    info.uid, info.gid = os.geteuid(), os.getegid()
    info.mode = 0o755 if kind == DIR else 0o644
    info.mtime = 1_000_000_000
    info.pax_headers = more.pop("pax", {})
    for key, value in more.items():
        setattr(info, key, value)
    return info, content


def raw(*entries: tuple[tarfile.TarInfo, bytes]) -> bytes:
    """Headers and contents without the end."""
    return b"".join(
        info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
        + content
        + b"\0" * (-len(content) % 512)
        for info, content in entries
    )


def tar(*entries: tuple[tarfile.TarInfo, bytes]) -> bytes:
    """A whole tar."""
    return raw(*entries) + END


def patched(header: bytes, offset: int, value: bytes) -> bytes:
    """A header block with some bytes changed, and its checksum right again."""
    block = bytearray(header)
    block[offset : offset + len(value)] = value
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block[:512])
    return bytes(block)


def tgz(data: bytes) -> bytes:
    return gzip.compress(data, compresslevel=1, mtime=0)


def extract(data: bytes, target: os.PathLike[str] | str, **options: Any) -> Unpacked:
    """Unpack with minicontainer into a directory, made if need be."""
    limits = options.pop("limits", Limits())
    os.makedirs(target, exist_ok=True)
    fd = os.open(target, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return unpack(TarStream(io.BytesIO(data), limits), fd, limits, **options)
    finally:
        os.close(fd)


def tree(place: os.PathLike[str] | str, *, skip: str = "") -> dict[str, tuple[Any, ...]]:
    """Everything below a directory that could be changed from afar; ``skip`` is left out."""
    found = {}
    for folder, folders, files in os.walk(place):
        if folder == skip:
            folders.clear()
            continue
        for name in ["", *folders, *files]:
            path = os.path.join(folder, name)
            if path.rstrip("/") == skip:
                continue
            look = os.lstat(path)
            content: Any = None
            if os.path.islink(path):
                content = os.readlink(path)
            elif os.path.isfile(path):
                with open(path, "rb") as file:
                    content = file.read()
            # not the times of directories: the target directory's own entry lies in one
            when = None if os.path.isdir(path) else look.st_mtime_ns
            links = None if os.path.isdir(path) else look.st_nlink
            found[path] = (look.st_mode, look.st_uid, look.st_gid, links, when, content)
    return found
