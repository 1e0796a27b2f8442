"""kernel/namespaces.py: born with each flag, a child is in another table, by inodes in /proc."""

from __future__ import annotations

import os

import pytest

from minicontainer import nscalls
from minicontainer.errors import KernelError
from minicontainer.kernel import namespaces
from minicontainer.step import CLONE, CONTAINER
from tests.kernel.room import Paused, Room, clone3, kinds, namespace, status
from tests.support import forked
from tests.unit.mutants import fails, mutant

pytestmark = pytest.mark.requires_root

BORN = {
    "mnt": "NewMountNamespace", "pid": "NewPidNamespace", "uts": "NewUtsNamespace",
    "ipc": "NewIpcNamespace", "net": "NewNetworkNamespace", "cgroup": "NewCgroupNamespace",
}  # fmt: skip


def check_born(file, module=namespaces):
    """In this kind it is elsewhere, in all others where we are."""
    step = getattr(module, BORN[file])()
    assert step.side == CLONE
    with Paused(make=lambda: clone3(step.wish(Room()))) as pid:
        for kind in kinds():
            assert (namespace(kind, pid) != namespace(kind)) == (kind == file), kind


@pytest.mark.parametrize("file", BORN)
def test_a_child_is_born_in_a_namespace_of_its_own(file):
    check_born(file)


@pytest.mark.parametrize("file", BORN)
def test_the_check_can_fail(file):
    kind = {"mnt": "mount", "net": "network"}.get(file, file)
    other = "uts" if file != "uts" else "ipc"
    fails(check_born, file, mutant(namespaces, f'FLAGS["{kind}"]', f'FLAGS["{other}"]'))
    fails(check_born, file, mutant(namespaces, f'FLAGS["{kind}"]', "0"))


def test_all_flags_together_and_the_first_process_is_one():
    flags = 0
    for name in BORN.values():
        flags |= getattr(namespaces, name)().wish(Room())
    with Paused(make=lambda: clone3(flags)) as pid:
        assert status("NSpid", pid).split() == [str(pid), "1"]
        assert all(namespace(kind, pid) != namespace(kind) for kind in BORN)


def test_ipc_of_its_own_by_unshare():
    step = namespaces.UnshareIpcNamespace()
    assert step.side == CONTAINER

    def inside():
        before = {kind: namespace(kind) for kind in kinds()}
        step.run(Room())
        return [kind for kind in kinds() if namespace(kind) != before[kind]]

    assert forked(inside) == ["ipc"]


@pytest.mark.parametrize("kind", ["uts", "network", "cgroup", "mount", "ipc"])
def test_unshare_and_the_way_back(kind):
    """setns(2) with a descriptor of the old one."""
    file = nscalls.FILES[kind]

    def inside():
        before = namespace(file)
        own = os.open(f"/proc/self/ns/{file}", os.O_RDONLY)
        nscalls.unshare(nscalls.FLAGS[kind])
        between = namespace(file)
        nscalls.setns(own, kind)
        return between != before, namespace(file) == before

    assert forked(inside) == (True, True)


def test_the_wrong_kind_is_an_error_that_says_so():
    def inside():
        nscalls.setns(os.open("/proc/self/ns/uts", os.O_RDONLY), "network")

    with pytest.raises(KernelError, match=r"setns.*CLONE_NEWNET.*EINVAL.*not a network namespace"):
        forked(inside)


def test_without_capabilities_it_is_refused():
    from minicontainer.kernel import capabilities

    def inside():
        capabilities.capset(0, 0, 0)
        nscalls.unshare(nscalls.FLAGS["uts"])

    with pytest.raises(KernelError, match=r"unshare\(CLONE_NEWUTS\).*EPERM.*CAP_SYS_ADMIN"):
        forked(inside)
