"""unshare(2) and setns(2): leaving a namespace for a fresh one, and entering one that exists.

clone3(2) (kernel/clone.py) makes a child *in* new namespaces; these two change the caller's own.
The lesson on namespaces is kernel/namespaces.py.
"""

from __future__ import annotations

import errno

from minicontainer.libc import C, Flags, check

# ---- vocabulary

FLAGS = {
    "mount": 0x00020000, "cgroup": 0x02000000, "uts": 0x04000000, "ipc": 0x08000000,
    "user": 0x10000000, "pid": 0x20000000, "network": 0x40000000, "time": 0x00000080,
}  # fmt: skip

# OCI's word for a kind -> the file in /proc/PID/ns, and unshare(1)'s flag
FILES = {"mount": "mnt", "network": "net", "pid": "pid", "uts": "uts", "ipc": "ipc",
         "cgroup": "cgroup", "user": "user", "time": "time"}  # fmt: skip

_CLONE_NAMES = {
    "CLONE_NEWTIME": 0x80, "CLONE_NEWNS": 0x00020000, "CLONE_NEWCGROUP": 0x02000000,
    "CLONE_NEWUTS": 0x04000000, "CLONE_NEWIPC": 0x08000000, "CLONE_NEWUSER": 0x10000000,
    "CLONE_NEWPID": 0x20000000, "CLONE_NEWNET": 0x40000000,
}  # fmt: skip

# ---- verbs


def unshare(flags: int) -> None:
    """Leave the namespaces of these kinds for fresh ones: unshare(2).

    For pid and time it is the *next child* that lives in the new one, not the caller."""
    check(
        C.unshare(flags), "unshare", Flags(flags, _CLONE_NAMES),
        meaning={errno.EPERM: "new namespaces need CAP_SYS_ADMIN"},
    )  # fmt: skip


def setns(fd: int, kind: str) -> None:
    """Move this thread into the namespace behind ``fd`` (an open /proc/PID/ns/* file): setns(2)."""
    check(
        C.setns(fd, FLAGS[kind]), "setns", fd, Flags(FLAGS[kind], _CLONE_NAMES),
        meaning={
            errno.EINVAL: f"it is not a {kind} namespace, or this process has several threads",
            errno.EPERM: "CAP_SYS_ADMIN is needed in both the old and the new user namespace",
            errno.EUSERS: "a process with several threads cannot change its time namespace",
        },
    )  # fmt: skip
