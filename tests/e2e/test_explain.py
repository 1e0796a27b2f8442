"""`--explain` tells what really happens, and changes nothing of it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from minicontainer.compose import compose
from minicontainer.errors import MinicontainerError, StepFailed
from minicontainer.image.config import Image, ImageConfig
from minicontainer.narrate import JsonExplainer, TextExplainer
from minicontainer.options import RunOptions
from minicontainer.runtime import Container
from minicontainer.spec import Mount, Spec
from minicontainer.step import Context, Narrator, Plan, Step
from tests.support import Host

pytestmark = pytest.mark.requires_root


def spec_of(rootfs: Path, *command: str, **options: Any) -> Spec:
    image = Image("test", "sha256:0", (str(rootfs),), ImageConfig())
    return compose(image, RunOptions(command=command, **options), os.urandom(16).hex())


def run(spec: Spec, narrator: Narrator | None, out: Path) -> int:
    with (
        out.open("wb") as file,
        Container(spec, narrator=narrator, stdio=(-1, file.fileno(), file.fileno())) as container,
    ):
        return container.wait()


class Listener(JsonExplainer):
    """Keeps the events, and compares each with /proc while the container waits."""

    def __init__(self) -> None:
        super().__init__(3, write=lambda text: None)
        self.events: list[dict[str, Any]] = []
        self.namespaces: dict[str, str] = {}

    def emit(self, event: dict[str, Any]) -> None:
        self.events.append(json.loads(json.dumps(event)))

    def end(self, step: Step, context: Context, nanoseconds: int, calls: list[str]) -> None:
        super().end(step, context, nanoseconds, calls)
        if context.pid:
            for kind in ("mnt", "pid", "uts", "ipc", "net", "cgroup"):
                self.namespaces[kind] = os.readlink(f"/proc/{context.pid}/ns/{kind}")


def test_each_step_is_told_once_in_order(rootfs: Path, place: Path) -> None:
    listener = Listener()
    spec = spec_of(rootfs, "true")
    container = Container(spec, narrator=listener)
    with container:
        container.wait()
    steps = [event for event in listener.events if event["event"] == "step"]
    assert [event["name"] for event in steps] == [step.name for step in container.plan]
    assert [event["number"] for event in steps] == [*range(1, len(container.plan) + 1)]
    assert [event["event"] for event in listener.events][-1] == "running"


def test_what_is_told_is_what_is_there(rootfs: Path, place: Path) -> None:
    listener = Listener()
    with Container(spec_of(rootfs, "sleep", "60"), narrator=listener):
        pass  # all is told once it runs; leaving ends it
    told = {event["name"]: event for event in listener.events if event["event"] == "step"}
    for name, kind in {"mount": "mnt", "pid": "pid", "uts": "uts", "network": "net"}.items():
        event = told[name]
        assert event["before"][f"ns/{kind}"] == os.readlink(f"/proc/self/ns/{kind}")
        assert event["after"][f"ns/{kind}"] == listener.namespaces[kind]
    assert any(
        call.startswith("clone3(CLONE_VM|CLONE_PIDFD|CLONE_NEWNS|")
        for call in told["cgroup"]["calls"]
    )
    assert 'mount(NULL, "/", NULL, MS_REC|MS_PRIVATE, NULL) = 0' in told["private"]["calls"]
    assert told["pivot"]["calls"][0] == 'pivot_root(".", ".") = 0'
    assert told["seccomp"]["before"]["status:Seccomp"] == "0"
    assert told["seccomp"]["after"]["status:Seccomp"] == "2"
    assert told["exec"]["before"]["exe"] != told["exec"]["after"]["exe"]
    assert "/memfd:trampoline" in told["exec"]["after"]["exe"], "it waits until all is told"
    # not ==: if the tests run in a chroot, the kernel puts its path before this one
    assert listener.events[-1]["program"].endswith("/bin/busybox")
    assert "lo" in told["loopback"]["after"]["net/if_inet6"]


def test_a_step_left_out_is_not_told(rootfs: Path, place: Path) -> None:
    listener = Listener()
    container = Container(spec_of(rootfs, "true"), narrator=listener, without=("seccomp",))
    with container:
        container.wait()
    assert "seccomp" not in {event.get("name") for event in listener.events}


@pytest.mark.parametrize("level", [0, 1, 2, 3])
def test_the_container_is_the_same(rootfs: Path, place: Path, level: int) -> None:
    """Watched or not: what the program sees of itself, and what it says."""
    command = (
        "sh",
        "-c",
        # exec: some shells block all signals around their vfork(2)
        "ls /proc/1/fd; env; pwd; exec grep -E '^(U|G|NoNew|Sec|Cap|Sig[BIC]|T)' /proc/1/status",
    )
    said: list[str] = []
    run(spec_of(rootfs, *command, hostname="x"), None, place / "alone")
    run(
        spec_of(rootfs, *command, hostname="x"),
        TextExplainer(level, write=said.append), place / "watched",
    )  # fmt: skip
    assert (place / "alone").read_text() == (place / "watched").read_text() != ""
    assert said and all(line.isprintable() for line in "".join(said).split("\n"))


def failing(rootfs: Path, what: str) -> Spec:
    spec = spec_of(rootfs, "nothing-like-it" if what == "exec" else "true")
    if what == "/x":
        return spec.replace(mounts=(*spec.mounts, Mount("/x", "nosuchfs", "x")))
    if what == "cwd":
        return spec.replace(process=spec.process.replace(cwd="/etc/passwd"))
    return spec


@pytest.mark.parametrize("what", ["/x", "cwd", "exec"])
def test_failure_is_told_where_it_happens(
    rootfs: Path, place: Path, leaves_nothing: Host, what: str
) -> None:
    listener = Listener()
    with pytest.raises(MinicontainerError) as caught:
        run(failing(rootfs, what), listener, place / "out")
    last = listener.events[-1]
    assert (last["event"], last["name"]) == ("failed", what)
    assert caught.value.message == last["error"]
    if what == "/x":
        assert isinstance(caught.value, StepFailed)
        assert last["calls"][-1] == 'mount("x", ".", "nosuchfs", 0, NULL) = -19'  # ENODEV
        assert "error   " in as_text(listener.events)


def as_text(events: list[dict[str, Any]]) -> str:
    said: list[str] = []
    explainer = TextExplainer(3, write=said.append)
    for event in events:
        explainer.emit(event)
    return "".join(said)


def test_host_step_that_fails_is_told(rootfs: Path, place: Path, leaves_nothing: Host) -> None:
    from minicontainer.mountflags import mount

    listener = Listener()
    volume = mount("type=bind,source=/not/there,target=/x")
    with pytest.raises(MinicontainerError):
        run(spec_of(rootfs, "true", mounts=(volume,)), listener, place / "out")
    assert [event["event"] for event in listener.events] == ["plan", "failed"]
    assert listener.events[1]["name"] == "/x"


def test_clone_that_fails_is_told(
    rootfs: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The CLONE steps fail as one: here for a flag that no kernel has."""
    from minicontainer.kernel.namespaces import NewUtsNamespace

    monkeypatch.setattr(NewUtsNamespace, "flag", 1 << 60)
    listener = Listener()
    with pytest.raises(MinicontainerError, match="clone3"):
        run(spec_of(rootfs, "true"), listener, place / "out")
    last = listener.events[-1]
    assert (last["event"], last["side"]) == ("failed", "clone")
    assert last["calls"][0].endswith("= -22")


def test_hostile_image_cannot_move_the_cursor(rootfs: Path, place: Path) -> None:
    """Names an image's author chose: the program, the directory, the environment."""
    evil = "\x1b[2J\r\x07"
    said: list[str] = []
    spec = spec_of(rootfs, "sh", "-c", ": " + evil, workdir="/" + evil, env=(f"A={evil}",))
    run(spec, TextExplainer(3, write=said.append), place / "out")
    assert "\\x1b[2J\\r\\x07" in "".join(said)
    assert all(line.isprintable() for line in "".join(said).split("\n"))


def test_the_narrator_may_stop_the_launch(rootfs: Path, place: Path, leaves_nothing: Host) -> None:
    """Ctrl-C at a pause: nothing is left behind (the fixtures check)."""

    class Impatient(Narrator):
        def end(self, step: Step, context: Context, nanoseconds: int, calls: list[str]) -> None:
            if step.name == "pivot":
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(spec_of(rootfs, "true"), Impatient(), place / "out")


def test_plan_is_known_before_the_first_step(rootfs: Path, place: Path) -> None:
    class Reader(Narrator):
        plan: Plan | None = None

        def planned(self, plan: Plan, context: Context) -> None:
            self.plan = plan

        def begin(self, step: Step, context: Context) -> None:
            assert self.plan and step in self.plan.steps

    reader = Reader()
    run(spec_of(rootfs, "true"), reader, place / "out")
    assert reader.plan
