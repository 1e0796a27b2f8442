"""An image made ready to be run: the few fields that ``run`` needs, in the fastest form to read.

The truth about an image is its config.json; reading it takes Python's json module, whose import
takes longer than everything else that finding an image takes.  So beside it lies the same once
more, as KEY=VALUE fields that end in NUL like /proc/PID/environ (no value can contain one: see
config.py).  It is derived, never edited, and made again when it is missing or of another version.

By hand: tr '\\0' '\\n' < /var/lib/minicontainer/images/sha256/ID/ready
"""

from __future__ import annotations

from minicontainer.image.config import ImageConfig

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

VERSION = "minicontainer-ready=1"

_LISTS = ("env", "entrypoint", "cmd", "volumes", "exposed_ports")
_WORDS = ("working_dir", "user", "stop_signal", "architecture", "os", "created")


def to_ready(config: ImageConfig, diff_ids: tuple[str, ...], size: int) -> str:
    """The text of a ``ready`` file."""
    fields = [VERSION, f"size={size}"]
    fields += [f"layer={diff_id}" for diff_id in diff_ids]
    fields += [f"{word}={getattr(config, word)}" for word in _WORDS]
    for name in _LISTS:
        fields += [f"{name}={value}" for value in getattr(config, name)]
    for key, value in config.labels:
        fields += [f"label={key}", f"is={value}"]
    return "".join(field + "\0" for field in fields)


def from_ready(text: str) -> tuple[ImageConfig, tuple[str, ...], int] | None:
    """Read it back: (config, diff_ids, size); None for what another version wrote."""
    version, *fields = text.split("\0")
    if version != VERSION:
        return None
    found: dict[str, list[str]] = {}
    for field in fields:
        key, _, value = field.partition("=")
        found.setdefault(key, []).append(value)
    values: dict[str, Any] = {word: found[word][0] for word in _WORDS}
    values |= {name: tuple(found.get(name, ())) for name in _LISTS}
    values["labels"] = tuple(zip(found.get("label", ()), found.get("is", ()), strict=True))
    return ImageConfig(**values), tuple(found.get("layer", ())), int(found["size"][0])
