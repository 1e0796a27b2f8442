"""The runtimes we are measured against, each given docker's default container to make.

Every function here takes a ``Ground`` (where things lie) and returns a ``Contender``, or raises
``Unavailable`` with the reason; "not measured" is an answer, a wrong number is not.

All of them make the same container as far as they can: six namespaces, docker's fourteen
capabilities, docker's seccomp profile, masked and read-only paths, an empty network.  What one
cannot do is in its note.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from bundle import CHECKOUT, PROFILE, oci_config, oci_seccomp
from harness import Contender, Worker, last_words

from minicontainer.spec import DEFAULT_CAPABILITIES

TRAMPOLINE = CHECKOUT / "minicontainer" / "trampoline"


class Unavailable(Exception):
    """This contender cannot run here; the text says why."""


@dataclass(frozen=True)
class Ground:
    """Where the benchmark stands: made by run.py, gone when it ends."""

    scratch: Path  # ours alone; on tmpfs
    rootfs: Path  # the real Alpine, extracted
    archive: Path  # the same, as it was downloaded
    cgroup: str  # our cgroup, as a path below the cgroup2 mount: "/minibench-123"

    def directory(self, name: str) -> Path:
        """A directory of this name in scratch."""
        path = self.scratch / name
        path.mkdir(parents=True, exist_ok=True)
        return path


def find(program: str) -> str:
    """The program's path.  Raises Unavailable."""
    path = shutil.which(program)
    if path is None:
        raise Unavailable(f"{program} is not installed")
    return path


def version(program: str) -> str:
    """The first line of ``program --version``."""
    out = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout
    return (out.splitlines() or ["?"])[0]


# --------------------------------------------------------------------------------- the floor


def floor_command(ground: Ground, filter_file: Path | None) -> list[str]:
    """floor.c, compiled, with its options.  Raises Unavailable."""
    if filter_file is None:
        raise Unavailable("no seccomp filter to load")
    if not TRAMPOLINE.exists():
        raise Unavailable(f"{TRAMPOLINE.name} is not built: make install")
    program = ground.scratch / "floor"
    if not program.exists():
        source = Path(__file__).with_name("floor.c")
        done = subprocess.run(
            [find("cc"), "-O2", "-o", program, source], capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise Unavailable("cc: " + last_words(done.stderr))
    return [
        str(program), "--rootfs", str(ground.rootfs), "--scratch", str(ground.directory("floors")),
        "--cgroup", f"/sys/fs/cgroup{ground.cgroup}", "--seccomp", str(filter_file),
        "--trampoline", str(TRAMPOLINE),
    ]  # fmt: skip


def floor(ground: Ground, filter_file: Path | None) -> Contender:
    """The bare calls, as a program of their own."""
    argv = [*floor_command(ground, filter_file), "--", "/bin/true"]
    return Contender("floor", argv, note="the bare system calls, in C")


def warm_floor(ground: Ground, name: str, filter_file: Path | None) -> Worker:
    """The bare calls again and again from one process."""
    argv = [*floor_command(ground, filter_file), "--serve", "--", "/bin/true"]
    return Worker(name, argv)


# ------------------------------------------------------------------------------ OCI runtimes


def make_bundle(ground: Ground, name: str) -> Path:
    """An OCI bundle directory for one runtime.  Raises Unavailable without a seccomp profile."""
    if not PROFILE.exists():
        raise Unavailable(f"{PROFILE} is missing (it comes with podman or containers-common)")
    bundle = ground.directory(f"{name}-bundle")
    seccomp = oci_seccomp(json.loads(PROFILE.read_text()), os.uname().machine)
    config = oci_config(ground.rootfs, f"{ground.cgroup}/{name}", seccomp)
    (bundle / "config.json").write_text(json.dumps(config))
    return bundle


def oci_runtime(ground: Ground, name: str) -> Contender:
    """``NAME run`` of the bundle, for runc and crun, which share their command line."""
    program, bundle = find(name), make_bundle(ground, name)
    state = ground.directory(f"{name}-state")
    argv = [program, "--root", str(state), "run", "--bundle", str(bundle), "{id}"]
    return Contender(f"{name} run", argv, note=f"{version(program)}; a plain root, no overlay")


def crun(ground: Ground) -> Contender:
    """crun, the runtime in C."""
    return oci_runtime(ground, "crun")


def runc(ground: Ground) -> Contender:
    """runc, docker's own."""
    return oci_runtime(ground, "runc")


# ------------------------------------------------------------------------------------ others


def bubblewrap(ground: Ground, filter_file: Path | None) -> Contender:
    """bwrap: the smallest thing that still deserves the name of a sandbox."""
    program = find("bwrap")
    argv = [program, "--unshare-all", "--hostname", "bench", "--bind", str(ground.rootfs), "/",
            "--proc", "/proc", "--dev", "/dev", "--mqueue", "/dev/mqueue", "--chdir", "/",
            "--clearenv", "--cap-drop", "ALL"]  # fmt: skip
    for capability in DEFAULT_CAPABILITIES:
        argv += ["--cap-add", capability]
    contender = Contender("bubblewrap", argv, note=version(program) + "; no overlay, masks, cgroup")
    if filter_file is None:
        contender.note += ", seccomp"
    else:
        contender.files[9] = str(filter_file)
        argv += ["--seccomp", "9"]
    argv += ["/bin/true"]
    return contender


def podman(ground: Ground) -> Contender:
    """podman run, with its own store of the same image, in scratch."""
    program = find("podman")
    base = [
        program, "--root", str(ground.directory("podman-store")),
        "--runroot", str(ground.directory("podman-run")),
        "--tmpdir", str(ground.directory("podman-tmp")),
        "--network-config-dir", str(ground.directory("podman-networks")),
        "--cgroup-manager", "cgroupfs", "--events-backend", "none", "--storage-driver", "overlay",
    ]  # fmt: skip
    env = {"TMPDIR": str(ground.directory("podman-tmp"))}
    done = subprocess.run(
        [*base, "import", "--quiet", str(ground.archive), "bench-alpine"],
        capture_output=True, text=True, check=False, timeout=120, env={**os.environ, **env},
    )  # fmt: skip
    if done.returncode != 0:
        raise Unavailable("podman import: " + last_words(done.stderr))
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    run = [*base, "run", "--rm", "--network", "none",
           "--ulimit", f"nofile={hard}:{hard}", "--ulimit", "nproc=1024:1024"]  # fmt: skip
    image = ["bench-alpine", "/bin/true"]
    parent = ["--cgroup-parent", f"{ground.cgroup}/podman"]
    full = Contender("podman run", [*run, *parent, *image], env, every=5, note=version(program))
    why_not = full.probe()
    if not why_not:
        return full
    # crun raises RLIMIT_MEMLOCK for podman's device filter: that needs CAP_SYS_RESOURCE.
    bare = Contender("podman run", [*run, "--cgroups", "disabled", *image], env, every=5)
    bare.note = f"{version(program)}; without a cgroup ({why_not})"
    return bare
