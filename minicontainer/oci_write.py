"""Spec to config.json: what a container is, in the words that runc, crun and podman understand.

A Spec says a few things that OCI has no words for: an image's layers, a user by name, the small
files of /etc, docker's --init, "the default seccomp profile".  They are refused by name: a file
that says less than the Spec would describe another container.

Specs: runtime-spec, config.md and config-linux.md.  Reading it back gives the same Spec,
except that a device's ``access`` has become a rule.
"""

from __future__ import annotations

from minicontainer.errors import UsageError
from minicontainer.oci_resources import write_resources
from minicontainer.spec import Device, DeviceRule, IdMap, Linux, Mount, Process, Spec, uses

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

VERSION = "1.0.2"  # the oldest that has all we write, so that every runtime takes it
VERSION_WITH_TIME = "1.1.0"  # timeOffsets, domainname and some limits came later


def write_config(spec: Spec) -> str:
    """The text of a config.json for ``spec``, which ``parse_config`` reads back as the same Spec.

    Raises UsageError for what OCI has no words for."""
    import json

    _only_what_oci_can_say(spec)
    linux = spec.linux
    newer = linux.time_offsets or linux.resources or spec.domainname or spec.namespace("time")
    config = {
        "ociVersion": VERSION_WITH_TIME if newer else VERSION,
        "process": _process(spec.process),
        "root": {"path": spec.root.path, "readonly": spec.root.readonly},
        "hostname": spec.hostname,
        "domainname": spec.domainname,
        "mounts": [_mount(mount) for mount in spec.mounts],
        "annotations": dict(spec.annotations),
        "linux": _linux(spec.linux),
    }
    return json.dumps(_without_empty(config), indent=4) + "\n"


def _only_what_oci_can_say(spec: Spec) -> None:
    user, seccomp = spec.process.user, spec.linux.seccomp
    for field, said in (
        ("root.layers", spec.root.layers),
        ("files", spec.files),
        ("process.init", spec.process.init),
        ("process.user.username", user.username),
        ("process.user.group_names", user.group_names),
        # None is "leave them as they are"; in a config.json a missing field means "none at all"
        ("process.capabilities: None", spec.process.capabilities is None),
        ("linux.seccomp: the default profile", seccomp and seccomp.profile == "default"),
    ):
        if said:
            raise UsageError(f"{field}: OCI's config.json has no word for it")


def _process(process: Process) -> dict[str, Any]:
    capabilities = process.capabilities
    rows, columns = process.console_size
    user = process.user
    return {
        "terminal": process.terminal,
        "consoleSize": {"height": rows, "width": columns} if rows or columns else None,
        "user": {
            "uid": user.uid,
            "gid": user.gid,
            "umask": None if user.umask < 0 else user.umask,
            "additionalGids": list(user.additional_gids),
        },
        "args": list(process.args),
        "env": list(process.env),
        "cwd": process.cwd,
        "capabilities": {
            name: list(getattr(capabilities, name)) for name in capabilities._fields
        } if capabilities else None,
        "rlimits": [
            {"type": limit.type, "soft": limit.soft % (1 << 64), "hard": limit.hard % (1 << 64)}
            for limit in process.rlimits
        ],
        "noNewPrivileges": process.no_new_privileges,
        "apparmorProfile": process.apparmor_profile,
        "selinuxLabel": process.selinux_label,
        "oomScoreAdj": process.oom_score_adj,
    }  # fmt: skip


def _mount(mount: Mount) -> dict[str, Any]:
    return {
        "destination": mount.destination,
        "type": mount.type,
        "source": mount.source,
        "options": list(mount.options),
    }


def _linux(linux: Linux) -> dict[str, Any]:
    import json

    return {
        "namespaces": [{"type": n.type, "path": n.path} for n in linux.namespaces],
        "uidMappings": [_id_map(one) for one in linux.uid_mappings],
        "gidMappings": [_id_map(one) for one in linux.gid_mappings],
        "timeOffsets": {
            offset.clock: {"secs": offset.seconds, "nanosecs": offset.nanoseconds}
            for offset in linux.time_offsets
        },
        "devices": [_device(device) for device in linux.devices],
        "resources": {
            "devices": [_rule(rule) for rule in linux.device_rules + uses(linux.devices)],
            **(write_resources(linux.resources) if linux.resources else {}),
        },
        "cgroupsPath": linux.cgroups_path,
        "sysctl": dict(linux.sysctl),
        "seccomp": json.loads(linux.seccomp.profile) if linux.seccomp else None,
        "rootfsPropagation": linux.rootfs_propagation,
        "maskedPaths": list(linux.masked_paths),
        "readonlyPaths": list(linux.readonly_paths),
    }


def _id_map(one: IdMap) -> dict[str, int]:
    return {"containerID": one.container_id, "hostID": one.host_id, "size": one.size}


def _device(device: Device) -> dict[str, Any]:
    return {
        "path": device.path,
        "type": device.type,
        "major": device.major,
        "minor": device.minor,
        "fileMode": device.file_mode,
        "uid": device.uid,
        "gid": device.gid,
    }


def _rule(rule: DeviceRule) -> dict[str, Any]:
    numbers = {"major": rule.major, "minor": rule.minor}
    given = {name: number for name, number in numbers.items() if number >= 0}
    return {"allow": rule.allow, "type": rule.type, **given, "access": rule.access}


def _without_empty(value: dict[str, Any]) -> dict[str, Any]:
    """Leave out what says nothing: null, "", [] and {}; 0 and false stay.

    What the user wrote (an annotation of "", a whole seccomp profile) is not looked into."""
    found = {}
    for key, member in value.items():
        if isinstance(member, dict) and key not in ("annotations", "sysctl", "seccomp", "unified"):
            member = _without_empty(member)
        elif isinstance(member, list):
            member = [_without_empty(m) if isinstance(m, dict) else m for m in member]
        if member is not None and (member not in ("", [], {}) or key == "seccomp"):
            found[key] = member
    return found
