"""kernel/clone.py and clone.c: a child that shares our memory, and what happens when it is killed.

Every check runs in a process of its own: one that fails may well leave Python in pieces."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from minicontainer import libc_build
from minicontainer.errors import CannotExecute, KernelError
from minicontainer.kernel import process
from minicontainer.kernel.clone import Child
from tests.kernel.room import namespace, status
from tests.support import CHECKOUT, descriptors

NEWUTS, NEWPID = 0x04000000, 0x20000000
PRELUDE = """
import os, signal, sys, threading, time
from minicontainer.kernel import process
from minicontainer.kernel.clone import Child
from minicontainer.errors import KernelError

def end(child):
    process.kill(child.pidfd)
    status = process.wait(child.pidfd)
    child.close()
    os.close(child.pidfd)
    return status
"""


# All that a mutant leaves behind, stopped or orphaned, ends with the program
TOGETHER = ["unshare", "--pid", "--fork", "--kill-child"] if os.geteuid() == 0 else []


def script(text: str, path: Path | None = None, patience: float = 60) -> str:
    """What a Python program prints; how it ended where that was not well."""
    paths = f"import sys\nsys.path[:0] = {[str(path)] * bool(path) + [str(CHECKOUT)]!r}\n"
    try:
        done = subprocess.run(
            [*TOGETHER, sys.executable, "-c", paths + PRELUDE + textwrap.dedent(text)],
            capture_output=True, text=True, timeout=patience,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return "it hangs"
    return done.stdout.strip() if done.returncode == 0 else f"{done.returncode}: {done.stderr}"


@pytest.fixture
def child() -> Iterator[Child]:
    """One that waits; nothing of it stays."""
    before = descriptors()
    made = Child()
    made.start(0)
    yield made
    process.kill(made.pidfd)
    try:
        process.wait(made.pidfd)
    except ChildProcessError:
        pass  # the test has waited
    made.close()
    os.close(made.pidfd)
    assert descriptors() == before


# ---- turns


def test_a_turn_is_the_childs_but_memory_is_ours(child):
    noted = []
    assert child.turn(lambda: noted.append((os.getpid(), os.getppid())))
    assert child.turn(lambda: noted.append((os.getpid(), os.getppid())))
    assert noted == [(child.pid, os.getpid())] * 2


def test_what_it_asks_of_the_kernel_happens_to_the_child_alone(child):
    here = os.getcwd()
    assert child.turn(lambda: os.chdir("/"))
    assert os.getcwd() == here
    assert os.readlink(f"/proc/{child.pid}/cwd") == "/"
    opened, before = [], descriptors()
    assert child.turn(lambda: opened.append(os.open("/", os.O_PATH)))
    assert os.path.exists(f"/proc/{child.pid}/fd/{opened[0]}")
    assert descriptors() == before


def test_what_a_turn_raises_is_raised_here(child):
    def fails():
        raise KernelError("mount", "", errno.EBUSY)

    with pytest.raises(KernelError, match="EBUSY"):
        child.turn(fails)
    with pytest.raises(SystemExit):
        child.turn(lambda: sys.exit(3))
    assert child.turn(lambda: None), "and it is still there"


@pytest.mark.requires_root
def test_it_is_born_in_what_was_wished():
    child, noted = Child(), []
    child.start(NEWUTS | NEWPID)
    child.turn(lambda: noted.append((os.getpid(), namespace("uts"))))
    assert noted[0][0] == 1
    assert noted[0][1] == namespace("uts", child.pid) != namespace("uts")
    process.kill(child.pidfd)
    assert process.wait(child.pidfd) == 137
    child.close()
    os.close(child.pidfd)


def test_what_the_kernel_refuses_is_an_error_with_the_flags_names():
    child = Child()
    with pytest.raises(KernelError, match=r"clone3\(.*CLONE_NEWNS.*EINVAL") as caught:
        child.start(0x00020000 | 0x200)  # CLONE_NEWNS excludes CLONE_FS
    assert caught.value.errno == errno.EINVAL
    child.close()


DEEP = """
def deeper(n=0):
    return sorted([n], key=lambda n: deeper(n + 1))  # through C, which uses the stack
if sys.version_info >= (3, 14):
    sys.setrecursionlimit(10**6)  # Python measures the stack: it must know which
child = Child()
child.start(0)
try:
    child.turn(deeper)
    print("it died")
except RecursionError:
    print("recursion", child.turn(lambda: None), end(child))
"""


def test_deep_recursion_in_a_turn_is_an_exception():
    assert script(DEEP) == "recursion True 137"


# ---- descriptors


def test_descriptors_go_both_ways(child):
    with open(os.devnull) as null:
        child.give("null", null.fileno())
        found = {}
        child.turn(lambda: found.update(child.taken()))
        assert list(found) == ["null"]
        child.turn(lambda: child.hand_out("back", found["null"]))
        back = child.handed_out()
        assert os.path.sameopenfile(back["back"], null.fileno())
        assert not os.get_inheritable(back["back"])
        os.close(back["back"])
        assert (child.handed_out(), child.taken()) == ({}, {})


def test_both_ends_are_closed_at_exec(child):
    assert not os.get_inheritable(child._host.fileno())
    inheritable = []
    child.turn(lambda: inheritable.append(os.get_inheritable(child.wire)))
    assert inheritable == [False]


# ---- execve


def test_it_executes_a_path(child):
    assert not child.turn(lambda: child.execute("/bin/sh", ["sh", "-c", "exit 7"], []))
    assert child.executed
    assert process.wait(child.pidfd) == 7


def test_it_executes_a_descriptor_and_gets_arguments_and_environment(child):
    read, write = os.pipe()  # later than the child: it has none of it yet
    child.give("out", write)
    argv, envp = ["env", "-0"], ["A=b", "\udcff=\udcfe", "B="]

    def turn():
        os.dup2(child.taken()["out"], 1)
        fd = os.open("/usr/bin/env", os.O_PATH | os.O_CLOEXEC)
        child.execute(fd, argv, envp)

    assert not child.turn(turn)
    os.close(write)
    with open(read, "rb") as pipe:
        assert pipe.read() == b"A=b\0\xff=\xfe\0B=\0"
    assert process.wait(child.pidfd) == 0


def test_an_exec_that_fails_leaves_the_child_as_it_was(child, tmp_path):
    (tmp_path / "file").write_text("no program")
    with pytest.raises(KernelError) as caught:
        child.turn(lambda: child.execute(str(tmp_path / "file"), ["x"], []))
    assert (caught.value.call, caught.value.errno) == ("execve", errno.EACCES)
    assert not child.executed
    (tmp_path / "file").chmod(0o755)
    with pytest.raises(KernelError) as caught:
        child.turn(lambda: child.execute(os.open(tmp_path / "file", os.O_PATH), ["x"], []))
    assert (caught.value.call, caught.value.errno) == ("execveat", errno.ENOEXEC)
    assert "another machine" in caught.value.meaning


@pytest.mark.parametrize("words", [["a\0b"], ["\ud800"]])
def test_what_no_c_string_can_hold(child, words):
    with pytest.raises(CannotExecute):
        child.turn(lambda: child.execute("/bin/true", words, []))
    assert child.turn(lambda: None), "nothing was executed"


def test_a_program_has_the_signal_mask_of_its_runtime(child):
    """Unless a step has set another; and nothing of the time when all were blocked."""
    blocked = []
    child.turn(lambda: blocked.append(int(status("SigBlk"), 16)))
    assert blocked[0] & 1 << 14, "SIGTERM"
    child.turn(lambda: child.execute("/bin/sleep", ["sleep", "60"], []))
    assert status("SigBlk", child.pid) == status("SigBlk")


def test_words_of_the_program_come_over_the_wire(child):
    def turn():
        os.dup2(child.wire, 5)
        child.execute(
            "/bin/sh", ["sh", "-c", "echo hello >&5; dd bs=99 count=1 <&5 >&5 2>/dev/null"], []
        )

    assert not child.turn(turn)
    assert child.hear() == b"hello\n"
    child.say(b"thanks\n")
    assert child.hear() == b"thanks\n"
    assert child.hear() == b""
    process.wait(child.pidfd)
    child.say(b"gone")


# ---- what both share, and must not


def test_not_dumpable_is_taken_back(child):
    assert status("NoNewPrivs") == "0"
    child.turn(lambda: process.set_dumpable(False))
    assert os.stat("/proc/self/fd").st_uid == 0
    child.turn(lambda: child.execute("/bin/true", ["true"], []))
    process.wait(child.pidfd)
    child.close()
    from minicontainer.libc import C

    assert C.prctl(3, 0, 0, 0, 0) == 1


SIGNALS = """
heard = []
signal.signal(signal.SIGUSR1, lambda *_: heard.append(os.getpid()))
child = Child()
child.start(0)
masks = []
def turn():
    os.kill({whom}, signal.SIGUSR1)
    time.sleep(0.05)  # the other processor may need a moment to notice
    for _ in range(1000):
        pass  # Python calls handlers between any two of these
    masks.append(open("/proc/self/status").read())
    return heard.append("turn is over")
child.turn(turn)
word = dict(line.split(":\\t") for line in masks[0].splitlines() if ":\\t" in line)
print(heard == {expected}, word["SigCgt"].strip("0"), end(child))
"""


def test_our_signals_wait_for_the_turn_to_end():
    assert script(
        SIGNALS.format(whom="os.getppid()", expected="['turn is over', os.getpid()]")
    ) == ("True  137")


def test_the_childs_signals_do_not_run_our_handlers():
    assert script(SIGNALS.format(whom="os.getpid()", expected="['turn is over']")) == "True  137"


# ---- death


KILLED = """
def deadly():
    {how}
for round in range({rounds}):
    child = Child()
    child.start(0)
    assert child.turn(lambda: None)
    {meanwhile}
    assert child.turn(deadly) is False, "it came back"
    assert not child.executed
    assert end(child) == 137
    again = Child()
    again.start(0)
    assert again.turn(lambda: None)
    end(again)
print("fine")
"""
SELF = "os.kill(os.getpid(), signal.SIGKILL)"  # holding Python's lock
ASLEEP = "time.sleep(30)"  # having let go of it
BUSY = "while True: pass"  # holding it, between any two instructions (docs/adr/0008)
KILLER = "os.system(f'(sleep 0.0{round}; kill -9 {child.pid}) &')"


def check_killed(path: Path | None = None, patience: float = 60) -> None:
    assert script(KILLED.format(how=SELF, rounds=5, meanwhile=""), path, patience).startswith(
        "fine"
    )


def test_a_child_killed_with_the_interpreters_lock_in_its_hands():
    check_killed()


@pytest.mark.parametrize("how", [ASLEEP, BUSY])
def test_a_child_killed_from_outside(how):
    assert script(KILLED.format(how=how, rounds=8, meanwhile=KILLER)).startswith("fine")


ORPHAN = """
read, write = os.pipe()
runtime = os.fork()
if runtime == 0:
    os.close(read)
    child = Child()
    child.start(0)
    if {in_turn}:
        def turn():
            os.kill(os.getppid(), signal.SIGKILL)
            {after}
        child.turn(turn)
    os.kill(os.getpid(), signal.SIGKILL)
os.close(write)
os.waitpid(runtime, 0)
print(os.read(read, 10))
"""


@pytest.mark.parametrize(
    ("in_turn", "after"),
    [
        (False, "pass"),
        (True, "pass"),
        (True, "child.execute('/bin/sh', ['sh', '-c', f'echo ran >&{write}'], [])"),
    ],
)
def test_it_does_not_outlive_its_runtime(in_turn, after):
    """It holds a copy of the pipe: end-of-file means that it has ended, and without a word."""
    assert script(ORPHAN.format(in_turn=in_turn, after=after)) == "b''"


# ---- our own Ctrl-C

STUCK = """
child = Child()
child.start(0)
os.system(f"(sleep 0.3; kill -INT {os.getpid()}) &")
try:
    child.turn(lambda: os.kill(os.getpid(), signal.SIGSTOP))
    print("it came back")
except KeyboardInterrupt:
    print("interrupted", child.executed, process.wait(child.pidfd))
"""


def test_a_child_that_is_stopped_does_not_make_us_deaf():
    assert script(STUCK) == "interrupted False 137"


INTERRUPTED = """
from minicontainer.kernel import clone
class Lib:
    def __getattr__(self, name):
        return getattr(clone_C, name)
    def child_start(self, *words):
        pid = clone_C.child_start(*words)
        os.kill(os.getpid(), signal.SIGINT)
        return pid
clone_C, clone.C = clone.C, Lib()
child = Child()
try:
    child.start(0)
except KeyboardInterrupt:
    print("interrupted", child.pid > 0, end(child))
"""


def test_ctrl_c_during_the_clone_waits_until_the_child_is_known():
    assert script(INTERRUPTED) == "interrupted True 137"


HEARING = """
from minicontainer.kernel import clone
class Hearing:
    mask = 0
    def __enter__(self):
        return self
    def __exit__(self, *_):
        pass
clone.Deaf = Hearing
"""


# ---- mutants of the C half


def mutant(folder: Path, *changes: tuple[str, str]) -> Path:
    """A folder with a copy of the package whose clone.c is broken."""
    import shutil

    shutil.copytree(CHECKOUT / "minicontainer", folder / "minicontainer")
    source = (folder / "minicontainer/clone.c").read_text()
    for old, new in changes:
        assert source.count(old) == 1, f"{old!r} stands {source.count(old)} times in clone.c"
        source = source.replace(old, new)
    (folder / "minicontainer/clone.c").write_text(source)
    subprocess.run(
        [sys.executable, "-m", "minicontainer.libc_build"], cwd=folder, check=True,
        capture_output=True,
    )  # fmt: skip
    return folder


# A thread that ends with the lock in its hands, on every version of Python
LOCK_KEPT = """pthread_t other;
    PyEval_SaveThread();
    pthread_create(&other, NULL, (void *(*)(void *))PyEval_RestoreThread, child->state);
    pthread_join(other, NULL);"""


def test_the_check_on_killed_children_can_fail(tmp_path):
    """Nobody lets go of the interpreter's lock: then we do not hang, but end, and say why."""
    let_go = "if (current_state() == child->state)\n        PyEval_SaveThread();"
    kept = (let_go, LOCK_KEPT)
    with pytest.raises(AssertionError, match=r"125: minicontainer: .* held the interpreter's lock"):
        check_killed(mutant(tmp_path / "one", kept))
    with pytest.raises(AssertionError, match="it hangs"):
        check_killed(mutant(tmp_path / "two", kept, ("    alarm(2);\n", "")), patience=6)


def test_the_checks_on_signals_can_fail(tmp_path):
    """Not deaf, our handler runs wherever Python is; and Ctrl-C comes before the child is known."""
    ours = SIGNALS.format(whom="os.getppid()", expected="['turn is over', os.getpid()]")
    assert script(HEARING + ours) != "True  137"
    assert "True" not in script(HEARING + INTERRUPTED)
    broken = mutant(tmp_path, ("if (asked_to_end())", "if (0)"))
    assert script(STUCK, broken, 5) == "it hangs"


def test_the_check_on_orphans_can_fail(tmp_path):
    broken = mutant(tmp_path, ("    close(me->host_end);", "    ;"))
    assert script(ORPHAN.format(in_turn=False, after="pass"), broken, 5) == "it hangs"
    subprocess.run(["true"], check=True)


def test_the_build_says_what_the_compiler_said(monkeypatch, tmp_path):
    from minicontainer.errors import MinicontainerError

    monkeypatch.setenv("CC", "false")
    with pytest.raises(MinicontainerError, match="could not compile"):
        libc_build.main(str(tmp_path))
    monkeypatch.setenv("CC", "/no/such/compiler")
    with pytest.raises(MinicontainerError, match="no C compiler"):
        libc_build.main(str(tmp_path))
    assert list(tmp_path.iterdir()) == []
