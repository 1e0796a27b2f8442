"""Reading the code base as data: which modules there are, and what they import."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.support import CHECKOUT

PACKAGE = CHECKOUT / "minicontainer"


class Module(NamedTuple):
    """A file of the package: ``kernel.mounts``, or "" for the package's own __init__."""

    name: str
    path: Path
    tree: ast.Module

    def functions(self) -> Iterator[ast.FunctionDef]:
        """The public functions at the module's top."""
        for node in self.tree.body:
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                yield node

    def classes(self) -> Iterator[ast.ClassDef]:
        """The public classes at the module's top."""
        for node in self.tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                yield node


def modules(package: Path = PACKAGE) -> list[Module]:
    """Every module of the package but the generated ``_libc``."""
    found = []
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package).with_suffix("").parts
        if parts == ("_libc",):
            continue
        name = ".".join(parts).removesuffix("__init__").removesuffix(".")
        found.append(Module(name, path, ast.parse(path.read_text(), str(path))))
    return found


def imports(module: Module, known: set[str]) -> Iterator[tuple[str, int]]:
    """The modules of the package that this one imports, with the line; wherever the import
    stands: at the top, in a function, for the type checker only."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                package, _, rest = alias.name.partition(".")
                if package == "minicontainer":
                    yield rest, node.lineno
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                raise SyntaxError(f"{module.path}:{node.lineno}: imports are absolute here")
            package, _, rest = (node.module or "").partition(".")
            if package == "minicontainer":
                for alias in node.names:
                    inner = f"{rest}.{alias.name}".lstrip(".")
                    yield (inner if inner in known else rest), node.lineno


def tracked_files() -> list[Path]:
    """What git holds or would hold: everything that is not ignored."""
    command = ["git", "-c", "safe.directory=*", "ls-files", "-z", "-co", "--exclude-standard"]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, check=True, text=True)
    paths = [CHECKOUT / name for name in done.stdout.split("\0") if name]
    return [path for path in paths if path.is_file()]
