"""Play a demo: one Markdown file whose typed blocks are run, each where it belongs.

    sudo .venv/bin/python -m demos 5          waits for Enter before each command
    sudo .venv/bin/python -m demos 5 --auto   does not
    sudo .venv/bin/python -m demos stage      a shell on the stage, to type along
    sudo .venv/bin/python -m demos stage shared             ... where / is shared

README.md explains the blocks.  A demo falls into scenes: a block that says what the container is
(plan, variant, mutant), or a by-hand block, begins one, and each has a fresh stage.
"""

from __future__ import annotations

import doctest
import os
import re
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from demos.stage import INTERRUPTED, PATIENCE, Box, on_stage
from minicontainer.errors import MinicontainerError, UsageError
from minicontainer.kernel.exec import Execute
from minicontainer.step import Plan, Step

HERE = Path(__file__).parent
BLOCK = re.compile(r"^```(\w+) ([\w-]+) ?(.*)\n((?:.*\n)*?)```\n", re.MULTILINE)
FACTS = re.compile(r"^\| minutes \|.*\n\|[-|]+\|\n\| (.*) \|$", re.MULTILINE)
PYTHON = ("plan", "variant", "mutant", "check")
SHELL = ("run", "host", "by-hand")
SCENES = ("plan", "variant", "mutant", "by-hand")


class Block(NamedTuple):
    """A typed block, or the prose before one (kind "prose")."""

    kind: str
    words: str
    text: str
    where: str


class Scene(NamedTuple):
    """What is played on one stage: the prose before it, the block that begins it, the rest."""

    kind: str  # of SCENES; or "prose", before the first
    words: str
    blocks: list[Block]


class Demo:
    """One file.  Raises UsageError for a block of a kind that there is not."""

    def __init__(self, path: Path) -> None:
        self.path, self.number = path, int(path.name[:2])
        text = path.read_text()
        self.title = text.partition("\n")[0].lstrip("# ")
        facts = FACTS.search(text)
        if not facts:
            raise UsageError(f"{path.name} has no table of facts")
        self.minutes, self.opens, self.needs, root = str(facts[1]).split(" | ")
        self.shared = root == "shared"
        self.blocks = blocks(text, path)
        self.scenes = [Scene("prose", "", [])]
        for block in self.blocks:
            if block.kind in SCENES:
                before = self.scenes[-1].blocks
                prose = [before.pop()] if before and before[-1].kind == "prose" else []
                self.scenes.append(Scene(block.kind, block.words, [*prose, block]))
            else:
                self.scenes[-1].blocks.append(block)


def blocks(text: str, path: Path) -> list[Block]:
    """A document cut into typed blocks and the prose between them."""
    found, end = [], 0
    for match in BLOCK.finditer(text):
        where = f"{path.name}:{text.count(chr(10), 0, match.start()) + 2}"
        if match[2] not in (*PYTHON, *SHELL, "observe"):
            raise UsageError(f"{where}: a block of kind {match[2]!r}?")
        if prose := text[end : match.start()]:
            found.append(Block("prose", "", prose, where))
        found.append(Block(match[2], match[3], match[4], where))
        end = match.end()
    return [*found, Block("prose", "", text[end:], path.name)]


def demos(folder: Path = HERE) -> list[Demo]:
    """All of them, in order."""
    return [Demo(path) for path in sorted(folder.glob("[0-9][0-9]_*.md"))]


def just_a_process(name: str) -> Plan:
    """Where the first demo begins: a shell, and nothing private about it."""
    return Plan(Execute(("sh",)))


def instead(plan: Plan, kind: type[Step], step: Step) -> Plan:
    """The plan with ``step`` in the place of the one of this kind."""
    return Plan(*(step if type(old) is kind else old for old in plan))


def names(demo: Demo, scene: Scene | None = None) -> dict[str, Any]:
    """What Python knows in a scene: the plans and checks of all demos so far, one after the other,
    as if typed into one file; ``skeleton`` is the last demo's plan, ``solution`` this one's."""
    space: dict[str, Any] = {"os": os, "Plan": Plan, "instead": instead, "run": Box}
    space["plan"] = just_a_process
    for earlier in demos(demo.path.parent):
        if earlier.number > demo.number:
            break
        space["__name__"], space["skeleton"] = earlier.path.stem, space["plan"]
        for block in earlier.blocks:
            if block.kind in ("plan", "check"):
                execute(block, earlier.path, space)
        space["solution"] = space["plan"]
    for block in scene.blocks if scene else ():
        if block.kind in ("variant", "mutant"):
            execute(block, demo.path, space)
    return space


def execute(block: Block, path: Path, space: dict[str, Any]) -> None:
    """Run a Python block; a traceback will name the line of the Markdown file."""
    line = int(block.where.partition(":")[2])
    exec(compile("\n" * (line - 1) + block.text, path, "exec"), space)


def judge(demo: Demo, scene: Scene, shared: bool | None = None, plan: str = "plan") -> str:
    """What the check has to say against a scene's container, or another plan's; "": nothing."""
    space = names(demo, scene)
    space["plan"] = space[plan]
    return on_stage(space["check"], demo.shared if shared is None else shared)


def show(demo: Demo, scene: Scene, pause: Callable[[], object]) -> str:
    """Print a scene and type what is to be typed, on a stage; what was not as it was said."""
    return on_stage(lambda: perform(scene, names(demo, scene), pause), demo.shared)


def perform(scene: Scene, space: dict[str, Any], pause: Callable[[], object]) -> None:
    """Go through the blocks; the container starts with the first "run".  AssertionError."""
    box, seen = None, ""
    with ExitStack() as stack:
        for block in scene.blocks:
            if block.kind == "prose" or block.kind in PYTHON:
                print(block.text, end="", flush=True)
            elif block.kind == "observe":
                compare(block, seen)
            else:
                prompt = "box# " if block.kind == "run" else "stage# "
                print(prompt + block.text.rstrip().replace("\n", "\n" + " " * len(prompt)))
                pause()
                if block.kind == "run":
                    box = box or stack.enter_context(Box(space["plan"]("box")))
                    seen = box.ask(block.text.rstrip())
                else:
                    seen = on_host(block, box.pid if box else 0)
                print(seen, end="", flush=True)


def on_host(block: Block, pid: int) -> str:
    """Run a block's commands beside the container; $PID is its first process."""
    path = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"
    done = subprocess.run(
        ["sh", "-euc", block.text], env={"PATH": path, "PID": str(pid), "LC_ALL": "C"},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=PATIENCE,
    )  # fmt: skip
    assert done.returncode == 0, f"{block.where}: exit status {done.returncode}\n{done.stdout}"
    return done.stdout


def compare(block: Block, seen: str) -> None:
    """Raise AssertionError unless it was seen as said; "..." stands for anything."""
    options = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    same = doctest.OutputChecker().check_output(block.text, seen, options)
    assert same, f"{block.where}: said\n{block.text}but seen\n{seen}"


def play(demo: Demo, pause: Callable[[], object]) -> bool:
    """Play a demo from the first scene to the last; was all as it should be?"""
    well = True
    for scene in demo.scenes:
        wrong = show(demo, scene, pause)
        if wrong == INTERRUPTED:
            return False
        if scene.kind in PYTHON:
            complaint = judge(demo, scene)
            print(f"--- the check {'says: ' + complaint if complaint else 'passes'}\n", flush=True)
            wrong = wrong or verdict(scene, complaint)
        if wrong:
            print(f"--- NOT AS IT SHOULD BE: {wrong}\n", flush=True)
            well = False
    return well


def verdict(scene: Scene, complaint: str) -> str:
    """Did the check say what it should?  It must find nothing, or in a mutant just that fault."""
    if scene.kind != "mutant":
        return complaint
    said = f"the check said {complaint!r}" if complaint else "the check passed"
    return "" if scene.words in complaint else f"{said}; it should have said {scene.words!r}"


def main(arguments: list[str]) -> int:
    """The list of demos, one of them, or a shell on the stage; the exit status."""
    auto = "--auto" in arguments or not sys.stdin.isatty()
    words = [word for word in arguments if word != "--auto"]
    if not words:
        for demo in demos():
            print(f"{demo.number:2}  {demo.title:34} {demo.minutes:>2} min  {demo.opens}")
        return 0
    if os.geteuid() != 0:
        print("the demos make containers: run this as root, or with sudo", file=sys.stderr)
        return 1
    if words[0] == "stage":
        on_stage(lambda: subprocess.call("sh"), "shared" in words)
        return 0
    for demo in demos():
        if str(demo.number) == words[0].lstrip("0"):
            try:
                return int(not play(demo, (lambda: None) if auto else (lambda: input("[Enter] "))))
            except KeyboardInterrupt:
                return 130
            except MinicontainerError as error:
                print(f"{error.message}\n{error.hint}".rstrip(), file=sys.stderr)
                return 1
    print(f"there is no demo {words[0]!r}: python -m demos lists them", file=sys.stderr)
    return 1
