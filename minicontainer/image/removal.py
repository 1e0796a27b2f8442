"""Taking images out of the store: on request, and after commands that were killed.

What may go is decided by reachability, as in any store by content: names lead to images, images
to layers; what nothing leads to is removed.  So a layer that two images share stays until the
second one goes, and nobody counts references, which could be miscounted.

See change.py for how an interruption here does no harm.
"""

from __future__ import annotations

import fcntl
import os

from minicontainer.errors import ImageError
from minicontainer.image.change import Change, fsync
from minicontainer.image.reference import parse
from minicontainer.image.store import Store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Set

    Say = Callable[[str], None]


def remove(
    store: Store, name: str, in_use: Set[str] = frozenset(), *, force: bool = False
) -> list[str]:
    """Take a name away and, with its last name, the image; layers that no other image has go too.

    ``in_use`` are the layer directories of running containers.  With ``force`` an image given by
    its id may have several names.  Returns lines as docker prints them.  Raises ImageError.
    """
    with Change(store) as change:
        everyone = store.lock(fcntl.LOCK_EX)
        try:
            image = store.get(name)
            if image is None:
                raise ImageError(f"no such image: {name}", "minicontainer images lists them")
            names = store.names_of(image.id)
            gone = names
            if store.id_of(str(parse(name))):
                gone = [image.name]
            elif len(names) > 1 and not force:
                raise ImageError(
                    f"{name} has several names: {', '.join(names)}", "remove those, or use --force"
                )
            if len(gone) == len(names):
                others = {p for i in store.all() if i.id != image.id for p in i.layers}
                if in_use & (set(image.layers) - others):
                    raise ImageError(f"{name} is in use by a container", "end the container first")
            for victim in gone:
                os.unlink(store.ref_path(victim))
            if len(gone) == len(names) and os.path.exists(f"{store.refs}/@{image.id}"):
                os.unlink(f"{store.refs}/@{image.id}")
            fsync(store.refs)
            return [f"Untagged: {victim}" for victim in gone] + _collect(change)
        finally:
            os.close(everyone)


def sweep(store: Store, say: Say) -> None:
    """Remove what commands that were killed have left; tell with ``say`` what it was.

    Nearly always there is nothing, and this is one readdir(3).
    """
    try:
        if not any(_is_ruin(f"{store.tmp}/{entry}") for entry in os.listdir(store.tmp)):
            return
    except FileNotFoundError:
        return
    with Change(store) as change:
        everyone = store.lock(fcntl.LOCK_EX)
        try:
            ruins = [entry for entry in os.listdir(store.tmp) if _is_ruin(f"{store.tmp}/{entry}")]
            for line in _collect(change):
                say(f"removed what an interrupted command left in the store: {line}")
            for ruin in ruins:  # last: as long as one is there, somebody will look around
                say(f"removed what an interrupted command left in the store: tmp/{ruin}")
                change.discard(f"{store.tmp}/{ruin}")
        finally:
            os.close(everyone)


def _collect(change: Change) -> list[str]:
    """Take out every image that no name leads to, and every layer that no image has."""
    store = change.store
    for file in os.listdir(store.refs):
        if not store.has(store.id_in(file)):
            os.unlink(f"{store.refs}/{file}")
    kept = {image.id[7:]: image for image in store.all()}
    lines = []
    for digits in os.listdir(store.images):
        if digits not in kept:
            change.discard(f"{store.images}/{digits}")
            lines.append(f"Deleted: sha256:{digits}")
    layers = {layer for image in kept.values() for layer in image.layers}
    for digits in os.listdir(store.layers):
        if f"{store.layers}/{digits}" not in layers:
            change.discard(f"{store.layers}/{digits}")
            lines.append(f"Deleted: sha256:{digits}")
    return lines


def _is_ruin(path: str) -> bool:
    """Whether whoever made this directory under tmp/ is gone."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(fd)
    return True
