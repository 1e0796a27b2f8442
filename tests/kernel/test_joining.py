"""kernel/joining.py: into namespaces that exist, and back, so that the next child is not there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from minicontainer.errors import KernelError
from minicontainer.kernel import joining
from minicontainer.kernel.joining import JoinNamespace, ReturnToOwn
from minicontainer.nscalls import FILES, FLAGS
from minicontainer.step import CONTAINER, HOST
from tests.kernel.room import Paused, Room, answer, in_child, kinds, namespace, status, unshare
from tests.support import descriptors, forked
from tests.unit.mutants import fails, mutant

pytestmark = pytest.mark.requires_root


@pytest.mark.parametrize("kind", ["network", "uts", "ipc", "cgroup", "mount"])
def test_joining_anothers_namespace(kind):
    file = FILES[kind]

    def inside():
        with Paused(lambda: unshare(FLAGS[kind])) as pid:
            step = JoinNamespace(kind, f"/proc/{pid}/ns/{file}")
            assert step.side == CONTAINER
            before = {f: namespace(f) for f in kinds()}
            open_before = len(os.listdir("/proc/self/fd"))
            # what was joined is read through the child's own entry, for /proc stays the same
            theirs = namespace(file, pid)
            step.run(Room())
            now = {f: namespace(f) for f in kinds()}
            assert len(os.listdir("/proc/self/fd")) == open_before
            return [f for f in now if now[f] != before[f]], now[file] == theirs

    assert forked(inside) == ([file], True)


def test_what_is_not_there_or_of_another_kind():
    with pytest.raises(FileNotFoundError):
        forked(lambda: JoinNamespace("network", "/proc/self/ns/nonsense").run(Room()))
    with pytest.raises(KernelError, match="not a network namespace"):
        forked(lambda: JoinNamespace("network", "/proc/self/ns/uts").run(Room()))
    with pytest.raises(KernelError, match="EINVAL"):
        forked(lambda: JoinNamespace("network", "/dev/null").run(Room()))


# ---- pid: the next child


def check_pid(module=joining):
    """The child is born among them, the next one is not."""

    def inside():
        def new_pid_namespace():
            unshare(FLAGS["pid"])
            os.set_blocking(0, True)

        keeper_read, keeper_write = os.pipe()

        def keeper():
            """Someone has to be process 1 there, or nobody can be born."""
            if os.fork() == 0:
                os.close(keeper_write)
                os.read(keeper_read, 1)
                os._exit(0)

        def both():
            new_pid_namespace()
            keeper()

        with Paused(both) as pid:
            context = Room()
            join = module.JoinPidNamespace("pid", f"/proc/{pid}/ns/pid_for_children")
            assert join.side == HOST
            before = descriptors()
            join.run(context)
            # as the host numbers itself, and as they do
            born = answer(lambda: str(len(status("NSpid").split())))
            module.ReturnToOwn("pid").run(context)
            next_ = answer(lambda: str(len(status("NSpid").split())))
            assert context.fds == {}
            assert descriptors() == before
            join.undo(context)  # once more is no error
            os.close(keeper_write)
            return int(born), int(next_)

    own = len(status("NSpid").split())
    assert forked(inside) == (own + 1, own)


def test_a_pid_namespace_is_joined_by_the_child_and_not_by_the_next():
    check_pid()


# ---- time


DAY = 86400


def check_time(module=joining):
    def inside():
        context = Room()
        own = namespace("time_for_children")
        shift = module.ShiftClocks((("boottime", DAY, 5), ("monotonic", -1, 0)))
        assert shift.side == HOST
        shift.run(context)
        offsets = answer(lambda: Path("/proc/self/timens_offsets").read_text())
        back = module.ReturnToOwn("time")
        assert back.name == "time"
        back.run(context)
        assert context.fds == {}
        shift.undo(context)
        return offsets.split(), namespace("time_for_children") == own

    offsets, returned = forked(inside)
    assert offsets == ["monotonic", "-1", "0", "boottime", str(DAY), "5"]
    assert returned, "our next children would be born there"


@pytest.mark.kernel("time_ns")
def test_the_child_has_shifted_clocks_and_the_next_one_has_not():
    check_time()


@pytest.mark.kernel("time_ns")
@pytest.mark.parametrize(
    ("check", "old", "new"),
    [
        (check_time, "            file.write(lines)", "            pass"),
        (check_time, "                setns(fd, self.kind)", "                pass"),
        (check_pid, "                setns(fd, self.kind)", "                pass"),
        (check_pid, "        super().run(context)\n", "        pass\n"),
        (check_pid, "            finally:\n                os.close(fd)\n\n\nclass JoinN",
         "            finally:\n                pass\n\n\nclass JoinN"),
    ],
)  # fmt: skip
def test_the_checks_can_fail(check, old, new):
    fails(check, mutant(joining, old, new))


@pytest.mark.kernel("time_ns")
def test_a_launch_that_failed_is_taken_back_by_undo():
    def inside():
        context = Room()
        own = namespace("time_for_children")
        shift = joining.ShiftClocks((("boottime", DAY, 0),))
        shift.run(context)
        away = namespace("time_for_children") != own
        shift.undo(context)
        return away, namespace("time_for_children") == own, context.fds

    assert forked(inside) == (True, True, {})


@pytest.mark.kernel("time_ns")
def test_offsets_that_the_kernel_refuses():
    def inside():
        joining.ShiftClocks((("boottime", -(10**9), 0),)).run(Room())

    with pytest.raises(OSError, match=r"range|Invalid"):
        forked(inside)


def test_nothing_to_return_from_is_fine():
    ReturnToOwn("time").run(Room())
    ReturnToOwn("pid").run(Room())
    assert ReturnToOwn("pid").name == "join"
    assert in_child(lambda: None) == 0
