"""`run` starts in milliseconds because it imports nothing that it does not use.

Each of these costs 2 to 14 ms at every start; importing the modules below must not load them.
What is needed off the hot path is imported inside the function that needs it.
"""

from __future__ import annotations

import subprocess
import sysconfig

import pytest

from tests.support import CHECKOUT

SLOW = {
    "argparse", "collections", "contextlib", "dataclasses", "enum", "functools", "hashlib", "json",
    "logging", "pathlib", "re", "shutil", "signal", "socket", "subprocess", "tarfile", "tempfile",
    "typing",
}  # fmt: skip

HOT = ["cli.main", "cli.run", "runtime", "plan", "launch", "spec", "step", "libc", "safepath"]
HOT_KERNEL = sorted(path.stem for path in (CHECKOUT / "minicontainer/kernel").glob("[a-z]*.py"))


def slow_imports(base_python: list[str], module: str, *folders: str) -> list[str]:
    """The slow modules that are loaded once ``module`` is imported."""
    program = f"import sys; sys.path += {folders!r}; import {module}; print(*sys.modules)"
    done = subprocess.run([*base_python, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return sorted(SLOW & set(done.stdout.split()))


@pytest.mark.parametrize("name", [*HOT, *(f"kernel.{stem}" for stem in HOT_KERNEL)])
def test_no_slow_imports(base_python, name):
    packages = sysconfig.get_path("purelib")
    assert slow_imports(base_python, f"minicontainer.{name}", str(CHECKOUT), packages) == []


@pytest.mark.requires_root
def test_a_whole_run_loads_nothing_slow(base_python, busybox):
    """What counts in the end, with the imports inside functions, too."""
    words = ["run", "--rm", "--network", "none", "busybox", "true"]
    folders = str(CHECKOUT), sysconfig.get_path("purelib")
    program = (
        f"import sys; sys.path += {folders!r}; from minicontainer.cli.main import main; "
        f"status = main({words!r}); print(status, *sys.modules)"
    )
    done = subprocess.run(
        [*base_python, "-c", program], env=busybox.env, capture_output=True, text=True
    )
    status, *loaded = done.stdout.split()
    assert status == "0", done.stderr
    assert "minicontainer.launch" in loaded
    assert sorted(SLOW & set(loaded)) == []


def test_the_check_can_fail(base_python, tmp_path):
    (tmp_path / "indirect.py").write_text("import json\n")
    (tmp_path / "careless.py").write_text("import indirect\n")
    (tmp_path / "careful.py").write_text("def later():\n    import json\n")
    assert "json" in slow_imports(base_python, "careless", str(tmp_path))
    assert slow_imports(base_python, "careful", str(tmp_path)) == []
