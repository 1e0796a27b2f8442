"""``--format``: as much of docker's Go templates as fingers type, and tables in columns.

{{.ID}}   {{.State.Pid}}     a field, and a field of a field
{{json .}}   {{json .State}} the same as JSON
table {{.ID}}\\t{{.Names}}    in columns, under a heading
json                         a line of JSON for each
"""

from __future__ import annotations

from minicontainer.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    Columns = Sequence[tuple[str, str]]  # heading, key


def show(rows: Sequence[Mapping[str, Any]], form: str, columns: Columns) -> str:
    """Rows in the form that was asked for: "" or "table" (``columns``), "json", or a template.

    Raises UsageError for a template that means nothing here."""
    if form in ("", "table"):
        return table(rows, columns)
    if form == "json":
        form = "{{json .}}"
    if form.startswith("table "):
        form = form.removeprefix("table ").replace("\\t", "\t")
        headings = {key: heading for heading, key in columns}
        lines = [fill(form, row, headings) for row in rows]
        lines.insert(0, fill(form, headings, headings))
        return align([line.split("\t") for line in lines])
    form = form.replace("\\t", "\t").replace("\\n", "\n")
    return "".join(fill(form, row, row) + "\n" for row in rows)


def check(form: str, columns: Columns) -> None:
    """Raise UsageError for a template that means nothing, before anything is done."""
    if form not in ("", "table", "json"):
        keys = {key: _Anything() for _, key in columns}
        fill(form.removeprefix("table "), keys, keys)


class _Anything(dict[str, "Any"]):
    """A value with all the fields that are asked for: which there are shows when there is one."""

    def __contains__(self, name: object) -> bool:
        return True

    def __getitem__(self, name: str) -> _Anything:
        return self


def fill(form: str, value: Mapping[str, Any], known: Mapping[str, Any]) -> str:
    """A template with its fields filled in.  Raises UsageError."""
    import re

    def one(match: re.Match[str]) -> str:
        words = match.group(1).split()
        as_json = words[:1] == ["json"]
        path = words[-1] if words else ""
        if len(words) != 1 + as_json or not path.startswith("."):
            raise UsageError(
                f"template parsing error: {match.group()}",
                "fields only: {{.Name}}, {{.State.Pid}}, {{json .}}",
            )
        found: Any = value
        for name in path.strip(".").split(".") if path != "." else ():
            if not isinstance(found, dict) or name not in found:
                names = found if isinstance(found, dict) else known
                raise UsageError(
                    f"template: no field {path!r} in {match.group()}",
                    "there are " + ", ".join(names),
                )
            found = found[name]
        if as_json:
            import json

            return json.dumps(found)
        return _go(found)

    return re.sub(r"{{(.*?)}}", one, form)


def _go(value: Any) -> str:
    """A value as Go's text/template prints it: true, [a b], map[key:value]."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "map[" + " ".join(f"{key}:{_go(one)}" for key, one in sorted(value.items())) + "]"
    if isinstance(value, list | tuple):
        return "[" + " ".join(map(_go, value)) + "]"
    return "<nil>" if value is None else str(value)


def table(rows: Sequence[Mapping[str, Any]], columns: Columns) -> str:
    """Rows under a heading, in columns."""
    lines = [[heading for heading, _ in columns]]
    lines += [[str(row[key]) for _, key in columns] for row in rows]
    return align(lines)


def align(lines: list[list[str]]) -> str:
    """Cells in columns, three spaces apart, as docker's."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = ""
    for line in lines:
        cells = [cell.ljust(width) for cell, width in zip(line, widths, strict=True)]
        text += "   ".join(cells).rstrip() + "\n"
    return text
