"""From an image and what was asked for to a Spec: docker's rules for who wins, in one place.

The image's author has wishes (its config: program, environment, user, directory), whoever types
``run`` has others (RunOptions), docker has defaults.  ``compose`` merges the three and does
nothing else: it is pure, so the same question always gets the same container.

Specs: docker-run(1); the rules are those of moby (daemon/commit.go, daemon/oci_linux.go); the
result is shaped like the OCI runtime specification's config.json.
"""

from __future__ import annotations

import os

from minicontainer.errors import UsageError
from minicontainer.options import RunOptions, capabilities, check
from minicontainer.spec import (
    ALL_DEVICES,
    DEFAULT_MASKED_PATHS,
    DEFAULT_MOUNTS,
    DEFAULT_NAMESPACES,
    DEFAULT_PATH,
    DEFAULT_READONLY_PATHS,
    Capabilities,
    File,
    Linux,
    Mount,
    Namespace,
    Process,
    Root,
    Spec,
    User,
)
from minicontainer.step import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minicontainer.image.config import Image, ImageConfig

# docker gives these to every container with a network of its own, so that ping and port 80 need no
# capability; the kernel's own default is the host's caution
NETWORK_SYSCTLS = (
    ("net.ipv4.ip_unprivileged_port_start", "0"),
    ("net.ipv4.ping_group_range", "0 2147483647"),
)

_HOSTS = """\
127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::\tip6-localnet
ff00::\tip6-mcastprefix
ff02::1\tip6-allnodes
ff02::2\tip6-allrouters
"""


class Host(Record):
    """What a container that shares the host's network or name has to know of the host."""

    name: str = ""
    hosts: str = ""
    resolv_conf: str = ""


def compose(image: Image, options: RunOptions, container_id: str, host: Host | None = None) -> Spec:
    """The Spec of container ``container_id``, made from ``image`` as ``options`` ask.

    ``host`` is needed with ``network`` or ``uts`` "host".  Raises UsageError for what contradicts
    itself, and where neither image nor options say which program to run."""
    check(options)
    host = host or Host()
    shares_name = options.uts == "host" or (options.network == "host" and not options.hostname)
    hostname = host.name if shares_name else options.hostname or container_id[:12]
    return Spec(
        process=_process(image.config, options, hostname),
        root=Root(layers=image.layers, readonly=options.read_only),
        hostname="" if options.uts == "host" else hostname,
        domainname=options.domainname,
        mounts=_mounts(options),
        files=_files(options, hostname, host),
        linux=_linux(options, container_id),
        annotations=options.annotations,
    )


def _process(config: ImageConfig, options: RunOptions, hostname: str) -> Process:
    # An own entrypoint takes the image's cmd away too: it was written for the other program.
    if options.entrypoint is None:
        args = config.entrypoint + (options.command or config.cmd)
    else:
        args = ((options.entrypoint,) if options.entrypoint else ()) + options.command
    if not args:
        raise UsageError("no command specified", "name a program after the image, as in: sh")
    cwd = options.workdir or config.working_dir or "/"
    if not cwd.startswith("/"):
        raise UsageError(f"the image's working directory '{cwd}' is not an absolute path")
    names = capabilities(options)
    return Process(
        args=args,
        env=_environment(config.env, options, hostname),
        cwd=clean(cwd),
        terminal=options.terminal,
        # 0, not "": root too gets the groups and the home that the image's files give it
        user=User(username=options.user or config.user or "0", group_names=options.group_add),
        capabilities=Capabilities.same(names),
        rlimits=tuple({limit.type: limit for limit in options.rlimits}.values()),
        no_new_privileges=options.no_new_privileges,
        oom_score_adj=options.oom_score_adj,
        # beside the host's processes ours is not pid 1: nothing would be there to reap
        init=options.init and options.pid == "private",
    )


def _environment(image: tuple[str, ...], options: RunOptions, hostname: str) -> tuple[str, ...]:
    """PATH, HOSTNAME, TERM; then what was asked for; then the image's.  HOME comes later, from the
    image's /etc/passwd: only the container's side can read that safely."""
    env = {"PATH": DEFAULT_PATH, "HOSTNAME": f"HOSTNAME={hostname}"}
    if options.terminal:
        env["TERM"] = "TERM=xterm"
    asked = {entry.partition("=")[0]: entry for entry in options.env}
    wishes = {entry.partition("=")[0]: entry for entry in image}
    for name, entry in (asked | {n: e for n, e in wishes.items() if n not in asked}).items():
        if "=" in entry:
            env[name] = entry
        else:
            env.pop(name, None)
    return tuple(env.values())


def _mounts(options: RunOptions) -> tuple[Mount, ...]:
    """docker's own mounts where the user has none, then the user's, parents before children.

    An image's VOLUMEs need no mount here: they keep data beyond a container's life, and nothing of
    a container outlives it."""
    asked = sorted(options.mounts, key=lambda mount: mount.destination.count("/"))
    taken = {mount.destination for mount in asked}
    mounts = []
    for mount in DEFAULT_MOUNTS:
        if mount.destination in taken:
            continue
        if "/dev" in taken and mount.destination.startswith("/dev/"):
            continue
        if mount.destination == "/dev/shm":
            mount = _shm(mount, options)
        if options.privileged and mount.destination in ("/sys", "/sys/fs/cgroup"):
            mount = mount.replace(options=tuple(o for o in mount.options if o != "ro"))
        mounts.append(mount)
    return (*mounts, *asked)


def _shm(mount: Mount, options: RunOptions) -> Mount:
    """Shared memory goes with the ipc namespace: the host's, or a tmpfs of the asked size."""
    if options.ipc == "host":
        return Mount("/dev/shm", "bind", "/dev/shm", ("rbind", "rprivate"))
    kept = tuple(o for o in mount.options if not o.startswith("size="))
    return mount.replace(options=(*kept, f"size={options.shm_size}"))


def _files(options: RunOptions, hostname: str, host: Host) -> tuple[File, ...]:
    shared = options.network == "host"
    name = f"{hostname}.{options.domainname}" if options.domainname else hostname
    hosts = host.hosts if shared else _HOSTS + f"127.0.1.1\t{' '.join({name: 0, hostname: 0})}\n"
    hosts += "".join(f"{address}\t{name}\n" for name, address in options.extra_hosts)
    resolv = "".join(line + "\n" for line in options.resolv_conf)
    if not resolv:
        resolv = host.resolv_conf if shared else "# no network, so no name servers\n"
    files = (
        File("/etc/hostname", name + "\n"),
        File("/etc/hosts", hosts),
        File("/etc/resolv.conf", resolv),
    )
    taken = {mount.destination for mount in options.mounts}
    return tuple(file for file in files if file.destination not in taken)


def _linux(options: RunOptions, container_id: str) -> Linux:
    shared = {kind for kind in ("network", "pid", "ipc", "uts") if getattr(options, kind) == "host"}
    if options.cgroupns == "host":
        shared.add("cgroup")
    kinds = [kind for kind in DEFAULT_NAMESPACES if kind not in shared]
    kinds += ["user"] if options.uid_mappings else []
    kinds += ["time"] if options.time_offsets else []
    # in a user namespace the group range would name groups that do not exist there: EINVAL
    sysctl = dict(NETWORK_SYSCTLS[: 1 if options.uid_mappings else 2])
    sysctl = {} if options.network == "host" else sysctl
    sysctl.update(options.sysctl)
    unmasked = options.privileged or not options.system_paths
    custom = options.seccomp is not None and options.seccomp.profile != "default"
    return Linux(
        namespaces=tuple(Namespace(kind) for kind in kinds),
        uid_mappings=options.uid_mappings,
        gid_mappings=options.gid_mappings,
        time_offsets=tuple({offset.clock: offset for offset in options.time_offsets}.values()),
        devices=options.devices,
        device_rules=(ALL_DEVICES,) if options.privileged else (),
        cgroups_path=clean(f"{options.cgroup_parent}/{container_id}"),
        resources=options.resources,
        sysctl=tuple(sysctl.items()),
        # a privileged container has a filter only if one was asked for by name
        seccomp=options.seccomp if custom or not options.privileged else None,
        masked_paths=() if unmasked else DEFAULT_MASKED_PATHS,
        readonly_paths=() if unmasked else DEFAULT_READONLY_PATHS,
    )


def clean(path: str) -> str:
    """An absolute path without "//", "." and ".." (as text: no file system is asked)."""
    return os.path.normpath("/" + path.lstrip("/"))
