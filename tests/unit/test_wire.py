"""wire.py on a real pair of sockets: words, descriptors, the mark, and errors that cross over."""

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
from minicontainer.wire import Wire, error_from
from tests.unit.mutants import fails, mutant


@pytest.fixture
def pair():
    host, container = Wire.pair()
    yield host, container
    host.close()
    container.close()


def travelled(*words: str, module=wire_) -> list[str]:
    """The words at the other end."""
    host, container = module.Wire.pair()
    try:
        assert container.send(*words)
        return host.receive()[0]
    finally:
        host.close()
        container.close()


# what os.fsdecode makes of any bytes but NUL: file names
NAMES = st.binary(min_size=1).map(lambda data: os.fsdecode(data.replace(b"\0", b"")))


@given(st.lists(NAMES, min_size=1).filter(any))
def test_words_arrive_as_they_were(words):
    assert travelled(*words) == words


def test_newlines_and_bytes_that_are_no_utf8(module=wire_):
    words = ["WARN", "two\nlines", os.fsdecode(b"caf\xe9"), "é", ""]
    assert travelled(*words, module=module) == words


def test_a_word_that_no_file_could_be_called_does_not_stop_the_message(module=wire_):
    assert travelled("WARN", "half of a pair: \ud800", module=module)[0] == "WARN"


def test_messages_keep_apart_and_in_order(pair):
    host, container = pair
    for number in range(20):
        container.send("DOING", str(number))
    assert [host.receive()[0][1] for _ in range(20)] == [str(n) for n in range(20)]


def test_a_descriptor_rides_along_and_is_closed_at_exec(pair):
    host, container = pair
    with open(os.devnull) as file:
        host.send_fd("volume:/x", file.fileno())
        words, fd = container.receive()
        assert words == ["FD", "volume:/x"]
        assert fd not in (-1, file.fileno())
        assert os.path.sameopenfile(fd, file.fileno())
        assert not os.get_inheritable(fd)
        os.close(fd)
    container.send("READY")
    assert host.receive() == (["READY"], -1)


def test_both_ends_are_closed_at_exec(pair):
    for end in pair:
        assert not os.get_inheritable(end.fileno())


def test_end_of_file_comes_after_what_was_said(pair):
    host, container = pair
    container.send("EXEC", "3")
    container.close()
    assert host.receive() == (["EXEC", "3"], -1)
    assert host.receive() == ([], -1)
    assert host.receive() == ([], -1)


def test_sending_to_one_who_is_gone_is_no_error(module=wire_):
    host, container = module.Wire.pair()
    host.close()
    assert container.send("WARN", "hello") is False
    container.close()
    container.close()  # twice is no error either


def test_words_nobody_read_are_end_of_file_to_the_other_side(pair):
    """The kernel answers ECONNRESET to whoever reads from a socket closed with data in it."""
    host, container = pair
    host.send("GO")
    container.close()
    assert host.receive() == ([], -1)


def test_the_mark_needs_no_message(pair):
    host, container = pair
    assert host.marked() == -1
    for step in (0, 7, 300):
        container.mark(step)
        assert host.marked() == step
    container.close()
    assert host.marked() == 300


def test_a_message_longer_than_a_packet_is_cut_off(pair):
    host, container = pair
    assert container.send("CALLS", "x" * 100_000)
    words, _ = host.receive()
    assert words == ["CALLS", "x" * (64 * 1024 - len("CALLS\0"))]


# ---- errors


def crossed(error: BaseException, step: str = "masks", module=wire_) -> StepFailed:
    """What the host raises when the container's step raised ``error``."""
    host, container = module.Wire.pair()
    try:
        container.send_error(step, error)
        words, _ = host.receive()
        assert words[0] == "ERROR"
        return module.error_from(words[1:])
    finally:
        host.close()
        container.close()


def test_a_kernel_error_keeps_call_errno_meaning_and_hint(module=wire_):
    error = KernelError("mount", '"/x\ny"', errno.EBUSY, "something is there", "look")
    failed = crossed(error, module=module)
    assert (failed.step, failed.hint, failed.exit_code) == ("masks", "look", 125)
    assert failed.message == f"step 'masks': {error.message}"
    cause = failed.__cause__
    assert isinstance(cause, KernelError)
    assert (cause.call, cause.arguments, cause.errno, cause.meaning) == (
        "mount", '"/x\ny"', errno.EBUSY, "something is there",
    )  # fmt: skip


@given(
    st.text(), st.text(), st.integers(1, 133), st.text(), st.text(), st.sampled_from([125, 126, 3])
)
def test_no_error_is_lost_whatever_its_words(call, arguments, number, meaning, hint, code):
    """Names are the image's and the bundle's: they may hold a NUL, or half of a surrogate pair."""
    kernel = crossed(KernelError("mount" + call, arguments, number, meaning, hint))
    assert isinstance(kernel.__cause__, KernelError)
    assert kernel.__cause__.errno == number
    usage = UsageError(meaning, hint)
    usage.exit_code = code
    assert crossed(usage).exit_code == code


def test_a_usage_error_keeps_message_and_hint(module=wire_):
    failed = crossed(UsageError("no such user", "try a number"), module=module)
    assert (failed.message, failed.hint) == ("no such user", "try a number")
    assert failed.__cause__ is None


@pytest.mark.parametrize(
    ("error", "code"),
    [(CannotExecute("no"), 126), (CommandNotFound("no"), 127), (MinicontainerError("no"), 125)],
)
def test_the_exit_code_crosses(error, code):
    assert crossed(error).exit_code == code


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
        (SystemExit(3), "SystemExit: 3"),
        (MinicontainerError(""), "MinicontainerError"),
    ],
)
def test_other_errors_are_told_too(error, message):
    assert crossed(error).message == message


@pytest.mark.parametrize(
    ("number", "code", "hint"),
    [(errno.ENOENT, 127, "interpreter"), (errno.ENOEXEC, 126, "machine"),
     (errno.EACCES, 126, "x bit"), (errno.ETXTBSY, 126, "")],
)  # fmt: skip
def test_what_execve_said_is_told_in_dockers_words(number, code, hint):
    failed = error_from(["exec", "execve", "/bin/app", str(number)])
    assert failed.message == f"exec /bin/app: {os.strerror(number).lower()}"
    assert failed.exit_code == code
    assert hint in failed.hint


@pytest.mark.parametrize("count", range(9))
def test_a_message_that_was_cut_off_is_an_error_all_the_same(count):
    words = ["masks", "mount", "", "16", "busy", "hint", "message", "125"][:count]
    assert isinstance(error_from(words), StepFailed)


@pytest.mark.parametrize(
    ("check", "old", "new"),
    [
        (
            test_a_word_that_no_file_could_be_called_does_not_stop_the_message,
            '"backslashreplace"',
            '"strict"',
        ),
        (test_newlines_and_bytes_that_are_no_utf8, '.split("\\0"), fd', ".split(), fd"),
        (test_sending_to_one_who_is_gone_is_no_error, "return False", "raise"),
        (test_sending_to_one_who_is_gone_is_no_error, "if self._memory >= 0:", "if True:"),
        (test_a_kernel_error_keeps_call_errno_meaning_and_hint, "failed.__cause__ = error", ""),
        (test_a_kernel_error_keeps_call_errno_meaning_and_hint, "str(number), meaning", '"1", ""'),
        (test_a_usage_error_keeps_message_and_hint, "hint, code = error.hint", '_, code = ""'),
    ],
)
def test_the_checks_can_fail(check, old, new):
    fails(check, mutant(wire_, old, new))
