"""A small flag parser in docker's manner: one table of flags says all there is to know of a verb.

docker's command line is Go's pflag, and fingers know its rules by heart:

    --name=x   --name x   -w/tmp   -w=/tmp   -w /tmp     five ways to give a value
    -it                                                   one-letter switches in a bundle
    --rm   --rm=false                                     a switch takes a value only behind "="
    -e A=1 -e B=2                                         a list flag is given once per item
    run -i alpine ls -l                                   the first word that is no flag ends the
                                                          flags: what follows is the container's
    run -- alpine                                         "--" ends them too

argparse knows none of the last two and would cost 15 ms, as much as the whole container.

By hand:  minicontainer run --help      (printed from the same table that parses)
"""

from __future__ import annotations

from minicontainer.errors import UsageError
from minicontainer.step import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import TypeVar

    Row = tuple[str, str, str, str, str]
    Group = tuple[str, tuple[Row, ...]]
    Value = TypeVar("Value")
    Default = TypeVar("Default")

# Go's strconv.ParseBool
_TRUE = ("1", "t", "T", "TRUE", "true", "True")
_FALSE = ("0", "f", "F", "FALSE", "false", "False")

# what a flag stands for when no "=VALUE" follows; the other kinds take the next word
_BARE = {"switch": "true", "level": "1"}


class Flag(Record):
    """One flag: ``long`` and ``short`` names without dashes, what it takes, a line of help.

    ``kind`` is "switch" (true or false), "text" (the last one given counts), "list" (all count)
    or "level" (a number that may be left out: ``--explain`` is ``--explain=1``)."""

    long: str
    short: str = ""
    kind: str = "text"
    metavar: str = ""
    help: str = ""

    def spelled(self) -> str:
        """As docker's messages name it: "-e, --env"."""
        return f"-{self.short}, --{self.long}" if self.short else f"--{self.long}"


class Table:
    """All flags of one verb.

    ``groups`` are headings with rows of plain tuples in Flag's order: constants that Python loads
    ready-made; only the rows that a command line names become Flags.  ``aliases`` are second long
    names.  ``explain_unknown`` is asked about a name that no row has: a sentence, or "".
    ``about`` is what --help says first: a line, the same as in ``minicontainer --help``; and, after
    an empty one, whatever else one must know."""

    def __init__(
        self,
        verb: str,
        usage: str,
        groups: Sequence[Group],
        aliases: dict[str, str] | None = None,
        explain_unknown: Callable[[str], str] = lambda name: "",
        about: str = "",
    ) -> None:
        self.verb = verb
        self.usage = usage
        self.groups = groups
        self.aliases = aliases or {}
        self.explain_unknown = explain_unknown
        self.about = about
        self.see = f"See 'minicontainer {verb} --help'"
        self.rows = {row[0]: row for _, rows in groups for row in rows}
        self.shorts = {row[1]: row for row in self.rows.values() if row[1]}

    def long(self, name: str) -> Flag:
        """The flag called ``--name``.  Raises UsageError, with the nearest name as a hint."""
        row = self.rows.get(self.aliases.get(name, name))
        if row is not None:
            return Flag(*row)
        reason = self.explain_unknown(name)
        if reason:
            raise UsageError(f"--{name} is not supported yet: {reason}", self.see)
        import difflib

        near = difflib.get_close_matches(name, [*self.rows, *self.aliases], n=1, cutoff=0.6)
        hint = f"did you mean --{near[0]}? " if near else ""
        raise UsageError(f"unknown flag: --{name}", hint + self.see)

    def short(self, letter: str, bundle: str) -> Flag:
        """The flag called ``-letter``, met in ``-bundle``.  Raises UsageError."""
        row = self.shorts.get(letter)
        if row is not None:
            return Flag(*row)
        reason = self.explain_unknown(letter)
        if reason:
            raise UsageError(f"-{letter} is not supported yet: {reason}", self.see)
        raise UsageError(f"unknown shorthand flag: '{letter}' in -{bundle}", self.see)

    def help(self) -> str:
        """The text of ``--help``."""
        import textwrap  # 8 ms, and only here

        lines = [f"Usage:  minicontainer {self.verb} {self.usage}"]
        if self.about:
            lines += ["", self.about]
        for heading, rows in self.groups:
            lines += ["", f"{heading}:"]
            for row in rows:
                flag = Flag(*row)
                left = f"  -{flag.short}, " if flag.short else "      "
                value = f"[={flag.metavar}]" if flag.kind == "level" else f" {flag.metavar}"
                left += f"--{flag.long}" + (value if flag.metavar else "")
                text = textwrap.wrap(flag.help, 60) or [""]
                if len(left) > 28:
                    lines.append(left)
                    left = ""
                lines += [f"{left:<29} {text[0]}", *(" " * 30 + more for more in text[1:])]
        return "\n".join(lines) + "\n"


class Parsed:
    """A command line taken apart: the flags' values as text, and ``rest``, the words after them."""

    def __init__(self, table: Table, values: dict[str, list[str]], rest: list[str]) -> None:
        self.table = table
        self.values = values
        self.rest = rest

    def given(self, long: str) -> bool:
        """Was the flag there at all?"""
        return long in self.values

    def on(self, long: str) -> bool:
        """A switch's value; false when it was not given."""
        return self.text(long) == "true"

    def text(self, long: str, default: str = "") -> str:
        """A flag's value, the last where there were several."""
        return self.values[long][-1] if long in self.values else default

    def texts(self, long: str) -> tuple[str, ...]:
        """All values of a flag, in the order given."""
        return tuple(self.values.get(long, ()))

    def each(self, long: str, parse: Callable[[str], Value]) -> tuple[Value, ...]:
        """All values of a flag, each made into what it means.

        A UsageError of ``parse`` says what is wrong; here it learns where, in docker's words."""
        made = []
        for text in self.values.get(long, ()):
            try:
                made.append(parse(text))
            except UsageError as error:
                where = Flag(*self.table.rows[long]).spelled()
                raise UsageError(
                    f'invalid argument {quote(text)} for "{where}" flag: {error.message}',
                    error.hint or self.table.see,
                ) from None
        return tuple(made)

    def one(self, long: str, parse: Callable[[str], Value], default: Default) -> Value | Default:
        """A flag's value made into what it means (the last one; all must be valid), or default."""
        return self.each(long, parse)[-1] if long in self.values else default


def quote(text: str) -> str:
    """Text in double quotes, with whatever could move a terminal's cursor escaped."""
    safe = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
    return '"' + safe.replace('"', '\\"') + '"'


def parse(table: Table, words: Sequence[str]) -> Parsed:
    """Take the words after the verb apart by the table.  Raises UsageError and nothing else."""
    values: dict[str, list[str]] = {}
    rest = list(words)
    while rest and rest[0].startswith("-") and rest[0] != "-":
        word = rest.pop(0)
        if word == "--":
            break
        if word.startswith("--"):
            _long(table, word, rest, values)
        else:
            _bundle(table, word[1:], rest, values)
    return Parsed(table, values, rest)


def _long(table: Table, word: str, rest: list[str], values: dict[str, list[str]]) -> None:
    """``--name``, ``--name=value`` or ``--name value``."""
    name, equals, value = word[2:].partition("=")
    if not name or name.startswith("-"):
        raise UsageError(f"bad flag syntax: {word}", table.see)
    flag = table.long(name)
    if not equals:
        value = _BARE.get(flag.kind) or _next(rest, f"--{name}", table)
    _put(table, flag, value, values)


def _bundle(table: Table, letters: str, rest: list[str], values: dict[str, list[str]]) -> None:
    """``-it``, ``-i=false``, ``-w/tmp``, ``-w=/tmp`` or ``-w /tmp``: switches up to the last."""
    while letters:
        flag, bundle, letters = table.short(letters[0], letters), letters, letters[1:]
        # one quirk of pflag, kept: nothing behind the "=" means that the value is "=" itself
        if letters.startswith("=") and letters != "=":
            value, letters = letters[1:], ""
        elif flag.kind in _BARE:
            value = _BARE[flag.kind]
        else:
            value = letters or _next(rest, f"'{flag.short}' in -{bundle}", table)
            letters = ""
        _put(table, flag, value, values)


def _next(rest: list[str], flag: str, table: Table) -> str:
    """The next word as a flag's value, even if it begins with a dash: so does pflag."""
    if not rest:
        raise UsageError(f"flag needs an argument: {flag}", table.see)
    return rest.pop(0)


def _put(table: Table, flag: Flag, value: str, values: dict[str, list[str]]) -> None:
    if flag.kind == "switch":
        if value not in _TRUE and value not in _FALSE:
            raise UsageError(
                f'invalid argument {quote(value)} for "{flag.spelled()}" flag: '
                "must be true or false",
                table.see,
            )
        value = "true" if value in _TRUE else "false"
    values.setdefault(flag.long, []).append(value)
