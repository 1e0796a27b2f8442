"""The same config.json under minicontainer, runc and crun: the same container, seen from inside
and from outside; where it is another one, docs/oracle-differences.md says why."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from minicontainer.errors import UsageError
from minicontainer.oci_read import parse_config
from minicontainer.plan import Place, plan
from tests.oracle.oracle import (
    CRUN,
    DIFFERENCES,
    OURS,
    RUNC,
    Difference,
    Lab,
    Observation,
    Runtime,
    choices,
    differences,
    version,
)
from tests.oracle.variants import ALONE, VARIANTS, Variant

pytestmark = pytest.mark.requires_root

ORACLES = (RUNC, CRUN)
CHOICES = tuple(choices(DIFFERENCES.read_text()))
COMPARED = re.findall(r"`(\w+ [\d.]+)`", DIFFERENCES.read_text().split("|")[0])
PAIRS = [(o, v) for o in ORACLES for v in VARIANTS if o.name in v.oracles]
PAIR = {
    "argnames": ("oracle", "variant"),
    "argvalues": PAIRS,
    "indirect": ["oracle"],
    "ids": [f"{oracle.name}-{variant.name}" for oracle, variant in PAIRS],
}
BY_NAME = {variant.name: variant for variant in (*VARIANTS, *ALONE)}

# These shall change nothing: the container is the base's.
LIKE_THE_BASE = {
    "device-rules-none",
    "base", "unknown-properties", "annotations", "ignored-signals", "shared-root",
    "rootfs-private", "rootfs-rprivate",
}  # fmt: skip


class Comparison:
    """Observations, each made once: every test asks for the ones it compares."""

    def __init__(self, lab: Lab, neighbour: str) -> None:
        self.lab = lab
        self.neighbour = neighbour
        self.seen: dict[tuple[Any, ...], Observation] = {}

    def observe(
        self, runtime: Runtime, variant: Variant, without: tuple[str, ...] = ()
    ) -> Observation:
        key = (runtime.name, variant.name, without)
        if key not in self.seen:
            config = replaced(variant.config(), "JOIN", self.neighbour)
            self.seen[key] = self.lab.observe(runtime, config, without=without, **variant.how)
        return self.seen[key]

    def unexplained(self, ours: Observation, oracle: Runtime, variant: Variant) -> list[Difference]:
        """Where ``ours`` differs from the oracle's, and no choice says why."""
        full_name = f"{oracle.name} {version(oracle)}"
        return [
            difference
            for difference in differences(ours, self.observe(oracle, variant))
            if not any(choice.covers(full_name, variant.name, difference) for choice in CHOICES)
        ]


def replaced(value: Any, word: str, by: str) -> Any:
    """The value with a word replaced in all its strings."""
    if isinstance(value, str):
        return value.replace(word, by)
    if isinstance(value, dict):
        return {key: replaced(member, word, by) for key, member in value.items()}
    return [replaced(member, word, by) for member in value] if isinstance(value, list) else value


@pytest.fixture(scope="module")
def layer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The files of the image: Alpine's, or else this machine's static busybox."""
    place = Path(tempfile.mkdtemp(prefix="minicontainer-oracle-"))
    place.chmod(0o711)  # root in a user namespace is nobody here, and has to get in
    root = place / "layer"
    root.mkdir()
    root.chmod(0o755)
    archives = Path(os.environ.get("MINICONTAINER_IMAGES") or "/nowhere")
    found = sorted(archives.glob("alpine-minirootfs-*.tar.gz"))
    if found:
        subprocess.run(["tar", "-xzf", found[-1], "-C", root], check=True)
    else:
        busybox_root(root)
    yield root
    shutil.rmtree(place)


def busybox_root(root: Path) -> None:
    program = shutil.which("busybox")
    if not program:
        pytest.skip("busybox is not installed")
    for name in "bin sbin usr/bin usr/sbin etc tmp proc sys dev mnt srv media var run root".split():
        (root / name).mkdir(parents=True)
    (root / "tmp").chmod(0o1777)
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (root / "var/run").symlink_to("/run")
    shutil.copy(program, root / "bin/busybox")
    subprocess.run(["chroot", root, "/bin/busybox", "--install", "-s"], check=True)


@pytest.fixture(scope="module")
def comparison(layer: Path) -> Iterator[Comparison]:
    """A lab, and a neighbour whose namespaces can be joined."""
    lab = Lab(layer.parent, layer)
    for name, text in (("odd", "\0odd"), ("script", "#!/no/such\n")):
        (lab.bundle / name).write_text(text)
        (lab.bundle / name).chmod(0o755)
    neighbour = subprocess.Popen(
        ["unshare", "--net", "--ipc", "--uts", "--pid", "--fork", "--kill-child",
         "sh", "-c", "echo; exec cat"],
        stdin=subprocess.PIPE,  # ends with us, however we end
        stdout=subprocess.PIPE,
    )  # fmt: skip
    assert neighbour.stdout
    neighbour.stdout.readline()
    lab.neighbours["the neighbour's"] = neighbour.pid
    yield Comparison(lab, f"/proc/{neighbour.pid}/ns")
    neighbour.kill()
    neighbour.communicate()


@pytest.fixture
def oracle(request: pytest.FixtureRequest) -> Runtime:
    """A runtime to compare with, of a version that we have compared with."""
    runtime: Runtime = request.param
    found = version(runtime)
    if not found:
        pytest.skip(f"{runtime.name} is not installed")
    if f"{runtime.name} {found}" not in COMPARED:
        pytest.skip(f"{runtime.name} {found} has not been compared with")
    return runtime


@pytest.mark.parametrize(**PAIR)
def test_the_same_container(comparison, oracle, variant):
    ours = comparison.observe(OURS, variant)
    found = comparison.unexplained(ours, oracle, variant)
    assert not found, "\n".join([*map(str, found), ours.get("why", "")])


@pytest.mark.parametrize(**PAIR)
def test_the_comparison_sees_the_variant(comparison, oracle, variant):
    """The mutant of the test above: a runtime that overlooks what the config.json asks for."""
    overlooking = comparison.observe(OURS, BY_NAME["base"])
    theirs, ours = (comparison.observe(runtime, variant) for runtime in (oracle, OURS))
    if "why" in theirs and "why" not in ours:
        return  # the oracle fails where we do not (that is listed): it cannot be compared with
    seen = comparison.unexplained(overlooking, oracle, variant) or (
        differences(overlooking, theirs) != differences(ours, theirs)
    )
    assert bool(seen) == (variant.name not in LIKE_THE_BASE)


@pytest.mark.parametrize("oracle", ORACLES, indirect=True, ids=lambda oracle: oracle.name)
def test_every_listed_difference_is_still_there(comparison, oracle):
    full_name = f"{oracle.name} {version(oracle)}"
    listed = {c for c in CHOICES if c.is_about(full_name)}
    listed -= {choice for choice in listed if choice.reason.startswith("sometimes: ")}
    for variant in VARIANTS:
        if oracle.name not in variant.oracles:
            continue
        theirs = comparison.observe(oracle, variant)
        for difference in differences(comparison.observe(OURS, variant), theirs):
            listed -= {c for c in listed if c.covers(full_name, variant.name, difference)}
    assert not listed


# ---- each step of the plan, left out, is missed

# step -> a container in which it does something.  Never "mount", "rootfs" or "exec": without them
# there is no container, or it is the host.
SEEN_IN = {
    "seccomp": "seccomp",
    "/mnt/bind-ro": "binds",
    "cgroup": "base",
    "device-filter": "base",
    "time": "time-namespace",
    "join": "joined",
    "pid": "base",
    "uts": "base",
    "ipc": "base",
    "network": "base",
    "cgroupns": "base",
    "user": "user-namespace-user",
    "oom-score": "oom-score",
    "private": "shared-root",
    "/proc": "other-program",
    "/dev": "base",
    "devices": "base",
    "/dev/pts": "base",
    "/dev/shm": "base",
    "/dev/mqueue": "base",
    "/sys": "base",
    "/sys/fs/cgroup": "base",
    "sysctl": "sysctl",
    "loopback": "base",
    "pivot": "other-program",
    "root-propagation": "rootfs-rshared",
    "hostname": "base",
    "session": "base",
    "console": "terminal",
    "masks": "base",
    "readonly-paths": "base",
    "keyring": "no-masks",
    "cwd": "cwd",
    "readonly-tmpfs": "readonly-dev",
    "readonly-root": "readonly-root",
    "descriptors": "base",
    "rlimits": "limits",
    "capabilities": "base",
    "user-id": "user",
    "no-new-privileges": "no-new-privileges",
    "signals": "ignored-signals",
}
# What neither /proc nor the program can tell; other tests have to.
UNSEEN = {
    "seal": "the sealed trampoline is gone when the program runs",
    "undumpable": "ends with the last step, execve(2)",
    "death-signal": "the kernel shows it to the process alone, by prctl(2)",
    "accounting": "this machine may have no controllers; tests/kernel/test_cgroup_v2.py does it",
    "null": "the programs here have pipes or a terminal; tests/e2e/test_attacks.py does it",
}
# Of the oracles, only crun does it: with runc alone nobody misses it.
CRUNS = {"root-propagation"}
# Left out together: the one would do to the host what it was to do in the other.
TOGETHER = {"uts": ("uts", "hostname"), "join": ("join", "hostname")}


@pytest.mark.parametrize(("step", "name"), SEEN_IN.items())
def test_a_missing_step_is_seen(comparison, step, name):
    variant = BY_NAME[name]
    mutant = comparison.observe(OURS, variant, TOGETHER.get(step, (step,)))
    whole = comparison.observe(OURS, variant)
    assert differences(mutant, whole)
    able = (CRUN,) if step in CRUNS else ORACLES
    oracles = [o for o in able if f"{o.name} {version(o)}" in COMPARED]
    if variant not in ALONE and oracles:
        assert any(comparison.unexplained(mutant, oracle, variant) for oracle in oracles)


def test_a_step_that_is_there_is_not_missed(comparison):
    """The mutants above are seen because a step is missing, not because nothing is ever equal."""
    first = comparison.observe(OURS, BY_NAME["base"])
    assert comparison.lab.observe(OURS, BY_NAME["base"].config()) == first


def test_the_clocks_of_a_time_namespace(comparison):
    """runc 1.1 and crun 1.8 have none to compare with."""
    ours = comparison.observe(OURS, BY_NAME["time-namespace"])
    assert differences(ours, comparison.observe(OURS, BY_NAME["base"])) == [
        Difference("files.timens_offsets", "monotonic 0 500; boottime 86400 0",
                   "monotonic 0 0; boottime 0 0"),
        Difference("inside.ns.time", "fresh", "the host's"),
        Difference("outside.ns.time", "fresh", "the host's"),
    ]  # fmt: skip


def test_every_step_has_its_mutant():
    names: set[str] = set()
    for variant in (*VARIANTS, *ALONE):
        config = replaced(variant.config(), "JOIN", "/n")
        try:
            spec = parse_config(json.dumps(config), "/b")
            names.update(plan(spec, Place("id", "/s")).names())
        except UsageError:
            continue  # the variants that are to be refused
    mounts = {name for name in names if name.startswith("/")}
    assert names - mounts - {"mount", "rootfs", "exec"} == {
        name for name in {*SEEN_IN, *UNSEEN} if not name.startswith("/")
    }
