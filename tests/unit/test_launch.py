"""launch.py with tiny plans of steps that only leave a trace: who runs what, when, and what then.

No step makes a namespace: without wishes, clone3(2) makes an ordinary child, and any user may."""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
from pathlib import Path

import pytest

from minicontainer import launch as launch_
from minicontainer.errors import KernelError, MinicontainerError, StepFailed, UsageError
from minicontainer.kernel import process
from minicontainer.kernel.clone import Child
from minicontainer.step import CLONE, CONTAINER, HOST, Context, Narrator, Plan, Step
from tests.support import descriptors
from tests.unit.mutants import fails, mutant


class Note(Step):
    """Write a line of who ran and was undone."""

    name: str
    side: str
    log: str
    flag: int = 0

    def wish(self, context):
        note(self.log, f"wish {self.name}")
        return self.flag

    def run(self, context):
        where = "child" if context.pid == 0 and self.side == CONTAINER else "host"
        note(self.log, f"{self.name} in {where}")

    def undo(self, context):
        note(self.log, f"undo {self.name}")


class Do(Step):
    """Call something."""

    name: str
    side: str
    action: object
    back: object = None

    def run(self, context):
        self.action(context)

    def undo(self, context):
        if self.back:
            self.back(context)


class Become(Step):
    """The last step: be another program."""

    name = "exec"
    argv: tuple[str, ...] = ("/bin/true",)

    def run(self, context):
        context.execute(self.argv[0], self.argv, (), "")


def note(log: str, line: str) -> None:
    """Add a line, from whichever process."""
    with open(log, "a") as file:
        file.write(line + "\n")


@pytest.fixture
def log(tmp_path) -> Path:
    (tmp_path / "log").touch()
    return tmp_path / "log"


@pytest.fixture(autouse=True)
def nothing_stays():
    """Not a descriptor, not a zombie."""
    before = descriptors()
    yield
    assert descriptors() == before
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def context() -> Context:
    """One that remembers warnings."""
    made = Context("id", "")
    made.said = []
    made.warn = made.said.append
    return made


def run(plan: Plan, module=launch_, narrator=None) -> tuple[int, Context]:
    """Launch, wait, undo: the exit status."""
    made = context()
    module.launch(plan, made, narrator)
    status = process.wait(made.pidfd)
    module.undo(plan, made)
    return status, made


def fail(plan: Plan, module=launch_, narrator=None) -> tuple[MinicontainerError, Context]:
    """Launch what must not start: the error."""
    made = context()
    try:
        module.launch(plan, made, narrator)
    except MinicontainerError as error:
        return error, made
    process.wait(made.pidfd)
    module.undo(plan, made)
    pytest.fail("it was launched")


class Watcher(Narrator):
    """Writes down what it is told."""

    def __init__(self):
        super().__init__()
        self.told = []

    def begin(self, step, context):
        self.told.append(f"begin {step.name}")

    def end(self, step, context, nanoseconds, calls):
        self.told.append(f"end {step.name}")

    def cloned(self, steps, context, nanoseconds):
        self.told.append(f"cloned {' '.join(step.name for step in steps)}")

    def failed(self, steps, context, error):
        self.told.append(f"failed {' '.join(step.name for step in steps)}")

    def running(self, context):
        self.told.append("running")


def whole(log: Path) -> Plan:
    """A plan with steps of all kinds."""
    return Plan(
        Note("first", HOST, str(log)),
        Note("second", HOST, str(log)),
        Note("clone", CLONE, str(log)),
        Note("after", HOST, str(log)),
        Note("inside", CONTAINER, str(log)),
        Note("more", CONTAINER, str(log)),
        Become(),
    )


AFTER = "        run_each(plan.after_clone(), context, narrator)\n"
FURNISH = "        _furnish(plan, context, child, narrator)\n"
ORDER = """\
first in host
second in host
wish clone
after in host
inside in child
more in child
undo after
undo second
undo first
"""


# ---- order


def check_order(log, module=launch_, narrator=None):
    log.write_text("")
    status, _ = run(whole(log), module, narrator)
    assert status == 0
    assert log.read_text() == ORDER


@pytest.mark.parametrize("narrator", [None, Narrator], ids=["alone", "narrated"])
def test_order(log, narrator):
    check_order(log, narrator=narrator and narrator())


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (
            "in reversed([s for s in plan if s.side == HOST])",
            "in [s for s in plan if s.side == HOST]",
        ),
        ("run_each(plan.before_clone(), context, narrator)", "pass"),
        ("run_each(plan.after_clone(), context, narrator)", "pass"),
        ("in reversed([s for s in plan if s.side == HOST])", "in reversed(plan.before_clone())"),
        (AFTER + FURNISH, FURNISH + AFTER),
    ],
)
def test_the_check_on_order_can_fail(log, old, new):
    fails(check_order, log, mutant(launch_, old, new))


def test_a_narrator_is_told_all_and_in_order(log):
    watcher = Watcher()
    check_order(log, narrator=watcher)
    assert watcher.told == [
        *("begin first", "end first", "begin second", "end second", "cloned clone"),
        *("begin after", "end after", "begin inside", "end inside", "begin more", "end more"),
        *("begin exec", "end exec", "running"),
    ]


def check_waits(module):
    """What the host sends after the clone is there before the child's first step."""
    read, write = os.pipe()
    try:
        run(
            Plan(
                Do("clone", CONTAINER, lambda c: os.write(c.fds["ticket"], b"in time")),
                Do("send", HOST, lambda c: c.send_fd("ticket", write)),
                Become(),
            ),
            module,
        )
        assert os.read(read, 100) == b"in time"
    finally:
        os.close(read)
        os.close(write)


def test_the_child_waits_for_its_turn():
    check_waits(launch_)


def test_the_check_on_waiting_can_fail():
    fails(
        check_waits,
        mutant(launch_, "            self._context.fds.update(self._child.taken())\n", ""),
    )


def test_descriptors_travel_to_the_host_and_are_closed_by_undo():
    made = context()
    step = Do("terminal", CONTAINER, lambda c: c.send_fd("CONSOLE", 0))
    launch_.launch(Plan(step, Become()), made)
    assert made.fds["CONSOLE"] > 2
    assert made.pidfd > 2
    process.wait(made.pidfd)
    launch_.undo(Plan(), made)
    assert (made.fds, made.pidfd) == ({}, -1)


def test_warnings_of_both_sides_arrive():
    plan = Plan(
        Do("a", HOST, lambda c: c.warn("from the host")),
        Do("b", CONTAINER, lambda c: c.warn("from\nthe child")),
        Become(),
    )
    assert run(plan)[1].said == ["from the host", "from\nthe child"]


def test_the_program_is_what_runs():
    assert run(Plan(Become(("/bin/sh", "-c", "exit 7"))))[0] == 7


def test_the_child_is_a_copy_and_changes_nothing_here(log):
    made = context()
    made.env = ["A=b"]
    plan = Plan(Do("env", CONTAINER, lambda c: c.env.append("HOME=/")), Become())
    launch_.launch(plan, made)
    process.wait(made.pidfd)
    launch_.undo(plan, made)
    assert made.env == ["A=b"]


# ---- the child's frame


def check_no_import(module, tmp_path):
    """After pivot_root(2) the search path leads into the image (CVE-2019-14271)."""
    (tmp_path / "planted.py").write_text(f"open({str(tmp_path / 'owned')!r}, 'w')")

    def from_the_image(context):
        import planted  # noqa: F401

    sys.path.insert(0, str(tmp_path))
    try:
        error, _ = fail(Plan(Do("import", CONTAINER, from_the_image), Become()), module)
    finally:
        sys.path.remove(str(tmp_path))
        sys.modules.pop("planted", None)
    assert error.step == "import"
    assert "planted" in error.message
    assert not (tmp_path / "owned").exists()


def test_the_child_imports_nothing(tmp_path):
    check_no_import(launch_, tmp_path)
    import wave  # noqa: F401 - afterwards we may again


def test_the_check_on_imports_can_fail(tmp_path):
    old = '        raise ImportError(f"import {name}: too late'
    fails(check_no_import, mutant(launch_, old, old.replace("raise ", "")), tmp_path)
    fails(check_no_import, mutant(launch_, "sys.meta_path.insert(0", "[].insert(0"), tmp_path)


def check_host_fds(module, tmp_path):
    """A lock that the child kept would outlive the runtime."""
    with open(tmp_path / "lock", "w") as lock:
        made = context()
        made.host_fds.append(lock.fileno())

        def look(c):
            c.warn(str(os.path.exists(f"/proc/self/fd/{lock.fileno()}")))

        plan = Plan(Do("look", CONTAINER, look), Become())
        module.launch(plan, made)
        process.wait(made.pidfd)
        module.undo(plan, made)
        assert made.said == ["False"]


def test_the_child_closes_what_is_the_hosts(tmp_path):
    check_host_fds(launch_, tmp_path)


def test_the_check_on_host_fds_can_fail(tmp_path):
    old = "for fd in self._host.host_fds:"
    fails(check_host_fds, mutant(launch_, old, "for fd in ():"), tmp_path)


def test_a_runtime_that_is_killed_takes_the_child_with_it(log):
    """End-of-file instead of a turn: the child ends without one step."""
    read, write = os.pipe()
    runtime = os.fork()
    if runtime == 0:
        os.close(read)
        plan = Plan(
            Do("die", CONTAINER, lambda c: note(str(log), "ran")),
            Do("after", HOST, lambda c: os.kill(os.getpid(), signal.SIGKILL)),
            Become(),
        )
        try:
            launch_.launch(plan, context())
        finally:
            os._exit(1)
    os.close(write)
    assert os.waitpid(runtime, 0)[1] == signal.SIGKILL
    assert os.read(read, 1) == b"", "end-of-file: the child, who has a copy, has ended"
    os.close(read)
    assert log.read_text() == ""


# ---- failures


def raiser(error):
    """A step's action that fails."""

    def action(context):
        raise error

    return action


SITES = [(HOST, "before"), (HOST, "after"), (CONTAINER, "inside")]


@pytest.mark.parametrize(("side", "place"), SITES, ids=[place for _, place in SITES])
@pytest.mark.parametrize("narrated", [False, True], ids=["alone", "narrated"])
def test_a_failure_anywhere_undoes_all_the_hosts_steps(log, side, place, narrated):
    broken = Do("broken", side, raiser(UsageError("no good", "do better")))
    steps = list(whole(log))
    steps.insert({"before": 1, "after": 4, "inside": 5}[place], broken)
    watcher = Watcher() if narrated else None
    error, _ = fail(Plan(*steps), narrator=watcher)
    assert (error.message, error.hint) == ("no good", "do better")
    if side == CONTAINER:
        assert isinstance(error, StepFailed)
        assert error.step == "broken"
    assert log.read_text().endswith("undo after\nundo second\nundo first\n")
    assert "more in child" not in log.read_text()
    if watcher:
        assert watcher.told[-1] == "failed broken"


def check_errno(module, narrated=False):
    error, _ = fail(
        Plan(
            Do("fine", CONTAINER, lambda c: None),
            Do("mount", CONTAINER, raiser(KernelError("mount", '"/x"', errno.EBUSY, "in use"))),
            Become(),
        ),
        module,
        Watcher() if narrated else None,
    )
    assert isinstance(error, StepFailed)
    assert error.step == "mount"
    assert isinstance(error.__cause__, KernelError)
    assert (error.__cause__.call, error.__cause__.errno) == ("mount", errno.EBUSY)


@pytest.mark.parametrize("narrated", [False, True], ids=["alone", "narrated"])
def test_the_errno_crosses_to_the_host(narrated):
    check_errno(launch_, narrated)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("            self.doing = step.name\n", ""),
        (
            "            raise step_failed(self.doing, error) from error\n",
            "            raise MinicontainerError(str(error)) from None\n",
        ),
    ],
)
def test_the_check_on_errno_can_fail(old, new):
    fails(check_errno, mutant(launch_, old, new))


def check_killed(module, narrated=False):
    error, _ = fail(
        Plan(
            Do("fine", CONTAINER, lambda c: None),
            Do("deadly", CONTAINER, lambda c: os.kill(os.getpid(), signal.SIGKILL)),
            Do("never", CONTAINER, lambda c: None),
            Become(),
        ),
        module,
        Watcher() if narrated else None,
    )
    assert isinstance(error, StepFailed)
    assert error.step == "deadly"
    assert "137" in error.message


@pytest.mark.parametrize("narrated", [False, True], ids=["alone", "narrated"])
def test_a_child_that_is_killed_is_missed_in_its_step(narrated):
    check_killed(launch_, narrated)


def test_the_check_on_the_killed_can_fail():
    fails(check_killed, mutant(launch_, "            self.doing = step.name\n", ""))
    fails(check_killed, mutant(launch_, "if not stays and not self._child.executed:", "if False:"))


def test_a_plan_without_a_program_is_no_container(log):
    error, _ = fail(Plan(Note("only", HOST, str(log)), Note("inside", CONTAINER, str(log))))
    assert "without executing" in error.message
    assert fail(Plan())[0].step == "clone"


def test_a_clone_that_the_kernel_refuses(log):
    """CLONE_FS and CLONE_NEWNS exclude each other: EINVAL; before any child is there."""
    plan = Plan(Note("first", HOST, str(log)), Note("bad", CLONE, str(log), 0x20200), Become())
    for narrator in (None, Watcher()):
        log.write_text("")
        error, made = fail(plan, narrator=narrator)
        assert isinstance(error, KernelError)
        assert error.call == "clone3"
        assert made.pid == 0
        assert log.read_text() == "first in host\nwish bad\nundo first\n"
        assert not narrator or narrator.told[-1] == "failed bad"


def test_interrupted_on_the_host_it_undoes_too(log):
    """Ctrl-C is no MinicontainerError."""
    plan = Plan(*whole(log), Do("ctrl-c", HOST, raiser(KeyboardInterrupt())))
    with pytest.raises(KeyboardInterrupt):
        launch_.launch(plan, context())
    assert log.read_text().endswith("undo after\nundo second\nundo first\n")


# ---- undo


def check_undo(log, module=launch_):
    """Each is undone, whatever the others do; what is left behind is said."""
    log.write_text("")
    plan = Plan(
        Note("first", HOST, str(log)),
        Do("os", HOST, lambda c: None, raiser(OSError(errno.EBUSY, "busy"))),
        Do("kernel", HOST, lambda c: None, raiser(KernelError("umount2", "", errno.EBUSY))),
        Note("last", HOST, str(log)),
        Become(),
    )
    made = context()
    assert module.undo(plan, made) is False
    assert made.left_behind
    assert log.read_text() == "undo last\nundo first\n"
    assert [line.split(":")[0] for line in made.said] == [
        "left behind by step 'kernel'", "left behind by step 'os'",
    ]  # fmt: skip
    assert module.undo(Plan(Note("first", HOST, str(log))), made) is True


def test_undo_goes_on_after_a_failure(log):
    check_undo(log)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("except (OSError, MinicontainerError) as", "except KeyError as"),
        ("            whole, context.left_behind = False, True\n", ""),
        ("whole, context.left_behind = False, True", "whole = False"),
        ("            context.warn(f\"left behind by step {step.name!r}: {error}\")\n", ""),
    ],
)  # fmt: skip
def test_the_check_on_undo_can_fail(log, old, new):
    fails(check_undo, log, mutant(launch_, old, new))


def test_interrupted_just_after_the_clone(monkeypatch, log):
    """Ctrl-C as soon as it may come: the child is there, and must not stay (the fixture looks)."""
    start = Child.start

    def interrupted(self, *words):
        start(self, *words)
        raise KeyboardInterrupt

    monkeypatch.setattr(Child, "start", interrupted)
    made = context()
    with pytest.raises(KeyboardInterrupt):
        launch_.launch(whole(log), made)
    assert made.pid > 0, "it was known"


def test_an_error_on_the_host_says_in_which_step(tmp_path):
    """Also one that is Python's own."""
    step = Do("score", HOST, raiser(PermissionError(errno.EACCES, "Permission denied")))
    error, _ = fail(Plan(step, Become()))
    assert (error.message, error.step) == ("step 'score': Permission denied", "score")


# ---- threads


def check_threads(log, module):
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    try:
        with pytest.raises(MinicontainerError, match="2 threads"):
            run(Plan(Note("first", HOST, str(log)), Become()), module)
        assert log.read_text() == "", "refused before anything is made"
    finally:
        stop.set()
        thread.join()


def test_a_process_with_threads_is_refused(log):
    check_threads(log, launch_)


def test_the_check_on_threads_can_fail(log):
    fails(check_threads, log, mutant(launch_, "if threads > 1:", "if threads > 9:"))
