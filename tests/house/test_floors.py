"""Imports go strictly downward, so a file can be read with only the floors below in mind."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from tests.house.source import PACKAGE, imports, modules

# A module that is not on a floor fails the test: say here where it stands.
FLOORS = (
    ("errors", "libc", "libc_build", "_libc", "trampoline_build", "step", "safepath", "mountcalls",
     "nscalls", "trees", "preload", "cgrouptree", "cgroupfiles", "descriptors", "idcalls",
     "deaf"),
    ("kernel", "kernel.*"),
    ("spec", "oci", "oci_*", "resources", "validate", "values", "wire", "look", "story", "narrate",
     "pause", "state", "containers", "devicelist", "signals"),
    ("options", "mountflags", "host", "compose", "rootless", "image", "image.*", "plan", "without",
     "asked", "asshell", "launch", "console"),
    # "" is minicontainer/__init__.py: what `from minicontainer import ...` offers
    ("runtime", "vm", "vm.*", "lifecycle", "monitor", ""),
    ("cli", "cli.*", "lab", "lab.*"),
)  # fmt: skip

# One kernel feature, one file, that imports no other.  Only this feature is several files long:
SECCOMP = ("kernel.bpf", "kernel.seccomp", "kernel.seccomp_*")


def floor(name: str) -> int | None:
    """The number of the floor on which a module stands."""
    for number, patterns in enumerate(FLOORS):
        if any(fnmatchcase(name, pattern) for pattern in patterns):
            return number
    return None


def violations(package: Path) -> list[str]:
    """Imports that go upward, sideways within kernel/, or in a circle."""
    found = modules(package)
    known = {module.name for module in found}
    graph: dict[str, set[str]] = {}
    wrong = []
    for module in found:
        here = floor(module.name)
        if here is None:
            wrong.append(f"{module.name} stands on no floor: say where in {Path(__file__).name}")
            continue
        for target, line in imports(module, known):
            there = floor(target)
            what = f"{module.path.name}:{line}: {module.name} imports {target}"
            graph.setdefault(module.name, set()).add(target)
            if there is not None and there > here:
                wrong.append(f"{what}: upward, from floor {here} to {there}")
            if are_siblings(module.name, target):
                wrong.append(f"{what}: a sibling; a kernel file is read alone")
    return wrong + circles(graph)


def are_siblings(one: str, other: str) -> bool:
    """Are these two files of kernel/, about two features?"""
    both = one.startswith("kernel.") and other.startswith("kernel.")
    return both and not all(any(fnmatchcase(n, p) for p in SECCOMP) for n in (one, other))


def circles(graph: dict[str, set[str]]) -> list[str]:
    """Every module that reaches itself."""
    wrong = []
    for start in graph:
        seen: set[str] = set()
        ahead = [*graph[start]]
        while ahead:
            name = ahead.pop()
            if name not in seen:
                seen.add(name)
                ahead += graph.get(name, ())
        if start in seen:
            wrong.append(f"{start} imports itself in a circle")
    return wrong


def test_imports_go_downward():
    wrong = violations(PACKAGE)
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("files", "complaint"),
    [
        ({"libc.py": "import minicontainer.launch", "launch.py": ""}, "upward"),
        ({"spec.py": "def f():\n from minicontainer.cli import main", "cli/main.py": ""}, "upward"),
        ({"kernel/a.py": "from minicontainer.kernel.b import c", "kernel/b.py": ""}, "a sibling"),
        ({"kernel/a.py": "from minicontainer.kernel import b", "kernel/b.py": ""}, "a sibling"),
        ({"step.py": "if TYPE_CHECKING:\n import minicontainer.spec", "spec.py": ""}, "upward"),
        ({"plan.py": "import minicontainer.launch", "launch.py": "import minicontainer.plan"},
         "circle"),
        ({"kernel/a.py": "import minicontainer.kernel.bpf", "kernel/bpf.py": ""}, "a sibling"),
        ({"cellar.py": ""}, "on no floor"),
    ],
)  # fmt: skip
def test_the_check_can_fail(tmp_path, files, complaint):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    assert any(complaint in line for line in violations(tmp_path))
