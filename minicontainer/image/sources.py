"""Where an image comes from: three rungs of a ladder, and always a word on which one served.

    1. the store             it was imported or fetched before
    2. archive folders       MINICONTAINER_IMAGES=/media/usb:/srv/images (no network needed)
    3. the recipe            rootfs/NAME.py: download what its makers publish, or build it here

What an archive must be is known before it is opened: the recipe has its sha256.  An archive that
no recipe knows (NAME.tar, NAME.tar.gz, NAME.tar.zst) is taken as it is, and that is said too.
"""

from __future__ import annotations

import os

from minicontainer.errors import ImageError, UsageError
from minicontainer.image.config import ARCHITECTURES, Image, ImageConfig, host_architecture
from minicontainer.image.reference import DEFAULT_TAG, Reference, parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from io import BufferedReader
    from typing import IO

    from minicontainer.image.recipes import Recipe
    from minicontainer.image.store import Store

    Say = Callable[[str], None]

PULL = ("missing", "always", "never")
ENDINGS = (".tar", ".tar.gz", ".tgz", ".tar.zst")


def find(
    store: Store,
    name: str,
    *,
    pull: str = "missing",
    platform: str = "",
    say: Say = lambda text: None,
) -> Image:
    """The image called ``name``, from the first rung that has it.

    ``pull``: "never" stops after the store, "always" begins after it.  ``platform`` is docker's
    linux/ARCH; "" is this machine's.  ``say`` is told which rung served, unless it was the store
    (``Image.rung`` tells always).  Raises ImageError with all that was tried, and UsageError.
    """
    if pull not in PULL:
        raise UsageError(f"invalid pull option: {pull!r}", "one of: " + ", ".join(PULL))
    wanted = architecture(platform)
    _tidy(store, say)
    tried = []
    if pull == "always":
        tried.append("the store: passed over, for --pull always")
    else:
        image = store.get(name)
        if image is not None and (not platform or image.config.architecture == wanted):
            return image
        found = f"has it for {image.config.architecture}" if image else "does not have it"
        tried.append(f"the store {store.root} {found}")
    if pull == "never":
        tried.append("nothing else, for --pull never")
    else:
        search = _Search(store, parse(name), wanted, say, tried)
        image = search.archive_folders() or search.recipe()
        if image is not None:
            return image
    reference = parse(name)
    lines = "".join(f"\n  - {line}" for line in tried)
    ours = reference.repository == "busybox"
    hint = "" if ours else "this needs no network: minicontainer run busybox sh"
    raise ImageError(f"cannot find the image {str(reference)!r}; tried:{lines}", hint)


def architecture(platform: str) -> str:
    """docker's --platform (linux/arm64, linux/arm/v7, arm64) as an architecture: arm64.

    "" and "linux" mean this machine's.  Raises UsageError.
    """
    if platform in ("", "linux"):
        return host_architecture()
    system, slash, rest = platform.partition("/")
    if not slash:
        system, rest = "linux", platform
    machine = rest.partition("/")[0]
    found = ARCHITECTURES.get(machine, machine)
    if system != "linux" or found not in (*ARCHITECTURES.values(), host_architecture()):
        raise UsageError(f"unknown platform: {platform!r}", "such as linux/amd64 or linux/arm64")
    return found


def _tidy(store: Store, say: Say) -> None:
    """Sweep what killed commands left; nearly always tmp/ is empty and that was all."""
    try:
        busy = os.listdir(store.tmp)
    except FileNotFoundError:
        return
    if busy:
        from minicontainer.image.removal import sweep

        sweep(store, say)


class _Search:
    """The rungs below the store.  Each returns an image, or None with the reason in ``tried``."""

    def __init__(
        self, store: Store, reference: Reference, arch: str, say: Say, tried: list[str]
    ) -> None:
        from minicontainer.image import recipes

        self.store, self.reference, self.arch, self.say, self.tried = (
            store, reference, arch, say, tried,
        )  # fmt: skip
        self.name = str(reference)
        machines = {arch: machine for machine, arch in ARCHITECTURES.items()}
        self.machine = machines.get(arch, arch)
        self.known: Recipe | None = recipes.load(reference.repository)

    def archive_folders(self) -> Image | None:
        """The second rung: an archive in one of the folders of MINICONTAINER_IMAGES."""
        folders = os.environ.get("MINICONTAINER_IMAGES", "")
        if not folders:
            self.tried.append("archive folders: MINICONTAINER_IMAGES names none")
        for folder in filter(None, folders.split(":")):
            count = len(self.tried)
            for file, digest in self.archive_names():
                image = self.archive(f"{folder}/{file}", digest)
                if image is not None:
                    return image
            if len(self.tried) == count:
                names = ", ".join(file for file, _ in self.archive_names())
                self.tried.append(f"the folder {folder} has none of: {names}")
        return None

    def archive_names(self) -> Iterator[tuple[str, str]]:
        """File names to look for, each with the digest it must have ("" where none is known)."""
        from minicontainer.image.recipes import Download

        recipe, tag = self.known, self.reference.tag
        if isinstance(recipe, Download) and tag in recipe.tags:
            try:
                yield recipe.file_for(self.machine), recipe.digest(self.machine)
            except ImageError as error:
                self.tried.append(f"archive folders: {error.message}")
        if "/" not in self.reference.repository and tag:
            stem = self.reference.repository + ("" if tag == DEFAULT_TAG else f"-{tag}")
            yield from ((stem + ending, "") for ending in ENDINGS)

    def archive(self, path: str, digest: str) -> Image | None:
        """Import one archive, if it is there and is what it should be."""
        try:
            file = open(path, "rb")  # noqa: SIM115 - closed by the with below
        except OSError as error:
            if not isinstance(error, FileNotFoundError):
                self.tried.append(f"{path}: {error.strerror}")
            return None
        with file:
            try:
                if digest:
                    self.verify(file, digest)
                image = self.add(file, digest, os.path.basename(path))
            except ImageError as error:
                self.tried.append(f"{path}: {error.message}")
                return None
        checked = "sha256 verified" if digest else "no recipe knows its sha256"
        self.say(f"{self.reference.repository}: unpacked from the archive {path} ({checked})")
        return image.replace(rung="archive")

    def verify(self, file: BufferedReader, digest: str) -> None:
        """Hash the whole file before a byte of it is unpacked."""
        from hashlib import file_digest

        found = "sha256:" + file_digest(file, "sha256").hexdigest()
        if found != digest:
            raise ImageError(f"refused: it has {found}, the recipe wants {digest}")
        file.seek(0)

    def recipe(self) -> Image | None:
        """The third rung: download or build as rootfs/NAME.py says."""
        from minicontainer.image import recipes

        recipe, tag = self.known, self.reference.tag
        if recipe is None:
            self.tried.append(
                f"recipes: there is none for it, only for {', '.join(recipes.names())}"
            )
            return None
        if tag not in recipe.tags:
            self.tried.append(f"the recipe makes {', '.join(recipe.tags)}, not {tag}")
            return None
        import tempfile

        self.store.make()
        # A file without a name: whatever happens to us, the kernel takes it back.
        with tempfile.TemporaryFile(dir=self.store.tmp) as file:
            try:
                origin = recipes.follow(recipe, file, tag, self.machine, self.say)
                image = self.add(file, "", recipe.comment(self.machine))
            except ImageError as error:
                hint = f" ({error.hint})" if error.hint else ""
                self.tried.append(f"the recipe rootfs/{recipe.name}.py: {error.message}{hint}")
                return None
        self.say(f"{self.reference.repository}: {origin}")
        return image.replace(rung="recipe")

    def add(self, file: IO[bytes], digest: str, comment: str) -> Image:
        """Into the store, with the configuration that the recipe has for it.

        ``comment`` names the archive and not where it lay: the id is the same from every rung.
        """
        from minicontainer.image.change import add

        config = self.known.config if self.known else ImageConfig(cmd=("/bin/sh",))
        config = config.replace(architecture=self.arch)
        return add(self.store, self.name, file, config, comment=comment, digest=digest)
