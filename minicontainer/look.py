"""look: what a step changed, as /proc tells it; and who may have said no when it failed.

A Step names in ``look`` what shows its work.  Each entry is a place below /proc/PID:

    ns/mnt  exe  fd/0       a link: where it leads
    uid_map  timens_offsets a file: its text
    fd                      a directory: its names, and where they lead
    status:CapBnd           of a file, the line that begins with this word
    mountinfo:1             of a file, the line of this number

Man pages: proc(5), namespaces(7), capabilities(7).
"""

from __future__ import annotations

import errno
import os
import stat

from minicontainer.errors import KernelError

_LIMIT = 1 << 20  # bytes of a file that are looked at


def look(pid: int, entry: str) -> str:
    """What /proc/``pid``/``entry`` says now (0: this process); "" where nothing can be read."""
    name, _, line = entry.partition(":")
    path = f"/proc/{pid or 'self'}/{name}"
    try:
        mode = os.lstat(path).st_mode
        if stat.S_ISLNK(mode):
            return os.readlink(path)
        if stat.S_ISDIR(mode):
            return "\n".join(f"{name} -> {_leads(f'{path}/{name}')}" for name in _listing(path))
        with open(path, "rb") as file:
            text = file.read(_LIMIT).replace(b"\0", b" ").decode("utf-8", "backslashreplace")
    except OSError:
        return ""
    lines = text.strip().split("\n")
    if name == "mountinfo":
        lines = [mount_line(line) for line in lines]
    if line.isdecimal():
        return lines[int(line) - 1] if int(line) <= len(lines) else ""
    if line:
        found = [text for text in lines if text.startswith(line + ":")]
        return " ".join(found[0].split()[1:]) if found else ""
    return "\n".join(" ".join(text.split()) for text in lines)


def _listing(path: str) -> list[str]:
    return sorted(os.listdir(path), key=lambda name: (len(name), name))


def _leads(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return "?"


def mount_line(line: str) -> str:
    """The part of a line of mountinfo that tells a story: place, propagation, type, options."""
    fields, _, rest = line.partition(" - ")
    words = fields.split()
    if len(words) < 6 or not rest:
        return line
    talks = " ".join(words[6:]) or "private"
    return f"{words[4]} {talks} {rest.split()[0]} {words[5]}"


def differences(before: str, after: str) -> list[str]:
    """What is in one text and not in the other, line by line: "- was", "+ is"."""
    old, new = before.split("\n") if before else [], after.split("\n") if after else []
    gone, come = _less(old, new), _less(new, old)
    return [f"- {line}" for line in gone] + [f"+ {line}" for line in come]


def _less(lines: list[str], others: list[str]) -> list[str]:
    """``lines`` without those of ``others``, each as often as it is there."""
    rest = list(others)
    left = []
    for line in lines:
        if line in rest:
            rest.remove(line)
        else:
            left.append(line)
    return left


# ---- who said no

# What the kernel asks for before it does these: the man pages' "ERRORS", EPERM
_NEEDS = {
    "capset": "CAP_SETPCAP", "clone3": "CAP_SYS_ADMIN", "fsmount": "CAP_SYS_ADMIN",
    "ioctl": "CAP_NET_ADMIN", "mknod": "CAP_MKNOD", "mount": "CAP_SYS_ADMIN",
    "mount_setattr": "CAP_SYS_ADMIN", "move_mount": "CAP_SYS_ADMIN", "open_tree": "CAP_SYS_ADMIN",
    "pivot_root": "CAP_SYS_ADMIN", "prctl": "CAP_SETPCAP", "prlimit": "CAP_SYS_RESOURCE",
    "seccomp": "CAP_SYS_ADMIN", "sethostname": "CAP_SYS_ADMIN", "setns": "CAP_SYS_ADMIN",
    "setdomainname": "CAP_SYS_ADMIN", "umount2": "CAP_SYS_ADMIN", "unshare": "CAP_SYS_ADMIN",
}  # fmt: skip
_BITS = {"CAP_SETPCAP": 8, "CAP_NET_ADMIN": 12, "CAP_SYS_ADMIN": 21, "CAP_SYS_RESOURCE": 24,
         "CAP_MKNOD": 27}  # fmt: skip
_IDENTITY = "0 0 4294967295"  # the uid_map of the first user namespace


def suspects(error: BaseException, pid: int = 0) -> list[str]:
    """Which layers may have refused, the likeliest first; [] where the errno is not a refusal.

    The kernel says only EPERM or EACCES, never who, so these are guesses from what can be seen of
    process ``pid`` (0: this one)."""
    cause = error if isinstance(error, KernelError) else error.__cause__
    number = getattr(cause, "errno", None) or getattr(error, "errno", None)
    call = cause.call if isinstance(cause, KernelError) else ""
    if number == errno.EROFS:
        return ["a read-only mount, most likely: findmnt -T PATH tells which"]
    if number not in (errno.EPERM, errno.EACCES, errno.ENOSYS):
        return []
    found = []
    needed = _NEEDS.get(call, "")
    effective = int(look(pid, "status:CapEff") or "0", 16)
    if number != errno.ENOSYS and needed and not effective >> _BITS[needed] & 1:
        found.append(f"a capability, most likely: {call}(2) asks for {needed}, which is not in "
                     "CapEff of /proc/self/status")  # fmt: skip
    if look(0, "status:Seccomp") == "2":
        found.append("perhaps a seccomp filter: this shell runs under one (Seccomp: 2 in "
                     "/proc/self/status), as in a container")  # fmt: skip
    if number == errno.ENOSYS:
        return found or ["most likely nobody: this kernel is older than the system call"]
    if look(pid, "uid_map") not in ("", _IDENTITY):
        found.append("perhaps the user namespace: root in it may not do this to what belongs to "
                     "the host")  # fmt: skip
    for module in ("apparmor", "selinux", "smack", "tomoyo"):
        if module in _read("/sys/kernel/security/lsm").split(","):
            found.append(f"perhaps a security module ({module}): dmesg has a line about it then")
    if call in ("mknod", "openat", "mount"):
        found.append("perhaps a device program of an outer container's cgroup, or its mount table")
    if call.startswith("execve"):
        found.append("perhaps the mount: noexec, in /proc/PID/mountinfo")
    return found


def _read(path: str) -> str:
    try:
        with open(path) as file:
            return file.read().strip()
    except OSError:
        return ""
