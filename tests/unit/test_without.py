"""--without: walls may be left out, what keeps our own hands off the host may not."""

from __future__ import annotations

import pytest

from minicontainer.errors import UsageError
from minicontainer.plan import Place, plan
from minicontainer.spec import IdMap, Linux, Mount, Namespace, Process, Root, Spec
from minicontainer.step import Plan
from minicontainer.without import check_without, dangers

PLACE = Place("id", "/scratch")
KINDS = ("pid", "network", "ipc", "uts", "mount", "cgroup")


def make(*kinds: str, **fields: object) -> Plan:
    """A docker-like plan, with these namespaces."""
    linux = Linux(
        namespaces=tuple(Namespace(kind) for kind in kinds or KINDS),
        cgroups_path="/minicontainer/id",
        sysctl=(("net.ipv4.ip_forward", "1"), ("kernel.shm_rmid_forced", "1")),
        uid_mappings=(IdMap(0, 1000, 10),) if "user" in kinds else (),
        gid_mappings=(IdMap(0, 1000, 10),) if "user" in kinds else (),
    )
    settings = {"root": Root(layers=("/layer",)), "hostname": "box", **fields}
    return plan(Spec(process=Process(("sh",)), linux=linux, **settings), PLACE)


def test_a_whole_plan_is_no_danger() -> None:
    assert dangers(make()) == []


@pytest.mark.parametrize(
    "names",
    [("pid",), ("seccomp",), ("pid", "seccomp"), ("masks", "readonly-paths"), ("capabilities",),
     ("cgroup",), ("cgroupns",), ("keyring",), ("session",), ("uts", "hostname"), ("undumpable",),
     ("network", "sysctl"), ("ipc", "sysctl"), ("/proc", "sysctl"), ("/dev",), ("cwd",), ("seal",)],
)  # fmt: skip
def test_walls_may_be_left_out(names: tuple[str, ...]) -> None:
    check_without(make(), names)


@pytest.mark.parametrize(
    ("names", "what"),
    [
        (("mount",), "its mounts would be the host's"),
        (("private",), "would appear on the host"),
        (("pivot",), "host's own files"),
        (("uts",), "rename the host"),
        (("network",), "network switches"),
        (("ipc",), "IPC switches"),
        (("pid", "cgroup"), "run on"),
        (("seccomp", "mount"), "its mounts would be the host's"),
    ],
)
def test_the_host_is_kept_whole(names: tuple[str, ...], what: str) -> None:
    with pytest.raises(UsageError, match=what) as caught:
        check_without(make(), names)
    assert "--i-know" in caught.value.hint
    check_without(make(), names, i_know=True)


@pytest.mark.parametrize("name", ["exec", "rootfs"])
def test_what_cannot_work_is_refused_to_everyone(name: str) -> None:
    for i_know in (False, True):
        with pytest.raises(UsageError, match=f"--without {name}"):
            check_without(make(), (name,), i_know)


def test_a_word_that_is_no_step() -> None:
    with pytest.raises(UsageError, match="no step is called 'nothing'"):
        check_without(make(), ("nothing",))


def test_user_namespace_and_its_layers() -> None:
    with pytest.raises(UsageError, match="owners are mapped"):
        check_without(make(*KINDS, "user"), ("user",), i_know=True)


def test_joined_namespaces_count() -> None:
    kinds = (
        *map(Namespace, ("mount", "pid", "network", "ipc")),
        Namespace("uts", "/proc/1/ns/uts"),
    )
    linux = Linux(namespaces=kinds, cgroups_path="/minicontainer/id")
    joined = plan(Spec(Process(("sh",)), Root(layers=("/l",)), hostname="x", linux=linux), PLACE)
    assert dangers(joined) == []
    with pytest.raises(UsageError, match="rename the host"):
        check_without(joined, ("join",))
    check_without(joined, ("join", "hostname"))


def test_a_bundle_keeps_its_own_dev() -> None:
    bundle = make(root=Root(path="/bundle"))
    with pytest.raises(UsageError, match="bundle on disk"):
        check_without(bundle, ("/dev",))
    check_without(bundle, ("/dev", "devices"))


def test_what_was_so_before_is_no_news() -> None:
    """`--uts host` was asked for: leaving something else out is not to blame for it."""
    shared = make(
        "pid", "network", "ipc", "mount", "cgroup", hostname="", mounts=(Mount("/dev", "tmpfs"),)
    )
    check_without(shared, ("seccomp",))
