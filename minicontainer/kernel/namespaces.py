"""Namespaces: the seven private tables that make a process feel alone on its machine.

A namespace is a table in the kernel, kept alive by the processes that use it.  Each kind answers
one question of a process: what mounts are there, what processes, what network links, what is the
host called?  A process belongs to exactly one namespace of each kind, normally its parent's.

    kind      flag              what becomes private                        since
    mount     CLONE_NEWNS       the tree of mounts: mount_namespaces(7)      2.4
    uts       CLONE_NEWUTS      host name and NIS domain: uts_namespaces(7)  2.6
    ipc       CLONE_NEWIPC      System V IPC, POSIX queues                   2.6
    pid       CLONE_NEWPID      process numbers; the first is 1              2.6
    network   CLONE_NEWNET      links, addresses, routes, ports, firewall    2.6
    user      CLONE_NEWUSER     user and group ids, capabilities             3.8
    cgroup    CLONE_NEWCGROUP   what /proc/self/cgroup calls the root        4.6
    time      CLONE_NEWTIME     offsets of the monotonic and boot clocks     5.6

By hand:   unshare --mount --uts --ipc --net --pid --fork --mount-proc sh
See it:    ls -l /proc/self/ns     (the number is the namespace's inode: same number, same table)
           lsns -p PID
"""

from __future__ import annotations

from minicontainer.nscalls import FLAGS, unshare
from minicontainer.step import CONTAINER, CloneStep, Context

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import ClassVar

# ---- vocabulary and verbs: in nscalls.py, and clone3(2) in clone.py

# ---- steps: the CLONE ones are not run; clone3(2) ORs their flags together


class NewMountNamespace(CloneStep):
    """A copy of the host's mount tree that is the container's to change.

    A *copy*: until the root is changed, every file of the host is still in sight."""

    name = "mount"
    flag = FLAGS["mount"]
    without = "every mount below would land on the host, and pivot_root would move the host's root"
    look = ("ns/mnt",)

    def title(self) -> str:
        """In a few words."""
        return "be born with a copy of the mount tree"

    def shell_prefix(self) -> str:
        """unshare(1)'s flags; left alone, it makes the mounts private too: step "private"."""
        return "unshare --mount --propagation unchanged"


class NewPidNamespace(CloneStep):
    """The child is process 1 of a numbering of its own, and cannot name the host's processes.

    What process 1 leaves undone no one does: it must reap orphans; when it ends, all end."""

    name = "pid"
    flag = FLAGS["pid"]
    without = "`ps` in the container lists the host's processes, and root there can kill them"
    look = ("ns/pid", "status:NSpid")

    def title(self) -> str:
        """In a few words."""
        return "be process 1 in a pid namespace"

    def shell_prefix(self) -> str:
        """unshare(1)'s flags: the namespace is for the child, so it must fork."""
        return "unshare --pid --fork --kill-child"


class NewUtsNamespace(CloneStep):
    """A host name of its own (UTS: the struct of uname(2), "Unix Time-sharing System")."""

    name = "uts"
    flag = FLAGS["uts"]
    without = "sethostname in the container renames the host"
    look = ("ns/uts",)

    def title(self) -> str:
        """In a few words."""
        return "be born with a host name of its own"

    def shell_prefix(self) -> str:
        """unshare(1)'s flag."""
        return "unshare --uts"


class NewIpcNamespace(CloneStep):
    """System V shared memory, semaphores, queues and POSIX message queues of its own."""

    name = "ipc"
    flag = FLAGS["ipc"]
    without = "`ipcs` shows the host's shared memory segments, and root can remove them"
    look = ("ns/ipc",)

    def title(self) -> str:
        """In a few words."""
        return "be born with System V IPC of its own"

    def shell_prefix(self) -> str:
        """unshare(1)'s flag."""
        return "unshare --ipc"


class UnshareIpcNamespace(NewIpcNamespace):
    """With a user namespace it is made by the container's own root: whoever makes it owns its
    message queues, and at the clone that would still be the host's root, a nobody inside."""

    side: ClassVar[str] = CONTAINER

    def title(self) -> str:
        """In a few words."""
        return "get System V IPC of its own"

    def run(self, context: Context) -> None:
        """unshare(2)."""
        unshare(self.flag)


class NewNetworkNamespace(CloneStep):
    """An empty network stack: one link, ``lo``, and that is down."""

    name = "network"
    flag = FLAGS["network"]
    without = "the container uses the host's links and ports, and its abstract sockets"
    look = ("ns/net",)

    def title(self) -> str:
        """In a few words."""
        return "be born with an empty network"

    def shell_prefix(self) -> str:
        """unshare(1)'s flag."""
        return "unshare --net"


class NewCgroupNamespace(CloneStep):
    """/proc/self/cgroup and a cgroup2 mount show the container's own cgroup as the root."""

    name = "cgroupns"
    flag = FLAGS["cgroup"]
    without = "the container sees its place in the host's cgroup tree, and the other containers"
    look = ("ns/cgroup",)

    def title(self) -> str:
        """In a few words."""
        return "be born at the root of the cgroup tree it sees"

    def shell_prefix(self) -> str:
        """unshare(1)'s flag."""
        return "unshare --cgroup"
