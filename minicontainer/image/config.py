"""An image's configuration: what its author wishes for every container made from it.

On disk it is JSON, as the OCI image specification has it (image-spec, config.md).  Its sha256 is
the image's id; it lists the layers by *their* sha256 (``rootfs.diff_ids``), so an id vouches for
every byte of the image.

Whoever made the image wrote it: wishes, not orders.  Every field is checked for its type and for
what could hurt later (containerd's CVE-2022-23648 was a Volumes entry with ``..`` in it).
"""

from __future__ import annotations

import os

from minicontainer.errors import ImageError
from minicontainer.image.reference import is_digest
from minicontainer.step import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

# The kernel's names for machines (uname -m), and the image world's (Go's)
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386",
                 "riscv64": "riscv64", "ppc64le": "ppc64le", "s390x": "s390x"}  # fmt: skip


class ImageConfig(Record):
    """The fields of image-spec's config.md that a container is made from."""

    env: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    working_dir: str = ""
    user: str = ""
    volumes: tuple[str, ...] = ()
    exposed_ports: tuple[str, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    stop_signal: str = ""
    architecture: str = ""
    os: str = "linux"
    #: when it was made, RFC 3339; for an archive, the time of its newest file
    created: str = ""


class Image(Record):
    """An image in the store, ready to be run."""

    name: str  # alpine:latest; "" if it has an id and no name
    id: str  # sha256:... of the configuration
    layers: tuple[str, ...]  # absolute paths of directories, lowest first
    config: ImageConfig
    size: int = 0  # bytes of all regular files of all layers
    rung: str = "store"  # who served it: store, archive or recipe


def host_architecture() -> str:
    """This machine's architecture in the image world's words: amd64, arm64, ..."""
    machine = os.uname().machine
    return ARCHITECTURES.get(machine, machine)


def to_json(config: ImageConfig, diff_ids: tuple[str, ...], comment: str = "") -> bytes:
    """The OCI image configuration as canonical JSON: equal images are equal bytes."""
    import json

    wishes: dict[str, Any] = {
        "User": config.user,
        "ExposedPorts": {port: {} for port in config.exposed_ports},
        "Env": list(config.env),
        "Entrypoint": list(config.entrypoint),
        "Cmd": list(config.cmd),
        "Volumes": {volume: {} for volume in config.volumes},
        "WorkingDir": config.working_dir,
        "Labels": dict(config.labels),
        "StopSignal": config.stop_signal,
    }
    document: dict[str, Any] = {
        "architecture": config.architecture,
        "os": config.os,
        "config": {key: value for key, value in wishes.items() if value},
        "rootfs": {"type": "layers", "diff_ids": list(diff_ids)},
        "history": [{"created_by": comment} for _ in diff_ids],
    }
    if config.created:
        document["created"] = config.created
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode(
        "utf-8", "surrogatepass"
    )


def from_json(document: bytes) -> tuple[ImageConfig, tuple[str, ...]]:
    """Read an OCI image configuration: its wishes, and the diff_ids of its layers.

    Raises ImageError that names the field, as a path into the JSON.
    """
    import json

    try:
        top = json.loads(document)
    except (ValueError, RecursionError) as error:
        raise ImageError(f"the image's configuration is not JSON: {error}") from None
    top = _object(top, "(the whole)")
    wishes = _object(top.get("config"), "config")
    rootfs = _object(top.get("rootfs"), "rootfs")
    diff_ids = _texts(rootfs.get("diff_ids"), "rootfs.diff_ids")
    for index, diff_id in enumerate(diff_ids):
        if not is_digest(diff_id):
            raise _refuse(f"rootfs.diff_ids[{index}]", "is not sha256:<64 hexadecimal digits>")
    config = ImageConfig(
        env=_texts(wishes.get("Env"), "config.Env"),
        entrypoint=_texts(wishes.get("Entrypoint"), "config.Entrypoint"),
        cmd=_texts(wishes.get("Cmd"), "config.Cmd"),
        working_dir=_text(wishes.get("WorkingDir"), "config.WorkingDir"),
        user=_text(wishes.get("User"), "config.User"),
        volumes=tuple(_object(wishes.get("Volumes"), "config.Volumes")),
        exposed_ports=tuple(_object(wishes.get("ExposedPorts"), "config.ExposedPorts")),
        labels=tuple(
            (key, _text(value, f"config.Labels.{key}"))
            for key, value in _object(wishes.get("Labels"), "config.Labels").items()
        ),
        stop_signal=_text(wishes.get("StopSignal"), "config.StopSignal"),
        architecture=_text(top.get("architecture"), "architecture"),
        os=_text(top.get("os"), "os") or "linux",
        created=_text(top.get("created"), "created"),
    )
    return check(config), diff_ids


def check(config: ImageConfig) -> ImageConfig:
    """Refuse wishes that no honest author has; ImageError names the field."""
    for index, entry in enumerate(config.env):
        if entry.find("=") < 1:
            raise _refuse(f"config.Env[{index}]", f"{entry!r} is not NAME=VALUE")
    for volume in config.volumes:
        if not volume.startswith("/") or ".." in volume.split("/"):
            raise _refuse("config.Volumes", f"{volume!r} is not an absolute path without '..'")
    if ".." in config.working_dir.split("/"):
        raise _refuse("config.WorkingDir", f"{config.working_dir!r} has '..' in it")
    return config


def _object(value: object, where: str) -> Mapping[str, Any]:
    """A JSON object, or null for an empty one."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise _refuse(where, "is not a JSON object")
    for key in value:
        _text(key, f"{where} (a key)")
    return value


def _texts(value: object, where: str) -> tuple[str, ...]:
    """A JSON array of strings, or null for an empty one."""
    if value is None:
        return ()
    if not isinstance(value, list):
        raise _refuse(where, "is not a list")
    return tuple(_text(item, f"{where}[{index}]") for index, item in enumerate(value))


def _text(value: object, where: str) -> str:
    """A JSON string that C can hold, or null for an empty one."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise _refuse(where, "is not a string")
    if "\0" in value:
        raise _refuse(where, "has a NUL byte in it")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise _refuse(where, "has half of a surrogate pair in it") from None
    return value


def _refuse(where: str, why: str) -> ImageError:
    return ImageError(f"the image's configuration: {where!s} {why}")
