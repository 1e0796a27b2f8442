"""What a hostile image or a careless caller tried, and what came of it: each with its mutant."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from minicontainer.errors import MinicontainerError
from minicontainer.kernel import credentials, overlay, pivot
from minicontainer.step import Context
from tests.support import Cli
from tests.unit.mutants import fails, mutant

pytestmark = pytest.mark.requires_root


def test_a_working_directory_makes_nothing_through_a_leaked_descriptor(
    alpine: Cli, tmp_path: Path
) -> None:
    """WORKDIR /proc/self/fd/N/new: refused, and before the directory is made on the host."""
    leak = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        done = subprocess.run(
            alpine.argv("run", "-q", "-w", f"/proc/self/fd/{leak}/new", "alpine", "true"),
            env=alpine.env, capture_output=True, text=True, pass_fds=(leak,), timeout=60,
        )  # fmt: skip
    finally:
        os.close(leak)
    assert (done.returncode, done.stdout) == (125, "")
    assert "cannot start in the working directory" in done.stderr
    assert not (tmp_path / "new").exists()


def test_that_check_fails_with_makedirs(forked: Callable[..., object], tmp_path: Path) -> None:
    weak = mutant(pivot, "make_inside(self.path)", "os.makedirs(self.path)")
    forked(lambda: nothing_is_made(pivot, tmp_path))
    forked(lambda: fails(nothing_is_made, weak, tmp_path))


def nothing_is_made(module: ModuleType, directory: Path) -> None:
    """EnterDirectory, with a directory of the host open, as a caller might leave one."""
    leak = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    step = module.EnterDirectory(f"/proc/self/fd/{leak}/weak", make=True)
    try:
        step.run(Context("id", ""))
    except MinicontainerError:
        pass
    assert not (directory / "weak").exists()


def test_the_umask_of_the_caller_closes_no_root(alpine: Cli) -> None:
    """Under umask 077 the container's "/" is still open to a user that is not root."""
    command = alpine.argv("run", "-q", "-u", "1000", "alpine", "stat", "-c", "%a", "/")
    done = subprocess.run(
        ["sh", "-c", 'umask 077; exec "$@"', "sh", *command],
        env=alpine.env, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "755\n", "")


def test_that_check_fails_without_chmod(forked: Callable[..., object], tmp_path: Path) -> None:
    weak = mutant(overlay, "os.chmod(path, 0o755)", "pass")
    forked(lambda: upper_is_open(overlay, tmp_path / "one"))
    forked(lambda: fails(upper_is_open, weak, tmp_path / "two"))


def upper_is_open(module: ModuleType, directory: Path) -> None:
    """MakeUpper under a strict umask."""
    os.umask(0o077)
    module.MakeUpper(str(directory)).run(Context("id", ""))
    assert (directory / "upper").stat().st_mode & 0o777 == 0o755


def test_one_bad_line_of_passwd_hurts_no_other_user(tmp_path: Path) -> None:
    """An id out of range, or of more digits than int() reads, is the matter of its own line."""
    the_others_are_found(credentials, tmp_path)
    fails(the_others_are_found, mutant(credentials, "return number(text)", "return 0"), tmp_path)
    weak = mutant(credentials, "except UsageError", "except KeyError")
    fails(the_others_are_found, weak, tmp_path)
    weak = mutant(credentials, "len(digits) > 10 or ", "")
    fails(the_others_are_found, weak, tmp_path)


def the_others_are_found(module: ModuleType, root: Path) -> None:
    """look_up in a passwd whose first lines no kernel could use."""
    (root / "etc").mkdir(exist_ok=True)
    lines = ["far:x:4294967296:0::/:", f"long:x:{'9' * 5000}:0::/:", "app:x:5:6::/home:"]
    (root / "etc/passwd").write_text("\n".join(lines))
    fd = os.open(root, os.O_PATH)
    try:
        assert module.look_up(fd, "app") == module.look_up(fd, "5") == (5, 6, (), "/home")
        for user in ("far", "long", "9" * 5000):
            with pytest.raises(MinicontainerError, match=r"unable to find user|out of range"):
                module.look_up(fd, user)
    finally:
        os.close(fd)


CHMOD = "chmod 0600 /proc/self/fd/0; stat -Lc %a /proc/self/fd/0"


@pytest.mark.parametrize("left_out", [(), ("--without", "null")], ids=["whole", "mutant"])
def test_the_hosts_null_device_is_out_of_reach(alpine: Cli, left_out: tuple[str, ...]) -> None:
    """The mutant gets at the host's inode: it only asks for the mode that it has already."""
    script = "stat -Lc %d:%i /proc/self/fd/0" if left_out else f"{CHMOD}; stat -Lc %d:%i /dev/null"
    done = alpine("run", "-q", *left_out, "alpine", "sh", "-c", script)
    host = os.stat("/dev/null")
    assert stat.S_IMODE(host.st_mode) == 0o666
    seen = done.out.split()[-1] == f"{host.st_dev}:{host.st_ino}"
    assert seen == bool(left_out)
