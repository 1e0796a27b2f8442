"""Reading /proc for a person, and guessing who said no."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from minicontainer import look as module
from minicontainer.errors import KernelError, StepFailed
from minicontainer.look import differences, look, mount_line, suspects


def test_links_files_lines_and_directories() -> None:
    assert look(0, "ns/mnt") == os.readlink("/proc/self/ns/mnt")
    assert look(os.getpid(), "exe") == os.readlink("/proc/self/exe")
    assert look(0, "uid_map") == " ".join(Path("/proc/self/uid_map").read_text().split())
    assert look(0, "status:Uid").split()[0] == str(os.getuid())
    assert look(0, "status:Seccomp") in ("0", "1", "2")
    assert f"\n2 -> {os.readlink('/proc/self/fd/2')}" in look(0, "fd")
    assert look(0, "mountinfo:1").split()[0].startswith("/")
    assert look(0, "mountinfo:99999") == look(0, "status:Nothing") == look(0, "nothing") == ""
    assert look(2**22 + 1, "status:Uid") == ""  # no such process can be: PID_MAX_LIMIT


def test_cmdline_has_no_nul() -> None:
    assert "\0" not in look(0, "cmdline") != ""


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("36 35 98:0 /a /b rw,noatime master:1 - ext3 /dev/r rw", "/b master:1 ext3 rw,noatime"),
        ("36 35 0:5 / / rw - tmpfs tmpfs rw", "/ private tmpfs rw"),
        ("36 35 0:5 / / rw shared:7 master:2 - proc proc rw", "/ shared:7 master:2 proc rw"),
        ("nonsense", "nonsense"),
    ],
)  # fmt: skip
def test_mount_line(line: str, told: str) -> None:
    assert mount_line(line) == told


def test_differences() -> None:
    assert differences("a\nb\nb", "b\nc") == ["- a", "- b", "+ c"]
    assert differences("", "x") == ["+ x"]
    assert differences("same\ntwice", "same\ntwice") == []


def pretend(monkeypatch: pytest.MonkeyPatch, lsm: str = "capability", **seen: str) -> None:
    """What /proc shall seem to say, whatever this machine is."""
    told = {"CapEff": "1ffffffffff", "Seccomp": "0", "uid_map": "0 0 4294967295", **seen}
    monkeypatch.setattr(module, "look", lambda pid, entry: told[entry.rpartition(":")[2]])
    monkeypatch.setattr(module, "_read", lambda path: lsm)


def test_who_said_no(monkeypatch: pytest.MonkeyPatch) -> None:
    refused = KernelError("mount", "...", errno.EPERM)
    pretend(monkeypatch)
    assert [line.split()[1] for line in suspects(refused)] == ["a"]  # "perhaps a device program"
    pretend(monkeypatch, CapEff="0")
    assert "CAP_SYS_ADMIN" in suspects(refused)[0]
    pretend(monkeypatch, Seccomp="2")
    assert "seccomp filter" in suspects(refused)[0]
    pretend(monkeypatch, uid_map="0 1000 1")
    assert "user namespace" in suspects(refused)[0]
    pretend(monkeypatch, lsm="capability,landlock,apparmor")
    assert "(apparmor)" in suspects(refused)[0]


def test_other_errnos(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch)
    assert "read-only" in suspects(KernelError("mkdir", "", errno.EROFS))[0]
    assert suspects(KernelError("mount", "", errno.ENOENT)) == []
    assert "older" in suspects(KernelError("mount_setattr", "", errno.ENOSYS))[0]
    assert "noexec" in suspects(KernelError("execve", "", errno.EACCES))[-1]
    assert suspects(PermissionError(errno.EPERM, "no")) == []
    assert suspects(ValueError("not an errno")) == []


def test_the_cause_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """What crossed the wire is a StepFailed; the system call is its cause."""
    pretend(monkeypatch, CapEff="0")
    failed = StepFailed("hostname", "no")
    failed.__cause__ = KernelError("sethostname", "", errno.EPERM)
    assert "CAP_SYS_ADMIN" in suspects(failed)[0]


def test_guesses_are_hedged(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, lsm="apparmor,selinux", CapEff="0", Seccomp="2", uid_map="0 1 1")
    for call in ("mount", "clone3", "mknod", "execve"):
        for guess in suspects(KernelError(call, "", errno.EPERM)):
            assert "perhaps" in guess or "most likely" in guess
