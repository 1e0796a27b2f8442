"""``minicontainer images``, ``rmi`` and ``import``: docker's verbs for the store.

Their output has docker's columns and words.  They end with 0, with 1 when the store said no (as
docker does) and with 125 when the command line could not be meant.
"""

from __future__ import annotations

import os
import sys

from minicontainer.cli.flags import Table, parse
from minicontainer.cli.imagetable import describe, is_called, table
from minicontainer.errors import ImageError, UsageError
from minicontainer.image.config import ImageConfig
from minicontainer.image.store import Store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from minicontainer.cli.flags import Parsed

HELP = ("help", "", "switch", "", "Print this")

IMAGES = Table("images", "[FLAGS] [NAME[:TAG]]", (
    ("Flags", (
        ("all", "a", "switch", "", "All there are (they always are shown)"),
        ("digests", "", "switch", "", "Show digests (images that were imported have none)"),
        ("format", "", "text", "FORMAT", "table or json"),
        ("json", "", "switch", "", "The same as --format json"),
        ("no-trunc", "", "switch", "", "Ids in full"),
        ("quiet", "q", "switch", "", "Only ids"),
        HELP,
    )),
), about="List the images in the store")  # fmt: skip
RMI = Table("rmi", "[FLAGS] IMAGE...", (
    ("Flags", (
        ("force", "f", "switch", "", "Also with several names; no error for a missing one"),
        HELP,
    )),
), about="Remove images from the store")  # fmt: skip
IMPORT = Table("import", "[FLAGS] FILE|- [NAME[:TAG]]", (
    ("Flags", (
        ("change", "c", "list", "INSTRUCTION", "A Dockerfile instruction, such as 'CMD [\"sh\"]'"),
        ("message", "m", "text", "TEXT", "A comment for the image's history"),
        ("platform", "", "text", "OS/ARCH", "What its programs run on, such as linux/arm64"),
        HELP,
    )),
), about="Make an image from an archive of a root file system")  # fmt: skip


def images_command(argv: Sequence[str]) -> int:
    """List the images in the store, newest first."""
    parsed, words = _read(IMAGES, argv, at_most=1)
    if parsed.on("help"):
        return _help(IMAGES)
    store = Store()
    _sweep(store)
    images = [image for image in store.all() if not words or is_called(image, words[0])]
    form = "json" if parsed.on("json") else parsed.text("format", "table")
    if form not in ("table", "json"):
        raise UsageError(f"unknown format: {form!r}", "table or json")
    full = parsed.on("no-trunc")
    if parsed.on("quiet"):
        for image_id in dict.fromkeys(image.id for image in images):
            print(image_id if full else image_id[7:19])
        return 0
    rows = [describe(image, full) for image in images]
    if form == "json":
        import json

        for row in rows:
            print(json.dumps(row))
        return 0
    print(table(rows, digests=parsed.on("digests")), end="")
    return 0


def rmi_command(argv: Sequence[str]) -> int:
    """Remove names, and with its last name an image."""
    from minicontainer.image.removal import remove

    parsed, words = _read(RMI, argv)
    if parsed.on("help"):
        return _help(RMI)
    if not words:
        raise UsageError("rmi needs at least one image", RMI.see)
    store = Store()
    _sweep(store)
    busy, force, failed = layers_in_use(), parsed.on("force"), []
    for word in words:
        try:
            print("\n".join(remove(store, word, busy, force=force)), flush=True)
        except ImageError as error:
            failed.append(error)
    if failed and not (force and all("no such image" in error.message for error in failed)):
        raise _said_no("\n".join(error.message for error in failed), failed[-1].hint)
    return 0


def import_command(argv: Sequence[str]) -> int:
    """Make an image from the archive of a root file system; print its id."""
    from minicontainer.image.change import add
    from minicontainer.image.instructions import apply
    from minicontainer.image.sources import architecture

    parsed, words = _read(IMPORT, argv, at_most=2)
    if parsed.on("help"):
        return _help(IMPORT)
    if not words:
        raise UsageError("import needs a file, or - for standard input", IMPORT.see)
    path, name = words[0], words[1] if len(words) > 1 else ""
    if path.startswith(("http://", "https://")):
        raise UsageError("import reads files, not addresses", f"curl -L {path} | import - NAME")
    config = ImageConfig(architecture=architecture(parsed.text("platform")))
    for line in parsed.texts("change"):
        config = apply(config, line)
    store = Store()
    _sweep(store)
    try:
        file = sys.stdin.buffer if path == "-" else open(path, "rb")  # noqa: SIM115
    except OSError as error:
        raise _said_no(f"{path}: {error.strerror}") from None
    comment = parsed.text("message") or f"Imported from {os.path.basename(path)}"
    try:
        with file:
            image = add(store, name, file, config, comment=comment)
    except ImageError as error:
        raise _said_no(f"{path}: {error.message}", error.hint) from error
    except OSError as error:
        raise _said_no(f"{path}: {error.strerror or error}") from error
    print(image.id)
    return 0


def layers_in_use() -> set[str]:
    """The layer directories of living containers, from what their runtimes have put on record."""
    from minicontainer.state import run_root

    found: set[str] = set()
    try:
        containers = os.listdir(run_root())
    except FileNotFoundError:
        return found
    for container in containers:
        try:
            with open(f"{run_root()}/{container}/state", errors="surrogateescape") as file:
                lines = file.read().splitlines()
        except OSError:
            continue  # no container, or gone just now
        for line in lines:
            if line.startswith("layers "):
                found.update(line.removeprefix("layers ").split(":"))
    return found


def _read(verb: Table, argv: Sequence[str], at_most: int = -1) -> tuple[Parsed, list[str]]:
    """Flags and words in any order, as docker takes them here.  Raises UsageError."""
    rest, words = list(argv), []
    values: dict[str, list[str]] = {}
    parsed = parse(verb, [])
    while rest:
        parsed = parse(verb, rest)
        for key, given in parsed.values.items():
            values.setdefault(key, []).extend(given)
        words += parsed.rest[:1]
        rest = parsed.rest[1:]
    if 0 <= at_most < len(words):
        raise UsageError(f"{verb.verb} takes at most {at_most} words: {verb.usage}", verb.see)
    parsed.values = values
    return parsed, words


def _help(verb: Table) -> int:
    print(verb.help(), end="")
    return 0


def _sweep(store: Store) -> None:
    from minicontainer.image.removal import sweep

    sweep(store, lambda text: print(f"minicontainer: {text}", file=sys.stderr))


def _said_no(message: str, hint: str = "") -> ImageError:
    """The store refused: docker's exit status for that is 1."""
    error = ImageError(message, hint)
    error.exit_code = 1
    return error
