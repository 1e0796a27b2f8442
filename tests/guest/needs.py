"""What a test may need of the kernel, in words, and how to find out whether it is there.

    @pytest.mark.kernel("memory", "pids")

A need is probed, never inferred from a version or a distribution; every probe only looks.  The
table also says which guest kernel meets the need (``guests``), and a guest probes again before it
runs a test, so the table cannot promise too much.

``python -m tests.guest.needs`` prints the table, with ``here`` also what this machine meets.
"""

from __future__ import annotations

import fcntl
import functools
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

UML, QEMU = "uml", "qemu"  # User-Mode Linux; a whole machine, emulated
BOTH = (UML, QEMU)

CAP_SYS_RESOURCE = 24
CAP_SYS_ADMIN = 21
LOOP_CTL_GET_FREE = 0x4C82
GUEST_DISKS = ("/dev/ubdb", "/dev/vdb")


# ---- probes


def controller(name: str, root: Path = Path("/sys/fs/cgroup")) -> bool:
    """May we give this cgroup2 controller to cgroups below the root of the tree that we see?

    A controller can live in one hierarchy only: where v1 has it, cgroup2 does not list it.
    """
    try:
        here = (root / "cgroup.controllers").read_text().split()
        given = (root / "cgroup.subtree_control").read_text().split()
    except OSError:  # not cgroup2 (a tmpfs full of v1 hierarchies), or not mounted
        return False
    if os.geteuid() != 0 or os.statvfs(root).f_flag & os.ST_RDONLY:
        return False
    # Only the real root has no cgroup.type; in any other cgroup our own process is in the way of
    # new controllers ("no internal processes").
    return name in given or (name in here and not (root / "cgroup.type").exists())


def in_guest() -> bool:
    """Are we in a guest?  init.py says so to whatever it runs."""
    return "GUEST" in os.environ


def capability(number: int) -> bool:
    """Is this capability in our effective set?"""
    status = Path("/proc/self/status").read_text()
    effective = int(status.split("CapEff:")[1].split()[0], 16)
    return bool(effective >> number & 1)


def has(path: str) -> Callable[[], bool]:
    """A probe: is there this file, by which a kernel shows that it was built with the feature?"""
    return lambda: os.path.exists(path)


def machine() -> bool:
    """Does the kernel run on a processor, or is it User-Mode Linux?"""
    return "User Mode Linux" not in Path("/proc/cpuinfo").read_text()


def io_weight() -> bool:
    """Does the io controller share a disk by weight?  Only the root cgroup has io.cost.qos."""
    return controller("io") and os.path.exists("/sys/fs/cgroup/io.cost.qos")


def apparmor() -> bool:
    """Is AppArmor active, and is there a program that loads profiles?"""
    active = Path("/sys/kernel/security/apparmor/profiles").exists()
    return active and capability(CAP_SYS_ADMIN) and bool(shutil.which("apparmor_parser"))


def disk() -> bool:
    """Is there a block device that a test may write over: the guest's spare, or a loop device?"""
    if in_guest():
        return any(os.path.exists(path) for path in GUEST_DISKS)
    try:
        with open("/dev/loop-control", "rb") as control:
            fcntl.ioctl(control, LOOP_CTL_GET_FREE)
    except OSError:
        return False
    return os.geteuid() == 0


NAT_RULES = "add table ip t; add chain ip t c { type nat hook postrouting priority 100; }; \
add rule ip t c masquerade"


def nat() -> bool:
    """Does nftables translate addresses?  Asked in a network namespace that is gone at once."""
    if os.geteuid() != 0 or not shutil.which("nft"):
        return False
    ask = ["unshare", "--net", "nft", NAT_RULES]
    return subprocess.run(ask, capture_output=True).returncode == 0


# ---- the table


class Need(NamedTuple):
    """A word for the mark, what it means, how to look, and which guests have it."""

    word: str
    means: str
    probe: Callable[[], bool]
    guests: tuple[str, ...]


TABLE = (
    Need("guest", "what must not happen to a real kernel", in_guest, BOTH),
    Need("root", "user 0", lambda: os.geteuid() == 0, BOTH),
    Need("memory", "the cgroup2 controller", lambda: controller("memory"), BOTH),
    Need("pids", "the cgroup2 controller", lambda: controller("pids"), BOTH),
    Need("cpu", "the cgroup2 controller", lambda: controller("cpu"), BOTH),
    Need("io", "the cgroup2 controller (io.max)", lambda: controller("io"), BOTH),
    Need("cpuset", "the cgroup2 controller", lambda: controller("cpuset"), (QEMU,)),
    Need("io.weight", "... proportional, by iocost", io_weight, (QEMU,)),
    Need("psi", "pressure stall information", has("/proc/pressure"), (QEMU,)),
    Need("smp", "two processors", lambda: len(os.sched_getaffinity(0)) > 1, (QEMU,)),
    Need("disk", "a block device to write over (fixture spare_disk)", disk, BOTH),
    Need("sys_resource", "CAP_SYS_RESOURCE", lambda: capability(CAP_SYS_RESOURCE), BOTH),
    Need("apparmor", "AppArmor active, apparmor_parser installed", apparmor, BOTH),
    Need("nat", "nftables NAT", nat, (QEMU,)),
    Need("time_ns", "time namespaces", has("/proc/self/ns/time"), (QEMU,)),
    Need("ia32", "32-bit system calls", has("/proc/sys/abi/vsyscall32"), (QEMU,)),
    Need("checkpoint", "filters by ptrace(2)", has("/proc/sys/kernel/ns_last_pid"), (QEMU,)),
    Need("machine", "a processor: UML executes no loader at a fixed address", machine, (QEMU,)),
)

NEEDS = {need.word: need for need in TABLE}


@functools.cache
def met(word: str) -> bool:
    """Does the kernel we run on, with the rights we have, meet this need?  KeyError if unknown."""
    return NEEDS[word].probe()


def unmet(words: frozenset[str]) -> str:
    """Those of ``words`` that are not met here, for a sentence; "" if there are none."""
    return ", ".join(sorted(word for word in words if not met(word)))


def main() -> None:
    """Print the table."""
    for need in TABLE:
        here = f"{'yes' if met(need.word) else 'no':4}" if "here" in sys.argv else ""
        print(f"{here}{need.word:13} {'  '.join(need.guests):10} {need.means}")


if __name__ == "__main__":
    main()
