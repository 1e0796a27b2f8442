"""QEMU without KVM: a whole machine, emulated, for what User-Mode Linux lacks.  Not there yet."""

from __future__ import annotations

from collections.abc import Iterator

ORDERS: dict[str, object] = {}


def missing() -> str:
    """What is not installed, for a sentence; "" if nothing is."""
    return "qemu-system-x86"


def commands(
    work: str, memory: str, fds: dict[str, int], command: list[str]
) -> Iterator[tuple[list[str], dict[str, str]]]:
    """The commands that start it, each with its environment."""
    raise NotImplementedError
