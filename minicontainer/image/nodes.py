"""Making one thing from a tar entry: a name in a directory that is open already.

Every function gets the directory as a descriptor and *one* word of a name, so that no path of a
stranger is ever walked here, and makes something new: O_EXCL, mkdirat, symlinkat and mknodat fail
where the name is taken, and none of them follows a link of that name.

Man pages: openat(2), symlinkat(2), mknodat(2), fchown(2), fchmod(2), fsetxattr(2), utimensat(2).
"""

from __future__ import annotations

import errno
import os
import shutil
import stat

from minicontainer.image.tarreader import nanoseconds, xattrs

TYPE_CHECKING = False
if TYPE_CHECKING:
    import tarfile
    from collections.abc import Iterable

NEW_FILE = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
A_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def make_file(
    parent: int, name: str, entry: tarfile.TarInfo, contents: Iterable[tuple[int, bytes]]
) -> None:
    """openat(2) with O_EXCL, then pwrite(2) of each (offset, bytes); holes stay holes."""
    fd = os.open(name, NEW_FILE, 0o600, dir_fd=parent)
    try:
        for offset, data in contents:
            written = 0
            while written < len(data):
                written += os.pwrite(fd, data[written:], offset + written)
        os.ftruncate(fd, entry.size)  # there may be a hole at the end
        set_metadata(fd, entry)
    finally:
        os.close(fd)


def make_symlink(parent: int, name: str, entry: tarfile.TarInfo) -> None:
    """symlinkat(2), the target word for word: it means something only inside a container, and
    only there (or by safepath) is it ever followed."""
    os.symlink(entry.linkname, name, dir_fd=parent)
    _set_owner_and_time(parent, name, entry)


def make_node(parent: int, name: str, entry: tarfile.TarInfo) -> None:
    """mknodat(2): a FIFO or a device."""
    kind = stat.S_IFIFO if entry.isfifo() else stat.S_IFCHR if entry.ischr() else stat.S_IFBLK
    device = 0 if entry.isfifo() else os.makedev(entry.devmajor, entry.devminor)
    os.mknod(name, kind | (entry.mode & 0o7777), device, dir_fd=parent)
    _set_owner_and_time(parent, name, entry)


def _set_owner_and_time(parent: int, name: str, entry: tarfile.TarInfo) -> None:
    """For what must not be opened."""
    os.chown(name, entry.uid, entry.gid, dir_fd=parent, follow_symlinks=False)
    when = nanoseconds(entry)
    os.utime(name, ns=(when, when), dir_fd=parent, follow_symlinks=False)


def set_metadata(fd: int, entry: tarfile.TarInfo) -> None:
    """Owner, mode, attributes, time, in the one order that works: chown(2) takes away set-user-id
    bits and capabilities, and everything takes away the time."""
    os.fchown(fd, entry.uid, entry.gid)
    os.fchmod(fd, entry.mode & 0o7777)
    for name, value in xattrs(entry).items():
        _setxattr_where_there_is(fd, name, value)
    os.utime(fd, ns=(nanoseconds(entry), nanoseconds(entry)))


def lstat(parent: int, name: str) -> os.stat_result | None:
    """What has this name, links not followed; None for nothing."""
    try:
        return os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return None


def remove(parent: int, name: str) -> None:
    """unlinkat(2), or rm -r: make room for an entry of the same name."""
    there = lstat(parent, name)
    if there is not None and stat.S_ISDIR(there.st_mode):
        shutil.rmtree(name, dir_fd=parent)  # goes by descriptors itself, follows no links
    elif there is not None:
        os.unlink(name, dir_fd=parent)


def is_whiteout(there: os.stat_result) -> bool:
    """Whether overlayfs would take it for "deleted": a character device 0:0."""
    return stat.S_ISCHR(there.st_mode) and there.st_rdev == 0


def make_opaque(parent: int, name: str) -> None:
    """fsetxattr(2): hide the layers below a directory.

    Marked twice: overlayfs looks for ``trusted.`` when it is mounted by the host's root, for
    ``user.`` when mounted in a user namespace.
    """
    fd = os.open(name, A_DIRECTORY, dir_fd=parent)
    try:
        os.setxattr(fd, "trusted.overlay.opaque", b"y")
        _setxattr_where_there_is(fd, "user.overlay.opaque", b"y")
    finally:
        os.close(fd)


def _setxattr_where_there_is(fd: int, name: str, value: bytes) -> None:
    """user.* does not exist on every file system (tmpfs before Linux 6.6), and is not vital."""
    try:
        os.setxattr(fd, name, value)
    except OSError as error:
        if error.errno != errno.ENOTSUP or not name.startswith("user."):
            raise
