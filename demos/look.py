"""What the kernel says about a process, asked from outside: never what the process says itself.

``pid`` is a number of the host's, or "self": the host, that is the stage a demo is played on.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable

# Opened before any demo begins: whatever one mounts over /proc cannot fool us.
PROC = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def read(pid: int | str, file: str) -> str:
    """A file of /proc/PID."""
    fd = os.open(f"{pid}/{file}", os.O_RDONLY | os.O_CLOEXEC, dir_fd=PROC)
    with open(fd, errors="replace") as stream:
        return stream.read()


def status(pid: int | str, field: str) -> str:
    """A line of /proc/PID/status: status(pid, "NSpid") is "4711 1"."""
    lines = dict(line.split(":", 1) for line in read(pid, "status").splitlines())
    return " ".join(lines[field].split())


def namespace(pid: int | str, kind: str) -> int:
    """The inode of a namespace (mnt, pid, uts, ...): the same number is the same namespace."""
    return os.stat(f"{pid}/ns/{kind}", dir_fd=PROC).st_ino


def hostname(pid: int | str) -> str:
    """The name that a process's uts namespace holds: step in and ask uname(2)."""
    command = ["nsenter", f"--uts=/proc/{pid}/ns/uts", "uname", "-n"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def mounts(pid: int | str) -> list[str]:
    """The mounts that a process sees, as "PLACE TYPE", in the order they were made."""
    found = []
    for line in read(pid, "mountinfo").splitlines():
        before, _, after = line.partition(" - ")
        found.append(f"{before.split()[4]} {after.split()[0]}")
    return found


def processes(pid: int | str) -> dict[int, str]:
    """All processes in the pid namespace of ``pid``: {their number inside: state}, Z a zombie."""
    home, found = namespace(pid, "pid"), {}
    for number in filter(str.isdigit, os.listdir(PROC)):
        try:
            if namespace(number, "pid") == home:
                found[int(status(number, "NSpid").split()[-1])] = status(number, "State")[0]
        except OSError:
            continue  # it has ended meanwhile, or is not ours to look at
    return found


def until(true: Callable[[], bool], seconds: float = 2) -> bool:
    """Wait for something to become true; False if it does not."""
    end = time.monotonic() + seconds
    while not (now := true()) and time.monotonic() < end:
        time.sleep(0.01)
    return now
