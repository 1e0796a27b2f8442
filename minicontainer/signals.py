"""Signals on the host's side: what is sent to the runtime is meant for the container.

The runtime that waits for a container looks like the program it started: `kill` it, press Ctrl-C
in front of it, and the program should notice (docker's --sig-proxy).  So each signal that can be
caught is caught and sent on through the pidfd of the container's pid 1.  Pid 1 of a pid namespace
only gets what it has a handler for (pid_namespaces(7)); a program without handlers needs --init.

A signal handler may run between any two instructions, and can do almost nothing safely.  CPython
offers the classic way out, the "self-pipe": the handler writes the signal's number into a pipe,
and the loop that sleeps in poll(2) finds it there like any other input.

Man pages: signal(7), pidfd_send_signal(2), poll(2).  By hand: ``kill -WINCH $RUNTIME``.
"""

from __future__ import annotations

import _signal
import os
import select

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Self

# Not ours to send on: SIGKILL and SIGSTOP cannot be caught, SIGCHLD is about our own children,
# SIGTTIN and SIGTTOU are the shell's way to stop us in the background; and a fault in ourselves
# (SIGILL, SIGBUS, SIGFPE, SIGSEGV) must end us: its instruction would fault again and again.
KEPT = frozenset(
    (
        _signal.SIGKILL, _signal.SIGSTOP, _signal.SIGCHLD, _signal.SIGTTIN, _signal.SIGTTOU,
        _signal.SIGILL, _signal.SIGBUS, _signal.SIGFPE, _signal.SIGSEGV,
    )
)  # fmt: skip


class CaughtSignals:
    """While this context lasts, signals do nothing but turn up in ``take()``.

    ``fd`` becomes readable when there are any.  Signals that were ignored before (nohup(1)) stay
    ignored.  In a thread other than the main one, where Python can catch none, none turn up.
    """

    def __enter__(self) -> Self:
        """Pipe first, handlers second: no signal is lost in between."""
        self.fd, self._write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._before: dict[int, Any] = {}
        try:
            self._wakeup = _signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        except ValueError:  # not the main thread
            return self
        for number in _signal.valid_signals() - KEPT:
            if _signal.getsignal(number) not in (_signal.SIG_IGN, None):
                self._before[number] = _signal.signal(number, _caught)
        return self

    def __exit__(self, *_exception: object) -> None:
        """Everything as it was before."""
        for number, handler in self._before.items():
            _signal.signal(number, handler)
        if self._before:
            _signal.set_wakeup_fd(self._wakeup)
        os.close(self.fd)
        os.close(self._write)

    def take(self) -> bytes:
        """The numbers of the signals that have come, a byte each; never waits."""
        try:
            return os.read(self.fd, 4096)
        except BlockingIOError:
            return b""


def _caught(_number: int, _frame: object) -> None:
    """The number is in the pipe by now: CPython's own handler has written it."""


def send(pidfd: int, number: int) -> bool:
    """pidfd_send_signal(2); False if the process has ended."""
    try:
        _signal.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        return False
    return True


def forward_signals(pidfd: int) -> None:
    """Sleep until the process behind ``pidfd`` has ended; meanwhile it gets our signals.

    Raises PermissionError where this process may not signal it."""
    with CaughtSignals() as signals:
        forward_caught(signals, pidfd)


def forward_caught(signals: CaughtSignals, pidfd: int) -> None:
    """``forward_signals`` where the signals are caught already.  poll(2), without a timeout."""
    poll = select.poll()
    poll.register(signals.fd, select.POLLIN)
    poll.register(pidfd, select.POLLIN)
    ready: dict[int, int] = {}
    while pidfd not in ready:
        ready = dict(poll.poll())
        for number in signals.take():
            send(pidfd, number)
