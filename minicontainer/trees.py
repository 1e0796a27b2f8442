"""Removing a directory tree that a container could write to, without being led out of it.

Man pages: unlinkat(2), renameat(2), openat(2) on O_NOFOLLOW.
"""

from __future__ import annotations

import errno
import os


def remove_tree(path: str) -> None:
    """Remove a directory tree without following links; "already gone" is fine.

    Our own rather than shutil's: that import costs 8 ms, at the end of every container.  Names are
    opened relative to descriptors, so a tree that is being changed cannot lead us out of it."""
    parent_path, name = os.path.split(path)
    try:
        parent = os.open(parent_path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        if not _remove(parent, name):
            top = _open(parent, name)
            try:
                _empty(top)
            finally:
                os.close(top)
            os.rmdir(name, dir_fd=parent)
    except FileNotFoundError:
        # Somebody else is removing it as well, and was quicker: once more, with what is left.
        remove_tree(path)
    finally:
        os.close(parent)


def _empty(top: int) -> None:
    """Remove all that lies in a directory.

    A program can nest directories deeper than we have stack or descriptors.  So nothing here
    descends: what is not empty two levels down is renamed to one level down, and waits there."""
    todo = os.listdir(top)
    while todo:
        name = todo.pop()
        if _remove(top, name):
            continue
        directory = _open(top, name)
        try:
            for child in os.listdir(directory):
                if not _remove(directory, child):
                    todo.append(os.urandom(16).hex())  # a name that nobody can have prepared
                    os.rename(child, todo[-1], src_dir_fd=directory, dst_dir_fd=top)
        finally:
            os.close(directory)
        os.rmdir(name, dir_fd=top)


def _remove(parent: int, name: str) -> bool:
    """rmdir(2) or unlink(2); False: it is a directory with something in it."""
    try:
        os.rmdir(name, dir_fd=parent)
    except FileNotFoundError:
        pass
    except NotADirectoryError:
        os.unlink(name, dir_fd=parent)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        return False
    return True


def _open(parent: int, name: str) -> int:
    return os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
