"""Masks: files of /proc and /sys that no namespace makes private, hidden or write-protected.

/proc is one window for everything.  The pid namespace hides other processes in it, but /proc/kcore
is still the machine's memory, /proc/sys the host kernel's switches, /proc/sysrq-trigger reboots.
Until there is a namespace for them, container engines put something on top:

* a masked file gets /dev/null mounted over it, a masked directory an empty read-only tmpfs;
* a read-only path is bind-mounted on itself, and that mount made read-only.

What is mounted must really be the null device: an image (or a neighbour in a race) that offers
something else as /dev/null would get it bind-mounted writably over /proc (CVE-2025-31133).  So we
open it once, look at its device number, and mount what we opened.

Man pages: proc(5), mount(2).
By hand:   mount --bind /dev/null /proc/kcore
           mount --bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys
See it:    docker inspect -f '{{.HostConfig.MaskedPaths}}' ID ; cat /proc/self/mountinfo
"""

from __future__ import annotations

import errno
import os
import stat

from minicontainer.errors import KernelError, MinicontainerError
from minicontainer.mountcalls import MS_RDONLY, mount, mount_setattr, move_mount, open_tree
from minicontainer.step import Context, Step, quote

# ---- vocabulary

NULL_DEVICE = (1, 3)  # Documentation/admin-guide/devices.txt
_MOUNT_ATTR_RDONLY = 1

# ---- verbs


def open_null() -> int:
    """An O_PATH descriptor of /dev/null, verified to be character device 1:3."""
    fd = os.open("/dev/null", os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    status = os.fstat(fd)
    device = (os.major(status.st_rdev), os.minor(status.st_rdev))
    if not stat.S_ISCHR(status.st_mode) or device != NULL_DEVICE:
        os.close(fd)
        raise MinicontainerError(
            "/dev/null in the container is not the null device (character device 1:3)",
            "the image or a volume has put something else there; refused",
        )
    return fd


def open_place(path: str) -> int:
    """An O_PATH descriptor of a path in the container, or -1 where this kernel has no such file."""
    try:
        return os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return -1


# ---- steps


class MaskPaths(Step):
    """Hide what the container has no business reading: after pivot_root, in its own root."""

    name = "masks"
    without = "root in the container reads the host's memory from /proc/kcore"

    paths: tuple[str, ...]

    def title(self) -> str:
        """In a few words."""
        return f"hide {len(self.paths)} paths of /proc and /sys"

    def shell(self) -> str:
        """mount(8), a line for each path that exists."""
        return (
            f"for p in {quote(*self.paths)}; do\n"
            '  if [ -d "$p" ]; then mount -t tmpfs -o ro tmpfs "$p"\n'
            '  elif [ -e "$p" ]; then mount --bind /dev/null "$p"; fi\n'
            "done"
        )

    def run(self, context: Context) -> None:
        """Each path: open_tree(2) of /dev/null and move_mount(2), or an empty tmpfs."""
        null = open_null()
        try:
            for path in self.paths:
                place = open_place(path)
                if place < 0:
                    continue
                try:
                    if stat.S_ISDIR(os.fstat(place).st_mode):
                        os.fchdir(place)
                        mount("tmpfs", ".", "tmpfs", MS_RDONLY)
                    else:
                        tree = open_tree("", recursive=False, dir_fd=null)
                        move_mount(tree, place, path)
                        os.close(tree)
                finally:
                    os.close(place)
        finally:
            os.close(null)
            os.chdir("/")


class ProtectPaths(Step):
    """Let the container read the kernel's switches and not turn them."""

    name = "readonly-paths"
    without = "root in the container changes the host: echo 1 > /proc/sys/kernel/..., sysrq-trigger"

    paths: tuple[str, ...]

    def title(self) -> str:
        """In a few words."""
        return f"make {len(self.paths)} paths of /proc read-only"

    def shell(self) -> str:
        """mount(8), two lines for each path that exists."""
        return (
            f"for p in {quote(*self.paths)}; do\n"
            '  [ -e "$p" ] || continue\n'
            '  mount --rbind "$p" "$p"\n'
            '  mount -o remount,bind,ro,nosuid,nodev,noexec "$p"\n'
            "done"
        )

    def run(self, context: Context) -> None:
        """Each path: a detached copy, made read-only, then hung on the path itself."""
        for path in self.paths:
            place = open_place(path)
            if place < 0:
                continue
            try:
                tree = open_tree("", dir_fd=place)
                mount_setattr(tree, _MOUNT_ATTR_RDONLY)
                move_mount(tree, place, path)
                os.close(tree)
            except KernelError as error:
                if error.errno != errno.EINVAL:
                    raise
                raise MinicontainerError(
                    f"{path} cannot be made read-only: it is not on a mount of this container",
                ) from error
            finally:
                os.close(place)
