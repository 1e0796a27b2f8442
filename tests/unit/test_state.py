"""state.py with real locks and real processes: what a killed runtime left is found and ended."""

from __future__ import annotations

import os
import signal
import subprocess

import pytest

from minicontainer import state
from minicontainer.errors import UsageError
from minicontainer.kernel import cgroup
from minicontainer.mountcalls import mount
from tests.support import forked
from tests.unit.mutants import fails, mutant


def silent(text: str) -> None:
    """Say nothing."""


@pytest.fixture(autouse=True)
def run_root(tmp_path, monkeypatch):
    monkeypatch.setenv("MINICONTAINER_RUN", str(tmp_path / "run"))
    return tmp_path / "run"


@pytest.fixture
def sleeper():
    process = subprocess.Popen(["sleep", "600"])
    yield process
    process.kill()
    process.wait()


def killed_runtime(container_id="dead", name="", facts="", module=state):
    """A runtime that claims, writes ``facts``, and is killed."""
    pid = os.fork()
    if pid == 0:
        try:
            claim = module.claim(container_id, name, silent)
            with open(claim.directory + "/state", "a") as file:
                file.write(facts)
            os.kill(os.getpid(), signal.SIGKILL)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL


def entries(run_root) -> list[str]:
    """Which containers have a directory."""
    return sorted({p.name for p in run_root.iterdir()} - {"lock", "names"})


# ---- claiming


def test_a_claim_makes_a_directory_and_a_name_and_release_removes_both(run_root):
    claim = state.claim("one", "box", silent)
    assert entries(run_root) == ["one"]
    assert os.readlink(run_root / "names/box") == "one"
    assert os.stat(claim.directory).st_mode & 0o777 == 0o700
    claim.write(scratch="/x", cgroup="/y")
    assert (run_root / "one/state").read_text() == "name box\nscratch /x\ncgroup /y\n"
    claim.release()
    assert entries(run_root) == []
    assert list((run_root / "names").iterdir()) == []


def test_a_claim_that_is_not_clean_stays_for_the_next_sweep(run_root):
    state.claim("one", "box", silent).release(clean=False)
    said: list[str] = []
    state.claim("two", "box", said.append).release()
    assert [line for line in said if "one" in line]
    assert entries(run_root) == []


def test_a_name_is_used_by_one_living_container(run_root, module=state):
    one = module.claim("one", "box", silent)
    try:
        with pytest.raises(UsageError, match='"box" is already in use by container one'):
            module.claim("two", "box", silent)
        assert entries(run_root) == ["one"], "the loser leaves nothing"
        other = module.claim("three", "other", silent)
        other.release()
        assert os.readlink(run_root / "names/box") == "one"
    finally:
        one.release()
    module.claim("two", "box", silent).release()


def test_an_id_is_used_by_one_living_container(run_root):
    one = state.claim("one", "box", silent)
    with pytest.raises(UsageError, match="one"):
        state.claim("one", "other", silent)
    assert entries(run_root) == ["one"]
    assert [p.name for p in (run_root / "names").iterdir()] == ["box"]
    one.release()
    assert list((run_root / "names").iterdir()) == []


def test_nameless_containers_do_not_meet(run_root):
    one, two = state.claim("one", "", silent), state.claim("two", "", silent)
    assert entries(run_root) == ["one", "two"]
    one.release()
    two.release()


def test_a_name_without_a_container_is_free(run_root):
    """A runtime can be killed between any two system calls."""
    (run_root / "names").mkdir(parents=True)
    (run_root / "names/box").symlink_to("gone")
    state.claim("two", "box", silent).release()
    assert list((run_root / "names").iterdir()) == []


# ---- sweeping


def check_killed_runtime_is_swept(run_root, sleeper, tmp_path, module):
    scratch = tmp_path / "scratch"
    (scratch / "upper").mkdir(parents=True, exist_ok=True)
    facts = f"scratch {scratch}\nprocess {sleeper.pid} {state.start_time(sleeper.pid)}\n"
    killed_runtime("dead", "box", facts)
    said: list[str] = []
    module.claim("next", "box", said.append).release()
    assert said == ["cleaned up after container dead, whose runtime was killed"]
    assert entries(run_root) == []
    assert not scratch.exists()
    # WNOHANG: the sweep has waited for the end itself
    assert os.waitid(os.P_PID, sleeper.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT), "it still runs"


def test_a_killed_runtime_is_swept(run_root, sleeper, tmp_path):
    check_killed_runtime_is_swept(run_root, sleeper, tmp_path, state)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("        remove_tree(facts[", "        str(facts["),
        ("            _clean(entry)", "            pass"),
        ("            process.kill(pidfd)\n", "            return\n"),
        ('    remove_tree(f"', '    str(f"'),
        ("        sweep(say)\n", ""),
    ],
)
def test_the_check_on_sweeping_can_fail(run_root, sleeper, tmp_path, old, new):
    fails(check_killed_runtime_is_swept, run_root, sleeper, tmp_path, mutant(state, old, new))


def check_the_living_are_left_alone(run_root, sleeper, module):
    claim = state.claim("alive", "box", silent)
    claim.write(process=f"{sleeper.pid} {state.start_time(sleeper.pid)}")
    try:
        said: list[str] = []
        module.claim("next", "", said.append).release()
        assert said == []
        assert entries(run_root) == ["alive"]
        assert sleeper.poll() is None
    finally:
        claim.release()


def test_the_living_are_left_alone(run_root, sleeper):
    check_the_living_are_left_alone(run_root, sleeper, state)


def test_the_check_on_the_living_can_fail(run_root, sleeper):
    broken = mutant(state, "fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)", "pass")
    fails(check_the_living_are_left_alone, run_root, sleeper, broken)


def check_stranger(sleeper, module):
    """Pids come round again: the same number, another process."""
    earlier = str(int(state.start_time(sleeper.pid)) - 1)
    killed_runtime(facts=f"process {sleeper.pid} {earlier}\n")
    module.claim("next", "", silent).release()
    assert os.waitid(os.P_PID, sleeper.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None, "killed"


def test_a_stranger_with_the_same_pid_is_not_killed(run_root, sleeper):
    check_stranger(sleeper, state)
    assert entries(run_root) == []


def test_the_check_on_strangers_can_fail(sleeper):
    broken = mutant(state, "if start_time(pid) == started:", "if True:")
    with pytest.raises(AssertionError):
        # the kill is asynchronous, but the sweep waits until it has happened
        check_stranger(sleeper, broken)


def test_a_pid_that_nobody_has_is_fine(run_root, sleeper):
    started = state.start_time(sleeper.pid)
    sleeper.kill()
    sleeper.wait()
    assert state.start_time(sleeper.pid) == ""
    killed_runtime(facts=f"process {sleeper.pid} {started}\n")
    state.claim("next", "", silent).release()
    assert entries(run_root) == []


def check_cut_off(run_root, tmp_path, module):
    """The start of a path is another path: "/srv/data" cut off is "/srv"."""
    precious = tmp_path / "precious"
    (precious / "below").mkdir(parents=True, exist_ok=True)
    killed_runtime(facts=f"layers /x\nscratch {precious}")
    module.claim("next", "", silent).release()
    assert precious.exists()
    assert entries(run_root) == []


def test_a_line_that_was_cut_off_is_ignored(run_root, tmp_path):
    check_cut_off(run_root, tmp_path, state)


def test_the_check_on_cut_off_lines_can_fail(run_root, tmp_path):
    old = 'if line.endswith("\\n"):\n                    key, _, value = line[:-1]'
    broken = mutant(state, old, "if True:\n                    key, _, value = line.rstrip()")
    fails(check_cut_off, run_root, tmp_path, broken)


def test_a_runtime_killed_before_it_wrote_anything(run_root):
    """Even before its lock was made: mkdir(2) comes first."""
    killed_runtime("dead")
    (run_root / "deader").mkdir()
    state.claim("next", "", silent).release()
    assert entries(run_root) == []


def test_other_files_in_the_directory_are_no_containers(run_root):
    state.claim("one", "", silent).release()
    (run_root / "README").write_text("hello")
    state.claim("next", "", silent).release()
    assert entries(run_root) == ["README"]


def test_two_sweeps_at_once_clean_up_once(run_root, tmp_path):
    for number in range(20):
        killed_runtime(f"dead{number:02}", f"box{number}", f"scratch {tmp_path}/s{number}\n")
        (tmp_path / f"s{number}/a/b").mkdir(parents=True)
        # the next claim sweeps it, so it is put aside until all are there
        (run_root / f"dead{number:02}").rename(tmp_path / f"dead{number:02}")
    for number in range(20):
        (tmp_path / f"dead{number:02}").rename(run_root / f"dead{number:02}")
    gate_read, gate_write = os.pipe()
    children = []
    for number in range(4):
        pid = os.fork()
        if pid == 0:
            try:
                os.close(gate_write)
                os.read(gate_read, 1)  # end-of-file: all begin together
                said: list[str] = []
                state.claim(f"next{number}", "", said.append).release()
                (tmp_path / f"said{number}").write_text("".join(f"{line}\n" for line in said))
                os._exit(0)
            finally:
                os._exit(1)
        children.append(pid)
    os.close(gate_read)
    os.close(gate_write)
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0, 0, 0, 0]
    said = "".join((tmp_path / f"said{number}").read_text() for number in range(4)).splitlines()
    assert len(said) == len(set(said)) == 20
    assert entries(run_root) == []
    assert list((run_root / "names").iterdir()) == []
    assert not list(tmp_path.glob("s[0-9]*"))


def check_one_that_cannot_be_cleaned(run_root, scratch, module):
    """Something is mounted in its upper directory: EBUSY.  Others must still be able to start."""
    scratch.mkdir(exist_ok=True)
    killed_runtime("bad", facts=f"scratch {scratch}\n")

    def child():
        mount("tmpfs", str(scratch), "tmpfs", 0)
        said: list[str] = []
        module.claim("next", "", said.append).release()
        return said

    [said] = forked(child)
    assert said.startswith("cannot clean up after container bad"), said
    assert entries(run_root) == ["bad"], "the next sweep tries again"


@pytest.mark.requires_root
def test_one_that_cannot_be_cleaned_is_in_nobodys_way(run_root, tmp_path):
    check_one_that_cannot_be_cleaned(run_root, tmp_path / "scratch", state)
    state.claim("next", "", silent).release()
    assert entries(run_root) == []


@pytest.mark.requires_root
def test_the_check_on_what_cannot_be_cleaned_can_fail(run_root, tmp_path):
    broken = mutant(state, "except OSError as uncleaned:", "except KeyError as uncleaned:")
    fails(check_one_that_cannot_be_cleaned, run_root, tmp_path / "scratch", broken)


@pytest.mark.requires_root
def test_the_cgroup_of_a_killed_runtime_goes_with_all_that_lives_in_it(run_root, sleeper):
    path = f"{cgroup.mount_point()}/minicontainer-test-{os.getpid()}"
    cgroup.make(path)
    try:
        with open(path + "/cgroup.procs", "w") as file:
            file.write(str(sleeper.pid))
        killed_runtime(facts=f"cgroup {path}\n")
        state.claim("next", "", silent).release()
        assert not os.path.exists(path)
        assert sleeper.wait(10) == -signal.SIGKILL
    finally:
        cgroup.remove(path)


def test_the_start_time_survives_a_hostile_program_name():
    """proc_pid_stat(5): the name stands in parentheses and may hold parentheses and blanks."""
    code = "open('/proc/self/comm', 'w').write(') R 1 2 (3'); print(flush=True); input()"
    with subprocess.Popen(
        ["python3", "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout
        before = state.start_time(process.pid)
        process.stdout.readline()
        with open(f"/proc/{process.pid}/comm") as file:
            assert file.read() == ") R 1 2 (3\n"
        assert state.start_time(process.pid) == before != ""
        process.communicate(b"\n")
