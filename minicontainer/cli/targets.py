"""The containers that a verb is about: several at once, each found by id, name, or the beginning of
an id; those that cannot be served do not keep the others from it.

A verb that failed on one of them ends with docker's 1; 125 is for a command line that cannot be
meant, which is found before anything is done.
"""

from __future__ import annotations

import os

from minicontainer.cli.flags import Parsed, Table, parse
from minicontainer.cli.output import say
from minicontainer.containers import Known, everyone, find
from minicontainer.errors import MinicontainerError, UsageError
from minicontainer.kernel import usage

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

HELP = ("help", "", "switch", "", "Print this")


class Refused(MinicontainerError):
    """It was asked rightly and cannot be done: docker's exit status for that is 1."""

    exit_code = 1


def read(table: Table, argv: Sequence[str]) -> tuple[Parsed, list[str]]:
    """Flags and words in any order, as docker takes them for these verbs.  Raises UsageError."""
    rest, words = list(argv), []
    values: dict[str, list[str]] = {}
    parsed = parse(table, [])
    while rest:
        parsed = parse(table, rest)
        for key, given in parsed.values.items():
            values.setdefault(key, []).extend(given)
        words += parsed.rest[:1]
        rest = parsed.rest[1:]
    parsed.values = values
    return parsed, words


def need_words(table: Table, words: list[str]) -> None:
    """At least one container.  Raises UsageError, in docker's words."""
    if not words:
        raise UsageError(f"'minicontainer {table.verb}' requires at least 1 argument", table.see)


def all_known(verb: str) -> list[Known]:
    """All containers on record, the youngest first.  Raises UsageError for whoever is not root."""
    if os.geteuid() != 0:
        raise UsageError(f"{verb} needs root", f"sudo minicontainer {verb} ...")
    return everyone(say)


def for_each(table: Table, words: list[str], action: Callable[[Known], None]) -> int:
    """Do it to each, and print the words of those it was done to.  Raises Refused at the end, with
    all that went wrong."""
    need_words(table, words)
    known = all_known(table.verb)
    failed: list[MinicontainerError] = []
    for word in words:
        try:
            action(find(word, known))
            print(word, flush=True)
        except MinicontainerError as error:
            failed.append(error)
        except OSError as error:  # it ended, and took its files along, while we were at it
            failed.append(Refused(f"{word}: {error.strerror}: {error.filename}"))
    if failed:
        message = "\n".join(error.message for error in failed)
        raise Refused(message, failed[-1].hint)
    return 0


def cgroup_of(one: Known) -> str:
    """Its cgroup's directory.  Raises Refused if it has none of its own, or has ended."""
    if one.status not in ("running", "paused"):
        raise Refused(f"container {one.id} is not running")
    if not one.has_cgroup:
        raise Refused(
            f"container {one.id[:12]} has no cgroup of its own",
            "it was made without one: its runtime said why when it started",
        )
    return one.cgroup


def usage_of(one: Known) -> usage.Usage:
    """What its cgroup's files say now; nothing but None if it has none (any more)."""
    try:
        return usage.read(one.cgroup) if one.cgroup else usage.Usage()
    except FileNotFoundError:
        return usage.Usage()
