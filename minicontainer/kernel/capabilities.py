"""Capabilities: root's power, cut into 41 slices, most of which a container does without.

Since Linux 2.2 the kernel asks "does this thread have CAP_X?" where it once asked "is it root?".
A thread carries five sets (capabilities(7)):

    effective     what the kernel checks right now
    permitted     what the thread may make effective
    inheritable, ambient     what survives an execve(2) without set-user-ID or file capabilities
    bounding      the ceiling: no execve can ever give more than this

Root inside a container is root with fewer slices: docker keeps 14.  Dropping a slice from the
bounding set is for ever, for this process and all it starts: not even a set-user-ID program in
the image brings it back.  Inheritable and ambient stay empty; filling them was CVE-2022-24769.

By hand:   capsh --drop=cap_sys_admin -- -c 'mount -t tmpfs x /mnt'      (EPERM)
           setpriv --bounding-set -sys_admin sh
See it:    grep Cap /proc/self/status ; capsh --decode=00000000a80425fb
"""

from __future__ import annotations

import errno

from minicontainer.errors import KernelError
from minicontainer.libc import C, address, check, ffi, syscall
from minicontainer.step import Context, Step, quote

# ---- vocabulary: include/uapi/linux/capability.h, in the kernel's order (bit 0 first)

NAMES = (
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID",
    "CAP_KILL", "CAP_SETGID", "CAP_SETUID", "CAP_SETPCAP", "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST", "CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_IPC_LOCK",
    "CAP_IPC_OWNER", "CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_CHROOT", "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT", "CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE", "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_MKNOD", "CAP_LEASE", "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL", "CAP_SETFCAP", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG",
    "CAP_WAKE_ALARM", "CAP_BLOCK_SUSPEND", "CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
)  # fmt: skip

_LINUX_CAPABILITY_VERSION_3 = 0x20080522
_PR_CAPBSET_DROP = 24
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_RAISE = 2
_PR_CAP_AMBIENT_CLEAR_ALL = 4


def mask(names: tuple[str, ...]) -> int:
    """The names as the kernel's bit mask, as /proc/PID/status prints it."""
    bits = 0
    for name in names:
        bits |= 1 << NAMES.index(name)
    return bits


def wanted(names: tuple[str, ...], context: Context) -> int:
    """The same, less CAP_MKNOD where no device filter could be had (devicefilter.py)."""
    return mask(names) & ~mask(("CAP_MKNOD",) if context.unfiltered else ())


def names(bits: int) -> tuple[str, ...]:
    """The kernel's bit mask as names, lowest bit first."""
    return tuple(name for bit, name in enumerate(NAMES) if bits >> bit & 1)


# ---- verbs


def capget() -> tuple[int, int, int]:
    """(effective, permitted, inheritable) of this thread as bit masks: capget(2)."""
    header = ffi.new("struct cap_header *", {"version": _LINUX_CAPABILITY_VERSION_3})
    data = ffi.new("struct cap_data[2]")
    check(syscall("capget", address(header), address(data)), "capget")
    low, high = data[0], data[1]
    return (
        low.effective | high.effective << 32,
        low.permitted | high.permitted << 32,
        low.inheritable | high.inheritable << 32,
    )


def capset(effective: int, permitted: int, inheritable: int) -> None:
    """Set this thread's three sets: capset(2).  Raises KernelError(EPERM) for more than it has."""
    header = ffi.new("struct cap_header *", {"version": _LINUX_CAPABILITY_VERSION_3})
    data = ffi.new("struct cap_data[2]")
    for half, shift in ((data[0], 0), (data[1], 32)):
        half.effective = effective >> shift & 0xFFFFFFFF
        half.permitted = permitted >> shift & 0xFFFFFFFF
        half.inheritable = inheritable >> shift & 0xFFFFFFFF
    check(
        syscall("capset", address(header), address(data)), "capset",
        f"effective={effective:#x}", f"permitted={permitted:#x}", f"inheritable={inheritable:#x}",
        meaning={errno.EPERM: "a set can only shrink, and permitted must hold effective"},
    )  # fmt: skip


def capbset_drop(bit: int) -> None:
    """Take one capability out of the bounding set for ever: PR_CAPBSET_DROP of prctl(2)."""
    check(
        C.prctl(_PR_CAPBSET_DROP, bit, 0, 0, 0),
        "prctl", "PR_CAPBSET_DROP", NAMES[bit] if bit < len(NAMES) else bit,
        meaning={errno.EPERM: "CAP_SETPCAP is needed to lower the bounding set"},
    )  # fmt: skip


def ambient_clear() -> None:
    """Empty the ambient set: PR_CAP_AMBIENT_CLEAR_ALL of prctl(2)."""
    check(
        C.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0),
        "prctl", "PR_CAP_AMBIENT", "PR_CAP_AMBIENT_CLEAR_ALL",
    )  # fmt: skip


def ambient_raise(bit: int) -> None:
    """Add to the ambient set what is both permitted and inheritable: prctl(2)."""
    check(
        C.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, bit, 0, 0),
        "prctl", "PR_CAP_AMBIENT", "PR_CAP_AMBIENT_RAISE", NAMES[bit],
        meaning={errno.EPERM: "it is not both permitted and inheritable"},
    )  # fmt: skip


# ---- steps


def only(keep: tuple[str, ...]) -> str:
    """setpriv(1)'s words for "these and no others"."""
    return ",".join(("-all", *("+" + name.removeprefix("CAP_").lower() for name in keep)))


class DropBoundingCapabilities(Step):
    """Lower the ceiling first: what is not in the bounding set can never come back by execve(2).

    It has to happen while we still hold CAP_SETPCAP, so before the permitted set shrinks."""

    name = "capabilities"
    without = "a set-user-ID program or file capabilities in the image could regain every power"
    look = ("status:CapBnd",)

    keep: tuple[str, ...]

    def title(self) -> str:
        """In a few words."""
        return f"drop all but {len(self.keep)} capabilities from the bounding set"

    def shell_prefix(self) -> str:
        """The setpriv(1) flag."""
        return quote("setpriv", "--bounding-set=" + only(self.keep))

    def run(self, context: Context) -> None:
        """One prctl per capability that goes."""
        keep = wanted(self.keep, context)
        try:
            for bit in range(64):  # so many a set can hold; the kernel may know more than we do
                if not keep >> bit & 1:
                    capbset_drop(bit)
        except KernelError as error:
            if error.errno != errno.EINVAL:  # beyond the last that it knows
                raise


class SetCapabilities(Step):
    """Shrink the working sets to what was asked for; inheritable and ambient stay empty.

    What this host's root does not have itself it cannot give: it is left out, with a warning."""

    name = "capabilities"
    without = "the program could mount, load modules, trace processes: root without walls"
    look = ("status:CapEff", "status:CapPrm")

    effective: tuple[str, ...]
    permitted: tuple[str, ...]
    inheritable: tuple[str, ...] = ()
    ambient: tuple[str, ...] = ()

    def title(self) -> str:
        """In a few words."""
        return f"keep {len(self.permitted)} capabilities"

    def shell_prefix(self) -> str:
        """The setpriv(1) flags; permitted and effective follow from them with the next execve."""
        inheritable, ambient = only(self.inheritable), only(self.ambient)
        return quote("setpriv", f"--inh-caps={inheritable}", f"--ambient-caps={ambient}")

    def run(self, context: Context) -> None:
        """capset(2), then the ambient set."""
        _, have, _ = capget()
        permitted = wanted(self.permitted, context)
        lacking = permitted & ~have
        if lacking:
            context.warn(
                f"this host's root lacks {', '.join(names(lacking))}: left out of the container"
            )
        permitted &= have
        effective = mask(self.effective) & permitted
        inheritable = mask(self.inheritable) & permitted
        ambient_clear()
        capset(effective, permitted, inheritable)
        for name in self.ambient:
            if mask((name,)) & permitted & inheritable:
                ambient_raise(NAMES.index(name))
