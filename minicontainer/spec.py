"""The Spec: what a container shall be, as one frozen value shaped like OCI's config.json.

Every entrance makes one (the docker-like command line, an OCI bundle, a demo, a Python program)
and ``plan.py`` turns it into Steps.  A Spec is data: making one does nothing.

Fields carry the names and meanings of the OCI runtime specification (config.md, config-linux.md)
in snake_case; the few that OCI does not have are marked "ours".
"""

from __future__ import annotations

from minicontainer.step import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minicontainer.resources import Resources

# docker's default set, in the kernel's order (moby: oci/caps/defaults.go)
DEFAULT_CAPABILITIES = (
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID",
    "CAP_SETUID", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_NET_RAW", "CAP_SYS_CHROOT",
    "CAP_MKNOD", "CAP_AUDIT_WRITE", "CAP_SETFCAP",
)  # fmt: skip

# what docker hides and write-protects (moby: oci/defaults.go)
DEFAULT_MASKED_PATHS = (
    "/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys",
    "/proc/latency_stats", "/proc/sched_debug", "/proc/scsi", "/proc/timer_list",
    "/proc/timer_stats", "/sys/devices/virtual/powercap", "/sys/firmware",
)  # fmt: skip
DEFAULT_READONLY_PATHS = (
    "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger",
)  # fmt: skip

DEFAULT_NAMESPACES = ("pid", "network", "ipc", "uts", "mount", "cgroup")

DEFAULT_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Namespace(Record):
    """config-linux.md, "namespaces": a ``type`` to be born in, or, with ``path``, to join."""

    type: str  # pid network ipc uts mount cgroup user time
    path: str = ""


class IdMap(Record):
    """config-linux.md, "uidMappings": ``size`` ids from ``container_id`` are ``host_id``..."""

    container_id: int
    host_id: int
    size: int


class TimeOffset(Record):
    """config-linux.md, "timeOffsets": what a time namespace adds to a clock."""

    clock: str  # "monotonic" or "boottime"
    seconds: int
    nanoseconds: int = 0


class Mount(Record):
    """config.md, "mounts": options in mount(8)'s words ("ro", "nosuid", "rbind", "size=64k")."""

    destination: str
    type: str = ""
    source: str = ""
    options: tuple[str, ...] = ()


class Device(Record):
    """config-linux.md, "devices": a node to be made in /dev.  ``access`` (ours) is docker's: which
    of r(ead), w(rite), m(knod) the container may; "" leaves that to the device rules, as OCI does.
    """

    path: str
    type: str = "c"  # c b p u
    major: int = 0
    minor: int = 0
    file_mode: int = 0o666
    uid: int = 0
    gid: int = 0
    access: str = "rwm"


class DeviceRule(Record):
    """config-linux.md, "resources.devices": what may be done with which devices; -1 is any number.
    They are applied in their order, before what each container may do (kernel/devicefilter.py)."""

    allow: bool
    type: str = "a"  # a(ll) c b
    major: int = -1
    minor: int = -1
    access: str = "rwm"


ALL_DEVICES = DeviceRule(allow=True)  # docker's --privileged: no filter


def uses(devices: tuple[Device, ...]) -> tuple[DeviceRule, ...]:
    """The rules that the devices' ``access`` stands for; a fifo (p) needs none, u is a c."""
    return tuple(
        DeviceRule(True, d.type.replace("u", "c"), d.major, d.minor, d.access)
        for d in devices
        if d.access and d.type != "p"
    )


class Rlimit(Record):
    """config.md, "rlimits": getrlimit(2)'s pair, ``type`` such as RLIMIT_NOFILE, -1 = unlimited."""

    type: str
    soft: int
    hard: int


class Capabilities(Record):
    """config.md, "capabilities": the five sets of capabilities(7), by CAP_ names."""

    bounding: tuple[str, ...] = DEFAULT_CAPABILITIES
    effective: tuple[str, ...] = DEFAULT_CAPABILITIES
    permitted: tuple[str, ...] = DEFAULT_CAPABILITIES
    inheritable: tuple[str, ...] = ()
    ambient: tuple[str, ...] = ()

    @classmethod
    def same(cls, names: tuple[str, ...]) -> Capabilities:
        """docker's shape: bounding = effective = permitted, nothing inheritable or ambient."""
        return cls(bounding=names, effective=names, permitted=names)


class User(Record):
    """config.md, "user".  ``username`` (ours on Linux) is docker's USER[:GROUP], by name or id,
    looked up in the container's own /etc/passwd and /etc/group once its root is in place; when it
    is set, uid, gid and additional_gids are ignored.  ``umask`` -1: left as it is (0022)."""

    uid: int = 0
    gid: int = 0
    additional_gids: tuple[int, ...] = ()
    umask: int = -1
    username: str = ""
    # ours: docker's --group-add, names or numbers, looked up in the same place
    group_names: tuple[str, ...] = ()


class Process(Record):
    """config.md, "process": the program, and what it may do."""

    args: tuple[str, ...]
    env: tuple[str, ...] = (DEFAULT_PATH,)
    cwd: str = "/"
    terminal: bool = False
    console_size: tuple[int, int] = (0, 0)  # rows ("height"), columns ("width"); 0: unknown
    user: User = User()
    capabilities: Capabilities | None = Capabilities()
    rlimits: tuple[Rlimit, ...] = ()
    no_new_privileges: bool = False
    apparmor_profile: str = ""
    selinux_label: str = ""
    oom_score_adj: int | None = None
    # ours: docker's --init, a tiny pid 1 that forwards signals and reaps orphans
    init: bool = False


class Root(Record):
    """config.md, "root": a directory, or (ours) ``layers``, lowest first, to be stacked by
    overlayfs under a writable upper directory that belongs to this container."""

    path: str = ""
    readonly: bool = False
    layers: tuple[str, ...] = ()


class Seccomp(Record):
    """config-linux.md, "seccomp": ``profile`` is the JSON object's text; "default" stands for the
    profile that minicontainer ships (equal in effect to docker's)."""

    profile: str = "default"


class File(Record):
    """Ours: a small file the runtime writes beside the container and bind-mounts at
    ``destination`` (/etc/hosts, /etc/hostname, /etc/resolv.conf)."""

    destination: str
    content: str
    mode: int = 0o644


class Linux(Record):
    """config-linux.md: everything only Linux has."""

    namespaces: tuple[Namespace, ...] = tuple(Namespace(kind) for kind in DEFAULT_NAMESPACES)
    uid_mappings: tuple[IdMap, ...] = ()
    gid_mappings: tuple[IdMap, ...] = ()
    time_offsets: tuple[TimeOffset, ...] = ()
    devices: tuple[Device, ...] = ()
    device_rules: tuple[DeviceRule, ...] = ()
    cgroups_path: str = ""
    resources: Resources | None = None  # limits; None where there are none, so they cost nothing
    sysctl: tuple[tuple[str, str], ...] = ()
    seccomp: Seccomp | None = Seccomp()
    masked_paths: tuple[str, ...] = DEFAULT_MASKED_PATHS
    readonly_paths: tuple[str, ...] = DEFAULT_READONLY_PATHS
    rootfs_propagation: str = ""


# runc spec's mounts, with docker's differences (writable devpts group, 64 MiB of shm)
DEFAULT_MOUNTS = (
    Mount("/proc", "proc", "proc", ("nosuid", "noexec", "nodev")),
    Mount("/dev", "tmpfs", "tmpfs", ("nosuid", "strictatime", "mode=755", "size=65536k")),
    Mount("/dev/pts", "devpts", "devpts",
          ("nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5")),
    Mount("/sys", "sysfs", "sysfs", ("nosuid", "noexec", "nodev", "ro")),
    Mount("/sys/fs/cgroup", "cgroup", "cgroup",
          ("ro", "nosuid", "noexec", "nodev")),
    Mount("/dev/mqueue", "mqueue", "mqueue", ("nosuid", "noexec", "nodev")),
    Mount("/dev/shm", "tmpfs", "shm", ("nosuid", "noexec", "nodev", "mode=1777", "size=65536k")),
)  # fmt: skip


class Spec(Record):
    """A whole container."""

    process: Process
    root: Root
    hostname: str = ""
    domainname: str = ""
    mounts: tuple[Mount, ...] = DEFAULT_MOUNTS
    files: tuple[File, ...] = ()
    linux: Linux = Linux()
    annotations: tuple[tuple[str, str], ...] = ()

    def namespace(self, kind: str) -> Namespace | None:
        """The namespace of this type, if the container has one of its own or joins one."""
        for namespace in self.linux.namespaces:
            if namespace.type == kind:
                return namespace
        return None
