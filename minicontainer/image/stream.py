"""The way into an archive: bytes from a file or pipe, unpacked, counted, hashed and capped.

        file or pipe ──► sha256 (digest) ──► gunzip / unzstd ──► sha256 (diff_id) ──► tar parser

Two hashes, because an image names its layers twice: by the bytes that travel (the *digest* in a
registry's manifest, or the pin of a recipe) and by the tar inside (the *diff_id* in the image's
configuration), which stays the same however it was compressed.

Decompression happens in this process.  Runtimes that called ``unpigz`` could be made to run
somebody else's (CVE-2019-14271's family), and a decompression bomb is easiest met where the bytes
are counted: a 10 MB file can hold 10 GB of zeros.
"""

from __future__ import annotations

import io
import zlib
from hashlib import sha256

from minicontainer.errors import ImageError
from minicontainer.step import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Protocol

    class Readable(Protocol):
        """Anything with read(n)."""

        def read(self, size: int, /) -> bytes:
            """At most ``size`` bytes; none at the end."""


CHUNK = 1 << 18

GZIP = b"\x1f\x8b"
ZSTD = b"\x28\xb5\x2f\xfd"
OTHERS = {b"\xfd7zXZ": "xz", b"BZh": "bzip2", b"PK\x03\x04": "zip", b"7z\xbc\xaf": "7-zip"}


class Limits(Record):
    """What an archive may not exceed.  Beyond anything honest, and short of filling a disk."""

    total: int = 64 << 30  # bytes of the tar stream, and of all files in it
    entries: int = 2_000_000
    depth: int = 256  # directories in directories
    header: int = 1 << 20  # bytes of one extended header: they are held in memory
    ratio: int = 200  # bytes out for one byte in ...
    ratio_from: int = 1 << 30  # ... once so many have come out (a few zeros are no bomb)


class Tap(io.RawIOBase):
    """What comes from outside: counts and hashes all that is read through it."""

    def __init__(self, source: Readable) -> None:
        super().__init__()
        self.source = source
        self.count = 0
        self.hash = sha256()
        self.pushed_back = b""

    def readable(self) -> bool:
        """Yes: a pipe may do more, this does not."""
        return True

    def readinto(self, buffer: Any, /) -> int:
        """At least one byte, unless at the end."""
        data = self.pushed_back or self.source.read(len(buffer))
        if not self.pushed_back:
            self.count += len(data)
            self.hash.update(data)
        self.pushed_back = data[len(buffer) :]
        buffer[: len(data)] = data[: len(buffer)]
        return min(len(data), len(buffer))

    def peek(self, size: int) -> bytes:
        """The first bytes, which the next read gives again."""
        head = b""
        while len(head) < size and (more := self.read(size - len(head))):
            head += more
        self.pushed_back = head
        return head


class TarStream:
    """The bytes of the tar inside ``source``, however it is compressed.

    ``allow`` and ``read`` as the parser needs, then ``drain``: then ``digest`` and ``diff_id`` are
    known.
    Raises ImageError for what is damaged, not an archive, or beyond ``limits``.
    """

    def __init__(self, source: Readable, limits: Limits) -> None:
        self.limits = limits
        self.count = 0
        self._until = CHUNK
        self._tap = Tap(source)
        self._hash = sha256()
        self._inside = _decompressor(self._tap)

    def read(self, size: int) -> bytes:
        """The next bytes of the tar; none at its end."""
        try:
            data = self._inside.read(size)
        except (EOFError, OSError, zlib.error) as error:
            raise ImageError(f"the archive is damaged or cut short: {error}") from None
        except Exception as error:
            # zstd's own exception, whose module is only there when a zstd archive is
            if type(error).__name__ != "ZstdError":
                raise
            raise ImageError(f"the archive is damaged: {error}") from None
        self.count += len(data)
        self._hash.update(data)
        limits, count = self.limits, self.count
        if count > self._until:
            raise ImageError("the archive has headers as large as files: not unpacked")
        if count > limits.total:
            raise ImageError(f"the archive holds more than {limits.total} bytes: not unpacked")
        if count > limits.ratio_from and count > limits.ratio * self._tap.count:
            raise ImageError(
                f"the archive looks like a decompression bomb: {self._tap.count} bytes have "
                f"become {count} and there is more"
            )
        return data

    def allow(self, size: int) -> None:
        """So many bytes may be read from here on, for they are held in memory."""
        self._until = self.count + size

    def drain(self) -> None:
        """Read what follows the tar's end: padding, which belongs to the hashes."""
        self.allow(self.limits.total)
        while self.read(CHUNK):
            pass

    @property
    def digest(self) -> str:
        """sha256 of the bytes that came in."""
        return "sha256:" + self._tap.hash.hexdigest()

    @property
    def diff_id(self) -> str:
        """sha256 of the tar."""
        return "sha256:" + self._hash.hexdigest()


def _decompressor(tap: Tap) -> Readable:
    """Choose by the first bytes; a file's name proves nothing."""
    head = tap.peek(6)
    buffered = io.BufferedReader(tap, CHUNK)
    if head.startswith(GZIP):
        import gzip

        return gzip.GzipFile(fileobj=buffered)
    if head.startswith(ZSTD):
        return _zstd(buffered)
    for magic, name in OTHERS.items():
        if head.startswith(magic):
            raise ImageError(
                f"{name} archives are not read, only tar, tar.gz and tar.zst",
                "unpack it on the way: xz -dc FILE | minicontainer import - NAME",
            )
    if not head:
        raise ImageError("the archive is empty: not a single byte")
    return buffered


def _zstd(file: io.BufferedReader[Tap]) -> Readable:
    """The standard library has zstd since Python 3.14; before, the same code is backports.zstd."""
    try:
        from compression.zstd import ZstdFile  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        from backports.zstd import ZstdFile
    # The decoder refuses frames that want more than 128 MiB of memory, unless told otherwise.
    opened: Readable = ZstdFile(file)
    return opened
