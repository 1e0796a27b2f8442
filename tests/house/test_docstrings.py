"""Docstrings say where the facts come from.  (That they are there at all, ruff checks: D1.)

A kernel module and every public function in it that makes a system call name a man page; a Step
has a docstring of its own, because `run --explain` prints it, and so without a word on its fields,
of which nobody sees anything there; a part of the Spec names the
section of the OCI specification, or says that it is ours.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.house.source import PACKAGE, Module, modules

MAN_PAGE = re.compile(r"\b[a-z][a-z0-9_.-]*\([1-9]\)")
SPEC_SOURCE = re.compile(r"config(-linux)?\.md|\bours\b", re.IGNORECASE)
STEPS = {"Step", "CloneStep"}


def makes_system_calls(function: ast.FunctionDef) -> bool:
    """Does it go through the door: check(), syscall(), C.something(), prctl.something()?"""
    for node in ast.walk(function):
        if isinstance(node, ast.Call):
            words = ast.unparse(node.func).split(".")
            if words[-1] in ("check", "syscall") or {"C", "prctl"} & set(words[:-1]):
                return True
    return False


def shortcomings(package: Path) -> list[str]:
    """Every docstring that does not say what it must."""
    wrong = []
    for module in modules(package):
        if module.name.startswith("kernel."):
            wrong += kernel_shortcomings(module)
        if module.name == "spec":
            for part in module.classes():
                text = ast.get_docstring(part) or ""
                if part.name != "Spec" and not SPEC_SOURCE.search(text):
                    wrong.append(f"spec.{part.name}: which section of the OCI specification?")
    return wrong


def kernel_shortcomings(module: Module) -> list[str]:
    """The same for one file of kernel/."""
    wrong = []
    # kernel/seccomp.py speaks for the files that belong to it
    part = module.name.startswith("kernel.seccomp_")
    if not part and not MAN_PAGE.search(ast.get_docstring(module.tree) or ""):
        wrong.append(f"{module.name}: the docstring names no man page")
    for function in module.functions():
        if makes_system_calls(function) and not MAN_PAGE.search(ast.get_docstring(function) or ""):
            wrong.append(f"{module.name}.{function.name}: a system call, and no man page")
    for step in module.classes():
        bases = {ast.unparse(base) for base in step.bases}
        if bases & STEPS and not ast.get_docstring(step):
            wrong.append(f"{module.name}.{step.name}: a Step, and no docstring to explain it")
        if bases & {*STEPS, "Limit"}:
            wrong += [
                f"{module.name}.{step.name}: what ``{field}`` is belongs beside the field"
                for field in fields(step)
                if f"``{field}``" in (ast.get_docstring(step) or "")
            ]
    return wrong


def fields(part: ast.ClassDef) -> list[str]:
    """The names of a class's annotated fields."""
    annotated = [line.target for line in part.body if isinstance(line, ast.AnnAssign)]
    return [target.id for target in annotated if isinstance(target, ast.Name)]


def test_docstrings_name_their_sources():
    wrong = shortcomings(PACKAGE)
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("kernel/a.py", '"""Mounts."""', "names no man page"),
        ("kernel/a.py", '"""mount(2)"""\ndef go():\n "Go."\n check(C.mount())', "a system call"),
        ("kernel/a.py", '"""mount(2)"""\nclass Go(Step):\n side = HOST', "a Step"),
        (
            "kernel/a.py",
            '"""mount(2)"""\nclass Go(Step):\n "Go; ``path`` is where."\n path: str',
            "belongs beside the field",
        ),
        ("spec.py", 'class Mount(Record):\n "A mount."', "which section"),
    ],
)
def test_the_check_can_fail(tmp_path, name, text, complaint):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(text + "\n")
    assert any(complaint in line for line in shortcomings(tmp_path))
