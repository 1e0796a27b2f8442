"""cli/template.py: as much of Go's templates as docker's users type; and tables."""

from __future__ import annotations

import pytest

from minicontainer.cli import template
from minicontainer.errors import UsageError
from tests.unit.mutants import fails, mutant

COLUMNS = (("CONTAINER ID", "ID"), ("NAMES", "Names"))
ROWS = [{"ID": "1f0c", "Names": "web", "Up": "1"}, {"ID": "77", "Names": "a database", "Up": "2"}]
VALUE = {
    "Id": "1f", "State": {"Pid": 7, "Paused": False, "Error": ""}, "Args": ["a", "b c"],
    "None": None, "Float": 1.5,
}  # fmt: skip


def check_shown(module=template):
    table = "CONTAINER ID   NAMES\n1f0c           web\n77             a database\n"
    assert module.show(ROWS, "", COLUMNS) == module.show(ROWS, "table", COLUMNS) == table
    assert module.show([], "", COLUMNS) == "CONTAINER ID   NAMES\n"
    assert (
        module.show(ROWS, "{{.ID}} is {{ .Names }}", COLUMNS) == "1f0c is web\n77 is a database\n"
    )
    assert module.show(ROWS, r"{{.ID}}\t{{.Up}}\n", COLUMNS) == "1f0c\t1\n\n77\t2\n\n"
    assert module.show(ROWS[:1], "json", COLUMNS) == '{"ID": "1f0c", "Names": "web", "Up": "1"}\n'
    in_columns = module.show(ROWS, r"table {{.Names}}\t{{.ID}}", COLUMNS)
    assert in_columns == "NAMES        CONTAINER ID\nweb          1f0c\na database   77\n"


def check_filled(module=template):
    for form, text in (
        ("{{.Id}}", "1f"), ("{{.State.Pid}}", "7"), ("{{.State.Paused}}", "false"),
        ("{{json .Args}}", '["a", "b c"]'), ("{{.Args}}", "[a b c]"), ("{{.None}}", "<nil>"),
        ("{{.State}}", "map[Error: Paused:false Pid:7]"), ("{{json .State.Pid}}", "7"),
        ("{{.Float}}", "1.5"), ("no field", "no field"), ("", ""),
    ):  # fmt: skip
        assert module.fill(form, VALUE, VALUE) == text, form


def check_refused(module=template):
    for form in (
        "{{Id}}", "{{.}} {{.Nope}}", "{{.State.Nope}}", "{{.Id.Pid}}", "{{range .Args}}", "{{}}",
        "{{json}}", "{{json .Id .State}}", "{{len .Args}}", "{{.State..Pid}}",
    ):  # fmt: skip
        with pytest.raises(UsageError, match="template"):
            module.fill(form, VALUE, VALUE)
    for form in ("{{.Nope}}", "table {{.Nope}}"):
        with pytest.raises(UsageError, match=r"no field '\.Nope'"):
            module.check(form, COLUMNS)
    module.check("{{.ID}} {{json .}}", COLUMNS)
    module.check("json", COLUMNS)
    module.check("{{.ID.Whatever}} {{json .ID.It.Is}}", COLUMNS)  # shows when there is one


def test_tables_and_templates():
    check_shown()


def test_fields():
    check_filled()


def test_what_means_nothing_is_refused():
    check_refused()


@pytest.mark.parametrize(
    ("check", "old", "new"),
    [
        (check_shown, 'form = form.replace("\\\\t", "\\t").replace("\\\\n", "\\n")', "pass"),
        (check_shown, "cell.ljust(width)", "cell"),
        (check_shown, "lines.insert(0, fill(form, headings, headings))", "pass"),
        (check_filled, "return str(value).lower()", "return str(value)"),
        (check_filled, 'return "<nil>" if value is None else str(value)', "return str(value)"),
        (check_filled, "for name in path", "for name in path[:6]"),
        (check_refused, 'or not path.startswith(".")', ""),
        (check_refused, "if len(words) != 1 + as_json or", "if"),
        (check_refused, "        fill(form.removeprefix", "        print(form.removeprefix"),
    ],
)
def test_the_checks_can_fail(check, old, new):
    fails(check, mutant(template, old, new))
