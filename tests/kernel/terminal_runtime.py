"""A runtime of a few lines that only does terminals, for test_terminal.py and test_console.py.

``start`` runs a program with a terminal in a root of its own; as a script, this file is a whole
runtime that also joins that terminal to the user's:

    python -m tests.kernel.terminal_runtime ROOT PROGRAM [ARG...]

MUTANT="old => new" in the environment changes that piece of console.py first.  NO_STDIN=1: as -t
without -i.  At the end it prints the program's status.
"""

from __future__ import annotations

import _socket
import os
import shutil
import socket
import sys
from pathlib import Path
from typing import Any, NamedTuple

from minicontainer import console, mountcalls
from minicontainer.kernel.exec import close_range_cloexec
from minicontainer.kernel.process import set_parent_death_signal
from minicontainer.kernel.terminal import OpenConsole
from minicontainer.step import Context
from tests.support import own_mounts


class Started(NamedTuple):
    """A program that runs, and the other end of its terminal."""

    pid: int
    pidfd: int
    master: int


def make_root(place: Path) -> Path:
    """A root file system of busybox and empty directories."""
    for folder in ("bin", "proc", "tmp", "dev/pts"):
        (place / folder).mkdir(parents=True)
    busybox = shutil.which("busybox")
    assert busybox, "make installs busybox"
    shutil.copy(busybox, place / "bin/busybox")
    for applet in os.popen(f"{busybox} --list").read().split():
        if applet != "busybox":
            (place / "bin" / applet).symlink_to("busybox")
    return place


def enter(root: str) -> None:
    """What the steps before OpenConsole do: procfs and devpts of its own, then the root."""
    own_mounts(shared_root=False)
    mountcalls.mount("proc", f"{root}/proc", "proc", 0)
    mountcalls.mount("tmpfs", f"{root}/dev", "tmpfs", 0)
    os.mkdir(f"{root}/dev/pts")
    options = "newinstance,ptmxmode=0666,mode=0620,gid=5"
    mountcalls.mount("devpts", f"{root}/dev/pts", "devpts", 0, options)
    os.symlink("pts/ptmx", f"{root}/dev/ptmx")
    os.mknod(f"{root}/dev/tty", 0o20666, os.makedev(5, 0))
    os.chroot(root)
    os.chdir("/")


def start(root: str | Path, *program: str, step: Any = None, uid: int = 0) -> Started:
    """Run ``program`` in ``root`` with a terminal that ``step`` (OpenConsole) has opened."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = os.fork()
    if pid == 0:
        try:
            context = Context("test", "")
            context.send_fd = lambda word, fd: send_fd(theirs, word, fd)
            enter(str(root))
            (step or OpenConsole(uid=uid)).run(context)
            os.setresuid(uid, uid, uid)
            set_parent_death_signal(9)
            close_range_cloexec(3)
            env = {"PATH": "/bin", "PS1": "$ ", "TERM": "dumb"}
            os.execve(f"/bin/{program[0]}", program, env)
        except BaseException as error:
            theirs.send(f"{type(error).__name__}: {error}".encode())
        finally:
            os._exit(99)
    theirs.close()
    message, fds, _, _ = socket.recv_fds(ours, 4096, 1)
    ours.close()
    if message != b"CONSOLE":
        os.waitpid(pid, 0)
        raise AssertionError(message.decode())
    return Started(pid, os.pidfd_open(pid), fds[0])


def send_fd(wire: socket.socket, word: str, fd: int) -> None:
    rights = fd.to_bytes(4, "little")
    wire.sendmsg([word.encode()], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, rights)])


def mutate(old: str, new: str) -> None:
    """Run the text of console.py again, into the same module, with one piece changed."""
    text = Path(console.__file__).read_text()
    assert text.count(old) == 1, f"the mutant's place is not there once: {old}"
    exec(compile(text.replace(old, new), console.__file__, "exec"), console.__dict__)


def main() -> None:
    """The runtime."""
    if "MUTANT" in os.environ:
        mutate(*os.environ["MUTANT"].split(" => "))
    root, *program = sys.argv[1:]
    started = start(root, *program)
    console.relay(started.master, started.pidfd, -1 if "NO_STDIN" in os.environ else 0)
    os.close(started.master)
    _, status = os.waitpid(started.pid, 0)
    os.set_blocking(1, True)
    print(f"status {os.waitstatus_to_exitcode(status)}", flush=True)


if __name__ == "__main__":
    main()
