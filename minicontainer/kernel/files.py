"""The three small files of /etc that belong to the container, not to the image.

/etc/hosts, /etc/hostname and /etc/resolv.conf depend on the host name and the network, which the
maker of the image could not know.  Each is written beside the container and bind-mounted over the
image's, so the image's layers stay as they are, and a read-only root does not matter.

Man pages: hosts(5), hostname(5), resolv.conf(5), mount(2) on MS_BIND.
By hand:   echo 127.0.0.1 localhost > hosts ; mount --bind hosts $ROOT/etc/hosts
See it:    grep /etc/ /proc/self/mountinfo
"""

from __future__ import annotations

import os

from minicontainer import safepath
from minicontainer.mountcalls import check_proc_place, move_mount, open_tree
from minicontainer.step import Context, Step, quote

# ---- steps


class ProvideFiles(Step):
    """Write the files where the container's upper directory lies, and bind each to its place."""

    name = "etc"
    without = "the container's host name is not in its /etc/hosts, and names are not resolved"

    directory: str
    files: tuple[tuple[str, str, int], ...]  # destination, content, mode

    def title(self) -> str:
        """In a few words."""
        return "provide " + ", ".join(destination for destination, _, _ in self.files)

    def shell(self) -> str:
        """printf, touch(1), mount(8)."""
        lines = []
        for index, (destination, content, mode) in enumerate(self.files):
            file, place = quote(f"{self.directory}/etc{index}"), f'"$ROOT"{quote(destination)}'
            parent = f'"$ROOT"{quote(os.path.dirname(destination))}'
            lines += [
                f"printf %s {quote(content)} > {file}",
                f"chmod {mode:o} {file}",
                f"[ -e {place} ] || {{ mkdir -p {parent}; touch {place}; }}",
                f"mount --bind {file} {place}",
            ]
        return "\n".join(lines)

    def run(self, context: Context) -> None:
        """open(2), write(2); then open_tree(2) and move_mount(2)."""
        flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
        # In a user namespace the directory came as a mount: its name may be out of our reach.
        scratch = context.fds.get("scratch", -1)
        here = os.dup(scratch) if scratch >= 0 else os.open(self.directory, flags)
        for index, (destination, content, mode) in enumerate(self.files):
            name = f"etc{index}"
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            fd = os.open(name, flags, mode, dir_fd=here)
            os.write(fd, content.encode())
            os.fchmod(fd, mode)
            os.close(fd)
            tree = open_tree(name, recursive=False, dir_fd=here)
            place = safepath.make_file(context.fds["root"], destination)
            check_proc_place(context.fds["root"], place, destination, procfs=False)
            move_mount(tree, place, destination)
            os.close(place)
            os.close(tree)
        os.close(here)
