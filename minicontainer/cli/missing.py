"""What docker can do and we cannot yet: a flag of its ``run``, or a verb, that is known is never
"unknown".

Only read when such a word is met (or by a test that compares with docker's own lists).
"""

from __future__ import annotations

_ONLY_V1 = "cgroup v2 has no such limit: -m counts the kernel's memory too, --cpus limits CPU time"
_NETWORK = "containers have no network but loopback (--network none) or the host's (--network host)"
_DETACH = "containers run in the foreground; a shell's & puts one in the background"
_HEALTH = "nothing watches a container from outside yet"
_IMAGE_VOLUMES = "only host directories (-v /host/dir:/dir) and tmpfs can be mounted"
_WINDOWS = "it is for Windows containers"

MISSING = {
    _ONLY_V1: ("kernel-memory", "cpu-rt-period", "cpu-rt-runtime"),
    "devices are allowed together with their nodes, by --device": ("device-cgroup-rule",),
    "GPUs need their vendor's files in the container; --device gives plain nodes": ("gpus",),
    _DETACH: ("detach", "d", "detach-keys", "attach", "a"),
    _NETWORK: (
        "publish", "p", "publish-all", "P", "expose", "ip", "ip6", "link", "link-local-ip",
        "mac-address", "network-alias", "net-alias",
    ),
    _HEALTH: (
        "health-cmd", "health-interval", "health-retries", "health-start-interval",
        "health-start-period", "health-timeout",
    ),
    _IMAGE_VOLUMES: ("volume-driver", "volumes-from", "storage-opt"),
    "a container's output goes where minicontainer's own goes": ("log-driver", "log-opt"),
    "give the labels one by one with --label": ("label-file",),
    "minicontainer is the runtime": ("runtime", "isolation"),
    "there is no daemon, so there is no socket": ("use-api-socket",),
    _WINDOWS: ("cpu-count", "cpu-percent", "io-maxbandwidth", "io-maxiops"),
}  # fmt: skip


def why(name: str) -> str:
    """What is missing for docker's flag ``name`` (long, or one letter), without dashes; ""."""
    for reason, names in MISSING.items():
        if name in names:
            return reason
    return ""


# ---- verbs

_PID = "$(minicontainer inspect -f '{{.State.Pid}}' NAME)"
_FOREGROUND = "a container lives in the foreground of the command that began it"
_GONE = "a container is gone when it ends, and what it wrote outside its volumes with it"
_REGISTRIES = "no registry is spoken to"
_BUILD = "no image is made from a Dockerfile or from a container"
_NO_NETWORK = "containers have no network but loopback, or the host's"
_NO_VOLUMES = "only host directories and tmpfs can be mounted"

# docker's verbs, what is missing, what to do meanwhile
VERBS = (
    (("stop",), "nothing asks a program to end and waits before it insists",
     "minicontainer kill -s TERM NAME asks, minicontainer kill NAME insists"),
    (("start", "restart", "create"), _GONE,
     "minicontainer run makes and starts it, each time anew"),
    (("rm",), _GONE, "there is nothing to remove; minicontainer kill NAME ends one that runs"),
    (("exec",), "no program can join a container",
     f"nsenter -a -t {_PID} sh joins it, but outside its limits and with all of root's power"),
    (("attach",), f"{_FOREGROUND}, and nobody else can share its terminal",
     "run it in tmux or screen, which can be left and come back to"),
    (("logs",), f"{_FOREGROUND}, and its output goes where that command's goes",
     "minicontainer run ... 2>&1 | tee FILE keeps it"),
    (("wait",), f"{_FOREGROUND}, which ends with its exit status",
     f"tail --pid={_PID} -f /dev/null waits in another terminal"),
    (("pull", "push", "login", "logout", "search", "manifest"), _REGISTRIES,
     "minicontainer run alpine fetches by recipe (alpine, busybox, debian); "
     "minicontainer import FILE NAME takes the archive of a root file system"),
    (("build", "builder", "buildx"), _BUILD,
     "minicontainer import -c 'CMD [\"sh\"]' FILE NAME makes one of an archive"),
    (("commit",), _BUILD,
     f"tar -C /proc/{_PID}/root --one-file-system -c . | minicontainer import - NEWNAME"),
    (("export",), "no archive is made of a container's files",
     f"tar -C /proc/{_PID}/root --one-file-system -c . > FILE.tar"),
    (("cp",), "no files are copied in or out",
     f"out: nsenter -a -t {_PID} cat FILE > COPY; in: the same with sh -c 'cat > FILE' < ORIGINAL; "
     "or run it with -v DIR:DIR"),
    (("diff",), "what a container changed is not listed",
     f"it lies in the upper directory of its overlay: grep upperdir= /proc/{_PID}/mountinfo"),
    (("network", "port"), _NO_NETWORK, "minicontainer run --network none or --network host"),
    (("volume",), _NO_VOLUMES, "minicontainer run -v /host/dir:/dir"),
    (("tag",), "an image is named when it is made", "minicontainer import FILE NEWNAME"),
    (("history",), "imported images have one layer, and nothing shows how it was made",
     "minicontainer images lists them"),
    (("events",), "there is no daemon that would tell of them",
     "watch minicontainer ps; strace or bpftrace tell what the kernel does"),
    (("rename",), "a container is named when it is made", "minicontainer run --name NAME"),
    (("save", "load"), "the archives of docker save are neither written nor read",
     "minicontainer import FILE NAME takes docker export's, the archive of a root file system"),
    (("container", "image"), "verbs have only their short names",
     "such as minicontainer ps, inspect, kill, and images, import, rmi"),
    (("info", "system"), "there is no daemon to ask",
     "minicontainer version; du -sh /var/lib/minicontainer; rmi removes images"),
    (("compose", "swarm", "service", "stack", "node", "secret", "config"),
     "one container at a time, on one machine", "several commands, each with its &, run several"),
    (("checkpoint",), "a container cannot be put on disk",
     "minicontainer pause stops it in memory"),
    (("context", "plugin", "trust"), "there is no daemon, and no registry", ""),
)  # fmt: skip


def verb(name: str) -> tuple[str, str]:
    """What is missing for docker's verb ``name``, and what to do meanwhile; ("", "")."""
    return next(((what, then) for names, what, then in VERBS if name in names), ("", ""))
