"""launch: run a Plan.  Two processes, one wire, and no idea what any step does.

        host                                    container
        run the steps before the clone
        clone3(2) ─────────────────────────────► (born in its namespaces)
        run the steps after the clone            wait for GO
        GO ────────────────────────────────────► run the container's steps
        read words until end-of-file ◄────────── DOING, WARN, FD, EXEC
        the program runs                         execve(2)

If anything fails, the child is killed and the host's steps are undone, last first.
"""

from __future__ import annotations

import gc
import os
import sys
import time

from minicontainer import libc
from minicontainer.errors import KernelError, MinicontainerError, StepFailed
from minicontainer.kernel.process import clone3, kill, wait
from minicontainer.step import Context, Narrator, Plan, Step
from minicontainer.wire import Wire, error_from

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn


def launch(plan: Plan, context: Context, narrator: Narrator | None = None) -> None:
    """Run ``plan`` until its program is executing; then ``context.pid`` and ``pidfd`` are its.

    The caller waits for it and then calls ``undo``.  On failure everything has been undone.
    Raises StepFailed, KernelError, UsageError.
    """
    require_single_thread()
    if narrator:
        narrator.planned(plan, context)
    try:
        for step in plan.before_clone():
            _host_step(step, context, narrator)
        _clone(plan, context, narrator)
    except BaseException:
        abandon(plan, context)
        raise


def _clone(plan: Plan, context: Context, narrator: Narrator | None) -> None:
    """The clone, and both processes' parts after it."""
    wishes = plan.clone()
    flags = 0
    for step in wishes:
        flags |= step.wish(context)  # type: ignore[attr-defined]
    rest = plan.after_clone()
    host, container = Wire.pair()
    if not rest:
        host.send("GO")  # there is nothing to wait for: the child finds the word when it is born
    try:
        began = time.monotonic_ns()
        _clone3(flags, wishes, context, narrator)
        if context.pid == 0:
            host.close()  # while a copy is open here, the runtime's death would go unnoticed
            _container_side(plan, context, container, narrator)
        container.close()  # ours; while a copy is open here, end-of-file would never come
        if narrator:
            narrator.cloned(wishes, context, time.monotonic_ns() - began)
        context.send_fd = host.send_fd
        for step in rest:
            _host_step(step, context, narrator)
        if rest:
            host.send("GO")
        _host_side(plan, context, host, narrator)
    finally:
        host.close()
        container.close()


def _clone3(flags: int, wishes: list[Step], context: Context, narrator: Narrator | None) -> None:
    """The system call itself, narrated or not; it returns in both processes."""
    if narrator is None:
        context.pid, context.pidfd = clone3(flags, context.cgroup_fd)
        return
    narrator.calls, libc.trace = [], narrator
    try:
        context.pid, context.pidfd = clone3(flags, context.cgroup_fd)
    except KernelError as error:
        narrator.failed(wishes, context, error)
        raise
    finally:
        libc.trace = None


def _host_step(step: Step, context: Context, narrator: Narrator | None) -> None:
    """Run one of the host's steps, narrated or not."""
    if narrator is None:
        step.run(context)
        return
    narrator.begin(step, context)
    narrator.calls, libc.trace = [], narrator
    began = time.monotonic_ns()
    try:
        step.run(context)
    except Exception as error:
        narrator.failed([step], context, error)
        raise
    finally:
        libc.trace = None
    narrator.end(step, context, time.monotonic_ns() - began, narrator.calls)


def _host_side(plan: Plan, context: Context, wire: Wire, narrator: Narrator | None) -> None:
    """Listen until end-of-file: the program runs, or StepFailed says why it does not."""
    steps = plan.container()
    doing, executing = "", False
    begun: list[Step] = []  # the step that was heard of last
    failure: StepFailed | None = None
    while True:
        words, fd = wire.receive()
        if not words:
            break
        word = words[0]
        if word in ("DOING", "EXEC"):
            step = steps[int(words[1])]
            doing, executing, begun = step.name, word == "EXEC", [step]
            if narrator:
                narrator.begin(step, context)
                wire.send("NEXT")
        elif word == "DONE" and narrator:
            narrator.end(steps[int(words[1])], context, int(words[2]), words[3:])
            wire.send("NEXT")
        elif word == "CALLS" and narrator:
            narrator.calls = words[1:]
        elif word == "WARN":
            context.warn(words[1])
        elif word == "FD":
            context.fds[words[1]] = fd
        elif word == "ERROR":
            failure = error_from(words[1:])
    if failure is None and executing:
        if narrator:
            narrator.running(context)
        return
    if failure is None:
        status = wait(context.pidfd)
        if wire.marked() >= 0:
            doing = steps[wire.marked()].name
        failure = StepFailed(
            doing or "clone",
            f"the container's first process ended (status {status}) in step {doing or 'clone'!r}",
            "see what killed it: dmesg, or a limit of the cgroup this shell is in",
        )
    if narrator:
        narrator.failed(begun or plan.clone(), context, failure)
    raise failure


def _container_side(
    plan: Plan, context: Context, wire: Wire, narrator: Narrator | None
) -> NoReturn:
    """The child: wait for GO, run the container's steps, of which the last does not return.

    No frame of the parent may be returned to, whatever happens; hence the _exit."""
    doing = "clone"
    try:
        gc.disable()  # a collection would touch, and so copy, every page we share with the parent
        # After pivot_root, Python's search path leads into the image: an import would run its code
        # with all our power.  What is needed has been imported; what has not fails here, loudly.
        sys.path.clear()
        sys.meta_path.clear()
        for fd in context.host_fds:
            os.close(fd)
        context.wire_fd = wire.fileno()
        context.warn = lambda text: (wire.send("WARN", text), None)[1]
        context.send_fd = wire.send_fd
        os.umask(0o022)
        _wait_for_go(context, wire)
        steps = plan.container()
        for index, step in enumerate(steps):
            doing = step.name
            wire.mark(index)
            last = index == len(steps) - 1
            if (last or narrator) and not wire.send("EXEC" if last else "DOING", str(index)):
                os._exit(125)  # the runtime is gone: nobody would wait for this container
            if narrator:
                _narrated_step(step, index, context, wire, narrator)
            else:
                step.run(context)
        raise MinicontainerError("the plan ended without executing a program")
    except BaseException as error:
        wire.send_error(doing, error)
    finally:
        os._exit(125)


def _wait_for_go(context: Context, wire: Wire) -> None:
    """Collect the host's descriptors until GO; a host that is gone means: go no further."""
    while True:
        words, fd = wire.receive()
        if not words:
            os._exit(125)
        if words[0] == "GO":
            return
        if words[0] == "FD":
            context.fds[words[1]] = fd


def _narrated_step(
    step: Step, index: int, context: Context, wire: Wire, narrator: Narrator
) -> None:
    """Run one of the container's steps in step with the host's telling."""
    wire.receive()  # NEXT: the host has looked at /proc as it was before
    narrator.calls, libc.trace = [], narrator
    began = time.monotonic_ns()
    try:
        step.run(context)
    except BaseException:
        wire.send("CALLS", *narrator.calls)
        raise
    took = time.monotonic_ns() - began
    libc.trace = None
    wire.send("DONE", str(index), str(took), *narrator.calls)
    wire.receive()  # NEXT: and as it is now


def abandon(plan: Plan, context: Context) -> None:
    """After a failure: end the child, if there is one, and undo the host's steps."""
    if context.pid:
        kill(context.pidfd)
        try:
            wait(context.pidfd)
        except ChildProcessError:
            pass
    undo(plan, context)


def undo(plan: Plan, context: Context) -> bool:
    """Undo what outlives the container: the host's steps backwards, each whatever the others do.

    A step that fails to undo is reported with context.warn, makes the answer False, and does not
    stop the rest."""
    whole = True
    for step in reversed([*plan.before_clone(), *plan.after_clone()]):
        try:
            step.undo(context)
        except (OSError, MinicontainerError) as error:
            context.warn(f"left behind by step {step.name!r}: {error}")
            whole = False
    if context.pidfd >= 0:
        os.close(context.pidfd)
        context.pidfd = -1
    for name in list(context.fds):
        os.close(context.fds.pop(name))
    return whole


def require_single_thread() -> None:
    """clone3(2) copies one thread only; locks that others hold stay locked in the child for ever.

    Raises MinicontainerError when this process has more than one thread (pthread_atfork(3))."""
    threads = len(os.listdir("/proc/self/task"))
    if threads > 1:
        raise MinicontainerError(
            f"this process has {threads} threads; a container can be launched from a "
            "single-threaded process only",
            "launch before starting threads, or run the minicontainer command as a subprocess",
        )
