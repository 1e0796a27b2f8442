"""without: which steps may be left out (``run --without STEP,...``), and which keep the host whole.

Leaving a wall out makes a weaker container: that is the lesson, and the program in it decides what
comes of it.  But some steps keep *our own* later steps off the host: without a mount namespace
every mount would be the host's.  Leaving these out is refused, unless whoever asks says --i-know.
"""

from __future__ import annotations

from minicontainer.errors import UsageError
from minicontainer.kernel.overlay import MapLayers
from minicontainer.kernel.volumes import BindRoot
from minicontainer.step import CLONE, Plan

# These leave nothing that could be run at all.
NEEDED = {
    "exec": "there would be nothing to run",
    "rootfs": "there would be no root file system to mount in and to change to",
}


def check_without(plan: Plan, names: tuple[str, ...], i_know: bool = False) -> None:
    """Refuse to leave the steps called ``names`` out of ``plan`` where that would change the host.

    With ``i_know`` only what cannot work is refused.  Raises UsageError; nothing is done yet."""
    left = plan.without(*names)
    for name in names:
        if name in NEEDED:
            raise UsageError(f"--without {name}: {NEEDED[name]}")
    if "user" in names and any(isinstance(step, MapLayers) for step in plan):
        raise UsageError(
            "--without user: the layers' owners are mapped into that user namespace",
            "leave --userns out instead",
        )
    known = dangers(plan)
    new = [danger for danger in dangers(left) if danger not in known]
    if new and not i_know:
        raise UsageError(
            f"--without {','.join(names)}: {'; and '.join(new)}",
            "nothing was done; on a machine that may break, --i-know does it all the same",
        )


def dangers(plan: Plan) -> list[str]:
    """What running this plan would do to the host, in sentences; [] for a whole plan."""
    names = set(plan.names())
    kinds = {step.name for step in plan if step.side == CLONE}
    kinds |= {step.kind for step in plan if step.name == "join" and hasattr(step, "kind")}
    keys = [key for step in plan if step.name == "sysctl" for key, _ in getattr(step, "values", ())]
    found = []
    if "mount" not in kinds:
        found.append("its mounts would be the host's, and pivot_root would change the host's root")
    if "private" not in names:
        found.append("where / is shared, its mounts would appear on the host")
    if "pivot" not in names:
        found.append("it would work on the host's own files: its / would be the host's")
    if "uts" not in kinds and "hostname" in names:
        found.append("step hostname would rename the host (leave it out as well)")
    if "network" not in kinds and any(key.startswith("net.") for key in keys):
        found.append("step sysctl would set the host's network switches (leave it out as well)")
    if "ipc" not in kinds and any(not key.startswith("net.") for key in keys):
        found.append("step sysctl would set the host's IPC switches (leave it out as well)")
    if "pid" not in kinds and "cgroup" not in names:
        found.append("what its program leaves running would run on, with nothing to end it by")
    bundle = any(isinstance(step, BindRoot) for step in plan)
    if bundle and "devices" in names and "/dev" not in names:
        found.append("device nodes would be made in the bundle on disk (leave out devices as well)")
    return found
