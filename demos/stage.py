"""The stage: a host to be broken, and the box, a container with a shell in it.

A demo shows what goes wrong, so it needs a host on which things may go wrong.  Each is played in a
child process with a mount namespace and a uts namespace of its own.  What a demo mounts, renames
or forgets hits the stage, and is gone with it:

    host name   stage
    /           private, or shared as on a laptop with systemd; else it is the real host's
    /mnt        a tmpfs: /mnt/root, a busybox root file system, and /mnt/flag, a secret
"""

from __future__ import annotations

import functools
import io
import os
import select
import signal
import sys
import traceback
from collections.abc import Callable
from typing import Self

from minicontainer.errors import ImageError, MinicontainerError
from minicontainer.image import recipes
from minicontainer.image.layers import unpack
from minicontainer.image.stream import Limits, TarStream
from minicontainer.kernel.hostname import sethostname
from minicontainer.kernel.process import (
    DieWithRuntime,
    kill,
    set_parent_death_signal,
    wait,
)
from minicontainer.kernel.session import RedirectStdio
from minicontainer.launch import launch, undo
from minicontainer.mountcalls import PROPAGATION, mount
from minicontainer.nscalls import FLAGS, unshare
from minicontainer.step import CONTAINER, Context, Plan

FLAG = "the flag: only the host may read this\n"
END = "\0"
MARK = "-- the command has ended --"
INTERRUPTED = "interrupted"
PATIENCE = 10  # seconds for one command


def on_stage(act: Callable[[], object], shared: bool = False) -> str:
    """Call ``act`` on a fresh stage; what it complained of, "" if nothing."""
    busybox()  # once, for all stages to come
    sys.stdout.flush()
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read)
        os.write(write, (_complaint(act, shared) + END).encode())
        sys.stdout.flush()
        os._exit(0)
    os.close(write)
    kept = signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the stage
    with open(read) as pipe:
        complaint = pipe.read()
    _, status = os.waitpid(pid, 0)
    signal.signal(signal.SIGINT, kept)
    if not complaint.endswith(END):
        return f"the stage fell silent: wait status {status}"
    return complaint.removesuffix(END)


def _complaint(act: Callable[[], object], shared: bool) -> str:
    try:
        set_parent_death_signal(9)
        build(shared)
        act()
    except (AssertionError, MinicontainerError) as error:
        return str(error) or repr(error)
    except (KeyboardInterrupt, EOFError):
        return INTERRUPTED
    except BaseException as error:
        traceback.print_exc()
        return f"{type(error).__name__}: {error}"
    return ""


def build(shared: bool) -> None:
    """Make this process's surroundings the stage."""
    unshare(FLAGS["mount"] | FLAGS["uts"])
    # First cut ourselves off from the real host; only then make a group of peers of our own.
    mount(None, "/", None, PROPAGATION["rprivate"])
    if shared:
        mount(None, "/", None, PROPAGATION["rshared"])
    sethostname("stage")
    mount("stage", "/mnt", "tmpfs", 0, "mode=755")
    os.mkdir("/mnt/root")
    root = os.open("/mnt/root", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    unpack(TarStream(io.BytesIO(busybox()), Limits()), root)
    os.close(root)
    with open("/mnt/flag", "w") as flag:
        flag.write(FLAG)


@functools.cache
def busybox() -> bytes:
    """The archive that rootfs/busybox.py makes.  Raises ImageError without a static busybox."""
    recipe, archive = recipes.load("busybox"), io.BytesIO()
    if recipe is None:
        raise ImageError("there is no recipe rootfs/busybox.py")
    recipes.follow(recipe, archive, "latest", os.uname().machine, lambda text: None)
    return archive.getvalue()


def wired(plan: Plan, stdin: int, stdout: int) -> Plan:
    """The plan and two more steps of the product's: its input and output are pipes of ours, and it
    dies when we die."""
    *steps, program = plan
    first = next((n for n, step in enumerate(steps) if step.side == CONTAINER), len(steps))
    steps.insert(first, RedirectStdio((stdin, stdout, stdout)))
    return Plan(*steps, DieWithRuntime(), program)


class Box:
    """A container made from a plan whose program is a shell, for the length of a ``with``."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._context = Context("demo", "")
        self._context.warn = lambda text: print(text, file=sys.stderr)
        self._status = -1

    def __enter__(self) -> Self:
        stdin, self._keyboard = os.pipe()
        self._screen, stdout = os.pipe()
        try:
            launch(wired(self.plan, stdin, stdout), self._context)
        finally:
            os.close(stdin)
            os.close(stdout)
        return self

    def __exit__(self, *_exception: object) -> None:
        kill(self._context.pidfd)
        self.wait()
        undo(self.plan, self._context)
        os.close(self._keyboard)
        os.close(self._screen)

    @property
    def pid(self) -> int:
        """Its first process, as the host numbers it."""
        return self._context.pid

    def type(self, line: str) -> None:
        """Type something into its shell, and do not wait."""
        os.write(self._keyboard, f"{line}\n".encode())

    def ask(self, line: str) -> str:
        """Type something into its shell; what it and its children print until it is done."""
        self.type(f"{line}\necho '{MARK}'")
        said = b""
        while MARK.encode() not in said:
            if not select.select([self._screen], [], [], PATIENCE)[0]:
                raise TimeoutError(f"{line!r} is not done after {PATIENCE} s: {said!r}")
            more = os.read(self._screen, 65536)
            assert more, f"{line!r} has ended the container, which has said {said!r}"
            said += more
        return said.decode(errors="replace").partition(MARK)[0]

    def ended(self) -> bool:
        """Has its first process ended?  (A pidfd is readable then.)"""
        return bool(select.select([self._context.pidfd], [], [], 0)[0])

    def wait(self) -> int:
        """Its exit status, 128+n if signal n killed it."""
        if self._status < 0:
            self._status = wait(self._context.pidfd)
        return self._status
