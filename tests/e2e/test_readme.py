"""The README's transcript is true, and its Python runs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import CHECKOUT, Cli

pytestmark = pytest.mark.requires_root

TEXT = (CHECKOUT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    """The fenced blocks of this language."""
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)


def transcript() -> list[tuple[str, str]]:
    """Each command of the console block with what it printed."""
    (block,) = blocks("console")
    parts = re.split(r"^# (.+)\n", block, flags=re.MULTILINE)[1:]
    return list(zip(parts[::2], parts[1::2], strict=True))


def matches(expected: str, seen: str) -> bool:
    """Is it what was expected, where ``...`` stands for anything and blanks for any blanks?"""
    pieces = (re.escape(" ".join(piece.split())) for piece in expected.split("..."))
    return re.fullmatch(".*".join(pieces), " ".join(seen.split())) is not None


@pytest.mark.parametrize(("command", "expected"), transcript())
def test_the_transcript_is_true(alpine: Cli, command: str, expected: str) -> None:
    folder = alpine.launcher.parent
    done = subprocess.run(
        ["sh", "-c", f'PATH="{folder}:$PATH"; {command}'],
        env=alpine.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    assert matches(expected, done.stdout), done.stdout


def test_a_false_transcript_is_noticed() -> None:
    assert matches("a ... c\n", "a b b c\n")
    assert not matches("a ... c\n", "a b b d\n")
    assert not matches("", "something\n")


def test_the_python_runs(alpine: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from minicontainer.image.store import Store

    image = Store(str(alpine.root)).get("alpine")
    assert image is not None
    (code,) = blocks("python")
    code = code.replace("/srv/rootfs", image.layers[0])
    done = subprocess.run(
        [sys.executable, "-c", code + "print(status)"],
        cwd=CHECKOUT, env=alpine.env, capture_output=True, text=True,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("hello\n0\n", "")
