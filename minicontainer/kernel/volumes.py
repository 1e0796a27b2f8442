"""Volumes: a directory or file of the host that is also in the container, by bind mount.

A bind mount is a second mount of the same files: nothing is copied, both sides see every change.
The order matters twice:

* The host opens the source *before* the clone, with the host's own eyes: open_tree(2) gives a
  detached copy of the mount.  "read-only" is set on the copy while it hangs nowhere, so there is
  no moment at which the container could write to it.
* The container hangs the copy on a place that openat2(2) found inside its root.  Both ends are
  descriptors: no path is walked that a hostile image or a neighbour could swap (CVE-2021-30465).

By hand:   mount --bind /srv/data /mnt && mount -o remount,bind,ro /mnt
See it:    grep /data /proc/self/mountinfo      (field 4 is the directory inside the file system)
"""

from __future__ import annotations

import os
import stat

from minicontainer import safepath
from minicontainer.errors import UsageError
from minicontainer.mountcalls import (
    MS_REC,
    PROPAGATION,
    RECURSIVE,
    attribute_changes,
    check_proc_place,
    is_procfs,
    mount_setattr,
    move_mount,
    open_tree,
    parse_options,
    real_directory,
)
from minicontainer.step import HOST, Context, Step, quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import ClassVar

# ---- verbs and vocabulary: in mountcalls.py (open_tree, mount_setattr, move_mount)

# ---- steps


class OpenVolume(Step):
    """Take a detached copy of the source's mount, with its flags, while we still see the host.

    Here a missing source is found, before anything exists that would have to be taken back."""

    side: ClassVar[str] = HOST
    without = "the container sees an empty directory where the host's files should be"

    source: str
    destination: str
    options: tuple[str, ...] = ()
    propagation: str = "rprivate"  # where the options name none

    @property
    def name(self) -> str:  # type: ignore[override]
        """The word for --without: the destination, shared with AttachVolume."""
        return self.destination

    def title(self) -> str:
        """In a few words."""
        return f"open {self.source} for {self.destination}"

    def shell(self) -> str:
        """ls(1): is it there?  The copy and its place come in one command of mount(8), later."""
        return f"ls -d {quote(self.source)} > /dev/null"

    def run(self, context: Context) -> None:
        """open_tree(2), then mount_setattr(2) on the detached copy."""
        if not os.path.lexists(self.source):
            raise UsageError(
                f"bind source path does not exist: {self.source}",
                "make it first, or use -v, which makes a missing directory",
            )
        tree = open_tree(self.source, recursive="rbind" in self.options)
        context.fds["volume:" + self.destination] = tree
        below = tuple([RECURSIVE[word] for word in self.options if word in RECURSIVE])
        here = tuple([word for word in self.options if word not in RECURSIVE])
        for words, recursive in ((here, False), (below, True)):
            set_, clear = attribute_changes(words)
            if set_ or clear:
                mount_setattr(tree, set_, clear, recursive=recursive)
        # A copy is a peer of its original: where that is shared, mounts made below it in the
        # container would show up on the host.
        _, _, propagation, _ = parse_options(here)
        propagation = propagation or PROPAGATION[self.propagation]
        mount_setattr(tree, propagation=propagation & ~MS_REC, recursive=True)

    def undo(self, context: Context) -> None:
        """Close our end: a detached copy that hangs nowhere disappears with its descriptor."""
        fd = context.fds.pop("volume:" + self.destination, -1)
        if fd >= 0:
            os.close(fd)


class AttachVolume(Step):
    """Hang the copy into the container's root; a missing place is made there first."""

    without = "the container sees an empty directory where the host's files should be"
    look: ClassVar[tuple[str, ...]] = ("mountinfo",)

    source: str
    destination: str
    options: tuple[str, ...] = ()

    @property
    def name(self) -> str:  # type: ignore[override]
        """The word for --without: the destination, shared with OpenVolume."""
        return self.destination

    def title(self) -> str:
        """In a few words."""
        return f"bind {self.source} to {self.destination}"

    def shell(self) -> str:
        """mkdir(1) or touch(1), mount(8); flags come in a second step, and mount by mount."""
        source, place = quote(self.source), f'"$ROOT"{quote(self.destination)}'
        parent = f'"$ROOT"{quote(os.path.dirname(self.destination))}'
        lines = [
            f"if [ -d {source} ]; then mkdir -p {place}",
            f"else mkdir -p {parent}; [ -e {place} ] || touch {place}; fi",
            f"mount --{'rbind' if 'rbind' in self.options else 'bind'} {source} {place}",
        ]
        ours = (*RECURSIVE, *PROPAGATION, "bind", "rbind")
        if here := ",".join(word for word in self.options if word not in ours):
            lines.append(f"mount -o {quote('remount,bind,' + here)} {place}")
        if below := ",".join(RECURSIVE[word] for word in self.options if word in RECURSIVE):
            lines += [
                f"findmnt --raw --noheadings --submounts --output TARGET {place} |",
                f'while read -r m; do mount -o remount,bind,{below} "$(printf %b "$m")"; done',
            ]
        return "\n".join(lines)

    def run(self, context: Context) -> None:
        """openat2(2) for the place, move_mount(2) to hang it."""
        tree = context.fds["volume:" + self.destination]
        root = context.fds["root"]
        real_directory(root, self.destination)
        make = (
            safepath.make_directory if stat.S_ISDIR(os.fstat(tree).st_mode) else safepath.make_file
        )
        place = make(root, self.destination)
        try:
            check_proc_place(root, place, self.destination, is_procfs(tree))
            move_mount(tree, place, self.destination)
        finally:
            os.close(place)


class BindRoot(Step):
    """An OCI bundle's root is one directory, used as it is: no copy on write.

    pivot_root(2) wants a mount point, so the directory is bind-mounted on itself."""

    name = "rootfs"
    without = "pivot_root answers EINVAL: the new root must be a mount point"

    path: str

    def title(self) -> str:
        """In a few words."""
        return f"use {self.path} as the root file system"

    def shell(self) -> str:
        """mount(8)."""
        return f'ROOT={quote(self.path)}\nmount --rbind "$ROOT" "$ROOT"'

    def run(self, context: Context) -> None:
        """open_tree(2) and move_mount(2) of the directory on itself."""
        try:
            place = os.open(self.path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except PermissionError:
            raise UsageError(
                f"the container's root may not enter {self.path}",
                "in a user namespace it is an ordinary user of the host: give every directory on "
                "the way the x bit (chmod o+x)",
            ) from None
        tree = open_tree(self.path)
        move_mount(tree, place, self.path)
        os.close(place)
        os.close(tree)
        context.fds["root"] = os.open(self.path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
