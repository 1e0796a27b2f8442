"""clone3(2), the system call that is the whole idea: a process, with a list of wishes.

fork(2) makes a copy of the calling process.  clone3 asks, table by table, whether the child gets a
copy, shares its parent's, or sees a fresh one:

    CLONE_VM | CLONE_FILES | CLONE_FS | CLONE_THREAD ...   shares all of them      a thread
    nothing                                                a copy of each          fork(2)
    CLONE_VM, until it executes a program                  shares memory only      vfork(2)
    CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWNET ...          fresh ones              a container

A child with wishes of the last kind *is* a container; everything else in this house is furniture.

Ours shares our memory as well, until its program runs (``Child``).  A copy would cost us page
tables, and a page for each page that either of us writes to: most of a launch.  Sharing costs
nothing, and what the child finds out (an error, a warning) simply lies there for us.  The price is
that only one of the two may run at a time: they take turns.

By hand:   unshare --uts --pid --fork sh
See it:    ls -l /proc/self/ns ; strace -f -e clone3,execveat minicontainer run --rm alpine true
Man pages: clone(2), vfork(2), pidfd_open(2), execveat(2), unix(7) on SCM_RIGHTS
"""

from __future__ import annotations

import _socket
import errno

from minicontainer.deaf import Deaf
from minicontainer.descriptors import PACKETS, receive_descriptor, send_descriptor
from minicontainer.errors import KernelError
from minicontainer.libc import C, Flags, c_string, check, ffi

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

# ---- vocabulary: include/uapi/linux/sched.h

CLONE_FLAGS = {
    "CLONE_NEWTIME": 0x80, "CLONE_VM": 0x100, "CLONE_PIDFD": 0x1000, "CLONE_NEWNS": 0x00020000,
    "CLONE_NEWCGROUP": 0x02000000, "CLONE_NEWUTS": 0x04000000, "CLONE_NEWIPC": 0x08000000,
    "CLONE_NEWUSER": 0x10000000, "CLONE_NEWPID": 0x20000000, "CLONE_NEWNET": 0x40000000,
    "CLONE_CLEAR_SIGHAND": 0x100000000, "CLONE_INTO_CGROUP": 0x200000000,
}  # fmt: skip
_ALWAYS = 0x100000000 | 0x1000 | 0x100  # what clone.c adds
_MEANING = {
    errno.EPERM: "new namespaces need CAP_SYS_ADMIN (or a new user namespace); a new user "
    "namespace is not to be had in a chroot",
    errno.ENOSPC: "a limit in /proc/sys/user/max_*_namespaces is reached",
    errno.EUSERS: "user namespaces are nested too deep (32), or their limit is reached",
    errno.EINVAL: "this kernel was built without one of these namespaces, or it is older than "
    "6.2 and there is to be a time namespace",
    errno.EBUSY: "the cgroup hands controllers to children, so it may hold no process",
    errno.EOPNOTSUPP: "the cgroup is of type 'domain invalid'",
    errno.EAGAIN: "a limit on the number of processes is reached",
    errno.ENOSYS: "clone3 is forbidden here (an outer container's seccomp filter?)",
}
_STACK_MEANING = {
    errno.ENOMEM: "there is no memory for its stack",
    errno.ENOSYS: "this Python is a 3.14 that cannot be told of another stack: take a newer one",
}
_EXEC_MEANING = {
    errno.ENOEXEC: "the trampoline was built for another machine",
    errno.EACCES: "the trampoline lies on a noexec mount, or a security module forbids it",
    errno.EPERM: "a seccomp profile forbids it",
    errno.E2BIG: "arguments and environment are too long together",
}
_AT_FDCWD = -100
_LIMIT = 64 * 1024  # bytes in one message

# include/uapi/linux/prctl.h
_PR_GET_DUMPABLE, _PR_SET_DUMPABLE = 3, 4

# ---- verbs


class Child:
    """A child that shares our memory, and does what it is given, turn by turn.

    What a turn asks of the kernel happens to the child: its namespaces, mounts, descriptors and
    credentials are its own.  What it does to memory, it does to ours.  So a turn imports nothing,
    and leaves alone what stands for something in the kernel: to close one of our file objects
    would close the child's copy of the descriptor, and ours never.

    Two socket pairs lead to it: the *wire* gives it its turns, and is there for its program to
    speak on; through the *channel* go descriptors, which no memory can carry."""

    def __init__(self) -> None:
        self.pid, self.pidfd = 0, -1
        self.executed = False  # has it left our memory for a program's own?
        self._child = ffi.new("struct child *")
        self._host, wire = _socket.socketpair(*PACKETS)
        self._channel, inner = _socket.socketpair(*PACKETS)
        self._childs_ends = [wire, inner]
        self.wire = wire.fileno()  # the child's end, by the child's numbers
        self._inner = inner.fileno()
        self._child.host_end, self._child.wire = self._host.fileno(), self.wire
        self._inward, self._outward = list[str](), list[str]()  # names of what is in the channel
        self._strings: list[Any] = []  # what C points to
        self._exec: tuple[Any, ...] = ()  # the call that ``execute`` asked for
        self._dumpable = C.prctl(_PR_GET_DUMPABLE, 0, 0, 0, 0)

    def start(self, flags: int, cgroup_fd: int = -1) -> None:
        """clone3(2) with ``flags`` (CLONE_NEW*...); ``cgroup_fd`` is for CLONE_INTO_CGROUP.

        The child waits for its first turn.  Raises KernelError, with what the errno means."""
        error = C.child_prepare(self._child)
        if error:
            raise KernelError("mmap", "", error, _STACK_MEANING.get(error, ""))
        with Deaf() as deaf:
            self._child.mask = deaf.mask
            pid = C.child_start(self._child, flags, cgroup_fd)
            ffi.errno = max(-pid, 0)
            check(max(pid, -1), "clone3", Flags(flags | _ALWAYS, CLONE_FLAGS), meaning=_MEANING)
            self.pid, self.pidfd = pid, self._child.pidfd
            for end in self._childs_ends:  # with a copy open here, end-of-file would never come
                end.close()

    def turn(self, function: Callable[[], object]) -> bool:
        """Have the child call ``function``; what that raises is raised here.

        False when the child is gone from our memory: it became what it was told to ``execute``, or
        it died (``executed`` tells which).  Raises KernelError where the exec failed: execve(2)."""
        raised: list[BaseException] = []

        def call() -> None:
            try:
                function()
            except BaseException as error:
                raised.append(error)

        self._child.turn = id(call)  # in CPython, the address of the object
        with Deaf():
            back = int(C.child_turn(self._child))
            if back < 0:
                C.child_recovered()
            self.executed = bool(self._child.left)
        if raised:
            raise raised[0]
        if self._child.failed:
            raise MemoryError("the child could not begin its turn")
        if self._child.error or self.executed:
            ffi.errno = self._child.error
            check(-1 if self._child.error else 0, *self._exec, meaning=_EXEC_MEANING)
        return back > 0

    def execute(
        self, program: int | str, argv: Sequence[str], envp: Sequence[str], again: str = ""
    ) -> None:
        """In a turn: when it ends, execute the file behind a descriptor, or at a path.

        ``again`` is a path to the same file, for where a seccomp profile allows execve(2) and has
        never heard of execveat(2).  Raises CannotExecute for what no C string can hold."""
        path = program if isinstance(program, str) else ""
        self._child.program = _AT_FDCWD if path else program
        self._child.path = self._hold(path)
        self._child.path_again = self._hold(again) if again else ffi.NULL
        self._child.envp = self._hold_all(envp)
        self._child.argv = self._hold_all(argv)  # with this, it is decided
        shown = f"[/* {len(envp)} vars */]"
        self._exec = (
            ("execve", program) if path
            else ("execveat", program, "", list(argv), shown, "AT_EMPTY_PATH")
        )  # fmt: skip

    def give(self, name: str, fd: int) -> None:
        """Hand the child a copy of a descriptor of ours: ``taken`` is where it finds it."""
        send_descriptor(self._channel.fileno(), fd)
        self._inward.append(name)

    def taken(self) -> dict[str, int]:
        """In a turn: what we were given since we last asked."""
        names, self._inward = self._inward, []
        return {name: receive_descriptor(self._inner) for name in names}

    def hand_out(self, name: str, fd: int) -> None:
        """In a turn: ``give``, the other way round."""
        send_descriptor(self._inner, fd)
        self._outward.append(name)

    def handed_out(self) -> dict[str, int]:
        """What the child handed out since we last asked."""
        names, self._outward = self._outward, []
        return {name: receive_descriptor(self._channel.fileno()) for name in names}

    def hear(self) -> bytes:
        """What the program says on the wire: one message, or b"" when no copy of its end is open
        any more.  recv(2)."""
        return self._host.recv(_LIMIT)

    def say(self, words: bytes) -> None:
        """One message to the program; that it is gone is no error.  send(2)."""
        try:
            self._host.send(words, _socket.MSG_NOSIGNAL)
        except ConnectionError:
            return

    def close(self) -> None:
        """The child has executed its program, or is dead: free what was there for the two of us.

        "Not dumpable" (kernel/process.py) belongs to the memory, so it was ours, too: prctl(2)."""
        for end in (self._host, self._channel, *self._childs_ends):
            end.close()
        C.child_free(self._child)
        if C.prctl(_PR_GET_DUMPABLE, 0, 0, 0, 0) != self._dumpable == 1:
            C.prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0)

    def _hold(self, text: str) -> Any:
        """A C string that lives as long as we do."""
        self._strings.append(c_string(text))
        return self._strings[-1]

    def _hold_all(self, texts: Sequence[str]) -> Any:
        """The same for a ``char *[]``, with NULL at its end."""
        self._strings.append(ffi.new("char *[]", [*map(self._hold, texts), ffi.NULL]))
        return ffi.cast("const char **", self._strings[-1])
