"""kernel/process.py: how a child ends, its pidfd, and four prctls.

python-prctl reads back what was set: it is not our code."""

from __future__ import annotations

import os
import select
import signal

import prctl
import pytest

from minicontainer.kernel import process
from tests.kernel.room import Paused, Room, clone3, in_child, status
from tests.support import forked
from tests.unit.mutants import fails, mutant


def child(action) -> tuple[int, int]:
    """clone3, with something to do for the child."""
    pid, pidfd = clone3(0)
    if pid == 0:
        try:
            action()
        finally:
            os._exit(99)
    return pid, pidfd


# ---- the end


def ends_with(action, module=process) -> int:
    _, pidfd = child(action)
    try:
        return module.wait(pidfd)
    finally:
        os.close(pidfd)


def die(number):
    if number != signal.SIGKILL:
        signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def check_statuses(module=process):
    for code in (0, 3, 125, 255):
        assert ends_with(lambda code=code: os._exit(code), module) == code
    for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGPIPE):
        assert ends_with(lambda number=number: die(number), module) == 128 + number


def test_exit_statuses_are_dockers():
    check_statuses()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("if ended.si_code == os.CLD_EXITED:", "if True:"),
        ("if ended.si_code == os.CLD_EXITED:", "if False:"),
        ("return 128 + int", "return int"),
    ],
)
def test_the_check_on_statuses_can_fail(old, new):
    fails(check_statuses, mutant(process, old, new))


def test_waiting_twice_is_told():
    _, pidfd = child(lambda: None)
    process.wait(pidfd)
    with pytest.raises(ChildProcessError):
        process.wait(pidfd)
    os.close(pidfd)


def check_kill_of_the_gone(module=process):
    _, pidfd = child(lambda: None)
    process.wait(pidfd)
    module.kill(pidfd)  # reaped: ESRCH
    os.close(pidfd)


def test_killing_what_is_gone_is_no_error():
    check_kill_of_the_gone()


def test_the_check_on_killing_can_fail():
    fails(check_kill_of_the_gone, mutant(process, "except ProcessLookupError", "except KeyError"))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_signal_arrives(number):
    read, write = os.pipe()

    def sleep():
        os.close(write)
        os.read(read, 1)

    _, pidfd = child(sleep)
    process.kill(pidfd, number)
    assert process.wait(pidfd) == 128 + number
    for fd in (read, write, pidfd):
        os.close(fd)


# ---- prctl(2), and python-prctl to tell


def check_no_new_privileges(module=process):
    def inside():
        before = prctl.get_no_new_privs()
        module.NoNewPrivileges().run(Room())
        return before, prctl.get_no_new_privs(), status("NoNewPrivs")

    assert forked(inside) == (0, 1, "1")


def check_undumpable(module=process):
    def inside():
        before = prctl.get_dumpable()
        module.HideFromContainer().run(Room())
        after = prctl.get_dumpable()
        process.set_dumpable(True)
        return before, after, prctl.get_dumpable()

    assert forked(inside) == (1, 0, 1)


def check_death_signal(module=process):
    def inside():
        before = prctl.get_pdeathsig()
        module.DieWithRuntime().run(Room())
        return before, prctl.get_pdeathsig()

    assert forked(inside) == (0, signal.SIGKILL)


def check_dies_with_runtime(module=process):
    """A grandchild that asked for it is gone when its parent is killed."""

    def inside():
        prctl.set_child_subreaper(1)
        ready_read, ready_write = os.pipe()
        hold_read, hold_write = os.pipe()

        def runtime():
            if os.fork() == 0:
                os.close(hold_write)
                module.DieWithRuntime().run(Room())
                os.write(ready_write, b"x")
                os._exit(len(os.read(hold_read, 1)))
            os.read(ready_read, 1)
            os.kill(os.getpid(), signal.SIGKILL)

        # when the runtime can be waited for, the kernel has sent its children what they asked for
        assert in_child(runtime) == -signal.SIGKILL
        os.close(hold_write)
        return os.waitstatus_to_exitcode(os.wait()[1])

    # without the wish it reads end-of-file and ends with 0
    assert forked(inside) == -signal.SIGKILL


@pytest.mark.requires_root
@pytest.mark.parametrize(
    "check",
    [check_no_new_privileges, check_undumpable, check_death_signal, check_dies_with_runtime],
)
def test_prctl(check):
    check()


@pytest.mark.requires_root
@pytest.mark.parametrize(
    ("check", "old", "new"),
    [
        (check_no_new_privileges, "        set_no_new_privileges()", "        pass"),
        (check_undumpable, "        set_dumpable(False)", "        pass"),
        (check_undumpable, "        set_dumpable(False)", "        set_dumpable(True)"),
        (check_death_signal, "set_parent_death_signal(_SIGKILL)", "set_parent_death_signal(15)"),
        (check_dies_with_runtime, "        set_parent_death_signal(_SIGKILL)", "        pass"),
    ],
)
def test_the_checks_on_prctl_can_fail(check, old, new):
    fails(check, mutant(process, old, new))


@pytest.mark.requires_root
def test_oom_score():
    with Paused() as pid:
        context = Room()
        context.pid = pid
        process.SetOomScore(321).run(context)
        with open(f"/proc/{pid}/oom_score_adj") as file:
            assert file.read() == "321\n"


def test_the_pidfd_is_readable_once_the_child_has_ended():
    read, write = os.pipe()

    def sleep():
        os.close(write)
        os.read(read, 1)

    _, pidfd = child(sleep)
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    assert poll.poll(0) == []
    os.close(write)
    assert poll.poll(10_000)
    assert process.wait(pidfd) == 99
    os.close(read)
    os.close(pidfd)
