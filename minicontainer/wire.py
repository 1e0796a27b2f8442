"""The wire: what a launch may end with, in words.

Until the child executes its first program, the trampoline, the two sides of a launch share their
memory, and an error is an exception.  From then on all they share is the wire, a pair of sockets
(unix(7), SOCK_SEQPACKET) on which each message is one packet of words joined by NUL bytes:

    READY                                     container to host: all is made; GO is waited for
    GO                                        host to container
    ERROR step call arguments errno "" ""     container to host: execve(2) said no

The container's end is close-on-exec.  So end-of-file means that the program runs.
"""

from __future__ import annotations

import os

from minicontainer.errors import KernelError, MinicontainerError, StepFailed

READY, GO = b"READY", b"GO"


def step_failed(step: str, error: Exception) -> StepFailed:
    """``error``, with the name of the step that raised it."""
    if isinstance(error, KernelError):
        if error.call == "execve":
            return exec_failed(error.arguments, error.errno)
        return StepFailed(step, f"step {step!r}: {error.message}", error.hint, error.exit_code)
    if isinstance(error, MinicontainerError):
        message = error.message or type(error).__name__
        return StepFailed(step, message, error.hint, error.exit_code)
    if isinstance(error, OSError):
        name = error.filename  # which may be a descriptor's number, or nothing
        shown = str(name) if isinstance(name, int) else os.fsdecode(name or "")
        what = error.strerror or str(error) or type(error).__name__
        return StepFailed(step, ": ".join(filter(None, (what, shown))))
    return StepFailed(step, f"{type(error).__name__}: {error}")


def error_from(message: bytes) -> StepFailed:
    """The exception that an ERROR message stands for."""
    words = message.decode("utf-8", "surrogateescape").split("\0")
    _, _, _, program, number = (*words, *[""] * 5)[:5]
    return exec_failed(program, int(number or 0))


def exec_failed(program: str, number: int) -> StepFailed:
    """What execve(2) said, in the words of docker and with its exit codes (126, 127)."""
    text = os.strerror(number).lower()
    if number == 2:  # ENOENT: PATH has been searched already, so it is the interpreter
        hint = "the program is there, but the interpreter in its #! line or its ELF loader is not"
    elif number == 8:  # ENOEXEC
        hint = (
            "it is neither a program for this machine nor a script that begins with #!; an image "
            "for another processor, or a program for another operating system?"
        )
    elif number == 13:  # EACCES
        hint = "it lacks the x bit for this user, lies on a noexec mount, or is a directory"
    else:
        hint = ""
    return StepFailed("exec", f"exec {program}: {text}", hint, 127 if number == 2 else 126)
