"""The mount system calls, and the words of mount(8): shared by every kernel file that mounts.

mount(2) and umount2(2) have been there since the beginning: one call with a path.  The newer ones
(open_tree, mount_setattr, move_mount; Linux 5.2 to 5.12) hold a mount by a *descriptor* while it
hangs nowhere, so that it can be made read-only or id-mapped before anyone can reach it, and can be
hung on a place that no one can swap meanwhile.

The lesson on mounts is kernel/mounts.py.
"""

from __future__ import annotations

import errno
import os
import stat

from minicontainer.errors import KernelError, UsageError
from minicontainer.libc import C, Flags, address, check, encode, ffi, syscall

# ---- vocabulary: include/uapi/linux/mount.h

MOUNT_FLAGS = {
    "MS_RDONLY": 1, "MS_NOSUID": 2, "MS_NODEV": 4, "MS_NOEXEC": 8, "MS_SYNCHRONOUS": 16,
    "MS_REMOUNT": 32, "MS_MANDLOCK": 64, "MS_DIRSYNC": 128, "MS_NOSYMFOLLOW": 256,
    "MS_NOATIME": 1024, "MS_NODIRATIME": 2048, "MS_BIND": 4096, "MS_MOVE": 8192, "MS_REC": 16384,
    "MS_UNBINDABLE": 1 << 17, "MS_PRIVATE": 1 << 18, "MS_SLAVE": 1 << 19, "MS_SHARED": 1 << 20,
    "MS_RELATIME": 1 << 21, "MS_STRICTATIME": 1 << 24, "MS_LAZYTIME": 1 << 25,
    "MS_SILENT": 1 << 15, "MS_I_VERSION": 1 << 23,
}  # fmt: skip
MS_REC, MS_BIND, MS_REMOUNT, MS_RDONLY = 16384, 4096, 32, 1
MNT_DETACH = 2

# mount(8)'s words -> (bits to set, bits to clear); a word not here is the file system's own
OPTIONS = {
    "ro": (1, 0), "rw": (0, 1), "nosuid": (2, 0), "suid": (0, 2), "nodev": (4, 0), "dev": (0, 4),
    "noexec": (8, 0), "exec": (0, 8), "sync": (16, 0), "async": (0, 16), "dirsync": (128, 0),
    "nosymfollow": (256, 0), "noatime": (1024, 0), "atime": (0, 1024), "nodiratime": (2048, 0),
    "diratime": (0, 2048), "relatime": (1 << 21, 0), "norelatime": (0, 1 << 21),
    "strictatime": (1 << 24, 0), "nostrictatime": (0, 1 << 24), "lazytime": (1 << 25, 0),
    "nolazytime": (0, 1 << 25), "bind": (4096, 0), "rbind": (4096 | 16384, 0), "defaults": (0, 0),
    "mand": (64, 0), "nomand": (0, 64), "symfollow": (0, 256), "remount": (32, 0),
    "silent": (1 << 15, 0), "loud": (0, 1 << 15), "iversion": (1 << 23, 0),
    "noiversion": (0, 1 << 23),
}  # fmt: skip
# the same for a bind mount and all the mounts below it (mount(8) calls it ro=recursive)
RECURSIVE = {
    "r" + word: word
    for word in (
        "ro", "rw", "nosuid", "suid", "nodev", "dev", "noexec", "exec", "nodiratime", "diratime",
        "relatime", "norelatime", "noatime", "atime", "strictatime", "nostrictatime",
        "nosymfollow", "symfollow",
    )
}  # fmt: skip
PROPAGATION = {
    "private": 1 << 18, "rprivate": 1 << 18 | MS_REC, "slave": 1 << 19, "rslave": 1 << 19 | MS_REC,
    "shared": 1 << 20, "rshared": 1 << 20 | MS_REC, "unbindable": 1 << 17,
    "runbindable": 1 << 17 | MS_REC,
}  # fmt: skip

# mount_setattr(2) has numbers of its own for the same wishes
_ATTRIBUTES = {1: 0x1, 2: 0x2, 4: 0x4, 8: 0x8, 256: 0x200000, 2048: 0x80}
_ATIME_MASK, _NOATIME, _STRICTATIME = 0x70, 0x10, 0x20
_MS_TIMES = 1024 | 1 << 21 | 1 << 24  # MS_NOATIME, MS_RELATIME, MS_STRICTATIME
_AT_EMPTY_PATH, _AT_RECURSIVE, _OPEN_TREE_CLONE = 0x1000, 0x8000, 1
_MOVE_MOUNT_F_EMPTY_PATH, _MOVE_MOUNT_T_EMPTY_PATH = 0x4, 0x40

# what lxcfs puts its own files over, and checkpoints need; nothing the runtime writes to
PROC_PLACES = (
    "/proc/cpuinfo", "/proc/diskstats", "/proc/loadavg", "/proc/meminfo", "/proc/net/dev",
    "/proc/slabinfo", "/proc/stat", "/proc/swaps", "/proc/sys/crypto/fips_enabled",
    "/proc/sys/kernel/ns_last_pid", "/proc/uptime",
)  # fmt: skip

PROC_SUPER_MAGIC = 0x9FA0  # linux/magic.h
_MEANING = {
    errno.EPERM: "CAP_SYS_ADMIN is needed in the user namespace that owns the mounts, or a "
    "locked flag would be taken off, or the file system may not be mounted there, or no device "
    "rule of the cgroup allows its disk",
    errno.EBUSY: "something is mounted or in use there",
    errno.ENODEV: "this kernel has no such file system",
    errno.EINVAL: "an option is wrong (the kernel log says which), or that is no mount point",
    errno.ENOENT: "the source or the place to mount on does not exist",
    errno.ENOTDIR: "one side is a directory and the other is not",
    errno.EACCES: "the source is read-only or its directory may not be searched",
}

# ---- verbs


def mount(source: str | None, target: str, fstype: str | None, flags: int, data: str = "") -> None:
    """mount(2).  ``flags`` are MS_*, ``data`` the file system's own options, comma separated."""
    check(
        C.mount(encode(source), encode(target), encode(fstype), flags, encode(data or None)),
        "mount", source, target, fstype, Flags(flags, MOUNT_FLAGS), data or None,
        meaning=_MEANING,
    )  # fmt: skip


def umount(target: str, flags: int = 0) -> None:
    """umount2(2); MNT_DETACH takes it out of the tree now and frees it when no longer used."""
    check(
        C.umount2(encode(target), flags), "umount2", target, Flags(flags, {"MNT_DETACH": 2}),
        meaning={errno.EBUSY: "it is still in use", errno.EINVAL: "nothing is mounted there"},
    )  # fmt: skip


def open_tree(path: str, recursive: bool = True, dir_fd: int = -100) -> int:
    """A detached copy of the mount at ``path`` (a bind mount that hangs nowhere yet), as a
    descriptor: open_tree(2) with OPEN_TREE_CLONE.  An empty path means ``dir_fd`` itself."""
    flags = _OPEN_TREE_CLONE | os.O_CLOEXEC | (_AT_RECURSIVE if recursive else 0)
    flags |= 0 if path else _AT_EMPTY_PATH
    name = ffi.new("char[]", os.fsencode(path))
    return check(
        syscall("open_tree", dir_fd, address(name), flags),
        "open_tree", dir_fd, path, "OPEN_TREE_CLONE" + ("|AT_RECURSIVE" if recursive else ""),
        meaning=_MEANING,
    )  # fmt: skip


def mount_setattr(
    fd: int, set_: int = 0, clear: int = 0, propagation: int = 0, recursive: bool = True,
    userns_fd: int = -1,
) -> None:  # fmt: skip
    """Change flags (MOUNT_ATTR_*), propagation or id mapping of a tree: mount_setattr(2)."""
    attributes = ffi.new("struct mount_attr *")
    attributes.attr_set, attributes.attr_clr = set_, clear
    attributes.propagation = propagation
    attributes.userns_fd = max(userns_fd, 0)
    flags = _AT_EMPTY_PATH | (_AT_RECURSIVE if recursive else 0)
    empty = ffi.new("char[]", b"")
    check(
        syscall(
            "mount_setattr", fd, address(empty), flags, address(attributes),
            ffi.sizeof("struct mount_attr"),
        ),
        "mount_setattr", fd, f"set={set_:#x}", f"clear={clear:#x}", f"propagation={propagation:#x}",
        meaning={**_MEANING, errno.EINVAL: "the file system cannot do this (id mapping needs "
                 "ext4, xfs, btrfs, overlay, tmpfs since 6.3, ...)"},
    )  # fmt: skip


def open_private_tree(path: str) -> int:
    """The same for the one mount at ``path``, cut off from the host: mount_setattr(2), MS_PRIVATE.

    A copy of a shared mount is its peer: what a container mounts in it would appear on the host."""
    tree = open_tree(path, recursive=False)
    try:
        mount_setattr(tree, propagation=PROPAGATION["private"], recursive=False)
    except BaseException:
        os.close(tree)
        raise
    return tree


def move_mount(fd: int, target_fd: int, shown: str = "") -> None:
    """Hang a detached tree on the directory or file behind ``target_fd``: move_mount(2).

    By descriptors on both sides: no path is walked that anyone could swap meanwhile."""
    empty = ffi.new("char[]", b"")
    check(
        syscall(
            "move_mount", fd, address(empty), target_fd, address(empty),
            _MOVE_MOUNT_F_EMPTY_PATH | _MOVE_MOUNT_T_EMPTY_PATH,
        ),
        "move_mount", fd, shown or target_fd, meaning=_MEANING,
    )  # fmt: skip


def hang(tree: int, path: str) -> None:
    """move_mount(2) of a detached tree to a path of ours."""
    place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        move_mount(tree, place, path)
    finally:
        os.close(place)


def fstatfs(fd: int) -> int:
    """The magic number of the file system that a file is on: fstatfs(2).  Raises KernelError."""
    magic = ffi.new("long *")
    check(C.file_system_of(fd, magic), "fstatfs", fd)
    return int(magic[0])


def is_procfs(fd: int) -> bool:
    """Is the file behind ``fd`` on a procfs?  fstatfs(2); False where a seccomp profile forbids to
    ask."""
    try:
        return fstatfs(fd) == PROC_SUPER_MAGIC
    except KernelError:
        return False


def parse_options(options: tuple[str, ...]) -> tuple[int, int, int, str]:
    """mount(8)'s words as (flags to set, flags to clear, propagation, the file system's data).

    mount(8), "FILESYSTEM-INDEPENDENT MOUNT OPTIONS"."""
    flags, cleared, propagation, data = 0, 0, 0, []
    for word in options:
        if word in OPTIONS:
            on, off = OPTIONS[word]
            flags, cleared = (flags | on) & ~off, (cleared | off) & ~on
        elif word in PROPAGATION:
            propagation = PROPAGATION[word]
        else:
            data.append(word)
    return flags, cleared, propagation, ",".join(data)


def attribute_changes(words: tuple[str, ...]) -> tuple[int, int]:
    """mount(8)'s words as (attr_set, attr_clr) of mount_setattr(2); (0, 0) if they change nothing.

    When access times are kept is not a bit but one field with three values: whoever sets it has
    to clear it whole."""
    flags, cleared, _, _ = parse_options(words)
    set_ = sum(attribute for flag, attribute in _ATTRIBUTES.items() if flags & flag)
    clear = sum(attribute for flag, attribute in _ATTRIBUTES.items() if cleared & flag)
    if (flags | cleared) & _MS_TIMES:
        clear |= _ATIME_MASK
        if flags & MOUNT_FLAGS["MS_NOATIME"]:
            set_ |= _NOATIME
        elif flags & MOUNT_FLAGS["MS_STRICTATIME"]:
            set_ |= _STRICTATIME
    return set_, clear


def check_proc_place(root_fd: int, place_fd: int, destination: str, procfs: bool) -> None:
    """Nothing but a procfs goes on /proc, and next to nothing on what is below it.

    What the runtime writes to /proc (labels, sysctls) would land in a file of the bundle's choice
    (CVE-2019-16884, CVE-2025-52881).  The place is judged where it really is, after all links.
    Raises UsageError."""
    root, place = (os.readlink(f"/proc/self/fd/{fd}") for fd in (root_fd, place_fd))
    inside = "/" + place.removeprefix(root).lstrip("/")
    if (inside == "/proc" and procfs) or inside in PROC_PLACES:
        return
    if inside == "/proc" or inside.startswith("/proc/"):
        raise UsageError(
            f"{destination} is inside /proc: nothing may be mounted there",
            "only " + ", ".join(PROC_PLACES),
        )


def real_directory(root_fd: int, path: str) -> None:
    """/proc, /sys and /dev of an image must be real directories, or not be there yet.

    Where one is a symbolic link, what we mount "on /proc" would land elsewhere, and the write to
    /proc/self/attr or the masks with it (CVE-2019-19921).  Raises UsageError."""
    first = path.strip("/").split("/", 1)[0]
    if first not in ("proc", "sys", "dev"):
        return
    try:
        mode = os.stat(first, dir_fd=root_fd, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISDIR(mode):
        raise UsageError(
            f"/{first} of this root file system is not a directory but "
            + ("a symbolic link" if stat.S_ISLNK(mode) else "a file"),
            "a container's /proc, /sys and /dev must be real directories",
        )
