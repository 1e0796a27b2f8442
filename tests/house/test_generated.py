"""What the documents quote is what the code prints."""

from __future__ import annotations

import pytest

from tests.support import CHECKOUT, load_tool

docs = load_tool("docs")

BLOCK = "# Title\n\n<!-- generated: {command} -->\n```\n{text}```\n<!-- end -->\n\nEnd.\n"


def test_generated_blocks_are_fresh():
    assert docs.stale_files(CHECKOUT) == []


def test_there_are_generated_blocks():
    """Else the test above would pass for want of anything to look at."""
    assert [file for file in docs.markdown_files(CHECKOUT) if docs.BLOCK.search(file.read_text())]


def test_the_check_can_fail(tmp_path):
    stale = tmp_path / "stale.md"
    stale.write_text(BLOCK.format(command="echo now", text="then\n"))
    (tmp_path / "fresh.md").write_text(BLOCK.format(command="echo now", text="now\n"))
    assert docs.stale_files(tmp_path) == [stale]
    assert docs.stale_files(tmp_path, rewrite=True) == [stale]
    assert stale.read_text() == BLOCK.format(command="echo now", text="now\n")
    assert docs.stale_files(tmp_path) == []


def test_a_failing_command_is_an_error(tmp_path):
    (tmp_path / "bad.md").write_text(BLOCK.format(command="false", text=""))
    with pytest.raises(docs.subprocess.CalledProcessError):
        docs.stale_files(tmp_path)
