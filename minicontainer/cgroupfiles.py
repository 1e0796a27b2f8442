"""The files of a cgroup: small texts in three shapes, each read with three system calls.

    a number, or "max"          memory.current, pids.max
    lines "key number"          memory.stat, cpu.stat, memory.events
    anything else               cgroup.controllers, io.stat, cpu.pressure

A file is there only if its controller is, and a cgroup may go at any moment; so "not there" is an
answer, and not 0.

cgroups(7); Documentation/admin-guide/cgroup-v2.rst, "Interface Files".
"""

from __future__ import annotations

import errno
import os

UNLIMITED = -1  # a limit's file says "max"

# Not there: no such file; the cgroup was removed just now; pressure, where the kernel does not
# account it
_ABSENT = (errno.ENOENT, errno.ENODEV, errno.EOPNOTSUPP)


def text(path: str, name: str) -> str | None:
    """The file ``name`` of the cgroup whose directory is ``path``; None if it is not there.

    Raises OSError for anything else."""
    fd = -1
    try:
        fd = os.open(f"{path}/{name}", os.O_RDONLY | os.O_CLOEXEC)
        parts = [os.read(fd, 65536)]
        while parts[-1]:
            parts.append(os.read(fd, 65536))
        return b"".join(parts).decode()
    except OSError as error:
        if error.errno not in _ABSENT:
            raise
        return None
    finally:
        if fd >= 0:
            os.close(fd)


def number(path: str, name: str) -> int | None:
    """A file of one number; UNLIMITED for "max", None if it is not there."""
    return as_number(text(path, name))


def as_number(word: str | None) -> int | None:
    """The same for a word that is at hand."""
    if not word:
        return None
    return UNLIMITED if word.startswith("max") else int(word)


def pairs(path: str, name: str) -> dict[str, int]:
    """A file of lines "key number"; empty if it is not there."""
    words = (text(path, name) or "").split()
    return {key: int(value) for key, value in zip(words[::2], words[1::2], strict=True)}
