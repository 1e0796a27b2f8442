"""pivot_root: the new root becomes "/", and the old one goes out of reach for good.

chroot(2) only changes where one process's "/" points; the old tree is still mounted, and any
process with CAP_SYS_CHROOT walks out again (chroot into a subdirectory, then "..").  pivot_root(2)
changes the mount tree itself: the new root takes the place of the old one *for the namespace*, and
the old one is unmounted.  What is not mounted cannot be reached by any name.

The kernel insists (pivot_root(2), "ERRORS"): the new root must be a mount point (EINVAL), not on
the current root's mount (EBUSY), and neither it nor its parent may be shared (EINVAL).

By hand:   cd new_root && pivot_root . . && umount -l .
See it:    readlink /proc/PID/root ; cat /proc/PID/mountinfo
"""

from __future__ import annotations

import errno
import os

from minicontainer import safepath
from minicontainer.errors import KernelError, MinicontainerError
from minicontainer.libc import address, check, ffi, syscall
from minicontainer.mountcalls import MNT_DETACH, mount_setattr, umount
from minicontainer.step import Context, Step, quote

# ---- vocabulary: linux/mount.h

_MOUNT_ATTR_NODEV = 4

# ---- verbs


def pivot_root(new_root: str, put_old: str) -> None:
    """pivot_root(2).  With "." for both, the old root ends up stacked on top of the new one."""
    new, old = ffi.new("char[]", os.fsencode(new_root)), ffi.new("char[]", os.fsencode(put_old))
    check(
        syscall("pivot_root", address(new), address(old)), "pivot_root", new_root, put_old,
        meaning={
            errno.EINVAL: "the new root is not a mount point, or it or its parent is shared, or "
            "the current root is the initial ramdisk (then only chroot or MS_MOVE works)",
            errno.EBUSY: "the new root is on the mount that is the root already",
            errno.EPERM: "CAP_SYS_ADMIN is needed in the user namespace that owns the mounts",
        },
    )  # fmt: skip


# ---- steps


class PivotRoot(Step):
    """Swap the roots, then let go of the old one.

    Standing in the new root, pivot_root(".", ".") stacks the old root on top of it, so one
    umount of "." takes it away, and no directory for it is needed in the image.  Detached
    (MNT_DETACH), because its mounts are still in use by the rest of the host."""

    name = "pivot"
    without = "the host's files stay in sight: every path still starts at the host's root"
    look = ("root", "mountinfo")

    def title(self) -> str:
        """In a few words."""
        return "make it / and detach the old root"

    def shell(self) -> str:
        """pivot_root(8), umount(8)."""
        return 'cd "$ROOT"\npivot_root . .\numount -l .\ncd /'

    def run(self, context: Context) -> None:
        """pivot_root(2), umount2(2)."""
        os.fchdir(context.fds["root"])
        if context.unfiltered:  # no device filter: a disk's node in the image must open nothing
            mount_setattr(context.fds["root"], _MOUNT_ATTR_NODEV, recursive=False)
        pivot_root(".", ".")
        umount(".", MNT_DETACH)
        os.chdir("/")
        os.close(context.fds.pop("root"))


class EnterDirectory(Step):
    """Start where the image wants to (docker's WORKDIR, -w), with a check that it is inside.

    A working directory of /proc/self/fd/N once pointed at a directory of the host that the runtime
    had left open (CVE-2024-21626).  getcwd(2) of a directory outside the root does not begin with
    a slash, so the kernel itself tells."""

    name = "cwd"
    without = "the program starts in /"
    look = ("cwd",)

    path: str
    make: bool = False

    def title(self) -> str:
        """In a few words."""
        return f"start in {self.path}"

    def shell(self) -> str:
        """mkdir(1), cd."""
        make = f"mkdir -p {quote(self.path)}\n" if self.make else ""
        inside = "case $(pwd -P) in /*) ;; *) echo outside of the root >&2; exit 125 ;; esac"
        return f"{make}cd {quote(self.path)}\n{inside}"

    def run(self, context: Context) -> None:
        """chdir(2), getcwd(2)."""
        try:
            if self.make:
                make_inside(self.path)
            os.chdir(self.path)
        except (OSError, KernelError) as error:
            why = os.strerror(error.errno or 0)
            raise MinicontainerError(
                f"cannot start in the working directory {self.path}: {why}",
                "-w names a directory inside the container",
            ) from error
        verify_cwd_inside()


def make_inside(path: str) -> None:
    """mkdir(2) of ``path`` and its parents, through no link of /proc: /proc/self/fd/N/new would be
    made on the host, and the check of the directory we then stand in comes too late for that.

    Raises KernelError."""
    root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.close(safepath.make_directory(root, path))
    finally:
        os.close(root)


def verify_cwd_inside() -> None:
    """Raise MinicontainerError unless the working directory lies inside our root: getcwd(3)."""
    try:
        inside = os.getcwd().startswith("/")
    except FileNotFoundError:
        inside = False
    if not inside:
        raise MinicontainerError(
            "the working directory lies outside the container's root: refused",
            "an image or -w that names /proc/self/fd/N tries to break out (CVE-2024-21626)",
        )
