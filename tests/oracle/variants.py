"""The containers that are compared: one config.json, changed in one point each."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, NamedTuple

from tests.oracle.oracle import CGROUP, PROBE

Config = dict[str, Any]

CAPABILITIES = [
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID",
    "CAP_SETUID", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_NET_RAW", "CAP_SYS_CHROOT",
    "CAP_MKNOD", "CAP_AUDIT_WRITE", "CAP_SETFCAP",
]  # fmt: skip


def mount(destination: str, kind: str, source: str, *options: str) -> Config:
    return {"destination": destination, "type": kind, "source": source, "options": [*options]}


# What docker writes for `docker run --network none alpine`, as far as it says something.
BASE: Config = {
    "ociVersion": "1.0.2",
    "process": {
        "user": {"uid": 0, "gid": 0},
        "args": ["/bin/sh", "-c", PROBE],
        "env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOSTNAME=box"],
        "cwd": "/",
        "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), CAPABILITIES),
        "noNewPrivileges": False,
    },
    "root": {"path": "rootfs"},
    "hostname": "box",
    "mounts": [
        mount("/proc", "proc", "proc", "nosuid", "noexec", "nodev"),
        mount("/dev", "tmpfs", "tmpfs", "nosuid", "strictatime", "mode=755", "size=65536k"),
        mount("/dev/pts", "devpts", "devpts", "nosuid", "noexec", "newinstance", "ptmxmode=0666",
              "mode=0620", "gid=5"),
        mount("/sys", "sysfs", "sysfs", "nosuid", "noexec", "nodev", "ro"),
        mount("/sys/fs/cgroup", "cgroup", "cgroup", "ro", "nosuid", "noexec", "nodev"),
        mount("/dev/mqueue", "mqueue", "mqueue", "nosuid", "noexec", "nodev"),
        mount("/dev/shm", "tmpfs", "shm", "nosuid", "noexec", "nodev", "mode=1777", "size=65536k"),
    ],
    "linux": {
        "cgroupsPath": CGROUP,
        "namespaces": [
            {"type": kind} for kind in ("pid", "network", "ipc", "uts", "mount", "cgroup")
        ],
        "maskedPaths": ["/proc/acpi", "/proc/interrupts", "/proc/kcore", "/proc/keys",
                        "/proc/timer_list", "/sys/firmware"],
        "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
    },
}  # fmt: skip


class Variant(NamedTuple):
    """A change to BASE, and how the run differs (Lab.observe's keywords)."""

    name: str
    change: Callable[[Config], object]
    how: dict[str, Any] = {}
    oracles: tuple[str, ...] = ("runc", "crun")

    def config(self) -> Config:
        config = copy.deepcopy(BASE)
        self.change(config)
        return config


# ---- ways to change


def set_(path: str, value: Any) -> Callable[[Config], object]:
    """``config.path = value``."""

    def change(config: Config) -> None:
        *parents, last = path.split(".")
        for key in parents:
            config = config.setdefault(key, {})
        config[last] = value

    return change


def add(path: str, *values: Any) -> Callable[[Config], object]:
    """``config.path += values``."""

    def change(config: Config) -> None:
        *parents, last = path.split(".")
        for key in parents:
            config = config[key]
        config[last] = [*config.get(last, []), *values]

    return change


def no_namespace(kind: str) -> Callable[[Config], object]:
    def change(config: Config) -> None:
        config["linux"]["namespaces"].remove({"type": kind})
        if kind == "uts":
            del config["hostname"]

    return change


def mounts(*wanted: Config) -> Callable[[Config], object]:
    return add("mounts", *wanted)


def without_mounts(*destinations: str) -> Callable[[Config], object]:
    def change(config: Config) -> None:
        kept = [m for m in config["mounts"] if m["destination"] not in destinations]
        config["mounts"] = kept

    return change


def all_of(*changes: Callable[[Config], object]) -> Callable[[Config], object]:
    def change(config: Config) -> None:
        for one in changes:
            one(config)

    return change


def capabilities(**sets: list[str]) -> Callable[[Config], object]:
    return set_("process.capabilities", sets)


def binds(*options: str) -> Callable[[Config], object]:
    """A file system with another one below it, bound once for each of these."""
    return mounts(
        *(
            mount(f"/mnt/{words.replace(' ', '-')}", "none", "source", *words.split())
            for words in options
        )
    )


def seccomp(action: str, *names: str, **more: Any) -> Config:
    return {
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_AARCH64"],
        "syscalls": [{"names": [*names], "action": action, **more}],
    }


def user_namespace(*more: Callable[[Config], object]) -> Callable[[Config], object]:
    maps = [{"containerID": 0, "hostID": 100000, "size": 65536}]
    return all_of(
        add("linux.namespaces", {"type": "user"}),
        set_("linux.uidMappings", maps), set_("linux.gidMappings", maps), *more,
    )  # fmt: skip


def program(*args: str) -> Callable[[Config], object]:
    return set_("process.args", [*args])


ALL_BOUND = {"bounding": ["CAP_SYS_ADMIN", *CAPABILITIES], "permitted": ["CAP_SYS_ADMIN"],
             "effective": ["CAP_SYS_ADMIN"]}  # fmt: skip
AMBIENT = ["CAP_NET_BIND_SERVICE", "CAP_CHOWN"]
PROPAGATIONS = (
    "private", "rprivate", "slave", "rslave", "shared", "rshared", "unbindable", "runbindable"
)  # fmt: skip
USER = {"uid": 1000, "gid": 1001, "additionalGids": [5, 2000], "umask": 0o077}

VARIANTS = (
    Variant("base", lambda config: None),
    # namespaces
    *(Variant(f"no-{kind}", no_namespace(kind))
      for kind in ("pid", "network", "ipc", "uts", "cgroup")),
    Variant("user-namespace", user_namespace()),
    Variant("user-namespace-user", user_namespace(set_("process.user", USER))),
    Variant("user-namespace-limits", user_namespace(set_("process.rlimits", [
        {"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200}]))),
    Variant("joined", set_("linux.namespaces", [
        {"type": "mount"}, {"type": "cgroup"}, {"type": "pid"},
        *({"type": kind, "path": f"JOIN/{file}"}
          for kind, file in (("network", "net"), ("ipc", "ipc"), ("uts", "uts")))])),
    Variant("joined-pid", set_("linux.namespaces", [
        *(n for n in BASE["linux"]["namespaces"] if n["type"] != "pid"),
        {"type": "pid", "path": "JOIN/pid_for_children"}])),
    # the process
    Variant("user", set_("process.user", USER)),
    Variant("user-unknown", set_("process.user", {"uid": 4242, "gid": 4242})),
    Variant("groups-of-root", set_("process.user.additionalGids", [10, 27])),
    Variant("no-capabilities", lambda config: config["process"].pop("capabilities")),
    Variant("few-capabilities", capabilities(
        bounding=["CAP_KILL"], effective=["CAP_KILL"], permitted=["CAP_KILL"])),
    Variant("admin", capabilities(**ALL_BOUND)),
    Variant("ambient", all_of(set_("process.user", USER), capabilities(
        bounding=CAPABILITIES, effective=AMBIENT, permitted=AMBIENT, inheritable=AMBIENT,
        ambient=AMBIENT))),
    Variant("ambient-alone", all_of(set_("process.user", USER), capabilities(
        bounding=CAPABILITIES, effective=CAPABILITIES, permitted=CAPABILITIES, ambient=AMBIENT))),
    Variant("unknown-capability", capabilities(
        bounding=["CAP_KILL", "CAP_TEA"], effective=["CAP_TEA"], permitted=["CAP_KILL"])),
    Variant("no-new-privileges", set_("process.noNewPrivileges", True)),
    Variant("limits", set_("process.rlimits", [
        {"type": "RLIMIT_NOFILE", "soft": 64, "hard": 1024},
        {"type": "RLIMIT_CORE", "soft": 0, "hard": 0}])),
    Variant("oom-score", set_("process.oomScoreAdj", 500)),
    Variant("environment-empty", set_("process.env", [])),
    Variant("environment", set_("process.env", [
        "PATH=/bin:/usr/bin", "HOME=/there", "A=", "B=a=b c", "A=2"])),
    Variant("cwd", set_("process.cwd", "/usr/../etc")),
    Variant("cwd-missing", set_("process.cwd", "/not/there/yet")),
    Variant("cwd-missing-readonly", all_of(
        set_("process.cwd", "/not/there/yet"), set_("root.readonly", True))),
    Variant("cwd-file", set_("process.cwd", "/etc/passwd")),
    Variant("terminal", set_("process.terminal", True), {"terminal": True}),
    Variant("terminal-size", all_of(
        set_("process.terminal", True), set_("process.consoleSize", {"height": 7, "width": 11})),
        {"terminal": True}),
    Variant("terminal-user", all_of(set_("process.terminal", True), set_("process.user", USER)),
            {"terminal": True}),
    Variant("ignored-signals", lambda config: None, {"ignore_signals": True}),
    # how it ends
    Variant("exit-3", lambda config: None, {"finish": "exit 3"}),
    Variant("killed", lambda config: None, {"finish": "container 9"}),
    Variant("terminated", no_namespace("pid"), {"finish": "container 15"}),
    Variant("terminated-runtime", no_namespace("pid"), {"finish": "runtime 15"}),
    # the program
    Variant("not-found", program("/bin/nothing")),
    Variant("not-in-path", program("nothing")),
    Variant("in-path", program("sh", "-c", PROBE)),
    Variant("other-program", program("/bin/ls", "/", "/proc/self/fd")),
    Variant("relative", all_of(set_("process.cwd", "/bin"), program("./sh", "-c", PROBE))),
    Variant("not-executable", program("/etc/passwd")),
    Variant("directory", program("/etc")),
    Variant("not-a-program", all_of(
        program("/bin/odd"), mounts(mount("/bin/odd", "bind", "odd", "bind")))),
    Variant("no-interpreter", all_of(
        program("/bin/script"), mounts(mount("/bin/script", "bind", "script", "bind")))),
    # seccomp
    Variant("seccomp", set_("linux.seccomp", seccomp(
        "SCMP_ACT_ERRNO", "unshare", "chroot", errnoRet=38))),
    Variant("seccomp-no-new-privileges", all_of(
        set_("linux.seccomp", seccomp("SCMP_ACT_ERRNO", "unshare", "chroot", errnoRet=38)),
        set_("process.noNewPrivileges", True))),
    Variant("seccomp-kill", set_("linux.seccomp", seccomp("SCMP_ACT_KILL_PROCESS", "chroot"))),
    # mounts
    Variant("readonly-root", set_("root.readonly", True)),
    Variant("tmpfs", mounts(
        mount("/tmp", "tmpfs", "tmpfs"), mount("/mnt/new", "tmpfs", "tmpfs"),
        mount("/srv", "tmpfs", "here", "noexec", "size=1m", "mode=750", "uid=7", "gid=8"),
        mount("/mnt/more", "tmpfs", "tmpfs", "nr_inodes=64", "noatime", "sync", "dirsync"),
        mount("/mnt/read", "tmpfs", "tmpfs", "ro", "nosuid"),
        mount("/var/run/links", "tmpfs", "tmpfs", "nodev"))),
    Variant("tmpfs-readonly-existing", mounts(mount("/srv", "tmpfs", "tmpfs", "ro"))),
    Variant("binds", binds(
        "bind", "rbind", "bind ro", "rbind ro", "bind nosuid nodev noexec", "rbind rro",
        "rbind rnosuid rnoexec", "bind noatime", "bind strictatime", "bind relatime",
        "bind nodiratime", "bind nosymfollow", "bind ro rw", "bind sync")),
    Variant("bind-files", mounts(
        mount("/etc/motd", "bind", "config.json", "bind", "ro"),
        mount("/mnt/a/b/file", "bind", "config.json", "rbind"),
        mount("/proc/meminfo", "bind", "config.json", "bind", "ro"))),
    Variant("bind-missing", mounts(mount("/mnt", "bind", "/no/such/source", "bind"))),
    Variant("bind-propagation", binds(*(f"rbind {word}" for word in PROPAGATIONS))),
    Variant("bind-propagation-shared", binds("rbind", "rbind private", "rbind rslave"),
            {"shared": True}),
    Variant("shared-root", lambda config: None, {"shared": True}),
    *(Variant(f"rootfs-{word}", set_("linux.rootfsPropagation", word), {"shared": True})
      for word in PROPAGATIONS),
    Variant("rootfs-rslave-binds", all_of(
        binds("rbind", "rbind rshared"), set_("linux.rootfsPropagation", "rslave")),
        {"shared": True}),
    Variant("over-proc", all_of(
        program("/bin/true"), mounts(mount("/proc/sys", "bind", "source", "bind")))),
    Variant("over-proc-by-link", all_of(
        program("/bin/true"), mounts(mount("/dev/fd", "bind", "source", "bind")))),
    Variant("over-proc-tmpfs", all_of(
        program("/bin/true"), mounts(mount("/proc/sys", "tmpfs", "tmpfs")))),
    Variant("over-proc-itself", all_of(
        program("/bin/true"), without_mounts("/proc"), mounts(mount("/proc", "tmpfs", "tmpfs")))),
    Variant("no-dev", without_mounts("/dev", "/dev/pts", "/dev/mqueue", "/dev/shm")),
    Variant("readonly-dev", all_of(without_mounts("/dev", "/dev/pts", "/dev/mqueue", "/dev/shm"),
                                   mounts(mount("/dev", "tmpfs", "tmpfs", "ro", "mode=755"),
                                          mount("/dev/shm", "tmpfs", "shm")))),
    Variant("no-cgroup-mount", without_mounts("/sys/fs/cgroup")),
    Variant("readonly-proc", all_of(
        without_mounts("/proc"), mounts(mount("/proc", "proc", "proc", "ro", "hidepid=2")))),
    # the rest of linux
    Variant("sysctl", set_("linux.sysctl", {
        "net.ipv4.ping_group_range": "0 1000", "kernel.msgmax": "4096",
        "fs.mqueue.msg_max": "20", "net.ipv4.ip_unprivileged_port_start": "80"})),
    Variant("sysctl-of-the-host", set_("linux.sysctl", {"kernel.panic": "0"})),
    Variant("sysctl-without-namespace", all_of(
        no_namespace("network"), set_("linux.sysctl", {"net.ipv4.ip_forward": "0"}))),
    Variant("devices", set_("linux.devices", [
        {"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 0o600,
         "uid": 1, "gid": 2},
        {"path": "/dev/deep/er/loop", "type": "b", "major": 7, "minor": 0, "fileMode": 0o60660},
        {"path": "/dev/pipe", "type": "p", "fileMode": 0o622},
        {"path": "/dev/zero", "type": "c", "major": 1, "minor": 5, "fileMode": 0o444}])),
    # crun raises its limit of locked memory for this, for which not every root has the right
    Variant("device-rules", set_("linux.resources.devices", [
        {"allow": False, "access": "rwm"},
        {"allow": True, "type": "b", "major": 7, "access": "rm"}]), oracles=("runc",)),
    Variant("device-rules-none", set_("linux.resources.devices", [
        {"allow": False, "access": "rwm"}]), oracles=("runc",)),
    Variant("no-masks", all_of(
        set_("linux.maskedPaths", []), set_("linux.readonlyPaths", []))),
    Variant("own-masks", all_of(
        set_("linux.maskedPaths", ["/etc/passwd", "/etc/apk", "/no/such", "/proc/version"]),
        set_("linux.readonlyPaths", ["/etc/hosts", "/tmp", "/no/such"]))),
    Variant("no-hostname", lambda config: config.pop("hostname")),
    Variant("no-cgroups-path", lambda config: config["linux"].pop("cgroupsPath")),
    Variant("unknown-properties", all_of(
        set_("tea", {"sugar": 2}), set_("linux.tea", [1]), set_("process.tea", None))),
    Variant("annotations", set_("annotations", {"com.example.key": "value"})),
)  # fmt: skip

# What the oracles of today do not have.
ALONE = (
    Variant("time-namespace", all_of(
        add("linux.namespaces", {"type": "time"}),
        set_("linux.timeOffsets", {"boottime": {"secs": 86400}, "monotonic": {"nanosecs": 500}}))),
)  # fmt: skip
