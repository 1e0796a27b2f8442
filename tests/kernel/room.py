"""An empty root file system to furnish, in a child of ``forked`` with mounts of its own."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from minicontainer.libc import C, address, check, ffi, syscall
from minicontainer.mountcalls import mount
from minicontainer.step import Context

PROC = ("proc", "proc", ("nosuid", "noexec", "nodev"))


class Room(Context):
    """A Context whose root is a fresh tmpfs, and that remembers what it was warned of."""

    def __init__(self, path: Path | None = None) -> None:
        super().__init__("test", "")
        self.said: list[str] = []
        self.warn = self.said.append
        if path:
            path.mkdir(exist_ok=True)
            mount("tmpfs", str(path), "tmpfs", 0)
            self.fds["root"] = os.open(path, os.O_PATH | os.O_DIRECTORY)


def status(word: str, pid: int | str = "self") -> str:
    """A line of /proc/PID/status."""
    with open(f"/proc/{pid}/status") as file:
        return next(line.split(":", 1)[1].strip() for line in file if line.startswith(word + ":"))


def namespace(kind: str, pid: int | str = "self") -> str:
    """A namespace's name, such as "uts:[4026531838]"."""
    return os.readlink(f"/proc/{pid}/ns/{kind}")


def kinds() -> tuple[str, ...]:
    """The kinds of namespaces that this kernel has, by their names in /proc/PID/ns."""
    names = sorted(os.listdir("/proc/self/ns"))
    return tuple(name for name in names if not name.endswith("_for_children"))


def unshare(flags: int) -> None:
    """Not the product's: what is tested is not used to test it."""
    check(C.unshare(flags), "unshare", hex(flags))


def clone3(flags: int, cgroup_fd: int = -1) -> tuple[int, int]:
    """(pid, pidfd), or (0, -1) in the child, which goes on with a copy of all we have."""
    pidfd = ffi.new("int *", -1)
    # flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid, its size
    words = [flags | 0x1000, address(pidfd), 0, 0, 17, 0, 0, 0, 0, 0, max(cgroup_fd, 0)]
    arguments = ffi.new("uint64_t[11]", words)
    pid = check(syscall("clone3", address(arguments), 88), "clone3", hex(flags))
    return (pid, int(pidfd[0])) if pid else (0, -1)


def in_child(action: Callable[[], Any]) -> int:
    """Fork, call, and wait: 0, or 1 if it raised, or minus a signal's number."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            action()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def answer(action: Callable[[], str]) -> str:
    """Fork, call, and bring the text it returns."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(write, action().encode())
        except BaseException as error:
            os.write(write, repr(error).encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        text = pipe.read()
    os.waitpid(pid, 0)
    return text


class Paused:
    """A child that waits, made as ``make`` says (by default fork); killed at the end.

    ``first`` is called in it before it waits, and has returned once we are entered."""

    def __init__(self, first: Callable[[], Any] = lambda: None, make: Any = None) -> None:
        self.first = first
        self.make = make or (lambda: (os.fork(), -1))

    def __enter__(self) -> int:
        ready_read, ready_write = os.pipe()
        hold_read, self.hold = os.pipe()
        self.pid, self.pidfd = self.make()
        if self.pid == 0:
            try:
                os.close(self.hold)
                self.first()
                os.write(ready_write, b"x")
                os.read(hold_read, 1)  # end-of-file
            finally:
                os._exit(0)
        os.close(ready_write)
        os.close(hold_read)
        said = os.read(ready_read, 1)
        os.close(ready_read)
        assert said == b"x", "the child ended before it was ready"
        return self.pid

    def __exit__(self, *_: object) -> None:
        os.close(self.hold)
        os.waitpid(self.pid, 0)
        if self.pidfd >= 0:
            os.close(self.pidfd)
