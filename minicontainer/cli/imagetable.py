"""An image as a line of ``minicontainer images``: docker's columns, and docker's way to say
"2 weeks ago" and "7.79MB" (the rules of its go-units library)."""

from __future__ import annotations

from minicontainer.image.config import Image
from minicontainer.image.reference import parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from datetime import datetime

NONE = "<none>"

COLUMNS = (
    ("REPOSITORY", "Repository"), ("TAG", "Tag"), ("DIGEST", "Digest"), ("IMAGE ID", "ID"),
    ("CREATED", "CreatedSince"), ("SIZE", "Size"),
)  # fmt: skip


def describe(image: Image, full: bool = False) -> dict[str, str]:
    """An image with the keys of ``docker images --format json``; ``full``: ids not cut short."""
    name = parse(image.name) if image.name else None
    created = _time(image.config.created)
    return {
        "Repository": name.repository if name else NONE,
        "Tag": (name.tag if name else "") or NONE,
        "Digest": NONE,
        "ID": image.id if full else image.id[7:19],
        "CreatedAt": created.strftime("%Y-%m-%d %H:%M:%S %z UTC") if created else "N/A",
        "CreatedSince": _ago(created) if created else "N/A",
        "Size": human_size(image.size),
    }


def table(rows: list[dict[str, str]], *, digests: bool = False) -> str:
    """Rows of ``describe`` under a heading, in columns."""
    columns = [column for column in COLUMNS if digests or column[0] != "DIGEST"]
    lines = [[title for title, _ in columns]]
    lines += [[row[key] for _, key in columns] for row in rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = ""
    for line in lines:
        cells = [cell.ljust(width) for cell, width in zip(line, widths, strict=True)]
        text += "   ".join(cells).rstrip() + "\n"
    return text


def is_called(image: Image, pattern: str) -> bool:
    """Whether ``pattern`` means it: NAME for all its tags, NAME:TAG for one.  Raises UsageError."""
    wanted = parse(pattern)
    if not image.name:
        return False
    if ":" in pattern.rpartition("/")[2]:
        return image.name == str(wanted)
    return parse(image.name).repository == wanted.repository


def human_size(size: int) -> str:
    """Decimal units, three digits: 0B, 999B, 7.79MB, 1.2GB."""
    number = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if number < 999.5:
            return f"{number:.3g}{unit}"
        number /= 1000
    return f"{number:.3g}TB"


def human_duration(seconds: float) -> str:
    """How long, roughly: "About a minute", "47 hours", "2 weeks"."""
    minutes, hours = int(seconds // 60), round(seconds / 3600)
    if seconds < 1:
        return "Less than a second"
    if seconds < 60:
        return "1 second" if seconds < 2 else f"{int(seconds)} seconds"
    if minutes < 60:
        return "About a minute" if minutes == 1 else f"{minutes} minutes"
    if hours < 48:
        return "About an hour" if hours == 1 else f"{hours} hours"
    for unit, length, until in (("days", 24, 336), ("weeks", 168, 1440), ("months", 720, 17520)):
        if hours < until:
            return f"{hours // length} {unit}"
    return f"{hours // 8760} years"


def _ago(created: datetime) -> str:
    from datetime import UTC, datetime

    return human_duration((datetime.now(UTC) - created).total_seconds()) + " ago"


def _time(text: str) -> datetime | None:
    """RFC 3339, in UTC; None for what is not."""
    from datetime import UTC, datetime

    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)
