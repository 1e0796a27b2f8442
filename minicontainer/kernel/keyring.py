"""The session keyring: where the kernel keeps passwords and tickets for a login session.

Keyrings are not in any namespace.  A process that inherits its starter's session keyring can use
the keys in it (keyctl(1), Kerberos tickets, disk keys), so a container begins with an empty one.

Man pages: session-keyring(7), keyctl(2).
By hand:   keyctl session - sh ;  keyctl show
See it:    cat /proc/keys
"""

from __future__ import annotations

import errno

from minicontainer.errors import KernelError
from minicontainer.libc import SYSCALLS, address, check, ffi, syscall
from minicontainer.step import Context, Step, quote

# ---- vocabulary: include/uapi/linux/keyctl.h

_KEYCTL_JOIN_SESSION_KEYRING = 1

# ---- verbs


def join_session_keyring(name: str) -> int:
    """Start with a new, empty session keyring of this name: keyctl(2)."""
    text = ffi.new("char[]", name.encode())
    return check(
        syscall("keyctl", _KEYCTL_JOIN_SESSION_KEYRING, address(text)),
        "keyctl", "KEYCTL_JOIN_SESSION_KEYRING", name,
        meaning={
            errno.EDQUOT: "the quota of keys for this user is used up",
            errno.ENOSYS: "this kernel has no keyrings",
        },
    )  # fmt: skip


# ---- steps


class NewSessionKeyring(Step):
    """Leave the starter's keys behind.  A kernel without keyrings has none to leave."""

    name = "keyring"
    without = "the container may use the keys of the session that started it"

    keyring: str

    def title(self) -> str:
        """In a few words."""
        return "start with an empty session keyring"

    def shell_prefix(self) -> str:
        """perl's own syscall, which is everywhere; keyctl(1) is not: keyctl session NAME ..."""
        code = f"syscall {SYSCALLS['keyctl']}, 1, shift; exec {{ $ARGV[0] }} @ARGV"
        return quote("perl", "-e", code, "--", self.keyring)

    def run(self, context: Context) -> None:
        """One keyctl(2)."""
        try:
            join_session_keyring(self.keyring)
        except KernelError as error:
            if error.errno not in (errno.ENOSYS, errno.EPERM, errno.EDQUOT):
                raise
            context.warn(f"the session keyring stays shared: {error.message}")
