"""Build step: compile ``trampoline.c`` into the static program ``minicontainer/trampoline``.

Run by the installer (``python -m minicontainer.trampoline_build``), never at run time.  Static,
because a dynamic program would ask the *image* for its loader and libraries; without a C library,
because trampoline.c says why.  1.6 kB come out.

Man pages: gcc(1), ld(1).  By hand: ``readelf -lW minicontainer/trampoline`` shows one segment that
can be read and executed, and none that can be written.
"""

from __future__ import annotations

import os
import subprocess

from minicontainer.errors import MinicontainerError

_HERE = os.path.dirname(os.path.abspath(__file__))

#: where ``build`` puts the program, and where ``kernel/exec.py`` looks for it
TRAMPOLINE = os.path.join(_HERE, "trampoline")

FLAGS = (
    "-std=gnu11", "-Os", "-Wall", "-Wextra",
    # no C library: nothing started before _start, nothing linked in
    "-static", "-nostdlib", "-ffreestanding",
    # distributions turn on what needs a C library's help: position independence, canaries
    "-fno-pie", "-no-pie", "-fno-stack-protector", "-fno-asynchronous-unwind-tables",
    # a stack that cannot be executed; code and constants share one read-execute segment,
    # which saves the kernel two page faults at each start
    "-Wl,-z,noexecstack", "-Wl,-z,noseparate-code", "-Wl,--build-id=none", "-s",
)  # fmt: skip

COMPILER_HINT = (
    "install a C compiler with the kernel's headers: "
    "apt-get install gcc libc6-dev, or dnf install gcc glibc-devel, or apk add gcc musl-dev "
    "linux-headers"
)


def build(target: str | None = None) -> str:
    """Compile the trampoline to ``target`` (default: beside this file); return its path.

    The compiler is ``cc``, or what the environment's CC names.  Raises MinicontainerError when
    there is none or when it refuses; an older trampoline is then still in place.
    """
    target = target or TRAMPOLINE
    compiler = os.environ.get("CC") or "cc"
    fresh = f"{target}.{os.getpid()}"
    command = [*compiler.split(), *FLAGS, "-o", fresh, os.path.join(_HERE, "trampoline.c")]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise MinicontainerError(
            f"no C compiler: {compiler!r} was not found", COMPILER_HINT
        ) from None
    if done.returncode != 0:
        raise MinicontainerError(
            f"{compiler} could not compile trampoline.c:\n{done.stderr.strip()}", COMPILER_HINT
        )
    # Any user of any container may execute it; nobody but its owner may write it.  The rename
    # lets a container that starts right now find either the old program or the new one.
    os.chmod(fresh, 0o755)
    os.replace(fresh, target)
    return target


if __name__ == "__main__":
    build()
