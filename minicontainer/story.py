"""story: a Plan as something to read, before anything of it has happened (``run --dry-run``).

Nothing here knows a step: what is told is what each Step says of itself.  narrate.py tells the
same while it happens, asshell.py as a script.
"""

from __future__ import annotations

from minicontainer.step import Plan, Step

# The chapters; pivot_root(2) is the watershed inside the container.
READY = "on the host: make ready"
CLONING = "the clone: one system call makes the child"
WAITING = "on the host, while the child waits"
ENTERING = "in the container: still the host's files"
SETTLING = "in the container: its own files, and less and less power"
LETTING_GO = "on the host, while the trampoline waits"


def phases(plan: Plan) -> list[tuple[str, list[Step]]]:
    """The chapters of the story that are not empty, each with its steps."""
    inside = plan.container()
    watershed = next((i + 1 for i, step in enumerate(inside) if step.name == "pivot"), 0)
    chapters = [
        (READY, plan.before_clone()), (CLONING, plan.clone()), (WAITING, plan.after_clone()),
        (ENTERING, inside[:watershed]), (SETTLING, inside[watershed:]),
        (LETTING_GO, plan.before_program()),
    ]  # fmt: skip
    return [(heading, steps) for heading, steps in chapters if steps]


def render(plan: Plan) -> str:
    """The plan as text, a line for each step: number, side, the word for --without, title."""
    number = {id(step): index for index, step in enumerate(plan, 1)}
    column = max(len(printable(step.name)) for step in plan) if len(plan) else 0
    lines = []
    for heading, steps in phases(plan):
        lines.append(heading)
        for step in steps:
            line = f"{number[id(step)]:4}  {step.side:9}  {printable(step.name):{column}}  "
            lines.append(cut(line + printable(step.title()), 100))
        lines.append("")
    return "\n".join(lines)


def printable(text: str) -> str:
    """``text`` with whatever is no ordinary character escaped, as Python's repr does."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def cut(line: str, width: int) -> str:
    """``line``, or as much of it as fits."""
    return line if len(line) <= width else line[: width - 4] + " ..."


def shorten(lines: list[str], most: int) -> list[str]:
    """``lines``, or where they are too many the first and the last, and how many lie between."""
    if len(lines) <= most:
        return lines
    return [*lines[: most - 2], f"(... {len(lines) - most + 1} more ...)", lines[-1]]


def repeated(lines: list[str]) -> list[str]:
    """``lines`` with those that follow their like counted instead of told."""
    told: list[tuple[str, int]] = []
    for line in lines:
        if told and told[-1][0] == line:
            told[-1] = (line, told[-1][1] + 1)
        else:
            told.append((line, 1))
    return [line if count == 1 else f"{line}  ({count} times)" for line, count in told]


def folded(line: str, width: int, most: int) -> list[str]:
    """A long shell line as at most ``most`` short ones: broken between words, and inside of a word
    only where it alone is too long, behind a comma or else a slash."""
    if len(line) <= width:
        return [line]
    lines = [""]
    for atom in atoms(line, width - 2, (" ", ",", "/=:")):
        if len(lines[-1] + atom.rstrip()) <= width:
            lines[-1] += atom
        else:
            lines.append("  " + atom)
    lines = [line.rstrip() for line in lines if line]
    return lines if len(lines) <= most else [*lines[: most - 1], "  ..."]


def atoms(text: str, width: int, breaks: tuple[str, ...]) -> list[str]:
    """``text`` in pieces no longer than ``width``, broken behind the first of the ``breaks`` that
    will do."""
    import re

    if len(text) <= width:
        return [text]
    if not breaks:
        return [text[at : at + width] for at in range(0, len(text), width)]
    parts = re.split(f"(?<=[{breaks[0]}])", text)
    return [atom for part in parts if part for atom in atoms(part, width, breaks[1:])]


def where(step: Step) -> str:
    """File and line of the step's class: "minicontainer/kernel/mounts.py:61"."""
    import sys

    kind = type(step)
    shown = kind.__module__.replace(".", "/") + ".py"
    try:
        with open(sys.modules[kind.__module__].__file__ or "", encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                if line.startswith(f"class {kind.__name__}("):
                    return f"{shown}:{number}"
    except (OSError, KeyError):
        pass  # no source here
    return shown


def why(step: Step) -> str:
    """The docstring of the step's class, as paragraphs of one line each."""
    paragraphs = (type(step).__doc__ or "").strip().split("\n\n")
    return "\n".join(" ".join(p.replace("``", "`").split()) for p in paragraphs)


def by_hand(step: Step) -> str:
    """What a person would type; three dots stand for what comes later."""
    prefix = step.shell_prefix()
    return "\n".join(filter(None, (step.shell(), f"{prefix} ..." if prefix else "")))
