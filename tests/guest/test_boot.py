"""boot.py from outside: what a guest hands back, and what it leaves behind: nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.guest import boot, init, needs, places, qemu

BOOT = [sys.executable, str(places.BOOT)]
Boot = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def room(guest: None) -> Iterator[Path]:
    """A directory for the guest's own things, by which its processes are known."""
    with tempfile.TemporaryDirectory(prefix="room-") as folder:
        yield Path(folder)


def left(room: Path) -> list[str]:
    """The processes of the guest, and what is in its directory."""
    found = [path.name for path in room.iterdir()]
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes()
        except OSError:
            continue
        if os.fsencode(room) in words:
            found.append(words.partition(b"\0")[0].decode())
    return found


@pytest.fixture
def booted(room: Path, tmp_path: Path) -> Iterator[Boot]:
    """Boot UML, run a shell's script; the guest may write to ``tmp_path``; nothing is left."""

    def run(script: str, *options: str) -> subprocess.CompletedProcess[str]:
        words = [*BOOT, "--share", str(tmp_path), *options, "--", "sh", "-c", script]
        env = {**os.environ, "TMPDIR": str(room)}
        return subprocess.run(words, env=env, capture_output=True, text=True, timeout=100)

    yield run
    assert left(room) == []


@pytest.mark.parametrize(
    ("script", "status", "output"),
    [
        ("echo out; echo err >&2; exit 3", 3, "out\nerr\n"),
        ("kill -9 $$", 128 + 9, ""),
        ("exec /nonexistent", 127, None),
        ("yes | head -c 300000 | wc -c; yes | head -c 300000", 0, "300000\n" + "y\n" * 150000),
        ("sleep 100 & echo done", 0, "done\n"),  # nobody waits for orphans
        ("cat", 0, ""),  # its input is /dev/null
    ],
    ids=["status", "signal", "missing", "much", "orphan", "input"],
)
def test_what_comes_back(booted: Boot, script: str, status: int, output: str | None) -> None:
    done = booted(script)
    assert done.returncode == status, done.stderr
    assert output is None or done.stdout == output


def test_a_guest_is_another_kernel_and_writes_only_where_it_may(
    booted: Boot, tmp_path: Path
) -> None:
    inside, outside = tmp_path / "inside", Path(f"/var/tmp/minicontainer-guest-{os.getpid()}")
    (tmp_path / "given").write_text("given")
    done = booted(
        f"cat {tmp_path}/given; echo taken > {inside}; echo lost > {outside}; cat {outside}; "
        "uname -r; cat /proc/1/comm; grep CapEff /proc/self/status; stat -f -c %T /sys/fs/cgroup"
    )
    given, release, name, powers, tree = done.stdout.replace("givenlost", "given").splitlines()
    assert given == "given", done
    assert release != os.uname().release
    assert name.startswith("python3")
    assert int(powers.split()[1], 16) >> needs.CAP_SYS_RESOURCE & 1
    assert tree == "cgroup2fs"
    assert inside.read_text() == "taken\n"
    assert not outside.exists()


def test_a_guest_that_panics_is_told_with_its_console(booted: Boot) -> None:
    done = booted("echo before; echo c > /proc/sysrq-trigger; sleep 5")
    assert (done.returncode, done.stdout) == (boot.GUEST_DIED, "before\n")
    assert "guest: the uml guest died; the end of its console:" in done.stderr
    assert "sysrq triggered crash" in done.stderr


def test_a_guest_that_is_not_done_in_time_is_ended(booted: Boot) -> None:
    done = booted("echo before; sleep 1000", "--timeout", "4")
    assert (done.returncode, done.stdout) == (boot.TIME_IS_UP, "before\n")
    assert "was not done after 4 s" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_guest_ends_with_whoever_booted_it(
    room: Path, tmp_path: Path, number: signal.Signals
) -> None:
    words = [*BOOT, "--share", str(tmp_path), "--", "sh", "-c", f"touch {tmp_path}/up; sleep 1000"]
    process = subprocess.Popen(words, env={**os.environ, "TMPDIR": str(room)})
    while not (tmp_path / "up").exists():
        assert process.poll() is None
        time.sleep(0.05)
    assert "linux.uml" in left(room)
    process.send_signal(number)
    process.wait()
    end = time.monotonic() + 10
    while time.monotonic() < end and "linux.uml" in left(room):
        time.sleep(0.05)
    # after SIGKILL nobody is there to remove its directory
    assert len(left(room)) == (1 if number == signal.SIGKILL else 0)


# ---- parts


@pytest.mark.parametrize(
    ("paths", "kept"),
    [
        (["/tmp/a/b", "/tmp/a", "/tmp/ab", "/run/x"], ["/run/x", "/tmp/a", "/tmp/ab"]),
        (["/tmp", "/usr/lib", "/home/me", "/var/tmp/x"], []),
    ],
)
def test_directories_to_keep(paths: list[str], kept: list[str]) -> None:
    assert boot.outermost(paths) == kept


def test_modules_come_after_what_they_need(tmp_path: Path) -> None:
    """modules.dep lists what a module needs, nearest first."""
    (tmp_path / "modules.dep").write_text(
        "kernel/net/nf_nat.ko: kernel/net/nf_conntrack.ko kernel/lib/libcrc32c.ko\n"
        "kernel/net/nf_conntrack.ko: kernel/lib/libcrc32c.ko\n"
        "kernel/lib/libcrc32c.ko:\n"
        "kernel/drivers/virtio-rng.ko.xz:\n"
    )
    names = ["nf_nat", "built_in", "virtio_rng", "libcrc32c"]
    found = init.module_files(str(tmp_path), names)
    short = ["libcrc32c.ko", "nf_conntrack.ko", "nf_nat.ko", "virtio-rng.ko.xz"]
    assert [os.path.basename(path) for path in found] == short


def test_the_archive_is_one_that_cpio_reads(tmp_path: Path) -> None:
    files = {"bin": None, "bin/one": b"first", "two": b"the second"}
    (tmp_path / "archive").write_bytes(qemu.archive(files))
    busybox = "gunzip < archive | busybox cpio -id 2> /dev/null && ls -F . bin && cat bin/one two"
    done = subprocess.run(["sh", "-c", busybox], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ".:\narchive\nbin/\ntwo*\n\nbin:\none*\nfirstthe second"
