"""kernel/devices.py: nodes that work, and nothing in their place that is something else."""

from __future__ import annotations

import errno
import os
import stat

import pytest

from minicontainer.errors import KernelError, UsageError
from minicontainer.kernel import devices
from minicontainer.kernel.devices import STANDARD, BindDevices, MakeDevices, mknod
from minicontainer.kernel.mounts import MountFilesystem
from tests.kernel.room import Room, unshare
from tests.support import forked
from tests.unit.mutants import fails, mutant

pytestmark = pytest.mark.requires_root
NAMES = {path.removeprefix("/dev/") for path, *_ in STANDARD}


def furnish(tmp_path, step, prepare=lambda dev: None):
    """A room with a tmpfs on /dev, and the step run in it."""
    room = Room(tmp_path / "root")
    MountFilesystem("/dev", "tmpfs", "tmpfs", ("nosuid", "mode=755")).run(room)
    os.chdir("/")
    dev = tmp_path / "root/dev"
    prepare(dev)
    step.run(room)
    return dev


def working(dev) -> dict[str, bytes]:
    """What the nodes do, not only how they look."""
    found = {}
    for name in ("null", "zero", "urandom"):
        with open(dev / name, "rb") as file:
            found[name] = file.read(4)
    (dev / "null").write_text("gone")
    with pytest.raises(OSError) as caught, open(dev / "full", "wb", buffering=0) as file:
        file.write(b"x")
    assert caught.value.errno == errno.ENOSPC
    assert len(found.pop("urandom")) == 4
    return found


def check_devices(tmp_path, step):
    def inside():
        dev = furnish(tmp_path, step)
        nodes = {}
        for name in NAMES:
            found = os.stat(dev / name, follow_symlinks=False)
            nodes[f"/dev/{name}"] = (
                "c" if stat.S_ISCHR(found.st_mode) else "?",
                os.major(found.st_rdev), os.minor(found.st_rdev), stat.S_IMODE(found.st_mode),
                found.st_uid, found.st_gid,
            )  # fmt: skip
        links = {name: os.readlink(dev / name) for name in os.listdir(dev) if name not in NAMES}
        links.pop("core", None)
        return nodes, links, working(dev)

    os.umask(0o077)
    try:
        nodes, links, reads = forked(inside)
    finally:
        os.umask(0o022)
    assert {path: node[:3] for path, node in nodes.items()} == {n[0]: n[1:4] for n in STANDARD}
    if isinstance(step, BindDevices):
        nodes = {}  # owner and mode are the host's
    assert all(node[3:] == (0o666, 0, 0) for node in nodes.values())
    assert links == {
        "fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1",
        "stderr": "/proc/self/fd/2", "ptmx": "pts/ptmx",
    }  # fmt: skip
    assert reads == {"null": b"", "zero": b"\0" * 4}


@pytest.mark.parametrize("step", [MakeDevices(), BindDevices()], ids=["made", "bound"])
def test_six_nodes_and_five_links(tmp_path, step):
    check_devices(tmp_path, step)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("    os.chmod(name, mode, dir_fd=directory_fd)", "    pass"),
        ("device = os.makedev(major, minor)", "device = os.makedev(major, minor ^ 1)"),
        ('("/dev/null", "c", 1, 3, 0o666, 0, 0),', ""),
        ('("pts/ptmx", "ptmx")', '("/dev/ptmx", "ptmx")'),
        ('"c": stat.S_IFCHR,', '"c": stat.S_IFREG,'),
    ],
)
def test_the_check_can_fail(tmp_path, old, new):
    fails(check_devices, tmp_path, mutant(devices, old, new).MakeDevices())


def test_a_node_of_ones_own(tmp_path):
    tun = ("/dev/net/tun", "c", 10, 200, 0o640, 7, 8)
    step = MakeDevices((tun, ("/dev/fifo", "p", 0, 0, 0o600, 0, 0)))

    def inside():
        dev = furnish(tmp_path, step)
        one, fifo = os.stat(dev / "net/tun"), os.stat(dev / "fifo")
        return one.st_rdev, oct(one.st_mode), one.st_uid, one.st_gid, oct(fifo.st_mode)

    assert forked(inside) == (os.makedev(10, 200), "0o20640", 7, 8, "0o10600")


def check_taken(tmp_path, module=devices):
    """Only the very same device may be there already."""
    node = ("/dev/null", "c", 1, 3, 0o666, 0, 0)
    taken = {
        "file": lambda dev: (dev / "null").touch(),
        "link": lambda dev: (dev / "null").symlink_to("/etc/passwd"),
        "true link": lambda dev: (dev / "null").symlink_to("/dev/null"),
        "other device": lambda dev: os.mknod(dev / "null", 0o20666, os.makedev(1, 5)),
        "block": lambda dev: os.mknod(dev / "null", 0o60666, os.makedev(1, 3)),
    }
    for prepare in taken.values():
        with pytest.raises(KernelError, match=r'mknod\("/dev/null".*EEXIST.*already there'):
            forked(lambda p=prepare: furnish(tmp_path, module.MakeDevices((node,)), p) and None)

    def same(dev):
        os.mknod(dev / "null", 0o20600, os.makedev(1, 3))
        os.chmod(dev / "null", 0o600)

    def inside():
        dev = furnish(tmp_path, module.MakeDevices((node,)), same)
        return oct(os.stat(dev / "null").st_mode)

    assert forked(inside) == "0o20600", "and it stays as the bundle made it"


def test_what_is_there_already(tmp_path):
    check_taken(tmp_path)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("if (stat.S_IFMT(found.st_mode), found.st_rdev) == (_TYPES[kind], device):", "if True:"),
        ("(stat.S_IFMT(found.st_mode), found.st_rdev) == (_TYPES[kind], device)",
         "found.st_rdev == device"),
        ("follow_symlinks=False)\n            if", "follow_symlinks=True)\n            if"),
    ],
)  # fmt: skip
def test_the_check_on_what_is_there_can_fail(tmp_path, old, new):
    fails(check_taken, tmp_path, mutant(devices, old, new))


def check_host_node(tmp_path, module=devices):
    """In a user namespace the host's node is bound: it must be the device that was meant."""
    step = module.BindDevices((("/dev/zero", "c", 1, 3, 0o666, 0, 0),))
    with pytest.raises(UsageError, match="/dev/zero of this host is not device 1:3"):
        forked(lambda: furnish(tmp_path, step) and None)


def test_a_node_of_the_host_that_is_another_device(tmp_path):
    check_host_node(tmp_path)


def test_the_check_on_host_nodes_can_fail(tmp_path):
    broken = mutant(devices, "if found != (node[2], node[3]):", "if False:")
    fails(check_host_node, tmp_path, broken)


def test_in_a_user_namespace_the_kernel_refuses_mknod(tmp_path):
    def inside():
        unshare(0x10000000)
        directory = os.open(tmp_path, os.O_PATH)
        mknod(directory, "null", STANDARD[0])

    with pytest.raises(KernelError, match=r"mknod.*(EPERM|EACCES|EOVERFLOW)"):
        forked(inside)
