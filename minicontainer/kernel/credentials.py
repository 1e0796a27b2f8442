"""Credentials: which user the program is, by the container's own /etc/passwd.

The kernel knows numbers only.  Names live in files, and the files that count are the image's: a
"postgres" of the host is someone else.  They are read once our root is the image, as data: a
regular file, of bounded size, opened without blocking (CVE-2024-9676), by no C library function
(which would load plug-ins from the image).  A name that is not there is an error, never root.

The order is the kernel's: groups, then gid, then uid, for after the uid the right to change the
others is gone.  setresuid(2) away from 0 also empties the capability sets, unless "keep
capabilities" is set (capabilities(7), PR_SET_KEEPCAPS).

By hand:   setpriv --reuid 70 --regid 70 --init-groups sh ;  capsh --user=postgres --
See it:    grep -E 'Uid|Gid|Groups' /proc/self/status
"""

from __future__ import annotations

import os
import stat

from minicontainer import safepath
from minicontainer.errors import KernelError, MinicontainerError, UsageError
from minicontainer.idcalls import become
from minicontainer.libc import C, check
from minicontainer.step import Context, Step, quote

# ---- vocabulary

_PR_SET_KEEPCAPS = 8
MAX_ID = 0xFFFFFFFE  # 2**32 - 1 means "leave as it is" to the kernel

# What look_up does, for sh(1): who $wanted is, the groups that list $login, the number of a group
SHELL_USER = """\
[ ! -f /etc/passwd ] || while IFS=: read -r name _ u g _ home _ || [ "$name" ]; do
  case $u$g in *[!0-9]* | "") continue ;; esac
  if [ "$name" = "$wanted" ] || [ "$u" = "$wanted" ]; then
    login=$name uid=$u gid=$g HOME=${home:-/}; break
  fi
done < /etc/passwd
: ${uid:?no such user in the image}"""
SHELL_GROUPS = """\
[ ! "$login" ] || [ ! -f /etc/group ] || while IFS=: read -r name _ g members || [ "$name" ]; do
  case $g in *[!0-9]* | "") continue ;; esac
  case ,$members, in *",$login,"*) groups=$groups,$g ;; esac
done < /etc/group"""
SHELL_STDIO = """\
for fd in 0 1 2; do [ ! -p /proc/self/fd/$fd ] || chown "$uid" /proc/self/fd/$fd; done"""
SHELL_GROUP = """\
while IFS=: read -r name _ g _ && [ "$name" != "$wanted" ]; do :; done < /etc/group
: ${g:?no such group in the image}"""

# ---- verbs


def set_keep_capabilities() -> None:
    """Keep the permitted set across a change of uid: PR_SET_KEEPCAPS of prctl(2)."""
    check(C.prctl(_PR_SET_KEEPCAPS, 1, 0, 0, 0), "prctl", "PR_SET_KEEPCAPS", 1)


def lines_of(root_fd: int, path: str) -> list[list[str]]:
    """The colon-separated fields of a file like /etc/passwd; [] where the image has none."""
    try:
        text = safepath.read_small(root_fd, path).decode("utf-8", "surrogateescape")
    except MinicontainerError:
        return []
    return [line.split(":") for line in text.split("\n") if line and not line.startswith("#")]


def number(text: str) -> int:
    """A decimal id, or -1 if ``text`` is not one.  Raises UsageError for one out of range."""
    if not (text.isascii() and text.isdigit()):
        return -1
    digits = text.lstrip("0") or "0"
    if len(digits) > 10 or int(digits) > MAX_ID:  # int() itself gives up at 4300 digits
        raise UsageError(f"id {text[:20]} is out of range (0 to {MAX_ID})")
    return int(digits)


def file_number(text: str) -> int:
    """An id in a line of the image's; -1 also for one out of range: other users are not hurt."""
    try:
        return number(text)
    except UsageError:
        return -1


def passwd_entry(root_fd: int, wanted: str) -> tuple[str, int, int, str]:
    """(login, uid, gid, home) of a name or number; ("", the number or -1, 0, "/") if not there."""
    uid = number(wanted)
    for entry in lines_of(root_fd, "/etc/passwd"):
        if len(entry) < 4 or (entry[0] != wanted and (uid < 0 or file_number(entry[2]) != uid)):
            continue
        found, gid = file_number(entry[2]), file_number(entry[3])
        if found >= 0 and gid >= 0:
            return entry[0], found, gid, entry[5] if len(entry) > 5 and entry[5] else "/"
    return "", uid, 0, "/"


def look_up(root_fd: int, user: str) -> tuple[int, int, tuple[int, ...], str]:
    """(uid, gid, other gids, home) for docker's USER[:GROUP], by the files of the image.

    As docker: a name must be in /etc/passwd; a number need not.  Without :GROUP the group is the
    user's own (0 for a number that is not in the file) and the groups that list it are added.
    Raises UsageError for a name that is not there."""
    wanted, colon, group = user.partition(":")
    wanted = wanted or "0"
    if colon and not group:
        raise UsageError(f"user {user!r}: a group is missing after the colon")
    login, uid, gid, home = passwd_entry(root_fd, wanted)
    if uid < 0:
        raise UsageError(
            f"unable to find user {wanted}: no matching entries in passwd file",
            "the image's own /etc/passwd counts; a number works without an entry",
        )
    groups = lines_of(root_fd, "/etc/group")
    if group:
        return uid, group_number(groups, group), (), home
    others = [
        file_number(entry[2])
        for entry in groups
        if login and len(entry) > 3 and login in entry[3].split(",") and file_number(entry[2]) >= 0
    ]
    return uid, gid, tuple(others), home


def group_number(groups: list[list[str]], name: str) -> int:
    """The gid of a name or number.  Raises UsageError for a name that is not in the file."""
    gid = number(name)
    if gid >= 0:
        return gid
    for entry in groups:
        if len(entry) > 2 and entry[0] == name and file_number(entry[2]) >= 0:
            return file_number(entry[2])
    raise UsageError(f"unable to find group {name}: no matching entries in group file")


def give_stdio(uid: int, terminal: bool) -> None:
    """Make the user the owner of its terminal and pipes: else `echo > /dev/stderr`, which opens
    them anew, is refused.  A file or a terminal of the host's stays whose it was."""
    for fd in (0, 1, 2):
        try:
            status = os.fstat(fd)
            ours = stat.S_ISFIFO(status.st_mode) or (terminal and stat.S_ISCHR(status.st_mode))
            if ours and status.st_uid != uid:
                os.fchown(fd, uid, -1)
        except OSError:
            continue  # closed, or an id that is not mapped: the program will see for itself


# ---- steps


class BecomeUser(Step):
    """Change to the user the image or -u names; HOME comes from the same line of the file."""

    name = "user-id"
    without = "the program runs as root"
    look = ("status:Uid", "status:Gid", "status:Groups")

    username: str = ""
    uid: int = 0
    gid: int = 0
    additional_gids: tuple[int, ...] = ()
    group_names: tuple[str, ...] = ()
    umask: int = -1
    terminal: bool = False  # standard input, output and error are the container's own terminal

    def title(self) -> str:
        """In a few words."""
        return f"become user {self.username or self.uid}"

    def shell(self) -> str:
        """read: what the image's files say of this user."""
        user, _, group = self.username.partition(":")
        user = user or str(self.uid)
        uid = user if number(user) >= 0 else ""
        lines = [f"wanted={quote(user)} login= uid={uid} gid=0 HOME=/", SHELL_USER]
        lines.append(f"groups={','.join(map(str, self.additional_gids))}")
        if not self.username:
            lines.append(f"gid={self.gid}")
        elif not group:
            lines.append(SHELL_GROUPS)
        for name, then in [(group, "gid=$g")] * bool(group) + [
            (name, "groups=$groups,$g") for name in self.group_names
        ]:
            find = f"g={name}" if number(name) >= 0 else f"wanted={quote(name)}\n{SHELL_GROUP}"
            lines.append(f"{find}\n{then}")
        lines.append(SHELL_STDIO)
        lines += [f"umask {self.umask:04o}"] if self.umask >= 0 else []
        return "\n".join((*lines, 'groups="${groups:+--groups=${groups#,}}"'))

    def shell_prefix(self) -> str:
        """setpriv(1)."""
        return 'setpriv --reuid "$uid" --regid "$gid" "${groups:---clear-groups}"'

    def run(self, context: Context) -> None:
        """setgroups(2), setresgid(2), setresuid(2), with the capabilities kept."""
        root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            uid, gid, groups, home = self.uid, self.gid, self.additional_gids, "/"
            if self.username:
                uid, gid, others, home = look_up(root, self.username)
                groups = (*others, *groups)
            else:
                home = passwd_entry(root, str(uid))[3]
            if self.group_names:
                table = lines_of(root, "/etc/group")
                groups += tuple(group_number(table, name) for name in self.group_names)
        finally:
            os.close(root)
        if not any(entry.startswith("HOME=") for entry in context.env):
            context.env.append("HOME=" + home)
        give_stdio(uid, self.terminal)
        set_keep_capabilities()
        try:
            become(uid, gid, list(dict.fromkeys(groups)))
        except KernelError as error:
            raise UsageError(f"cannot become user {uid}:{gid}: {error.message}") from error
        os.umask(self.umask if self.umask >= 0 else 0o022)
