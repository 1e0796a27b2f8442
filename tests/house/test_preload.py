"""preload.py: what it holds is what a run imports, and it is executed only if it is what it was."""

from __future__ import annotations

import marshal
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from minicontainer import preload
from tests.support import CHECKOUT
from tests.unit.mutants import fails, mutant

FOLDERS = f"import sys; sys.path[:0] = {[str(CHECKOUT), sysconfig.get_path('purelib')]!r}; "


def python(program: str, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        [sys.executable, "-IS", "-c", FOLDERS + program], capture_output=True, text=True, env=env
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One of this checkout."""
    file = tmp_path_factory.mktemp("preload") / "preload"
    python(f"from minicontainer import preload; preload.write({str(file)!r})")
    return file


def names(file: Path) -> list[str]:
    return [entry[0] for entry in marshal.loads(file.read_bytes())]


# What is imported by a C module, or is none of the way to the clone
BESIDE = {"minicontainer._libc", "minicontainer._libc.lib", "minicontainer.preload"}


@pytest.mark.requires_root
def test_it_holds_what_a_run_imports(made, busybox):
    words = ["run", "--rm", "--network", "none", "busybox", "true"]
    loaded = python(
        f"from minicontainer.cli.main import main; main({words!r}); print(*sys.modules)",
        busybox.env,
    ).split()
    ours = {name for name in loaded if name.partition(".")[0] == "minicontainer"}
    assert set(names(made)) == ours - BESIDE


def test_each_module_stands_behind_those_it_imports(made):
    """By doing it: with all but the standard library and _libc out of reach."""
    program = (
        f"from minicontainer import preload; del sys.modules['minicontainer']; "
        f"imports = []; "
        f"sys.addaudithook(lambda event, args: event == 'import' and imports.append(args[0])); "
        f"assert preload.load({str(made)!r}, {str(CHECKOUT)!r}); "
        f"print(*(name for name in imports if name.startswith('minicontainer')))"
    )
    assert set(python(program).split()) <= BESIDE


def test_its_modules_are_like_any_other(made):
    program = (
        f"from minicontainer import preload; del sys.modules['minicontainer']; "
        f"preload.load({str(made)!r}, {str(CHECKOUT)!r}); import minicontainer; "
        f"from minicontainer.cli import images; from minicontainer import Container; "
        f"from minicontainer.kernel import clone; import inspect; "
        f"print(clone.__spec__.name, clone.__package__, clone.__file__); "
        f"print(inspect.getdoc(Container)[:5])"
    )
    file = CHECKOUT / "minicontainer/kernel/clone.py"
    assert python(program) == f"minicontainer.kernel.clone minicontainer.kernel {file}\nA con\n"


def check_stale(tmp_path: Path, module=preload) -> None:
    """A source that has changed, in size or in date, or is gone: nothing is executed."""
    source, file = tmp_path / "planted.py", tmp_path / "preload"
    source.write_text("")
    status = source.stat()
    code = compile("raise SystemExit('executed')", "planted", "exec")
    for size, date in ((status.st_size + 1, status.st_mtime_ns), (status.st_size, 12345)):
        file.write_bytes(marshal.dumps([("planted", "planted.py", size, date, False, code)]))
        assert module.load(str(file), str(tmp_path)) is False
    source.unlink()
    assert module.load(str(file), str(tmp_path)) is False
    file.write_bytes(b"\xe3 nothing")
    assert module.load(str(file), str(tmp_path)) is False
    file.unlink()
    assert module.load(str(file), str(tmp_path)) is False
    assert "planted" not in sys.modules


def test_a_checkout_that_was_copied_runs_its_own_files(made, tmp_path):
    """The mutant of its kind: a name of the old place in the file."""
    assert not any(os.path.isabs(entry[1]) for entry in marshal.loads(made.read_bytes()))
    assert preload.load(str(made), str(tmp_path)) is False, "they are not there"


def test_a_file_that_is_not_what_an_import_would_find(tmp_path):
    check_stale(tmp_path)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("if (status.st_size, status.st_mtime_ns) != (size, date):", "if status.st_size != size:"),
        ("if (status.st_size, status.st_mtime_ns) != (size, date):", "if False:"),
        ("except (OSError, ValueError, EOFError, TypeError):", "except KeyError:"),
    ],
)
def test_the_check_on_stale_files_can_fail(tmp_path, old, new):
    try:
        fails(check_stale, tmp_path, mutant(preload, old, new))
    except SystemExit:
        pass  # it was executed
    sys.modules.pop("planted", None)


def test_the_launcher_takes_it(made, launcher, tmp_path):
    """Its text has the function, and the name that the installer writes to."""
    text = launcher.read_text()
    assert "def load(file: str, folder: str) -> bool:" in text
    assert f"{os.path.dirname(preload.FILE)}/run." in text
    assert 'if sys.argv[1:2] == ["run"]:' in text
