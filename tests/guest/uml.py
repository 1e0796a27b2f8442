"""User-Mode Linux: a kernel that is a program; its processes are traced processes of the host.

It boots in a second, as any user and without a virtual machine, over the host's files (hostfs).
Debian and Ubuntu have it as user-mode-linux.  One processor, no nftables NAT, no cpuset, no PSI.

By hand:  linux.uml mem=1G root=/dev/root rootfstype=hostfs ro init=/bin/sh
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

ORDERS = {
    "share_by": "hostfs",
    "modules": "/usr/lib/uml/modules",
    "lines": ["/dev/ttyS0", "/dev/ttyS1"],
    "disk": "/dev/ubda",
}


def missing() -> str:
    """What is not installed, for a sentence; "" if nothing is."""
    return "" if shutil.which("linux.uml") else "user-mode-linux"


def commands(
    work: str, memory: int, fds: dict[str, int], command: list[str]
) -> Iterator[tuple[list[str], dict[str, str]]]:
    """The one command that starts the kernel, and its environment."""
    stay_on_one_processor()
    words = [
        "linux.uml", f"mem={memory}G",
        "root=/dev/root", "rootfstype=hostfs", "rootflags=/", "ro",
        f"ubd0={work}/disk", f"ubd1={work}/spare",
        f"con0=null,fd:{fds['console']}", "con=null", "ssl=null",
        f"ssl0=null,fd:{fds['out']}", f"ssl1=null,fd:{fds['line']}",
        f"uml_dir={work}", "umid=uml", "panic=-1", "noreboot", "quiet", "security=apparmor",
        # a benchmark of RAID code and one of the processor take longer than the rest of the boot
        "initcall_blacklist=raid6_select_algo,calibrate_xor_blocks", "lpj=20000000",
        f"init={command[0]}", "--", *command[1:],
    ]  # fmt: skip
    # The guest's memory is a file, on a tmpfs; in a docker container that is too small.
    small = shutil.disk_usage("/dev/shm").free < memory << 30
    env = {"PATH": os.environ["PATH"], **({"TMPDIR": work} if small else {})}
    # It finds the end of its stack by the last variable, and PATH is one that it replaces.
    yield words, {**env, "LD_PRELOAD": large_registers(work), "LAST": "1"}


def large_registers(work: str) -> str:
    """Compile xstate.c, which says what it is for; "" without a compiler."""
    library = f"{work}/xstate.so"
    source = Path(__file__).with_name("xstate.c")
    compile_ = ["gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
    if not shutil.which("gcc"):
        return ""
    subprocess.run([*compile_, "-o", library, source], check=True)
    return library


def stay_on_one_processor() -> None:
    """Keep this process and its children on one processor, another one for every guest.

    A system call in the guest is two switches between processes of the host; between processors
    they take three to five times as long: sched_setaffinity(2).
    """
    for processor in sorted(os.sched_getaffinity(0)):
        claim = socket.socket(socket.AF_UNIX)
        try:
            claim.bind(f"\0minicontainer-guest-{processor}")  # abstract: gone when we are, unix(7)
        except OSError:
            claim.close()
            continue
        os.sched_setaffinity(0, {processor})
        claim.detach()  # open until this process ends
        return
