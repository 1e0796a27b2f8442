"""A check that has never been seen failing is not a check: so break the code and look."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

from minicontainer.errors import MinicontainerError


def mutant(module: ModuleType, old: str, new: str) -> ModuleType:
    """A copy of ``module`` whose source has ``new`` where it had ``old``, exactly once."""
    assert module.__file__
    source = Path(module.__file__).read_text()
    assert source.count(old) == 1, f"{old!r} stands {source.count(old)} times in {module.__name__}"
    copy = ModuleType(module.__name__)
    copy.__file__ = module.__file__
    exec(compile(source.replace(old, new), f"mutant of {module.__name__}", "exec"), copy.__dict__)
    return copy


def fails(check, *arguments) -> None:
    """The check must fail; an error of the mutant where a value was expected is a failure too."""
    errors = (AssertionError, MinicontainerError, OSError, TypeError, LookupError, ValueError)
    with pytest.raises((*errors, pytest.fail.Exception)):
        check(*arguments)
