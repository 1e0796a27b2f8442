"""narrate: tell a launch while it happens (``run --explain``).

Nothing here knows a step: what is told is what each Step says of itself, so that story and deed
cannot drift apart.  The levels:

    0   a line for each phase, with its time
    1   each step: why (its docstring), and what a person would type
    2   and the system calls with their results, the kernel's object, where the code stands
    3   and /proc before and after, and what would break without it

It goes to standard error: standard output is the container's.  What an image or a user has chosen
may hold anything, also what moves a terminal's cursor, so nothing is printed unescaped.
"""

from __future__ import annotations

import os
import time

from minicontainer import state, story
from minicontainer.errors import MinicontainerError, UsageError
from minicontainer.look import differences, look, suspects
from minicontainer.pause import Pause
from minicontainer.step import CLONE, Context, Narrator, Plan, Step
from minicontainer.story import by_hand, cut, folded, phases, printable, where, why

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

WIDTH = 80
_LABEL = 8  # columns of "why", "call", ...
_SHELL_LINES = (0, 4, 6, 12)  # how many are shown, by level; --as-shell has them all


class Explainer(Narrator):
    """Tells each step as it happens.  ``emit`` gets a dictionary for each event; the subclasses
    make text or JSON of it."""

    def __init__(self, level: int = 1, wait: Callable[[], None] | None = None) -> None:
        super().__init__()
        self.level = level
        self.wait = wait
        self._total = 0
        self._number: dict[int, int] = {}
        self._heading: dict[int, str] = {}
        self._before: dict[str, str] = {}
        self._began = 0

    def emit(self, event: dict[str, Any]) -> None:
        """Tell one event: "plan", "step", "failed" or "running"."""
        raise NotImplementedError

    def planned(self, plan: Plan, context: Context) -> None:
        """Remember the numbers and the chapters."""
        self._total = len(plan)
        self._number = {id(step): index for index, step in enumerate(plan, 1)}
        self._heading = {id(step): heading for heading, steps in phases(plan) for step in steps}
        self._began = time.monotonic_ns()
        self.emit({"event": "plan", "id": context.id, "steps": self._total})

    def begin(self, step: Step, context: Context) -> None:
        """Look at /proc as it is before."""
        self._before = self._look(step, context.pid)

    def end(self, step: Step, context: Context, nanoseconds: int, calls: list[str]) -> None:
        """Tell the step."""
        self._step(step, context, calls, nanoseconds)

    def cloned(self, steps: list[Step], context: Context, nanoseconds: int) -> None:
        """Tell each namespace; "before" is how the runtime itself lives.  One call did it all."""
        calls = self.calls
        for step in steps:
            self._before = self._look(step, 0)
            self._step(step, context, calls, nanoseconds)
            calls, nanoseconds = [], 0

    def failed(self, steps: list[Step], context: Context, error: BaseException) -> None:
        """Tell what failed, and who may have said no."""
        for step in steps:
            event = self._event("failed", step, context, self.calls)
            told = error.message if isinstance(error, MinicontainerError) else str(error)
            event["error"] = told or type(error).__name__
            event["hint"] = getattr(error, "hint", "")
            event["suspects"] = suspects(error)
            self.emit(event)
            return  # the CLONE steps fail as one

    def running(self, context: Context) -> None:
        """Tell that it does, and how long it took to come to that."""
        took = (time.monotonic_ns() - self._began) / 1e6
        program = look(context.pid, "exe") if self.level >= 2 else ""
        self.emit(
            {"event": "running", "pid": context.pid, "ms": round(took, 3), "program": program}
        )

    def _look(self, step: Step, pid: int) -> dict[str, str]:
        return {entry: look(pid, entry) for entry in step.look} if self.level >= 2 else {}

    def _step(
        self, step: Step, context: Context, calls: list[str], nanoseconds: int | None = None
    ) -> None:
        event = self._event("step", step, context, calls)
        if nanoseconds is not None:
            event["ms"] = round(nanoseconds / 1e6, 3)
        self.emit(event)
        if self.wait:
            self.wait()

    def _event(self, kind: str, step: Step, context: Context, calls: list[str]) -> dict[str, Any]:
        """What there is to tell at this level."""
        event: dict[str, Any] = {
            "event": kind, "phase": self._heading.get(id(step), ""), "side": step.side,
            "number": self._number.get(id(step), 0), "total": self._total,
            "name": step.name, "title": step.title(),
        }  # fmt: skip
        if self.level >= 1:
            event.update(why=why(step), shell=by_hand(step))
        if self.level >= 2:
            event.update(source=where(step), calls=calls)
            if step.side != CLONE:
                event["does"] = (type(step).run.__doc__ or "").strip().replace("``", "`")
            event["before"], event["after"] = self._before, self._look(step, context.pid)
        if self.level >= 3:
            event["without"] = step.without
        return event


class TextExplainer(Explainer):
    """Plain lines of 80 columns, for a person; a little bold at a terminal."""

    def __init__(
        self, level: int = 1, wait: Callable[[], None] | None = None, colour: bool = False,
        write: Callable[[str], None] | None = None,
    ) -> None:  # fmt: skip
        super().__init__(level, wait)
        self._colour = colour
        self._write = write or to_stderr
        self._phase = ""
        self._sum, self._count = 0.0, 0
        self._scratch, self._scratch_told = "\0", False

    def planned(self, plan: Plan, context: Context) -> None:
        """Remember, too, the long path that stands in many of the shell's lines."""
        super().planned(plan, context)
        self._scratch = state.scratch(context.id)

    def emit(self, event: dict[str, Any]) -> None:
        """Print the event."""
        lines = self._chapter(event.get("phase", ""), event.get("ms", 0.0))
        if event["event"] == "running":
            what = f"the program {event['program']}".strip()
            lines.append(cut(f"{printable(what)} runs: process {event['pid']} on the host, after "
                             f"{event['ms']:.2f} ms of telling and doing", WIDTH))  # fmt: skip
        elif event["event"] == "failed" or (event["event"] == "step" and self.level >= 1):
            lines += [self._title(event), *self._body(event), ""]
        if lines:
            self._write("".join(line + "\n" for line in lines))

    def _chapter(self, phase: str, milliseconds: float) -> list[str]:
        """A heading where a new phase begins; at level 0 a sum where one ends."""
        lines = []
        if phase != self._phase:
            if self._phase and self.level == 0:
                steps = f"{self._count} step{'s' if self._count > 1 else ''}"
                left = cut(self._phase, WIDTH - 23)
                lines.append(f"{left:{WIDTH - 23}} {steps:>8} {self._sum:9.2f} ms")
            if phase and self.level >= 1:
                lines += [self._paint("1", f"== {phase}"), ""]
            self._phase, self._sum, self._count = phase, 0.0, 0
        self._sum, self._count = self._sum + milliseconds, self._count + 1
        return lines

    def _title(self, event: dict[str, Any]) -> str:
        left = f"[{event['number']}/{event['total']}] {printable(event['title'])}"
        right = f"{event['ms']:.2f} ms" if event.get("ms") else ""
        source = event.get("source", "").removeprefix("minicontainer/")
        right = f"{source}  {right}".strip()
        left = cut(left, max(WIDTH - len(right) - 2, 30))
        code = "1;31" if event["event"] == "failed" else "1"
        return f"{self._paint(code, left)}{right:>{WIDTH - len(left)}}".rstrip()

    def _body(self, event: dict[str, Any]) -> list[str]:
        lines = self._label("why", event.get("why", "").split("\n"))
        lines += self._label("error", [event.get("error", "")])
        lines += self._label("hint", [event.get("hint", "")])
        lines += self._label("who", event.get("suspects", []))
        lines += self._label("does", [event.get("does", "")])
        calls = story.repeated(event.get("calls", []))
        lines += self._label("call", story.shorten(calls, 4 if self.level < 3 else 40))
        lines += self._label("shell", self._shell(event.get("shell", "")))
        for entry, after in event.get("after", {}).items():
            lines += self._label("object", self._object(entry, event["before"][entry], after))
        return lines + self._label("without", [event.get("without", "")])

    def _shell(self, text: str) -> list[str]:
        """The shell's lines; the path of the container's own directory is told once."""
        most = _SHELL_LINES[self.level]
        lines = story.shorten(text.replace(self._scratch, "$SCRATCH").split("\n"), most)
        if self._scratch in text and not self._scratch_told:
            lines, self._scratch_told = [f"SCRATCH={self._scratch}", *lines], True
        return [
            part for line in lines for part in folded(printable(line), WIDTH - _LABEL - 6, most)
        ]

    def _object(self, entry: str, before: str, after: str) -> list[str]:
        """What became of a place in /proc."""
        if "\n" in before + after:
            lines = story.shorten(differences(before, after), 2 if self.level < 3 else 8)
            return [f"{entry}  {line}" for line in lines] or [f"{entry}  unchanged"]
        if self.level >= 3 and before != after:
            return [f"{entry}  {before or '(nothing)'} -> {after or '(nothing)'}"]
        return [f"{entry}  {after or '(nothing)'}"]

    def _label(self, label: str, texts: list[str]) -> list[str]:
        """Each text wrapped to the width, the first line behind the label."""
        import textwrap

        lines: list[str] = []
        for text in filter(None, texts):
            lines += textwrap.wrap(printable(text), WIDTH - _LABEL - 6, break_on_hyphens=False)
        margin = " " * (_LABEL + 6)
        return [
            f"      {self._paint('2', f'{label:{_LABEL}}')}{line}" if index == 0 else margin + line
            for index, line in enumerate(lines)
        ]

    def _paint(self, code: str, text: str) -> str:
        return f"\033[{code}m{text}\033[0m" if self._colour else text


class JsonExplainer(Explainer):
    """One JSON object a line, for a program: what the text tells, nothing cut or escaped twice."""

    def __init__(
        self, level: int = 1, wait: Callable[[], None] | None = None,
        write: Callable[[str], None] | None = None,
    ) -> None:  # fmt: skip
        super().__init__(level, wait)
        self._write = write or to_stderr

    def emit(self, event: dict[str, Any]) -> None:
        """Print the event; json keeps to ASCII, so no control character gets through."""
        import json

        self._write(json.dumps(event) + "\n")


def make_explainer(level: int = 1, pause: bool = False, form: str = "text") -> Explainer:
    """The narrator for ``run --explain=LEVEL [--pause] [--explain-format text|json]``.

    Raises UsageError for a level or format that does not exist, or --pause without a terminal."""
    if not 0 <= level <= 3:
        raise UsageError(f"--explain={level}: the levels are 0, 1, 2 and 3")
    if form not in ("text", "json"):
        raise UsageError(f"--explain-format {form}: text or json")
    wait = Pause() if pause else None
    if form == "json":
        return JsonExplainer(level, wait)
    plain = "NO_COLOR" in os.environ or os.environ.get("TERM", "dumb") == "dumb"
    return TextExplainer(level, wait, colour=not plain and os.isatty(2))


def to_stderr(text: str) -> None:
    """write(2) at once: nothing of it may lie in a buffer that the clone copies."""
    data = text.encode("utf-8", "backslashreplace")
    try:
        while data:
            data = data[os.write(2, data) :]
    except OSError:
        return  # nobody reads it: the container matters more
