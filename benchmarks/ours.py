"""minicontainer itself as a contender: cold as a command, warm as a library, and what it weighs."""

from __future__ import annotations

import importlib.util
import os
import runpy
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from bundle import CHECKOUT
from harness import Contender, Worker, last_words
from peers import Ground, Unavailable


@dataclass(frozen=True)
class Footprint:
    """What the command line's process weighs while its container sleeps."""

    peak_mb: float  # VmHWM of proc_pid_status(5)
    wakeups: int  # voluntary context switches in a second in which nothing happens


@dataclass(frozen=True)
class Import:
    """One line of ``python -X importtime``."""

    module: str
    own_us: int
    with_children_us: int


def seccomp_filter(ground: Ground) -> Path:
    """Our default filter as a file, for whoever wants one handed over.  Raises Unavailable."""
    code = (
        "import sys; from minicontainer.kernel.seccomp_cache import program_for; "
        "from minicontainer.spec import DEFAULT_CAPABILITIES as names; "
        "sys.stdout.buffer.write(program_for('default', names)[0])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, check=False
    )
    if done.returncode != 0:
        raise Unavailable(last_words(done.stderr.decode(errors="replace")))
    file = ground.scratch / "seccomp.bpf"
    file.write_bytes(done.stdout)
    return file


# ------------------------------------------------------------------------------------- warm


def warm(ground: Ground, name: str, heap_mb: int = 0) -> Worker:
    """A Python process that makes containers through the API, perhaps with a big heap."""
    argv = [sys.executable, str(CHECKOUT / "benchmarks" / "warm.py")]
    argv += [str(ground.rootfs), ground.cgroup, str(heap_mb)]
    return Worker(name, argv, environment(ground))


# ------------------------------------------------------------------------------------- cold


def interpreter() -> str:
    """The file of the Python that runs us, behind any virtual environment."""
    return os.path.realpath(getattr(sys, "_base_executable", sys.executable))


def bare_interpreter() -> Contender:
    """Python that does nothing: what no program in Python can go below."""
    argv = [interpreter(), "-IS", "-c", "pass"]
    return Contender("python -IS -c pass", argv, note="the bare interpreter")


def launcher(ground: Ground) -> Path:
    """The command as ``make install`` writes it, in scratch.  Raises Unavailable."""
    backend = importlib.util.find_spec("_cffi_backend")
    if backend is None or backend.origin is None:
        raise Unavailable(f"{sys.executable} lacks cffi: use make bench, or .venv/bin/python")
    program = ground.scratch / "minicontainer"
    if not program.exists():
        write = runpy.run_path(str(CHECKOUT / "tools" / "install"))["launcher"]
        program.write_text(write(interpreter(), str(CHECKOUT), os.path.dirname(backend.origin)))
        program.chmod(0o755)
    return program


def run_words(ground: Ground) -> list[str]:
    """What is typed before the program's name."""
    return ["run", "--rm", "--network", "none", "--cgroup-parent", ground.cgroup, "alpine"]


def environment(ground: Ground) -> dict[str, str]:
    """An image store and a cache of its own; the archive under a name that any version has."""
    images = ground.directory("images")
    if not (images / "alpine.tar.gz").exists():
        (images / "alpine.tar.gz").symlink_to(ground.archive)
    return {
        "MINICONTAINER_IMAGES": str(images),
        "MINICONTAINER_ROOT": str(ground.directory("minicontainer-root")),
        "MINICONTAINER_CACHE": str(ground.directory("minicontainer-cache")),
    }


def cold(ground: Ground) -> Contender:
    """``minicontainer run --rm --network none alpine true``, with everything on."""
    return Contender(
        "minicontainer run", [str(launcher(ground)), *run_words(ground), "true"],
        env=environment(ground), note="all of it: overlay, cgroup, masks, seccomp, sealed exec",
    )  # fmt: skip


def imports(ground: Ground) -> list[Import]:
    """Every module that one cold run imports.  Raises Unavailable."""
    argv = [interpreter(), "-X", "importtime", "-IS", str(launcher(ground))]
    argv += [*run_words(ground), "true"]
    done = subprocess.run(
        argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        env={**os.environ, **environment(ground)},
    )  # fmt: skip
    lines = parse_importtime(done.stderr)
    if done.returncode != 0 or not lines:
        raise Unavailable(last_words(done.stderr) or "no output")
    return lines


def parse_importtime(log: str) -> list[Import]:
    """The lines "import time: OWN | CUMULATIVE | MODULE", in their order; no others."""
    found = []
    for line in log.splitlines():
        own, bar, rest = line.removeprefix("import time:").partition("|")
        with_children, second_bar, module = rest.partition("|")
        if bar and second_bar and own.strip().isdigit() and with_children.strip().isdigit():
            found.append(Import(module.strip(), int(own), int(with_children)))
    return found


def footprint(ground: Ground) -> Footprint:
    """Look at the command's process while its container sleeps.  Raises Unavailable.

    Not getrusage(2)'s ru_maxrss: a process inherits that high-water mark from whoever spawned it,
    so it would tell the harness's size.  VmHWM belongs to the address space and starts at exec.
    """
    runner = subprocess.Popen(
        [launcher(ground), *run_words(ground), "sleep", "2"], stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        env={**os.environ, **environment(ground)},
    )  # fmt: skip
    assert runner.stderr
    time.sleep(0.5)  # by far enough to be asleep
    before = status(runner.pid)
    time.sleep(1)
    after = status(runner.pid)
    words = runner.communicate()[1]
    if runner.returncode != 0 or "VmHWM" not in after:
        raise Unavailable(last_words(words) or "the container did not sleep")
    switches = "voluntary_ctxt_switches"
    return Footprint(after["VmHWM"] / 1024, after[switches] - before[switches])


def status(pid: int) -> dict[str, int]:
    """The lines of /proc/PID/status that begin with a number (sizes are in kB)."""
    with open(f"/proc/{pid}/status") as file:
        pairs = (line.partition(":") for line in file)
        words = {key: value.split() for key, _, value in pairs}
    return {key: int(value[0]) for key, value in words.items() if value and value[0].isdigit()}
