"""The cgroup tree: where it is mounted, where in it we may work, and who has the controllers.

Linux has two generations of cgroups.  Version 2 is one tree with all the controllers (memory, cpu,
io, pids, ...); version 1 was a tree for each.  A controller serves one of them at a time, so on a
"hybrid" machine the tree of version 2 is there and the controllers are elsewhere.

cgroups(7); Documentation/admin-guide/cgroup-v2.rst, "Basic Operations" and "Delegation".
By hand:   findmnt -t cgroup2,cgroup ; cat /proc/cgroups
"""

from __future__ import annotations

import os

from minicontainer import libc
from minicontainer.cgroupfiles import text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

# how systemd marks a unit's cgroup that it leaves to the unit: systemd.resource-control(5)
_DELEGATED = ("trusted.delegate", "user.delegate")
_UNITS = (".slice", ".service", ".scope")
_NAMES_IN_V1 = {"io": "blkio"}
# all that version 2 ever had, up to Linux 6.14
_CONTROLLERS = ("cpu", "cpuset", "dmem", "hugetlb", "io", "memory", "misc", "pids", "rdma")


def mount_point() -> str:
    """Where cgroup2 is mounted, "" if nowhere: proc_pid_mountinfo(5).

    The usual places are tried first: the kernel needs a while to print every mount there is."""
    for usual in ("/sys/fs/cgroup", "/sys/fs/cgroup/unified"):
        if os.path.exists(usual + "/cgroup.subtree_control"):
            return usual
    with open("/proc/self/mountinfo", "rb") as file:
        for line in file:
            if b" - cgroup2 " in line:
                return os.fsdecode(line.split()[4])
    return ""


def home() -> str:
    """The cgroup below which cgroups are ours to make, "" if there is none.

    In a unit of systemd's that has been delegated to us, the unit's; else the root of the tree, as
    for runc and crun.  xattr(7)."""
    base = mount_point()
    lines = (text("/proc/self", "cgroup") or "").split("\n")
    own = next((line[3:] for line in lines if line.startswith("0::")), "/")
    while base and len(own) > 1 and "/.." not in own:
        for name in _DELEGATED:
            try:
                if os.getxattr(base + own, name) == b"1":
                    return base + own
            except OSError:
                pass  # ENODATA: not marked
        own, _, name = own.rpartition("/")
        if name.endswith(_UNITS):
            break  # beyond the unit we run in, a mark is meant for somebody else
    return base


def whereabouts(controller: str) -> tuple[str, str]:
    """Why cgroup2 does not have a controller, in a sentence, and what to do about it.

    proc_cgroups(5), proc_pid_mountinfo(5)."""
    old = _NAMES_IN_V1.get(controller, controller)
    with open("/proc/cgroups") as file:
        rows = {name: rest for name, *rest in (line.split() for line in file)}
    if old not in rows and controller not in _CONTROLLERS:
        return (
            f"no such cgroup file or controller: {controller}",
            f"the controllers are {', '.join(_CONTROLLERS)}: cgroups(7)",
        )
    # Newer kernels list there only what version 1 could have; and only the real root has no type.
    below_the_root = os.path.exists(mount_point() + "/cgroup.type")
    if old not in rows and not below_the_root:
        return f"this kernel was built without the {controller} controller", "use another kernel"
    hierarchy, _, enabled = rows.get(old, ("0", "1", "1"))
    if enabled == "0":
        return (
            f"the {controller} controller was switched off when this machine was started",
            f"boot without cgroup_disable={old}, or with cgroup_enable={old}",
        )
    if hierarchy == "0":
        return (
            f"the {controller} controller was not handed down to us from above",
            "in a container or a unit of systemd's, whoever made it has to (Delegate=yes)",
        )
    place = "not mounted here"
    with open("/proc/self/mountinfo") as file:
        for line in file:
            fields, _, rest = line.partition(" - ")
            if rest.startswith("cgroup ") and old in rest.split()[2].split(","):
                place = f"mounted at {fields.split()[4]}"
    return (
        f"the {controller} controller belongs to cgroup v1 here ({place}), and it can serve only "
        "one of the two versions",
        "boot with systemd.unified_cgroup_hierarchy=1 (with cgroup_no_v1=all where there is no "
        "systemd), or run without this limit",
    )


# ---- the files of a cgroup, by a descriptor of its directory (O_PATH will do)


def words(cgroup_fd: int, file: str) -> list[str]:
    """The words in ``file``, such as cgroup.controllers or ../cgroup.procs.  Raises OSError."""
    fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC, dir_fd=cgroup_fd)
    try:
        return os.read(fd, 1 << 16).decode().split()
    finally:
        os.close(fd)


def write(cgroup_fd: int, file: str, text: str, meaning: Mapping[int, str] | None = None) -> None:
    """open(2) of ``file`` and write(2); ``meaning`` is that of errnos.  Raises KernelError."""

    def call() -> None:
        fd = os.open(file, os.O_WRONLY | os.O_CLOEXEC, dir_fd=cgroup_fd)
        try:
            os.write(fd, text.encode())
        finally:
            os.close(fd)

    libc.told(call, "write", file, text, meaning=meaning)
