"""Becoming somebody else: setgroups(2), setresgid(2), setresuid(2), straight to the kernel.

To the kernel, credentials belong to a thread; to POSIX, to a process.  So the C library's functions
of these names tell all threads of the process to follow, by a signal.  Our child has our
memory and in it the list of our threads, but these are not its own (kernel/clone.py).

The order is the kernel's: groups, then gid, then uid, for after the uid the right to change the
others is gone.  nptl(7), credentials(7).
"""

from __future__ import annotations

import errno

from minicontainer.libc import address, check, ffi, syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_MEANING = {
    errno.EINVAL: "in a user namespace only mapped ids exist: see /proc/self/uid_map",
    errno.EPERM: "CAP_SETUID and CAP_SETGID are needed",
}


def become(uid: int, gid: int, groups: Sequence[int]) -> None:
    """Change this process's groups, gid and uid: real, effective and saved.  Raises KernelError."""
    array = ffi.new("uint32_t[]", groups)
    for call, *numbers in (
        ("setgroups", len(groups), address(array)),
        ("setresgid", gid, gid, gid),
        ("setresuid", uid, uid, uid),
    ):
        shown = (list(groups),) if call == "setgroups" else numbers
        check(syscall(call, *numbers), call, *shown, meaning=_MEANING)
