"""docker's three ways to ask for a mount: ``-v``, ``--mount`` and ``--tmpfs``, as spec.Mounts.

    -v /srv/data:/data:ro                               short; a missing host directory is made
    --mount type=bind,source=/srv/data,target=/data,readonly     exact; it is an error
    --tmpfs /scratch:size=64m                           memory, gone with the container

Specs: docker-run(1); config.md "mounts" of the OCI runtime specification for the option words.
"Read-only" covers the mounts below the source too (rro, since docker 25): with the mount's own
flag alone, ``-v /:/host:ro`` would leave every other mounted disk writable.
"""

from __future__ import annotations

import os

from minicontainer.compose import clean
from minicontainer.errors import UsageError
from minicontainer.spec import Mount
from minicontainer.values import LAST_ID, integer, size

_NO_VOLUMES = "volumes kept by minicontainer are not supported yet"
_USE_A_PATH = "give a host directory that begins with /, or use --tmpfs"

_PROPAGATION = ("private", "rprivate", "shared", "rshared", "slave", "rslave")
# word of -v -> the kind of wish; docker takes one of each kind
_MODES = {
    **dict.fromkeys(("rw", "ro", "ro-non-recursive", "ro-force-recursive", "rro"), "access"),
    **dict.fromkeys(_PROPAGATION, "propagation"),
    # SELinux labels: nothing to do where SELinux does not run; and hints for Docker Desktop
    **dict.fromkeys(("z", "Z"), "label"),
    **dict.fromkeys(("consistent", "cached", "delegated"), "consistency"),
    "nocopy": "copy",
}
_READONLY = {"ro": ("ro", "rro"), "ro-force-recursive": ("ro", "rro"), "rro": ("ro", "rro"),
             "ro-non-recursive": ("ro",)}  # fmt: skip

# tmpfs(5); each pair of words cancels the other
_TMPFS_PAIRS = (
    ("ro", "rw"), ("nosuid", "suid"), ("nodev", "dev"), ("noexec", "exec"), ("sync", "async"),
    ("noatime", "atime"), ("nodiratime", "diratime"), ("relatime", "norelatime"),
    ("strictatime", "nostrictatime"),
)  # fmt: skip
_TMPFS_VALUES = ("size", "mode", "uid", "gid", "nr_inodes", "nr_blocks", "mpol")


def volume(text: str) -> Mount:
    """``-v SOURCE:DESTINATION[:OPTION,...]`` as a bind mount.  Raises UsageError."""
    parts = text.split(":")
    if len(parts) > 3 or not parts[0]:
        raise UsageError(f"invalid volume specification: '{text}'", "as in -v /host/dir:/dir:ro")
    if len(parts) == 1:
        raise UsageError(_NO_VOLUMES, f"use --tmpfs {text}, or -v /host/dir:{text}")
    words = [word for word in parts[2].split(",") if word] if len(parts) == 3 else []
    wishes: dict[str, str] = {}
    for word in words:
        if word not in _MODES or _MODES[word] in wishes:
            raise UsageError(f"invalid mode: {parts[2]}", "as in ro, rw, rslave, ro,rshared")
        wishes[_MODES[word]] = word
    if "copy" in wishes:
        raise UsageError("nocopy is for volumes, and this is a bind mount", _USE_A_PATH)
    options = ("rbind", *_READONLY.get(wishes.get("access", ""), ()))
    return Mount(
        _destination(parts[1]), "bind", _source(parts[0]),
        (*options, wishes.get("propagation", "rprivate")),
    )  # fmt: skip


def mount(text: str) -> Mount:
    """``--mount type=bind|tmpfs,key=value,...``: one line of CSV.  Raises UsageError."""
    fields = _fields(text)
    kind = fields.get("type", "volume").lower()
    if kind in ("volume", "image", "cluster", "npipe"):
        raise UsageError(
            f"mounts of type {kind} are not supported yet", "the types are: bind, tmpfs"
        )
    if kind not in ("bind", "tmpfs"):
        raise UsageError(f"mount type unknown: '{kind}'" if kind else "type is required",
                         "the types are: bind, tmpfs")  # fmt: skip
    if not fields.get("target"):
        raise UsageError("target is required", "as in --mount type=tmpfs,target=/scratch")
    other = "tmpfs-" if kind == "bind" else "bind-"
    for key in fields:
        if key.startswith((other, "volume-")):
            raise UsageError(
                f"cannot mix '{key.partition('-')[0]}-*' options with mount type '{kind}'"
            )
    return _bind_mount(fields) if kind == "bind" else _tmpfs_mount(fields)


def tmpfs(text: str) -> Mount:
    """``--tmpfs DESTINATION[:OPTION,...]``: noexec, nosuid and nodev unless undone.

    Raises UsageError."""
    destination, _, words = text.partition(":")
    options = ["noexec", "nosuid", "nodev"]
    for word in words.split(",") if words else ():
        key, equals, value = word.partition("=")
        if equals and key in _TMPFS_VALUES:
            options = [o for o in options if not o.startswith(f"{key}=")]
            if key in ("uid", "gid"):
                integer(value, 0, LAST_ID)
            if key == "mode":
                _octal(key, value)
            if key == "size" and not value.endswith("%"):
                word = f"size={size(value)}"
        elif word in ("defaults", *_PROPAGATION):
            continue  # said already: every mount of a container is private
        elif pair := next((pair for pair in _TMPFS_PAIRS if word in pair), None):
            options = [o for o in options if o not in pair]
        else:
            raise UsageError(f"invalid tmpfs option '{word}'", "as in size=64m,mode=1777,exec")
        options.append(word)
    return Mount(_destination(destination), "tmpfs", "tmpfs", tuple(options))


def _fields(text: str) -> dict[str, str]:
    """The keys and values of one --mount, aliases resolved."""
    import _csv  # the C half of csv, which imports re for 6 ms

    aliases = {"src": "source", "dst": "target", "destination": "target", "ro": "readonly"}
    plain = ("type", "source", "target", "readonly", "consistency", "bind-propagation",
             "bind-nonrecursive", "bind-recursive", "tmpfs-size", "tmpfs-mode", "volume-nocopy",
             "volume-label", "volume-driver", "volume-opt", "volume-subpath")  # fmt: skip
    try:
        row = next(_csv.reader([text], strict=True), [])
    except _csv.Error as error:
        raise UsageError(f"not one line of comma-separated values: {error}") from None
    fields: dict[str, str] = {}
    for field in row:
        typed, equals, value = field.partition("=")
        key = aliases.get(typed, typed)
        if key not in plain:
            raise UsageError(f"unexpected key '{key}' in '{field}'" if equals else
                             f"invalid field '{field}' must be a key=value pair")  # fmt: skip
        if key in ("readonly", "bind-nonrecursive", "volume-nocopy"):
            if equals and value.lower() not in ("true", "1", "false", "0"):
                raise UsageError(f"invalid value for {typed}: {value}")
            if value.lower() in ("false", "0"):
                continue
        elif not equals:
            raise UsageError(f"invalid field '{field}' must be a key=value pair")
        fields[key] = value
    return fields


def _bind_mount(fields: dict[str, str]) -> Mount:
    if not fields.get("source"):
        raise UsageError("source is required for a bind mount", "as in source=/srv,target=/srv")
    propagation = fields.get("bind-propagation", "rprivate").lower()
    if propagation not in _PROPAGATION:
        raise UsageError(f"invalid propagation mode: {propagation}", ", ".join(_PROPAGATION))
    depth = fields.get("bind-recursive", "enabled")
    if depth not in ("enabled", "disabled", "writable", "readonly"):
        raise UsageError(
            f'invalid value for bind-recursive: {depth} (must be "enabled", "disabled", '
            '"writable", or "readonly")'
        )
    readonly = "readonly" in fields
    if depth == "readonly" and not readonly:
        raise UsageError("option 'bind-recursive=readonly' requires 'readonly'")
    below = "bind-nonrecursive" not in fields and depth != "disabled"
    options = ["rbind" if below else "bind"]
    if readonly:
        options += ["ro"] if depth == "writable" or not below else ["ro", "rro"]
    return Mount(
        _destination(fields["target"]), "bind", _source(fields["source"]), (*options, propagation)
    )


def _tmpfs_mount(fields: dict[str, str]) -> Mount:
    if "source" in fields:
        raise UsageError("a tmpfs has no source: it is memory")
    words = ["ro"] if "readonly" in fields else []
    if "tmpfs-mode" in fields:
        words.append(f"mode={_octal('tmpfs-mode', fields['tmpfs-mode'])}")
    if "tmpfs-size" in fields:
        words.append(f"size={size(fields['tmpfs-size'])}")
    made = tmpfs("/x:" + ",".join(words))
    return made.replace(destination=_destination(fields["target"]))


def _octal(key: str, text: str) -> str:
    if not text or text.strip("01234567") or len(text) > 6:
        raise UsageError(f"invalid value for {key}: {text}", "octal digits, as in 1777")
    return text


def _source(path: str) -> str:
    """A host path; "./x" is relative to where we stand, as in docker's client."""
    if path in (".", "..") or path.startswith(("./", "../")):
        return os.path.abspath(path)
    if not path.startswith("/"):
        raise UsageError(f"{_NO_VOLUMES}: '{path}' is a volume's name", _USE_A_PATH)
    return clean(path)


def _destination(path: str) -> str:
    """A container path, made plain."""
    if not path.startswith("/"):
        raise UsageError(f"invalid mount path: '{path}' mount path must be absolute")
    path = clean(path)
    if path == "/":
        raise UsageError("invalid specification: destination can't be '/'")
    return path
