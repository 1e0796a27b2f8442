"""What docker's ``run`` can do and ours cannot yet: a flag that is known is never "unknown".

Only read when such a flag is met (or by a test that compares with docker's own list).
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
