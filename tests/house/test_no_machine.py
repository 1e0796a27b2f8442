"""Nothing in the repository speaks of the machine it was written on."""

from __future__ import annotations

import re

import pytest

from tests.house.source import tracked_files
from tests.support import CHECKOUT

# Written apart, so that this file does not find itself.
FOREIGN = re.compile(
    rb"(?<![\w.}])/(wo" rb"rk/(main|\.?\w+ed|\.lib)|fa" rb"rm/|opt/py" rb"pi|root/\.py" rb"env)"
    rb"|/tmp/hel" rb"pers|(?<![\w.-])sha" rb"red/(images|bench|guest|hooks|\w+\.md)"
)  # fmt: skip

# CI finds the Alpine archive beside its clone; nothing else may know that folder.
ALLOWED = {".ci/run"}

BINARY = {".png", ".gif", ".jpg", ".cast"}


def foreign_words(data: bytes) -> list[str]:
    """The places of a text that name such a path."""
    return [match.group().decode() for match in FOREIGN.finditer(data)]


def test_no_file_names_this_machine():
    found = {
        str(path.relative_to(CHECKOUT)): words
        for path in tracked_files()
        if (words := foreign_words(path.read_bytes()))
    }
    assert {name: words for name, words in found.items() if name not in ALLOWED} == {}


def test_no_binaries():
    """Root file systems and programs are made by recipes, not kept."""
    found = [
        str(path.relative_to(CHECKOUT))
        for path in tracked_files()
        if b"\0" in path.read_bytes()[:8000] and path.suffix not in BINARY
    ]
    assert found == []


@pytest.mark.parametrize(
    "text", ["see /wo" "rk/main", "../sha" "red/images/", "cd /tmp/hel" "pers/x", "=/fa" "rm/y"]
)  # fmt: skip
def test_the_check_can_fail(text):
    assert foreign_words(text.encode()) != []


@pytest.mark.parametrize("text", ["make-rshared /images", "upper and work", "a.shared/images"])
def test_the_check_passes_what_only_looks_alike(text):
    assert foreign_words(text.encode()) == []
