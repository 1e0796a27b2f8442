"""RunOptions: what a container was asked to be, in docker's terms, every value understood.

The command line makes one from flags, a Python program writes one by hand::

    RunOptions(command=("ls", "/data"), mounts=(volume("/srv:/data:ro"),), cap_drop=("ALL",))

The fields are docker's flags; docker-run(1) says what each means.  ``check`` refuses options that
contradict each other before anything is fetched or made.
"""

from __future__ import annotations

from minicontainer.errors import UsageError
from minicontainer.spec import (
    DEFAULT_CAPABILITIES,
    Device,
    IdMap,
    Mount,
    Rlimit,
    Seccomp,
    TimeOffset,
)
from minicontainer.step import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minicontainer.resources import Resources

SHM_SIZE = 64 << 20
CGROUP_PARENT = "/minicontainer"

# field -> docker's word for it in its error, and what it may be here
_MODES = {
    "pid": ("PID", ("private", "host")),
    "ipc": ("IPC", ("private", "host")),
    "uts": ("UTS", ("private", "host")),
    "cgroupns": ("CGROUP", ("private", "host")),
}


class RunOptions(Record):
    """What ``run`` was asked for.  Each field is a flag of docker's with its value understood;
    the default is what docker does when the flag is not given."""

    command: tuple[str, ...] = ()  # the words after IMAGE
    entrypoint: str | None = None  # "" takes the image's away
    env: tuple[str, ...] = ()  # NAME=VALUE sets, NAME alone takes away
    workdir: str = ""
    user: str = ""
    group_add: tuple[str, ...] = ()
    terminal: bool = False
    init: bool = False
    hostname: str = ""
    domainname: str = ""
    mounts: tuple[Mount, ...] = ()
    shm_size: int = SHM_SIZE  # bytes
    read_only: bool = False
    rlimits: tuple[Rlimit, ...] = ()
    oom_score_adj: int | None = None
    privileged: bool = False
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    seccomp: Seccomp | None = Seccomp()
    no_new_privileges: bool = False
    system_paths: bool = True  # False: /proc and /sys unmasked (systempaths=unconfined)
    network: str = "none"  # none, host
    pid: str = "private"  # private, host
    ipc: str = "private"
    uts: str = "private"
    cgroupns: str = "private"
    cgroup_parent: str = CGROUP_PARENT
    uid_mappings: tuple[IdMap, ...] = ()  # () is the host's user namespace
    gid_mappings: tuple[IdMap, ...] = ()
    time_offsets: tuple[TimeOffset, ...] = ()
    sysctl: tuple[tuple[str, str], ...] = ()
    devices: tuple[Device, ...] = ()
    resources: Resources | None = None
    extra_hosts: tuple[tuple[str, str], ...] = ()  # (name, address)
    resolv_conf: tuple[str, ...] = ()  # lines of resolv.conf(5)
    annotations: tuple[tuple[str, str], ...] = ()


# single files that may cover procfs (lxcfs makes them); anything else there could redirect
# what the runtime itself writes to /proc/self: CVE-2019-16884, CVE-2025-52881; the list is runc's
_OVER_PROC = (
    "/proc/cpuinfo", "/proc/diskstats", "/proc/meminfo", "/proc/stat", "/proc/swaps",
    "/proc/uptime", "/proc/loadavg", "/proc/slabinfo", "/proc/net/dev",
)  # fmt: skip


def check(options: RunOptions) -> None:
    """Refuse options that contradict each other, in docker's words.  Raises UsageError.

    Needs no image: the command line calls it before anything is fetched or made."""
    for field, (word, modes) in _MODES.items():
        mode = getattr(options, field)
        if mode.startswith("container:"):
            raise UsageError(f"--{field} {mode} is not supported yet: joining another container")
        if mode not in modes:
            raise UsageError(f"--{field}: invalid {word} mode: '{mode}'", " or ".join(modes))
    if options.network not in ("none", "host"):
        raise UsageError(
            f"--network {options.network} is not supported yet: there is no bridge to plug into",
            "--network none has only loopback; --network host shares the host's network",
        )
    if options.uts == "host" and (options.hostname or options.domainname):
        raise UsageError("conflicting options: hostname and the UTS mode")
    if options.uid_mappings:
        for shared, what in (
            (options.privileged, "privileged mode is incompatible with user namespaces"),
            (options.network == "host", "cannot share the host's network namespace when user "
             "namespaces are enabled"),
            (options.pid == "host", "cannot share the host PID namespace when user namespaces "
             "are enabled"),
            (options.ipc == "host", "cannot share the host's IPC namespace when user namespaces "
             "are enabled"),
        ):  # fmt: skip
            if shared:
                raise UsageError(what, "leave --userns out, or set it to host")
    for name, _ in options.sysctl:
        mode = options.network if name.startswith("net.") else options.ipc
        if mode == "host":
            raise UsageError(f"sysctl '{name}' would be the host's: that namespace is shared")
    seen: set[str] = set()
    for mount in options.mounts:
        if mount.destination in seen:
            raise UsageError(f"Duplicate mount point: {mount.destination}")
        seen.add(mount.destination)
        if f"{mount.destination}/".startswith("/proc/") and mount.destination not in _OVER_PROC:
            raise UsageError(
                f"{mount.destination} cannot be mounted because it is inside /proc",
                "mount it elsewhere, as in -v /proc:/host/proc:ro",
            )
    if options.workdir and not options.workdir.startswith("/"):
        raise UsageError(
            f"the working directory '{options.workdir}' is invalid, it needs to be an absolute path"
        )
    if options.hostname or options.domainname:
        from minicontainer.values import hostname

        hostname(options.hostname or "x")
        hostname(options.domainname or "x")
    if ".." in options.cgroup_parent.split("/"):
        raise UsageError(f"the parent cgroup '{options.cgroup_parent}' must not contain '..'")
    if options.oom_score_adj is not None and not -1000 <= options.oom_score_adj <= 1000:
        raise UsageError(
            f"Invalid value {options.oom_score_adj}, range for oom score adj is [-1000, 1000]"
        )
    capabilities(options)


def capabilities(options: RunOptions) -> tuple[str, ...]:
    """docker's set, tweaked by --cap-add and --cap-drop as moby does; in the kernel's order.

    ALL in --cap-add wins over ALL in --cap-drop.  Raises UsageError for an unknown name."""
    if not (options.privileged or options.cap_add or options.cap_drop):
        return DEFAULT_CAPABILITIES
    from minicontainer.kernel.capabilities import NAMES

    if options.privileged:
        return NAMES
    add = {capability(name) for name in options.cap_add}
    drop = {capability(name) for name in options.cap_drop}
    if "ALL" in add:
        kept = set(NAMES) - drop
    elif "ALL" in drop:
        kept = add
    else:
        kept = set(DEFAULT_CAPABILITIES) - drop | add
    return tuple(name for name in NAMES if name in kept)


def capability(text: str) -> str:
    """A capability's full name: net_raw, NET_RAW and CAP_NET_RAW are one; all is ALL.

    Raises UsageError."""
    from minicontainer.kernel.capabilities import NAMES

    name = text.upper()
    if name == "ALL":
        return name
    name = name if name.startswith("CAP_") else f"CAP_{name}"
    if name not in NAMES:
        raise UsageError(f'unknown capability: "{name}"', "known are ALL, " + ", ".join(NAMES))
    return name
