"""Mounts: which tree of files hangs where, and who hears about changes.

A mount joins (file system, directory in it) to a place in the tree.  The tree belongs to the mount
namespace.  Two things about it surprise everyone once:

* A new mount namespace is a *copy*.  It starts with all the host's mounts in it.
* Copies keep talking.  A "shared" mount tells its copies (its peer group) about every mount made
  below it.  systemd makes "/" shared, so a tmpfs mounted in a fresh namespace shows up on the host
  until propagation is cut: mount_namespaces(7), "SHARED SUBTREES".

Man pages: mount(2), mount(8), mount_setattr(2), open_tree(2), move_mount(2).
By hand:   mount --make-rprivate /  ;  mount -t tmpfs -o size=64k,ro tmpfs /mnt
See it:    cat /proc/self/mountinfo      ("shared:1" is a peer group, "master:1" a slave of it)
"""

from __future__ import annotations

import os
import stat

from minicontainer import safepath
from minicontainer.errors import KernelError
from minicontainer.mountcalls import (
    MS_RDONLY,
    PROPAGATION,
    RECURSIVE,
    check_proc_place,
    mount,
    mount_setattr,
    parse_options,
    real_directory,
)
from minicontainer.step import Context, Step, quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import ClassVar

# ---- vocabulary: linux/mount.h

_MOUNT_ATTR_RDONLY = 1

# ---- verbs
# mount(2) and its relatives are in mountcalls.py: five kernel files share them.


def make_readonly(path: str) -> None:
    """Add "read-only" to the mount at ``path`` and leave its other flags: mount_setattr(2)."""
    fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        mount_setattr(fd, _MOUNT_ATTR_RDONLY, recursive=False)
    finally:
        os.close(fd)


# ---- steps


class MakeMountsPrivate(Step):
    """A new mount namespace starts as a copy whose mounts still talk to the host's.

    Cut that first: otherwise every mount below would show on the host, where "/" is shared."""

    name = "private"
    without = "where / is shared, as on every systemd machine, our mounts appear on the host"
    look = ("mountinfo:1",)

    propagation: str = "rprivate"

    def title(self) -> str:
        """In a few words."""
        return f"make all mounts {self.propagation}"

    def shell(self) -> str:
        """mount(8)."""
        return f"mount --make-{self.propagation} /"

    def run(self, context: Context) -> None:
        """One mount(2) that only changes propagation."""
        mount(None, "/", None, PROPAGATION[self.propagation])


class MountFilesystem(Step):
    """A fresh file system of a kind that has no disk behind it: proc, sysfs, tmpfs, devpts, ...

    The place is looked up inside the container's root (openat2(2), RESOLVE_IN_ROOT) and mounted on
    by standing in it, so that no symbolic link in the image can lead the mount elsewhere."""

    destination: str
    fstype: str
    source: str
    options: tuple[str, ...] = ()

    @property
    def name(self) -> str:  # type: ignore[override]
        """The word for --without: its destination."""
        return self.destination

    without = "programs that expect this file system in the container fail"
    look: ClassVar[tuple[str, ...]] = ("mountinfo",)

    def title(self) -> str:
        """In a few words."""
        return f"mount {self.fstype} on {self.destination}"

    def shell(self) -> str:
        """mkdir(1), mount(8)."""
        place = f'"$ROOT"{quote(self.destination)}'
        words = [RECURSIVE.get(word, word) for word in self.options]
        lines, mode = [f"mkdir -p {place}"], ""
        if self.fstype == "tmpfs":
            words = [word for word in words if word != "ro"]  # MakeReadonly
            if not any(word.startswith("mode=") for word in words):
                lines.insert(0, f"mode=$(stat -c %a {place} || echo 1777)")
                mode = ",mode=$mode"
        options = quote(",".join(words or ["defaults"])) + mode
        source = quote(self.source)
        return "\n".join((*lines, f"mount -t {quote(self.fstype)} -o {options} {source} {place}"))

    def run(self, context: Context) -> None:
        """mount(2), on the directory we stand in."""
        words = tuple([RECURSIVE.get(word, word) for word in self.options])
        flags, _, propagation, data = parse_options(words)
        if self.fstype == "tmpfs":
            flags &= ~MS_RDONLY  # other things are still to be put into it: MakeReadonly
        root = context.fds["root"]
        real_directory(root, self.destination)
        place, mode = self._place(root)
        if self.fstype == "tmpfs" and mode and not any(w.startswith("mode=") for w in words):
            data += f"{',' if data else ''}mode={mode:o}"
        try:
            check_proc_place(root, place, self.destination, self.fstype == "proc")
            os.fchdir(place)
            mount(self.source, ".", self.fstype, flags, data)
        finally:
            os.close(place)
        if propagation:
            place = safepath.open_in_root(root, self.destination, os.O_PATH | os.O_DIRECTORY)
            os.fchdir(place)
            os.close(place)
            mount(None, ".", None, propagation)

    def _place(self, root: int) -> tuple[int, int]:
        """The directory to mount on, and its mode if it was there already (else 0)."""
        try:
            flags = os.O_PATH | os.O_DIRECTORY
            place = safepath.open_in_root(root, self.destination, flags)
        except KernelError:
            return safepath.make_directory(root, self.destination), 0
        return place, stat.S_IMODE(os.fstat(place).st_mode)


class MakeReadonly(Step):
    """A tmpfs that is to be read-only, once all is in it: /dev had to get its nodes first."""

    name = "readonly-tmpfs"
    without = "the program may write to a tmpfs that it should only read"

    paths: tuple[str, ...]

    def title(self) -> str:
        """In a few words."""
        return "make " + ", ".join(self.paths) + " read-only"

    def shell(self) -> str:
        """mount(8)."""
        return "\n".join(f"mount -o remount,bind,ro {quote(path)}" for path in self.paths)

    def run(self, context: Context) -> None:
        """mount_setattr(2) for each."""
        for path in self.paths:
            make_readonly(path)


class RemountRootReadonly(Step):
    """docker's --read-only: the container's own root refuses writes; mounts on it are untouched.

    Per mount, not per file system: the same layers stay writable elsewhere."""

    name = "readonly-root"
    without = "the program may change its own root file system"

    def title(self) -> str:
        """In a few words."""
        return "make the root read-only"

    def shell(self) -> str:
        """mount(8)."""
        return "mount -o remount,bind,ro /"

    def run(self, context: Context) -> None:
        """mount_setattr(2): change this mount's flags only."""
        make_readonly("/")


class SetRootPropagation(Step):
    """OCI's linux.rootfsPropagation, applied to the new root once it is "/"."""

    name = "root-propagation"
    without = "mounts do not propagate between the container's root and its peers"

    propagation: str

    def title(self) -> str:
        """In a few words."""
        return f"make the root {self.propagation}"

    def shell(self) -> str:
        """mount(8)."""
        return f"mount --make-{self.propagation} /"

    def run(self, context: Context) -> None:
        """One mount(2) that only changes propagation."""
        mount(None, "/", None, PROPAGATION[self.propagation])
