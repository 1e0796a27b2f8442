"""Every error that minicontainer raises, drawn as a tree, with docker's exit codes.

    MinicontainerError            exit 125   the runtime failed before the program ran
    ├── UsageError                exit 125   a flag, a name or a config that cannot be meant
    ├── ImageError                exit 125   the store, an archive, a recipe, a download
    ├── KernelError               exit 125   a system call said no
    ├── StepFailed                exit 125   a step of the plan failed (carries the KernelError)
    ├── CannotExecute             exit 126   the program is there and cannot be executed
    └── CommandNotFound           exit 127   the program is not there

A program that ran ends with its own status, or 128+n when signal n killed it (docker-run(1),
"EXIT STATUS").  Nothing below ``cli/`` prints or exits: it raises one of these, once.
"""

from __future__ import annotations

import errno as _errno
import os

EXIT_RUNTIME_FAILED = 125
EXIT_CANNOT_EXECUTE = 126
EXIT_NOT_FOUND = 127


class MinicontainerError(Exception):
    """The root of the tree.

    ``message`` says what failed, with what; ``hint`` (may be empty) says what to do about it.
    """

    exit_code = EXIT_RUNTIME_FAILED

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(MinicontainerError):
    """The request cannot be meant as it was given; nothing has been made."""


class ImageError(MinicontainerError):
    """An image cannot be found, read, fetched or unpacked."""


class CannotExecute(MinicontainerError):
    """The program exists in the container but execve(2) refused it (EACCES, ENOEXEC, ...)."""

    exit_code = EXIT_CANNOT_EXECUTE


class CommandNotFound(MinicontainerError):
    """The program does not exist in the container (ENOENT)."""

    exit_code = EXIT_NOT_FOUND


class KernelError(MinicontainerError):
    """A system call failed.

    ``call`` is its name, ``args`` its arguments as text, ``errno`` the number, ``meaning`` what
    that errno says *for this call* ("" when the general sentence of strerror(3) is all we know).
    """

    def __init__(
        self, call: str, arguments: str, errno: int, meaning: str = "", hint: str = ""
    ) -> None:
        self.call = call
        self.arguments = arguments
        self.errno = errno
        self.meaning = meaning
        name = _errno.errorcode.get(errno, str(errno))
        text = f"{call}({arguments}) failed: {name} ({os.strerror(errno)})"
        super().__init__(f"{text}: {meaning}" if meaning else text, hint)


class StepFailed(MinicontainerError):
    """A step of the plan failed: ``step`` is its name, the message says why."""

    def __init__(self, step: str, message: str, hint: str = "", exit_code: int = 125) -> None:
        super().__init__(message, hint)
        self.step = step
        self.exit_code = exit_code
