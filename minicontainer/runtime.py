"""runtime: a container's life from Spec to exit status, for the command line and for Python.

    from minicontainer import Container, Process, Root, Spec

    spec = Spec(process=Process(args=("echo", "hello")), root=Root(layers=("/path/to/rootfs",)))
    with Container(spec) as container:
        status = container.wait()

Leaving the ``with`` block ends the container if it still runs and removes all that it used.
"""

from __future__ import annotations

import _signal
import os
import time

from minicontainer import state
from minicontainer.cgrouptree import home
from minicontainer.errors import MinicontainerError
from minicontainer.kernel import process
from minicontainer.launch import abandon, launch, undo
from minicontainer.plan import Place, plan
from minicontainer.spec import Spec
from minicontainer.step import Context, Narrator, Plan

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

    from minicontainer.kernel.limitevents import Events, PostMortem

DEFAULT_CACHE = "/var/cache/minicontainer"


def new_id() -> str:
    """64 random hexadecimal digits, as docker's container ids."""
    return os.urandom(32).hex()


def cache_root() -> str:
    """Where compiled seccomp filters are kept: MINICONTAINER_CACHE, or /var/cache/minicontainer."""
    return os.environ.get("MINICONTAINER_CACHE") or DEFAULT_CACHE


def place_for(
    container_id: str, *, stdio: tuple[int, int, int] = (0, 1, 2), foreground: bool = True
) -> Place:
    """Where a container of this id keeps its things on this host."""
    return Place(
        id=container_id,
        scratch=state.scratch(container_id),
        cache=cache_root(),
        foreground=foreground,
        stdio=stdio,
    )


def plan_for(
    spec: Spec,
    container_id: str,
    stdio: tuple[int, int, int] = (0, 1, 2),
    without: tuple[str, ...] = (),
    i_know: bool = False,
) -> Plan:
    """The plan that a Container of these arguments follows.  Raises UsageError."""
    whole = plan(spec, place_for(container_id, stdio=stdio))
    if without:
        from minicontainer.without import check_without

        check_without(whole, without, i_know)
    return whole.without(*without)


class Container:
    """A container of ``spec``, made when the ``with`` block is entered (or by ``start``).

    name       unique among the living ones; "" for none
    image      what it was made from, for ``ps`` to show
    stdio      the descriptors that become its standard input, output, error; -1 is /dev/null
    without    names of steps to leave out of the plan: the counterfactual that teaches
    i_know     leave out also those that keep the other steps off the host
    warn       called with a sentence when something is not as asked and not an error
    narrator   watches each step (step.Narrator)

    Raises MinicontainerError and its kin (errors.py); then nothing is left behind."""

    def __init__(
        self,
        spec: Spec,
        *,
        container_id: str = "",
        name: str = "",
        image: str = "",
        stdio: tuple[int, int, int] = (0, 1, 2),
        without: tuple[str, ...] = (),
        i_know: bool = False,
        warn: Callable[[str], None] = lambda text: None,
        narrator: Narrator | None = None,
    ) -> None:
        self.id = container_id or new_id()
        if not spec.linux.cgroups_path:  # every container has one: its devices hang on it
            linux = spec.linux.replace(cgroups_path=f"/minicontainer/{self.id}")
            spec = spec.replace(linux=linux)
        self.spec = spec
        self.name = name
        self.image = image
        self.plan: Plan = plan_for(spec, self.id, stdio, without, i_know)
        self._context = Context(self.id, "")
        self._context.warn = warn
        self._narrator = narrator
        self._claim: state.Claim | None = None
        self._cgroup = ""  # its directory, once a claim has been made
        self._events: Events | None = None
        #: which limits were met and who killed it, as far as the kernel knows: after ``wait``
        self.post_mortem: PostMortem | None = None

    @property
    def pid(self) -> int:
        """The container's first process, as the host numbers it; 0 before ``start``."""
        return self._context.pid

    @property
    def pidfd(self) -> int:
        """A descriptor for it (pidfd_open(2)): readable once it has ended."""
        return self._context.pidfd

    @property
    def console(self) -> int:
        """The master side of its terminal (pty(7)), -1 if it has none."""
        return self._context.fds.get("CONSOLE", -1)

    def start(self) -> Self:
        """Run the plan: when this returns, the program has been executed."""
        open_standard_descriptors()
        claim = state.claim(self.id, self.name, self._context.warn)
        try:
            self._context.directory = claim.directory
            self._context.host_fds.append(claim.fd)
            facts = {"scratch": state.scratch(self.id),
                     **facts_of(self.image, self.spec.process.args, time.time())}  # fmt: skip
            if self.spec.root.layers:
                facts["layers"] = ":".join(self.spec.root.layers)
            if cgroup2 := home():
                self._cgroup = facts["cgroup"] = cgroup2 + self.spec.linux.cgroups_path
            claim.write(**facts)
            if used := os.path.exists(self._cgroup):  # somebody's, that has counted before
                self._events = self._count()
            launch(self.plan, self._context, self._narrator)
            born = state.start_time(self.pid)
            claim.write(process=f"{self.pid} {born}", started=ascii(time.time()))
            if not used:  # it began with zeros; the program need not wait while we look further up
                self._events = self._count().fresh()
        except BaseException:
            if self.pidfd >= 0:  # it runs, and could not be put on record
                abandon(self.plan, self._context)
            claim.release(clean=not self._context.left_behind)
            raise
        self._claim = claim
        return self

    def wait(self) -> int:
        """Sleep until the program ends; its exit status, 128+n when signal n killed it.

        Then ``post_mortem`` says what the kernel counted against its limits."""
        # Looked at first, and left to be waited for: a status of 137 may be a shell's own.
        ended = os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED | os.WNOWAIT)
        status = process.wait(self.pidfd)
        if self._claim and self._events:
            end = -9 if ended and ended.si_status == 9 and status == 128 + 9 else status
            sender = state.read_facts(self.id).get("killed", "") if end == -9 else ""
            # Now: with the cgroup its counters will be gone.
            self.post_mortem = self._events.until(self._count(), end, sender)
            self._claim.write(ended=end_facts(status, time.time(), self.post_mortem))
        return status

    def _count(self) -> Events:
        """What the kernel has counted against limits so far; imported when there is time."""
        from minicontainer.kernel.limitevents import read

        return read(self._cgroup)

    def kill(self, signal: int = 9) -> None:
        """Send a signal to its first process; for SIGKILL the kernel ends all of them."""
        process.kill(self.pidfd, signal)

    def remove(self) -> None:
        """Undo what outlives the container: cgroup, upper directory, state.  Twice is no error."""
        if self._claim is None:
            return
        self._claim.release(clean=undo(self.plan, self._context))
        self._claim = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        try:
            self.kill()
            self.wait()
        except ChildProcessError:
            pass  # it has been waited for
        except OSError as gone:
            if self._context.pidfd >= 0:
                raise MinicontainerError(f"container {self.id[:12]}: {gone}") from gone
        finally:
            self.remove()


def run(
    spec: Spec,
    *,
    container_id: str = "",
    name: str = "",
    image: str = "",
    interactive: bool = True,
    without: tuple[str, ...] = (),
    i_know: bool = False,
    warn: Callable[[str], None] = lambda text: None,
    narrator: Narrator | None = None,
    started: Callable[[], None] = lambda: None,
    ended: Callable[[str], None] = lambda text: None,
) -> int:
    """Run a container in the foreground, as ``minicontainer run`` does; its exit status.

    ``interactive`` (docker's -i) gives it this process's standard input.  With
    ``spec.process.terminal`` it has a terminal of its own, joined to this process's.  Signals
    sent to this process are passed on.  ``started`` is called once the program runs, ``ended`` at
    the very end, with each line of the post-mortem."""
    from minicontainer.signals import CaughtSignals, forward_caught

    # Ignored, as whoever started us may have had it, nobody could be waited for: wait(2).
    if _signal.getsignal(_signal.SIGCHLD) == _signal.SIG_IGN:
        _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)
    stdio = (0 if interactive else -1, 1, 2)
    container = Container(
        spec, container_id=container_id, name=name, image=image, stdio=stdio, without=without,
        i_know=i_know, warn=warn, narrator=narrator,
    )  # fmt: skip
    # Caught before there is anyone to pass them on to: none is lost, and none kills us in between.
    with CaughtSignals() as signals, container:
        started()
        if container.console >= 0:
            from minicontainer.console import relay

            relay(container.console, container.pidfd, 0 if interactive else -1, signals=signals)
        else:
            forward_caught(signals, container.pidfd)
        status = container.wait()
    for line in container.post_mortem.lines if container.post_mortem else ():
        ended(line)
    return status


def facts_of(image: str, command: tuple[str, ...], created: float) -> dict[str, str]:
    """What is on record for observers (containers.py) beside what a sweep needs: as Python
    literals, for a command may contain anything and a fact is one line."""
    return {"image": ascii(image), "command": ascii(command), "created": ascii(created)}


def end_facts(status: int, finished: float, found: PostMortem) -> str:
    """How it ended, for the same observers: written before anything of it is removed."""
    return ascii((finished, status, found.oom_kills or 0, found.lines))


def open_standard_descriptors() -> None:
    """Make sure 0, 1 and 2 are open: else the next file we open would become the container's."""
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            os.open("/dev/null", os.O_RDWR)
