"""The wire between the two processes of a launch: a pair of sockets that speaks words.

Each message is one packet of words joined by NUL bytes; a descriptor may ride along (unix(7),
SCM_RIGHTS).  SOCK_SEQPACKET keeps packets apart and in order, and tells when the other end is gone.

    host to container
      FD name            a descriptor the steps will find in context.fds[name]
      GO                 the host's part is done: begin
      NEXT               (only when narrated) the step has been told, go on

    container to host
      DOING n            (only when narrated) step n of the container's steps begins
      DONE n ns call...  (only when narrated) it ended, after so many nanoseconds, with these calls
      CALLS call...      (only when narrated) the calls of a step that failed; ERROR is next
      WARN text          something is not as asked, and not an error
      FD name            a descriptor for the host (the terminal)
      READY              all is made; an OCI "create" waits here for "start"
      EXEC n             step n is the last: execve(2) is next
      ERROR step call arguments errno meaning hint [message exit_code]

Both ends are close-on-exec.  So end-of-file after EXEC means that the program runs; end-of-file
before it means that the child died in the step it was doing; and ERROR says why.

A message wakes the host up, and forty of them took a fifth of a launch.  So, unless someone is
listening, the child only *marks* the step it is doing in a byte of memory that both ends share, and
the host looks there if the child dies.
"""

from __future__ import annotations

import _socket
import os

from minicontainer.errors import KernelError, MinicontainerError, StepFailed

# SO_PASSCRED and friends are not needed: the pair is unnamed, nobody else can connect.
_LIMIT = 64 * 1024  # bytes in one packet: the longest is a narrated step's calls


class Wire:
    """One end.  Not thread-safe; the launch has none."""

    def __init__(self, sock: _socket.socket, memory: int) -> None:
        self._socket = sock
        self._memory = memory

    @classmethod
    def pair(cls) -> tuple[Wire, Wire]:
        """Two connected ends: socketpair(2)."""
        kind = _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC
        host, container = _socket.socketpair(_socket.AF_UNIX, kind)
        memory = os.memfd_create("mini:[step]", os.MFD_CLOEXEC)
        return cls(host, memory), cls(container, os.dup(memory))

    def fileno(self) -> int:
        """The descriptor."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close this end; the other reads end-of-file."""
        if self._memory >= 0:
            self._socket.close()
            os.close(self._memory)
            self._memory = -1

    def mark(self, step: int) -> None:
        """Note that this step has begun, without waking anybody."""
        os.pwrite(self._memory, step.to_bytes(2, "little"), 0)

    def marked(self) -> int:
        """The step that had begun last; -1 if none had."""
        noted = os.pread(self._memory, 2, 0)
        return int.from_bytes(noted, "little") if noted else -1

    def send(self, *words: str) -> bool:
        """Send one message; False when the other end is gone, which is no error of this end."""
        data = b"\0".join([_packed(word) for word in words])
        try:
            self._socket.send(data[:_LIMIT], _socket.MSG_NOSIGNAL)
        except (BrokenPipeError, ConnectionResetError):
            return False
        return True

    def send_fd(self, name: str, fd: int) -> None:
        """Send ``FD name`` with a descriptor: sendmsg(2), cmsg(3)."""
        rights = fd.to_bytes(4, "little", signed=True)
        self._socket.sendmsg(
            [b"FD\0" + name.encode()], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, rights)]
        )

    def receive(self) -> tuple[list[str], int]:
        """The next message's words and its descriptor (-1: none); ([], -1) at end-of-file."""
        try:
            data, ancillary, _, _ = self._socket.recvmsg(
                _LIMIT, _socket.CMSG_SPACE(4), _socket.MSG_CMSG_CLOEXEC
            )
        except ConnectionResetError:
            return [], -1
        fd = -1
        for _, _, rights in ancillary:
            fd = int.from_bytes(rights[:4], "little", signed=True)
        if not data:
            return [], -1
        return data.decode("utf-8", "surrogateescape").split("\0"), fd

    def send_error(self, step: str, error: BaseException) -> None:
        """Send ERROR with all the exception knows, so that the host can raise its like."""
        call, arguments, number, meaning = "", "", 0, ""
        hint, message, code = "", str(error) or type(error).__name__, 125
        if isinstance(error, KernelError):
            call, arguments = error.call, error.arguments
            number, meaning = error.errno, error.meaning
        elif isinstance(error, OSError):
            name = error.filename  # which may be a descriptor's number, or nothing
            shown = str(name) if isinstance(name, int) else os.fsdecode(name or "")
            message = ": ".join(filter(None, (error.strerror or message, shown)))
        elif not isinstance(error, MinicontainerError):
            message = f"{type(error).__name__}: {error}"
        if isinstance(error, MinicontainerError):
            hint, code = error.hint, error.exit_code
        self.send("ERROR", step, call, arguments, str(number), meaning, hint, message, str(code))


def _packed(word: str) -> bytes:
    """A word's bytes: names as the file system has them; what can be no name is shown escaped."""
    try:
        data = word.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        data = word.encode("utf-8", "backslashreplace")
    return data.replace(b"\0", b"\\0")  # NUL would part the word in two


def error_from(words: list[str]) -> StepFailed:
    """The exception that an ERROR message stands for; ``words`` begin with the step's name."""
    step, call, arguments, number, meaning, hint, message, code = (*words, *[""] * 8)[:8]
    if call == "execve":
        return _exec_error(arguments, int(number or 0))
    if call:
        error = KernelError(call, arguments, int(number or 0), meaning, hint)
        failed = StepFailed(step, f"step {step!r}: {error.message}", hint, int(code or 125))
        failed.__cause__ = error
        return failed
    return StepFailed(step, message, hint, int(code or 125))


def _exec_error(program: str, number: int) -> StepFailed:
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
