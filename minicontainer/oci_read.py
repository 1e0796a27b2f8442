"""config.json to Spec: the OCI runtime specification's words, each understood or refused.

A field is one of four things here:

* understood: it becomes a field of the Spec, checked for its type and range;
* not supported yet: refused by its path, unless it only says "nothing" (0, "", [], {}), as the
  files that docker and podman write often do.  A wall that was asked for and not built must not
  look as if it stood;
* unknown: ignored, as the specification demands ("Extensibility");
* for another operating system: refused, for that is no container that could run here.

Specs: runtime-spec, config.md and config-linux.md (1.0 to 1.2).  Checks that span several fields
are in validate.py.
"""

from __future__ import annotations

import os

from minicontainer.kernel.capabilities import NAMES
from minicontainer.kernel.rlimits import NUMBERS
from minicontainer.mountcalls import PROPAGATION
from minicontainer.oci_devices import device_node, device_rule
from minicontainer.oci_json import Json
from minicontainer.oci_resources import read_resources
from minicontainer.spec import (
    Capabilities,
    IdMap,
    Linux,
    Mount,
    Namespace,
    Process,
    Rlimit,
    Root,
    Seccomp,
    Spec,
    TimeOffset,
    User,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Warn = Callable[[str], None]

NAMESPACES = ("pid", "network", "ipc", "uts", "mount", "cgroup", "user", "time")
CLOCKS = ("boottime", "monotonic")
RLIM_INFINITY = (1 << 64) - 1  # the file's word for what the Spec calls -1

_NOT_YET = (
    "hooks", "process.ioPriority", "process.scheduler", "process.execCPUAffinity",
    "linux.intelRdt", "linux.mountLabel", "linux.netDevices", "linux.memoryPolicy",
    # other systems' sections
    "windows", "solaris", "vm", "zos", "freebsd",
)  # fmt: skip
# extensions of runc to mount(8)'s words
_MOUNT_OPTIONS_NOT_YET = ("idmap", "ridmap", "tmpcopyup", "copy-symlink", "dest-nofollow")


def parse_config(text: str, bundle: str, warn: Warn = lambda sentence: None) -> Spec:
    """The Spec that a config.json with this ``text`` describes; relative paths are ``bundle``'s.

    ``warn`` is called with what is weaker than the file says.  Raises UsageError naming the JSON
    path of what is wrong or not supported yet."""
    config = Json.parse(text)
    _version(config["ociVersion"])
    for path in _NOT_YET:
        value = config
        for key in path.split("."):
            value = value[key]
        value.refuse_what_it_says()
    if config["process"].absent:
        config["process"].fail("is missing: there is nothing to run")
    return Spec(
        process=_process(config["process"], warn),
        root=_root(config["root"], bundle),
        hostname=config["hostname"].text(""),
        domainname=config["domainname"].text(""),
        mounts=tuple([_mount(mount, bundle) for mount in config["mounts"].items()]),
        linux=_linux(config["linux"]),
        annotations=_pairs(config["annotations"]),
    )


def _version(version: Json) -> None:
    parts = version.text().partition("-")[0].partition("+")[0].split(".")
    if parts[0] != "1" or len(parts) != 3 or not all(part.isdecimal() for part in parts):
        version.fail(f"is {version.value!r}; minicontainer understands 1.x.y")


def _pairs(value: Json) -> tuple[tuple[str, str], ...]:
    return tuple([(key, member.text()) for key, member in value.members()])


# ---- config.md: process, root, mounts


def _process(process: Json, warn: Warn) -> Process:
    args = process["args"].texts()
    if not args or not args[0]:
        process["args"].fail("must name a program")
    env = {entry.partition("=")[0]: entry for entry in process["env"].texts()}  # the last one wins
    for entry in process["env"].items():
        if entry.text().find("=") < 1:
            entry.fail(f"must be NAME=value, not {entry.text()!r}")
    size = process["consoleSize"]
    limits = tuple([_rlimit(limit) for limit in process["rlimits"].items()])
    if len({limit.type for limit in limits}) < len(limits):
        process["rlimits"].fail("has two entries of one type")
    score = process["oomScoreAdj"]
    return Process(
        args=args,
        env=tuple(env.values()),
        cwd=process["cwd"].absolute(),
        terminal=process["terminal"].boolean(),
        console_size=(size["height"].integer(0, 65535, 0), size["width"].integer(0, 65535, 0)),
        user=_user(process["user"]),
        capabilities=_capabilities(process["capabilities"], warn),
        rlimits=limits,
        no_new_privileges=process["noNewPrivileges"].boolean(),
        apparmor_profile=process["apparmorProfile"].text(""),
        selinux_label=process["selinuxLabel"].text(""),
        oom_score_adj=None if score.absent else score.integer(-1000, 1000),
    )


def _user(user: Json) -> User:
    # "username" is Windows': here names mean nothing before the root is in place
    return User(
        uid=user["uid"].identifier(0),
        gid=user["gid"].identifier(0),
        additional_gids=tuple([g.identifier() for g in user["additionalGids"].items("numbers")]),
        umask=user["umask"].integer(0, 0o777, -1),
    )


def _capabilities(sets: Json, warn: Warn) -> Capabilities:
    """The five sets; a missing one is empty, and so are all if there is none: as runc has it."""

    def known(name: str) -> tuple[str, ...]:
        wanted = sets[name].texts()
        # The specification: what no kernel interface knows is a warning, not an error.
        if unknown := [word for word in wanted if word not in NAMES]:
            warn(f"config.json: {sets[name].path}: unknown, left out: {', '.join(unknown)}")
        return tuple(dict.fromkeys(word for word in wanted if word in NAMES))

    found = Capabilities(*[known(name) for name in Capabilities._fields])
    grantable = set(found.permitted) & set(found.inheritable)
    if lost := [name for name in found.ambient if name not in grantable]:
        warn(
            f"config.json: {sets['ambient'].path}: {', '.join(lost)} left out: the kernel raises "
            "only what is permitted and inheritable too"
        )
    return found


def _rlimit(limit: Json) -> Rlimit:
    hard = limit["hard"].integer(0, RLIM_INFINITY)
    soft = limit["soft"].integer(0, RLIM_INFINITY)
    if soft > hard:
        limit["soft"].fail("is above the hard limit")
    # Python's resource module takes a signed number, in which -1 is "unlimited"
    soft, hard = (n - (1 << 64) if n >= 1 << 63 else n for n in (soft, hard))
    return Rlimit(limit["type"].text(among=NUMBERS), soft, hard)


def _root(root: Json, bundle: str) -> Root:
    path = root["path"].text()
    if not path:
        root["path"].fail("is empty")
    return Root(path=_below(bundle, path), readonly=root["readonly"].boolean())


def _mount(mount: Json, bundle: str) -> Mount:
    destination = mount["destination"].absolute()
    if destination == "/":
        mount["destination"].fail("is the root itself, which root.path gives")
    for maps in ("uidMappings", "gidMappings"):
        mount[maps].refuse_what_it_says()
    options = mount["options"].texts()
    for option in mount["options"].items():
        if option.text() in _MOUNT_OPTIONS_NOT_YET:
            option.fail(f"{option.value!r} is not supported yet")
        # one string is handed to the kernel, which would take a comma for the next option
        if not option.value or "," in option.value:
            option.fail(f"is {option.value!r}, which is not one option")
    kind, source = mount["type"].text(""), mount["source"].text("")
    if kind == "bind" or "bind" in options or "rbind" in options:
        if not source:
            mount["source"].fail("is missing: what shall be bound?")
        kind, source = "bind", _below(bundle, source)
    elif not kind:
        mount["type"].fail("is missing: which file system?")
    return Mount(destination, kind, source, options)


def _below(bundle: str, path: str) -> str:
    return os.path.normpath(os.path.join(bundle, path))


# ---- config-linux.md


def _linux(linux: Json) -> Linux:
    if not linux["personality"].absent:
        linux["personality"]["domain"].text(among=("LINUX",))
        linux["personality"]["flags"].refuse_what_it_says()
    seccomp = linux["seccomp"]
    return Linux(
        namespaces=_namespaces(linux["namespaces"]),
        uid_mappings=_id_maps(linux["uidMappings"]),
        gid_mappings=_id_maps(linux["gidMappings"]),
        time_offsets=_time_offsets(linux["timeOffsets"]),
        devices=tuple([device_node(device) for device in linux["devices"].items()]),
        device_rules=tuple([device_rule(r) for r in linux["resources"]["devices"].items()]),
        cgroups_path=_cgroups_path(linux["cgroupsPath"]),
        resources=read_resources(linux["resources"]),
        sysctl=_pairs(linux["sysctl"]),
        seccomp=None if seccomp.absent else Seccomp(json_text(seccomp.value)),
        masked_paths=tuple([p.absolute() for p in linux["maskedPaths"].items("strings")]),
        readonly_paths=tuple([p.absolute() for p in linux["readonlyPaths"].items("strings")]),
        rootfs_propagation=linux["rootfsPropagation"].text("", among=("", *PROPAGATION)),
    )


def _namespaces(namespaces: Json) -> tuple[Namespace, ...]:
    found: list[Namespace] = []
    for entry in namespaces.items():
        kind = entry["type"].text(among=NAMESPACES)
        if kind in [other.type for other in found]:
            entry["type"].fail(f"{kind!r} is there twice")
        path = entry["path"]
        found.append(Namespace(kind, path.absolute() if path.text("") else ""))
    return tuple(found)


def _id_maps(maps: Json) -> tuple[IdMap, ...]:
    return tuple(
        [
            IdMap(
                entry["containerID"].identifier(),
                entry["hostID"].identifier(),
                entry["size"].integer(1, 0xFFFFFFFF),
            )
            for entry in maps.items()
        ]
    )


def _time_offsets(offsets: Json) -> tuple[TimeOffset, ...]:
    found = []
    for clock, offset in offsets.members():
        if clock not in CLOCKS:
            offset.fail(f"names no clock that can be shifted: {', '.join(CLOCKS)}")
        seconds = offset["secs"].integer(-(1 << 33), 1 << 33, 0)
        found.append(TimeOffset(clock, seconds, offset["nanosecs"].integer(0, 999_999_999, 0)))
    return tuple(found)


def _cgroups_path(path: Json) -> str:
    text = path.text("")
    if text.count(":") == 2 and not text.startswith("/"):
        path.fail(f"is systemd's form ({text}), which is not supported yet", "as in /parent/name")
    if ".." in text.split("/"):
        path.fail("must not climb with '..'")
    # relative: to a place of the runtime's choice, says the specification; ours is the root
    return os.path.normpath("/" + text.lstrip("/")) if text else ""


def json_text(value: object) -> str:
    """JSON in its shortest form: the Spec keeps a seccomp profile as text."""
    import json

    return json.dumps(value, separators=(",", ":"))
