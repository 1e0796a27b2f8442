"""Sysctls: the kernel's switches under /proc/sys, a few of which namespaces make private.

The network, ipc and uts namespaces each have their own copy of some switches: net.*, kernel.shm*,
kernel.msg*, kernel.sem, fs.mqueue.*.  All the others are the host's, so they are refused.

Man pages: sysctl(2) (never call it), proc_sys(5), namespaces(7).
By hand:   unshare --net sysctl -w net.ipv4.ping_group_range="0 2147483647"
See it:    cat /proc/sys/net/ipv4/ping_group_range
"""

from __future__ import annotations

import os

from minicontainer import safepath
from minicontainer.errors import UsageError
from minicontainer.step import Context, Step, quote

# ---- vocabulary: which namespace owns which switches

OWNERS = (
    ("net.", "network"), ("fs.mqueue.", "ipc"), ("kernel.shm", "ipc"), ("kernel.msg", "ipc"),
    ("kernel.sem", "ipc"), ("kernel.hostname", "uts"), ("kernel.domainname", "uts"),
)  # fmt: skip

# ---- verbs


def owner(key: str) -> str:
    """The kind of namespace that has its own copy of this switch.  Raises UsageError: none has."""
    for prefix, kind in OWNERS:
        if key.startswith(prefix) and ".." not in key and "/" not in key:
            return kind
    raise UsageError(
        f"sysctl {key} is not private to a namespace: setting it would change the host",
        "only net.*, kernel.shm*, kernel.msg*, kernel.sem and fs.mqueue.* can be set",
    )


# ---- steps


class SetSysctls(Step):
    """docker's --sysctl: written through the container's own /proc, which shows its namespaces.

    The place is found inside the root and must lie on the procfs we mounted there."""

    name = "sysctl"
    without = "the switches keep the kernel's defaults: ping needs CAP_NET_RAW, for one"

    values: tuple[tuple[str, str], ...]

    def title(self) -> str:
        """In a few words."""
        return "set " + ", ".join(key for key, _ in self.values)

    def shell(self) -> str:
        """echo, or sysctl(8)."""
        return "\n".join(
            f'printf %s {quote(value)} > "$ROOT"{quote("/proc/sys/" + key.replace(".", "/"))}'
            for key, value in self.values
        )

    def run(self, context: Context) -> None:
        """openat2(2), write(2)."""
        for key, value in self.values:
            path = "/proc/sys/" + key.replace(".", "/")
            fd = safepath.open_in_root(context.fds["root"], path, os.O_WRONLY | os.O_TRUNC)
            try:
                os.write(fd, value.encode())
            except OSError as error:
                raise UsageError(f"sysctl {key}={value}: {error.strerror}") from error
            finally:
                os.close(fd)
