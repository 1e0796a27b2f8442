"""plan: what a container is, as a list.  Read this first.

``plan(spec, place)`` turns a Spec into the ordered Steps that make it.  It is pure: it makes no
system call and looks at nothing but its arguments, so the whole life of a container can be read,
printed (``run --dry-run``), tested and taken apart (``run --without pid,seccomp``) as data.

The order is not free.  Every line says why it stands where it stands.
"""

from __future__ import annotations

from minicontainer.asked import (
    before_pivot,
    capability_names,
    device_nodes,
    device_rules,
    is_bind,
)
from minicontainer.kernel.capabilities import DropBoundingCapabilities, SetCapabilities
from minicontainer.kernel.cgroup import BeBornInCgroup, MakeCgroup
from minicontainer.kernel.controllers import CountResources
from minicontainer.kernel.credentials import BecomeUser
from minicontainer.kernel.devicefilter import FilterDevices
from minicontainer.kernel.devices import BindDevices, MakeDevices
from minicontainer.kernel.exec import CloseDescriptors, Execute
from minicontainer.kernel.files import ProvideFiles
from minicontainer.kernel.hostname import SetHostname
from minicontainer.kernel.idmap import (
    BecomeRoot,
    GivePipes,
    NewUserNamespace,
    WriteIdMaps,
    outside_id,
)
from minicontainer.kernel.joining import JoinNamespace, JoinPidNamespace, ReturnToOwn, ShiftClocks
from minicontainer.kernel.keyring import NewSessionKeyring
from minicontainer.kernel.masks import MaskPaths, ProtectPaths
from minicontainer.kernel.mounts import (
    MakeMountsPrivate,
    MakeReadonly,
    MountFilesystem,
    RemountRootReadonly,
    SetRootPropagation,
)
from minicontainer.kernel.namespaces import (
    NewCgroupNamespace,
    NewIpcNamespace,
    NewMountNamespace,
    NewNetworkNamespace,
    NewPidNamespace,
    NewUtsNamespace,
    UnshareIpcNamespace,
)
from minicontainer.kernel.network import BringUpLoopback
from minicontainer.kernel.overlay import MakeUpper, MapLayers, StackLayers
from minicontainer.kernel.pivot import EnterDirectory, PivotRoot
from minicontainer.kernel.process import (
    DieWithRuntime,
    HideFromContainer,
    NoNewPrivileges,
    SetOomScore,
)
from minicontainer.kernel.rlimits import SetResourceLimits, SetResourceLimitsFromOutside
from minicontainer.kernel.seal import SealTrampoline
from minicontainer.kernel.seccomp import CompileSeccomp, LoadSeccomp
from minicontainer.kernel.session import NewSession, RedirectStdio, ReopenNull, ResetSignals
from minicontainer.kernel.sysctl import SetSysctls
from minicontainer.kernel.terminal import OpenConsole
from minicontainer.kernel.volumes import AttachVolume, BindRoot, OpenVolume
from minicontainer.spec import ALL_DEVICES, Spec
from minicontainer.step import Plan, Record, Step
from minicontainer.validate import validate


class Place(Record):
    """Where on the host this container's things lie."""

    id: str
    scratch: str  # its upper directory, and what else it may write: on disk
    cache: str = "/var/cache/minicontainer"  # compiled seccomp filters
    foreground: bool = True  # die with the runtime
    stdio: tuple[int, int, int] = (0, 1, 2)  # the runtime's descriptors; -1 is /dev/null


def plan(spec: Spec, place: Place) -> Plan:
    """The Steps that make the container ``spec`` describes, in the order they must happen.

    Raises UsageError for a Spec that would reach out of the container (validate.py)."""
    validate(spec)
    linux, process = spec.linux, spec.process
    own = {n.type for n in linux.namespaces if not n.path}
    joined = [n for n in linux.namespaces if n.path]
    user = "user" in own
    uids = tuple((m.container_id, m.host_id, m.size) for m in linux.uid_mappings)
    gids = tuple((m.container_id, m.host_id, m.size) for m in linux.gid_mappings)
    limits = tuple((r.type, r.soft, r.hard) for r in process.rlimits)
    volumes = [m for m in spec.mounts if is_bind(m)]
    steps: list[Step] = []

    # ---- on the host, before anything can go wrong inside -----------------------------------
    # What the user can mend (a missing source, a bad profile) is found out first.
    for mount in volumes:
        steps.append(OpenVolume(source=mount.source, destination=mount.destination,
                                options=mount.options,
                                propagation=linux.rootfs_propagation or "rprivate"))  # fmt: skip
    if linux.seccomp:
        steps.append(CompileSeccomp(linux.seccomp.profile, capability_names(spec), place.cache))
    # The program will be executed through this, never straight from the host's python.
    steps.append(SealTrampoline())
    if spec.root.layers:
        owner = max(outside_id(uids, 0), 0) if user else 0
        steps.append(MakeUpper(place.scratch, owner, layers=len(spec.root.layers) if user else 0))
    if linux.cgroups_path:
        steps.append(MakeCgroup(linux.cgroups_path))
        steps.append(CountResources(linux.cgroups_path))
    # What cannot be limited here is said before the clone; it takes the empty cgroup to ask.
    if linux.resources:
        from minicontainer.resources import controller_steps  # only containers with limits pay

        steps += controller_steps(linux.resources, linux.cgroups_path)
    # On the cgroup while it is empty: no process of the container ever lives without it.
    if ALL_DEVICES not in linux.device_rules[-1:]:
        mknod = not user and "CAP_MKNOD" in capability_names(spec)
        steps.append(FilterDevices(device_rules(spec), mknod))
    # unshare(2), not clone3(2): the clocks' offsets must be written before anyone enters.
    if "time" in own:
        offsets = tuple((o.clock, o.seconds, o.nanoseconds) for o in linux.time_offsets)
        steps.append(ShiftClocks(offsets))
    for namespace in joined:
        if namespace.type == "pid":
            steps.append(JoinPidNamespace("pid", namespace.path))

    # ---- the clone: one system call, and the child is in a world of its own ------------------
    if linux.cgroups_path:
        steps.append(BeBornInCgroup())
    # The kernel makes the user namespace first, so that it owns all the others.
    if user:
        steps.append(NewUserNamespace())
    if "mount" in own:
        steps.append(NewMountNamespace())
    if "pid" in own:
        steps.append(NewPidNamespace())
    if "uts" in own:
        steps.append(NewUtsNamespace())
    if "ipc" in own and not user:
        steps.append(NewIpcNamespace())
    if "network" in own:
        steps.append(NewNetworkNamespace())
    if "cgroup" in own:
        steps.append(NewCgroupNamespace())

    # ---- on the host, while the child waits for its turn -------------------------------------
    if any(n.type == "pid" for n in joined):
        steps.append(ReturnToOwn("pid"))
    # Only someone outside may write the id maps, and they are the dictionary for the layers.
    if user:
        steps.append(WriteIdMaps(uids, gids))
        steps.append(GivePipes(place.stdio, outside_id(uids, 0), outside_id(gids, 0)))
        if spec.root.layers:
            steps.append(MapLayers(spec.root.layers))
        # Raising a hard limit takes a capability that no user namespace but the first can give.
        if limits:
            steps.append(SetResourceLimitsFromOutside(limits))

    # ---- in the container: still the host's files, but its own namespaces --------------------
    # First of all: whoever already lives in these namespaces must not look into this process.
    steps.append(HideFromContainer())
    # Without an id of its own the child may not even make a directory.
    if user:
        steps.append(BecomeRoot())
        if "ipc" in own:
            steps.append(UnshareIpcNamespace())
    for namespace in joined:
        if namespace.type != "pid":
            steps.append(JoinNamespace(namespace.type, namespace.path))
    # The runtime's descriptors, while /dev/null is still the host's.
    if place.stdio != (0, 1, 2) and not process.terminal:
        steps.append(RedirectStdio(place.stdio))
    # Before the first mount, or the host would see them all.
    steps.append(MakeMountsPrivate(before_pivot(linux.rootfs_propagation)))
    if spec.root.layers:
        steps.append(StackLayers(spec.root.layers, place.scratch, mapped=user))
    else:
        steps.append(BindRoot(spec.root.path))
    # Mounts before pivot_root: the sources are the host's, and a procfs may be mounted in a user
    # namespace only while another one is in full view (mount_namespaces(7)).
    nodes = device_nodes(spec)
    devices: Step = BindDevices(nodes) if user else MakeDevices(nodes)
    for mount in spec.mounts:
        if is_bind(mount):
            steps.append(AttachVolume(source=mount.source, destination=mount.destination,
                                      options=mount.options))  # fmt: skip
            continue
        fstype = "cgroup2" if mount.type == "cgroup" else mount.type
        steps.append(MountFilesystem(mount.destination, fstype, mount.source or fstype,
                                     mount.options))  # fmt: skip
        # Nodes go into our own empty /dev as soon as it is there, before anything covers it.
        if mount.destination == "/dev" and fstype == "tmpfs":
            steps.append(devices)
    # A bundle's own /dev gets the nodes as well; the host's, if it binds that, has them.
    if not any(m.destination == "/dev" for m in spec.mounts):
        steps.append(devices)
    if spec.files:
        files = tuple((f.destination, f.content, f.mode) for f in spec.files)
        steps.append(ProvideFiles(place.scratch, files))
    # Through the container's /proc, which shows its own namespaces; soon it is read-only.
    if linux.sysctl:
        steps.append(SetSysctls(linux.sysctl))
    if "network" in own:
        steps.append(BringUpLoopback())
    # The line between the worlds: after this no name leads to the host; and no open /dev/null.
    steps += [PivotRoot(), ReopenNull()]

    # ---- in the container: its own files -----------------------------------------------------
    if spec.hostname or spec.domainname:
        steps.append(SetHostname(spec.hostname, spec.domainname))
    # A session first, then its terminal: only a session leader can have one (credentials(7)).
    steps.append(NewSession())
    if process.terminal:
        rows, columns = process.console_size
        steps.append(OpenConsole(rows=rows, columns=columns))
    # Masks hide what earlier steps still needed, so they come late.
    if linux.masked_paths:
        steps.append(MaskPaths(linux.masked_paths))
    if linux.readonly_paths:
        steps.append(ProtectPaths(linux.readonly_paths))
    # Unbindable, for one, is what the last two steps could not have worked with.
    if linux.rootfs_propagation:
        steps.append(SetRootPropagation(linux.rootfs_propagation))
    steps.append(NewSessionKeyring(place.id))
    # Making a missing working directory needs a writable root: the last write to it.
    steps.append(EnterDirectory(process.cwd, make=True))
    readonly = tuple(m.destination for m in spec.mounts if m.type == "tmpfs" and "ro" in m.options)
    if readonly:
        steps.append(MakeReadonly(readonly))
    if spec.root.readonly:
        steps.append(RemountRootReadonly())

    # Also what our caller had open without telling us; a seccomp filter may forbid it later.
    steps.append(CloseDescriptors())

    # ---- in the container: giving up power, each step while it still has the right to ---------
    # Raising a hard limit takes CAP_SYS_RESOURCE.
    if limits and not user:
        steps.append(SetResourceLimits(limits))
    capabilities = process.capabilities
    if capabilities:
        # Takes CAP_SETPCAP, which the next steps give away.
        steps.append(DropBoundingCapabilities(capabilities.bounding))
    # Without no_new_privs, loading a filter takes CAP_SYS_ADMIN: before user and capabilities go.
    # With it, anyone may: then the filter comes last and judges as little of ours as possible.
    filter_last = process.no_new_privileges
    if linux.seccomp and not filter_last:
        steps.append(LoadSeccomp())
    steps.append(
        BecomeUser(process.user.username, process.user.uid, process.user.gid,
                   process.user.additional_gids, process.user.group_names, process.user.umask,
                   process.terminal)
    )  # fmt: skip
    if capabilities:
        steps.append(SetCapabilities(capabilities.effective, capabilities.permitted,
                                     capabilities.inheritable, capabilities.ambient))  # fmt: skip
    # A change of user or capabilities clears the wish to die with the parent: so after them.
    if place.foreground:
        steps.append(DieWithRuntime())
    if process.no_new_privileges:
        steps.append(NoNewPrivileges())
    if linux.seccomp and filter_last:
        steps.append(LoadSeccomp())
    steps.append(ResetSignals())
    # The last system call: a container is just a process.
    steps.append(Execute(process.args, process.env, process.init))

    # ---- on the host, while the trampoline waits: the child has memory of its own by now ---------
    # They hold from the program's first instruction on.  Not before: the OOM killer ends all who
    # share a victim's memory, and that would have been us.
    if linux.resources:
        from minicontainer.resources import limit_steps

        steps += limit_steps(linux.resources)
    # Whoever shares its memory with another process may not change its time namespace, setns(2).
    if "time" in own:
        steps.append(ReturnToOwn("time"))
    # Processes that share their memory share this number: before, it would have been ours as well.
    if process.oom_score_adj is not None:
        steps.append(SetOomScore(process.oom_score_adj))
    return Plan(*steps)
