"""Overlay: a writable root for every container from read-only layers that all of them share.

overlayfs stacks directories.  Reading looks from the top down and stops at the first hit.  Writing
goes to the top one, the *upperdir*: a file that lies in a lower layer is first copied up whole.
Deleting a lower file leaves a *whiteout* in the upperdir: a character device 0:0 of that name.
So a hundred containers of one image share one copy of it, and what one writes is in its upperdir,
which is all that has to be removed when it ends.

Documentation/filesystems/overlayfs.rst, mount(8) "overlay".
By hand:   mkdir low up work all
           mount -t overlay overlay -o lowerdir=low,upperdir=up,workdir=work all
           rm all/x ; ls -l up/x        (c--------- 0, 0: a whiteout)
See it:    grep overlay /proc/self/mountinfo
"""

from __future__ import annotations

import errno
import os

from minicontainer.errors import KernelError
from minicontainer.mountcalls import hang, mount, mount_setattr, open_private_tree
from minicontainer.step import HOST, Context, Step, quote
from minicontainer.trees import remove_tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import ClassVar

# ---- vocabulary

# The options of one mount(2) must fit into a page; then the kernel cuts them off or says EINVAL.
PAGE = 4096

# ---- verbs


def escape(path: str) -> str:
    """A path as overlayfs wants it in lowerdir=: colon, comma and backslash need a backslash."""
    return path.replace("\\", "\\\\").replace(":", "\\:").replace(",", "\\,")


def overlay_options(lower: tuple[str, ...], upper: str, work: str, extra: str = "") -> str:
    """The data string of mount(2); ``lower`` is given lowest first, the kernel wants top first."""
    stack = ":".join(escape(path) for path in reversed(lower))
    return f"lowerdir={stack},upperdir={escape(upper)},workdir={escape(work)}{extra}"


# ---- steps


class MakeUpper(Step):
    """The container's own writable layer, empty, with the work directory the kernel needs beside
    it (on the same file system: copy-up ends in a rename), and the place to mount the stack on."""

    side: ClassVar[str] = HOST
    name = "rootfs"
    without = "there is no root file system to change to"

    directory: str
    owner: int = 0  # the host id that is root in the container: with a user namespace not 0
    layers: int = 0  # how many places for id-mapped layers to make

    def title(self) -> str:
        """In a few words."""
        return "make an empty upper directory"

    def shell(self) -> str:
        """mkdir(1); mkdir without -p insists that the directory is new."""
        here = quote(self.directory)
        places = ["upper", "work", "root", *(f"lower{index}" for index in range(self.layers))]
        lines = [
            f"mkdir -p {quote(os.path.dirname(self.directory))}",
            f"mkdir -m 700 {here}",
            "mkdir " + " ".join(f"{here}/{name}" for name in places),
            f"export ROOT={here}/root",
        ]
        if self.owner:
            lines.append(f"chown -R {self.owner}:{self.owner} {here}")
        return "\n".join(lines)

    def shell_undo(self) -> str:
        """rm(1)."""
        return f"rm -rf {quote(self.directory)}"

    def run(self, context: Context) -> None:
        """mkdir(2) a few times."""
        os.makedirs(os.path.dirname(self.directory), mode=0o711, exist_ok=True)
        os.mkdir(self.directory, 0o700)
        places = [f"lower{index}" for index in range(self.layers)]
        for name in ("upper", "work", "root", *places):
            path = os.path.join(self.directory, name)
            os.mkdir(path)
            # the upper one is "/" of the container: any user walks through, whatever our umask
            os.chmod(path, 0o755)
            if self.owner:
                os.chown(path, self.owner, self.owner)
        if self.owner:
            os.chown(self.directory, self.owner, self.owner)
            # The child will be an unprivileged id out here, which may not be allowed to walk down
            # to this directory by name: it gets it as a mount.
            context.fds["scratch"] = open_private_tree(self.directory)

    def undo(self, context: Context) -> None:
        """Remove what the container wrote."""
        remove_tree(self.directory)


class MapLayers(Step):
    """Layers on disk belong to root (0).  In a user namespace, root is another id, say 1000000.

    An id-mapped mount translates owners on the way through: the same files, owned by 1000000 when
    seen through this mount, and nothing on disk is changed.  Only the host may map a layer, with
    the child's user namespace as the dictionary: after the clone, and before the child's turn."""

    side: ClassVar[str] = HOST
    name = "rootfs"
    without = "every file of the image belongs to nobody (65534) in the container"

    layers: tuple[str, ...]

    def title(self) -> str:
        """In a few words."""
        return "map the layers' owners into the user namespace"

    def shell(self) -> str:
        """mount(8) since util-linux 2.39; older ones take X-mount.idmap for a comment."""
        lines = ['HERE=${ROOT%/root}; map="X-mount.idmap=/proc/$PID/ns/user"']
        for index, layer in enumerate(self.layers):
            place = f'{quote(layer)} "$HERE/lower{index}"'
            lines.append(f'mount --namespace "$PID" --bind -o "$map" {place}')
        lines.append('grep -q "$HERE/lower0 .*idmapped" "/proc/$PID/mountinfo" ||')
        lines.append('{ echo "mount(8) maps no owners before util-linux 2.39" >&2; exit 125; }')
        return "\n".join(lines)

    def run(self, context: Context) -> None:
        """open_tree(2) and mount_setattr(2) with MOUNT_ATTR_IDMAP; the child gets the trees."""
        userns = os.open(f"/proc/{context.pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
        try:
            for index, layer in enumerate(self.layers):
                tree = open_private_tree(layer)
                try:
                    mount_setattr(tree, 0x00100000, userns_fd=userns, recursive=False)
                    context.send_fd(f"lower{index}", tree)
                except KernelError as error:
                    error.hint = "use --userns host, or keep the images on ext4, xfs or btrfs"
                    raise
                finally:
                    os.close(tree)
        finally:
            os.close(userns)


class StackLayers(Step):
    """The layers below, the container's own upper directory on top: its root file system.

    "volatile" spares every sync to disk: right for a container that is removed when it ends."""

    name = "rootfs"
    without = "there is no root file system to change to"
    look: ClassVar[tuple[str, ...]] = ("mountinfo",)

    layers: tuple[str, ...]
    directory: str
    # in a user namespace: the layers come as id-mapped trees from the host, and overlay's own
    # marks live in user.* attributes, as trusted.* are for the real root
    mapped: bool = False
    volatile: bool = True

    def title(self) -> str:
        """In a few words."""
        count = len(self.layers)
        return f"stack {count} layer{'s' if count > 1 else ''} and the upper directory"

    def _options(self, lower: tuple[str, ...], directory: str) -> tuple[str, str]:
        """Where to stand ("": anywhere), and the data for mount(2), which has to be short."""
        extra = (",volatile" if self.volatile else "") + (",userxattr" if self.mapped else "")
        options = overlay_options(lower, directory + "upper", directory + "work", extra)
        if len(options) < PAGE:
            return "", options
        # Relative names are shorter: stand where the layers are.
        base = os.path.commonpath(lower)
        lower = tuple(os.path.relpath(path, base) for path in lower)
        return base, overlay_options(lower, directory + "upper", directory + "work", extra)

    def shell(self) -> str:
        """mount(8)."""
        lower, here = self.layers, self.directory + "/"
        if self.mapped:
            lower = tuple(f"{here}lower{index}" for index in range(len(self.layers)))
        base, options = self._options(lower, here)
        stand = f"cd {quote(base)}\n" if base else ""
        return f'{stand}mount -t overlay -o {quote(options)} overlay "$ROOT"'

    def run(self, context: Context) -> None:
        """mount(2) with type overlay; from here on fds["root"] is the new root."""
        lower, directory = self.layers, self.directory + "/"
        if self.mapped:
            # Hang everything on "/", where only this mount namespace sees it, and stand in it.
            hang(context.fds["scratch"], "/")
            os.fchdir(context.fds["scratch"])
            lower, directory = tuple(f"lower{i}" for i in range(len(self.layers))), ""
            for path in lower:
                hang(context.fds[path], path)
        base, options = self._options(lower, directory)
        os.chdir(base or ".")
        try:
            mount("overlay", directory + "root", "overlay", 0, options)
        except KernelError as error:
            if error.errno == errno.EINVAL:
                error.hint = (
                    "an upper directory cannot lie on an overlay, as inside a container: "
                    "set MINICONTAINER_ROOT to a directory on a volume or a tmpfs"
                )
            raise
        root = directory + "root"
        context.fds["root"] = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
