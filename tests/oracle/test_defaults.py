"""What ``minicontainer run IMAGE`` makes of an image when nothing is said, against podman: the
defaults themselves (namespaces, capabilities, mounts, masks, environment, ids), not how a
config.json is carried out."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from minicontainer.oci_read import parse_config
from minicontainer.plan import Place, plan
from tests.oracle.oracle import (
    CONTAINER_ID,
    HERE,
    OURS,
    PROBE,
    Lab,
    Observation,
    Runtime,
    differences,
    version,
    wrapped,
)
from tests.oracle.test_bundles import CHOICES, COMPARED, layer  # noqa: F401 - layer is a fixture

pytestmark = pytest.mark.requires_root

PODMAN = Runtime("podman", "podman", lambda *_: [])  # its arguments: see theirs

# podman keeps three capabilities fewer than docker
DOCKER_HAS_ALSO = "CAP_MKNOD,CAP_NET_RAW,CAP_AUDIT_WRITE"


def podman(directory: Path) -> list[str]:
    """Podman with a store of its own."""
    return [
        "podman", "--root", f"{directory}/root", "--runroot", f"{directory}/run",
        "--tmpdir", f"{directory}/tmp", "--storage-driver", "vfs",
        "--cgroup-manager", "cgroupfs", "--events-backend", "none",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def lab(layer: Path) -> Iterator[Lab]:  # noqa: F811
    place = Path(tempfile.mkdtemp(prefix="mc-"))  # podman takes no paths of more than 50 letters
    place.chmod(0o711)
    yield Lab(place, layer)
    shutil.rmtree(place)


@pytest.fixture(scope="module")
def theirs(lab: Lab) -> Observation:
    found = version(PODMAN)
    if not found:
        pytest.skip("podman is not installed")
    if f"podman {found}" not in COMPARED:
        pytest.skip(f"podman {found} has not been compared with")
    command = podman(lab.directory / "podman")
    archive = lab.directory / "image.tar"
    subprocess.run(["tar", "-cf", archive, "-C", lab.layer, "."], check=True)
    subprocess.run(wrapped(lab, [*command, "import", "--quiet", str(archive), "oracle"]),
                   check=True, capture_output=True)  # fmt: skip

    def arguments(_bundle: str, pid_file: str, _state: str) -> list[str]:
        return [
            *command[1:], "run", "--rm", "--interactive", "--pull", "never", "--network", "none",
            # It would raise these two, for which not every root has the right.
            "--ulimit", "nofile=1000:1000", "--ulimit", "nproc=1000:1000", "--cgroups", "disabled",
            "--cap-add", DOCKER_HAS_ALSO, "--hostname", "box", "--pidfile", pid_file,
            "--name", CONTAINER_ID, "oracle", "/bin/sh", "-c", PROBE,
        ]  # fmt: skip

    return lab.observe(PODMAN._replace(arguments=arguments), {})


def ours(lab: Lab, *without: str) -> Observation:
    def arguments(_bundle: str, pid_file: str, _state: str) -> list[str]:
        return [str(HERE / "drive.py"), "image", str(lab.layer), CONTAINER_ID, pid_file]

    return lab.observe(OURS._replace(arguments=arguments), {}, without=without)


def unexplained(one: Observation, other: Observation) -> list[str]:
    name = "podman " + version(PODMAN)
    return [
        str(difference)
        for difference in differences(one, other)
        if not any(choice.covers(name, "default", difference) for choice in CHOICES)
    ]


def test_the_same_defaults(lab, theirs):
    found = unexplained(ours(lab), theirs)
    assert not found, "\n".join(found)


def test_every_listed_difference_is_still_there(lab, theirs):
    name = "podman " + version(PODMAN)
    listed = {choice for choice in CHOICES if choice.is_about(name)}
    for difference in differences(ours(lab), theirs):
        listed -= {choice for choice in listed if choice.covers(name, "default", difference)}
    assert not listed


@pytest.mark.parametrize(
    "step",
    ["pid", "ipc", "network", "cgroupns", "capabilities", "seccomp", "masks", "readonly-paths",
     "/dev/shm", "etc", "devices", "session", "descriptors"],
)  # fmt: skip
def test_a_missing_default_is_seen(lab, theirs, step):
    without = ("network", "sysctl") if step == "network" else (step,)
    assert unexplained(ours(lab, *without), theirs) != []


def test_podmans_own_config_is_understood(lab, theirs):
    """What real engines write is more than `runc spec`: nothing in it may be refused."""
    command = podman(lab.directory / "podman")
    create = [
        "create",
        "--pull",
        "never",
        "--network",
        "none",
        "--pids-limit",
        "-1",
        "--name",
        "two",
    ]
    # init writes the config.json; then it may lack the right to raise limits
    words = " ".join([*create, "oracle", "sh"])
    script = f'"$@" {words} && "$@" init two; cp "$0"/vfs-containers/*/userdata/config.json "$0"/..'
    store = lab.directory / "podman/root"
    subprocess.run(wrapped(lab, ["sh", "-c", f'{script}; "$@" rm --force two', store, *command]),
                   capture_output=True)  # fmt: skip
    config = store.parent / "config.json"
    said: list[str] = []
    spec = parse_config(config.read_text(), str(lab.directory), said.append)
    assert said == []
    assert {"seccomp", "masks", "/run/.containerenv"} <= set(plan(spec, Place("id", "/s")).names())
