"""Whatever fails and whoever is killed, nothing is left behind, or the next command cleans it.

Each step of the plan is made to fail in turn, before and after it did its work, and the runtime
is killed with SIGKILL in each.  The host is compared before and after.
"""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from minicontainer import Container, IdMap, Linux, Namespace, Process, Root, Spec, mountcalls, state
from minicontainer.errors import KernelError, MinicontainerError
from minicontainer.kernel import overlay
from minicontainer.plan import Place, plan
from minicontainer.spec import DEFAULT_MOUNTS, DEFAULT_NAMESPACES, File, Mount
from minicontainer.step import CLONE, Context, Plan, Step
from minicontainer.trees import remove_tree
from tests import support
from tests.support import CHECKOUT, Host, forked

pytestmark = pytest.mark.requires_root


def spec_for(layer: str, container_id: str = "x", user: bool = False) -> Spec:
    """A container that uses as many kinds of steps as one can."""
    maps = (IdMap(0, 1000000, 65536),) if user else ()
    kinds = (*DEFAULT_NAMESPACES, *(("user",) if user else ()))
    return Spec(
        process=Process(args=("sleep", "1000"), oom_score_adj=500),
        root=Root(layers=(layer,)),
        hostname="box",
        mounts=(
            *DEFAULT_MOUNTS,
            Mount("/mnt", "bind", "/usr", ("rbind", "ro", "rprivate")),
        ),
        files=(File("/etc/hosts", "127.0.0.1 localhost\n"),),
        linux=Linux(
            namespaces=tuple(Namespace(kind) for kind in kinds),
            uid_mappings=maps,
            gid_mappings=maps,
            cgroups_path=f"/minicontainer/{container_id}",
            sysctl=(("net.ipv4.ping_group_range", "0 65535"),),
        ),
    )


STEPS = list(enumerate(plan(spec_for("/layer"), Place("x", "/scratch"))))
USER_STEPS = list(enumerate(plan(spec_for("/layer", user=True), Place("x", "/scratch"))))


class Broken(Step):
    """A step that fails, before or after it has done its work."""

    inner: Step
    after: bool

    @property
    def side(self) -> str:  # type: ignore[override]
        return self.inner.side

    @property
    def name(self) -> str:  # type: ignore[override]
        return self.inner.name

    def wish(self, context: Context) -> int:
        raise KernelError("clone3", "", 28, "made to fail")

    def run(self, context: Context) -> None:
        if self.after:
            self.inner.run(context)
        raise KernelError("broken", "", 5, "made to fail")

    def undo(self, context: Context) -> None:
        self.inner.undo(context)


class Forgetful(Broken):
    """The mutant: it undoes nothing."""

    def undo(self, context: Context) -> None:
        return


def replaced(whole: Plan, index: int, step: Step) -> Plan:
    return Plan(*whole.steps[:index], step, *whole.steps[index + 1 :])


@pytest.fixture
def layer(busybox_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    from minicontainer.image.store import Store

    image = Store(str(busybox_data)).get("busybox")
    assert image is not None
    monkeypatch.setenv("MINICONTAINER_ROOT", str(busybox_data))
    monkeypatch.setenv("MINICONTAINER_RUN", str(tmp_path / "run"))
    os.makedirs(tmp_path / "run" / "names")
    (tmp_path / "run" / "lock").touch()
    os.makedirs(busybox_data / "containers", exist_ok=True)
    yield image.layers[0]


def ident(param: tuple[int, Step]) -> str:
    return f"{param[0]:02}-{type(param[1]).__name__}"


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("number", STEPS, ids=ident)
def test_a_failing_step_leaves_nothing(
    layer: str, leaves_nothing: Host, number: tuple[int, Step], after: bool
) -> None:
    container = Container(spec_for(layer, f"fail{os.getpid()}"))
    broken = Broken(container.plan.steps[number[0]], after)
    container.plan = replaced(container.plan, number[0], broken)
    with pytest.raises(MinicontainerError, match="made to fail"):
        container.start()


@pytest.mark.parametrize("number", USER_STEPS, ids=ident)
def test_a_failing_step_leaves_nothing_in_a_user_namespace(
    layer: str, leaves_nothing: Host, number: tuple[int, Step]
) -> None:
    container = Container(spec_for(layer, f"ufail{os.getpid()}", user=True))
    container.plan = replaced(
        container.plan, number[0], Broken(container.plan.steps[number[0]], False)
    )
    with pytest.raises(MinicontainerError, match="made to fail"):
        container.start()


def mounts_that_reach_a_shared_host(layer: str) -> list[str]:
    """Run a container in a user namespace where "/" is shared; what its host then sees of it."""

    def inside() -> list[str]:
        before = support.mounts()
        container = Container(spec_for(layer, f"shared{os.getpid()}", user=True))
        try:
            with container:
                return sorted(support.mounts() - before)
        except MinicontainerError as error:
            return [str(error), *sorted(support.mounts() - before)]
        finally:
            for mount in support.mounts() - before:
                subprocess.run(["umount", "--lazy", mount.split()[2]], stderr=subprocess.DEVNULL)
            container.remove()

    return forked(inside, shared_root=True)


def test_a_shared_host_sees_no_mount_of_a_user_namespace(layer: str, leaves_nothing: Host) -> None:
    assert mounts_that_reach_a_shared_host(layer) == []


def test_the_check_sees_a_tree_that_was_not_cut_off(
    layer: str, busybox_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def open_tree(path: str) -> int:
        return mountcalls.open_tree(path, recursive=False)

    monkeypatch.setattr(overlay, "open_private_tree", open_tree)
    assert any("overlay" in line for line in mounts_that_reach_a_shared_host(layer))
    remove_tree(str(busybox_data / "containers"))


def test_the_check_sees_a_step_that_undoes_nothing(
    layer: str, busybox_data: Path, tmp_path: Path
) -> None:
    host = Host(tmp_path, busybox_data)
    container = Container(spec_for(layer, f"mutant{os.getpid()}"))
    index, _ = next((i, s) for i, s in STEPS if type(s).__name__ == "MakeUpper")
    container.plan = replaced(container.plan, index, Forgetful(container.plan.steps[index], True))
    with pytest.raises(MinicontainerError, match="made to fail"):
        container.start()
    assert any("containers" in line for line in host.leftovers(patience=0))
    remove_tree(f"{state.data_root()}/containers/{container.id}")
    assert host.leftovers() == []


class Stubborn(Broken):
    """A step that cannot be undone the first time."""

    def undo(self, context: Context) -> None:
        raise OSError(16, "busy")


def test_what_cannot_be_undone_stays_on_record(layer: str, leaves_nothing: Host) -> None:
    """For the next command to try again: else nobody would ever know of it."""
    container = Container(spec_for(layer, f"stay{os.getpid()}"))
    index, _ = next((i, s) for i, s in STEPS if type(s).__name__ == "MakeUpper")
    container.plan = replaced(container.plan, index, Stubborn(container.plan.steps[index], True))
    with pytest.raises(MinicontainerError, match="made to fail"):
        container.start()
    assert os.path.isdir(f"{state.data_root()}/containers/{container.id}")
    said: list[str] = []
    state.claim("f" * 64, "", said.append).release()
    assert len(said) == 1 and "cleaned up after container" in said[0]


def test_a_container_that_cannot_be_put_on_record_does_not_live(
    layer: str, leaves_nothing: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full /run: the program runs already, and nobody would know."""
    write = state.Claim.write

    def full(self: state.Claim, **facts: str) -> None:
        if "process" in facts:
            raise OSError(28, "No space left on device")
        write(self, **facts)

    monkeypatch.setattr(state.Claim, "write", full)
    container = Container(spec_for(layer, f"full{os.getpid()}"))
    with pytest.raises(OSError, match="No space left"):
        container.start()
    with pytest.raises(ProcessLookupError):
        os.kill(container.pid, 0)


# Starts a container that asks to have the runtime killed in step INDEX, and waits for that.  (It
# cannot do so itself: a process may not signal one outside its pid namespace, even by pidfd.)
KILLER = """
import os, select, sys
from minicontainer import Container
from minicontainer.step import CONTAINER, Plan, Step
from tests.e2e.test_nothing_left import Broken, replaced, spec_for

index, layer, ask = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
runtime = os.pidfd_open(os.getpid())

def ask_and_wait():
    os.write(ask, b"now")
    poll = select.poll()
    poll.register(runtime, select.POLLIN)
    poll.poll()

class Killer(Broken):
    def run(self, context):
        ask_and_wait()
        self.inner.run(context)

container = Container(spec_for(layer, f"kill{os.getpid()}"))
if index == len(container.plan):
    container.start()
    ask_and_wait()
container.plan = replaced(container.plan, index, Killer(container.plan.steps[index], False))
container.start()
raise SystemExit("the runtime should be dead by now")
"""


@pytest.mark.parametrize(
    "index",
    [i for i, step in STEPS if step.side != CLONE] + [len(STEPS)],
    ids=lambda i: f"{i:02}-{type(STEPS[i][1]).__name__}" if i < len(STEPS) else "running",
)
def test_after_kill_9_the_next_command_cleans_up(
    layer: str, leaves_nothing: Host, index: int
) -> None:
    asked, ask = os.pipe()
    runtime = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(KILLER), str(index), layer, str(ask)],
        cwd=CHECKOUT, pass_fds=[ask],
    )  # fmt: skip
    os.close(ask)
    assert os.read(asked, 3) == b"now"
    runtime.kill()
    assert runtime.wait(30) == -9
    os.close(asked)
    said: list[str] = []
    # A child that was born in this very moment holds a copy of the lock until its first steps.
    patience = time.monotonic() + 5 * support.SLOWER
    while not said and time.monotonic() < patience:
        claim = state.claim("f" * 64, "", said.append)
        claim.release()
    assert len(said) == 1 and "whose runtime was killed" in said[0]


def test_a_living_container_is_not_swept(layer: str, leaves_nothing: Host) -> None:
    said: list[str] = []
    with Container(spec_for(layer, f"live{os.getpid()}"), name="alive") as container:
        claim = state.claim("e" * 64, "", said.append)
        claim.release()
        assert said == []
        os.kill(container.pid, 0)
        with pytest.raises(MinicontainerError, match='"alive" is already in use'):
            state.claim("d" * 64, "alive", said.append)


def test_many_runs_leave_nothing(layer: str, leaves_nothing: Host) -> None:
    spec = spec_for(layer, f"many{os.getpid()}")
    spec = spec.replace(process=Process(args=("true",)))
    for _ in range(200):
        with Container(spec) as container:
            assert container.wait() == 0
