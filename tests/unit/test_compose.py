"""Image + options -> Spec, by docker's rules.

The expectations are what docker and podman do with the same image and flags (entrypoint, cmd and
environment were compared with podman 4.3; capabilities, mounts and namespaces with moby's code).
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicontainer import compose, options
from minicontainer.compose import Host
from minicontainer.errors import UsageError
from minicontainer.image.config import Image, ImageConfig
from minicontainer.kernel.capabilities import NAMES
from minicontainer.options import RunOptions
from minicontainer.spec import (
    DEFAULT_CAPABILITIES,
    DEFAULT_MASKED_PATHS,
    DEFAULT_MOUNTS,
    DEFAULT_READONLY_PATHS,
    Device,
    IdMap,
    Mount,
    Namespace,
    Rlimit,
    Seccomp,
    TimeOffset,
)
from tests.unit.mutants import fails, mutant

ID = "0123456789abcdef" * 4
PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
MAPS = (IdMap(0, 100000, 65536),)


def image(**config):
    config.setdefault("cmd", ("sh",))
    return Image("alpine:latest", "sha256:0", ("/lower", "/upper"), ImageConfig(**config))


def made(module=compose, of=None, host=None, **asked):
    return module.compose(of or image(), RunOptions(**asked), ID, host)


def refusal(function, *arguments, **named):
    with pytest.raises(UsageError) as caught:
        function(*arguments, **named)
    return caught.value.message


# --- which program: image's entrypoint, cmd; --entrypoint; words after IMAGE -> args

E, C = ("/e", "1"), ("c",)
PROGRAMS = [
    (E, C, None, (), (*E, *C)),
    (E, C, None, ("x", "y"), (*E, "x", "y")),
    (E, (), None, (), E),
    ((), C, None, (), C),
    ((), C, None, ("x",), ("x",)),
    # an own entrypoint takes the image's cmd away
    (E, C, "/new", (), ("/new",)),
    (E, C, "/new", ("x",), ("/new", "x")),
    # an empty one takes the image's entrypoint away, and its cmd
    (E, C, "", ("x",), ("x",)),
]
NO_PROGRAM = [((), (), None, ()), (E, C, "", ()), ((), C, "", ())]


def check_programs(module):
    for entrypoint, cmd, own, command, args in PROGRAMS:
        of = image(entrypoint=entrypoint, cmd=cmd)
        assert made(module, of, entrypoint=own, command=command).process.args == args
    for entrypoint, cmd, own, command in NO_PROGRAM:
        of = image(entrypoint=entrypoint, cmd=cmd)
        message = refusal(made, module, of, entrypoint=own, command=command)
        assert message == "no command specified"


def test_programs():
    check_programs(compose)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("config.entrypoint + (options.command or config.cmd)", "options.command or config.cmd"),
        ("(options.command or config.cmd)", "config.cmd + options.command"),
        ("else ()) + options.command", "else ()) + (options.command or config.cmd)"),
        ("(options.entrypoint,) if options.entrypoint else ()", "(options.entrypoint,)"),
    ],
)
def test_programs_mutants(old, new):
    fails(check_programs, mutant(compose, old, new))


# --- the environment: image's, asked, terminal -> all of it, in order

HOSTNAME = "HOSTNAME=0123456789ab"
ENVIRONMENTS = [
    ((), (), False, (PATH, HOSTNAME)),
    ((), (), True, (PATH, HOSTNAME, "TERM=xterm")),
    (("I=1",), ("A=1",), False, (PATH, HOSTNAME, "A=1", "I=1")),
    (("PATH=/bin",), (), False, ("PATH=/bin", HOSTNAME)),
    (("PATH=/bin",), ("PATH=/mine",), False, ("PATH=/mine", HOSTNAME)),
    (("I=1", "J=1"), ("I=2",), False, (PATH, HOSTNAME, "I=2", "J=1")),
    ((), ("A=1", "B=2", "A=3"), False, (PATH, HOSTNAME, "A=3", "B=2")),
    ((), ("TERM=vt100",), True, (PATH, HOSTNAME, "TERM=vt100")),
    ((), ("A=", "B=x=y"), False, (PATH, HOSTNAME, "A=", "B=x=y")),
    # a name without "=" takes away, from whoever set it
    (("I=1",), ("I", "PATH", "X"), False, (HOSTNAME,)),
    ((), ("A=1", "A"), False, (PATH, HOSTNAME)),
    ((), ("A", "A=1"), False, (PATH, HOSTNAME, "A=1")),
]


def check_environments(module):
    for of, asked, terminal, env in ENVIRONMENTS:
        process = made(module, image(env=of), env=asked, terminal=terminal).process
        assert process.env == env, (of, asked)


def test_environments():
    check_environments(compose)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("if n not in asked}", "}"),
        ("env.pop(name, None)", "pass"),
        ("if options.terminal:", "if False:"),
        ('if "=" in entry:', "if True:"),
    ],
)
def test_environments_mutants(old, new):
    fails(check_environments, mutant(compose, old, new))


def test_home_is_left_to_the_side_that_reads_passwd():
    assert not any(e.startswith("HOME=") for e in made().process.env)
    assert "HOME=/x" in made(env=("HOME=/x",)).process.env


# --- capabilities

ALL = set(NAMES)
DEFAULT = set(DEFAULT_CAPABILITIES)
CAPABILITIES = [
    ((), (), DEFAULT),
    (("NET_ADMIN",), (), DEFAULT | {"CAP_NET_ADMIN"}),
    (("cap_net_admin", "Sys_Time"), (), DEFAULT | {"CAP_NET_ADMIN", "CAP_SYS_TIME"}),
    ((), ("NET_RAW",), DEFAULT - {"CAP_NET_RAW"}),
    ((), ("ALL",), set()),
    (("NET_RAW",), ("all",), {"CAP_NET_RAW"}),
    (("ALL",), (), ALL),
    (("ALL",), ("NET_RAW",), ALL - {"CAP_NET_RAW"}),
    # moby: ALL in add is looked at first, and "ALL" in drop is then no capability's name
    (("ALL",), ("ALL",), ALL),
    (("ALL", "NET_RAW"), ("NET_RAW",), ALL - {"CAP_NET_RAW"}),
    # drop first, then add: adding wins
    (("NET_RAW",), ("NET_RAW",), DEFAULT),
    (("CHOWN",), (), DEFAULT),
]


def check_capabilities(module):
    for add, drop, names in CAPABILITIES:
        asked = RunOptions(cap_add=add, cap_drop=drop)
        kept = module.capabilities(asked)
        assert kept == tuple(name for name in NAMES if name in names), (add, drop)
    assert module.capabilities(RunOptions(privileged=True, cap_drop=("ALL",))) == NAMES
    for name in ("FOO", "CAP_", "", "CAP_CAP_CHOWN", "CHOWN,KILL"):
        assert "unknown capability" in refusal(module.capabilities, RunOptions(cap_add=(name,)))
        assert "unknown capability" in refusal(module.capabilities, RunOptions(cap_drop=(name,)))


def test_capabilities():
    check_capabilities(options)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("kept = set(NAMES) - drop", "kept = set(NAMES)"),
        ("- drop | add", "| add - drop"),
        ("- drop | add", "- drop"),
        ('elif "ALL" in drop:', "elif False:"),
        ('if "ALL" in add:', 'if "ALL" in add and "ALL" not in drop:'),
        ("name = text.upper()", "name = text"),
        ("if name not in NAMES:", "if False:"),
        ("return tuple(name for name in NAMES if name in kept)", "return tuple(kept)"),
    ],
)
def test_capabilities_mutants(old, new):
    fails(check_capabilities, mutant(options, old, new))


def test_the_working_sets_are_the_bounding_set():
    sets = made(cap_add=("NET_ADMIN",)).process.capabilities
    assert sets.bounding == sets.effective == sets.permitted
    assert sets.inheritable == sets.ambient == ()


# --- contradictions

CONTRADICTIONS = [
    ({"uts": "host", "hostname": "x"}, "conflicting options: hostname and the UTS mode"),
    ({"uts": "host", "domainname": "x"}, "conflicting options: hostname and the UTS mode"),
    ({"uid_mappings": MAPS, "privileged": True}, "privileged mode is incompatible with user"),
    ({"uid_mappings": MAPS, "network": "host"}, "cannot share the host's network namespace"),
    ({"uid_mappings": MAPS, "pid": "host"}, "cannot share the host PID namespace"),
    ({"uid_mappings": MAPS, "ipc": "host"}, "cannot share the host's IPC namespace"),
    ({"network": "host", "sysctl": (("net.x", "1"),)}, "sysctl 'net.x' would be the host's"),
    ({"ipc": "host", "sysctl": (("kernel.sem", "1"),)}, "sysctl 'kernel.sem' would be the host's"),
    ({"mounts": (Mount("/x"), Mount("/y"), Mount("/x", "tmpfs"))}, "Duplicate mount point: /x"),
    ({"mounts": (Mount("/proc"),)}, "/proc cannot be mounted because it is inside /proc"),
    ({"mounts": (Mount("/proc/self/attr"),)}, "/proc/self/attr cannot be mounted because"),
    ({"workdir": "rel"}, "the working directory 'rel' is invalid, it needs to be an absolute path"),
    ({"network": "bridge"}, "--network bridge is not supported yet"),
    ({"network": "container:x"}, "--network container:x is not supported yet"),
    ({"network": ""}, "--network  is not supported yet"),
    ({"pid": "container:x"}, "--pid container:x is not supported yet"),
    ({"pid": "x"}, "--pid: invalid PID mode: 'x'"),
    ({"ipc": "x"}, "--ipc: invalid IPC mode: 'x'"),
    ({"uts": "x"}, "--uts: invalid UTS mode: 'x'"),
    ({"cgroupns": "x"}, "--cgroupns: invalid CGROUP mode: 'x'"),
    ({"hostname": "a b"}, "invalid hostname format: a b"),
    ({"domainname": "a\nb"}, "invalid hostname format: a\nb"),
    ({"cgroup_parent": "/a/../.."}, "the parent cgroup '/a/../..' must not contain '..'"),
    ({"oom_score_adj": 1001}, "Invalid value 1001, range for oom score adj is [-1000, 1000]"),
    ({"cap_add": ("FOO",)}, 'unknown capability: "CAP_FOO"'),
]
FINE = [
    {"mounts": (Mount("/proc/uptime"), Mount("/process"), Mount("/srv/proc"))},
    {"network": "host", "hostname": "web"},
    {"network": "host", "sysctl": (("kernel.sem", "1"),)},
    {"uid_mappings": MAPS, "uts": "host", "cgroupns": "host"},
    {"oom_score_adj": -1000},
]


def check_contradictions(module):
    for asked, message in CONTRADICTIONS:
        assert message in refusal(module.check, RunOptions(**asked)), asked
    for asked in FINE:
        module.check(RunOptions(**asked))


def test_contradictions():
    check_contradictions(options)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('if options.uts == "host" and (options.hostname or options.domainname):', "if False:"),
        ("if options.uid_mappings:", "if False:"),
        ('mode = options.network if name.startswith("net.") else options.ipc', "mode = ''"),
        ('if name.startswith("net.") else options.ipc', ""),
        ("if mount.destination in seen:", "if False:"),
        ("and mount.destination not in _OVER_PROC", ""),
        ('if f"{mount.destination}/".startswith("/proc/")', 'if mount.destination == "/proc"'),
        ('f"{mount.destination}/".startswith("/proc/")', 'mount.destination.startswith("/proc")'),
        ('and not options.workdir.startswith("/")', "and False"),
        ('if mode.startswith("container:"):', "if False:"),
        ("if mode not in modes:", "if False:"),
        ('if options.network not in ("none", "host"):', "if False:"),
        ("if options.hostname or options.domainname:", "if False:"),
        ('if ".." in options.cgroup_parent.split("/"):', "if False:"),
        ("not -1000 <= options.oom_score_adj <= 1000", "False"),
        ("    capabilities(options)\n", "    pass\n"),
    ],
)
def test_contradictions_mutants(old, new):
    fails(check_contradictions, mutant(options, old, new))


def test_compose_checks_too():
    assert "UTS mode" in refusal(made, uts="host", hostname="x")


# --- namespaces and the rest of linux


def kinds(spec):
    return {namespace.type for namespace in spec.linux.namespaces}


def check_linux(module):
    plain = {"pid", "network", "ipc", "uts", "mount", "cgroup"}
    linux = made(module).linux
    in_order = ("pid", "network", "ipc", "uts", "mount", "cgroup")
    assert linux.namespaces == tuple(Namespace(kind) for kind in in_order)
    assert linux.cgroups_path == f"/minicontainer/{ID}"
    assert linux.seccomp == Seccomp("default")
    assert linux.masked_paths == DEFAULT_MASKED_PATHS
    assert linux.readonly_paths == DEFAULT_READONLY_PATHS
    assert dict(linux.sysctl) == {
        "net.ipv4.ip_unprivileged_port_start": "0",
        "net.ipv4.ping_group_range": "0 2147483647",
    }
    for shared in ("pid", "network", "ipc", "uts"):
        assert kinds(made(module, **{shared: "host"})) == plain - {shared}
    assert kinds(made(module, cgroupns="host")) == plain - {"cgroup"}
    assert made(module, network="host").linux.sysctl == ()

    mapped = made(module, uid_mappings=MAPS, gid_mappings=MAPS)
    assert kinds(mapped) == plain | {"user"}
    assert mapped.linux.uid_mappings == mapped.linux.gid_mappings == MAPS
    assert dict(mapped.linux.sysctl) == {"net.ipv4.ip_unprivileged_port_start": "0"}

    shifted = made(module, time_offsets=(TimeOffset("boottime", 1), TimeOffset("boottime", 2)))
    assert kinds(shifted) == plain | {"time"}
    assert shifted.linux.time_offsets == (TimeOffset("boottime", 2),)

    own = made(module, sysctl=(("net.ipv4.ip_unprivileged_port_start", "80"), ("net.a", "1")))
    assert dict(own.linux.sysctl) == {
        "net.ipv4.ip_unprivileged_port_start": "80",
        "net.ipv4.ping_group_range": "0 2147483647",
        "net.a": "1",
    }
    for parent, path in (
        ("/a", "/a"),
        ("a/b/", "/a/b"),
        ("//a//b", "/a/b"),
        ("x.slice", "/x.slice"),
    ):
        assert made(module, cgroup_parent=parent).linux.cgroups_path == f"{path}/{ID}"

    assert made(module, seccomp=None).linux.seccomp is None
    assert made(module, seccomp=Seccomp("{}")).linux.seccomp == Seccomp("{}")
    unmasked = made(module, system_paths=False).linux
    assert unmasked.masked_paths == unmasked.readonly_paths == ()
    assert unmasked.seccomp == Seccomp("default")


def test_linux():
    check_linux(compose)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('kinds += ["user"] if options.uid_mappings else []', "pass"),
        ('kinds += ["time"] if options.time_offsets else []', "pass"),
        ('shared.add("cgroup")', "pass"),
        ("1 if options.uid_mappings else 2", "2"),
        ('{} if options.network == "host" else sysctl', "sysctl"),
        ("sysctl.update(options.sysctl)", "pass"),
        ("options.privileged or not options.system_paths", "options.privileged"),
        ('clean(f"{options.cgroup_parent}/{container_id}")',
         'f"{options.cgroup_parent}/{container_id}"'),
        ("{offset.clock: offset for offset in options.time_offsets}.values()",
         "options.time_offsets"),
    ],
)  # fmt: skip
def test_linux_mutants(old, new):
    fails(check_linux, mutant(compose, old, new))


# --- mounts


def destinations(spec):
    return [mount.destination for mount in spec.mounts]


DEFAULTS = [mount.destination for mount in DEFAULT_MOUNTS]


def check_mounts(module):
    spec = made(module)
    assert destinations(spec) == DEFAULTS
    shm = {m.destination: m for m in spec.mounts}["/dev/shm"]
    assert shm.options == ("nosuid", "noexec", "nodev", "mode=1777", "size=67108864")
    small = {m.destination: m for m in made(module, shm_size=4096).mounts}["/dev/shm"]
    assert small.options[-1] == "size=4096" and len(small.options) == 5

    # parents before children, otherwise in the order given
    asked = ("/b/c", "/a/b/c", "/b", "/a/d", "/a")
    spec = made(module, mounts=tuple(Mount(d, "tmpfs") for d in asked))
    assert destinations(spec) == [*DEFAULTS, "/b", "/a", "/b/c", "/a/d", "/a/b/c"]

    # a user's mount replaces ours; a user's /dev replaces all of ours below it
    spec = made(module, mounts=(Mount("/dev/shm", "bind", "/x"),))
    assert destinations(spec) == [d for d in DEFAULTS if d != "/dev/shm"] + ["/dev/shm"]
    spec = made(module, mounts=(Mount("/dev", "bind", "/dev"),))
    assert destinations(spec) == [d for d in DEFAULTS if not d.startswith("/dev")] + ["/dev"]

    # the host's ipc namespace comes with its shared memory
    spec = made(module, ipc="host")
    shm = {m.destination: m for m in spec.mounts}["/dev/shm"]
    assert (shm.type, shm.source) == ("bind", "/dev/shm")

    for mount in made(module).mounts:
        if mount.destination.startswith("/sys"):
            assert "ro" in mount.options
    for mount in made(module, privileged=True).mounts:
        assert "ro" not in mount.options


def test_mounts():
    check_mounts(compose)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("sorted(options.mounts, key=lambda mount: mount.destination.count(\"/\"))",
         "list(options.mounts)"),
        ("        if mount.destination in taken:\n            continue\n", ""),
        ('if "/dev" in taken and mount.destination.startswith("/dev/"):', "if False:"),
        ('if not o.startswith("size=")', ""),
        ('if options.ipc == "host":', "if False:"),
        ("if options.privileged and mount.destination in", "if mount.destination in"),
        ("if options.privileged and mount.destination in", "if False and mount.destination in"),
        ("return (*mounts, *asked)", "return (*asked, *mounts)"),
    ],
)  # fmt: skip
def test_mounts_mutants(old, new):
    fails(check_mounts, mutant(compose, old, new))


@given(st.lists(st.lists(st.sampled_from("abc"), min_size=1, max_size=4), unique_by=tuple))
def test_every_parent_comes_before_its_children(paths):
    asked = ["/" + "/".join(path) for path in paths]
    order = destinations(made(mounts=tuple(Mount(d, "tmpfs") for d in asked)))
    assert sorted(order[len(DEFAULTS) :]) == sorted(asked)
    for index, path in enumerate(order[len(DEFAULTS) :], len(DEFAULTS)):
        assert not any(later != path and path.startswith(f"{later}/") for later in order[index:])


# --- files, names


def files(spec):
    return {file.destination: file.content for file in spec.files}


def check_files(module):
    spec = made(module)
    assert spec.hostname == "0123456789ab"
    assert files(spec)["/etc/hostname"] == "0123456789ab\n"
    assert "127.0.0.1\tlocalhost\n" in files(spec)["/etc/hosts"]
    assert "127.0.1.1\t0123456789ab\n" in files(spec)["/etc/hosts"]
    assert not files(spec)["/etc/resolv.conf"].startswith("nameserver")

    spec = made(module, hostname="web", domainname="example.org",
                extra_hosts=(("db", "10.0.0.2"),),
                resolv_conf=("nameserver 10.0.0.1", "search example.org"))  # fmt: skip
    assert (spec.hostname, spec.domainname) == ("web", "example.org")
    assert "HOSTNAME=web" in spec.process.env
    assert files(spec)["/etc/hostname"] == "web.example.org\n"
    assert "127.0.1.1\tweb.example.org web\n" in files(spec)["/etc/hosts"]
    assert files(spec)["/etc/hosts"].endswith("10.0.0.2\tdb\n")
    assert files(spec)["/etc/resolv.conf"] == "nameserver 10.0.0.1\nsearch example.org\n"

    host = Host("laptop", "127.0.0.1 localhost\n", "nameserver 192.0.2.1\n")
    spec = made(module, network="host", host=host)
    assert spec.hostname == "laptop", "docker: a name that the host's network knows"
    assert files(spec) == {
        "/etc/hostname": "laptop\n",
        "/etc/hosts": "127.0.0.1 localhost\n",
        "/etc/resolv.conf": "nameserver 192.0.2.1\n",
    }
    assert made(module, network="host", hostname="web", host=host).hostname == "web"

    spec = made(module, uts="host", host=host)
    assert spec.hostname == "", "sethostname here would rename the host"
    assert "HOSTNAME=laptop" in spec.process.env
    assert files(spec)["/etc/hostname"] == "laptop\n"

    spec = made(module, mounts=(Mount("/etc/hosts", "bind", "/x"),))
    assert files(spec).keys() == {"/etc/hostname", "/etc/resolv.conf"}


def test_files():
    check_files(compose)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("container_id[:12]", "container_id"),
        ("hostname = host.name if shares_name else options.hostname or",
         "hostname = options.hostname or"),
        ('hostname="" if options.uts == "host" else hostname', "hostname=hostname"),
        ("host.hosts if shared else", ""),
        ("host.resolv_conf if shared else", ""),
        ("if file.destination not in taken", ""),
        ('if options.domainname else hostname', 'if False else hostname'),
        ("in options.extra_hosts", "in ()"),
        ("if not resolv:", "if True:"),
    ],
)  # fmt: skip
def test_files_mutants(old, new):
    fails(check_files, mutant(compose, old, new))


# --- the rest of the process


def check_process(module):
    spec = made(module)
    process = spec.process
    assert spec.root.layers == ("/lower", "/upper") and not spec.root.readonly
    assert process.cwd == "/" and not process.terminal and not process.init
    assert process.user.username == "0", "root too has groups and a home in the image's files"
    assert not process.no_new_privileges and process.rlimits == ()
    assert process.oom_score_adj is None

    of = image(user="www:www", working_dir="/srv")
    assert made(module, of).process.user.username == "www:www"
    assert made(module, of, user="1000").process.user.username == "1000"
    assert made(module, of, group_add=("audio", "5")).process.user.group_names == ("audio", "5")
    assert made(module, of).process.cwd == "/srv"
    assert made(module, of, workdir="/a//b/../c/").process.cwd == "/a/c"
    assert "not an absolute path" in refusal(made, module, image(working_dir="rel"))

    limits = (Rlimit("RLIMIT_CORE", 1, 1), Rlimit("RLIMIT_CPU", 2, 2), Rlimit("RLIMIT_CORE", 3, 3))
    assert made(module, rlimits=limits).process.rlimits == (limits[2], limits[1])
    assert made(module, terminal=True).process.terminal
    assert made(module, init=True).process.init
    assert not made(module, init=True, pid="host").process.init
    assert made(module, no_new_privileges=True).process.no_new_privileges
    assert made(module, oom_score_adj=0).process.oom_score_adj == 0
    assert made(module, read_only=True).root.readonly
    assert made(module, annotations=(("a", "b"),)).annotations == (("a", "b"),)

    spec = made(module, privileged=True, devices=(Device("/dev/fuse", "c", 10, 229),))
    assert spec.process.capabilities.bounding == NAMES
    assert spec.linux.masked_paths == spec.linux.readonly_paths == ()
    assert spec.linux.seccomp is None
    assert spec.linux.devices == (Device("/dev/fuse", "c", 10, 229),)
    strict = made(module, privileged=True, seccomp=Seccomp("{}"))
    assert strict.linux.seccomp == Seccomp("{}"), "asked for by name"


def test_process():
    check_process(compose)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('options.user or config.user or "0"', 'config.user or options.user or "0"'),
        ('options.user or config.user or "0"', "options.user or config.user"),
        ('options.workdir or config.working_dir or "/"', 'options.workdir or "/"'),
        ("cwd=clean(cwd)", "cwd=cwd"),
        ('init=options.init and options.pid == "private"', "init=options.init"),
        ("custom or not options.privileged else None", "True else None"),
        ("custom or not options.privileged else None", "not options.privileged else None"),
        ("{limit.type: limit for limit in options.rlimits}.values()", "options.rlimits"),
        ('if not cwd.startswith("/"):', "if False:"),
    ],
)
def test_process_mutants(old, new):
    fails(check_process, mutant(compose, old, new))


def test_the_same_question_gets_the_same_container():
    assert made(hostname="a", env=("A=1",)) == made(hostname="a", env=("A=1",))
