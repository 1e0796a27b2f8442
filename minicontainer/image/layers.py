"""A layer is a tar: unpack it into a directory, and nowhere else.

The tar was made by a stranger.  It may hold ``../../etc/shadow``, a link ``x -> /`` followed by a
file ``x/etc/shadow``, a hard link to the host's password file, a device, a name with an escape
sequence.  tarfile only *reads* it (its own extraction either refuses honest images, whose links
are often absolute, or lets hard links out).  What is made here is made

* under a directory descriptor from safepath: links on the way end inside the layer;
* with one name and that descriptor (openat, mkdirat, symlinkat, linkat, mknodat): never a path;
* freshly: what has that name already is removed first, so nothing existing is written through
  (nodes.py).

A bad entry makes the whole archive refused; an image with pieces left out is no image.

Deleting: a layer says "the file x below me is gone" with an entry ``.wh.x``, and "all of this
directory below me is gone" with ``.wh..wh..opq``; overlayfs says it with a character device 0:0
called x, and with the attribute trusted.overlay.opaque.  So they are translated on the way in.

Spec: OCI image-spec layer.md.  Man pages: tar(5), openat(2), linkat(2), xattr(7).
By hand: tar --numeric-owner --xattrs -xpf layer.tar -C directory   (for a tar you trust)
See it:  ls -ln /var/lib/minicontainer/layers/sha256/*/
"""

from __future__ import annotations

import errno
import os
import stat

from minicontainer.errors import ImageError, KernelError
from minicontainer.image import nodes
from minicontainer.image.stream import Limits, TarStream
from minicontainer.image.tarreader import TarReader, nanoseconds, split
from minicontainer.safepath import make_directory, open_in_root
from minicontainer.step import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    import tarfile

WHITEOUT = ".wh."
OPAQUE = ".wh..wh..opq"

NOBODY_AT_ALL = 0xFFFF_FFFF  # chown(2) takes this id for "leave it as it is"

DEFAULT_LIMITS = Limits()


class Unpacked(Record):
    """What came out of a tar."""

    entries: int
    size: int  # bytes of all regular files
    newest: int  # seconds since 1970: the latest mtime of any entry


def unpack(
    stream: TarStream, root_fd: int, limits: Limits = DEFAULT_LIMITS, *, devices: bool = True
) -> Unpacked:
    """Unpack the tar in ``stream`` into the empty directory ``root_fd`` (not an O_PATH one).

    Owners are numeric; modes, times, hard links, holes, ``user.*`` attributes and file
    capabilities are kept.  ``devices=False`` refuses device nodes.  Raises ImageError, after
    which the directory holds a part of the layer and is to be thrown away.
    """
    reader = TarReader(stream, limits)
    unpacker = _Unpacker(reader, root_fd, limits, devices)
    umask = os.umask(0)  # modes are the archive's, not this process's
    try:
        for entry in reader:
            try:
                unpacker.add(entry)
            except (OSError, ValueError, OverflowError, KernelError) as error:
                why = getattr(error, "strerror", None) or error
                raise ImageError(f"{entry.name!r} in the archive: {why}") from error
        unpacker.finish_directories()
    finally:
        os.umask(umask)
    stream.drain()
    return Unpacked(unpacker.count, unpacker.size, unpacker.newest)


class _Unpacker:
    def __init__(self, reader: TarReader, root_fd: int, limits: Limits, devices: bool) -> None:
        self.reader, self.root_fd, self.limits, self.devices = reader, root_fd, limits, devices
        self.count = self.size = self.newest = 0
        #: directories get owner, mode and time at the end: by then nothing more happens in them
        self.directories: dict[str, tuple[int, tarfile.TarInfo]] = {}

    def add(self, entry: tarfile.TarInfo) -> None:
        """Make one entry."""
        self.count += 1
        self.newest = max(self.newest, nanoseconds(entry) // 10**9)
        if not (0 <= entry.uid < NOBODY_AT_ALL and 0 <= entry.gid < NOBODY_AT_ALL):
            raise ImageError(f"{entry.name!r} in the archive: impossible owner {entry.uid}")
        parts = split(entry.name, self.limits)
        if not parts:
            if not entry.isdir():
                raise ImageError(f"{entry.name!r} in the archive: the root is not a directory")
            self.directories[""] = (os.fstat(self.root_fd).st_ino, entry)
            return
        *above, name = parts
        if any(part.startswith(WHITEOUT) for part in above):
            raise ImageError(f"{entry.name!r} in the archive: below a whiteout")
        parent = make_directory(self.root_fd, "/".join(above))
        try:
            if name.startswith(WHITEOUT):
                self.whiteout(parent, name)
            elif entry.isdir():
                self.directory(parent, name, "/".join(parts), entry)
            else:
                nodes.remove(parent, name)
                self.leaf(parent, name, entry)
        finally:
            os.close(parent)

    def leaf(self, parent: int, name: str, entry: tarfile.TarInfo) -> None:
        """Make what is not a directory; nothing of that name is there."""
        if entry.isreg():
            self.size += entry.size
            if self.size > self.limits.total:
                raise ImageError(f"the archive's files have more than {self.limits.total} bytes")
            nodes.make_file(parent, name, entry, self.reader.contents(entry))
        elif entry.issym():
            nodes.make_symlink(parent, name, entry)
        elif entry.islnk():
            self.hard_link(parent, name, entry)
        elif entry.isdev() and not self.devices and not entry.isfifo():
            raise ImageError(f"{entry.name!r} in the archive: a device node, which was not wanted")
        elif entry.isdev():  # tarfile counts FIFOs among the devices
            nodes.make_node(parent, name, entry)
        else:
            raise ImageError(f"{entry.name!r} in the archive: unknown type {entry.type!r}")

    def hard_link(self, parent: int, name: str, entry: tarfile.TarInfo) -> None:
        """linkat(2): another name for a file that the archive has made before."""
        *above, target = split(entry.linkname, self.limits) or [""]
        there = open_in_root(self.root_fd, "/".join(above) or "/", os.O_PATH | os.O_DIRECTORY)
        try:
            # not following: a link to a symbolic link is one more of those, not of its target
            os.link(target, name, src_dir_fd=there, dst_dir_fd=parent, follow_symlinks=False)
        finally:
            os.close(there)

    def directory(self, parent: int, name: str, path: str, entry: tarfile.TarInfo) -> None:
        """mkdirat(2); a directory that is there already stays, with all that is in it."""
        there = nodes.lstat(parent, name)
        if there is None or not stat.S_ISDIR(there.st_mode):
            nodes.remove(parent, name)
            os.mkdir(name, 0o700, dir_fd=parent)
        if there is not None and nodes.is_whiteout(there):
            nodes.make_opaque(parent, name)
        fd = os.open(name, nodes.A_DIRECTORY, dir_fd=parent)
        try:
            self.directories[path] = (os.fstat(fd).st_ino, entry)
        finally:
            os.close(fd)

    def whiteout(self, parent: int, name: str) -> None:
        """Translate ``.wh.NAME`` and ``.wh..wh..opq`` into what overlayfs understands."""
        gone = name.removeprefix(WHITEOUT)
        if name == OPAQUE:
            nodes.make_opaque(parent, ".")
        elif gone.startswith(WHITEOUT):
            pass  # .wh..wh.plnk and others: notes of the aufs file system to itself
        elif gone in ("", ".", ".."):
            raise ImageError(f"{name!r} in the archive: a whiteout of nothing or of a parent")
        elif (there := nodes.lstat(parent, gone)) is None:
            os.mknod(gone, stat.S_IFCHR, 0, dir_fd=parent)
        elif stat.S_ISDIR(there.st_mode):
            # It speaks of the layers below; this layer's own directory of that name stays.
            nodes.make_opaque(parent, gone)

    def finish_directories(self) -> None:
        """Owner, mode and time of directories, deepest first (a mode may forbid to enter)."""
        for path, (inode, entry) in sorted(self.directories.items(), reverse=True):
            try:
                fd = open_in_root(self.root_fd, path or "/", nodes.A_DIRECTORY)
            except KernelError as error:
                if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                    continue  # a later entry has replaced it
                raise
            try:
                if os.fstat(fd).st_ino == inode:
                    nodes.set_metadata(fd, entry)
            finally:
                os.close(fd)
