"""A root file system, and directories for one test alone, for containers made through Python."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def rootfs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root file system of this machine's static busybox, with a few users."""
    program = shutil.which("busybox")
    assert program, "make test installs busybox-static"
    root = tmp_path_factory.mktemp("image")
    reachable(root)
    root.chmod(0o755)
    for directory in ("bin", "etc", "home/app", "proc", "sys", "dev", "tmp", "data", "usr/bin"):
        (root / directory).mkdir(parents=True)
    shutil.copy(program, root / "bin/busybox")
    for applet in subprocess.check_output([program, "--list"], text=True).split():
        if applet != "busybox":
            (root / "bin" / applet).symlink_to("busybox")
    (root / "etc/passwd").write_text(
        "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001::/home/app:/bin/sh\nlast:x:7:7::/:/x"
    )
    (root / "etc/group").write_text("root:x:0:root\nwheel:x:10:root,app\nappg:x:1001:\nvideo:x:44:")
    (root / "etc/hosts").write_text("# the image's\n")
    return root


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Data, state and temporary directories of this test alone, empty again when it ends."""
    reachable(tmp_path)
    for name in ("root", "run", "cache"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(f"MINICONTAINER_{name.upper()}", str(tmp_path / name))
    temporary = tmp_path / "tmp"
    temporary.mkdir(mode=0o711)
    monkeypatch.setenv("TMPDIR", str(temporary))
    yield tmp_path
    containers = tmp_path / "root/containers"
    left = [temporary, *([containers] if containers.exists() else [])]
    assert [name for directory in left for name in os.listdir(directory)] == []


def reachable(directory: Path) -> None:
    """A container's root in a user namespace is an ordinary user out here: let it pass."""
    for level in (directory, directory.parent, directory.parent.parent):
        level.chmod(level.stat().st_mode | 0o111)
