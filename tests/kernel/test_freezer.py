"""kernel/freezer.py on real cgroups: what counts stops counting, and goes on."""

from __future__ import annotations

import mmap
import os
import signal
import time

import pytest

from minicontainer.errors import KernelError
from minicontainer.kernel import cgroup, freezer
from tests.unit.mutants import fails, mutant

pytestmark = pytest.mark.requires_root


@pytest.fixture
def box():
    """A cgroup of this test's own."""
    path = f"{cgroup.mount_point()}/minicontainer-test-{os.getpid()}"
    os.mkdir(path)
    yield path
    freezer._write(path, "0")
    cgroup.remove(path)


class Counter:
    """A process in the cgroup that counts as fast as it can, in memory that we share with it."""

    def __init__(
        self, path: str, cpus: set[int] | None = None, handler=signal.SIG_DFL, nice: int = 0
    ) -> None:
        self.memory = mmap.mmap(-1, mmap.PAGESIZE)
        self.pid = os.fork()
        if self.pid == 0:
            try:
                signal.signal(signal.SIGTERM, handler)
                os.nice(nice)
                if cpus:
                    os.sched_setaffinity(0, cpus)
                with open(path + "/cgroup.procs", "w") as file:
                    file.write("0")
                number = 0
                while True:
                    number += 1
                    self.memory[:8] = number.to_bytes(8, "little")
            finally:
                os._exit(1)
        self.wait_for_more()

    def value(self) -> int:
        return int.from_bytes(self.memory[:8], "little")

    def wait_for_more(self) -> None:
        """Until it counts; the test's own timeout is the limit."""
        before = self.value()
        end = time.monotonic() + 30
        while self.value() == before:
            assert time.monotonic() < end, "it does not count"
            time.sleep(0.001)

    def stands(self) -> bool:
        before = self.value()
        time.sleep(0.05)
        return self.value() == before

    def end(self) -> int:
        os.kill(self.pid, signal.SIGKILL)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def check_freeze_and_thaw(box, module=freezer):
    os.mkdir(box + "/below")
    counters = [Counter(box), Counter(box), Counter(box + "/below")]
    try:
        assert not module.is_frozen(box)
        module.freeze(box)
        assert module.is_frozen(box) and module.is_frozen(box + "/below")
        assert [counter.stands() for counter in counters] == [True] * 3
        module.thaw(box)
        assert not module.is_frozen(box)
        for counter in counters:
            counter.wait_for_more()
    finally:
        freezer.thaw(box)
        assert [counter.end() for counter in counters] == [-signal.SIGKILL] * 3


def test_a_frozen_cgroup_stands_still_and_goes_on(box):
    check_freeze_and_thaw(box)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('    _write(path, "1")\n', "    return\n"),
        ('''    _write(path, "0")
    end =''', "    return\n    end ="),
        ('return "frozen 1" in (text(path, "cgroup.events") or "")', "return False"),
    ],
)  # fmt: skip
def test_the_check_on_freezing_can_fail(box, old, new):
    fails(check_freeze_and_thaw, box, mutant(freezer, old, new))


def check_it_waits(box, module=freezer):
    """When it returns, all stand: on one processor with three others this takes a while."""
    cpus = {min(os.sched_getaffinity(0))}
    os.mkdir(box + "/below")
    counters = [Counter(box, cpus), *(Counter(box + "/below", cpus, nice=10) for _ in range(3))]
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cpus)  # so that none of them can run while we do
    try:
        for _ in range(5):
            module.freeze(box)
            assert freezer.is_frozen(box) and freezer.is_frozen(box + "/below")
            module.thaw(box)
            assert not freezer.is_frozen(box)
    finally:
        os.sched_setaffinity(0, before)
        freezer.thaw(box)
        for counter in counters:
            counter.end()


def test_it_returns_when_all_stand(box):
    check_it_waits(box)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("        while words not in os.pread(fd, 4096, 0):", "        while 0:"),
        ("for below, _, _ in os.walk(path)", "for below in ()"),
    ],
)
def test_the_check_on_waiting_can_fail(box, old, new):
    fails(check_it_waits, box, mutant(freezer, old, new))


def check_gives_up(box, module=freezer):
    """Who cannot stop all of them in time lets all go on, and says so."""
    cpus = {min(os.sched_getaffinity(0))}
    counters = [Counter(box, cpus) for _ in range(8)]
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cpus)
    try:
        with pytest.raises(KernelError, match=r"ETIMEDOUT.*not all processes came to a halt"):
            module.freeze(box, 0)
        with open(box + "/cgroup.freeze") as file:
            assert file.read() == "0\n"
    finally:
        os.sched_setaffinity(0, before)
        freezer.thaw(box)
        for counter in counters:
            counter.end()


def test_it_gives_up_whole(box):
    check_gives_up(box)


def test_the_check_on_giving_up_can_fail(box):
    old = '        _write(path, "0")\n        raise KernelError('
    fails(check_gives_up, box, mutant(freezer, old, "        raise KernelError("))


def test_a_signal_with_a_handler_waits_for_the_thaw(box):
    counter = Counter(box, handler=lambda *_: os._exit(7))
    freezer.freeze(box)
    os.kill(counter.pid, signal.SIGTERM)
    assert counter.stands()
    assert os.waitpid(counter.pid, os.WNOHANG) == (0, 0)
    freezer.thaw(box)
    assert os.waitstatus_to_exitcode(os.waitpid(counter.pid, 0)[1]) == 7


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_what_ends_a_process_does_not_wait(box, number):
    counter = Counter(box)
    freezer.freeze(box)
    os.kill(counter.pid, number)
    assert os.waitstatus_to_exitcode(os.waitpid(counter.pid, 0)[1]) == -number
    assert freezer.is_frozen(box)


def test_cgroup_kill_does_not_wait(box):
    counter = Counter(box)
    freezer.freeze(box)
    cgroup.kill_all(box)
    assert os.waitstatus_to_exitcode(os.waitpid(counter.pid, 0)[1]) == -signal.SIGKILL


def check_frozen_from_above(box, module=freezer):
    os.mkdir(box + "/below")
    freezer.freeze(box)
    assert module.is_frozen(box + "/below")
    with pytest.raises(KernelError, match="still frozen: so is a cgroup above it"):
        module.thaw(box + "/below")


def test_who_is_frozen_from_above_is_told(box):
    check_frozen_from_above(box)


def test_the_check_on_frozen_from_above_can_fail(box):
    fails(check_frozen_from_above, box, mutant(freezer, 'b"frozen 0"', 'b"frozen"'))


def test_no_such_cgroup():
    with pytest.raises(KernelError, match=r"write.*cgroup.freeze.*ENOENT.*no such cgroup"):
        freezer.freeze("/sys/fs/cgroup/minicontainer-never-made")
    assert not freezer.is_frozen("/sys/fs/cgroup/minicontainer-never-made")
