"""The only door to the C library: system call numbers, the call itself, and ``check``.

Python's ``os`` has wrappers for the everyday calls (mkdir, open, symlink, setresuid); what makes
a container (clone3, pivot_root, mount, unshare, capset, seccomp) goes through here, by cffi.
Each verb in ``kernel/`` makes its call and hands the result to ``check``, which raises a
KernelError that names the call, its arguments and what the errno means *there*.

Man pages: syscall(2), errno(3).  By hand: ``strace -f minicontainer run ...``.
"""

from __future__ import annotations

import errno
import os

from minicontainer.errors import CannotExecute, KernelError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

try:
    from minicontainer._libc import ffi as ffi
    from minicontainer._libc import lib
except ImportError as missing:  # pragma: no cover - only before installation
    raise ImportError(
        "minicontainer is not installed for this Python: its C part is not built "
        f"({missing}); run: make install"
    ) from missing

C = lib  # the C functions of libc_build.py
NULL = ffi.NULL

# Numbers from the kernel's syscall tables; calls added since 2019 have one number everywhere.
_SINCE_2019 = {
    "open_tree": 428,
    "move_mount": 429,
    "fsopen": 430,
    "fsconfig": 431,
    "fsmount": 432,
    "clone3": 435,
    "close_range": 436,
    "openat2": 437,
    "mount_setattr": 442,
    "landlock_create_ruleset": 444,
    "landlock_add_rule": 445,
    "landlock_restrict_self": 446,
}
_BY_MACHINE = {
    "x86_64": {"setgroups": 116, "setresuid": 117, "setresgid": 119, "capget": 125,
               "capset": 126, "pivot_root": 155, "keyctl": 250,
               "prlimit64": 302, "syncfs": 306, "seccomp": 317, "bpf": 321},
    "aarch64": {"pivot_root": 41, "capget": 90, "capset": 91, "setresuid": 147, "setresgid": 149,
                "setgroups": 159, "keyctl": 219,
                "prlimit64": 261, "syncfs": 267, "seccomp": 277, "bpf": 280},
}  # fmt: skip

MACHINE = os.uname().machine
SYSCALLS = {**_SINCE_2019, **_BY_MACHINE.get(MACHINE, {})}


class Flags(int):
    """An int that remembers how to print itself: ``Flags(MS_REC|MS_BIND, MOUNT_FLAGS)``.

    ``table`` maps flag names to bits.  Only error messages and narration ever look at it.
    """

    table: Mapping[str, int]

    def __new__(cls, value: int, table: Mapping[str, int]) -> Flags:
        """``value``, with the names of its bits."""
        self = super().__new__(cls, value)
        self.table = table
        return self

    def __str__(self) -> str:
        left, names = int(self), []
        for name, bit in self.table.items():
            if bit and left & bit == bit:
                names.append(name)
                left &= ~bit
        return "|".join(names + ([hex(left)] if left else [])) or "0"


def show(argument: object) -> str:
    """One argument of a system call as strace would print it."""
    if argument is None:
        return "NULL"
    if isinstance(argument, bytes):
        argument = argument.decode("utf-8", "backslashreplace")
    if isinstance(argument, str):
        # a constant's name, as in prctl(PR_SET_DUMPABLE, 1), is no string to the kernel
        is_name = argument.isupper() and "_" in argument and "/" not in argument
        return argument if is_name else '"' + argument + '"'
    return str(argument)


class Trace:
    """A listener for system calls: while ``libc.trace`` is one, ``check`` reports each call."""

    def called(self, call: str, arguments: str, result: int) -> None:
        """``call(arguments)`` returned ``result`` (-errno when it failed)."""


trace: Trace | None = None


def check(
    result: int,
    call: str,
    *arguments: object,
    meaning: Mapping[int, str] | None = None,
    hint: str = "",
) -> int:
    """Return ``result`` of ``call(arguments...)``, or raise KernelError if it is -1.

    ``meaning`` translates errnos into what they mean for this very call; ``hint`` says what to
    do.  Must be called straight after the call: it reads errno.
    """
    if result != -1 and trace is None:
        return result
    number = ffi.errno
    text = ", ".join([show(argument) for argument in arguments])
    if trace is not None:
        trace.called(call, text, result if result != -1 else -number)
    if result != -1:
        return result
    raise KernelError(call, text, number, (meaning or {}).get(number, ""), hint)


def told(
    call: Callable[[], object],
    name: str,
    *arguments: object,
    meaning: Mapping[int, str] | None = None,
    hint: str = "",
) -> None:
    """``check`` for a call that a library makes for us: ``os`` or python-prctl, by exception."""
    number = 0
    try:
        call()
    except OSError as error:
        number = error.errno or errno.EINVAL
    if trace is not None or number:
        text = ", ".join([show(argument) for argument in arguments])
        if trace is not None:
            trace.called(name, text, -number)
        if number:
            raise KernelError(name, text, number, (meaning or {}).get(number, ""), hint)


def syscall(name: str, *arguments: int) -> int:
    """Make system call ``name`` with up to six integer arguments; -1 and errno as in C.

    Raises KernelError(ENOSYS) where this machine's number is unknown to us.
    """
    number = SYSCALLS.get(name)
    if number is None:
        raise KernelError(
            name, "", errno.ENOSYS, f"no number known for machine {MACHINE}",
            "minicontainer knows x86_64 and aarch64",
        )  # fmt: skip
    padded = (*arguments, 0, 0, 0, 0, 0, 0)
    return int(C.system_call(number, *padded[:6]))


def address(data: Any) -> int:
    """The address of a cffi object as an integer, for ``syscall``."""
    return int(ffi.cast("uintptr_t", data))


def encode(text: str | bytes | None) -> Any:
    """A ``char *`` for cffi: None is NULL; a path keeps the bytes the file system gave us."""
    if text is None:
        return NULL
    return os.fsencode(text)


def c_string(text: str) -> Any:
    """A ``char[]`` for an exec.  Raises CannotExecute for what C cannot hold."""
    try:
        string = os.fsencode(text)
    except UnicodeEncodeError:
        raise CannotExecute(f"exec: {text!r} has no bytes in this encoding") from None
    if b"\0" in string:  # C would take the part before it for the whole
        raise CannotExecute(f"exec: {text!r} holds a NUL byte")
    return ffi.new("char[]", string)
