"""An OCI bundle with docker's default container, for the runtimes that read config.json."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parent.parent
sys.path.append(str(CHECKOUT))

from minicontainer.spec import (  # noqa: E402
    DEFAULT_CAPABILITIES,
    DEFAULT_MASKED_PATHS,
    DEFAULT_MOUNTS,
    DEFAULT_NAMESPACES,
    DEFAULT_PATH,
    DEFAULT_READONLY_PATHS,
)

# docker's profile as the distributions ship it, with podman or with containers-common
PROFILE = Path("/usr/share/containers/seccomp.json")
ARCHITECTURES = {
    "x86_64": ("amd64", ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]),
    "aarch64": ("arm64", ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"]),
}


def oci_seccomp(profile: dict[str, Any], machine: str) -> dict[str, Any]:
    """docker's profile resolved for our capabilities and machine, in OCI's form.

    docker's file has conditions ("includes", "excludes") that dockerd resolves before the runtime
    sees the profile; a runtime is handed the result.  Raises KeyError for an unknown machine.
    """
    arch, architectures = ARCHITECTURES[machine]

    def applies(rule: dict[str, Any]) -> bool:
        wanted, unwanted = rule.get("includes") or {}, rule.get("excludes") or {}
        return (
            set(wanted.get("caps") or []) <= set(DEFAULT_CAPABILITIES)
            and not set(unwanted.get("caps") or []) & set(DEFAULT_CAPABILITIES)
            and (not wanted.get("arches") or arch in wanted["arches"])
            and arch not in (unwanted.get("arches") or [])
        )

    kept = ("names", "action", "args", "errnoRet")
    syscalls = [
        {key: rule[key] for key in kept if rule.get(key) not in (None, [])}
        for rule in profile["syscalls"]
        if applies(rule)
    ]
    seccomp = {
        "defaultAction": profile["defaultAction"],
        "architectures": architectures,
        "syscalls": syscalls,
    }
    if "defaultErrnoRet" in profile:
        seccomp["defaultErrnoRet"] = profile["defaultErrnoRet"]
    return seccomp


def oci_config(rootfs: Path, cgroup: str, seccomp: dict[str, Any]) -> dict[str, Any]:
    """config.json of docker's default container.

    Without rlimits: some hosts' root lacks CAP_SYS_RESOURCE, and then a runtime fails to raise one.
    """
    capabilities = list(DEFAULT_CAPABILITIES)
    mounts = [
        {"destination": m.destination, "type": m.type, "source": m.source, "options": m.options}
        for m in DEFAULT_MOUNTS
    ]
    return {
        "ociVersion": "1.0.2",
        "hostname": "bench",
        "root": {"path": str(rootfs), "readonly": False},
        "process": {
            "terminal": False,
            "user": {"uid": 0, "gid": 0},
            "args": ["/bin/true"],
            "env": [DEFAULT_PATH],
            "cwd": "/",
            "noNewPrivileges": False,
            "capabilities": {
                "bounding": capabilities, "effective": capabilities, "permitted": capabilities,
            },
        },
        "mounts": mounts,
        "linux": {
            "cgroupsPath": cgroup,
            "namespaces": [{"type": kind} for kind in DEFAULT_NAMESPACES],
            "maskedPaths": DEFAULT_MASKED_PATHS,
            "readonlyPaths": DEFAULT_READONLY_PATHS,
            "seccomp": seccomp,
        },
    }  # fmt: skip
