"""What a container may need of its host: files of variables, device nodes, id ranges, the resolver.

The rest of the road from flags to Spec only computes; what has to be looked up or made on this
machine is here, and each function is called only when a flag asks for it.

Man pages: subuid(5), resolv.conf(5), mknod(2).
"""

from __future__ import annotations

import os
import stat

from minicontainer.compose import Host
from minicontainer.errors import UsageError
from minicontainer.spec import Device, IdMap, Seccomp

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

_BLOCK = 65536
# systemd-nspawn's range for containers (systemd, docs/UIDS-GIDS.md)
_FIRST, _LAST = 0x00080000, 0x6FFF0000
_SUBID_USERS = ("minicontainer", "containers")

# parts of /dev that belong to the runtime: a container gets its own (containerd: oci/utils_unix.go)
_NOT_DEVICES = ("pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev", "console")


def read_host() -> Host:
    """The host's name, hosts file and resolver: for containers that share its network."""

    def text(path: str) -> str:
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                return file.read()
        except OSError:
            return ""

    return Host(os.uname().nodename, text("/etc/hosts"), text("/etc/resolv.conf"))


def env_file(path: str, environ: Mapping[str, str]) -> tuple[str, ...]:
    """The variables in a ``--env-file``: NAME=VALUE lines, "#" comments, NAME alone for the host's
    value (left out where the host has none).  Raises UsageError."""
    try:
        with open(path, "rb") as file:
            lines = file.read().removeprefix(b"\xef\xbb\xbf").split(b"\n")
    except OSError as error:
        raise UsageError(f"open {path}: {os.strerror(error.errno or 0).lower()}") from None
    entries: list[str] = []
    for number, raw in enumerate(lines, 1):
        try:
            line = raw.decode().removesuffix("\r").lstrip()
        except UnicodeDecodeError:
            raise UsageError(f"invalid env file ({path}): not UTF-8 at line {number}") from None
        if not line or line.startswith("#"):
            continue
        name, equals, _ = line.partition("=")
        if not name:
            raise UsageError(f"invalid env file ({path}): no variable name on line '{line}'")
        if any(c.isspace() for c in name):
            raise UsageError(f"invalid env file ({path}): variable '{name}' contains whitespaces")
        if "\0" in line:
            raise UsageError(f"invalid env file ({path}): NUL byte at line {number}")
        if equals:
            entries.append(line)
        elif name in environ:
            entries.append(f"{name}={environ[name]}")
    return tuple(entries)


def seccomp_profile(path: str) -> Seccomp:
    """The profile in a JSON file, docker's or OCI's shape.  Raises UsageError."""
    import json

    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
        if not isinstance(json.loads(text), dict):
            raise ValueError("not a JSON object")
    except OSError as error:
        reason = os.strerror(error.errno or 0).lower()
        raise UsageError(f"opening seccomp profile ({path}) failed: {reason}") from None
    except (ValueError, RecursionError) as error:
        raise UsageError(f"seccomp profile ({path}) is not JSON: {error}") from None
    return Seccomp(text)


def device(text: str) -> tuple[Device, ...]:
    """``--device HOST[:CONTAINER][:rwm]``: a node, or all nodes in a directory.

    Raises UsageError."""
    parts = text.split(":")
    if len(parts) > 3 or not parts[0]:
        raise UsageError(f"bad format for path: {text}", "as in /dev/fuse or /dev/sda:/dev/disk")
    access = parts.pop() if len(parts) > 1 and _is_access(parts[-1]) else "rwm"
    if len(parts) == 3:
        raise UsageError(f"bad mode specified: {parts[2]}", "as in rwm")
    source, target = parts[0], parts[-1]
    if not target.startswith("/"):
        raise UsageError(f"{target} is not an absolute path")
    try:
        found = _nodes(source, target) if os.path.isdir(source) else [_node(source, target)]
    except OSError as error:
        reason = os.strerror(error.errno or 0).lower()
        raise UsageError(
            f'error gathering device information while adding custom device "{source}": {reason}'
        ) from None
    if not found or None in found:
        raise UsageError(
            f'error gathering device information while adding custom device "{source}": '
            "not a device node"
        )
    return tuple(node.replace(access=access) for node in found if node)


def all_devices() -> tuple[Device, ...]:
    """Every node of the host's /dev, for --privileged; the container's own six excepted."""
    own = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty")
    return tuple(node for node in _nodes("/dev", "/dev") if node.path not in own)


def auto_userns(container_id: str) -> tuple[tuple[IdMap, ...], tuple[IdMap, ...]]:
    """(uid, gid) mappings of 65536 ids that belong to this container, as far as a hash can tell.

    From the ranges of user "minicontainer" or "containers" in /etc/subuid and /etc/subgid, or,
    without an entry, from the range that systemd-nspawn uses.  Raises UsageError."""
    # one number for both, so that uid and gid n are the same host number where the files agree
    pick = int(container_id[:16], 16)
    maps = []
    for path in ("/etc/subuid", "/etc/subgid"):
        blocks = _blocks(path) or range(_FIRST, _LAST + 1, _BLOCK)
        maps.append((IdMap(0, blocks[pick % len(blocks)], _BLOCK),))
    return maps[0], maps[1]


def check_sources(paths: tuple[str, ...]) -> None:
    """The sources of ``--mount type=bind`` must be there.  Raises UsageError."""
    for path in paths:
        if not os.path.exists(path):
            raise UsageError(
                f"bind source path does not exist: {path}",
                "make it first, or use -v, which makes a missing directory",
            )


def make_sources(paths: tuple[str, ...]) -> None:
    """The sources of ``-v``: a missing one becomes an empty directory.  Raises UsageError."""
    for path in paths:
        try:
            if not os.path.lexists(path):
                os.makedirs(path, 0o755)
        except OSError as error:
            raise UsageError(
                f"error while creating mount source path '{path}': {error.strerror}"
            ) from None


def _blocks(path: str) -> range | None:
    """The 65536-id blocks of our users' first range that has room for one."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            entries = [line.strip().split(":") for line in file]
    except OSError:
        return None
    for user in _SUBID_USERS:
        for entry in entries:
            if len(entry) == 3 and entry[0] == user and (entry[1] + entry[2]).isdecimal():
                first, count = int(entry[1]), int(entry[2])
                if count >= _BLOCK:
                    return range(first, first + count - _BLOCK + 1, _BLOCK)
    return None


def _is_access(text: str) -> bool:
    return bool(text) and len(set(text)) == len(text) and not text.strip("rwm")


def _node(source: str, target: str) -> Device | None:
    """The node at ``source`` (a symbolic link is followed), or None: not a device.  OSError."""
    status = os.stat(source)
    kind = "b" if stat.S_ISBLK(status.st_mode) else "c" if stat.S_ISCHR(status.st_mode) else ""
    if not kind:
        return None
    return Device(
        target, kind, os.major(status.st_rdev), os.minor(status.st_rdev),
        stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid,
    )  # fmt: skip


def _nodes(source: str, target: str) -> list[Device]:
    """All nodes below a directory, links not followed, the runtime's own places left out."""
    found: list[Device] = []
    for name in sorted(os.listdir(source)):
        path = f"{source}/{name}"
        if name in _NOT_DEVICES or os.path.islink(path):
            continue
        if os.path.isdir(path):
            found += _nodes(path, f"{target}/{name}")
        elif (node := _node(path, f"{target}/{name}")) is not None:
            found.append(node)
    return found
