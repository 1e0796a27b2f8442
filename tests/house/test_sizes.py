"""A file is read in five minutes, so it is no longer than that."""

from __future__ import annotations

from pathlib import Path

from tests.house.source import PACKAGE, modules

KERNEL, OTHER = 220, 300

# Longer, with the reason; a number here is a limit too.
EXCEPTIONS: dict[str, tuple[int, str]] = {}


def too_long(package: Path) -> list[str]:
    """Files beyond their limit."""
    wrong = []
    for module in modules(package):
        usual = KERNEL if module.name.startswith("kernel.") else OTHER
        limit, _ = EXCEPTIONS.get(module.name, (usual, ""))
        lines = len(module.path.read_text().splitlines())
        if lines > limit:
            wrong.append(
                f"{module.name}: {lines} lines, at most {limit}: two features in one file?"
            )
    return wrong


def test_files_are_short():
    wrong = too_long(PACKAGE)
    assert not wrong, "\n".join(wrong)


def test_exceptions_are_needed():
    sizes = {m.name: len(m.path.read_text().splitlines()) for m in modules()}
    usual = {name: KERNEL if name.startswith("kernel.") else OTHER for name in EXCEPTIONS}
    assert [name for name in EXCEPTIONS if sizes.get(name, 0) <= usual[name]] == []


def test_the_check_can_fail(tmp_path):
    (tmp_path / "kernel").mkdir()
    (tmp_path / "kernel/long.py").write_text("pass\n" * (KERNEL + 1))
    (tmp_path / "long.py").write_text("pass\n" * (OTHER + 1))
    (tmp_path / "short.py").write_text("pass\n" * OTHER)
    assert [line.split(":")[0] for line in too_long(tmp_path)] == ["kernel.long", "long"]
