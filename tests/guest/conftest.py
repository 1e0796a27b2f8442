"""What the tests of guests share."""

from __future__ import annotations

import pytest

from tests.guest import plugin, uml


@pytest.fixture(scope="session")
def guest() -> None:
    """User-Mode Linux is installed, for a test that boots it by itself: in CI it has to be."""
    if package := uml.missing():
        plugin.refuse(f"guest ({package})")
