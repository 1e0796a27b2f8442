"""Devices: a /dev with six harmless nodes, and none of the host's disks.

A device node is a file whose inode says "character or block, major, minor": opening it opens the
driver.  Whoever can make one (mknod(2), CAP_MKNOD) or finds one can talk to the hardware.  So a
container gets a tmpfs as /dev with only these: null, zero, full, random, urandom, tty.

In a user namespace mknod(2) of a device answers EPERM, whatever the capabilities: there the host's
own nodes are bind-mounted one by one.

By hand:   mount -t tmpfs -o mode=755 tmpfs dev && mknod -m 666 dev/null c 1 3
           ln -s /proc/self/fd dev/fd && ln -s pts/ptmx dev/ptmx
See it:    ls -l /dev     (the two numbers where a size would be: major, minor)
"""

from __future__ import annotations

import errno
import os
import stat

from minicontainer import safepath
from minicontainer.errors import KernelError, UsageError
from minicontainer.mountcalls import move_mount, open_tree
from minicontainer.step import Context, Step, quote

# ---- vocabulary: Documentation/admin-guide/devices.txt

# path, type, major, minor, mode, uid, gid
Node = tuple[str, str, int, int, int, int, int]

STANDARD: tuple[Node, ...] = (
    ("/dev/null", "c", 1, 3, 0o666, 0, 0),
    ("/dev/zero", "c", 1, 5, 0o666, 0, 0),
    ("/dev/full", "c", 1, 7, 0o666, 0, 0),
    ("/dev/random", "c", 1, 8, 0o666, 0, 0),
    ("/dev/urandom", "c", 1, 9, 0o666, 0, 0),
    ("/dev/tty", "c", 5, 0, 0o666, 0, 0),
)

LINKS = (
    ("/proc/self/fd", "fd"), ("/proc/self/fd/0", "stdin"), ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"), ("pts/ptmx", "ptmx"),
)  # fmt: skip

_TYPES = {"c": stat.S_IFCHR, "u": stat.S_IFCHR, "b": stat.S_IFBLK, "p": stat.S_IFIFO}

SHELL_LINKS = (
    *(f'ln -s {target} "$ROOT"/dev/{name}' for target, name in LINKS),
    'if [ -e /proc/kcore ]; then ln -s /proc/kcore "$ROOT"/dev/core; fi',
)

# ---- verbs


def mknod(directory_fd: int, name: str, node: Node) -> None:
    """Make one device node, with exactly this mode and owner: mknod(2), chown(2), chmod(2).

    One that is there already is kept if it is this very device (a bundle's own /dev)."""
    path, kind, major, minor, mode, uid, gid = node
    device = os.makedev(major, minor)
    try:
        os.mknod(name, _TYPES[kind] | mode, device, dir_fd=directory_fd)
    except OSError as error:
        if error.errno == errno.EEXIST:
            found = os.stat(name, dir_fd=directory_fd, follow_symlinks=False)
            if (stat.S_IFMT(found.st_mode), found.st_rdev) == (_TYPES[kind], device):
                return
        raise KernelError(
            "mknod", f'"{path}", {kind}, {major}:{minor}', error.errno or 0,
            {
                errno.EPERM: "CAP_MKNOD in the host's user namespace is needed to make devices",
                errno.EEXIST: "the image, a volume or another --device is already there",
            }.get(error.errno or 0, ""),
        ) from error  # fmt: skip
    if uid or gid:
        os.chown(name, uid, gid, dir_fd=directory_fd)
    os.chmod(name, mode, dir_fd=directory_fd)  # mknod's mode went through the umask


def shell_parent(path: str) -> list[str]:
    """mkdir(1) for a node that is not in /dev itself, such as /dev/net/tun."""
    parent = os.path.dirname(path)
    return [] if parent == "/dev" else [f'mkdir -p "$ROOT"{quote(parent)}']


# ---- steps


class MakeDevices(Step):
    """The nodes every program takes for granted, and the links that make /dev/stdin work."""

    name = "devices"
    without = "`> /dev/null` in the container makes an ordinary file, and /dev/urandom is missing"

    nodes: tuple[Node, ...] = STANDARD

    def title(self) -> str:
        """In a few words."""
        return f"make {len(self.nodes)} device nodes in /dev"

    def shell(self) -> str:
        """mknod(1), ln(1)."""
        lines = []
        for path, kind, major, minor, mode, uid, gid in self.nodes:
            place = f'"$ROOT"{quote(path)}'
            numbers = "" if kind == "p" else f" {major} {minor}"
            lines += shell_parent(path)
            lines.append(f"mknod -m {mode:o} {place} {quote(kind)}{numbers}")
            if uid or gid:
                lines.append(f"chown {uid}:{gid} {place}")
        return "\n".join((*lines, *SHELL_LINKS))

    def run(self, context: Context) -> None:
        """mknod(2) and symlink(2) in the container's /dev."""
        root = context.fds["root"]
        parents: dict[str, int] = {}
        try:
            for node in self.nodes:
                parent, name = os.path.split(node[0])
                if parent not in parents:
                    parents[parent] = safepath.make_directory(root, parent)
                mknod(parents[parent], name, node)
        finally:
            for directory in parents.values():
                os.close(directory)
        link_standard(root)


class BindDevices(Step):
    """In a user namespace the kernel refuses mknod: the host's own nodes are mounted instead."""

    name = "devices"
    without = "`> /dev/null` in the container makes an ordinary file, and /dev/urandom is missing"

    nodes: tuple[Node, ...] = STANDARD

    def title(self) -> str:
        """In a few words."""
        return f"bind {len(self.nodes)} of the host's device nodes into /dev"

    def shell(self) -> str:
        """touch(1), mount(8), ln(1)."""
        lines = []
        for path, *_ in self.nodes:
            place = f'"$ROOT"{quote(path)}'
            lines += [*shell_parent(path), f"touch {place}; mount --bind {quote(path)} {place}"]
        return "\n".join((*lines, *SHELL_LINKS))

    def run(self, context: Context) -> None:
        """open_tree(2) of the host's node, checked, move_mount(2) over an empty file."""
        root = context.fds["root"]
        for node in self.nodes:
            tree = open_tree(node[0], recursive=False)
            status = os.fstat(tree)
            found = (os.major(status.st_rdev), os.minor(status.st_rdev))
            if found != (node[2], node[3]):
                raise UsageError(f"{node[0]} of this host is not device {node[2]}:{node[3]}")
            place = safepath.make_file(root, node[0])
            move_mount(tree, place, node[0])
            os.close(place)
            os.close(tree)
        link_standard(root)


def link_standard(root_fd: int) -> None:
    """The links of the OCI specification (config-linux.md, "Default Devices")."""
    links = [*LINKS]
    if os.path.exists("/proc/kcore"):  # not every kernel has it; where it is, it is masked
        links.append(("/proc/kcore", "core"))
    directory = safepath.make_directory(root_fd, "/dev")
    try:
        for target, name in links:
            try:
                os.symlink(target, name, dir_fd=directory)
            except FileExistsError:
                continue  # a bundle may bring a /dev of its own
    finally:
        os.close(directory)
