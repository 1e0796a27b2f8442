"""Paths that stay inside a root: the only code that turns a container's path into a descriptor.

A path inside a container is chosen by whoever made the image.  Joined to the name of the root
and given to open(2), ``/etc/passwd`` may well be the *host's*: a symbolic link to ``/`` or to
``../../..`` on the way is enough, and checking first does not help, for the link can be swapped
in between.  openat2(2) lets the kernel do it in one go: with RESOLVE_IN_ROOT a directory
descriptor plays the part of ``/`` for absolute links and for ``..``, as after chroot(2).

What comes back is a descriptor, not a path: what was checked is what is used.  Act on it with
the ``*at`` calls, with mount(2) on ``/proc/self/fd/N``, or with move_mount(2).

Man pages: openat2(2), path_resolution(7), openat(2) on O_PATH.
By hand:   ln -s / /tmp/root/up; chroot /tmp/root ls /up      (the same answer as ours)
In /proc:  readlink /proc/PID/fd/N                            (where a descriptor leads)
"""

from __future__ import annotations

import errno
import os
import stat

from minicontainer.errors import ImageError, KernelError
from minicontainer.libc import Flags, address, check, ffi, syscall

# linux/openat2.h
RESOLVE_NO_MAGICLINKS = 0x02  # /proc/PID/fd/N and friends lead out of any root
RESOLVE_IN_ROOT = 0x10

RESOLVE_FLAGS = {
    "RESOLVE_IN_ROOT": RESOLVE_IN_ROOT,
    "RESOLVE_NO_MAGICLINKS": RESOLVE_NO_MAGICLINKS,
}
OPEN_FLAGS = {
    name: getattr(os, name)
    for name in (
        "O_WRONLY", "O_RDWR", "O_CREAT", "O_EXCL", "O_TRUNC", "O_APPEND", "O_NONBLOCK",
        "O_DIRECTORY", "O_NOFOLLOW", "O_NOCTTY", "O_PATH", "O_CLOEXEC",
    )
}  # fmt: skip

_MEANING = {
    errno.ENOENT: "no such path inside this root",
    errno.ENOTDIR: "a part of the path is not a directory",
    errno.ELOOP: "symbolic links that go round in circles, or a magic link of /proc",
    errno.ENOSYS: "this kernel has no openat2, which came with Linux 5.6",
}

MAX_LINKS = 40  # as many as the kernel follows in one path (path_resolution(7))


def open_in_root(root_fd: int, path: str, flags: int, mode: int = 0) -> int:
    """openat2(2): open ``path`` as a process would whose root directory is ``root_fd``.

    ``flags`` are open(2)'s, O_CLOEXEC is added; ``mode`` counts only with O_CREAT.  Returns a
    descriptor that the caller closes.  Raises KernelError.
    """
    resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS
    flags |= os.O_CLOEXEC
    arguments = (root_fd, path, Flags(flags, OPEN_FLAGS), Flags(resolve, RESOLVE_FLAGS))
    name = os.fsencode(path)
    if b"\0" in name:  # C would take the part before the NUL for the whole
        raise KernelError("openat2", repr(path), errno.EINVAL, "a path cannot hold a NUL byte")
    c_name = ffi.new("char[]", name)
    how = ffi.new("struct open_how *", {"flags": flags, "mode": mode, "resolve": resolve})
    size = ffi.sizeof(how[0])
    while True:
        fd = syscall("openat2", root_fd, address(c_name), address(how), size)
        # EAGAIN: something was renamed while the kernel climbed a "..", so that it could not
        # vouch for the answer.  It asks to be asked again.
        if fd != -1 or ffi.errno != errno.EAGAIN:
            return check(fd, "openat2", *arguments, meaning=_MEANING)


def make_directory(root_fd: int, path: str, mode: int = 0o755) -> int:
    """mkdirat(2) again and again: make ``path`` inside the root with all its parents.

    Symbolic links are followed as inside the root, also those whose target is yet to be made
    (/var/run -> /run in an image without /run).  ``mode``, less the umask, is for directories
    made here.  Returns an O_PATH descriptor that the caller closes.  Raises KernelError.
    """
    try:
        return open_in_root(root_fd, path, os.O_PATH | os.O_DIRECTORY)  # mostly it is there
    except KernelError as error:
        if error.errno != errno.ENOENT:
            raise
    # Often only the last part is missing.
    parent, _, last = path.rstrip("/").rpartition("/")
    try:
        above = open_in_root(root_fd, parent or "/", os.O_PATH | os.O_DIRECTORY)
        try:
            if last not in (".", "..") and _mkdir_or_readlink(above, last, mode) is None:
                flags = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW
                return open_in_root(above, last, flags)
        finally:
            os.close(above)
    except KernelError as error:
        if error.errno != errno.ENOENT:
            raise
    # `done` leads to a directory and holds no links: they are replaced by their targets here.
    done, todo, links = "", path.split("/"), MAX_LINKS
    while todo:
        name = todo.pop(0)
        if name in ("", "."):
            continue
        here = open_in_root(root_fd, done or "/", os.O_PATH | os.O_DIRECTORY)
        try:
            target = _mkdir_or_readlink(here, name, mode)
        finally:
            os.close(here)
        if not target:
            done = f"{done}/{name}"
            continue
        links -= 1
        if links < 0:
            raise _failed("mkdirat", path, errno.ELOOP)
        todo = target.split("/") + todo
        if target.startswith("/"):
            done = ""
    return open_in_root(root_fd, done or "/", os.O_PATH | os.O_DIRECTORY)


def _mkdir_or_readlink(parent: int, name: str, mode: int) -> str | None:
    """Make directory ``name``: None; where that name is taken by a symbolic link, its target."""
    try:
        os.mkdir(name, mode, dir_fd=parent)
    except FileExistsError:
        try:
            return os.readlink(name, dir_fd=parent)
        except OSError:  # EINVAL: not a link; if it is no directory, opening it will say so
            return ""
    except OSError as error:
        raise _failed("mkdirat", name, error.errno) from None
    return None


def make_file(root_fd: int, path: str, mode: int = 0o644) -> int:
    """openat(2) with O_CREAT: an empty regular file at ``path`` if nothing is there, and parents.

    A last component that is a link to nothing is followed, inside the root: /etc/resolv.conf
    often is one, and a bind mount needs something to land on.  What is there already stays,
    whatever its kind.  Returns an O_PATH descriptor that the caller closes.  Raises KernelError.
    """
    for _ in range(MAX_LINKS):
        try:
            return open_in_root(root_fd, path, os.O_PATH)
        except KernelError as error:
            if error.errno != errno.ENOENT:
                raise
        directory, _slash, name = path.rpartition("/")
        if name in ("", ".", ".."):
            raise _failed("openat", path, errno.EISDIR)
        parent = make_directory(root_fd, directory)
        try:
            # O_EXCL follows no link and opens nothing that is there: not a FIFO, not a device.
            flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC
            os.close(os.open(name, flags, mode, dir_fd=parent))
        except FileExistsError:
            try:
                target = os.readlink(name, dir_fd=parent)
            except OSError:
                continue  # EINVAL: somebody else made it just now
            path = target if target.startswith("/") else f"{directory}/{target}"
        except OSError as error:
            raise _failed("openat", path, error.errno) from None
        finally:
            os.close(parent)
    raise _failed("openat", path, errno.ELOOP)


def read_small(root_fd: int, path: str, limit: int = 1 << 20) -> bytes:
    """read(2): the whole of a small regular file, such as the image's /etc/passwd.

    Opening can already do harm: a FIFO blocks, a tape rewinds, a watchdog starts to count, and
    an image may hold any of these under any name.  O_PATH opens nothing, it only finds; so look
    first.  Raises KernelError, or ImageError for what is not a regular file or has more than
    ``limit`` bytes.
    """
    found = open_in_root(root_fd, path, os.O_PATH)
    try:
        _must_be_regular(found, path)
    finally:
        os.close(found)
    fd = open_in_root(root_fd, path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        _must_be_regular(fd, path)  # again: it may have been swapped since
        content = b""
        while chunk := os.read(fd, 16384):  # more would cost a fresh page for every 4096 bytes
            content += chunk
            if len(content) > limit:
                raise ImageError(f"{path!r} in the container has more than {limit} bytes")
        return content
    finally:
        os.close(fd)


def _must_be_regular(fd: int, path: str) -> None:
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        raise ImageError(f"{path!r} in the container is not a regular file: it is not read")


def _failed(call: str, path: str, number: int | None) -> KernelError:
    """The KernelError for a call that Python made for us."""
    return KernelError(call, f'"{path}"', number or 0, _MEANING.get(number or 0, ""))
