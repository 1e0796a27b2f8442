"""Changing the store, so that kill -9 or a power cut at any moment hurts nobody.

Everything is made in a directory of its own under tmp/ and put in place by rename(2), which
happens or does not.  The order is from the ground up: layer, image, name; nothing leads to what
is not yet there.  Removing goes from the top down.

    * tmp/X is locked (flock(2)) by its maker; the kernel lets go when the maker dies, however it
      dies.  So a directory there without a lock is a ruin, and the next command sweeps it.
    * It is made first and removed last.  So whatever an interrupted change has left elsewhere (a
      layer that no image has yet), there is a ruin that says "look around" (removal.py).
    * syncfs(2) before the first rename: after a power cut, no name leads to half a layer.

Man pages: rename(2), flock(2), syncfs(2).
"""

from __future__ import annotations

import fcntl
import os
import shutil

from minicontainer.errors import ImageError, UsageError
from minicontainer.image.config import Image, ImageConfig, from_json, to_json
from minicontainer.image.ready import to_ready
from minicontainer.image.reference import parse
from minicontainer.image.store import Store
from minicontainer.libc import check, syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from minicontainer.image.stream import Limits, Readable


class Change:
    """A directory of one's own in the store's tmp/, for the length of a ``with``."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def __enter__(self) -> Self:
        # Under the store's lock, or a sweep might come between making it and locking it.
        everyone = self.store.lock(fcntl.LOCK_EX)
        try:
            self.path = f"{self.store.tmp}/{os.getpid()}-{os.urandom(4).hex()}"
            os.mkdir(self.path, 0o700)
            self.fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            fcntl.flock(self.fd, fcntl.LOCK_EX)
        finally:
            os.close(everyone)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        shutil.rmtree(self.path)
        os.close(self.fd)

    def discard(self, path: str) -> None:
        """Take something out of the store, at once; it is deleted when the change ends."""
        os.rename(path, f"{self.path}/{os.urandom(4).hex()}")


def add(
    store: Store,
    name: str,
    source: Readable,
    config: ImageConfig,
    *,
    comment: str = "",
    digest: str = "",
    limits: Limits | None = None,
) -> Image:
    """Import the archive of a root file system as an image of one layer.

    ``name`` may be "": then it is known by its id only.  ``digest``, if given, is what the
    archive's bytes must have.  The same archive and ``config`` give the same id, on every machine
    and every day: the image's date is that of the newest file in it.  Raises ImageError and
    UsageError, and then the store is as it was.
    """
    from minicontainer.image.layers import unpack
    from minicontainer.image.stream import Limits, TarStream

    full = str(parse(name)) if name else ""
    if "@" in full:
        raise UsageError(f"{name!r}: a digest is found out, not given", "name it NAME[:TAG]")
    limits = limits or Limits()
    with Change(store) as change:
        path = change.path + "/layer"
        os.mkdir(path)
        os.chmod(path, 0o755)  # for archives that do not mention their root
        root_fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            stream = TarStream(source, limits)
            unpacked = unpack(stream, root_fd, limits)
        finally:
            os.close(root_fd)
        if {"manifest.json", "oci-layout"} & (top := set(os.listdir(path))) and "bin" not in top:
            raise ImageError(
                "this is an image as `docker save` writes it, not a root file system",
                "make one: docker create IMAGE, then docker export CONTAINER",
            )
        if digest and stream.digest != digest:
            raise ImageError(f"the archive changed while it was read: {stream.digest}")
        if not config.created:
            config = config.replace(created=_rfc3339(unpacked.newest))
        document = to_json(config, (stream.diff_id,), comment)
        return commit(change, full, document, [(stream.diff_id, path)], unpacked.size)


def commit(
    change: Change, name: str, document: bytes, layers: list[tuple[str, str]], size: int
) -> Image:
    """Put an image in place: its (diff_id, directory) layers, its configuration, its name.

    ``name`` is as ``str(parse(...))`` gives it, or "".  A layer that the store has is not stored
    again.  An image that loses its last name to this one stays, nameless, until it is removed:
    containers may be running from it.
    """
    from hashlib import sha256

    store = change.store
    config, diff_ids = from_json(document)  # what we have made is checked like what comes from afar
    digits = sha256(document).hexdigest()
    os.mkdir(change.path + "/image", 0o700)
    _write(change.path + "/image/config.json", document)
    _write(change.path + "/image/ready", to_ready(config, diff_ids, size).encode())
    _write(change.path + "/ref", f"sha256:{digits}\n".encode())
    check(syscall("syncfs", change.fd), "syncfs", change.path)
    everyone = store.lock(fcntl.LOCK_EX)
    try:
        for diff_id, directory in layers:
            _put(directory, f"{store.layers}/{diff_id[7:]}")
        _put(change.path + "/image", f"{store.images}/{digits}")
        _point(change, name, f"sha256:{digits}")
        found = store.get(name or f"sha256:{digits}")
    finally:
        os.close(everyone)
    assert found is not None, "nobody can have removed it: the store was ours"
    return found


def _put(source: str, target: str) -> None:
    """Content has one name: what is there already is the same."""
    if not os.path.isdir(target):
        os.rename(source, target)
        fsync(os.path.dirname(target))


def _point(change: Change, name: str, image_id: str) -> None:
    """Make ``name`` lead to the image, or, for "", see to it that something does."""
    store = change.store
    nameless = f"{store.refs}/@{image_id}"
    if not name and store.names_of(image_id):
        return
    before = store.id_of(name) if name else ""
    lost = before not in ("", image_id) and store.names_of(before) == [name]
    if lost and store.has(before):
        _write(change.path + "/kept", f"{before}\n".encode())
        os.rename(change.path + "/kept", f"{store.refs}/@{before}")
    os.rename(change.path + "/ref", store.ref_path(name) if name else nameless)
    if name and os.path.exists(nameless):
        os.unlink(nameless)
    fsync(store.refs)


def _rfc3339(seconds: int) -> str:
    from datetime import UTC, datetime

    year_9999 = 253402300799
    when = datetime.fromtimestamp(min(max(seconds, 0), year_9999), UTC)
    return when.strftime("%Y-%m-%dT%H:%M:%SZ")


def _write(path: str, content: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(fd, "wb") as file:
        file.write(content)


def fsync(directory: str) -> None:
    """After a rename, the directory is what has to reach the disk."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
