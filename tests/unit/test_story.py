"""A plan told as a list, and what every Step has to say of itself."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from minicontainer import story
from minicontainer.compose import compose
from minicontainer.image.config import Image, ImageConfig
from minicontainer.options import RunOptions
from minicontainer.plan import Place, plan
from minicontainer.step import CLONE, CONTAINER, HOST, Plan, Step
from tests.house.source import modules
from tests.support import CHECKOUT
from tests.unit.mutants import fails, mutant

GOLDEN = CHECKOUT / "tests/golden/plan_default.txt"


def default_plan(*command: str) -> Plan:
    """The plan of `minicontainer run alpine sh`, with an id that does not change."""
    image = Image("alpine:latest", "sha256:0", ("/layers/alpine",), ImageConfig(cmd=("/bin/sh",)))
    spec = compose(image, RunOptions(command=command), "0123456789abcdef" * 4)
    return plan(spec, Place("0123456789abcdef" * 4, "/scratch"))


def test_golden(request: pytest.FixtureRequest) -> None:
    """What the plan is, kept to be looked at in a change: `make golden` writes it anew."""
    text = story.render(default_plan("sh"))
    if request.config.getoption("--update-golden"):
        GOLDEN.write_text(text)
    assert GOLDEN.read_text() == text


def test_golden_can_fail() -> None:
    assert GOLDEN.read_text() != story.render(default_plan("sh").without("masks"))


def test_render_has_every_step_once_in_order() -> None:
    whole = default_plan("sh")
    lines = [line for line in story.render(whole).split("\n") if re.match(r" +\d+  ", line)]
    told = [line.split(None, 3) for line in lines]
    assert [line[:3] for line in told] == [
        [str(number), step.side, step.name] for number, step in enumerate(whole, 1)
    ]
    assert max(map(len, lines)) <= 100


def test_phases_hold_every_step_once() -> None:
    whole = default_plan("sh")
    chapters = story.phases(whole)
    assert [step for _, steps in chapters for step in steps] == list(whole)
    assert {step.side for step in dict(chapters)[story.READY]} == {HOST}
    assert {step.side for step in dict(chapters)[story.CLONING]} == {CLONE}
    assert dict(chapters)[story.ENTERING][-1].name == "pivot"
    assert {step.side for step in dict(chapters)[story.SETTLING]} == {CONTAINER}


HOSTILE = "\x1b]0;owned\x07\n\r\x1b[2J\u202e\x9b1m\udcff"


def test_nothing_reaches_the_terminal_unescaped() -> None:
    assert story.printable(HOSTILE).isprintable()
    assert story.printable("plain é 日本") == "plain é 日本"
    text = story.render(default_plan(HOSTILE))
    assert all(line.isprintable() for line in text.split("\n"))
    assert len(text.split("\n")) == len(story.render(default_plan("sh")).split("\n"))


def step_classes() -> Iterator[type[Step]]:
    """Every Step there is: all kernel modules are imported, then the tree of classes is walked."""
    import importlib

    for module in modules():
        if module.name.startswith("kernel."):
            importlib.import_module(f"minicontainer.{module.name}")
    todo = [*Step.__subclasses__()]
    while todo:
        kind = todo.pop()
        todo += kind.__subclasses__()
        if kind.__module__.startswith("minicontainer.kernel."):
            yield kind


STEPS = sorted(step_classes(), key=lambda kind: (kind.__module__, kind.__name__))


def test_there_are_steps() -> None:
    assert len(STEPS) > 30


def silence(kind: type[Step]) -> list[str]:
    """What a Step class owes to whoever listens."""
    owed = []
    if not (vars(kind).get("__doc__") or "").strip():
        owed.append("a docstring: --explain prints it as the reason why")
    if not kind.without:
        owed.append("without: what breaks when it is left out")
    if kind.title is Step.title:
        owed.append("a title")
    if "name" not in dir(kind) or kind.name == "":
        owed.append("a name for --without")
    if kind.side == CLONE:
        return owed
    if not (kind.run.__doc__ or "").strip():
        owed.append("a docstring of run: which calls")
    return owed


@pytest.mark.parametrize("kind", STEPS, ids=lambda kind: kind.__name__)
def test_every_step_explains_itself(kind: type[Step]) -> None:
    assert silence(kind) == []


class Mute(Step):
    look: ClassVar[tuple[str, ...]] = ()

    def run(self, context: object) -> None:
        pass


def test_a_mute_step_is_found() -> None:
    assert len(silence(Mute)) == 5


@pytest.mark.parametrize("kind", STEPS, ids=lambda kind: kind.__name__)
def test_where_points_at_the_class(kind: type[Step]) -> None:
    file, _, line = story.where(object.__new__(kind)).partition(":")
    text = Path(CHECKOUT, file).read_text().split("\n")[int(line) - 1]
    assert text.startswith(f"class {kind.__name__}(")


def test_by_hand_marks_what_comes_later() -> None:
    by_name = {type(step).__name__: step for step in default_plan("sh")}
    assert story.by_hand(by_name["NewSession"]) == "setsid ..."
    assert story.by_hand(by_name["MakeMountsPrivate"]) == "mount --make-rprivate /"
    assert story.by_hand(by_name["BecomeUser"]).split("\n")[-1].startswith("setpriv --reuid")
    assert story.by_hand(by_name["HideFromContainer"]) == ""


# ---- long shell lines


def check_folded(module=story) -> None:
    """Nothing is lost, nothing too wide, and a word is cut only where it alone is too long."""
    line = "mkdir -m 700 /var/lib/here/upper /var/lib/here/work"
    assert module.folded(line, 80, 4) == [line]
    assert module.folded(line, 35, 4) == [
        "mkdir -m 700 /var/lib/here/upper",
        "  /var/lib/here/work",
    ]
    options = "mount -o lowerdir=/a/b,upperdir=/c/d overlay"
    assert module.folded(options, 24, 9) == [
        "mount -o lowerdir=/a/b,", "  upperdir=/c/d overlay"
    ]  # fmt: skip
    assert module.folded("cd /aaaa/bbbb/cccc", 10, 9) == ["cd /aaaa/", "  bbbb/", "  cccc"]
    assert module.folded("aaa b,c ddd", 6, 9) == ["aaa", "  b,c", "  ddd"]
    for line in ("x" * 50, "a b " * 20, "/a,b:c=" * 9, "  indented " * 5, ""):
        for width in (10, 17, 60):
            lines = module.folded(line, width, 99)
            assert max(map(len, lines)) <= width
            told = "".join(lines) if line.startswith(("x", "/")) else " ".join(lines)
            assert told.replace(" ", "") == line.replace(" ", "")
    assert module.folded("a b " * 20, 10, 3)[2:] == ["  ..."]


def test_long_shell_lines_are_folded() -> None:
    check_folded()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("    if len(line) <= width:\n", "    if False:\n"),
        ("atoms(line, width - 2,", "atoms(line, width,"),
        ('(" ", ",", "/=:")', '(" ",)'),
        ('(" ", ",", "/=:")', '(",", " ", "/=:")'),
        ("return lines if len(lines) <= most else", "return lines or"),
        ("    if len(text) <= width:\n        return [text]\n", ""),
        ("for at in range(0, len(text), width)]", "for at in range(0, 1)]"),
    ],
)
def test_the_check_on_folding_can_fail(old: str, new: str) -> None:
    fails(check_folded, mutant(story, old, new))
