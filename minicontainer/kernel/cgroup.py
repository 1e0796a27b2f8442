"""The cgroup: a box around a set of processes, made by mkdir in a file system.

Namespaces say what a process may see, cgroups what it may use, and, as useful, *which processes
belong together*: whatever a container forks is born in its cgroup and cannot leave, so one write
to cgroup.kill ends them all.

    /sys/fs/cgroup                  the root of the tree: a cgroup2 file system
    ├── system.slice ...            somebody else's: systemd's
    └── minicontainer               ours; hands its controllers down, has no process of its own
        ├── 1f0c...                 a container: its processes are here, in a leaf
        │   ├── cgroup.procs        who is in it; writing a pid moves that process here
        │   ├── cgroup.events       "populated 1" while anyone lives here or below; poll(2) tells
        │   ├── cgroup.kill         write 1: all of them are killed, forks in flight as well
        │   └── memory.max, ...     what they may use together: limits.py
        └── 77ab...

A process is in one cgroup: it can be born there (clone3(2), CLONE_INTO_CGROUP) or be moved there
later; BeBornInCgroup says which is better, and why.  A limit on a cgroup holds for all below it.

Which kinds of limits there are below a cgroup, its cgroup.subtree_control says (controllers.py).
One that names any may have no processes of its own: the rule of "no internal processes".

Documentation/admin-guide/cgroup-v2.rst, cgroups(7).
By hand:   mkdir /sys/fs/cgroup/box ; echo $$ > /sys/fs/cgroup/box/cgroup.procs ; sleep 1 &
           cat /sys/fs/cgroup/box/cgroup.procs
           (on a hybrid machine the tree is in /sys/fs/cgroup/unified: findmnt -t cgroup2)
See it:    cat /proc/self/cgroup ; systemd-cgls
"""

from __future__ import annotations

import errno
import os
import select

from minicontainer.cgrouptree import home
from minicontainer.cgrouptree import mount_point as mount_point
from minicontainer.errors import KernelError
from minicontainer.step import HOST, CloneStep, Context, Step, quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import ClassVar

# ---- vocabulary

OURS = "minicontainer"  # the default parent, made and removed by us
_CLONE_INTO_CGROUP = 0x200000000

# ---- verbs


def kill_all(path: str) -> None:
    """SIGKILL every process in the cgroup and below: cgroup.kill (Linux 5.14)."""
    with open(path + "/cgroup.kill", "w") as file:
        file.write("1")


def wait_empty(path: str, milliseconds: int = 5000) -> bool:
    """Sleep until no process is left in the cgroup: cgroup.events tells by POLLPRI."""
    fd = os.open(path + "/cgroup.events", os.O_RDONLY | os.O_CLOEXEC)
    try:
        poll = select.poll()
        poll.register(fd, select.POLLPRI)
        while b"populated 1" in os.pread(fd, 4096, 0):
            if not poll.poll(milliseconds):
                return False
        return True
    finally:
        os.close(fd)


def make(path: str) -> None:
    """mkdir(2) of a cgroup, and of its parents.

    One that is there and empty will do (somebody has prepared it, or died).  Raises
    FileExistsError if it is in use."""
    while True:
        try:
            os.mkdir(path)
            return
        except FileExistsError:
            with open(path + "/cgroup.events") as file:
                if "populated 1" in file.read():
                    raise
            return
        except FileNotFoundError:
            pass  # no parent: not yet, or another container ended just now and took it along
        try:
            os.makedirs(os.path.dirname(path))
        except (FileExistsError, FileNotFoundError):
            continue  # another container made it, or took it, just now


def remove(path: str) -> None:
    """rmdir(2) of a cgroup and its children, killing what still lives there; gone is fine.

    A parent called after us goes with its last child."""
    _remove(path)
    parent = os.path.dirname(path)
    if os.path.basename(parent) == OURS:
        try:
            os.rmdir(parent)
        except OSError:
            return  # others still live there


def _remove(path: str) -> None:
    try:
        os.rmdir(path)
        return
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno not in (errno.EBUSY, errno.ENOTEMPTY):
            raise
    kill_all(path)
    wait_empty(path)
    for entry in os.scandir(path):  # a container may have made cgroups of its own
        if entry.is_dir(follow_symlinks=False):
            _remove(entry.path)
    os.rmdir(path)


# ---- steps


class MakeCgroup(Step):
    """A directory in the cgroup2 tree is a cgroup; the kernel fills it with files at once."""

    side: ClassVar[str] = HOST
    name = "cgroup"
    without = "the container's processes stay in the cgroup of the shell that started it"

    path: str  # below home(), such as /minicontainer/ID

    def title(self) -> str:
        """In a few words."""
        return f"make the cgroup {self.path}"

    def shell(self) -> str:
        """findmnt(8), mkdir(1)."""
        return (
            "CGROUP=$(findmnt --noheadings --first-only --types cgroup2 --output TARGET)\n"
            f'export CGROUP="${{CGROUP:?no cgroup2 file system is mounted}}"{quote(self.path)}\n'
            'mkdir -p "${CGROUP%/*}"; mkdir "$CGROUP"'
        )

    def shell_undo(self) -> str:
        """cgroup.kill, then rmdir(1), which has to wait for the killed to be gone."""
        ours = os.path.basename(os.path.dirname(self.path)) == OURS
        return (
            'echo 1 > "$CGROUP/cgroup.kill"\n'
            "for i in 1 2 3 4 5 6 7 8 9; do\n"
            '  find "$CGROUP" -depth -type d -exec rmdir {} \\; 2> /dev/null\n'
            '  [ -d "$CGROUP" ] || break; sleep 0.1\n'
            "done" + ('\nrmdir "${CGROUP%/*}" 2> /dev/null' if ours else "")
        )

    def run(self, context: Context) -> None:
        """mkdir(2), and a descriptor for the clone."""
        base = home()
        if not base:
            context.warn("no cgroup2 file system is mounted: the container gets no cgroup")
            return
        directory = base + self.path
        try:
            make(directory)
            context.cgroup_fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
                context.warn(
                    f"the cgroup tree at {base} is not ours to write ({error.strerror}): "
                    "the container gets no cgroup of its own"
                )
                return
            raise KernelError(
                "mkdir", f'"{directory}"', error.errno or 0,
                {errno.EAGAIN: "cgroup.max.descendants or cgroup.max.depth is reached",
                 errno.EEXIST: "another container lives in this cgroup"}.get(error.errno or 0, ""),
            ) from error  # fmt: skip

    def undo(self, context: Context) -> None:
        """rmdir(2), what is still alive in it killed first; and of the parents we made."""
        if context.cgroup_fd >= 0:
            directory = os.readlink(f"/proc/self/fd/{context.cgroup_fd}")
            os.close(context.cgroup_fd)
            context.cgroup_fd = -1
            remove(directory.removesuffix(" (deleted)"))


class BeBornInCgroup(CloneStep):
    """The child starts life inside its cgroup: all it ever uses is counted, and there is no moment
    in which it could fork outside.

    The other way, for a shell or before Linux 5.7: the child waits, someone writes its pid to
    cgroup.procs, and then it goes on to exec.  What it forked before stays where it was, what it
    allocated stays on the other's account, and moving takes a lock that all of the machine's forks
    wait for."""

    name = "cgroup"
    flag = _CLONE_INTO_CGROUP
    without = "the container's processes stay in the cgroup of the shell that started it"
    look = ("cgroup",)

    def title(self) -> str:
        """In a few words."""
        return "be born in that cgroup"

    def wish(self, context: Context) -> int:
        """The flag, unless there is no cgroup to be born in."""
        return self.flag if context.cgroup_fd >= 0 else 0

    def shell(self) -> str:
        """echo; to the kernel, 0 is whoever writes it: the shell joins, and then unshares."""
        return 'echo 0 > "$CGROUP/cgroup.procs"'
