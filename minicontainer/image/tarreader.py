"""Reading a tar that a stranger made: the standard library parses, this file mistrusts.

tarfile knows the formats (ustar, pax, GNU long names and sparse files) and forgives what it
should not: it takes a damaged header in the middle for the end, so that half an image would be
imported as a whole; it believes any length; it keeps all it has read.  Here

* anything but a clean end (a block of zeros) is an error;
* the headers of one entry may have a megabyte: they are held in memory;
* what the parser throws, whatever it is, becomes one ImageError.

Formats: tar(5); POSIX pax(1), "pax interchange format".
"""

from __future__ import annotations

import os
import tarfile

from minicontainer.errors import ImageError
from minicontainer.image.stream import Limits, TarStream

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Self, TypeVar

    T = TypeVar("T")

BUFFER = 1 << 16
CHUNK = 1 << 20
MAX_PATH = 4095  # PATH_MAX less the NUL
MAX_WORD = 255  # NAME_MAX

XATTR = "SCHILY.xattr."  # how star, GNU tar and docker call extended attributes in pax headers


class _StrictInfo(tarfile.TarInfo):
    """An entry whose header must be right."""

    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile) -> Self:
        try:
            return super().fromtarfile(tarfile_)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            tarfile_.ended = True  # type: ignore[attr-defined]
            raise
        except tarfile.HeaderError as error:
            # TarFile.next() would take this for the end, wherever it is.
            raise ImageError(f"the archive is damaged or not a tar: {error}") from None


class TarReader:
    """The entries of a tar, one after the other; each one's contents before the next."""

    def __init__(self, stream: TarStream, limits: Limits) -> None:
        self.stream, self.limits = stream, limits

    def __iter__(self) -> Iterator[tarfile.TarInfo]:
        """Every entry.  Raises ImageError where the archive is damaged or beyond the limits."""
        self._tar = self._parse(self._open)
        count = 0
        while (entry := self._parse(self._tar.next)) is not None:
            # it remembers every entry, and a million of them are a gigabyte
            self._tar.members.clear()  # type: ignore[attr-defined]
            count += 1
            if count > self.limits.entries:
                raise ImageError(f"the archive has more than {self.limits.entries} entries")
            if entry.size < 0:
                raise ImageError(f"{entry.name!r} in the archive: a size below zero")
            yield entry
        if not getattr(self._tar, "ended", False):
            raise ImageError("the archive is cut short: it does not end as a tar ends")

    def contents(self, entry: tarfile.TarInfo) -> Iterator[tuple[int, bytes]]:
        """A regular file in pieces: offset and bytes.  What is between them is a hole."""
        end = 0
        segments: list[tuple[int, int]] = [(0, entry.size)]
        if entry.issparse():
            # the old GNU header has room for four pieces, and zeros for those it does not need
            pieces: list[tuple[int, int]] = entry.sparse  # type: ignore[assignment]
            segments = [piece for piece in pieces if piece[1]]
        for offset, size in segments:
            # pieces that overlap or lie outside: no writer makes them
            if offset < end or size < 0 or offset + size > entry.size:
                raise ImageError(f"{entry.name!r} in the archive: an impossible map of holes")
            end = offset + size
        # The pieces lie one after the other in the archive, from offset_data on.
        file = self._tar.fileobj
        assert file is not None
        for offset, size in segments:
            while size:
                data = self._parse(file.read, min(size, CHUNK))
                if not data:
                    raise ImageError(f"{entry.name!r} in the archive: cut short")
                yield offset, data
                offset, size = offset + len(data), size - len(data)

    def _open(self) -> tarfile.TarFile:
        opened: tarfile.TarFile = tarfile.open(  # type: ignore[call-overload]  # noqa: SIM115
            fileobj=self.stream,
            mode="r|",  # never seek: what was hashed is what is read
            bufsize=BUFFER,
            tarinfo=_StrictInfo,
            encoding="utf-8",
            errors="surrogateescape",  # a name is bytes; these survive the way to str and back
        )
        return opened

    def _parse(self, call: Callable[..., T], *arguments: object) -> T:
        """Call into tarfile, which may read one entry's headers or one piece of a file."""
        self.stream.allow(self.limits.header + CHUNK + BUFFER)
        try:
            return call(*arguments)
        except ImageError:
            raise
        except Exception as error:
            # ValueError, KeyError, IndexError, OverflowError, RecursionError: whatever the
            # parser stumbles over, it stumbled over the archive.
            raise ImageError(f"the archive is damaged: {error or type(error).__name__}") from error


def split(name: str, limits: Limits) -> list[str]:
    """The words of a name in the archive; none for the root itself.

    A leading slash and ``.`` are left out, as tar(1) does.  Raises ImageError for ``..``, for
    NUL bytes and for what no file system holds.
    """
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise ImageError(f"{name!r} in the archive: '..' leads out of it")
    if "\0" in name:
        raise ImageError(f"{name!r} in the archive: a name with a NUL byte")
    if len(parts) > limits.depth:
        raise ImageError(f"{name[:60]!r}... in the archive: more than {limits.depth} directories")
    if len(os.fsencode(name)) > MAX_PATH or any(len(os.fsencode(p)) > MAX_WORD for p in parts):
        raise ImageError(f"{name[:60]!r}... in the archive: a name too long for the kernel")
    return parts


def nanoseconds(entry: tarfile.TarInfo) -> int:
    """The entry's mtime in nanoseconds since 1970.

    From the text of the pax header where there is one: tarfile's float has lost some.
    """
    text = entry.pax_headers.get("mtime")
    whole, _, fraction = (text or "0").partition(".")
    try:
        if text is None:
            return int(entry.mtime) * 10**9
        part = int(fraction[:9].ljust(9, "0"))
        return int(whole) * 10**9 + (-part if whole.startswith("-") else part)
    except (ValueError, OverflowError):
        raise ImageError(f"{entry.name!r} in the archive: {text!r} is not a time") from None


def xattrs(entry: tarfile.TarInfo) -> dict[str, bytes]:
    """The extended attributes (xattr(7)) that a layer may bring: ``user.*`` and capabilities.

    Never ``trusted.*`` or ``user.overlay.*``: with them a layer would tell overlayfs where to look
    for its files, and that may be anywhere.  Labels of SELinux are the host's own affair.
    """
    found = {}
    for key, value in entry.pax_headers.items():
        name = key.removeprefix(XATTR)
        honest = name.startswith("user.") and not name.startswith("user.overlay.")
        if name != key and (honest or name == "security.capability"):
            found[name] = value.encode("utf-8", "surrogateescape")
    return found
