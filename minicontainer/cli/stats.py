"""``minicontainer stats``: what containers use, once or as it changes.

A share of the CPU is a difference: so much CPU time in so much time.  Hence two readings, a quarter
of a second apart, before anything is shown, and then another one each second.
"""

from __future__ import annotations

import os
import sys
import time

from minicontainer.cli import statsview, template
from minicontainer.cli.flags import Parsed, Table
from minicontainer.cli.output import say
from minicontainer.cli.statsview import Sample
from minicontainer.cli.targets import HELP, all_known, read, usage_of
from minicontainer.containers import Known, find

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

STATS = Table("stats", "[FLAGS] [CONTAINER...]", (
    ("Flags", (
        ("all", "a", "switch", "", "Also those being made or cleaned up (one that ended is gone)"),
        ("format", "", "text", "FORMAT",
         "table, json, or a template such as '{{.Name}} {{.CPUPerc}}'"),
        ("json", "", "switch", "", "The same as --format json: docker's keys, and plain numbers"),
        ("no-stream", "", "switch", "", "Only once"),
        ("no-trunc", "", "switch", "", "Ids in full"),
        HELP,
    )),
), about="What containers use: memory, CPU, I/O, and how long they wait")  # fmt: skip

FIRST, EACH = 0.25, 1.0  # seconds between two readings


def stats_command(argv: Sequence[str]) -> int:
    """Show what containers use."""
    parsed, words = read(STATS, argv)
    if parsed.on("help"):
        print(STATS.help(), end="")
        return 0
    form = "json" if parsed.on("json") else parsed.text("format")
    template.check(form, statsview.KEYS)
    try:
        return watch(parsed, words, form)
    except KeyboardInterrupt:
        if sys.stdout.isatty():
            print()  # the terminal has written ^C; the shell's prompt is to have its own line
        raise


def watch(parsed: Parsed, words: list[str], form: str) -> int:
    """Once, or each second until there is nothing left to look at."""
    before = take(words, parsed.on("all"))
    pause, told = FIRST, ""
    while True:
        time.sleep(pause if before else 0)
        now = take(words, parsed.on("all"), before)
        known: dict[str, str] = {}
        rows = [
            statsview.row(sample, before.get(name), known, full=parsed.on("no-trunc"))
            for name, sample in now.items()
        ]
        missing = statsview.reasons(rows)
        live = not parsed.on("no-stream")
        if live and sys.stdout.isatty() and form in ("", "table"):
            statsview.repaint(rows, missing)
        else:
            print(show(rows, form), end="", flush=True)
            if missing != told and form != "json":  # which says it itself
                say(missing)
            told = missing
        if not live or (words and not now):  # all we were to look at have ended
            return 0
        before, pause = now, EACH


def show(rows: list[dict[str, Any]], form: str) -> str:
    """The rows as text; a table too wide for the terminal becomes two."""
    if form in ("", "table") and sys.stdout.isatty():
        return statsview.tables(rows, os.get_terminal_size(1).columns)
    return template.show(rows, form, statsview.COLUMNS if form in ("", "table") else statsview.KEYS)


def take(
    words: list[str], every: bool, before: dict[str, Sample] | None = None
) -> dict[str, Sample]:
    """A reading of the containers that are meant, by id.

    The first time, a word that means none raises NoSuchContainer; later it may have ended."""
    known = all_known("stats")
    if before is not None and words:
        chosen = [one for one in known if one.id in before]
    else:
        chosen = list(dict.fromkeys(find(word, known) for word in words)) if words else known
    return {one.id: sample(one) for one in chosen if every or words or is_alive(one)}


def is_alive(one: Known) -> bool:
    """Is there anything to measure?"""
    return one.status in ("running", "paused")


def sample(one: Known) -> Sample:
    """What one container's files say at this moment."""
    return Sample(one, time.monotonic(), usage_of(one), statsview.network(one.pid))
