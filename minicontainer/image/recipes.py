"""Recipes: how to come by a root file system without keeping one in the repository.

A recipe is a small Python file in ``rootfs/`` with a RECIPE in it, of one of two kinds:

    Download   an archive that its makers publish; its sha256 is pinned for each machine
    Build      made here: by copying busybox, or by Debian's own tools

By hand:  PYTHONPATH=. python3 rootfs/busybox.py busybox.tar
          minicontainer import -c 'CMD ["sh"]' busybox.tar busybox
"""

from __future__ import annotations

import os

from minicontainer.errors import ImageError
from minicontainer.image.config import ImageConfig
from minicontainer.step import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import IO

    Say = Callable[[str], None]


class Recipe(Record):
    """What every recipe says of its image."""

    name: str
    tags: tuple[str, ...]  # all of them mean what this recipe makes now
    config: ImageConfig

    def comment(self, machine: str) -> str:
        """What the image's history says it was made of."""
        return f"rootfs/{self.name}.py"


class Download(Recipe):
    """An archive to be fetched.  ``{machine}`` in ``file`` is x86_64, aarch64, ..."""

    server: str
    #: the environment variable that names another server to be asked instead
    mirror: str
    directory: str  # on the server
    file: str
    sha256: tuple[tuple[str, str], ...]  # (machine, digits)

    def file_for(self, machine: str) -> str:
        """The archive's file name, by which archive folders are searched too."""
        return self.file.format(machine=machine)

    def comment(self, machine: str) -> str:
        """The archive, wherever it came from."""
        return self.file_for(machine)

    def url(self, machine: str) -> str:
        """Where to fetch it."""
        server = os.environ.get(self.mirror) or self.server
        directory = self.directory.format(machine=machine)
        return f"{server.rstrip('/')}/{directory}/{self.file_for(machine)}"

    def digest(self, machine: str) -> str:
        """sha256:... that the archive must have.  Raises ImageError for a machine without one."""
        for known, digits in self.sha256:
            if known == machine:
                return "sha256:" + digits
        known_ones = " and ".join(known for known, _ in self.sha256)
        raise ImageError(f"no checksum is pinned for {machine}, only for {known_ones}")


class Build(Recipe):
    """Made on this machine: ``make(file, tag, machine)`` writes a tar into ``file`` and returns a
    few words on what it made it of."""

    make: Callable[[IO[bytes], str, str], str]


def directory() -> str:
    """Where the recipes lie: beside the package in a checkout, within it when installed."""
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    inside = package + "/rootfs"
    return inside if os.path.isdir(inside) else os.path.dirname(package) + "/rootfs"


def names() -> list[str]:
    """The images that there are recipes for."""
    try:
        files = os.listdir(directory())
    except FileNotFoundError:
        return []
    return sorted(f[:-3] for f in files if f.endswith(".py") and not f.startswith("_"))


def load(name: str) -> Recipe | None:
    """The recipe for an image, or None."""
    import importlib.util

    if name not in names():
        return None
    path = f"{directory()}/{name}.py"
    spec = importlib.util.spec_from_file_location(f"minicontainer_rootfs_{name}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    recipe: Recipe = module.RECIPE
    return recipe


def follow(recipe: Recipe, into: IO[bytes], tag: str, machine: str, say: Say) -> str:
    """Follow a recipe: its archive is then in ``into``, which is rewound.

    Returns a few words on where it came from.  Raises ImageError.
    """
    try:
        if isinstance(recipe, Download):
            from minicontainer.image.download import fetch

            url, digest = recipe.url(machine), recipe.digest(machine)
            say(f"{recipe.name}: fetching {url}")
            fetch(url, into, digest)
            return f"fetched from {url} (sha256 verified)"
        assert isinstance(recipe, Build)
        what = recipe.make(into, tag, machine)
        into.seek(0)
        return f"built by the recipe rootfs/{recipe.name}.py {what}"
    except OSError as error:
        raise ImageError(str(error)) from error


def by_hand(recipe: Recipe) -> None:
    """What ``python3 rootfs/NAME.py FILE`` does: follow the recipe and nothing else."""
    import sys

    if len(sys.argv) != 2:
        sys.exit(f"usage: {sys.argv[0]} FILE    (write the root file system's archive to FILE)")
    try:
        with open(sys.argv[1], "w+b") as file:
            print(follow(recipe, file, recipe.tags[0], os.uname().machine, print))
    except ImageError as error:
        sys.exit(f"{error.message}\n{error.hint}")
