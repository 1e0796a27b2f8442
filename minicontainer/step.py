"""A Step is one thing the kernel is asked to do: it can describe, run and undo itself.

The same object prints the lesson (``title``, docstring, ``shell``) and makes the system call
(``run``), so what is told can never drift from what is done.  A Plan is an ordered tuple of
Steps; the order is the story, and it decides who runs each step and when:

    HOST steps before the clone      the host makes ready: directories, cgroup, programs
    CLONE steps                      not run one by one: clone3(2) does them all in one call
    HOST steps after the clone       the child exists and waits for its turn: id maps
    CONTAINER steps                  the child furnishes its own namespaces, then execs
    HOST steps behind those          it has memory of its own, and waits: limits

``launch.py`` knows nothing of steps but this protocol.
"""

from __future__ import annotations

from minicontainer import libc
from minicontainer.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any, ClassVar, Self, dataclass_transform
else:

    def dataclass_transform(**_words: object) -> Callable[[type], type]:
        """At run time the marker does nothing; importing typing would cost 9 ms."""
        return lambda cls: cls


@dataclass_transform(frozen_default=True)
class Record:
    """A frozen value with named fields: what ``dataclasses`` gives, without its 13 ms import.

    Fields are the class annotations in order, bases first; class values are defaults.
    """

    _fields: ClassVar[tuple[str, ...]] = ()
    _required: ClassVar[tuple[str, ...]] = ()  # those without a default

    def __init_subclass__(cls) -> None:
        own = [
            name
            for name, kind in cls.__dict__.get("__annotations__", {}).items()
            if not str(kind).startswith("ClassVar")
        ]
        cls._fields = (*(f for f in cls._fields if f not in own), *own)
        cls._required = tuple([f for f in cls._fields if not hasattr(cls, f)])

    def __init__(self, *values: Any, **named: Any) -> None:
        fields, mine = self._fields, self.__dict__
        if len(values) > len(fields):
            raise TypeError(f"{type(self).__name__} takes at most {len(fields)} values")
        mine.update(zip(fields, values))  # noqa: B905 - fewer values than fields is fine
        for name, value in named.items():
            if name not in fields or name in mine:
                raise TypeError(f"{type(self).__name__}: unexpected or repeated field {name!r}")
            mine[name] = value
        for name in self._required:
            if name not in mine:
                raise TypeError(f"{type(self).__name__}: field {name!r} is missing")

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__} is frozen: use replace({name}=...)")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{type(self).__name__} is frozen")

    def replace(self, **changes: Any) -> Self:
        """A copy with some fields changed."""
        return type(self)(**{**{f: getattr(self, f) for f in self._fields}, **changes})

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and all(
            getattr(self, f) == getattr(other, f) for f in self._fields
        )

    def __hash__(self) -> int:
        return hash((type(self), tuple(getattr(self, f) for f in self._fields)))

    def __repr__(self) -> str:
        shown = [f"{f}={getattr(self, f)!r}" for f in self._fields]
        return f"{type(self).__name__}({', '.join(shown)})"


# Which side of the clone runs a step.
HOST = "host"
CLONE = "clone"
CONTAINER = "container"


class Step(Record):
    """One line of a plan.

    Subclasses set ``side``, ``name`` (the word for ``--without``; unique in a plan unless the
    steps belong together) and ``without`` (what breaks when the step is left out), describe *why*
    in their docstring, and define ``run``.
    """

    side: ClassVar[str] = CONTAINER
    name: ClassVar[str] = ""
    without: ClassVar[str] = ""
    # What of /proc/PID shows the step's work, for --explain=2 and 3 (look.py): a file or a link
    # ("uid_map", "ns/mnt", "fd/0"), a directory ("fd"), a line of a file by its first word
    # ("status:CapBnd") or by its number ("mountinfo:1").  Before the clone, PID is the runtime.
    look: ClassVar[tuple[str, ...]] = ()

    def title(self) -> str:
        """The step in a few words, imperative: "make mounts private"."""
        return type(self).__name__

    def shell(self) -> str:
        """What a person would type to the same end: lines for sh(1), "" where no tool does it.

        ``run --as-shell`` really runs them, so whatever a user chose goes through ``quote``.  They
        may use $ROOT, the new root as the host sees it; $CGROUP; and, after the clone, $PID."""
        return ""

    def shell_prefix(self) -> str:
        """The same for what a shell cannot do to itself: a command that does it and then becomes
        whatever stands behind it, such as "setsid" in ``setsid PROGRAM``."""
        return ""

    def shell_undo(self) -> str:
        """The same for ``undo``: run at the end, last step first."""
        return ""

    def run(self, context: Context) -> None:
        """Do it: one or two verbs of the kernel module.  Raises KernelError."""

    def undo(self, context: Context) -> None:
        """Take back what outlives the container; called in reverse order, must not raise for
        "already gone"."""


def quote(*words: str) -> str:
    """The words as sh(1) must read them to get exactly these: "don't" becomes 'don'"'"'t'."""
    import shlex  # which imports re: 6 ms that only --explain and --as-shell spend

    return shlex.join(words)


class CloneStep(Step):
    """A namespace (or cgroup) the child is *born* in: a flag for clone3(2)."""

    side: ClassVar[str] = CLONE
    flag: ClassVar[int] = 0

    def wish(self, context: Context) -> int:
        """The flag, or 0 where the host's steps could not make ready for it."""
        return self.flag


class Context:
    """What the steps of one launch share; each side of the clone has its own copy of it."""

    def __init__(self, container_id: str, directory: str) -> None:
        self.id = container_id
        #: /run/minicontainer/<id>: everything this container leaves on the host lies here
        self.directory = directory
        self.pid, self.pidfd = 0, -1  # the container's first process, as the host sees it
        #: a directory descriptor for CLONE_INTO_CGROUP, or -1
        self.cgroup_fd = -1
        self.left_behind = False  # not all could be undone: the state stays, for a sweep
        #: no device filter stands: CAP_MKNOD is left out, and the image's nodes open nothing
        self.unfiltered = False
        #: descriptors the child closes first: what it would keep alive by holding it (locks)
        self.host_fds: list[int] = []
        #: descriptors that steps leave for later steps, by name
        self.fds: dict[str, int] = {}
        #: bytes that host steps make ready for container steps, by name
        self.blobs: dict[str, bytes] = {}
        #: the container's end of the wire, or -1 where nobody listens
        self.wire_fd = -1
        #: the trampoline says READY on the wire and waits for GO: the host has something left to do
        self.waits = False
        #: the program's environment ("NAME=value"); steps may add to it until the exec
        self.env: list[str] = []
        #: how a step says something that is no error; a child is heard when its turn is over
        self.warn: Callable[[str], None] = lambda text: None
        #: how a step hands a descriptor to the other side: send_fd(word, fd)
        self.send_fd: Callable[[str, int], None] = lambda word, fd: None
        #: how the last step says what is to be executed: execute(program, argv, envp, again)
        self.execute: Callable[[int | str, Sequence[str], Sequence[str], str], None]

    def for_child(self) -> Context:
        """The child's own: what it opens and notes is not the host's.  It has no pid to name."""
        other = Context(self.id, self.directory)
        other.__dict__.update(self.__dict__)
        other.pid, other.pidfd = 0, -1
        other.fds, other.blobs, other.env = {**self.fds}, {**self.blobs}, [*self.env]
        return other


class Plan:
    """An ordered, immutable list of Steps."""

    def __init__(self, *steps: Step) -> None:
        self.steps = steps

    def __iter__(self) -> Iterator[Step]:
        return iter(self.steps)

    def __len__(self) -> int:
        return len(self.steps)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Plan) and self.steps == other.steps

    def __hash__(self) -> int:
        return hash(self.steps)

    def names(self) -> list[str]:
        """The words that ``without`` understands, in the plan's order, each once."""
        return list(dict.fromkeys(step.name for step in self.steps))

    def without(self, *names: str) -> Plan:
        """The plan less the steps with these names: the counterfactual that teaches.

        Raises UsageError for a name that no step of this plan has.
        """
        known = self.names()
        for name in names:
            if name not in known:
                raise UsageError(
                    f"no step is called {name!r}", "the steps are: " + ", ".join(known)
                )
        return Plan(*(step for step in self.steps if step.name not in names))

    def before_clone(self) -> list[Step]:
        """The host's steps up to the first CLONE step."""
        first = self._first_clone()
        return [s for s in self.steps[:first] if s.side == HOST]

    def clone(self) -> list[Step]:
        """The steps that clone3(2) performs."""
        return [s for s in self.steps if s.side == CLONE]

    def after_clone(self) -> list[Step]:
        """The host's steps while the child waits for its turn."""
        return [s for s in self.steps[self._first_clone() : self._late()] if s.side == HOST]

    def before_program(self) -> list[Step]:
        """The host's steps while the trampoline waits for GO."""
        return [s for s in self.steps[self._late() :] if s.side == HOST]

    def container(self) -> list[Step]:
        """The child's steps, in its own namespaces."""
        return [s for s in self.steps if s.side == CONTAINER]

    def _first_clone(self) -> int:
        for index, step in enumerate(self.steps):
            if step.side == CLONE:
                return index
        # Nothing is cloned into: the host's steps are those before the first container step.
        for index, step in enumerate(self.steps):
            if step.side == CONTAINER:
                return index
        return len(self.steps)

    def _late(self) -> int:
        sides = [step.side for step in self.steps]
        last = len(sides) - sides[::-1].index(CONTAINER) if CONTAINER in sides else len(sides)
        return max(last, self._first_clone())


class Narrator(libc.Trace):
    """Someone who watches a launch step by step; this one watches in silence.

    ``--explain`` (narrate.py) and the benchmarks are narrators.  With one, each of the child's
    steps is a turn of its own, so that /proc can be looked at in between."""

    def __init__(self) -> None:
        #: the system calls of the step that runs, or ran last: "mount(NULL, ...) = 0"
        self.calls: list[str] = []

    def called(self, call: str, arguments: str, result: int) -> None:
        """libc reports a system call of the step that is running."""
        self.calls.append(f"{call}({arguments}) = {result}")

    def planned(self, plan: Plan, context: Context) -> None:
        """A launch of ``plan`` begins."""

    def begin(self, step: Step, context: Context) -> None:
        """``step`` is about to run; ``context.pid`` is 0 before the clone."""

    def end(self, step: Step, context: Context, nanoseconds: int, calls: list[str]) -> None:
        """``step`` ended well, having made these system calls."""

    def cloned(self, steps: list[Step], context: Context, nanoseconds: int) -> None:
        """clone3(2) has performed these CLONE steps."""

    def failed(self, steps: list[Step], context: Context, error: BaseException) -> None:
        """``steps`` failed: one, or the CLONE steps together.  All will be undone."""

    def running(self, context: Context) -> None:
        """The last step has done it: the process is the program now."""
