"""step.py: a Record is a frozen dataclass in all but import time, and a Plan loses no Step."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicontainer import step as step_
from minicontainer.errors import UsageError
from minicontainer.step import CLONE, CONTAINER, HOST, CloneStep, Context, Plan, Record, Step, quote
from tests.unit.mutants import fails, mutant


class Point(Record):
    """Two fields, one with a default; a class variable is no field."""

    x: int
    y: int = 2
    unit: ClassVar[str] = "cm"


class Named(Point):
    """Inherits two fields, adds one."""

    name: str = ""


@dataclasses.dataclass(frozen=True)
class Oracle:
    """What the standard library makes of Named."""

    x: int
    y: int = 2
    name: str = ""


VALUES = st.dictionaries(st.sampled_from(["x", "y", "name"]), st.integers() | st.text())


# ---- Record


def test_fields_come_in_order_bases_first():
    assert Named._fields == ("x", "y", "name")
    assert Point(1) == Point(x=1, y=2)
    assert repr(Named(1, name="a")) == "Named(x=1, y=2, name='a')"


@given(VALUES, VALUES, VALUES)
def test_a_record_behaves_as_a_frozen_dataclass(one, two, changes):
    def outcome(kind):
        try:
            a, b = kind(**one), kind(**two)
        except TypeError:
            return "TypeError"
        changed = dataclasses.replace(a, **changes) if kind is Oracle else a.replace(**changes)
        same_hash = hash(a) == hash(b) if a == b else None
        return a == b, a != b, same_hash, [getattr(changed, f) for f in ("x", "y", "name")]

    assert outcome(Named) == outcome(Oracle)


@pytest.mark.parametrize(
    ("values", "named"),
    [((), {}), ((1, 2, 3), {}), ((1,), {"x": 1}), ((1,), {"z": 1}), ((1,), {"unit": "m"})],
)
def test_wrong_fields_are_type_errors(values, named):
    with pytest.raises(TypeError, match="Point"):
        Point(*values, **named)


def test_frozen(module=step_):
    class Frozen(module.Record):
        x: int = 1

    value = Frozen()
    with pytest.raises(AttributeError, match="frozen"):
        value.x = 2
    with pytest.raises(AttributeError, match="frozen"):
        del value.x
    assert value.x == 1


def test_the_class_is_part_of_the_value(module=step_):
    class One(module.Record):
        x: int

    class Two(module.Record):
        x: int

    assert One(1) != Two(1)
    assert len({One(1), Two(1), One(1)}) == 2


def test_a_default_is_compared_like_a_given_value():
    assert Point(1) == Point(1, 2)
    assert hash(Point(1)) == hash(Point(1, 2))


def test_copies_and_pickles():
    for value in (Point(1), Point(1, 5)):
        assert copy.deepcopy(value) == value
        assert pickle.loads(pickle.dumps(value)) == value


@pytest.mark.parametrize(
    ("check", "old", "new"),
    [
        (test_frozen, 'raise AttributeError(f"{type(self).__name__} is frozen: use', "return #"),
        (test_frozen, 'raise AttributeError(f"{type(self).__name__} is frozen")', "return"),
        (test_the_class_is_part_of_the_value, "type(self) is type(other) and all(", "all("),
    ],
)
def test_the_checks_on_records_can_fail(check, old, new):
    with pytest.raises((AssertionError, AttributeError, pytest.fail.Exception)):
        check(mutant(step_, old, new))


# ---- Plan


class Any_(Step):
    """A step of either side."""

    name: str
    side: str


def a_plan(module=step_, sides=(HOST, CLONE, HOST, CONTAINER)):
    return module.Plan(*(Any_(f"{n}", side) for n, side in enumerate(sides)))


def check_parts(module, sides):
    plan = a_plan(module, sides)
    before, clone = plan.before_clone(), plan.clone()
    after, inside, late = plan.after_clone(), plan.container(), plan.before_program()
    assert sorted(before + clone + after + inside + late, key=lambda s: int(s.name)) == list(plan)
    assert all(s.side == HOST for s in before + after + late)
    assert all(s.side == CLONE for s in clone)
    assert all(s.side == CONTAINER for s in inside)
    for part in (before, clone, after, inside, late):
        numbers = [int(s.name) for s in part]
        assert numbers == sorted(numbers)
    # the border is the first clone step, or the first container step if nothing is cloned
    border = sides.index(CLONE) if CLONE in sides else None
    if border is None:
        border = sides.index(CONTAINER) if CONTAINER in sides else len(sides)
    assert all(int(s.name) < border for s in before)
    assert all(int(s.name) > border for s in after + late)
    last = max([n for n, side in enumerate(sides) if side == CONTAINER], default=len(sides))
    assert all(int(s.name) < max(last, border) for s in after)
    assert all(int(s.name) > max(last, border) for s in late)


@given(st.lists(st.sampled_from([HOST, CLONE, CONTAINER]), max_size=12))
def test_every_step_is_in_exactly_one_part(sides):
    check_parts(step_, sides)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("self.steps[self._first_clone() : self._late()]", "self.steps[: self._late()]"),
        ("self.steps[self._first_clone() : self._late()]", "self.steps[self._first_clone() :]"),
        ("for s in self.steps[self._late() :] if", "for s in self.steps if"),
        ("for s in self.steps[:first] if s.side == HOST", "for s in self.steps[:first]"),
        ("if step.side == CLONE:\n                return index", "pass"),
        ("if step.side == CONTAINER:\n                return index", "pass"),
    ],
)
def test_the_check_on_parts_can_fail(old, new):
    broken = mutant(step_, old, new)

    def check():
        for sides in (
            [HOST, CLONE, HOST], [CONTAINER, CLONE, HOST, CLONE], [CONTAINER, HOST],
            [CLONE, HOST, CONTAINER, HOST],
        ):  # fmt: skip
            check_parts(broken, sides)
            check_parts(broken, [HOST, *sides])

    fails(check)


def test_without_leaves_out_all_steps_of_that_name(module=step_):
    plan = module.Plan(Any_("a", HOST), Any_("b", CLONE), Any_("a", CONTAINER), Any_("c", HOST))
    assert plan.names() == ["a", "b", "c"]
    assert [s.name for s in plan.without("a", "c")] == ["b"]
    assert len(plan) == 4, "the plan itself is as it was"
    assert plan.without() == plan
    with pytest.raises(UsageError, match="'nonsense'") as caught:
        plan.without("a", "nonsense")
    assert caught.value.hint == "the steps are: a, b, c"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("if step.name not in names))", "if step.name in names))"),
        ("            if name not in known:", "            if False:"),
        ("list(dict.fromkeys(step.name for step in self.steps))", "[s.name for s in self.steps]"),
    ],
)
def test_the_check_on_without_can_fail(old, new):
    fails(test_without_leaves_out_all_steps_of_that_name, mutant(step_, old, new))


def test_plans_are_values():
    assert a_plan() == a_plan()
    assert hash(a_plan()) == hash(a_plan())
    assert a_plan() != a_plan(sides=(HOST,))
    assert a_plan() != list(a_plan())


def test_what_a_step_does_unless_it_says_otherwise():
    class Quiet(Step):
        name = "quiet"

    class Born(CloneStep):
        flag = 0x40

    context = Context("id", "/run/id")
    assert Quiet().side == CONTAINER
    assert Quiet().title() == "Quiet"
    assert (Quiet().shell(), Quiet().shell_prefix(), Quiet().shell_undo()) == ("", "", "")
    assert (Quiet().run(context), Quiet().undo(context)) == (None, None)
    assert Born().side == CLONE
    assert Born().wish(context) == 0x40


def test_no_two_contexts_share_anything():
    one, two = Context("1", ""), Context("2", "")
    one.fds["x"], one.blobs["x"] = 1, b""
    one.env.append("A=b")
    one.host_fds.append(3)
    assert (two.fds, two.blobs, two.env, two.host_fds) == ({}, {}, [], [])


@given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))))
def test_quoted_words_are_read_back_by_a_shell_parser(words):
    import shlex

    assert shlex.split(quote(*words)) == words
    assert Plan() == Plan()
