"""launch: run a Plan.  Two processes that take turns, and no idea what any step does.

        host                                    container
        run the steps before the clone
        clone3(2) ─────────────────────────────► (born in its namespaces)
        run the steps after the clone            waits
        give it its turn ──────────────────────► run the container's steps
        (sleeps)                                 execve(2): the trampoline
        run the steps before the program ◄────── READY, where there are any
        GO ────────────────────────────────────► execve(2): the program
        read until end-of-file ◄──────────────── (the wire is close-on-exec)

The two share their memory until the first execve (kernel/clone.py).  So an error in a container's
step is an exception like any other.  If anything fails, the child is killed and the host's steps
are undone, last first.
"""

from __future__ import annotations

import gc
import os
import sys
import time

from minicontainer import libc
from minicontainer.deaf import Deaf
from minicontainer.errors import MinicontainerError, StepFailed
from minicontainer.kernel.clone import Child
from minicontainer.kernel.process import kill, wait
from minicontainer.step import HOST, Context, Narrator, Plan, Step
from minicontainer.wire import GO, READY, error_from, step_failed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


def launch(plan: Plan, context: Context, narrator: Narrator | None = None) -> None:
    """Run ``plan`` until its program is executing; then ``context.pid`` and ``pidfd`` are its.

    The caller waits for it and then calls ``undo``.  On failure everything has been undone.
    Raises StepFailed, KernelError, UsageError.
    """
    require_single_thread()
    if narrator:
        narrator.planned(plan, context)
    child = Child()
    try:
        run_each(plan.before_clone(), context, narrator)
        _clone(plan, context, child, narrator)
        run_each(plan.after_clone(), context, narrator)
        _furnish(plan, context, child, narrator)
        context.fds.update(child.handed_out())
        _let_go(plan, context, child, narrator)
    except BaseException:
        context.pid, context.pidfd = child.pid, child.pidfd
        abandon(plan, context)
        raise
    finally:
        child.close()
    if narrator:
        narrator.running(context)


def run_each(steps: list[Step], context: Context, narrator: Narrator | None) -> None:
    """Run the host's steps, one after the other."""
    for step in steps:
        try:
            if narrator is None:
                step.run(context)
            else:
                narrate(step, context, narrator, lambda step: step.run(context))
        except OSError as error:
            failed = step_failed(step.name, error)
            failed.message = f"step {step.name!r}: {failed.message}"
            raise failed from error


def narrate(
    step: Step, context: Context, narrator: Narrator, run: Callable[[Step], object]
) -> None:
    """Run a step with someone watching."""
    narrator.begin(step, context)
    took = _watched(narrator, [step], context, lambda: run(step))
    narrator.end(step, context, took, narrator.calls)


def _watched(
    narrator: Narrator, steps: list[Step], context: Context, run: Callable[[], object]
) -> int:
    """Run with every system call noted; how many nanoseconds it took."""
    narrator.calls, libc.trace = [], narrator
    began = time.monotonic_ns()
    try:
        run()
    except Exception as error:
        libc.trace = None  # the narrator's own calls are no part of it
        narrator.failed(steps, context, error)
        raise
    finally:
        libc.trace = None
    return time.monotonic_ns() - began


def _clone(plan: Plan, context: Context, child: Child, narrator: Narrator | None) -> None:
    """One system call, for all the CLONE steps together."""
    wishes = plan.clone()
    flags = 0
    for step in wishes:
        flags |= step.wish(context)  # type: ignore[attr-defined]

    def clone3() -> None:
        child.start(flags, context.cgroup_fd)
        context.pid, context.pidfd = child.pid, child.pidfd

    if narrator is None:
        clone3()
    else:
        took = _watched(narrator, wishes, context, clone3)
        narrator.cloned(wishes, context, took)
    context.send_fd = child.give


def _furnish(plan: Plan, context: Context, child: Child, narrator: Narrator | None) -> None:
    """The child's turn: all its steps, of which the last says what to execute.  Narrated, each
    step is a turn of its own, for only the host can look at the child from outside."""
    inside = Inside(context, child, waits=narrator is not None or bool(plan.before_program()))
    if narrator is None:
        inside.turn(plan.container())
    else:
        for step in plan.container():
            narrate(step, context, narrator, lambda step: inside.turn([step]))
    if not child.executed:
        raise StepFailed(inside.doing, "the plan ended without executing a program")


class Inside:
    """The container's side of a launch, as it runs and as the host sees it."""

    def __init__(self, context: Context, child: Child, waits: bool) -> None:
        #: the step that has begun last
        self.doing = "clone"
        self._host, self._child = context, child
        self._arrived = False
        self._said: list[str] = []  # its standard error may be the container's by then
        self._context = context.for_child()
        self._context.wire_fd, self._context.waits = child.wire, waits
        self._context.send_fd, self._context.execute = child.hand_out, child.execute
        self._context.warn = self._said.append

    def turn(self, steps: list[Step]) -> None:
        """Give the child a turn, to run these steps.  Raises StepFailed."""
        try:
            with Guarded():
                stays = self._child.turn(lambda: self._run(steps))
        except Exception as error:
            raise step_failed(self.doing, error) from error
        finally:
            while self._said:
                self._host.warn(self._said.pop(0))
        if not stays and not self._child.executed:
            status = wait(self._host.pidfd)
            raise StepFailed(
                self.doing,
                f"the container's first process ended (status {status}) in step {self.doing!r}",
                "see what killed it: dmesg, or a limit of the cgroup this shell is in",
            )

    def _run(self, steps: list[Step]) -> None:
        """What the child does with its turn."""
        if not self._arrived:
            self._arrived = True
            for fd in self._host.host_fds:
                os.close(fd)
            os.umask(0o022)
            self._context.fds.update(self._child.taken())
        for step in steps:
            self.doing = step.name
            step.run(self._context)


def _let_go(plan: Plan, context: Context, child: Child, narrator: Narrator | None) -> None:
    """The child is a program by now, with memory of its own: the trampoline's, and then its own."""
    rest = plan.before_program()
    words = child.hear()
    if words == READY:
        run_each(rest, context, narrator)
        child.say(GO)
        words = child.hear()
    elif rest and not words:  # there was no trampoline to wait for us (--without seal)
        run_each(rest, context, narrator)
    if words:
        raise error_from(words)


class Guarded:
    """While a child has its turn with our interpreter: no imports, and nothing is collected.

    After pivot_root(2), Python's search path leads into the image: an import would run its code
    with all our power.  What is needed has been imported; what has not fails here, loudly.  And a
    garbage collection might close, in the child, what is open here."""

    def __enter__(self) -> None:
        """First in line to be asked."""
        self._collects = gc.isenabled()
        gc.disable()
        sys.meta_path.insert(0, self)

    def __exit__(self, *_exception: object) -> None:
        """Everything as it was before."""
        sys.meta_path.remove(self)
        if self._collects:
            gc.enable()

    def find_spec(self, name: str, *_where: Any) -> None:
        """Asked by ``import``."""
        raise ImportError(f"import {name}: too late, the search path leads into the container")


def require_single_thread() -> None:
    """A child that is killed in the middle of its turn may take the interpreter's lock with it.  We
    can mend that as long as nobody else is waiting for it; and of several threads only we would
    stand still.  Raises MinicontainerError when this process has more than one (docs/adr/0008)."""
    threads = len(os.listdir("/proc/self/task"))
    if threads > 1:
        raise MinicontainerError(
            f"this process has {threads} threads; a container can be launched from a "
            "single-threaded process only",
            "launch before starting threads, or run the minicontainer command as a subprocess",
        )


def abandon(plan: Plan, context: Context) -> None:
    """After a failure: end the child, if there is one, and undo the host's steps.  Whoever is
    impatient (a second Ctrl-C) has to wait until that is done."""
    with Deaf():
        if context.pid:
            kill(context.pidfd)
            try:
                wait(context.pidfd)
            except ChildProcessError:
                pass
        undo(plan, context)


def undo(plan: Plan, context: Context) -> bool:
    """Undo what outlives the container: the host's steps backwards, each whatever the others do.

    A step that fails to undo is reported with context.warn, makes the answer False (and is noted in
    ``context.left_behind``), and does not stop the rest."""
    whole = True
    for step in reversed([s for s in plan if s.side == HOST]):
        try:
            step.undo(context)
        except (OSError, MinicontainerError) as error:
            context.warn(f"left behind by step {step.name!r}: {error}")
            whole, context.left_behind = False, True
    if context.pidfd >= 0:
        os.close(context.pidfd)
        context.pidfd = -1
    for name in list(context.fds):
        os.close(context.fds.pop(name))
    return whole
