"""How ``minicontainer stats`` shows a reading: docker's columns, then where the memory is, how
often the CPU limit bit, and how long somebody had to wait (kernel/usage.py says what is what).

docker's MEM USAGE is the working set: memory.current less the files that were not used lately.
What the kernel does not tell is "-", and why is told once below the table; 0 means 0.
"""

from __future__ import annotations

import os
import sys

from minicontainer.cli.imagetable import human_size
from minicontainer.cli.template import align
from minicontainer.containers import Known
from minicontainer.kernel import usage
from minicontainer.kernel.usage import UNLIMITED, Usage
from minicontainer.step import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

DOCKERS = (
    ("CONTAINER ID", "ID"), ("NAME", "Name"), ("CPU %", "CPUPerc"),
    ("MEM USAGE / LIMIT", "MemUsage"), ("MEM %", "MemPerc"), ("NET I/O", "NetIO"),
    ("BLOCK I/O", "BlockIO"), ("PIDS", "PIDs"),
)  # fmt: skip
OURS = (
    ("CURRENT", "Current"), ("ANON", "Anon"), ("FILE", "File"), ("KERNEL", "Kernel"),
    ("WORKING SET", "WorkingSet"), ("THROTTLED", "Throttled"),
    ("WAITS: CPU / MEM / I/O", "Pressure"),
)  # fmt: skip
COLUMNS = (*DOCKERS, *OURS)
KEYS = (*COLUMNS, ("CONTAINER", "Container"), ("RAW", "Raw"), ("MISSING", "Missing"))

UNKNOWN = "-"


class Sample(Record):
    """One container at one moment (``time``: seconds, monotonic)."""

    container: Known
    time: float
    usage: Usage
    network: tuple[int, int] | None  # bytes received and sent since it began


def row(
    now: Sample, before: Sample | None, known: dict[str, str], *, full: bool = False
) -> dict[str, Any]:
    """A container with the keys of ``docker stats --format json``, and our own; for ``known`` see
    ``missing``.  ``Raw`` has the plain numbers: bytes, microseconds; null is "not known"."""
    u, one = now.usage, now.container
    limit = memory_limit(u)
    share = None
    if limit and u.working_set is not None:
        share = 100 * u.working_set / limit
    cpu = cpu_percent(now, before)
    raw = {field: getattr(u, field) for field in (*Usage._fields, "working_set")}
    received, sent = now.network or (None, None)
    return {
        "Container": one.id if full else one.id[:12],
        "ID": one.id if full else one.id[:12],
        "Name": one.name,
        "CPUPerc": percent(cpu),
        "MemUsage": pair(binary(u.working_set), binary(limit)),
        "MemPerc": percent(share),
        "NetIO": pair(decimal(received), decimal(sent)),
        "BlockIO": pair(decimal(u.read_bytes), decimal(u.written_bytes)),
        "PIDs": UNKNOWN if u.pids is None else str(u.pids),
        "Current": binary(u.memory),
        "Anon": binary(u.anon),
        "File": binary(u.file),
        "Kernel": binary(u.kernel),
        "WorkingSet": binary(u.working_set),
        "Throttled": UNKNOWN if u.throttled is None else f"{u.throttled} of {u.periods}",
        "Pressure": " / ".join(
            percent(one) for one in (u.cpu_pressure, u.memory_pressure, u.io_pressure)
        ) if u.cpu_pressure is not None else UNKNOWN,
        "Raw": {"cpu_percent": cpu, "received_bytes": received, "sent_bytes": sent, **raw},
        "Missing": missing(now, known),
    }  # fmt: skip


def cpu_percent(now: Sample, before: Sample | None) -> float | None:
    """CPU time per time since the last reading; 100 is one CPU all the time."""
    if before is None or now.usage.cpu_usec is None or before.usage.cpu_usec is None:
        return None
    seconds = now.time - before.time
    return (now.usage.cpu_usec - before.usage.cpu_usec) / seconds / 10_000 if seconds else None


def memory_limit(u: Usage) -> int | None:
    """The container's, or all the memory there is, as docker has it."""
    if u.memory_max is None or u.memory_max != UNLIMITED:
        return u.memory_max
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def network(pid: int) -> tuple[int, int] | None:
    """Bytes received and sent by its network namespace, but for loopback; None if that is ours,
    or gone.  proc_pid_net(5)."""
    try:
        if os.path.samefile(f"/proc/{pid}/ns/net", "/proc/self/ns/net"):
            return None
        with open(f"/proc/{pid}/net/dev") as file:
            lines = file.read().splitlines()[2:]
    except OSError:
        return None
    received = sent = 0
    for line in lines:
        name, _, numbers = line.partition(":")
        if name.strip() != "lo":
            fields = numbers.split()
            received += int(fields[0])
            sent += int(fields[8])
    return received, sent


def missing(now: Sample, known: dict[str, str]) -> list[str]:
    """Why some of a container's columns are empty, as "memory, cpu: the reason".

    ``known`` remembers the answers: they are the same for all cgroups with the same parent."""
    one, u = now.container, now.usage
    if not one.has_cgroup:
        if one.status == "exited":
            return ["all of it: it has ended"]
        return ["all but the network: it has no cgroup of its own"]
    unknown = {"memory": u.memory, "cpu": u.throttled, "io": u.reads, "pids": u.pids}
    why: dict[str, str] = {}
    for name in (name for name, value in unknown.items() if value is None):
        key = f"{os.path.dirname(one.cgroup)}/{name}"
        if key not in known:
            known[key] = usage.why_missing(one.cgroup, name)
        why[name] = known[key]
    if u.cpu_pressure is None:
        why["waits"] = usage.why_no_pressure(one.cgroup)
    return [
        ", ".join(name for name in why if why[name] == reason) + f": {reason}"
        for reason in dict.fromkeys(filter(None, why.values()))
    ]


def reasons(rows: list[dict[str, Any]]) -> str:
    """The same for all of them, each reason once, as lines; "" if nothing is missing."""
    found = dict.fromkeys(line for one in rows for line in one["Missing"])
    return "\n".join(f'"-" is not known: {line}' for line in found)


def tables(rows: list[dict[str, Any]], width: int) -> str:
    """One table if it fits into ``width``; else docker's columns, and ours below; else as many
    pieces as it takes, with the container's name before each."""
    parts = pieces(rows, COLUMNS, width)
    if len(parts) > 1 and widest(align(cells(rows, DOCKERS))) <= width:
        parts = [DOCKERS, *pieces(rows, (DOCKERS[1], *OURS), width)]
    return "\n".join(align(cells(rows, part)) for part in parts)


def pieces(
    rows: list[dict[str, Any]], columns: tuple[tuple[str, str], ...], width: int
) -> list[tuple[tuple[str, str], ...]]:
    """The columns, broken where the next one would not fit any more."""
    name, found = DOCKERS[1], [columns[:1]]
    for column in columns[1:]:
        if widest(align(cells(rows, (*found[-1], column)))) <= width:
            found[-1] = (*found[-1], column)
        else:
            found.append((column,) if column == name else (name, column))
    return found


def widest(text: str) -> int:
    """How long the longest line is."""
    return max(map(len, text.splitlines()))


def cells(rows: list[dict[str, Any]], columns: tuple[tuple[str, str], ...]) -> list[list[str]]:
    """A heading and the rows under it."""
    return [[heading for heading, _ in columns]] + [
        [str(one[key]) for _, key in columns] for one in rows
    ]


def folded(text: str, width: int) -> list[str]:
    """Sentences, each broken between words where it is too long for a line."""
    import textwrap

    lines: list[str] = []
    for line in text.splitlines():
        lines += textwrap.wrap(line, width, subsequent_indent="    ", break_on_hyphens=False)
    return lines


def repaint(rows: list[dict[str, Any]], missing: str) -> None:
    """Write the terminal over from its top left corner: console_codes(4)."""
    columns, height = os.get_terminal_size(sys.stdout.fileno())
    lines = tables(rows, columns).splitlines()
    if missing:
        lines += ["", *folded(missing, columns)]
    if len(lines) > height - 1:  # it would scroll, and never stand still
        lines = [*lines[: height - 2], "... and more than fit here: --no-stream shows all"]
    # Line by line with "erase to the end of the line": clearing all at once would flicker.
    text = "".join(f"{line[:columns]}\x1b[K\n" for line in lines)
    sys.stdout.write(f"\x1b[H{text}\x1b[J")
    sys.stdout.flush()


def percent(number: float | None) -> str:
    """As docker shows a share: "12.34%"."""
    return UNKNOWN if number is None else f"{number:.2f}%"


def binary(number: int | None) -> str:
    """Bytes in units of 1024, four digits, as docker shows memory: "1.5MiB"."""
    if number is None:
        return UNKNOWN
    size = float(number)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.4g}{unit}"
        size /= 1024
    return f"{size:.4g}TiB"


def decimal(number: int | None) -> str:
    """Bytes in units of 1000, as docker shows what was moved: "1.2kB"."""
    return UNKNOWN if number is None else human_size(number)


def pair(one: str, other: str) -> str:
    """As "1MiB / 64MiB"; "-" if neither is known."""
    return UNKNOWN if one == other == UNKNOWN else f"{one} / {other}"
