"""Fixtures for the tests of images."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from minicontainer.image.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty store."""
    return Store(str(tmp_path / "data"))


@pytest.fixture(scope="session")
def alpine_archive() -> Path:
    """The real Alpine, from a folder of MINICONTAINER_IMAGES."""
    for folder in os.environ.get("MINICONTAINER_IMAGES", "").split(":"):
        for path in Path(folder or "/nonexistent").glob("alpine-minirootfs-*.tar.gz"):
            return path
    pytest.skip("no alpine image: no archive folder was named, and no network is here")
