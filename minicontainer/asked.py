"""What a Spec asks for, in the words of the kernel's files: questions that plan.py puts to it."""

from __future__ import annotations

from minicontainer.kernel.devicefilter import Rule
from minicontainer.kernel.devices import STANDARD, Node
from minicontainer.spec import Mount, Spec, uses


def is_bind(mount: Mount) -> bool:
    """Is it a volume (a bind mount of the host's files) rather than a fresh file system?"""
    return mount.type == "bind" or "bind" in mount.options or "rbind" in mount.options


def before_pivot(rootfs_propagation: str) -> str:
    """How to cut propagation before the root is changed: slave keeps hearing from the host."""
    keeps_hearing = "slave" in rootfs_propagation or "shared" in rootfs_propagation
    return "rslave" if keeps_hearing else "rprivate"


def capability_names(spec: Spec) -> tuple[str, ...]:
    """The capabilities that seccomp profiles' "includes" and "excludes" are decided by."""
    return spec.process.capabilities.bounding if spec.process.capabilities else ("ALL",)


def device_nodes(spec: Spec) -> tuple[Node, ...]:
    """The standard six, and what the Spec asks for: beyond them, or in the place of one."""
    nodes = {node[0]: node for node in STANDARD}
    for d in spec.linux.devices:
        if d.path != "/dev/ptmx":  # that is devpts's own, by a link
            nodes[d.path] = (d.path, d.type, d.major, d.minor, d.file_mode, d.uid, d.gid)
    return tuple(nodes.values())


def device_rules(spec: Spec) -> tuple[Rule, ...]:
    """The Spec's own rules, then one for each device that is to be used as well as made."""
    rules = spec.linux.device_rules + uses(spec.linux.devices)
    return tuple((r.allow, r.type, r.major, r.minor, r.access) for r in rules)
