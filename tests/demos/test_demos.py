"""Every demo is played unattended, on the real kernel, and the host is as before.

The solution passes its check; the plan of the demo before does not, nor does any mutant, and each
fails for the reason that the document names.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pexpect
import prctl
import pytest

from demos import play
from demos.look import processes, until
from demos.play import Demo, Scene, demos, judge, names, show, verdict
from demos.stage import on_stage, wired
from minicontainer import Mount, Process, Root, Spec
from minicontainer.errors import UsageError
from minicontainer.kernel.network import BringUpLoopback
from minicontainer.kernel.overlay import StackLayers
from minicontainer.plan import Place, plan
from minicontainer.spec import DEFAULT_MOUNTS
from minicontainer.step import Plan, Step
from tests.support import CHECKOUT, descriptors, mounts

DEMOS = demos()
SCENES = [
    pytest.param(demo, scene, id=f"{demo.number:02}-{index}-{scene.kind}")
    for demo in DEMOS
    for index, scene in enumerate(demo.scenes)
]
JUDGED = [param for param in SCENES if param.values[1].kind in play.PYTHON]
NEW = re.compile(r"  # new\b")
REPLACES = re.compile(r"  # replaces (\w+): \w+")

each_demo = pytest.mark.parametrize("demo", DEMOS, ids=lambda demo: demo.path.stem)


@pytest.fixture
def untouched() -> Iterator[None]:
    """The host after the test is the host before it, and no process has been left to anyone."""
    before = host()
    prctl.set_child_subreaper(1)
    yield
    try:
        assert until(no_children, 3), "a process is left"
        assert host() == before
    finally:
        prctl.set_child_subreaper(0)


def host() -> tuple[frozenset[str], frozenset[str], str]:
    """What a demo could change."""
    return mounts(), descriptors(), os.uname().nodename


def no_children() -> bool:
    """Has this process no child, nor inherited one?  What has ended is reaped."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return True
    return False


def solution(demo: Demo) -> Scene:
    """The scene with the demo's plan."""
    (scene,) = [scene for scene in demo.scenes if scene.kind == "plan"]
    return scene


def test_a_process_that_is_left_is_seen() -> None:
    pid = os.fork()
    if pid == 0:
        os.execlp("sleep", "sleep", "60")
    assert not no_children()
    os.kill(pid, 9)
    assert until(no_children)


# ---- played


@pytest.mark.requires_root
@pytest.mark.parametrize(("demo", "scene"), SCENES)
def test_what_is_said_is_seen(untouched: None, demo: Demo, scene: Scene) -> None:
    assert show(demo, scene, lambda: None) == ""


@pytest.mark.requires_root
@pytest.mark.parametrize(("demo", "scene"), JUDGED)
def test_the_check_passes_or_says_what_the_mutant_did(
    untouched: None, demo: Demo, scene: Scene
) -> None:
    assert verdict(scene, judge(demo, scene)) == ""


@pytest.mark.requires_root
@pytest.mark.parametrize(
    "demo", [demo for demo in DEMOS if demo.shared], ids=lambda demo: demo.path.stem
)
def test_the_solution_passes_wherever_mounts_propagate(
    untouched: None, demo: Demo, propagation: str
) -> None:
    assert judge(demo, solution(demo), shared=propagation == "shared") == ""


@pytest.mark.requires_root
@each_demo
def test_without_the_new_lines_the_check_fails(untouched: None, demo: Demo) -> None:
    complaint = judge(demo, solution(demo), plan="skeleton")
    assert complaint
    assert "Error" not in complaint, "not an accident, a verdict"


@pytest.mark.requires_root
def test_kill_9_of_the_player_ends_stage_and_container(untouched: None) -> None:
    player = pexpect.spawn(sys.executable, ["-m", "demos", "4"], cwd=CHECKOUT, timeout=20)
    player.expect("Enter")
    player.sendline()
    player.expect("letter\r\n")  # as seen in the container
    (stage,) = children(player.pid)
    (box,) = children(stage)
    assert processes(box)
    os.kill(player.pid, 9)
    player.wait()
    player.close()
    assert until(lambda: no_children() and not Path(f"/proc/{box}").exists(), 5)


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.requires_root
def test_the_command(untouched: None) -> None:
    def command(*words: str) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, "-m", "demos", *words]
        return subprocess.run(line, cwd=CHECKOUT, stdin=subprocess.DEVNULL, capture_output=True,
                              text=True)  # fmt: skip

    done = command("2", "--auto")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("--- the check passes") == 1
    assert done.stdout.count("--- the check says") == 3
    assert command("99").returncode == 1
    listed = command().stdout.splitlines()
    assert [line.split()[0] for line in listed] == [str(demo.number) for demo in DEMOS]


# ---- read


def has_order(steps: list[Step], whole: list[Step]) -> bool:
    """Do the steps stand in the same order in the whole, with others between them?"""
    rest = iter([key(step) for step in whole])
    return all(key(step) in rest for step in steps)


def key(step: Step) -> tuple[type, str]:
    """A step's kind and word.  A demo's own step stands in for the product's that it is made of."""
    kinds = type(step).__mro__
    return next(k for k in kinds if k.__module__.startswith("minicontainer.")), step.name


def product_for(steps: list[Step]) -> list[Step]:
    """What ``minicontainer run --init --tmpfs /tmp`` does, with an image or with a bundle."""
    image = any(isinstance(step, StackLayers) for step in steps)
    spec = Spec(
        process=Process(args=("sh",), init=True),
        root=Root(layers=("/mnt/root",)) if image else Root(path="/mnt/root"),
        hostname="box",
        mounts=(*DEFAULT_MOUNTS, Mount("/tmp", "tmpfs", "tmpfs")),
    )
    return list(plan(spec, Place("box", "/mnt/box", stdio=(3, 4, 4))))


def steps_of(demo: Demo) -> list[Step]:
    return list(names(demo)["solution"]("box"))


@each_demo
def test_the_order_is_the_products(demo: Demo) -> None:
    steps = steps_of(demo)
    assert has_order(steps, product_for(steps))
    assert has_order(list(wired(Plan(*steps), 3, 4)), product_for(steps)), "and what the box adds"
    assert not has_order(steps[::-1], product_for(steps)), "the check can fail"


def unsaid(before: list[Step], now: list[Step], text: str) -> list[str]:
    """How a plan differs from the one before, where its text does not say so."""
    wrong = []
    gone = [type(step).__name__ for step in before if step not in now]
    kept = [step for step in before if step in now]
    new, replaced = len(NEW.findall(text)), REPLACES.findall(text)
    if gone != replaced:
        wrong.append(f"gone are {gone}, and said is {replaced}")
    if [step for step in now if step in before] != kept:
        wrong.append("the order has changed")
    if new + len(replaced) != len(now) - len(kept):
        wrong.append(f"{len(now) - len(kept)} lines differ, {new + len(replaced)} say so")
    return wrong


@each_demo
def test_a_demo_is_the_one_before_and_what_it_says_is_new(demo: Demo) -> None:
    space = names(demo)
    before, now = list(space["skeleton"]("box")), list(space["solution"]("box"))
    (block,) = [block for block in demo.blocks if block.kind == "plan"]
    assert unsaid(before, now, block.text) == []
    # and what would be wrong is seen
    assert unsaid(before, now, block.text.replace("  # new", "  # old")) != []
    assert unsaid([*before, BringUpLoopback()], now, block.text) != []
    if len(before) > 1:
        assert unsaid(before, now[::-1], block.text) == ["the order has changed"]


@each_demo
def test_a_demo_is_short_and_complete(demo: Demo) -> None:
    kinds = [block.kind for block in demo.blocks]
    assert kinds.count("plan") == kinds.count("check") == 1
    assert kinds.count("mutant") >= 2
    assert {"run", "by-hand", "observe"} <= set(kinds)
    earlier = {line for other in DEMOS if other.number < demo.number for line in code(other)}
    assert len([line for line in code(demo) if line not in earlier]) <= 30
    for file in re.findall(r"`([^`]+)`", demo.opens):
        assert (CHECKOUT / "minicontainer" / file).is_file(), file
    assert (demo.minutes.isdigit(), demo.needs) == (True, "root")


def code(demo: Demo) -> list[str]:
    """The lines of its plan, without the blank ones."""
    texts = [block.text for block in demo.blocks if block.kind == "plan"]
    return [line for line in "".join(texts).splitlines() if line.strip()]


def test_the_code_in_the_documents_is_formatted(tmp_path: Path) -> None:
    for demo in DEMOS:
        for index, block in enumerate(demo.blocks):
            if block.kind in play.PYTHON:
                (tmp_path / f"{demo.path.stem}_{index}.py").write_text(block.text)
    config = ["--config", str(CHECKOUT / "pyproject.toml")]
    # A block knows the names of those before it, and imports for those after it.
    check = ["check", *config, "--select", "E,F,W", "--ignore", "F821,F401"]
    for command in (["format", "--check", *config], check):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, str(tmp_path)], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_readme_lists_every_kind_of_block() -> None:
    text = (CHECKOUT / "demos/README.md").read_text()
    kinds = set(re.findall(r"^\| `(?:python|sh|text) ([\w-]+)", text, re.MULTILINE))
    assert kinds == {*play.PYTHON, *play.SHELL, "observe"}


# ---- the player itself: whatever is wrong with a demo is found

SMALL = """\
# Small

| minutes | opens | needs | the stage's / |
|---|---|---|---|
| 1 | nothing | root | private |

```python plan
def plan(name):
    return skeleton(name)
```
```python check
def check():
    with run(plan("box")) as box:
        assert box.ask("echo $0") == "sh\\n", "not a shell"
```
"""


def small(folder: Path, more: str = "") -> Demo:
    (folder / "01_small.md").write_text(SMALL + more)
    return demos(folder)[0]


@pytest.mark.requires_root
@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        ("```sh run\necho one\n```\n```text observe\ntwo\n```\n", "said\ntwo\nbut seen\none"),
        ("```sh host\nexit 3\n```\n", "exit status 3"),
        ("```sh by-hand\nfalse\ntrue\n```\n", "exit status 1"),
        ("```sh run\nexit\n```\n", "'exit' has ended the container"),
        ("```python mutant not a shell\ndef plan(name):\n    return skeleton(name)\n```\n",
         "the check passed; it should have said 'not a shell'"),
        ("```python mutant not a shell\ndef plan(name):\n    return oops\n```\n",
         "is not defined\"; it should have said 'not a shell'"),
        ("```python variant\ndef plan(name):\n    return oops\n```\n", "NameError"),
    ],
)  # fmt: skip
def test_a_demo_that_is_wrong_is_found(
    untouched: None, tmp_path: Path, capfd: pytest.CaptureFixture[str], more: str, complaint: str
) -> None:
    assert play.play(small(tmp_path), lambda: None)
    assert not play.play(small(tmp_path, more), lambda: None)
    assert complaint in capfd.readouterr().out.partition("NOT AS IT SHOULD BE: ")[2]


def test_a_block_of_a_kind_that_there_is_not(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"01_small.md:18: a block of kind 'runn'"):
        small(tmp_path, "\n```sh runn\ntrue\n```\n")


@pytest.mark.requires_root
def test_a_stage_that_dies_has_not_passed(untouched: None) -> None:
    assert on_stage(lambda: os.kill(os.getpid(), 9)) == "the stage fell silent: wait status 9"
    assert on_stage(lambda: os._exit(0)) == "the stage fell silent: wait status 0"


@pytest.mark.requires_root
def test_nothing_of_the_stage_reaches_the_host(untouched: None) -> None:
    before = sorted(os.listdir("/mnt"))

    def act() -> None:
        assert sorted(os.listdir("/mnt")) == ["flag", "root"]
        assert os.uname().nodename == "stage"
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/tmp"], check=True)

    for shared in (False, True):
        assert on_stage(act, shared) == ""
        assert sorted(os.listdir("/mnt")) == before
