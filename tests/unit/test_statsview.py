"""cli/statsview.py: docker's numbers, and "-" for what is not known, with the reason."""

from __future__ import annotations

import os

import pytest

from minicontainer.cli import statsview
from minicontainer.cli.statsview import Sample
from minicontainer.containers import Known
from minicontainer.kernel.usage import Usage
from tests.unit.mutants import fails, mutant

MIB = 1 << 20
ONE = Known(id="1f0c" * 16, name="web")
FULL = Usage(
    memory=10 * MIB, memory_max=64 * MIB, anon=4 * MIB, file=5 * MIB, inactive_file=2 * MIB,
    kernel=MIB, cpu_usec=2_000_000, periods=30, throttled=12, read_bytes=4096, written_bytes=1234,
    reads=1, writes=1,
    pids=3, pids_max=20, cpu_pressure=1.5, memory_pressure=0.0, io_pressure=12.25,
)  # fmt: skip
SHOWN = {
    "Container": "1f0c1f0c1f0c", "ID": "1f0c1f0c1f0c", "Name": "web", "CPUPerc": "50.00%",
    "MemUsage": "8MiB / 64MiB", "MemPerc": "12.50%", "NetIO": "1.5kB / 0B",
    "BlockIO": "4.1kB / 1.23kB", "PIDs": "3", "Current": "10MiB", "Anon": "4MiB", "File": "5MiB",
    "Kernel": "1MiB", "WorkingSet": "8MiB", "Throttled": "12 of 30",
    "Pressure": "1.50% / 0.00% / 12.25%",
}  # fmt: skip


def check_row(module=statsview):
    before = Sample(ONE, 100.0, FULL.replace(cpu_usec=1_000_000), (0, 0))
    row = module.row(Sample(ONE, 102.0, FULL, (1500, 0)), before, {})
    assert {key: row[key] for key in SHOWN} == SHOWN
    assert row["Raw"]["working_set"] == 8 * MIB
    assert row["Raw"]["cpu_percent"] == 50.0
    full = module.row(Sample(ONE, 102.0, FULL, None), before, {}, full=True)
    assert (full["ID"], full["NetIO"]) == (ONE.id, "-")


def check_unknown(module=statsview):
    """Not one 0 where nothing is known; and the other way round."""
    row = module.row(Sample(ONE, 1.0, Usage(), None), None, {})
    cells = [row[key] for _, key in module.COLUMNS]
    assert cells == ["1f0c1f0c1f0c", "web", *["-"] * 13]
    assert set(row["Raw"].values()) == {None}
    zeros = Usage(**{**dict.fromkeys(Usage._fields, 0), "memory_max": MIB})
    row = module.row(Sample(ONE, 2.0, zeros, (0, 0)), Sample(ONE, 1.0, zeros, None), {})
    assert "-" not in [row[key] for _, key in module.COLUMNS]


def test_docker_would_show_the_same():
    check_row()


def test_what_is_not_known_is_not_zero():
    check_unknown()


@pytest.mark.parametrize(
    ("check", "old", "new"),
    [
        (check_row, "/ seconds / 10_000", "/ seconds / 1000"),
        (check_row, "binary(u.working_set), binary(limit)", "binary(u.memory), binary(limit)"),
        (check_row, "        size /= 1024", "        size /= 1000"),
        (check_row, "share = 100 * u.working_set / limit", "share = u.working_set / limit"),
        (check_unknown, '    return UNKNOWN if number is None else f"{number:.2f}%"',
         '    return f"{number or 0:.2f}%"'),
        (check_unknown, "    if number is None:\n        return UNKNOWN\n    size", "    size"),
        (check_unknown, "UNKNOWN if one == other == UNKNOWN else ", ""),
        (check_unknown, "UNKNOWN if u.pids is None else ", ""),
        (check_unknown, "UNKNOWN if number is None else human_size(number)", "human_size(number)"),
        (check_unknown, "UNKNOWN if u.throttled is None", "UNKNOWN if not u.throttled"),
    ],
)  # fmt: skip
def test_the_checks_on_rows_can_fail(check, old, new):
    fails(check, mutant(statsview, old, new))


def test_the_machines_memory_is_the_limit_where_there_is_none():
    """docker's MEM % is of that then."""
    whole = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert statsview.memory_limit(FULL.replace(memory_max=-1)) == whole
    assert statsview.memory_limit(FULL.replace(memory_max=None)) is None


def test_sizes_as_docker_has_them():
    for number, text in (
        (0, "0B"), (1023, "1023B"), (1024, "1KiB"), (1536, "1.5KiB"), (64 * MIB, "64MiB"),
        (1 << 40, "1TiB"), (12345678, "11.77MiB"),
    ):  # fmt: skip
        assert statsview.binary(number) == text


# ---- why


def check_reasons(tmp_path, module=statsview):
    """Each reason once, with all that it is the reason for; the question is asked once."""
    known = ONE.replace(cgroup=str(tmp_path))
    (tmp_path / "cgroup.controllers").write_text("cpu io hugetlb\n")
    (tmp_path / "cpu.pressure").write_text("some avg10=0.00 avg60=0.00 avg300=0.00 total=0\n")
    asked: dict[str, str] = {}
    part = FULL.replace(memory=None, pids=None)
    rows = [module.row(Sample(known, 1.0, part, None), None, asked) for _ in range(3)]
    assert list(asked) == [f"{tmp_path.parent}/memory", f"{tmp_path.parent}/pids"]
    assert module.reasons(rows).startswith('"-" is not known: memory')
    asked = dict.fromkeys(asked, "as was said before")
    rows = [module.row(Sample(known, 1.0, part, None), None, asked)]
    assert module.reasons(rows) == '"-" is not known: memory, pids: as was said before'
    assert module.reasons([module.row(Sample(known, 1.0, FULL, None), None, asked)]) == ""
    gone = module.row(Sample(ONE, 1.0, Usage(), None), None, asked)
    assert "it has no cgroup of its own" in module.reasons([gone])


def test_reasons_are_told_once(tmp_path):
    check_reasons(tmp_path)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("        if key not in known:\n", "        if True:\n"),
        ("for name, value in unknown.items() if value is None", "for name in unknown"),
        ("    if not one.has_cgroup:\n", "    if False:\n"),
    ],
)
def test_the_check_on_reasons_can_fail(tmp_path, old, new):
    fails(check_reasons, tmp_path, mutant(statsview, old, new))


# ---- widths


def check_width(module=statsview):
    rows = [module.row(Sample(ONE, 1.0, FULL, None), None, {})]
    whole = module.tables(rows, 500)
    assert len(whole.splitlines()) == 2
    wide = max(map(len, whole.splitlines()))
    assert module.tables(rows, wide) == whole
    two = module.tables(rows, wide - 1).split("\n\n")
    assert [len(table.splitlines()) for table in two] == [2, 2]
    assert (
        two[0].splitlines()[0].split("   ") == [heading for heading, _ in module.DOCKERS]
        or "MEM USAGE / LIMIT" in two[0]
    )
    assert "WORKING SET" in two[1] and two[1].splitlines()[1].startswith("web ")


def check_nothing_is_lost(module=statsview):
    """However narrow: every heading and every cell, whole, and the name before each piece."""
    rows = [module.row(Sample(ONE, 1.0, FULL, None), None, {})]
    for width in (110, 80, 60, 45, 35):
        text = module.tables(rows, width)
        assert max(map(len, text.splitlines())) <= width
        headings, values = [], []
        for table in text.split("\n\n"):
            heading, row = table.splitlines()
            headings += heading.split("   ")
            values += row.split("   ")
            assert "NAME" in heading.split() or heading == "CONTAINER ID"
        for heading, key in module.COLUMNS:
            assert heading in [word.strip() for word in headings]
            assert rows[0][key] in [word.strip() for word in values]
    said = '"-" is not known: memory, pids: counted by cgroup v1 on this machine'
    lines = module.folded(f"{said}\n{said}", 30)
    assert max(map(len, lines)) <= 30
    assert " ".join(" ".join(lines).split()) == f"{said} {said}"
    assert sum(line.startswith('"-"') for line in lines) == 2


def test_a_table_too_wide_is_two():
    check_width()


def test_in_a_narrow_terminal_nothing_is_lost():
    check_nothing_is_lost()


@pytest.mark.parametrize(
    ("check", "old", "new"),
    [
        (check_width, "if len(parts) > 1 and", "if"),
        (check_width, "if len(parts) > 1 and", "if False and"),
        (check_nothing_is_lost, "cells(rows, DOCKERS))) <= width:", "cells(rows, DOCKERS))) > 0:"),
        (
            check_nothing_is_lost,
            "(*found[-1], column)))) <= width:",
            "(*found[-1], column)))) > 0:",
        ),
        (check_nothing_is_lost, "else (name, column))", "else (column,))"),
        (check_nothing_is_lost, "textwrap.wrap(line, width,", "textwrap.wrap(line, 80,"),
        (check_nothing_is_lost, "for line in text.splitlines():", "for line in [text]:"),
    ],
)
def test_the_checks_on_width_can_fail(check, old, new):
    fails(check, mutant(statsview, old, new))
