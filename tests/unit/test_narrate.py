"""What `--explain` prints, told to it event by event; no container is made here."""

from __future__ import annotations

import errno
import json
import os
import pty
import subprocess
import sys
import sysconfig
from typing import Any, ClassVar

import pytest

from minicontainer import narrate, state
from minicontainer.errors import KernelError, UsageError
from minicontainer.narrate import JsonExplainer, TextExplainer, make_explainer
from minicontainer.step import HOST, CloneStep, Context, Plan, Step
from tests.support import CHECKOUT
from tests.unit.mutants import fails, mutant

HOSTILE = "\x1b[2Jevil\r\nline\u202e\x9b"


class Prepare(Step):
    """Make ready.

    For a second reason, with ``code``."""

    side: ClassVar[str] = HOST
    name = "prepare"
    without = "nothing is ready"

    word: str = "it"

    def title(self) -> str:
        return f"prepare {self.word}"

    def shell(self) -> str:
        return f"touch '{self.word}'\n" + "\n".join(f"line {n}" for n in range(20))

    def run(self, context: Context) -> None:
        """mkdir(2)."""


class Born(CloneStep):
    """In a world of its own."""

    name = "born"
    without = "it would not be born"
    look = ("ns/mnt",)

    def title(self) -> str:
        return "be born"

    def shell_prefix(self) -> str:
        return "unshare --mount"


class Live(Step):
    """Live there."""

    name = "live"
    without = "it would not live"
    look = ("status:CapBnd", "fd")

    def title(self) -> str:
        return "live"

    def run(self, context: Context) -> None:
        """capset(2)."""


def tell(level: int, kind: Any = TextExplainer, word: str = "it", **options: Any) -> str:
    """The story of a small launch, whose child is this very process."""
    said: list[str] = []
    plan = Plan(Prepare(word), Born(), Live())
    explainer = kind(level, write=said.append, **options)
    context = Context("the-id", "")
    explainer.planned(plan, context)
    first, born, last = plan.steps
    explainer.begin(first, context)
    explainer.end(first, context, 1_500_000, [f'mkdir("{word}") = 0', "same() = 1", "same() = 1"])
    context.pid = os.getpid()
    explainer.calls = ["clone3(CLONE_NEWNS) = 7"]
    explainer.cloned([born], context, 250_000)
    explainer.begin(last, context)
    explainer.end(last, context, 10_000, [])
    explainer.running(context)
    return "".join(said)


def test_level_0_is_a_line_for_each_phase() -> None:
    lines = tell(0).strip().split("\n")
    assert [line[:6] for line in lines] == ["on the", "the cl", "in the", "the pr"]
    assert lines[0].endswith("1 step      1.50 ms")
    assert max(map(len, lines)) <= 80


def test_level_1_has_why_and_by_hand() -> None:
    text = tell(1)
    assert "\n[1/3] prepare it" in text and "\n[2/3] be born" in text and "\n[3/3] live" in text
    assert "      why     Make ready.\n              For a second reason, with `code`.\n" in text
    assert (
        "      shell   touch 'it'\n              line 0\n              (... 18 more ...)\n" in text
    )
    assert "      shell   unshare --mount ...\n" in text
    assert "1.50 ms\n" in text
    for word in ("  call  ", "  object  ", "  without ", "test_narrate.py"):
        assert word not in text


def test_level_2_has_calls_and_objects() -> None:
    text = tell(2)
    assert '      call    mkdir("it") = 0\n              same() = 1  (2 times)\n' in text
    assert "      does    mkdir(2).\n" in text
    assert "      call    clone3(CLONE_NEWNS) = 7\n" in text
    assert f"      object  ns/mnt  {os.readlink('/proc/self/ns/mnt')}\n" in text
    assert "test_narrate.py" in text.split("\n")[2]
    assert "without" not in text


def test_level_3_has_before_after_and_without() -> None:
    said: list[str] = []
    explainer = TextExplainer(3, write=said.append)
    context, step = Context("id", ""), Live()
    explainer.planned(Plan(step), context)
    explainer.begin(step, context)
    explainer._before = {"status:CapBnd": "before", "fd": "0 -> /dev/null"}
    explainer.end(step, context, 1000, [])
    text = "".join(said)
    assert "      object  status:CapBnd  before -> 0" in text
    assert "fd  - 0 -> /dev/null" in text or "fd  + " in text
    assert "      without it would not live\n" in text


@pytest.mark.parametrize("level", [0, 1, 2, 3])
def test_what_others_chose_is_escaped(level: int) -> None:
    text = tell(level, word=HOSTILE)
    assert all(line.isprintable() for line in text.split("\n"))
    if level:
        assert "prepare \\x1b[2Jevil\\r\\nline" in text


def check_scratch(module: Any = narrate) -> None:
    """The container's own directory has a long name: told once, and a short one from then on."""
    scratch = state.scratch("the-id")
    text = tell(1, module.TextExplainer, word=f"{scratch}/upper")
    assert f"      shell   SCRATCH={scratch}\n              touch '$SCRATCH/upper'\n" in text
    assert text.count(f"SCRATCH={scratch}") == 1
    assert "SCRATCH" not in tell(1, module.TextExplainer)
    event = json.loads(tell(1, module.JsonExplainer, word=f"{scratch}/upper").split("\n")[1])
    assert f"{scratch}/upper" in event["shell"], "a program needs no short names"
    said: list[str] = []
    explainer = module.TextExplainer(1, write=said.append)
    steps = Prepare(f"{scratch}/one"), Prepare(f"{scratch}/two")
    explainer.planned(Plan(*steps), Context("the-id", ""))
    for step in steps:
        explainer.end(step, Context("the-id", ""), 0, [])
    assert "".join(said).count("SCRATCH=") == 1


def test_a_long_path_has_a_short_name() -> None:
    check_scratch()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('text.replace(self._scratch, "$SCRATCH")', "text"),
        ("if self._scratch in text and not self._scratch_told:", "if self._scratch in text:"),
        ("if self._scratch in text and not self._scratch_told:", "if not self._scratch_told:"),
        ("self._scratch = state.scratch(context.id)", "pass"),
    ],
)
def test_the_check_on_the_short_name_can_fail(old: str, new: str) -> None:
    fails(check_scratch, mutant(narrate, old, new))


@pytest.mark.parametrize("level", [0, 1, 2, 3])
def test_eighty_columns(level: int) -> None:
    assert max(len(line) for line in tell(level, word="x" * 200).split("\n")) <= 80


@pytest.mark.parametrize("level", [0, 1, 2, 3])
def test_json_is_one_object_a_line(level: int) -> None:
    text = tell(level, JsonExplainer, word=HOSTILE)
    assert text.isascii()
    events = [json.loads(line) for line in text.strip().split("\n")]
    assert [event["event"] for event in events] == ["plan", "step", "step", "step", "running"]
    step = events[1]
    assert (step["number"], step["total"], step["name"], step["ms"]) == (1, 3, "prepare", 1.5)
    assert step["title"] == f"prepare {HOSTILE}"
    assert ("why" in step, "calls" in step, "without" in step) == (level > 0, level > 1, level > 2)
    if level >= 2:
        assert events[2]["after"] == {"ns/mnt": os.readlink("/proc/self/ns/mnt")}


def test_failure_is_told() -> None:
    said: list[str] = []
    explainer = TextExplainer(1, write=said.append)
    context, step = Context("id", ""), Live()
    explainer.planned(Plan(step), context)
    explainer.begin(step, context)
    error = KernelError("mount", "...", errno.EROFS, "meaning", "a hint")
    explainer.failed([step], context, error)
    text = "".join(said)
    assert "      error   mount(...) failed: EROFS (Read-only file system): meaning\n" in text
    assert "      hint    a hint\n" in text
    assert "      who     a read-only mount, most likely" in text


def test_colour_only_where_asked() -> None:
    assert "\x1b" not in tell(1)
    assert "\x1b[1m[1/3]" in tell(1, colour=True)


def test_make_explainer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(narrate.os, "isatty", lambda fd: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert make_explainer(1)._colour is True  # type: ignore[attr-defined]
    monkeypatch.setenv("NO_COLOR", "1")
    assert make_explainer(1)._colour is False  # type: ignore[attr-defined]
    assert isinstance(make_explainer(2, form="json"), JsonExplainer)
    for level, form in ((4, "text"), (-1, "text"), (1, "xml")):
        with pytest.raises(UsageError):
            make_explainer(level, form=form)


PAUSING = """
from minicontainer.narrate import Pause
pause = Pause()
for n in (1, 2, 3):
    pause()
    print("after", n, flush=True)
"""


def in_session(program: str, *, terminal: bool) -> tuple[subprocess.Popen[str], int]:
    """Python in a session of its own, with a controlling terminal or none."""
    master, slave = pty.openpty()
    code = program
    if terminal:
        code = f"import fcntl, termios; fcntl.ioctl({slave}, termios.TIOCSCTTY, 0)\n{program}"
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        cwd=CHECKOUT, start_new_session=True, pass_fds=(slave,),
    )  # fmt: skip
    os.close(slave)
    return process, master


def test_pause_waits_for_enter() -> None:
    process, master = in_session(PAUSING, terminal=True)
    assert process.stdout and process.stderr
    assert b"Enter" in os.read(master, 100)  # it asks, and has not gone on
    os.write(master, b"\n")
    assert process.stdout.readline() == "after 1\n", process.stderr.read()
    os.write(master, b"c\n")  # all the rest without a pause
    assert process.communicate(timeout=20)[0] == "after 2\nafter 3\n"
    os.close(master)


def test_pause_without_a_terminal_is_an_error() -> None:
    process, master = in_session(PAUSING, terminal=False)
    _, err = process.communicate(timeout=20)
    assert "UsageError: --pause has nobody to wait for" in err
    os.close(master)


def test_who_does_not_explain_does_not_load_it() -> None:
    packages = sysconfig.get_path("purelib")
    program = (
        f"import sys; sys.path += {[str(CHECKOUT), packages]!r}; import minicontainer.runtime; "
        "print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    loaded = {name.removeprefix("minicontainer.") for name in done.stdout.split()}
    assert "runtime" in loaded
    assert not {"narrate", "look", "story", "asshell", "without"} & loaded


def test_nobody_listens_without_a_narrator() -> None:
    """The one test that every system call makes: is there a trace?"""
    from minicontainer import libc

    assert libc.trace is None
    assert libc.check(5, "call", object()) == 5
