"""Words for whoever typed the command: on standard error, one message a call, made harmless."""

from __future__ import annotations

import sys


def say(text: str) -> None:
    """Something worth knowing, on standard error: standard output is the program's.

    What an image or a file name may have put into it cannot move the terminal's cursor."""
    safe = "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text)
    try:
        if sys.stderr:  # None where descriptor 2 was closed before we began
            sys.stderr.write(f"minicontainer: {safe}\n")
            sys.stderr.flush()
    except (OSError, ValueError):
        pass  # nobody is listening; the exit status still tells
