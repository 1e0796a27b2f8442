"""ruff and strict mypy are tests like the others: `make test` is all there is to run."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support import CHECKOUT

CONFIG = str(CHECKOUT / "pyproject.toml")
RUFF = ["ruff", "check", "--output-format", "concise", "--config", CONFIG]
FORMAT = ["ruff", "format", "--check", "--config", CONFIG]
MYPY = ["mypy", "--config-file", CONFIG]
# tools/ are scripts without .py: mypy wants them named
SCRIPTS = [*MYPY, "--strict", "--scripts-are-modules"]


def complaints(*command: str) -> str:
    """What a linter says; "" if it is content."""
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=CHECKOUT, capture_output=True, text=True
    )
    return "" if done.returncode == 0 else done.stdout + done.stderr


@pytest.mark.parametrize(
    "command",
    [[*RUFF, "."], [*FORMAT, "."], MYPY, [*SCRIPTS, "tools/install"], [*SCRIPTS, "tools/docs"]],
    ids=["ruff check", "ruff format", "mypy", "mypy tools/install", "mypy tools/docs"],
)
def test_linters_are_content(command):
    words = complaints(*command)
    assert not words, words


@pytest.mark.parametrize(
    ("command", "text", "complaint"),
    [
        (RUFF, '"""Doc."""\n\nimport os\n', "F401"),
        (RUFF, '"""Doc."""\n\n\ndef public() -> None:\n    pass\n', "D103"),
        (FORMAT, "x = {1:2}\n", "would be reformatted"),
        (MYPY, "def untyped(x):\n    return x\n", "no-untyped-def"),
        (MYPY, "x: int = 'one'\n", "assignment"),
    ],
)
def test_the_check_can_fail(tmp_path, command, text, complaint):
    bad = tmp_path / "bad.py"
    bad.write_text(text)
    assert complaint in complaints(*command, str(bad))
