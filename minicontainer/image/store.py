"""The store: images on this machine, by content, with layers kept apart and shared.

    /var/lib/minicontainer/
        refs/alpine:latest                 an image's id; "/" in a name is written "%2F"
        images/sha256/<id>/config.json     the image: its sha256 is the id
                           ready           the same in the form that `run` reads (ready.py)
        layers/sha256/<diff_id>/           an unpacked layer: a lowerdir for overlayfs
        tmp/                               what is being made; swept when its maker is gone
        lock                               flock(2): shared to use, exclusive to change

A name points to an image, an image to its layers; whatever no name leads to is rubbish.  Two
images with a layer in common have it once.  This file reads; change.py writes.

All but the first directory are for root's eyes only (0700): layers hold set-user-id programs of
strangers, and no user of the host shall start one (CVE-2021-41091).

Man pages: flock(2), rename(2).   By hand: ls /var/lib/minicontainer/layers/sha256/
"""

from __future__ import annotations

import fcntl
import os

from minicontainer.errors import ImageError
from minicontainer.image.config import Image, ImageConfig
from minicontainer.image.ready import from_ready
from minicontainer.image.reference import HEX, parse

DEFAULT_ROOT = "/var/lib/minicontainer"


class Store:
    """The images below one directory: ``root``, else MINICONTAINER_ROOT, else DEFAULT_ROOT."""

    def __init__(self, root: str = "") -> None:
        self.root = root or os.environ.get("MINICONTAINER_ROOT") or DEFAULT_ROOT
        self.refs = self.root + "/refs"
        self.images = self.root + "/images/sha256"
        self.layers = self.root + "/layers/sha256"
        self.tmp = self.root + "/tmp"

    def get(self, name: str) -> Image | None:
        """The image with this name (alpine, alpine:3.20) or id (sha256:..., or its beginning).

        None when the store has none.  Raises UsageError for what cannot be a name, ImageError
        when the store is damaged or an abbreviated id means several images.
        """
        full = str(parse(name))
        found = self.id_of(full)
        if found:
            return self._load(found, full)
        found = self._by_id(name)
        return self._load(found, "".join(self.names_of(found)[:1])) if found else None

    def all(self) -> list[Image]:
        """Every name's image, and images without a name; newest first, as docker lists them."""
        images = [self._load(i, name) for name, i in self.names() if self.has(i)]
        return sorted(images, key=lambda image: image.config.created, reverse=True)

    def names(self) -> list[tuple[str, str]]:
        """(name, id) of every ref; the name is "" for an image that is kept without one."""
        pairs = []
        for file in sorted(_list(self.refs)):
            name = "" if file.startswith("@") else file.replace("%2F", "/")
            image_id = self.id_in(file)
            if image_id:  # "": it went away just now
                pairs.append((name, image_id))
        return pairs

    def id_of(self, name: str) -> str:
        """The id that ``name``, as ``str(parse(...))`` gives it, leads to; "" for none."""
        return self.id_in(name.replace("/", "%2F"))

    def id_in(self, file: str) -> str:
        """The id in a file of refs/; "" when there is no such file."""
        return _read(f"{self.refs}/{file}").strip()

    def names_of(self, image_id: str) -> list[str]:
        """The names of an image, sorted."""
        return [name for name, other in self.names() if name and other == image_id]

    def has(self, image_id: str) -> bool:
        """Whether the image with exactly this id is here."""
        return os.path.isdir(f"{self.images}/{image_id[7:]}")

    def hold(self) -> int:
        """Nothing is removed from the store until the descriptor returned is closed.

        For `run`: from ``get`` until its container is on record.  flock(2), shared; who holds it
        must not change the store meanwhile.
        """
        return self.lock(fcntl.LOCK_SH)

    def lock(self, how: int) -> int:
        """flock(2) on the store, made if need be; released when the descriptor is closed."""
        self.make()
        fd = os.open(self.lock_path(), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(fd, how)
        return fd

    def lock_path(self) -> str:
        """The file that is locked."""
        return self.root + "/lock"

    def make(self) -> None:
        """The store's directories.  The first may be walked through, by name: a container in a user
        namespace finds its upper directory below it."""
        if not os.path.isdir(self.tmp):
            os.makedirs(self.root, 0o711, exist_ok=True)
            for parent in ("/images", "/layers"):
                os.makedirs(self.root + parent, 0o700, exist_ok=True)
            for path in (self.refs, self.images, self.layers, self.tmp):
                os.makedirs(path, 0o700, exist_ok=True)

    def ref_path(self, name: str) -> str:
        """The file of a ref: ``name`` as ``str(parse(...))`` gives it."""
        return self.refs + "/" + name.replace("/", "%2F")

    def config_json(self, image: Image) -> bytes:
        """The image's configuration as it came: its sha256 is the image's id."""
        with open(f"{self.images}/{image.id[7:]}/config.json", "rb") as file:
            return file.read()

    def _by_id(self, text: str) -> str:
        """The id that begins like this; "" for none."""
        digits = text.removeprefix("sha256:")
        if not HEX.issuperset(digits) or not 4 <= len(digits) <= 64:
            return ""
        found = [image for image in _list(self.images) if image.startswith(digits)]
        if len(found) > 1:
            raise ImageError(f"{text!r} begins the ids of {len(found)} images", "give more digits")
        return "sha256:" + found[0] if found else ""

    def _load(self, image_id: str, name: str) -> Image:
        directory = f"{self.images}/{image_id.removeprefix('sha256:')}"
        config, diff_ids, size = from_ready(_read(directory + "/ready")) or _rebuild(directory)
        layers = tuple(f"{self.layers}/{diff_id[7:]}" for diff_id in diff_ids)
        return Image(name=name, id=image_id, layers=layers, config=config, size=size)


def _rebuild(directory: str) -> tuple[ImageConfig, tuple[str, ...], int]:
    """From the image itself; how big it is was known only when it was unpacked."""
    from minicontainer.image.config import from_json

    try:
        with open(directory + "/config.json", "rb") as file:
            return (*from_json(file.read()), 0)
    except FileNotFoundError:
        raise ImageError(
            f"the store is damaged: there is no {directory}", "import or fetch that image again"
        ) from None


def _read(path: str) -> str:
    """A small file; "" when there is none."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return ""
    try:
        text = b""
        while more := os.read(fd, 1 << 16):
            text += more
        return text.decode("utf-8", "surrogateescape")
    finally:
        os.close(fd)


def _list(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except FileNotFoundError:
        return []
