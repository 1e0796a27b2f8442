"""config.json to Spec and back: what is understood, what is refused, and by which name."""

from __future__ import annotations

import copy
import json

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minicontainer.errors import UsageError
from minicontainer.kernel.capabilities import NAMES
from minicontainer.kernel.rlimits import NUMBERS
from minicontainer.mountcalls import OPTIONS, PROPAGATION
from minicontainer.oci import read_bundle, spec_from_bundle
from minicontainer.oci_devices import NODE_TYPES
from minicontainer.oci_json import Json, says_nothing
from minicontainer.oci_read import CLOCKS, NAMESPACES, json_text, parse_config
from minicontainer.oci_write import write_config
from minicontainer.plan import Place, plan
from minicontainer.resources import (
    BlockIO,
    Cpu,
    DeviceNumber,
    HugepageLimit,
    Memory,
    Resources,
)
from minicontainer.spec import (
    Capabilities,
    Device,
    DeviceRule,
    File,
    IdMap,
    Linux,
    Mount,
    Namespace,
    Process,
    Rlimit,
    Root,
    Seccomp,
    Spec,
    TimeOffset,
    User,
)

# Every field that is understood, each with a value that is not its default.
FULL = {
    "ociVersion": "1.1.0",
    "process": {
        "terminal": True,
        "consoleSize": {"height": 24, "width": 80},
        "user": {"uid": 1, "gid": 2, "umask": 63, "additionalGids": [5, 6]},
        "args": ["sh", "-c", "id"],
        "env": ["PATH=/bin", "A=b=c"],
        "cwd": "/tmp",
        "capabilities": {
            "bounding": ["CAP_KILL", "CAP_CHOWN"],
            "effective": ["CAP_KILL"],
            "permitted": ["CAP_KILL"],
            "inheritable": ["CAP_KILL"],
            "ambient": ["CAP_KILL"],
        },
        "rlimits": [{"type": "RLIMIT_CORE", "soft": 1, "hard": 18446744073709551615}],
        "noNewPrivileges": True,
        "apparmorProfile": "tight",
        "selinuxLabel": "a:b:c",
        "oomScoreAdj": 100,
    },
    "root": {"path": "rootfs", "readonly": True},
    "hostname": "box",
    "domainname": "example",
    "mounts": [
        {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid"]},
        {"destination": "/data", "source": "data", "options": ["rbind", "ro"]},
    ],
    "annotations": {"org.example": "yes"},
    "linux": {
        "namespaces": [
            {"type": "mount"},
            {"type": "network", "path": "/run/netns/a"},
            {"type": "user"},
        ],
        "uidMappings": [{"containerID": 0, "hostID": 1000, "size": 10}],
        "gidMappings": [{"containerID": 0, "hostID": 2000, "size": 20}],
        "timeOffsets": {"monotonic": {"secs": -1, "nanosecs": 5}},
        "devices": [
            {"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 384,
             "uid": 3, "gid": 4},
        ],
        "resources": {
            "devices": [
                {"access": "rwm"},  # a rule that does not say "allow" denies
                {"allow": True, "type": "c", "major": 10, "minor": 229, "access": "rw"},
            ],
            "memory": {"limit": 67108864, "reservation": 1048576, "swap": -1},
            "cpu": {"shares": 512, "quota": 50000, "period": 200000, "burst": 1000, "idle": 0,
                    "cpus": "0-3,7", "mems": "1"},
            "pids": {"limit": 20},
            "blockIO": {
                "weight": 500,
                "weightDevice": [{"major": 8, "minor": 0, "weight": 10}],
                "throttleReadBpsDevice": [{"major": 8, "minor": 1, "rate": 1}],
                "throttleWriteBpsDevice": [{"major": 8, "minor": 2, "rate": 2}],
                "throttleReadIOPSDevice": [{"major": 8, "minor": 3, "rate": 3}],
                "throttleWriteIOPSDevice": [{"major": 8, "minor": 4, "rate": 4}],
            },
            "hugepageLimits": [{"pageSize": "2MB", "limit": 2097152}],
            "unified": {"memory.high": "48M"},
        },
        "cgroupsPath": "/a/b",
        "sysctl": {"net.ipv4.ip_forward": "1"},
        "seccomp": {"defaultAction": "SCMP_ACT_ALLOW"},
        "rootfsPropagation": "rslave",
        "maskedPaths": ["/proc/kcore"],
        "readonlyPaths": ["/proc/sys"],
    },
}  # fmt: skip

FULL_SPEC = Spec(
    process=Process(
        args=("sh", "-c", "id"),
        env=("PATH=/bin", "A=b=c"),
        cwd="/tmp",
        terminal=True,
        console_size=(24, 80),
        user=User(uid=1, gid=2, additional_gids=(5, 6), umask=0o077),
        capabilities=Capabilities(
            ("CAP_KILL", "CAP_CHOWN"), ("CAP_KILL",), ("CAP_KILL",), ("CAP_KILL",), ("CAP_KILL",)
        ),
        rlimits=(Rlimit("RLIMIT_CORE", 1, -1),),
        no_new_privileges=True,
        apparmor_profile="tight",
        selinux_label="a:b:c",
        oom_score_adj=100,
    ),
    root=Root("/b/rootfs", readonly=True),
    hostname="box",
    domainname="example",
    mounts=(
        Mount("/proc", "proc", "proc", ("nosuid",)),
        Mount("/data", "bind", "/b/data", ("rbind", "ro")),
    ),
    annotations=(("org.example", "yes"),),
    linux=Linux(
        namespaces=(Namespace("mount"), Namespace("network", "/run/netns/a"), Namespace("user")),
        uid_mappings=(IdMap(0, 1000, 10),),
        gid_mappings=(IdMap(0, 2000, 20),),
        time_offsets=(TimeOffset("monotonic", -1, 5),),
        devices=(Device("/dev/fuse", "c", 10, 229, 0o600, 3, 4, access=""),),
        device_rules=(DeviceRule(False), DeviceRule(True, "c", 10, 229, "rw")),
        cgroups_path="/a/b",
        resources=Resources(
            memory=Memory(limit=64 << 20, reservation=1 << 20, swap=-1),
            cpu=Cpu(512, 50_000, 200_000, 1000, 0, "0-3,7", "1"),
            pids=20,
            block_io=BlockIO(
                500,
                (DeviceNumber(8, 0, 10),),
                (DeviceNumber(8, 1, 1),),
                (DeviceNumber(8, 2, 2),),
                (DeviceNumber(8, 3, 3),),
                (DeviceNumber(8, 4, 4),),
            ),
            hugepage_limits=(HugepageLimit("2MB", 2 << 20),),
            unified=(("memory.high", "48M"),),
        ),
        sysctl=(("net.ipv4.ip_forward", "1"),),
        seccomp=Seccomp('{"defaultAction":"SCMP_ACT_ALLOW"}'),
        masked_paths=("/proc/kcore",),
        readonly_paths=("/proc/sys",),
        rootfs_propagation="rslave",
    ),
)

# The least that is a container: what is not said is not there (docker's defaults are not OCI's).
LEAST = {
    "ociVersion": "1.0.2",
    "process": {"args": ["true"], "cwd": "/"},
    "root": {"path": "/r"},
    "linux": {"namespaces": [{"type": "mount"}]},
}


def changed(config, path, value):
    """A copy with ``path`` ("linux.devices.0.major", or a tuple of keys) set to ``value``; Ellipsis
    takes it away."""
    config = copy.deepcopy(config)
    keys = path.split(".") if isinstance(path, str) else path
    *parents, last = [int(key) if key.isdecimal() else key for key in keys]
    inner = config
    for key in parents:
        inner = inner.setdefault(key, {}) if isinstance(inner, dict) else inner[key]
    if value is ...:
        del inner[last]
    else:
        inner[last] = value
    return config


def parse(config, warn=lambda sentence: None):
    return parse_config(json.dumps(config), "/b", warn)


def complaint(config):
    with pytest.raises(UsageError) as caught:
        parse(config)
    return caught.value.message


def leaves(value, path=()):
    """The paths of all that is neither an object nor a list."""
    members = value.items() if isinstance(value, dict) else enumerate(value)
    found = []
    for key, member in members:
        here = (*path, str(key))
        found += leaves(member, here) if isinstance(member, dict | list) and member else [here]
    return found


# ---- reading


def test_every_field_is_understood():
    assert parse(FULL) == FULL_SPEC


@pytest.mark.parametrize("path", leaves(FULL), ids=".".join)
def test_every_field_counts(path):
    """The mutant of the test above: take one away, and the Spec is another or there is none."""
    try:
        spec = parse(changed(FULL, path, ...))
    except UsageError:
        return
    assert spec != FULL_SPEC


def test_what_is_not_said_is_not_there():
    nothing = Capabilities((), (), (), (), ())
    assert parse(LEAST) == Spec(
        process=Process(args=("true",), env=(), capabilities=nothing),
        root=Root("/r"),
        mounts=(),
        linux=Linux(
            namespaces=(Namespace("mount"),), seccomp=None, masked_paths=(), readonly_paths=()
        ),
    )


@pytest.mark.parametrize("path", ["tea", "linux.tea", "process.tea", "root.tea", "mounts.0.tea"])
def test_unknown_properties_are_ignored(path):
    assert parse(changed(FULL, path, {"with": ["milk"]})) == FULL_SPEC


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        # types
        ("process.args", "sh", "process.args must be a list of strings"),
        ("process.args", ["sh", 1], "process.args must be a list of strings"),
        ("process.args", [], "process.args must name a program"),
        ("process.args", ["a\0b"], "process.args[0] must not hold a NUL byte"),
        ("process.env", ["A=\ud800"], "process.env[0] must not hold a NUL byte or half a"),
        ("process.env", ["A"], "process.env[0] must be NAME=value"),
        ("process.env", ["=x"], "process.env[0] must be NAME=value"),
        ("process.cwd", "tmp", "process.cwd must be an absolute path"),
        ("process.cwd", ..., "process.cwd is missing"),
        ("process.terminal", 1, "process.terminal must be true or false"),
        ("process.user.uid", 1.0, "process.user.uid must be a whole number"),
        ("process.user.uid", True, "process.user.uid must be a whole number"),
        ("process.user.uid", -1, "process.user.uid is -1"),
        ("process.user.uid", 4294967295, "process.user.uid is 4294967295"),
        ("process.user.umask", 512, "process.user.umask is 512"),
        ("process.user", [], "process.user must be an object"),
        ("process", ..., "process is missing"),
        ("process.oomScoreAdj", 1001, "process.oomScoreAdj is 1001"),
        ("process.rlimits.0.type", "RLIMIT_TEA", "process.rlimits[0].type is 'RLIMIT_TEA'"),
        ("process.rlimits.0.type", "NOFILE", "process.rlimits[0].type is 'NOFILE'"),
        ("process.rlimits.0.hard", 0, "process.rlimits[0].soft is above the hard limit"),
        ("process.rlimits", [FULL["process"]["rlimits"][0]] * 2, "process.rlimits has two entries"),
        ("root", ..., "root.path is missing"),
        ("root.path", "", "root.path is empty"),
        ("ociVersion", "2.0.0", "ociVersion is '2.0.0'"),
        ("ociVersion", ..., "ociVersion is missing"),
        ("mounts", {}, "mounts must be a list of objects"),
        ("mounts.0.destination", "proc", "mounts[0].destination must be an absolute path"),
        ("mounts.0.destination", "/..", "mounts[0].destination is the root itself"),
        ("mounts.0.options", ["size=1,suid"], "mounts[0].options[0] is 'size=1,suid'"),
        ("mounts.0.type", ..., "mounts[0].type is missing"),
        ("mounts.1.source", ..., "mounts[1].source is missing"),
        ("linux.namespaces.0.type", "tea", "linux.namespaces[0].type is 'tea'"),
        ("linux.namespaces.0.type", "user", "linux.namespaces[2].type 'user' is there twice"),
        ("linux.namespaces.1.path", "netns", "linux.namespaces[1].path must be an absolute path"),
        ("linux.uidMappings.0.size", 0, "linux.uidMappings[0].size is 0"),
        ("linux.timeOffsets", {"realtime": {}}, "linux.timeOffsets.realtime names no clock"),
        ("linux.timeOffsets.monotonic.nanosecs", 10**9, "linux.timeOffsets.monotonic.nanosecs is"),
        ("linux.devices.0.type", "x", "linux.devices[0].type is 'x'"),
        ("linux.devices.0.path", "dev", "linux.devices[0].path must be an absolute path"),
        ("linux.devices.0.major", ..., "linux.devices[0].major is missing"),
        ("linux.resources.devices.1.access", "rx", "linux.resources.devices[1].access is 'rx'"),
        ("linux.resources.devices.1.type", "x", "linux.resources.devices[1].type is 'x'"),
        ("linux.resources.devices.0.major", 1, "linux.resources.devices[0] is of type a"),
        ("linux.cgroupsPath", "a.slice:b:c", "linux.cgroupsPath is systemd's form"),
        ("linux.cgroupsPath", "/a/../..", "linux.cgroupsPath must not climb"),
        ("linux.rootfsPropagation", "tea", "linux.rootfsPropagation is 'tea'"),
        ("linux.sysctl", {"net.a": 1}, "linux.sysctl.net.a must be a string"),
        ("linux.maskedPaths", "/x", "linux.maskedPaths must be a list of strings"),
        ("linux.maskedPaths", ["x"], "linux.maskedPaths[0] must be an absolute path"),
        ("annotations", {"a": 1}, "annotations.a must be a string"),
        # not yet, by path
        ("hooks", {"prestart": [{"path": "/x"}]}, "hooks.prestart is not supported yet"),
        ("hooks", {"poststop": [{"path": "/x"}]}, "hooks.poststop is not supported yet"),
        ("process.scheduler", {"policy": "SCHED_FIFO"}, "process.scheduler.policy is not supp"),
        ("process.ioPriority", {"class": "x"}, "process.ioPriority.class is not supported yet"),
        ("linux.resources.memory.limit", "1", "linux.resources.memory.limit must be a whole"),
        ("linux.resources.memory.limit", -2, "linux.resources.memory.limit is -2"),
        ("linux.resources.memory.swap", 1000, "linux.resources.memory.swap is wrong: the limit of"),
        ("linux.resources.memory", {"swap": 1}, "linux.resources.memory.swap is wrong: a limit of"),
        ("linux.resources.memory.swappiness", 60, "linux.resources.memory.swappiness cannot be"),
        ("linux.resources.memory.disableOOMKiller", True,
         "linux.resources.memory.disableOOMKiller cannot be had"),
        ("linux.resources.memory.kernelTCP", 1, "linux.resources.memory.kernelTCP cannot be had"),
        ("linux.resources.memory.tea", 1, "linux.resources.memory.tea is not supported yet"),
        ("linux.resources.cpu.quota", 999, "linux.resources.cpu.quota is 999"),
        ("linux.resources.cpu.period", 999, "linux.resources.cpu.period is 999"),
        ("linux.resources.cpu.period", 1000001, "linux.resources.cpu.period is 1000001"),
        ("linux.resources.cpu.idle", 2, "linux.resources.cpu.idle is 2"),
        ("linux.resources.cpu.cpus", "0-", "linux.resources.cpu.cpus is wrong: not a list"),
        ("linux.resources.cpu.mems", "1-0", "linux.resources.cpu.mems is wrong: not a range"),
        ("linux.resources.cpu.realtimeRuntime", 1, "linux.resources.cpu.realtimeRuntime cannot"),
        ("linux.resources.blockIO.weight", 9, "linux.resources.blockIO.weight is 9"),
        ("linux.resources.blockIO.weight", 1001, "linux.resources.blockIO.weight is 1001"),
        ("linux.resources.blockIO.leafWeight", 10, "linux.resources.blockIO.leafWeight cannot"),
        ("linux.resources.blockIO.weightDevice.0.leafWeight", 10,
         "linux.resources.blockIO.weightDevice[0].leafWeight is not supported yet"),
        ("linux.resources.blockIO.throttleReadBpsDevice.0.rate", 0,
         "linux.resources.blockIO.throttleReadBpsDevice[0].rate is 0"),
        ("linux.resources.blockIO.throttleReadBpsDevice.0.major", ...,
         "linux.resources.blockIO.throttleReadBpsDevice[0].major is missing"),
        ("linux.resources.hugepageLimits.0.pageSize", "2M",
         "linux.resources.hugepageLimits[0].pageSize is '2M'"),
        ("linux.resources.unified", {"a/b.c": "1"}, "linux.resources.unified.a/b.c is wrong"),
        ("linux.resources.unified", {"a.b": 1}, "linux.resources.unified.a.b must be a string"),
        ("linux.resources.unified", {"cgroup.procs": "1"}, "linux.resources.unified.cgroup.procs"),
        ("linux.resources.network", {"classID": 1}, "linux.resources.network.classID is not supp"),
        ("linux.resources.tea", 1, "linux.resources.tea is not supported yet"),
        ("linux.intelRdt", {"closID": "a"}, "linux.intelRdt.closID is not supported yet"),
        ("linux.mountLabel", "x", "linux.mountLabel is not supported yet"),
        ("linux.personality", {"domain": "LINUX32"}, "linux.personality.domain is 'LINUX32'"),
        ("mounts.0.uidMappings", [{"size": 1}], "mounts[0].uidMappings is not supported yet"),
        ("mounts.0.options", ["idmap"], "mounts[0].options[0] 'idmap' is not supported yet"),
        ("mounts.0.options", ["tmpcopyup"], "mounts[0].options[0] 'tmpcopyup' is not"),
        ("windows", {"layerFolders": ["a"]}, "windows.layerFolders is not supported yet"),
        ("vm", {"kernel": {"path": "/x"}}, "vm.kernel.path is not supported yet"),
    ],
)  # fmt: skip
def test_refused_by_path(path, value, words):
    assert complaint(changed(FULL, path, value)).startswith(f"config.json: {words}")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        # what docker and podman write for "unset"
        ("hooks", {"prestart": [], "poststop": None}),
        ("linux.resources.memory.kernel", 0),
        ("linux.resources.memory.swappiness", -1),
        ("linux.resources.memory.checkBeforeUpdate", True),
        ("linux.resources.cpu.realtimePeriod", 0),
        ("linux.resources.blockIO.leafWeight", 0),
        ("linux.resources.rdma", {}),
        ("linux.mountLabel", ""),
        ("linux.intelRdt", None),
        ("linux.personality", {"domain": "LINUX"}),
        ("process.user.username", "root"),
        ("mounts.0.uidMappings", []),
        ("windows", {}),
    ],
)  # fmt: skip
def test_what_asks_for_nothing_is_not_refused(path, value):
    assert parse(changed(FULL, path, value)) == FULL_SPEC


@pytest.mark.parametrize("text", ["", "[]", "{", "null", '{"a": NaN}', "[" * 100_000, '"x"'])
def test_not_an_object(text):
    with pytest.raises(UsageError, match=r"^config\.json: "):
        parse_config(text, "/b")


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("process.capabilities.ambient", ["CAP_CHOWN"], "ambient: CAP_CHOWN left out"),
        ("process.capabilities.bounding", ["CAP_TEA"], "bounding: unknown, left out: CAP_TEA"),
    ],
)
def test_what_is_weaker_than_asked_is_said(path, value, words):
    said = []
    parse(changed(FULL, path, value), said.append)
    assert [sentence for sentence in said if words in sentence]


def test_nothing_is_said_of_a_config_that_is_carried_out():
    said = []
    parse(FULL, said.append)
    assert said == []


@pytest.mark.parametrize(
    ("given_", "understood"),
    [
        ("/a//b/./c/..", "/a/b"),
        ("//a", "/a"),
        ("/../../a", "/a"),
    ],
)
def test_destinations_are_made_plain(given_, understood):
    spec = parse(changed(FULL, "mounts.0.destination", given_))
    assert spec.mounts[0].destination == understood


def test_the_last_of_two_variables_counts():
    spec = parse(changed(FULL, "process.env", ["A=1", "B=2", "A=3"]))
    assert spec.process.env == ("A=3", "B=2")


@pytest.mark.parametrize("mode", [0o20666, 0o666])
def test_a_device_mode_with_the_type_in_it(mode):
    """docker writes what stat(2) says."""
    spec = parse(changed(FULL, "linux.devices.0.fileMode", mode))
    assert spec.linux.devices[0].file_mode == 0o666


# ---- whole bundles


@pytest.fixture
def bundle(tmp_path):
    (tmp_path / "rootfs").mkdir()
    config = changed(LEAST, "root.path", "rootfs")
    (tmp_path / "config.json").write_text(json.dumps(config))
    return tmp_path


def test_a_cgroup_of_its_own_by_default(bundle):
    spec = spec_from_bundle(str(bundle), "abc")
    assert spec.linux.cgroups_path == "/minicontainer/abc"
    assert spec.root.path == str(bundle / "rootfs")


def test_a_relative_bundle(bundle, monkeypatch):
    monkeypatch.chdir(bundle.parent)
    assert read_bundle(bundle.name).root.path == str(bundle / "rootfs")


def test_no_config(tmp_path):
    with pytest.raises(UsageError, match=r"config\.json: no such file or directory"):
        read_bundle(str(tmp_path))


def test_no_root(bundle):
    (bundle / "rootfs").rmdir()
    with pytest.raises(UsageError, match=r"root\.path: .*/rootfs is not a directory"):
        spec_from_bundle(str(bundle), "abc")


def test_not_utf8(bundle):
    (bundle / "config.json").write_bytes(b'{"ociVersion": "\xff"}')
    with pytest.raises(UsageError, match="not UTF-8"):
        read_bundle(str(bundle))


def test_a_contradiction_is_refused_when_the_bundle_is_read(bundle):
    config = changed(LEAST, "hostname", "box")
    (bundle / "config.json").write_text(json.dumps(config))
    with pytest.raises(UsageError, match="hostname needs a namespace of type uts"):
        read_bundle(str(bundle))


# ---- writing


def test_written_and_read_again():
    assert parse_config(write_config(FULL_SPEC), "/elsewhere") == FULL_SPEC


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (FULL_SPEC.replace(root=Root(layers=("/l",))), "root.layers"),
        (FULL_SPEC.replace(files=(File("/etc/hosts", ""),)), "files"),
        (FULL_SPEC.replace(process=Process(args=("a",), init=True)), "process.init"),
        (FULL_SPEC.replace(process=Process(args=("a",), user=User(username="root"))), "username"),
        (FULL_SPEC.replace(process=Process(args=("a",), capabilities=None)), "capabilities"),
        (FULL_SPEC.replace(linux=Linux()), "linux.seccomp"),
    ],
)
def test_what_oci_has_no_word_for(spec, words):
    with pytest.raises(UsageError, match=words):
        write_config(spec)


TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12)
WORD = st.text("abcxyz019_.-", min_size=1, max_size=8)
PATH = WORD.map(lambda word: "/" + word.replace(".", "d"))
ID = st.integers(0, 0xFFFFFFFE)
LIMIT = st.integers(0, (1 << 64) - 1)


def several(strategy, **how):
    return st.lists(strategy, max_size=3, **how).map(tuple)


def records(kind, **fields):
    return st.builds(kind, **fields)


CAPS = several(st.sampled_from(NAMES), unique=True)
SPECS = records(
    Spec,
    process=records(
        Process,
        args=st.tuples(WORD, TEXT),
        env=several(st.tuples(WORD, TEXT), unique_by=lambda pair: pair[0]).map(
            lambda pairs: tuple(f"{name}={value}" for name, value in pairs)
        ),
        cwd=PATH,
        terminal=st.booleans(),
        console_size=st.tuples(st.integers(0, 65535), st.integers(0, 65535)),
        user=records(
            User, uid=ID, gid=ID, additional_gids=several(ID), umask=st.integers(-1, 0o777)
        ),
        capabilities=records(
            Capabilities,
            bounding=CAPS,
            effective=CAPS,
            permitted=CAPS,
            inheritable=CAPS,
            ambient=CAPS,
        ),
        rlimits=several(
            st.builds(
                lambda kind, pair: Rlimit(
                    kind, *(n - (1 << 64) if n >= 1 << 63 else n for n in sorted(pair))
                ),
                st.sampled_from(sorted(NUMBERS)),
                st.tuples(LIMIT, LIMIT),
            ),
            unique_by=lambda limit: limit.type,
        ),
        no_new_privileges=st.booleans(),
        apparmor_profile=TEXT,
        selinux_label=TEXT,
        oom_score_adj=st.none() | st.integers(-1000, 1000),
    ),
    root=records(Root, path=PATH, readonly=st.booleans()),
    hostname=TEXT,
    domainname=TEXT,
    mounts=several(
        records(
            Mount,
            destination=PATH,
            type=st.sampled_from(["tmpfs", "proc", "bind"]),
            source=PATH,
            options=several(st.sampled_from(sorted({*OPTIONS, *PROPAGATION} - {"bind", "rbind"}))),
        )
    ),
    annotations=several(st.tuples(TEXT, TEXT), unique_by=lambda pair: pair[0]),
    linux=records(
        Linux,
        namespaces=several(
            records(Namespace, type=st.sampled_from(NAMESPACES), path=st.just("") | PATH),
            unique_by=lambda namespace: namespace.type,
        ),
        uid_mappings=several(
            records(IdMap, container_id=ID, host_id=ID, size=st.integers(1, 2**32 - 1))
        ),
        gid_mappings=several(
            records(IdMap, container_id=ID, host_id=ID, size=st.integers(1, 2**32 - 1))
        ),
        time_offsets=several(
            records(
                TimeOffset,
                clock=st.sampled_from(CLOCKS),
                seconds=st.integers(-(1 << 33), 1 << 33),
                nanoseconds=st.integers(0, 999_999_999),
            ),
            unique_by=lambda offset: offset.clock,
        ),
        devices=several(
            records(
                Device,
                path=PATH,
                type=st.sampled_from(NODE_TYPES),
                major=st.integers(0, 0xFFF),
                minor=st.integers(0, 0xFFFFF),
                file_mode=st.integers(0, 0o7777),
                uid=ID,
                gid=ID,
                access=st.just(""),
            )
        ),
        device_rules=several(
            records(
                DeviceRule,
                allow=st.booleans(),
                type=st.sampled_from("bc"),
                major=st.integers(-1, 0xFFF),
                minor=st.integers(-1, 0xFFFFF),
                access=st.sampled_from(["r", "rw", "rwm", "m"]),
            )
            | st.builds(DeviceRule, st.booleans())
        ),
        cgroups_path=st.just("") | PATH,
        sysctl=several(st.tuples(WORD, TEXT), unique_by=lambda pair: pair[0]),
        seccomp=st.none()
        | st.dictionaries(TEXT, st.lists(st.integers() | TEXT, max_size=2), max_size=2).map(
            lambda profile: Seccomp(json_text(profile))
        ),
        masked_paths=several(PATH),
        readonly_paths=several(PATH),
        rootfs_propagation=st.sampled_from(["", *PROPAGATION]),
    ),
)


@given(SPECS)
@settings(max_examples=1500, deadline=None)
def test_any_spec_is_read_as_it_was_written(spec):
    written = write_config(spec)
    assert parse_config(written, "/elsewhere") == spec
    VALIDATOR.validate(json.loads(written))


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=4,
)


@given(st.sampled_from(sorted(leaves(FULL))), JUNK, st.integers(0, 5))
@settings(max_examples=150, deadline=None)
def test_junk_is_understood_or_refused(path, junk, height):
    """Whatever stands anywhere: a Spec comes out that a plan can be made of, or a UsageError."""
    config = changed(FULL, path[: max(1, len(path) - height)], junk)
    try:
        spec = parse_config(json.dumps(config), "/b")
        plan(spec, Place("id", "/scratch"))
    except UsageError as refused:
        assert refused.message


def is_text(name: str) -> bool:
    """A name that no file of JSON's should have is refused, whatever it names."""
    return "\0" not in name and not any("\ud800" <= c <= "\udfff" for c in name)


@given(JUNK)
def test_what_says_nothing_asks_for_nothing(junk):
    value = Json(junk, "linux.tea")
    if says_nothing(junk) and (not isinstance(junk, dict) or all(map(is_text, junk))):
        value.refuse_what_it_says()
    else:
        with pytest.raises(UsageError, match=r"linux\.tea"):
            value.refuse_what_it_says()


# ---- the shape of what is written (runtime-spec, schema/; the part of it that we write)


def schema(required="", **properties):
    return {
        "type": "object",
        "properties": properties,
        "required": required.split(),
        "additionalProperties": False,
    }


STRING, BOOL = {"type": "string"}, {"type": "boolean"}
ABSOLUTE = {"type": "string", "pattern": "^/"}
UINT32 = {"type": "integer", "minimum": 0, "maximum": 2**32 - 1}
UINT64 = {"type": "integer", "minimum": 0, "maximum": 2**64 - 1}
INT64 = {"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1}
WEIGHT = {"type": "integer", "minimum": 0, "maximum": 2**16 - 1}
STRINGS = {"type": "array", "items": STRING}
PAIRS = {"type": "object", "additionalProperties": STRING}


def array(items):
    return {"type": "array", "items": items}


ID_MAPS = array(schema("containerID hostID size", containerID=UINT32, hostID=UINT32, size=UINT32))
OFFSET = schema(secs={"type": "integer"}, nanosecs=UINT32)
SCHEMA = schema(
    "ociVersion process root",
    ociVersion={"type": "string", "pattern": r"^1\.\d+\.\d+$"},
    hostname=STRING,
    domainname=STRING,
    annotations=PAIRS,
    root=schema("path", path=STRING, readonly=BOOL),
    mounts=array(
        schema("destination", destination=ABSOLUTE, type=STRING, source=STRING, options=STRINGS)
    ),
    process=schema(
        "cwd args",
        terminal=BOOL,
        consoleSize=schema("height width", height=UINT64, width=UINT64),
        user=schema(uid=UINT32, gid=UINT32, umask=UINT32, additionalGids=array(UINT32)),
        args={**STRINGS, "minItems": 1},
        env=STRINGS,
        cwd=ABSOLUTE,
        capabilities=schema(
            **{
                name: array({"type": "string", "pattern": "^CAP_[A-Z_]+$"})
                for name in ("bounding", "effective", "permitted", "inheritable", "ambient")
            }
        ),
        rlimits=array(schema("type soft hard", type=STRING, soft=UINT64, hard=UINT64)),
        noNewPrivileges=BOOL,
        apparmorProfile=STRING,
        selinuxLabel=STRING,
        oomScoreAdj={"type": "integer"},
    ),
    linux=schema(
        namespaces=array(schema("type", type={"enum": [*NAMESPACES]}, path=ABSOLUTE)),
        uidMappings=ID_MAPS,
        gidMappings=ID_MAPS,
        timeOffsets=schema(monotonic=OFFSET, boottime=OFFSET),
        devices=array(
            schema(
                "path type",
                path=ABSOLUTE,
                type={"enum": ["c", "b", "u", "p"]},
                major=UINT32,
                minor=UINT32,
                fileMode={"type": "integer", "minimum": 0, "maximum": 0o7777},
                uid=UINT32,
                gid=UINT32,
            )
        ),
        resources=schema(
            devices=array(
                schema(
                    "allow",
                    allow=BOOL,
                    type={"enum": ["a", "b", "c"]},
                    major=UINT32,
                    minor=UINT32,
                    access={"type": "string", "pattern": "^[rwm]{1,3}$"},
                )
            ),
            memory=schema(limit=INT64, reservation=INT64, swap=INT64),
            cpu=schema(
                shares=UINT64,
                quota=INT64,
                period=UINT64,
                burst=UINT64,
                idle={"type": "integer"},
                cpus=STRING,
                mems=STRING,
            ),
            pids=schema(limit=INT64),
            blockIO=schema(
                weight=WEIGHT,
                weightDevice=array(schema("major minor", major=INT64, minor=INT64, weight=WEIGHT)),
                **{
                    f"throttle{what}Device": array(
                        schema("major minor rate", major=INT64, minor=INT64, rate=UINT64)
                    )
                    for what in ("ReadBps", "WriteBps", "ReadIOPS", "WriteIOPS")
                },
            ),
            hugepageLimits=array(
                schema(
                    "pageSize limit",
                    pageSize={"type": "string", "pattern": "^[1-9][0-9]*[KMG]B$"},
                    limit=UINT64,
                )
            ),
            unified=PAIRS,
        ),
        cgroupsPath=STRING,
        sysctl=PAIRS,
        seccomp={"type": "object"},
        rootfsPropagation={"enum": [*PROPAGATION]},
        maskedPaths=STRINGS,
        readonlyPaths=STRINGS,
    ),
)

VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


def test_what_is_written_has_the_specifications_shape():
    VALIDATOR.validate(json.loads(write_config(FULL_SPEC)))


@pytest.mark.parametrize("path", ["process.cwd", "process.user.uid", "linux.devices.0.path"])
def test_the_schema_can_fail(path):
    config = changed(json.loads(write_config(FULL_SPEC)), path, True)
    with pytest.raises(jsonschema.ValidationError):
        VALIDATOR.validate(config)
