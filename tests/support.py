"""What many tests need: the command line of this checkout, a forked child, a look at the host.

conftest.py hands these out as fixtures; nothing here knows how minicontainer works inside.
"""

from __future__ import annotations

import contextlib
import importlib.machinery
import importlib.util
import os
import pickle
import subprocess
import sys
import sysconfig
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest

CHECKOUT = Path(__file__).resolve().parent.parent

# How much more patience is due in a guest kernel (tests/guest), a tenth as fast as this machine.
SLOWER = 5 if "GUEST" in os.environ else 1

# Run a command where `/` is shared, as on a laptop with systemd, without touching the host: the
# first unshare cuts this mount namespace off, only then is everything in it made shared.
SHARED_ROOT = (
    "unshare", "--mount", "--propagation", "private",
    "sh", "-c", 'mount --make-rshared / && exec "$@"', "sh",
)  # fmt: skip


def load_tool(name: str) -> ModuleType:
    """Import tools/NAME, which is a script without .py, as a module."""
    loader = importlib.machinery.SourceFileLoader(f"tools_{name}", str(CHECKOUT / "tools" / name))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec
    module = importlib.util.module_from_spec(spec)
    sys.modules[loader.name] = module
    sys.dont_write_bytecode, kept = True, sys.dont_write_bytecode
    try:
        loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = kept
    return module


def write_launcher(target: Path) -> Path:
    """The same launcher that `make install` writes, for this checkout and this environment."""
    base = os.path.realpath(sys._base_executable)
    packages = sysconfig.get_path("purelib")
    target.write_text(load_tool("install").launcher(base, str(CHECKOUT), packages))
    target.chmod(0o755)
    return target


class Result(NamedTuple):
    """How a command ended."""

    status: int
    out: str
    err: str


class Cli:
    """``minicontainer`` of this checkout, with its own data root and run directory.

    ``cli("run", "--rm", image, "true")`` waits and gives a Result; ``start`` does not wait;
    ``argv`` and ``env`` are for whoever wants a terminal (pexpect) or another parent process.
    """

    def __init__(self, launcher: Path, root: Path, run: Path) -> None:
        self.launcher = launcher
        self.root = root
        self.run = run
        self.env = {
            **os.environ,
            "MINICONTAINER_ROOT": str(root),
            "MINICONTAINER_RUN": str(run),
            # one for all tests: a compiled seccomp profile is the same for each of them
            "MINICONTAINER_CACHE": str(launcher.parent / "cache"),
        }
        self.started: list[subprocess.Popen[str]] = []

    def argv(self, *args: str | Path, shared_root: bool = False) -> list[str]:
        """The whole command, for a shared ``/`` if asked."""
        prefix = SHARED_ROOT if shared_root else ()
        return [*prefix, str(self.launcher), *map(str, args)]

    def __call__(
        self,
        *args: str | Path,
        shared_root: bool = False,
        stdin: str = "",
        timeout: float = 60,
        **env: str,
    ) -> Result:
        """Run to the end; keyword arguments in capitals go into the environment."""
        done = subprocess.run(
            self.argv(*args, shared_root=shared_root),
            env={**self.env, **env},
            input=stdin,
            capture_output=True,
            text=True,
            errors="backslashreplace",
            timeout=timeout,
        )
        return Result(done.returncode, done.stdout, done.stderr)

    def start(self, *args: str | Path, shared_root: bool = False) -> subprocess.Popen[str]:
        """Start in the background with pipes; killed at the end of the test if still there."""
        process = subprocess.Popen(
            self.argv(*args, shared_root=shared_root),
            env=self.env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.started.append(process)
        return process

    def close(self) -> None:
        """End what ``start`` started, and let the next command clean up after it."""
        killed = False
        for process in self.started:
            if process.poll() is None:
                process.kill()
                killed = True
            process.communicate()
        if killed:
            sweep = "from minicontainer import state; state.claim('f' * 64, '', print).release()"
            subprocess.run([sys.executable, "-c", sweep], cwd=CHECKOUT, env=self.env, check=True)


class ChildFailed(AssertionError):
    """The child of ``forked`` died without a word, or its last word cannot travel."""


def forked(function: Callable[[], Any], shared_root: bool = False) -> Any:
    """Call ``function`` in a forked child that may unshare and mount as it likes; its value.

    The child has a mount namespace of its own, private to it; with ``shared_root`` everything
    inside is then made shared, as `/` is on most laptops.  What it raises is raised here again.
    """
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read)
        with os.fdopen(write, "wb") as pipe:
            pipe.write(outcome(function, shared_root))
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        data = pipe.read()
    _, status = os.waitpid(pid, 0)
    if not data:
        raise ChildFailed(f"the child ended with {os.waitstatus_to_exitcode(status)}, silently")
    kind, value = pickle.loads(data)
    if kind == "skip":
        pytest.skip(value)
    if kind == "raise":
        error_type, args, state, words = value
        error = error_type.__new__(error_type, *args)
        error.__dict__.update(state)
        error.add_note(f"in the child:\n{words}")
        raise error
    return value


def outcome(function: Callable[[], Any], shared_root: bool) -> bytes:
    """What became of ``function`` in the child, pickled.

    An exception travels in parts: many cannot be made again from their ``args`` alone.
    """
    try:
        own_mounts(shared_root)
        return pickle.dumps(("value", function()))
    except pytest.skip.Exception as skip:
        return pickle.dumps(("skip", skip.msg))
    except BaseException as error:  # pytest.fail is no Exception
        words = "".join(traceback.format_exception(error))
        try:
            return pickle.dumps(("raise", (type(error), error.args, error.__dict__, words)))
        except Exception:
            return pickle.dumps(("raise", (ChildFailed, (words,), {}, words)))


def own_mounts(shared_root: bool) -> None:
    """Unshare the mount namespace, and cut its propagation before anything else happens."""
    from minicontainer.libc import NULL, C, check

    clone_newns, ms_rec, ms_private, ms_shared = 0x00020000, 0x4000, 1 << 18, 1 << 20
    check(C.unshare(clone_newns), "unshare", "CLONE_NEWNS")
    check(C.mount(NULL, b"/", NULL, ms_rec | ms_private, NULL), "mount", "/", "MS_PRIVATE")
    if shared_root:
        check(C.mount(NULL, b"/", NULL, ms_rec | ms_shared, NULL), "mount", "/", "MS_SHARED")


class Snapshot(NamedTuple):
    """What a container could leave on the host."""

    mounts: frozenset[str]
    cgroups: frozenset[str]
    processes: frozenset[str]
    descriptors: frozenset[str]
    files: frozenset[str]


class Host:
    """Compares the host now with the host as it was when this was made.

    ``places`` are the directories of the containers under test (data roots, what holds ``run``): a
    process counts as left behind if its environment, command or mounts speak of one of them.
    """

    def __init__(self, *places: Path) -> None:
        self.places = places
        self.before = self.look()

    def look(self) -> Snapshot:
        """The host as it is."""
        return Snapshot(mounts(), cgroups(), self._processes(), descriptors(), self._files())

    def leftovers(self, patience: float = 3 * SLOWER) -> list[str]:
        """What is there now and was not before, as lines; what is gone and was there, too.

        The kernel takes namespaces down after the last process has been reaped, so a leftover
        counts if it is there all the time for ``patience`` seconds.
        """
        end = time.monotonic() + patience
        lines = self._difference()
        while lines and time.monotonic() < end:
            time.sleep(0.05)
            lines &= self._difference()
        return sorted(lines)

    def _difference(self) -> set[str]:
        now = self.look()
        lines = set()
        for kind, was, is_ in zip(Snapshot._fields, self.before, now, strict=True):
            lines |= {f"{kind} left: {line}" for line in is_ - was}
            if kind in ("mounts", "descriptors"):
                lines |= {f"{kind} lost: {line}" for line in was - is_}
        return lines

    def _processes(self) -> frozenset[str]:
        marks = [os.fsencode(place) for place in self.places]
        found = set()
        for pid in filter(str.isdigit, os.listdir("/proc")):
            if int(pid) == os.getpid():
                continue
            told = [read_proc(pid, name) for name in ("environ", "cmdline", "mountinfo")]
            if any(mark in text for mark in marks for text in told):
                command = told[1].replace(b"\0", b" ").decode(errors="replace").strip()
                found.add(f"pid {pid}: {command}")
        return frozenset(found)

    def _files(self) -> frozenset[str]:
        """What lies in the run directory and among the containers of the data root."""
        found: set[str] = set()
        for place in self.places:
            for folder in (place / "run", place / "run" / "names", place / "containers"):
                if folder.is_dir():
                    found.update(str(folder / name) for name in os.listdir(folder))
        # these two the first container makes, and they stay
        return frozenset(name for name in found if not name.endswith(("/run/lock", "/run/names")))


def read_proc(pid: str, name: str) -> bytes:
    """A file of a process; nothing if the process is gone or not ours to read."""
    try:
        return Path("/proc", pid, name).read_bytes()
    except OSError:
        return b""


def inheritance() -> dict[str, str]:
    """What children of this process inherit from it: ids, signals, umask, directory."""
    names = ("Umask:", "Uid:", "Gid:", "Groups:", "SigBlk:", "SigIgn:", "CapInh:", "CapBnd:")
    lines = [line.split(None, 1) for line in Path("/proc/self/status").read_text().splitlines()]
    found = {line[0]: line[-1] for line in lines if line and line[0] in names}
    # 32 and 33 are the C library's own: it starts to catch them with the first thread (nptl(7))
    found["SigIgn:"] = f"{int(found['SigIgn:'], 16) & ~(3 << 31):016x}"
    return {**found, "cwd": os.getcwd()}


def mounts() -> frozenset[str]:
    """The host's mounts, without the ids that change when one is made again."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return frozenset(" ".join(line.split()[2:]) for line in lines)


def cgroups() -> frozenset[str]:
    """The empty directories below any cgroup called minicontainer, wherever cgroup2 is mounted.

    One with a process in it may be another session's; if it is ours, the process is found.
    """
    found = set()
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields, _, kind = line.partition(" - ")
        if kind.startswith("cgroup2 "):
            # os.walk, unlike glob, does not mind what is removed while it looks
            for folder, _, files in os.walk(fields.split()[4]):
                if "/minicontainer" in folder and "cgroup.events" in files:
                    with contextlib.suppress(OSError):
                        if "populated 0" in Path(folder, "cgroup.events").read_text():
                            found.add(folder)
    return frozenset(found)


def descriptors() -> frozenset[str]:
    """The open descriptors of this very process, with what they point to."""
    found = set()
    for number in os.listdir("/proc/self/fd"):
        try:
            found.add(f"{number} -> {os.readlink(f'/proc/self/fd/{number}')}")
        except FileNotFoundError:  # the descriptor that listed the directory
            continue
    return frozenset(found)
