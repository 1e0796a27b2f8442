"""kernel/idmap.py: root inside is another id outside, by /proc and by who owns what is made."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicontainer.errors import KernelError
from minicontainer.kernel import idmap, process
from minicontainer.kernel.idmap import outside_id
from tests.kernel.room import Paused, Room, clone3, namespace, status
from tests.support import forked
from tests.unit.mutants import fails, mutant

root_only = pytest.mark.requires_root
UIDS = ((0, 1000000, 1000), (1000, 5000, 1))
GIDS = ((0, 2000000, 1000),)


# ---- numbers


@given(st.integers(0, 2**31), st.integers(0, 2**31), st.integers(1, 2**16), st.integers(0, 2**17))
def test_ids_are_translated_one_by_one(first, host, size, inside):
    found = outside_id(((first, host, size),), inside)
    expected = dict(zip((first, first + size - 1), (host, host + size - 1), strict=True))
    assert [outside_id(((first, host, size),), i) for i in expected] == [*expected.values()]
    assert (found == -1) == (not first <= inside < first + size)


def test_what_the_map_does_not_say():
    assert outside_id((), 0) == -1
    assert outside_id(UIDS, 1001) == -1
    assert outside_id(UIDS, 1000) == 5000


# ---- the kernel


def check_maps(tmp_path, module=idmap):
    """The child is nobody, then root inside and an ordinary id outside."""

    def inside():
        os.setgroups([0, 4])  # the host's, which must not stay
        go_read, go_write = os.pipe()
        done_read, done_write = os.pipe()
        pid, pidfd = clone3(module.NewUserNamespace().wish(Room()))
        if pid == 0:
            try:
                before = os.getuid()
                os.read(go_read, 1)
                module.BecomeRoot().run(Room())
                fd = os.open(tmp_path / "made", os.O_CREAT | os.O_RDWR)
                words = (before, *os.getresuid(), *os.getresgid(), len(os.getgroups()),
                         os.fstat(fd).st_uid)  # fmt: skip
                os.write(done_write, " ".join(map(str, words)).encode())
                os.read(go_read, 1)
            except BaseException as error:
                os.write(done_write, repr(error).encode())
            finally:
                os._exit(0)
        context = Room()
        context.pid = pid
        module.WriteIdMaps(UIDS, GIDS).run(context)
        os.write(go_write, b"x")
        words = os.read(done_read, 1000).decode()
        outside = status("Uid", pid), status("Gid", pid), status("Groups", pid)
        other = namespace("user", pid) != namespace("user")
        os.write(go_write, b"x")
        process.wait(pidfd)
        return words, outside, other

    words, (uid, gid, groups), other = forked(inside)
    assert words == "65534 0 0 0 0 0 0 0 0"
    assert (uid.split()[0], gid.split()[0], groups) == ("1000000", "2000000", "")
    assert other
    assert (os.stat(tmp_path / "made").st_uid, os.stat(tmp_path / "made").st_gid) == (
        1000000, 2000000,
    )  # fmt: skip
    (tmp_path / "made").unlink()


@root_only
def test_root_inside_is_another_outside(reachable):
    check_maps(reachable)


@pytest.fixture
def reachable():
    """A directory that any user of the host may walk to."""
    with tempfile.TemporaryDirectory(dir="/tmp") as path:
        os.chmod(path, 0o777)
        yield Path(path)


@root_only
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('        write_map(context.pid, "gid_map", self.gids)', "        pass"),
        ('write_map(context.pid, "gid_map", self.gids)', 'write_map(context.pid, "gid_map", UIDS)'),
        ("become(0, 0, ())", "become(0, 0, os.getgroups())"),
        ("        become(0, 0, ())", "        pass"),
        ("become(0, 0, ())", "os.setuid(0)"),
    ],
)
def test_the_check_on_maps_can_fail(reachable, old, new):
    broken = mutant(idmap, old, new)
    broken.UIDS = UIDS
    fails(check_maps, reachable, broken)


@root_only
@pytest.mark.parametrize(
    ("ranges", "words"),
    [(((0, 5, 1), (0, 9, 1)), "EINVAL.*overlap"), (((0, 5, 0),), "EINVAL"), ((), "EINVAL")],
)
def test_maps_that_the_kernel_refuses(ranges, words):
    def inside():
        with Paused(make=lambda: clone3(0x10000000)) as pid:
            idmap.write_map(pid, "uid_map", ranges)

    with pytest.raises(KernelError, match=f"(?s)write.*uid_map.*{words}"):
        forked(inside)


@root_only
def test_a_map_is_written_once():
    def inside():
        with Paused(make=lambda: clone3(0x10000000)) as pid:
            idmap.write_map(pid, "uid_map", UIDS)
            idmap.write_map(pid, "uid_map", UIDS)

    with pytest.raises(KernelError, match=r"EPERM.*once only"):
        forked(inside)


def check_pipes(tmp_path, module=idmap):
    """Pipes without a name go to the container's root; what has a name stays the host's."""

    def inside():
        os.mkfifo(tmp_path / "fifo")
        fifo = os.open(tmp_path / "fifo", os.O_RDWR)
        file = os.open(tmp_path / "file", os.O_CREAT | os.O_RDWR)
        read, _ = os.pipe()
        module.GivePipes((read, fifo, -1, file), 1000, 2000).run(Room())
        assert stat.S_ISFIFO(os.fstat(fifo).st_mode)
        os.unlink(tmp_path / "fifo")
        return [(os.fstat(fd).st_uid, os.fstat(fd).st_gid) for fd in (read, fifo, file)]

    assert forked(inside) == [(1000, 2000), (0, 0), (0, 0)]


@root_only
def test_only_pipes_without_a_name_are_given_away(tmp_path):
    check_pipes(tmp_path)


@root_only
def test_the_check_on_pipes_can_fail(tmp_path):
    old = 'fd >= 0 and os.readlink(f"/proc/self/fd/{fd}").startswith("pipe:")'
    fails(check_pipes, tmp_path, mutant(idmap, old, "fd >= 0"))
    fails(check_pipes, tmp_path, mutant(idmap, "if fd >= 0 and", "if"))
