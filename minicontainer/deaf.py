"""A while without signals: what must not be interrupted, and what must not be interrupted *there*.

A signal that is blocked waits.  Python runs its handlers between any two instructions, in whichever
process has the interpreter at that moment (kernel/clone.py); so while a child has it, nobody may
be called.  What came meanwhile is dealt with at the end, and may raise KeyboardInterrupt there.

sigprocmask(2), signal(7).
"""

from __future__ import annotations

import _signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

_EVERY = _signal.valid_signals()


class Deaf:
    """``with Deaf():`` all signals wait.  ``mask`` is what was blocked before, bit by bit."""

    def __enter__(self) -> Self:
        """Block.  A handler that was due raises here, and then nothing is blocked."""
        self._before = _signal.pthread_sigmask(_signal.SIG_BLOCK, ())
        self.mask = sum([1 << (number - 1) for number in self._before])
        try:
            _signal.pthread_sigmask(_signal.SIG_SETMASK, _EVERY)
        except BaseException:
            _signal.pthread_sigmask(_signal.SIG_SETMASK, self._before)
            raise
        return self

    def __exit__(self, *_exception: object) -> None:
        """As before: signals that waited arrive now."""
        _signal.pthread_sigmask(_signal.SIG_SETMASK, self._before)
