"""kernel/sysctl.py: a namespace's own switches are turned, the host's never."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicontainer.errors import KernelError, UsageError
from minicontainer.kernel import sysctl
from minicontainer.kernel.mounts import MountFilesystem
from tests.kernel.room import PROC, Room, unshare
from tests.support import forked
from tests.unit.mutants import fails, mutant

root_only = pytest.mark.requires_root
NEW = 0x40000000 | 0x08000000 | 0x04000000  # network, ipc, uts
VALUES = (
    ("net.ipv4.ping_group_range", "0 77"), ("kernel.shmmni", "123"), ("kernel.sem", "1 2 3 4"),
)  # fmt: skip
FILES = [Path("/proc/sys", *key.split(".")) for key, _ in VALUES]


def check_set(tmp_path, module=sysctl):
    def inside():
        unshare(NEW)
        room = Room(tmp_path / "root")
        MountFilesystem("/proc", *PROC).run(room)
        module.SetSysctls(VALUES).run(room)
        return [file.read_text().split() for file in FILES]

    before = [file.read_text() for file in FILES]
    assert forked(inside) == [["0", "77"], ["123"], ["1", "2", "3", "4"]]
    assert [file.read_text() for file in FILES] == before, "the host's are as they were"


@root_only
def test_they_are_the_namespaces_own(tmp_path):
    check_set(tmp_path)


@root_only
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("                os.write(fd, value.encode())", "                pass"),
        ('key.replace(".", "/")\n            fd', "key\n            fd"),
    ],
)  # fmt: skip
def test_the_check_can_fail(tmp_path, old, new):
    fails(check_set, tmp_path, mutant(sysctl, old, new))


@pytest.mark.parametrize(
    ("key", "kind"),
    [("net.ipv4.ip_forward", "network"), ("fs.mqueue.msg_max", "ipc"), ("kernel.shmmax", "ipc"),
     ("kernel.msgmnb", "ipc"), ("kernel.sem", "ipc"), ("kernel.hostname", "uts"),
     ("kernel.domainname", "uts")],
)  # fmt: skip
def test_owners(key, kind):
    assert sysctl.owner(key) == kind


def check_refused(key, module=sysctl):
    with pytest.raises(UsageError, match="is not private to a namespace"):
        module.owner(key)


HOSTS = ["kernel.core_pattern", "vm.overcommit_memory", "fs.file-max", "kernel.modprobe", "",
         "network", "net", "fs.mqueue", " net.x", "NET.x", "kernel/core_pattern"]  # fmt: skip
TRAVERSING = ["net./../kernel/core_pattern", "net....kernel.core_pattern", "net.x/../../y",
              "kernel.sem/../core_pattern", "net.ipv4/conf"]  # fmt: skip


@pytest.mark.parametrize("key", [*HOSTS, *TRAVERSING])
def test_the_hosts_switches_are_refused(key):
    check_refused(key)


@given(st.text("./\\ netkrl0", min_size=1))
def test_no_key_leads_out_of_its_directory(key):
    try:
        sysctl.owner("net." + key)
    except UsageError:
        return
    path = Path("/proc/sys/" + ("net." + key).replace(".", "/"))
    assert ".." not in path.parts
    assert path.is_relative_to("/proc/sys/net")


@pytest.mark.parametrize(
    ("key", "old", "new"),
    [
        ("net....kernel.core_pattern", '".." not in key and ', ""),
        ("net.ipv4/conf", 'and "/" not in key', ""),
        ("network", '("net.", "network")', '("net", "network")'),
        ("vm.overcommit_memory", "if key.startswith(prefix)", "if True"),
    ],
)
def test_the_check_on_refusals_can_fail(key, old, new):
    check_refused(key)
    fails(check_refused, key, mutant(sysctl, old, new))


@root_only
@pytest.mark.parametrize(
    ("key", "value", "error", "words"),
    [
        ("net.ipv4.ping_group_range", "nonsense", UsageError, "Invalid argument"),
        ("net.no.such.switch", "1", KernelError, "ENOENT"),
    ],
)
def test_what_the_kernel_refuses(tmp_path, key, value, error, words):
    def inside():
        unshare(NEW)
        room = Room(tmp_path / "root")
        MountFilesystem("/proc", *PROC).run(room)
        sysctl.SetSysctls(((key, value),)).run(room)

    with pytest.raises(error, match=words):
        forked(inside)


@root_only
def test_a_link_in_the_image_leads_to_no_file_of_the_host(tmp_path):
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim/x").write_text("precious")

    def inside():
        room = Room(tmp_path / "root")
        (tmp_path / "root/proc").mkdir()
        (tmp_path / "root/proc/sys").mkdir()
        (tmp_path / "root/proc/sys/net").symlink_to(tmp_path / "victim")
        sysctl.SetSysctls((("net.x", "overwritten"),)).run(room)

    with pytest.raises(KernelError, match="ENOENT"):
        forked(inside)
    assert (tmp_path / "victim/x").read_text() == "precious"
