"""The user namespace: root inside, nobody in particular outside.

In a user namespace ids are translated.  A map says "ids 0 to 65535 in here are 1000000 to 1065535
out there"; a process with uid 0 inside has all capabilities *over what the namespace owns* (its
mounts, its network) and none over the host, where it is an ordinary unprivileged id.  Of all walls
this one stops the most escapes.

The child cannot write its own map (only one id, its own): the kernel wants CAP_SETUID *outside*.
So the host writes it, while the child waits for its turn.  Until then the child is 65534, "nobody".

Man page: user_namespaces(7), "User and group ID mappings".
By hand:   unshare --user --map-users=1000000,0,65536 --map-groups=1000000,0,65536 sh
See it:    cat /proc/PID/uid_map ; ps -o uid,cmd -p PID
"""

from __future__ import annotations

import errno
import os

from minicontainer.errors import KernelError
from minicontainer.idcalls import become
from minicontainer.step import HOST, CloneStep, Context, Step, quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import ClassVar

# ---- vocabulary

# inside, outside, how many
Range = tuple[int, int, int]
_CLONE_NEWUSER = 0x10000000

# ---- verbs


def write_map(pid: int, file: str, ranges: tuple[Range, ...]) -> None:
    """Write /proc/PID/uid_map or gid_map, all lines in one write(2), which may happen once."""
    text = "".join(f"{inside} {outside} {size}\n" for inside, outside, size in ranges)
    path = f"/proc/{pid}/{file}"
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    except OSError as error:
        raise KernelError(
            "write", f'"{path}", "{text.strip()}"', error.errno or 0,
            {
                errno.EINVAL: "ranges overlap, are empty, or there are more than 340",
                errno.EPERM: "the writer needs CAP_SETUID (CAP_SETGID) in the outer namespace, "
                "and the map may be written once only",
            }.get(error.errno or 0, ""),
        ) from error  # fmt: skip
    finally:
        os.close(fd)


def outside_id(ranges: tuple[Range, ...], inside: int) -> int:
    """What an id of the namespace is on the host; -1 where the map does not say."""
    for first, host, size in ranges:
        if first <= inside < first + size:
            return host + inside - first
    return -1


# ---- steps


class NewUserNamespace(CloneStep):
    """Ids and capabilities of its own.  clone3 makes this one first, so that it *owns* all the
    other new namespaces: the container's root may mount and route in them, and only there."""

    name = "user"
    flag = _CLONE_NEWUSER
    without = "root in the container is root on the host, held back only by the other walls"
    look = ("ns/user", "uid_map")

    def title(self) -> str:
        """In a few words."""
        return "be born in a user namespace"

    def shell_prefix(self) -> str:
        """unshare(1)'s flags; "nobody" would lose its new capabilities with the next execve(2)."""
        return "unshare --user --keep-caps"


class WriteIdMaps(Step):
    """The dictionary between inside and outside, written by the host before it
    gives the child its turn."""

    side: ClassVar[str] = HOST
    name = "user"
    without = "every id in the container is 65534 (nobody), and it cannot become root"
    look = ("uid_map", "gid_map")

    uids: tuple[Range, ...]
    gids: tuple[Range, ...]

    def title(self) -> str:
        """In a few words."""
        return f"map root in the container to id {outside_id(self.uids, 0)} on the host"

    def shell(self) -> str:
        """echo; who is not root asks newuidmap(1) to do it."""
        uids = "\n".join(f"{inside} {outside} {size}" for inside, outside, size in self.uids)
        gids = "\n".join(f"{inside} {outside} {size}" for inside, outside, size in self.gids)
        return f"echo {quote(uids)} > /proc/$PID/uid_map\necho {quote(gids)} > /proc/$PID/gid_map"

    def run(self, context: Context) -> None:
        """Two files in /proc."""
        write_map(context.pid, "uid_map", self.uids)
        write_map(context.pid, "gid_map", self.gids)


class GivePipes(Step):
    """A pipe belongs to whoever made it: here the host's root, a nobody in the container.

    Its program could use the pipe but not open it again, as `echo > /dev/stderr` does.  Only
    pipes without a name are given away: they will not be there any more when the container is."""

    side: ClassVar[str] = HOST
    name = "user"
    without = "`echo > /dev/stderr` in the container: Permission denied"
    look = ("fd/1",)

    fds: tuple[int, ...]
    uid: int
    gid: int

    def title(self) -> str:
        """In a few words."""
        return "give the pipes of standard input, output and error to the container's root"

    def shell(self) -> str:
        """chown(1)."""
        return (
            'for fd in "/proc/$PID/fd/0" "/proc/$PID/fd/1" "/proc/$PID/fd/2"; do\n'
            f'  case $(readlink "$fd") in pipe:*) chown {self.uid}:{self.gid} "$fd" ;; esac\n'
            "done"
        )

    def run(self, context: Context) -> None:
        """fchown(2)."""
        for fd in self.fds:
            if fd >= 0 and os.readlink(f"/proc/self/fd/{fd}").startswith("pipe:"):
                os.fchown(fd, self.uid, self.gid)


class BecomeRoot(Step):
    """The map exists now; the process itself is still "nobody" until it takes id 0 inside.

    Groups first: without CAP_SETGID, which the change of uid could cost, they would stay."""

    name = "user"
    without = "the container's first process is nobody (65534) and owns nothing it makes"
    look = ("status:Uid", "status:Gid")

    def title(self) -> str:
        """In a few words."""
        return "become root in the user namespace"

    def shell_prefix(self) -> str:
        """setpriv(1)."""
        return "setpriv --reuid 0 --regid 0 --clear-groups"

    def run(self, context: Context) -> None:
        """setgroups(2), setresgid(2), setresuid(2)."""
        become(0, 0, ())
