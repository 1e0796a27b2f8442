"""A pause in a launch that is told: ``run --explain --pause`` waits for Enter at each step."""

from __future__ import annotations

import _signal
import os

from minicontainer.errors import UsageError


class Pause:
    """Waits for Enter at the terminal, even where standard input is the container's."""

    def __init__(self) -> None:
        try:
            self._terminal = os.open("/dev/tty", os.O_RDWR | os.O_CLOEXEC | os.O_NOCTTY)
        except OSError as error:
            raise UsageError(
                f"--pause has nobody to wait for: no terminal ({error.strerror})"
            ) from None

    def __call__(self) -> None:
        """Until Enter; "c" and Enter: go on without pausing."""
        if self._terminal < 0:
            return
        os.write(self._terminal, b"-- Enter: the next step; c, Enter: all of them -- ")
        # Elsewhere signals are for the container; here there may be none yet, and somebody waits.
        kept = [(number, _signal.getsignal(number)) for number in (_signal.SIGINT, _signal.SIGTERM)]
        _signal.signal(_signal.SIGINT, _signal.default_int_handler)
        _signal.signal(_signal.SIGTERM, _signal.SIG_DFL)
        try:
            answer = os.read(self._terminal, 1024)
        finally:
            for number, handler in kept:
                _signal.signal(number, handler)
        if not answer or answer.strip() == b"c":
            os.close(self._terminal)
            self._terminal = -1
