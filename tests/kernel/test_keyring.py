"""kernel/keyring.py: the starter's keys are out of reach, by /proc/keys and keyctl(2) itself."""

from __future__ import annotations

import errno

import pyseccomp
import pytest

from minicontainer.errors import KernelError
from minicontainer.kernel import keyring
from minicontainer.libc import address, check, ffi, syscall
from tests.kernel.room import Room, answer
from tests.support import forked
from tests.unit.mutants import fails, mutant

pytestmark = pytest.mark.requires_root
GET_KEYRING_ID, DESCRIBE, SESSION = 0, 6, -3


def session() -> tuple[int, str]:
    """The session keyring's number and description ("keyring;uid;gid;perm;name")."""
    number = check(syscall("keyctl", GET_KEYRING_ID, SESSION, 0), "keyctl")
    text = ffi.new("char[]", 200)
    check(syscall("keyctl", DESCRIBE, number, address(text), 200), "keyctl")
    return number, ffi.string(text).decode()


def check_new(module=keyring):
    def inside():
        keyring.join_session_keyring("the-starters")
        before = session()
        room = Room()
        module.NewSessionKeyring("the-containers").run(room)
        number, words = session()
        with open("/proc/keys") as file:
            line = next(line for line in file if int(line.split()[0], 16) == number)
        inherited = answer(lambda: str(session()[0]))
        return before[0] != number, words, line.split()[-2:], inherited == str(number), room.said

    assert forked(inside) == (
        True, "keyring;0;0;3f130000;the-containers", ["the-containers:", "empty"], True, [],
    )  # fmt: skip


def test_a_new_and_empty_session_keyring():
    check_new()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("            join_session_keyring(self.keyring)", "            pass"),
        ("join_session_keyring(self.keyring)", 'join_session_keyring("the-starters")'),
    ],
)
def test_the_check_can_fail(old, new):
    fails(check_new, mutant(keyring, old, new))


def refusing(number, module=keyring) -> list[str]:
    """The step under a seccomp filter that answers keyctl with this errno, as some engines do."""

    def inside():
        room = Room()
        rules = pyseccomp.SyscallFilter(pyseccomp.ALLOW)
        rules.add_rule(pyseccomp.ERRNO(number), "keyctl")
        rules.load()
        module.NewSessionKeyring("x").run(room)
        return room.said

    return forked(inside)


def check_warning(number, module=keyring):
    [said] = refusing(number, module)
    assert said.startswith("the session keyring stays shared: keyctl(KEYCTL_JOIN_SESSION_KEYRING")


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EPERM, errno.EDQUOT])
def test_a_kernel_that_gives_none_is_a_warning(number):
    check_warning(number)


def test_the_check_on_warnings_can_fail():
    fails(check_warning, errno.EPERM, mutant(keyring, "context.warn(", "str("))
    fails(check_warning, errno.EPERM, mutant(keyring, "errno.EPERM, errno.EDQUOT)", "0)"))


def test_any_other_answer_is_an_error():
    with pytest.raises(KernelError, match="ENOMEM"):
        refusing(errno.ENOMEM)
