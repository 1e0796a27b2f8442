"""A sealed program: one that can be executed, and that nobody can change, not even root.

The file behind /proc/PID/exe is whatever that process runs, wherever it lies: the link is made by
the kernel and knows no walls.  A runtime that steps into a container and then executes what the
image says is, for a moment, the *host's* program inside it; an image whose program is
/proc/self/exe has that program executed again, and root in the image may open it for writing.
That is how the whole host was taken over in CVE-2019-5736.

The way out is to be, in that moment, a program that is worth nothing to an attacker: a copy that
only this one container uses, sealed against every writer.  It is the trampoline (trampoline.c),
and kernel/exec.py executes it.

By hand:   minicontainer run --rm --entrypoint /proc/self/exe alpine        (only the trampoline)
See it:    ls -l /proc/PID/exe            (in a container with --init: /memfd:trampoline)
Man pages: memfd_create(2), fcntl(2) "File Sealing", open_tree(2), mount_setattr(2)
"""

from __future__ import annotations

import errno
import fcntl
import os

from minicontainer import mountcalls
from minicontainer.errors import KernelError, MinicontainerError
from minicontainer.step import HOST, Context, Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import ClassVar

# ---- vocabulary: linux/memfd.h, linux/fcntl.h, linux/mount.h

MFD_EXEC = 0x10
MOUNT_ATTR_RDONLY = 1
# No one may write, grow or shrink the file again, nor take off a seal or add one
SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL

TRAMPOLINE = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "trampoline")

# ---- verbs


def open_sealed(path: str) -> int:
    """A descriptor that executes the program at ``path``, and through which nobody can change it.

    First choice is a copy in memory: it needs no privilege, and no privilege breaks the seal.
    Where memory may not be executed (sysctl vm.memfd_noexec=2) it is a read-only mount.  Raises
    OSError for a ``path`` that cannot be read, KernelError.
    """
    try:
        return seal_copy(path)
    except KernelError:
        return seal_mount(path)


def memfd_create(name: str) -> int:
    """A file that is nothing but memory, and may be executed: memfd_create(2).

    Raises KernelError."""
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        try:
            return os.memfd_create(name, flags | MFD_EXEC)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            # Before Linux 6.3 there was no such flag: every memfd could be executed.
            return os.memfd_create(name, flags)
    except OSError as error:
        raise KernelError(
            "memfd_create", f'"{name}"', error.errno or 0, "see sysctl vm.memfd_noexec"
        ) from None


def seal_copy(path: str) -> int:
    """A copy of the file in memory that cannot be written again: sendfile(2), F_ADD_SEALS.

    Raises OSError, KernelError."""
    source = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        copy = memfd_create("trampoline")
        while os.sendfile(copy, source, None, 1 << 20):
            pass
    finally:
        os.close(source)
    fcntl.fcntl(copy, fcntl.F_ADD_SEALS, SEALS)
    return copy


def seal_mount(path: str) -> int:
    """A read-only mount of the file that hangs nowhere: open_tree(2), mount_setattr(2).

    Needs CAP_SYS_ADMIN, and is the second choice for a reason: a container that is given
    CAP_SYS_ADMIN can make it writable again by the very same call.  Raises KernelError.
    """
    fd = mountcalls.open_tree(path, recursive=False)
    try:
        mountcalls.mount_setattr(fd, MOUNT_ATTR_RDONLY, recursive=False)
    except KernelError:
        os.close(fd)
        raise
    return fd


# ---- steps


class SealTrampoline(Step):
    """Make ready, on the host, the program that stands between Python and the image's program.

    Here, because behind pivot_root(2) no path leads to it any more; a descriptor does."""

    side: ClassVar[str] = HOST
    name = "seal"
    without = "an image with ENTRYPOINT /proc/self/exe is handed the host's Python interpreter"
    look = ("fd",)

    path: str = TRAMPOLINE

    def title(self) -> str:
        """In a few words."""
        return "seal a copy of the trampoline"

    def run(self, context: Context) -> None:
        """memfd_create(2), sendfile(2), fcntl(2)."""
        try:
            context.fds["trampoline"] = open_sealed(self.path)
        except OSError as error:
            raise MinicontainerError(
                f"cannot read the trampoline {self.path}: {error.strerror}",
                "minicontainer is not wholly installed: make install",
            ) from None

    def undo(self, context: Context) -> None:
        """Close it: the kernel frees the copy with its last descriptor."""
        fd = context.fds.pop("trampoline", -1)
        if fd >= 0:
            os.close(fd)
