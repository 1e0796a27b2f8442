"""The host's end of a container's terminal: keys in, characters out, and nothing in between.

With -t there are two terminals in a row.  The container's own does all the work (echo, line
editing, Ctrl-C), so the user's must do none: it is put into raw mode, and the runtime becomes a
wire that carries bytes between the two.

    keyboard -> host's terminal -> stdin -> relay -> master | container's terminal -> program
    screen   <- host's terminal <- stdout <-         master |                      <- program

A terminal left in raw mode is useless to the shell that comes after.  It is restored on the way
out, however that comes about, and even after kill -9: a second process, the guard, waits for the
end of ours and then restores it.

Man pages: termios(3), pty(7), poll(2).  By hand: ``script -q /dev/null`` does the same.
"""

from __future__ import annotations

import _signal
import os
import select

from minicontainer.errors import KernelError, UsageError
from minicontainer.kernel import terminal
from minicontainer.signals import CaughtSignals, forward_caught, send

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Self

CHUNK = 4096  # after POLLOUT a pipe takes this much without blocking (PIPE_BUF, pipe(7))
CTRL_D = b"\x04"


def require_terminal(stdin: int = 0) -> None:
    """Raise UsageError, in docker's words, if ``stdin`` is no terminal: for -i together with -t."""
    if not os.isatty(stdin):
        raise UsageError(
            "the input device is not a TTY",
            "leave out -t to read from a pipe or a file, or -i to read nothing",
        )


def relay(
    master: int, pidfd: int, stdin: int = 0, stdout: int = 1, signals: CaughtSignals | None = None
) -> None:
    """Join the user's terminal to the container's until the process behind ``pidfd`` has ended.

    ``stdin`` -1: nothing is typed (-t without -i).  ``signals``: if they are caught already.  All
    output that was written before the end is on ``stdout`` when this returns.  Then the line is
    dead: ``master`` leads to /dev/null, and is still the caller's to close.
    """
    if signals is None:
        with CaughtSignals() as signals:
            return relay(master, pidfd, stdin, stdout, signals)
    os.set_blocking(master, False)
    try:
        with RawMode(stdin) as raw:
            _relay(master, pidfd, stdin, stdout, signals, raw)
    finally:
        hang_up(master)
    # Mostly it has ended; if not, our own terminal has gone away.
    forward_caught(signals, pidfd)


def _relay(
    master: int, pidfd: int, stdin: int, stdout: int, signals: CaughtSignals, raw: RawMode
) -> None:
    keys = screen = b""  # read on one side, not yet written on the other
    typing, connected, running = stdin >= 0, True, True
    follow_window_size(master, stdin, stdout)
    while True:
        # Read from one side only what the other has room for: then nothing is ever thrown away.
        poll = select.poll()
        poll.register(signals.fd, select.POLLIN)
        if running:
            poll.register(pidfd, select.POLLIN)
        if typing and connected and not keys:
            poll.register(stdin, select.POLLIN)
        if connected and (keys or not screen):
            wanted = (select.POLLOUT if keys else 0) | (0 if screen else select.POLLIN)
            poll.register(master, wanted)
        if screen:
            poll.register(stdout, select.POLLOUT)
        ready = dict(poll.poll())

        for number in signals.take():
            if number == _signal.SIGWINCH:
                follow_window_size(master, stdin, stdout)
            elif number == _signal.SIGCONT:
                raw.enter()  # whoever had the terminal while we were stopped has changed it
                follow_window_size(master, stdin, stdout)
            elif not send(pidfd, number):
                return  # it has ended, and the user does not want the rest of the output
        if stdin in ready:
            keys = _read(stdin) or b""
            if not keys:
                typing = False
                if os.isatty(stdin):
                    return  # the user's terminal has gone away
                keys = CTRL_D  # a file has ended: so would a person say it
        if screen and stdout in ready:
            written = _write(stdout, screen[:CHUNK])
            if written < 0:
                return  # nobody looks at the screen any more
            screen = screen[written:]
        if ready.get(master, 0) & select.POLLHUP:
            keys = b""  # nobody has the other end open: nobody to read them
        elif keys and ready.get(master, 0) & select.POLLOUT:
            keys = keys[max(_write(master, keys), 0) :]
        if pidfd in ready:
            running = False
        if connected and not screen and (master in ready or not running):
            data = _read(master)
            # b"" (EIO): no process has the other end open any more.  None: one has, but it did
            # not write anything; after the end that is a stray, and not waited for.
            connected = bool(data) or (data is None and running)
            screen = data or b""
        if not running and not connected and not screen:
            return


def follow_window_size(master: int, *screens: int) -> None:
    """Give the container's terminal the size of the first of ``screens`` that has one."""
    for fd in screens:
        if fd >= 0 and os.isatty(fd):
            rows, columns = terminal.get_window_size(fd)
            if rows and columns:
                terminal.set_window_size(master, rows, columns)
            return


def hang_up(master: int) -> None:
    """Close the pty behind ``master``: whoever in the container has it open gets SIGHUP."""
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    os.dup2(null, master, inheritable=False)
    os.close(null)


def _read(fd: int) -> bytes | None:
    """What is there; b"" at the end (a terminal whose other end is closed says EIO), None if
    there is nothing yet."""
    try:
        return os.read(fd, 16 * CHUNK)
    except BlockingIOError:
        return None
    except OSError:
        return b""


def _write(fd: int, data: bytes) -> int:
    """How much of ``data`` was taken; -1 if nothing ever will be."""
    try:
        return os.write(fd, data)
    except BlockingIOError:
        return 0
    except OSError:
        return -1


class RawMode:
    """While this context lasts, the terminal ``fd`` does nothing by itself; if it is one.

    In a background job the kernel stops us here (SIGTTOU) until the user says ``fg``.
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.active = fd >= 0 and os.isatty(fd)

    def __enter__(self) -> Self:
        """tcgetattr(3), the guard, and only then tcsetattr(3)."""
        if self.active:
            import termios

            self._before = termios.tcgetattr(self.fd)
            self._raw = terminal.make_raw(self._before)
            self._guard, self._pipe = start_guard(self.fd, self._before, self._raw)
            self.enter()
        return self

    def enter(self) -> None:
        """Set raw mode (again)."""
        if self.active:
            set_attributes(self.fd, self._raw)

    def __exit__(self, *_exception: object) -> None:
        """Restore, then dismiss the guard."""
        if self.active:
            set_attributes(self.fd, self._before)
            _write(self._pipe, b".")
            os.close(self._pipe)
            os.waitpid(self._guard, 0)


def set_attributes(fd: int, attributes: list[Any]) -> None:
    """tcsetattr(3) with TCSANOW, which keeps what has been typed ahead; nothing happens where the
    terminal has gone away, or belongs to a shell that cannot call us back (EIO)."""
    import termios

    try:
        termios.tcsetattr(fd, termios.TCSANOW, attributes)
    except termios.error:
        return


def start_guard(fd: int, before: list[Any], raw: list[Any]) -> tuple[int, int]:
    """Fork a process that restores terminal ``fd`` if we die without a word; (pid, pipe).

    A byte into the pipe dismisses it.  It blocks every signal, SIGTTOU too, so that it may touch
    the terminal though it is not in the foreground, and it only undoes what *we* have done: if
    the terminal is no longer as we left it, it belongs to somebody else by now.  What no one can
    help: kill -9 of the guard as well.  Raises KernelError.
    """
    import termios

    read, write = os.pipe2(os.O_CLOEXEC)
    blocked = _signal.pthread_sigmask(_signal.SIG_BLOCK, _signal.valid_signals())
    try:
        pid = os.fork()
    except OSError as error:
        _signal.pthread_sigmask(_signal.SIG_SETMASK, blocked)
        raise KernelError("fork", "", error.errno or 0, "a limit on processes") from None
    if pid == 0:
        os.dup2(fd, 0)
        os.dup2(read, 1)
        os.closerange(2, 1 << 20)
        try:
            import prctl  # 1.2 ms, for which nobody waits here

            prctl.set_name("mini:[guard]")
            prctl.set_proctitle("mini:[guard]")
            if os.read(1, 1) == b"" and termios.tcgetattr(0) == raw:
                set_attributes(0, before)
        finally:
            os._exit(0)
    _signal.pthread_sigmask(_signal.SIG_SETMASK, blocked)
    os.close(read)
    return pid, write
