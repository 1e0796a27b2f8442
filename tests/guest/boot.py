#!/usr/bin/env python3
"""Run a command in a throw-away guest kernel whose root is this machine's file system.

    tests/guest/boot.py [--kernel uml|qemu] [--share DIRECTORY]... -- COMMAND [ARGUMENT...]

The guest reads the host's files and writes none of them, except below a --share directory; what
there is in /tmp and /run is its own, except the working directory and Python's prefix.  It has a
pure cgroup2 tree, all capabilities and a spare disk.  COMMAND's output is ours as it comes, its
exit status becomes ours: 128+n for a signal, 124 when the time is up, 125 when the guest itself
died; then the end of its console is shown.

    tests/guest/boot.py -- cat /sys/fs/cgroup/cgroup.controllers

init.py is process 1 in there; uml.py and qemu.py know how to start a kernel.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

sys.path[:0] = [str(Path(__file__).resolve().parent.parent.parent)]

from tests.guest import init, qemu, uml  # noqa: E402

TIME_IS_UP, GUEST_DIED = 124, 125
PR_SET_PDEATHSIG = 1
CONSOLE_SHOWN = 4000
KERNELS = {"uml": uml, "qemu": qemu}


class Lines(NamedTuple):
    """The host's and the guest's ends of the three lines between them."""

    out: tuple[socket.socket, socket.socket]  # the command's output
    line: tuple[socket.socket, socket.socket]  # $GUEST_LINE, and the exit status
    console: tuple[socket.socket, socket.socket]  # the kernel's messages


def outermost(paths: list[str]) -> list[str]:
    """The directories below /tmp or /run, without those inside another of them."""
    kept: list[str] = []
    for path in sorted({os.path.realpath(path) for path in paths}):
        inside = any(path == one or path.startswith(one + "/") for one in kept)
        if path.startswith(("/tmp/", "/run/")) and not inside:
            kept.append(path)
    return kept


def run(options: argparse.Namespace) -> int:
    """Boot, wait, clean up; the exit status."""
    kernel = KERNELS[options.kernel]
    work = tempfile.mkdtemp(prefix="guest-")
    try:
        os.mkdir(f"{work}/root")
        make_disks(work)
        checkout = str(Path(__file__).resolve().parents[2])  # wherever the tests begin
        own = [os.getcwd(), sys.prefix, sys.base_prefix, checkout]
        orders = {
            "argv": options.argv,
            "cwd": os.getcwd(),
            "env": {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"},
            "keep": outermost([*own, *options.keep]),
            "share": [os.path.realpath(path) for path in options.share],
            **kernel.ORDERS,
        }
        Path(work, "orders").write_text(json.dumps(orders))
        command = [os.path.realpath(sys.executable), "-IS", init.__file__, f"{work}/orders"]
        lines = Lines(socket.socketpair(), socket.socketpair(), socket.socketpair())
        with started(kernel, work, options.memory, lines, command) as process:
            return watch(process, lines, options)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def make_disks(work: str) -> None:
    """Two files full of holes: an ext4 for the guest's /tmp, and a spare one for tests."""
    for name, size in (("disk", 4 << 30), ("spare", 64 << 20)):
        with open(f"{work}/{name}", "wb") as file:
            file.truncate(size)
    format_ = ["mkfs.ext4", "-q", "-O", "^has_journal", "-E", "lazy_itable_init", f"{work}/disk"]
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"  # not on every user's
    subprocess.run(format_, check=True, env={**os.environ, "PATH": path})


@contextlib.contextmanager
def started(
    kernel: ModuleType, work: str, memory: int, lines: Lines, command: list[str]
) -> Iterator[subprocess.Popen[bytes]]:
    """The running guest; all its processes are gone in the end."""
    fds = {name: pair[1].fileno() for name, pair in lines._asdict().items()}
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for words, env in kernel.commands(work, memory, fds, command):
            processes.append(
                subprocess.Popen(
                    words,
                    pass_fds=tuple(fds.values()),
                    stdin=subprocess.DEVNULL,
                    stdout=fds["console"],
                    stderr=fds["console"],
                    env=env,
                    start_new_session=True,  # a process group of its own, to be killed as one
                    preexec_fn=die_with_us,
                )
            )
        for _, theirs in lines:
            theirs.close()
        yield processes[-1]
    finally:
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def die_with_us() -> None:
    """prctl(2): a guest does not outlive whoever booted it."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


def watch(process: subprocess.Popen[bytes], lines: Lines, options: argparse.Namespace) -> int:
    """Copy what comes over the lines until the guest is gone; the exit status it told."""
    names = {ours.fileno(): name for name, (ours, _) in lines._asdict().items()}
    poll = select.poll()
    for fd in names:
        poll.register(fd, select.POLLIN)
    end = time.monotonic() + options.timeout
    status, said, console = None, b"", b""
    while names:
        dead = process.poll() is not None
        ready = poll.poll(0 if dead else 500)
        if (dead and not ready) or time.monotonic() > end:
            break
        for fd, _ in ready:
            data = read(fd)
            if not data:
                poll.unregister(fd)
                del names[fd]
            elif names[fd] == "out":
                init.write_all(1, data)
            elif names[fd] == "console":
                console = (console + data)[-CONSOLE_SHOWN:]
            else:
                *whole, said = (said + data).split(b"\n")
                for text in whole:
                    if text.startswith(b"exit "):
                        status = int(text[5:])
                    elif text and options.line >= 0:
                        init.write_all(options.line, text + b"\n")
    if status is not None:
        return status
    why, status = ("died", GUEST_DIED)
    if time.monotonic() > end:
        why, status = f"was not done after {options.timeout:g} s", TIME_IS_UP
    told = f"guest: the {options.kernel} guest {why}; the end of its console:\n"
    init.write_all(2, told.encode() + console)
    return status


def read(fd: int) -> bytes:
    """Whatever there is; nothing if the other side has gone."""
    try:
        return os.read(fd, 65536)
    except ConnectionResetError:
        return b""


def main() -> int:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kernel", choices=KERNELS, default="uml")
    parser.add_argument("--memory", type=int, default=2, metavar="GIBIBYTES")
    parser.add_argument("--timeout", type=float, default=3600, help="seconds")
    parser.add_argument("--share", action="append", default=[], metavar="DIRECTORY")
    parser.add_argument("--keep", action="append", default=[], metavar="DIRECTORY",
                        help="of /tmp or /run, to be seen in the guest as well")  # fmt: skip
    parser.add_argument("--line", type=int, default=-1, metavar="FD",
                        help="where to write what COMMAND writes to $GUEST_LINE")  # fmt: skip
    parser.add_argument("argv", nargs="+", metavar="COMMAND")
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, lambda n, _: sys.exit(128 + n))
    return run(parser.parse_args())


if __name__ == "__main__":
    sys.exit(main())
