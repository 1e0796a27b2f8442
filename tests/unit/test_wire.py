"""wire.py: errors of a launch in words, from this side of the exec and from the other."""

from __future__ import annotations

import errno
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicontainer import wire as wire_
from minicontainer.errors import (
    CannotExecute,
    CommandNotFound,
    KernelError,
    MinicontainerError,
    StepFailed,
    UsageError,
)
from minicontainer.wire import error_from, step_failed
from tests.unit.mutants import fails, mutant

# ---- before the exec: exceptions


def check_kernel_error(module=wire_):
    error = KernelError("mount", '"/x\ny"', errno.EBUSY, "something is there", "look")
    failed = module.step_failed("masks", error)
    assert (failed.step, failed.hint, failed.exit_code) == ("masks", "look", 125)
    assert failed.message == f"step 'masks': {error.message}"


def check_usage_error(module=wire_):
    failed = module.step_failed("user-id", UsageError("no such user", "try a number"))
    assert (failed.message, failed.hint) == ("no such user", "try a number")


def check_exec_without_a_trampoline(module=wire_):
    failed = module.step_failed("exec", KernelError("execve", '"/x"', errno.ENOENT))
    assert (failed.message, failed.exit_code) == ('exec "/x": no such file or directory', 127)


@pytest.mark.parametrize(
    "check", [check_kernel_error, check_usage_error, check_exec_without_a_trampoline]
)
def test_a_failed_step_keeps_all_that_its_error_knew(check):
    check()


@pytest.mark.parametrize(
    ("check", "old", "new"),
    [
        (check_kernel_error, 'f"step {step!r}: {error.message}", error.hint', '"", ""'),
        (check_kernel_error, 'StepFailed(step, f"step', "StepFailed('', f\"step"),
        (check_usage_error, "(step, message, error.hint", '(step, message, ""'),
        (check_exec_without_a_trampoline, 'error.call == "execve"', "False"),
        (check_exec_without_a_trampoline, "127 if number == 2 else 126", "126"),
    ],
)
def test_the_checks_can_fail(check, old, new):
    fails(check, mutant(wire_, old, new))


@given(
    st.text(), st.text(), st.integers(1, 133), st.text(), st.text(), st.sampled_from([125, 126, 3])
)
def test_no_error_is_lost_whatever_its_words(call, arguments, number, meaning, hint, code):
    """Names are the image's and the bundle's: they may hold a NUL, or half of a surrogate pair."""
    kernel = step_failed("x", KernelError("mount" + call, arguments, number, meaning, hint))
    assert meaning in kernel.message
    usage = UsageError(meaning, hint)
    usage.exit_code = code
    assert step_failed("x", usage).exit_code == code


@pytest.mark.parametrize(
    ("error", "code"),
    [(CannotExecute("no"), 126), (CommandNotFound("no"), 127), (MinicontainerError("no"), 125)],
)
def test_the_exit_code_stays(error, code):
    assert step_failed("exec", error).exit_code == code


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (FileNotFoundError(2, "No such file", "/x"), "No such file: /x"),
        (FileNotFoundError(2, "No such file", b"/x"), "No such file: /x"),
        (OSError(9, "Bad file descriptor", 17), "Bad file descriptor: 17"),
        (OSError(5, "Input/output error"), "Input/output error"),
        (OSError("out of sorts"), "out of sorts"),
        (ValueError("odd"), "ValueError: odd"),
        (KeyError("x"), "KeyError: 'x'"),
        (MinicontainerError(""), "MinicontainerError"),
    ],
)
def test_other_errors_are_told_too(error, message):
    assert step_failed("x", error).message == message


# ---- after the exec: messages


@pytest.mark.parametrize(
    ("number", "code", "hint"),
    [(errno.ENOENT, 127, "interpreter"), (errno.ENOEXEC, 126, "machine"),
     (errno.EACCES, 126, "x bit"), (errno.ETXTBSY, 126, "")],
)  # fmt: skip
def test_what_execve_said_is_told_in_dockers_words(number, code, hint):
    failed = error_from(b"ERROR\0exec\0execve\0/bin/app\0%d\0\0" % number)
    assert failed.message == f"exec /bin/app: {os.strerror(number).lower()}"
    assert failed.exit_code == code
    assert hint in failed.hint


@pytest.mark.parametrize("count", range(9))
def test_a_message_that_was_cut_off_is_an_error_all_the_same(count):
    words = [b"ERROR", b"exec", b"execve", b"/x\xff", b"16", b"", b""][:count]
    assert isinstance(error_from(b"\0".join(words)), StepFailed)
