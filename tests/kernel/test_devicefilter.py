"""kernel/devicefilter.py: which devices a container opens, on the real kernel, and why no others.

The host's "disk" is a loop device that holds a secret.  A container that reads it has got out.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minicontainer import (
    Container,
    Device,
    DeviceRule,
    IdMap,
    Linux,
    Namespace,
    Process,
    Root,
    Spec,
)
from minicontainer.errors import KernelError, UsageError
from minicontainer.kernel import bpf, cgroup, devicefilter, seccomp_compile
from minicontainer.kernel.capabilities import mask
from minicontainer.kernel.devicefilter import ALWAYS, ANY, FilterDevices, Rule, assemble, listing
from minicontainer.kernel.seccomp import seccomp_set_mode_filter
from minicontainer.kernel.seccomp_rules import Profile
from minicontainer.kernel.seccomp_rules import Rule as CallRule
from minicontainer.libc import MACHINE, address, ffi, syscall
from minicontainer.oci_read import parse_config
from minicontainer.oci_write import write_config
from minicontainer.plan import Place, plan
from minicontainer.spec import (
    ALL_DEVICES,
    DEFAULT_CAPABILITIES,
    DEFAULT_MOUNTS,
    DEFAULT_NAMESPACES,
    Capabilities,
    Mount,
)
from minicontainer.step import CLONE, Context, Plan, Step
from tests.bpf_machine import mutant
from tests.support import Cli, Host

needs_root = pytest.mark.requires_root
Fork = Callable[[Callable[[], Any]], Any]
SECRET = "the host's secret"
EPERM = "Operation not permitted"

# ---- the program, without the kernel


def answer(program: bytes, kind: str, major: int, minor: int, access: str) -> bool:
    """Run it as the kernel would: 64-bit registers, sign-extended constants."""
    asked = sum({"m": 1, "r": 2, "w": 4}[letter] for letter in access)
    numbers = struct.pack("=III", asked << 16 | {"b": 1, "c": 2}[kind], major, minor)
    r: list[int | None] = [None, 0, *[None] * 9]
    operations = {
        0x0: lambda a, b: a + b, 0x2: lambda a, b: a * b, 0x4: lambda a, b: a | b,
        0x5: lambda a, b: a & b, 0x7: lambda a, b: a >> b, 0xA: lambda a, b: a ^ b,
        0xB: lambda a, b: b,
    }  # fmt: skip
    for code, registers, offset, constant in struct.Struct("=BBhi").iter_unpack(program):
        target, source = registers & 15, registers >> 4
        if code == 0x95:
            assert r[0] in (0, 1)
            return r[0] == 1
        if code == 0x61:
            assert source == 1 and r[1] == 0
            r[target] = int.from_bytes(numbers[offset : offset + 4], "little")
            continue
        assert code & 7 == 7, f"{code:#x} is no 64-bit arithmetic"
        operand = r[source] if code & 8 else constant % (1 << 64)
        assert operand is not None, "a register is read before it is written"
        before = r[target] if code >> 4 != 0xB else 0
        assert before is not None, "a register is read before it is written"
        r[target] = operations[code >> 4](before, operand) % (1 << 64)
    raise AssertionError("it ran off its end")


def allowed(rules: tuple[Rule, ...], kind: str, major: int, minor: int, access: str) -> bool:
    """What config-linux.md says, in as many words: of each access, the last rule decides."""

    def decided(letter: str) -> bool:
        verdict = False
        for allow, rule_kind, rule_major, rule_minor, rule_access in rules:
            about = rule_kind in ("a", kind) and rule_major in (ANY, major)
            if about and rule_minor in (ANY, minor) and letter in rule_access:
                verdict = allow
        return verdict

    return all(decided(letter) for letter in access)


KINDS, ACCESSES = ("b", "c"), ("m", "r", "w", "rw", "rwm", "")
numbers = st.sampled_from([0, 1, 2, 0xFFF, 0xFFFFF])
rules = st.lists(
    st.tuples(
        st.booleans(), st.sampled_from("abc"), numbers | st.just(ANY), numbers | st.just(ANY),
        st.sampled_from(["m", "r", "w", "rw", "rm", "wm", "rwm"]),
    ), max_size=8,
).map(tuple)  # fmt: skip


def check_program(module: Any, some: tuple[Rule, ...]) -> None:
    """Every question that could tell, put to the program and to the specification."""
    program = module.assemble(some)
    majors = {0, 1, 2, 0xFFF, *(rule[2] for rule in some)} - {ANY}
    minors = {0, 1, 2, 0xFFFFF, *(rule[3] for rule in some)} - {ANY}
    for kind in KINDS:
        for major in majors:
            for minor in minors:
                for access in ACCESSES:
                    question = kind, major, minor, access
                    assert answer(program, *question) == allowed(some, *question), question


@given(rules)
@settings(deadline=None)
def test_the_program_says_what_the_rules_say(some: tuple[Rule, ...]) -> None:
    check_program(devicefilter, some)


MIXED: tuple[Rule, ...] = (
    (True, "c", 1, 2, "r"), (True, "c", 1, 2, "w"), (True, "b", 2, ANY, "rwm"),
    (False, "b", 2, 1, "w"), (True, "a", ANY, ANY, "m"), (False, "c", ANY, 0, "m"),
)  # fmt: skip


def test_the_rules_of_every_container() -> None:
    check_program(devicefilter, ALWAYS)
    check_program(devicefilter, MIXED + ALWAYS)
    check_program(devicefilter, MIXED)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("(_MAJOR, major), ", ""),
        (", (_MINOR, minor)", ""),
        ("(_TYPE, _TYPES[kind]), ", ""),
        ('{"b": 1, "c": 2', '{"b": 2, "c": 1'),
        ('{"m": 1, "r": 2', '{"m": 2, "r": 1'),
        ("_OR if allow else _AND", "_OR"),
        ("    if not allow:", "    if False:"),
        ("_instruction(_XOR, _GRANTED, constant=-1),", ""),
        ("constant=63", "constant=62"),
        ("_instruction(_SHIFT, _ASKED, constant=16)", "_instruction(_SHIFT, _ASKED, constant=17)"),
        ("for rule in rules:", "for rule in rules[1:]:"),
        ("for rule in rules:", "for rule in reversed(rules):"),
    ],
)  # fmt: skip
def test_the_check_sees_a_wrong_program(old: str, new: str) -> None:
    broken = mutant(devicefilter, old, new)
    with pytest.raises((AssertionError, KeyError)):
        check_program(broken, MIXED)


def test_listing() -> None:
    assert listing(ALWAYS).splitlines()[:3] == [
        "refuse everything", "allow a *:* m", "allow c 1:3 rwm"
    ]  # fmt: skip
    assert listing(((False, "b", 8, ANY, "rw"),)).endswith("refuse b 8:* rw")
    assert listing(ALWAYS).endswith("allow c 136:* rwm")


# ---- the plan


def names_of(spec: Spec) -> list[str]:
    return [type(step).__name__ for step in plan(spec, Place("x", "/scratch"))]


def spec_for(*layers: str, **linux: Any) -> Spec:
    return Spec(
        process=Process(args=("sh",)),
        root=Root(layers=layers or ("/layer",)),
        linux=Linux(**{"cgroups_path": f"/minicontainer/devices{os.getpid()}", **linux}),
    )


def test_where_it_stands() -> None:
    steps = plan(spec_for(), Place("x", "/scratch")).steps
    kinds = [type(step).__name__ for step in steps]
    at = kinds.index("FilterDevices")
    assert kinds[at - 2 : at] == ["MakeCgroup", "CountResources"]
    assert all(step.side != CLONE for step in steps[: at + 1])


def test_who_has_one() -> None:
    assert "FilterDevices" not in names_of(spec_for(device_rules=(ALL_DEVICES,)))
    last_word = (ALL_DEVICES, DeviceRule(False, "b"))
    assert "FilterDevices" in names_of(spec_for(device_rules=last_word))
    maps = (IdMap(0, 1000000, 65536),)
    kinds = tuple(Namespace(kind) for kind in (*DEFAULT_NAMESPACES, "user"))
    user = spec_for(namespaces=kinds, uid_mappings=maps, gid_mappings=maps)
    assert "FilterDevices" in names_of(user)


def filter_of(spec: Spec) -> FilterDevices:
    (step,) = (s for s in plan(spec, Place("x", "/scratch")) if isinstance(s, FilterDevices))
    return step


def test_rules_of_the_spec_come_before_its_devices() -> None:
    nodes = (Device("/dev/a", "u", 1, 2, access="r"), Device("/dev/p", "p"),
             Device("/dev/b", "b", 3, 4, access=""))  # fmt: skip
    step = filter_of(spec_for(devices=nodes, device_rules=(DeviceRule(False, "c", 1),)))
    assert step.rules == ((False, "c", 1, ANY, "rwm"), (True, "c", 1, 2, "r"))


def test_whom_it_warns() -> None:
    """Only where CAP_MKNOD is worth something is it worth a warning."""
    assert filter_of(spec_for()).mknod
    without = spec_for()
    capabilities = Capabilities.same(("CAP_KILL",))
    without = without.replace(process=without.process.replace(capabilities=capabilities))
    assert not filter_of(without).mknod
    maps = (IdMap(0, 1000000, 65536),)
    kinds = tuple(Namespace(kind) for kind in (*DEFAULT_NAMESPACES, "user"))
    assert not filter_of(spec_for(namespaces=kinds, uid_mappings=maps, gid_mappings=maps)).mknod


# ---- config.json


def read(**linux: Any) -> Linux:
    kinds = [{"type": kind} for kind in DEFAULT_NAMESPACES]
    config = {
        "ociVersion": "1.0.2", "root": {"path": "rootfs"},
        "process": {"args": ["sh"], "cwd": "/"}, "linux": {"namespaces": kinds, **linux},
    }  # fmt: skip
    return parse_config(json.dumps(config), "/bundle").linux


def test_what_runc_spec_writes_is_the_default() -> None:
    linux = read(resources={"devices": [{"allow": False, "access": "rwm"}]})
    assert linux.device_rules == (DeviceRule(False),)
    step = filter_of(spec_for(device_rules=linux.device_rules))
    for question in [(k, 1, n, a) for k in KINDS for n in range(10) for a in ACCESSES]:
        with_it, without = assemble(step.rules + ALWAYS), assemble(ALWAYS)
        assert answer(with_it, *question) == answer(without, *question)


def test_rules_of_a_bundle() -> None:
    written = [
        {"allow": False, "access": "rwm"},
        {"allow": True, "type": "c", "major": 10, "minor": 229, "access": "mr"},
        {"allow": True, "type": "b", "major": 7, "access": "w"},
        {"allow": False, "type": "a", "major": -1, "minor": -1, "access": "mwr"},
    ]
    assert read(resources={"devices": written}).device_rules == (
        DeviceRule(False), DeviceRule(True, "c", 10, 229, "rm"), DeviceRule(True, "b", 7, -1, "w"),
        DeviceRule(False),
    )  # fmt: skip
    assert read().device_rules == ()


def test_a_bundles_node_is_not_a_rule() -> None:
    """As with runc and crun: what linux.devices makes, linux.resources.devices must allow."""
    node = {"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229}
    linux = read(devices=[node])
    assert filter_of(spec_for(devices=linux.devices)).rules == ()


@pytest.mark.parametrize(
    ("rule", "complaint"),
    [
        ({"allow": True}, r"resources\.devices\[0\]\.access is missing"),
        ({"allow": True, "access": ""}, r"\[0\]\.access is ''"),
        ({"allow": True, "access": "rx"}, r"\[0\]\.access is 'rx'"),
        ({"allow": 1, "access": "r"}, r"\[0\]\.allow must be true or false"),
        ({"access": "r", "type": "p"}, r"\[0\]\.type is 'p'"),
        ({"access": "rwm", "major": 8}, r"\[0\] is of type a"),
        ({"access": "r", "type": "a"}, r"\[0\] is of type a"),
        ({"access": "r", "type": "c", "major": -2}, r"\[0\]\.major is -2"),
        ({"access": "r", "type": "c", "minor": 1 << 20}, r"\[0\]\.minor is 1048576"),
        ({"access": "r", "type": "c", "minor": "*"}, r"\[0\]\.minor must be a whole number"),
    ],
)
def test_bad_rules_are_refused_by_their_path(rule: dict[str, Any], complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        read(resources={"devices": [rule]})


def test_what_is_written_is_read() -> None:
    rules = (DeviceRule(False), DeviceRule(True, "b", 7, -1, "r"))
    node = Device("/dev/fuse", "c", 10, 229, access="rw")
    spec = spec_for(device_rules=rules, devices=(node,))
    spec = spec.replace(root=Root("/r"), linux=spec.linux.replace(seccomp=None))
    linux = parse_config(write_config(spec), "/").linux
    assert linux.device_rules == (*rules, DeviceRule(True, "c", 10, 229, "rw"))
    assert linux.devices == (node.replace(access=""),)


# ---- the kernel's own word on single devices


@contextmanager
def own_cgroup() -> Iterator[str]:
    """A cgroup of this test alone; what still lives in it is ended."""
    path = f"{cgroup.mount_point()}/minicontainer/devices{os.getpid()}"
    cgroup.make(path)
    try:
        yield path
    finally:
        cgroup.remove(path)


def filtered(path: str, rules: tuple[Rule, ...] = (), flags: int = os.O_PATH) -> Context:
    """Attach the filter to a cgroup, as the step does it."""
    context = Context("x", "")
    context.cgroup_fd = os.open(path, flags | os.O_DIRECTORY)
    try:
        FilterDevices(rules).run(context)
    finally:
        os.close(context.cgroup_fd)
    return context


def join(path: str) -> None:
    Path(path, "cgroup.procs").write_text("0")


def opened(kind: str, major: int, minor: int, flags: int) -> str:
    """Make the node and open it: "open", "EPERM", or "other", where the filter let it pass."""
    node = "/node"
    kinds = {"c": stat.S_IFCHR, "b": stat.S_IFBLK}
    os.mknod(node, kinds[kind] | 0o600, os.makedev(major, minor))
    try:
        os.close(os.open(node, flags | os.O_NONBLOCK | os.O_NOCTTY))
    except OSError as error:
        return "EPERM" if error.errno == errno.EPERM else "other"
    finally:
        os.unlink(node)
    return "open"


# Nothing here does anything by being opened (a watchdog, for one, would).
HARMLESS = (
    ("c", 1, 3), ("c", 1, 5), ("c", 1, 7), ("c", 1, 8), ("c", 1, 9), ("c", 1, 11), ("c", 5, 2),
    ("c", 10, 229), ("c", 10, 237), ("c", 4095, 1), ("b", 4095, 1), ("b", 1, 3), ("b", 7, 0),
)  # fmt: skip
FLAGS = {"r": os.O_RDONLY, "w": os.O_WRONLY, "rw": os.O_RDWR}


def private_root() -> None:
    """A fresh tmpfs to make nodes in: the host's /tmp may be nodev."""
    from minicontainer.mountcalls import mount

    mount("tmpfs", "/mnt", "tmpfs", 0)
    os.chroot("/mnt")


@needs_root
@pytest.mark.parametrize(
    "rules",
    [
        (),
        ((True, "c", 10, 229, "r"),),
        ((True, "c", 10, ANY, "rw"), (False, "c", 10, 237, "w")),
        ((True, "b", ANY, ANY, "rwm"), (False, "b", 1, ANY, "rwm")),
        ((True, "a", ANY, ANY, "rwm"), (False, "c", 1, 11, "rw")),
    ],
    ids=listing,
)
def test_the_kernel_does_as_the_rules_say(forked: Fork, rules: tuple[Rule, ...]) -> None:
    def child() -> dict[tuple[Any, ...], str]:
        with_filter = [(d, a) for d in HARMLESS for a in FLAGS if d[0] == "c" or a == "r"]
        join(path)
        private_root()
        return {(*d, a): opened(*d, FLAGS[a]) for d, a in with_filter}

    with own_cgroup() as path:
        filtered(path, rules)
        found = forked(child)
    wrong = {
        question: word
        for question, word in found.items()
        if (word != "EPERM") != allowed(rules + ALWAYS, *question)
    }
    assert wrong == {}
    assert {"open", "EPERM"} <= set(found.values())


@needs_root
def test_without_a_filter_all_of_these_are_let_through(forked: Fork) -> None:
    """So it is the filter that says EPERM, and not this machine."""

    def child() -> set[str]:
        join(path)
        private_root()
        return {opened(*device, os.O_RDONLY) for device in HARMLESS if device != ("c", 1, 11)}

    with own_cgroup() as path:
        assert "EPERM" not in forked(child)


@needs_root
@pytest.mark.parametrize("flags", [os.O_PATH, os.O_RDONLY])
def test_any_descriptor_of_the_cgroup_will_do(flags: int) -> None:
    with own_cgroup() as path:
        assert not filtered(path, flags=flags).unfiltered
        assert len(attached(path)) == 1


@needs_root
def test_what_a_person_types_does_the_same(forked: Fork) -> None:
    step = FilterDevices(((True, "c", 10, 229, "r"),))

    def child() -> tuple[str, str]:
        join(path)
        private_root()
        return opened("c", 10, 237, os.O_RDONLY), opened("c", 1, 3, os.O_RDWR)

    with own_cgroup() as path:
        subprocess.run(["sh", "-ec", step.shell()], env={**os.environ, "CGROUP": path}, check=True)
        (by_hand,) = attached(path)
        assert forked(child) == ("EPERM", "open")
        filtered(path, step.rules)
        (by_us,) = attached(path) - {by_hand}
        assert program_info(by_hand) == program_info(by_us)


# ---- how long a program lives


def bpf_call(command: int, attributes: bytes) -> tuple[int, bytes]:
    buffer = ffi.new("char[]", attributes)
    result = syscall("bpf", command, address(buffer), len(attributes))
    return (result if result >= 0 else -ffi.errno), bytes(ffi.buffer(buffer, len(attributes)))


def attached(path: str) -> set[int]:
    """The ids of the device programs on a cgroup: BPF_PROG_QUERY."""
    ids = ffi.new("uint32_t[64]")
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        result, out = bpf_call(16, struct.pack("=IIIIQI", fd, 6, 0, 0, address(ids), 64))
    finally:
        os.close(fd)
    assert result == 0
    return set(ids[0 : struct.unpack_from("=I", out, 24)[0]])


def program_fd(number: int) -> int:
    """BPF_PROG_GET_FD_BY_ID: a descriptor, or -ENOENT once nobody holds the program."""
    return bpf_call(13, struct.pack("=III", number, 0, 0))[0]


def program_info(number: int) -> tuple[int, bytes]:
    """BPF_OBJ_GET_INFO_BY_FD: the program's type, and the digest of its instructions."""
    fd, info = program_fd(number), ffi.new("char[]", 64)
    assert fd >= 0
    try:
        assert bpf_call(15, struct.pack("=IIQ", fd, 64, address(info)))[0] == 0
    finally:
        os.close(fd)
    data = bytes(ffi.buffer(info, 64))
    return int(struct.unpack_from("=I", data)[0]), data[8:16]


def is_gone(number: int, patience: float = 5) -> bool:
    """The kernel frees what hung on a cgroup a moment after its rmdir."""
    end = time.monotonic() + patience
    while (fd := program_fd(number)) >= 0:
        os.close(fd)
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    assert fd == -errno.ENOENT
    return True


@needs_root
def test_the_program_goes_with_the_cgroup() -> None:
    with own_cgroup() as path:
        descriptors = os.listdir("/proc/self/fd")
        filtered(path)
        assert os.listdir("/proc/self/fd") == descriptors
        (number,) = attached(path)
        assert program_info(number)[0] == 15
        assert not is_gone(number, 0)
    assert is_gone(number)


@needs_root
def test_the_check_sees_a_program_that_is_held() -> None:
    with own_cgroup() as path:
        filtered(path)
        (number,) = attached(path)
        held = program_fd(number)
    assert not is_gone(number, 0.3)
    os.close(held)
    assert is_gone(number)


# ---- containers


class Ended(NamedTuple):
    """What a container's program said, and what was warned of."""

    out: str
    warnings: list[str]


@pytest.fixture
def layer(busybox_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    from minicontainer.image.store import Store

    image = Store(str(busybox_data)).get("busybox")
    assert image is not None
    monkeypatch.setenv("MINICONTAINER_ROOT", str(busybox_data))
    monkeypatch.setenv("MINICONTAINER_RUN", str(tmp_path / "run"))
    (tmp_path / "run/names").mkdir(parents=True)
    (tmp_path / "run/lock").touch()
    (busybox_data / "containers").mkdir(exist_ok=True)
    return str(image.layers[0])


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[tuple[int, int]]:
    """A block device of the host's: a loop device on a file with a secret in it."""
    content = tmp_path / "disk.img"
    content.write_bytes((SECRET + "\n").encode().ljust(1 << 20, b"\0"))
    made = subprocess.run(
        ["losetup", "--find", "--show", "--read-only", str(content)], capture_output=True, text=True
    )
    if made.returncode:
        pytest.skip("this machine gives out no loop device")
    device = made.stdout.strip()
    try:
        number = os.stat(device).st_rdev
        yield os.major(number), os.minor(number)
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)


def run(
    spec: Spec, script: str, *without: str, change: Callable[[Plan], Plan] | None = None
) -> Ended:
    """The output of sh(1) in a container of ``spec``."""
    read, write = os.pipe()
    said: list[str] = []
    spec = spec.replace(process=spec.process.replace(args=("sh", "-c", script)))
    container = Container(spec, stdio=(-1, write, write), without=without, warn=said.append)
    if change:
        container.plan = change(container.plan)
    with os.fdopen(read, "rb") as pipe:
        try:
            with container:
                os.close(write)
                write = -1
                out = pipe.read().decode()
                container.wait()
        finally:
            if write >= 0:
                os.close(write)
    lacks = [text for text in said if "lacks" in text]
    return Ended(out, [text for text in said if text not in lacks])


def read_disk(place: str, disk: tuple[int, int]) -> str:
    return f"mknod {place} b {disk[0]} {disk[1]} && head -n 1 {place}"


@pytest.fixture
def image(layer: str, tmp_path: Path, disk: tuple[int, int]) -> tuple[str, str]:
    """Layers of which the upper one brings a node for the host's disk, open to everybody."""
    mine = tmp_path / "layer"
    mine.mkdir(mode=0o755)
    os.mknod(mine / "brought", stat.S_IFBLK, os.makedev(*disk))
    (mine / "brought").chmod(0o666)
    return layer, str(mine)


PLACES = ("/dev/disk", "/disk")  # a tmpfs, and the overlay


@needs_root
@pytest.mark.parametrize("place", PLACES)
def test_the_hosts_disk_can_be_made_and_not_opened(
    layer: str, disk: tuple[int, int], place: str, leaves_nothing: Host
) -> None:
    done = run(spec_for(layer), read_disk(place, disk) + f"; test -b {place} && echo made")
    assert done == Ended(f"head: {place}: {EPERM}\nmade\n", [])


@needs_root
@pytest.mark.parametrize("place", PLACES)
def test_without_the_filter_the_container_reads_the_hosts_disk(
    layer: str, disk: tuple[int, int], place: str
) -> None:
    done = run(spec_for(layer), read_disk(place, disk), "device-filter")
    assert done == Ended(SECRET + "\n", [])


@needs_root
def test_a_node_that_the_image_brings(
    image: tuple[str, str], disk: tuple[int, int], leaves_nothing: Host
) -> None:
    assert run(spec_for(*image), "head -n 1 /brought").out == f"head: /brought: {EPERM}\n"
    assert run(spec_for(*image), "head -n 1 /brought", "device-filter").out == SECRET + "\n"


@needs_root
def test_a_disk_that_a_volume_brings(layer: str, disk: tuple[int, int], tmp_path: Path) -> None:
    os.mknod(tmp_path / "node", stat.S_IFBLK | 0o666, os.makedev(*disk))
    spec = spec_for(layer)
    volume = Mount("/mnt", "bind", str(tmp_path), ("rbind", "rprivate"))
    spec = spec.replace(mounts=(*DEFAULT_MOUNTS, volume))
    assert run(spec, "head -n 1 /mnt/node").out == f"head: /mnt/node: {EPERM}\n"
    assert run(spec, "head -n 1 /mnt/node", "device-filter").out == SECRET + "\n"


# No mknod in a user namespace; but a bundle's root is a mount of the host's, and its nodes open.
def user_bundle(layer: str, disk: tuple[int, int], place: Path, **linux: Any) -> Spec:
    root = place / "bundle"
    shutil.copytree(layer, root, symlinks=True)
    os.mknod(root / "brought", stat.S_IFBLK, os.makedev(*disk))
    (root / "brought").chmod(0o666)
    for path in (root, *root.rglob("*")):
        os.chown(path, 1000000, 1000000, follow_symlinks=False)
    for path in (place, *place.parents):
        if path.stat().st_uid == 0 and path != Path("/"):
            path.chmod(path.stat().st_mode | 0o011)
    maps = (IdMap(0, 1000000, 65536),)
    kinds = tuple(Namespace(kind) for kind in (*DEFAULT_NAMESPACES, "user"))
    spec = spec_for(namespaces=kinds, uid_mappings=maps, gid_mappings=maps, **linux)
    return spec.replace(root=Root(str(root)))


@needs_root
def test_a_bundle_in_a_user_namespace(
    layer: str, disk: tuple[int, int], tmp_path: Path, leaves_nothing: Host
) -> None:
    spec = user_bundle(layer, disk, tmp_path)
    assert run(spec, "head -n 1 /brought") == Ended(f"head: /brought: {EPERM}\n", [])
    assert run(spec, "head -n 1 /brought", "device-filter").out == SECRET + "\n"
    made = "mknod /x c 1 3 2>&1 | sed 's/.*: //'"
    assert run(spec, made, "device-filter").out == EPERM + "\n"


@needs_root
def test_everyday_devices_work(layer: str, leaves_nothing: Host) -> None:
    script = """
    for name in null zero full random urandom ptmx; do
        (true < /dev/$name) && echo $name
        (true > /dev/$name) && echo $name
    done
    mknod /null c 1 3 && echo text > /null && echo null
    echo x > /dev/full || echo full
    head -c 3 /dev/zero | wc -c; head -c 5 /dev/urandom | wc -c
    """
    words = [w for n in "null zero full random urandom ptmx".split() for w in (n, n)]
    done = run(spec_for(layer), script)
    full = f"sh: write error: {os.strerror(errno.ENOSPC)}"
    said = [line for line in done.out.splitlines() if line != full]
    assert said == [*words, "null", "full", "3", "5"]


@needs_root
def test_terminals_work(layer: str) -> None:
    """tty, console and pts/N are the terminal that the container has."""
    spec = spec_for(layer)
    spec = spec.replace(process=spec.process.replace(
        terminal=True,
        args=("sh", "-c", "for n in tty console pts/0; do (true < /dev/$n) && echo $n; done"),
    ))  # fmt: skip
    said: list[str] = []
    with Container(spec, warn=said.append) as container:
        container.wait()
        out = os.read(container.console, 4096).decode()
    assert out.split() == ["tty", "console", "pts/0"]


FUSE = ("/dev/fuse", "c", 10, 229)
USE = "test -c /dev/fuse && { (true < /dev/fuse) && echo read; (true > /dev/fuse) && echo write; }"


@needs_root
@pytest.mark.parametrize(
    ("access", "expected"),
    [("rwm", {"read", "write"}), ("r", {"read"}), ("w", {"write"}), ("m", set()), ("", set())],
)
def test_a_device_that_was_asked_for(layer: str, access: str, expected: set[str]) -> None:
    spec = spec_for(layer, devices=(Device(*FUSE, access=access),))
    out = run(spec, f"({USE}) 2> /dev/null").out
    assert set(out.split()) == expected
    assert set(run(spec, f"({USE}) 2> /dev/null", "device-filter").out.split()) == {"read", "write"}


@needs_root
def test_flags(busybox: Cli, disk: tuple[int, int]) -> None:
    def said(*flags: str) -> str:
        script = f"({USE}) 2> /dev/null; {read_disk('/dev/d', disk)} 2>&1"
        done = busybox("run", "--rm", "-q", "--network=none", *flags, "busybox", "sh", "-c", script)
        return done.out

    refused = f"head: /dev/d: {EPERM}\n"
    assert said() == refused
    assert said("--device", "/dev/fuse") == "read\nwrite\n" + refused
    assert said("--device", "/dev/fuse:r") == "read\n" + refused
    assert said("--privileged").startswith(f"read\nwrite\n{SECRET}\n")
    assert said("--without", "device-filter") == SECRET + "\n"


@needs_root
def test_the_program_goes_with_the_container(layer: str, leaves_nothing: Host) -> None:
    spec = spec_for(layer)
    spec = spec.replace(process=spec.process.replace(args=("sleep", "1000")))
    path = cgroup.mount_point() + spec.linux.cgroups_path
    with Container(spec) as container:
        (number,) = attached(path)
        assert container.pid and not is_gone(number, 0)
    assert is_gone(number)


class Broken(Step):
    """A step of the host's that fails."""

    side = "host"
    name = "broken"

    def run(self, context: Context) -> None:
        self.__dict__["seen"] = attached(f"/proc/self/fd/{context.cgroup_fd}")
        raise KernelError("broken", "", errno.EIO)


@needs_root
def test_the_program_goes_with_a_container_that_never_was(layer: str, leaves_nothing: Host) -> None:
    broken = Broken()

    def change(whole: Plan) -> Plan:
        at = [step.name for step in whole].index("device-filter") + 1
        return Plan(*whole.steps[:at], broken, *whole.steps[at:])

    with pytest.raises(KernelError, match="broken"):
        run(spec_for(layer), "true", change=change)
    (number,) = broken.__dict__["seen"]
    assert is_gone(number)


# ---- where there can be no filter


def refuse_bpf(number: int) -> None:
    """From here on bpf(2) fails with this errno, as in many a container."""
    rule = CallRule(("bpf",), bpf.ERRNO | number)
    profile = Profile(bpf.ALLOW, (rule,))
    seccomp_set_mode_filter(seccomp_compile.compile_profile(profile, (), MACHINE, (6, 1)))


class Careless(FilterDevices):
    """The mutant: it goes on as if there was a filter."""

    def _do_without(self, context: Context, why: str) -> None:
        return


def careless(whole: Plan) -> Plan:
    return Plan(*(Careless(s.rules) if isinstance(s, FilterDevices) else s for s in whole))


TRY_ALL = "grep -c 'CapBnd.*00000000a00425fb' /proc/self/status; mknod /x b 1 1; head -n 1 /brought"
NOT_MADE = f"1\nmknod: /x: {EPERM}\nhead: /brought: Permission denied\n"
LEFT_OUT = "CAP_MKNOD is left out of the container"


def test_what_try_all_looks_for() -> None:
    left = tuple(name for name in DEFAULT_CAPABILITIES if name != "CAP_MKNOD")
    assert f"{mask(left):016x}" == "00000000a00425fb"


@needs_root
@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOSYS])
def test_where_bpf_is_refused(forked: Fork, image: tuple[str, str], number: int) -> None:
    def child() -> Ended:
        refuse_bpf(number)
        return run(spec_for(*image), TRY_ALL)

    out, warnings = forked(child)
    assert out == NOT_MADE
    assert [LEFT_OUT in text for text in warnings] == [True]
    assert "bpf(BPF_PROG_LOAD" in warnings[0]


@needs_root
def test_where_there_is_no_cgroup(image: tuple[str, str]) -> None:
    out, warnings = run(spec_for(*image), TRY_ALL, "cgroup")
    assert out == NOT_MADE
    assert warnings == [f"no cgroup, so no device filter: {LEFT_OUT}"]


@needs_root
def test_the_check_sees_a_wall_that_was_forgotten(image: tuple[str, str]) -> None:
    out, warnings = run(spec_for(*image), TRY_ALL, "cgroup", change=careless)
    assert (out, warnings) == (f"0\n{SECRET}\n", [])


@needs_root
def test_no_cgroup_in_a_user_namespace(layer: str, disk: tuple[int, int], tmp_path: Path) -> None:
    spec = user_bundle(layer, disk, tmp_path)
    done = run(spec, "head -n 1 /brought; echo > /dev/null && echo fine", "cgroup")
    assert done == Ended("head: /brought: Permission denied\nfine\n", [])
    assert run(spec, "head -n 1 /brought", "cgroup", change=careless).out == SECRET + "\n"


@needs_root
def test_a_privileged_container_needs_no_cgroup_for_its_devices(
    layer: str, disk: tuple[int, int]
) -> None:
    spec = spec_for(layer, device_rules=(ALL_DEVICES,), cgroups_path="")
    assert run(spec, read_disk("/disk", disk)) == Ended(SECRET + "\n", [])


@needs_root
def test_a_program_that_the_verifier_refuses_is_an_error(
    monkeypatch: pytest.MonkeyPatch, layer: str, leaves_nothing: Host
) -> None:
    """That would be our mistake, and no reason to go on without."""
    devicefilter._last.clear()
    monkeypatch.setattr(devicefilter, "assemble", lambda rules: struct.pack("=BBhi", 0x95, 0, 0, 0))
    with pytest.raises(KernelError) as caught:
        run(spec_for(layer), "true")
    assert caught.value.errno == errno.EACCES
    devicefilter._last.clear()


# ---- runc and crun

# What their lists have beyond docker's own, or lack of it: Linux's number for /dev/net/tun, which
# runc allows; the console, which docker and crun allow.
ONLY_SOMETIMES = {"c 10:200", "c 5:1"}
DEVICES = "c 1:3 c 1:5 c 1:7 c 1:8 c 1:9 c 1:11 c 5:1 c 5:2 c 10:200 c 10:229 c 10:237 b 7:0"
COMPARE = """
set -- {devices}
while [ $# -gt 0 ]; do
    mknod /dev/x $1 ${{2%:*}} ${{2#*:}} || echo no node
    said=
    (true < /dev/x) 2> /dev/null && said=r
    [ $1 = b ] || (true > /dev/x) 2> /dev/null && said=${{said}}w
    echo "$1 $2=$said"
    rm /dev/x
    shift 2
done
"""


# before it loads a program crun raises RLIMIT_MEMLOCK
CRUN = pytest.param("crun", marks=pytest.mark.kernel("sys_resource"))


@needs_root
@pytest.mark.parametrize("name", ["runc", CRUN])
@pytest.mark.parametrize("extra", [[], [{"allow": True, "type": "c", "major": 10, "access": "r"}]],
                         ids=["runc-spec", "one-more"])  # fmt: skip
def test_the_same_devices_open(
    name: str, extra: list[dict[str, Any]], layer: str, tmp_path: Path
) -> None:
    program = shutil.which(name)
    if not program:
        pytest.skip(f"{name} is not installed")
    script = COMPARE.format(devices=DEVICES)
    theirs = compared(other(program, tmp_path, layer, script, extra))
    spec = spec_for(layer)
    rules = [{"allow": False, "access": "rwm"}, *extra]
    linux = spec.linux.replace(device_rules=read(resources={"devices": rules}).device_rules)
    ours = compared(run(spec.replace(linux=linux), script).out)
    mutant = compared(run(spec, script, "device-filter").out)
    kept = {key for key in ours if key not in ONLY_SOMETIMES}
    assert {key: ours[key] for key in kept} == {key: theirs[key] for key in kept}
    assert {key: mutant[key] for key in kept} != {key: theirs[key] for key in kept}


def compared(out: str) -> dict[str, str]:
    return dict(line.split("=") for line in out.splitlines())


def other(program: str, place: Path, layer: str, script: str, extra: list[dict[str, Any]]) -> str:
    """What the script says under another runtime, with what `runc spec` writes."""
    bundle = place / "bundle"
    shutil.copytree(layer, bundle / "rootfs", symlinks=True)
    powers = ["CAP_MKNOD", "CAP_DAC_OVERRIDE"]
    config = {
        "ociVersion": "1.0.2",
        "root": {"path": "rootfs"},
        "process": {
            "args": ["sh", "-c", script], "cwd": "/", "env": ["PATH=/bin:/usr/bin"],
            "user": {"uid": 0, "gid": 0},
            "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), powers),
        },
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs"},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
             "options": ["newinstance", "ptmxmode=0666"]},
        ],
        "linux": {
            "cgroupsPath": f"/minicontainer-devices{os.getpid()}",
            "namespaces": [{"type": kind} for kind in ("mount", "pid", "uts", "ipc")],
            "resources": {"devices": [{"allow": False, "access": "rwm"}, *extra]},
        },
    }  # fmt: skip
    (bundle / "config.json").write_text(json.dumps(config))
    # They want cgroup2 alone; where the machine has version 1 too, they get it here.
    alone = (
        '[ "$(stat -f -c %T /sys/fs/cgroup)" = cgroup2fs ] || '
        '{ umount -l /sys/fs/cgroup; mount -t cgroup2 cgroup2 /sys/fs/cgroup; }; exec "$@"'
    )
    done = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", alone, "sh", program,
         "--root", str(place / "state"), "run", "--bundle", str(bundle), f"devices{os.getpid()}"],
        capture_output=True, text=True,
    )  # fmt: skip
    # crun, when it fails, leaves its cgroup
    cgroup.remove(f"{cgroup.mount_point()}/minicontainer-devices{os.getpid()}")
    assert done.returncode == 0, done.stderr
    return done.stdout
