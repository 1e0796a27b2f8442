"""Run one bundle under several runtimes and say how the containers differ.

An Observation is a flat table, ``{"status.CapEff": "...", "mount./proc.options": "..."}``: what the
program saw of itself (probe.sh), what /proc shows of it from outside while it runs, and how it
ended.  Numbers that differ from run to run (inodes, pids, device numbers) are replaced by what
they mean: a namespace is "fresh" or "the host's".
"""

from __future__ import annotations

import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

from minicontainer.kernel import cgroup
from tests.support import CHECKOUT

HERE = Path(__file__).parent
DIFFERENCES = CHECKOUT / "docs" / "oracle-differences.md"
# Two runs of these tests at the same time must not meet.
CONTAINER_ID = f"oracle-{os.getpid()}"
CGROUP = f"/minicontainer-{CONTAINER_ID}"
PROBE = (HERE / "probe.sh").read_text().replace("CONTAINER_ID", CONTAINER_ID)
ABSENT = "(absent)"
NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts")

Observation = dict[str, str]


class Runtime(NamedTuple):
    """A program that runs bundles: ``arguments(bundle, pid file, state)`` come after its name."""

    name: str
    program: str
    arguments: Callable[[str, str, str], list[str]]


def _ours(bundle: str, pid_file: str, _state: str) -> list[str]:
    return [str(HERE / "drive.py"), "bundle", bundle, CONTAINER_ID, pid_file]


def _theirs(bundle: str, pid_file: str, state: str) -> list[str]:
    return [
        "--root", state, "run", "--bundle", bundle, "--pid-file", pid_file, CONTAINER_ID
    ]  # fmt: skip


OURS = Runtime("minicontainer", sys.executable, _ours)
RUNC = Runtime("runc", "runc", _theirs)
CRUN = Runtime("crun", "crun", _theirs)


def version(runtime: Runtime) -> str:
    """ "1.1.5" as the program says it; "" if it is not installed."""
    if not shutil.which(runtime.program):
        return ""
    said = subprocess.run([runtime.program, "--version"], capture_output=True, text=True).stdout
    found = re.search(r"\d+\.\d+(\.\d+)?", said)
    return found.group() if found else "unknown"


class Lab:
    """A directory with the image's files in it, where bundles are made and run."""

    def __init__(self, directory: Path, layer: Path) -> None:
        self.directory = directory
        self.layer = layer
        self.runs = 0
        self.neighbours: dict[str, int] = {}  # processes whose namespaces may be joined
        self.bundle = directory / "bundle"
        for name in ("rootfs", "scratch", "source"):
            (self.bundle / name).mkdir(parents=True)

    def observe(
        self,
        runtime: Runtime,
        config: dict[str, Any],
        *,
        without: tuple[str, ...] = (),
        finish: str = "exit 0",
        shared: bool = False,
        ignore_signals: bool = False,
        terminal: bool = False,
    ) -> Observation:
        """Run ``config`` under ``runtime`` and look.  ``finish`` is how it is to end: "exit N" from
        inside, "container N" or "runtime N" by signal N from outside."""
        (self.bundle / "config.json").write_text(json.dumps(config))
        remove_cgroup()  # a runtime that failed may have left it
        self.runs += 1
        pid_file = self.directory / f"pid{self.runs}"
        state = self.directory / f"state{self.runs}"
        arguments = runtime.arguments(str(self.bundle), str(pid_file), str(state))
        command = wrapped(self, [runtime.program, *arguments, *without], shared)
        leak = os.open("/etc", os.O_RDONLY)  # a descriptor that leads to the host
        with Process(command, self._environment(), terminal, ignore_signals, leak) as process:
            heard = process.read_until("@end")
            if "@end" not in heard:
                process.close_input()
                status = process.wait()
                # It never said a word, or it is another program and said all it had to say.
                return {"exit": str(status), "said": heard, "why": process.errors}
            pid = pid_in(pid_file)
            known = {"the host's": process.pid, **self.neighbours}
            seen = {"started": "yes", **inside(heard, known), **outside(pid, known)}
            how, number = finish.split()
            if how == "exit":
                process.write(number + "\n")
            else:
                os.kill(pid if how == "container" else process.pid, int(number))
            seen["exit"] = str(process.wait())
        for name, ours in (("LAB", str(self.directory)), ("ID", CONTAINER_ID)):
            seen = {key: value.replace(ours, name) for key, value in seen.items()}
        return seen

    def _environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "PYTHONPATH": str(CHECKOUT),
            "MINICONTAINER_ROOT": str(self.directory / "data"),
            "MINICONTAINER_RUN": str(self.directory / "run"),
            "MINICONTAINER_CACHE": str(self.directory / "cache"),
        }


def wrapped(lab: Lab, command: list[str], shared: bool = False) -> list[str]:
    """The command in a mount namespace of its own: see wrap.sh."""
    return [
        "unshare", "--mount", "--propagation", "private", "--",
        "sh", str(HERE / "wrap.sh"), str(lab.layer), str(lab.bundle),
        "shared" if shared else "private", *command,
    ]  # fmt: skip


class Process:
    """A runtime with pipes, or with a terminal of 33 rows and 99 columns; killed if it stays."""

    def __init__(
        self,
        command: list[str],
        env: dict[str, str],
        terminal: bool,
        ignore_signals: bool,
        leak: int,
    ) -> None:
        self.errors = ""
        self._terminal = terminal
        if terminal:
            import pty
            import termios

            master, slave = pty.openpty()
            termios.tcsetwinsize(slave, (33, 99))
            self._in = self._out = master
            self._err = -1
            ends = (slave, slave, slave)
        else:
            child_in, self._in = os.pipe()
            self._out, child_out = os.pipe()
            self._err, child_err = os.pipe()
            ends = (child_in, child_out, child_err)
        self._popen = subprocess.Popen(
            command, env=env, stdin=ends[0], stdout=ends[1], stderr=ends[2],
            start_new_session=True, pass_fds=(leak,),
            preexec_fn=lambda: _prepare(ignore_signals, terminal),
        )  # fmt: skip
        for end in {*ends, leak}:
            os.close(end)
        self.pid = self._popen.pid

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_error: object) -> None:
        if self._popen.poll() is None:
            self._popen.kill()
            self._popen.wait()
        for fd in {self._in, self._out, self._err} - {-1}:
            os.close(fd)

    def read_until(self, mark: str, patience: float = 20) -> str:
        """What it says up to a line ``mark``, or all of it if that never comes."""
        heard = ""
        deadline = time.monotonic() + patience
        while f"{mark}\n" not in heard and (left := deadline - time.monotonic()) > 0:
            ready, _, _ = select.select([self._out], [], [], left)
            if not ready:
                break
            try:
                data = os.read(self._out, 65536)
            except OSError:  # EIO: the terminal's other end is closed
                data = b""
            if not data:
                break
            heard += data.decode(errors="replace").replace("\r\n", "\n")
        return heard

    def write(self, text: str) -> None:
        """Type into it."""
        os.write(self._in, text.encode())

    def close_input(self) -> None:
        """End of file, so that nobody waits for more."""
        if self._in != self._out:
            os.close(self._in)
            self._in = -1

    def wait(self) -> int:
        """Its exit status; -n if signal n ended it."""
        status = self._popen.wait(timeout=20)
        if self._err >= 0:
            os.set_blocking(self._err, False)
            try:
                self.errors = os.read(self._err, 65536).decode(errors="replace")
            except BlockingIOError:
                self.errors = ""
        return status


def _prepare(ignore_signals: bool, terminal: bool) -> None:
    """What the runtime inherits from whoever starts it; some of it it must not pass on."""
    if ignore_signals:
        for number in (signal.SIGPIPE, signal.SIGUSR1, signal.SIGHUP, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
    else:
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    if terminal:
        import fcntl
        import termios

        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    os.umask(0o027)


# ---- what was seen, as an Observation


def link(line: str) -> tuple[str, str]:
    """The name and the target of a symbolic link as stat's %N has it, with quotes or without."""
    name, _, rest = line.partition(" ")
    return name.strip("'"), rest.removeprefix("-> ").strip("'")


def put(seen: Observation, key: str, value: str) -> None:
    """Add to what is known by this key."""
    seen[key] = f"{seen[key]}; {value}" if key in seen else value


def pid_in(file: Path) -> int:
    """The number that a runtime writes: runc's container may be talking already before that."""
    patience = time.monotonic() + 20
    while time.monotonic() < patience:
        if file.exists() and (text := file.read_text()):
            return int(text)
        time.sleep(0.01)
    raise AssertionError(f"{file} never came")


def remove_cgroup() -> None:
    """End what may still live in the comparison's cgroup, and remove it."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        if " - cgroup2 " in line and Path(path := line.split()[4] + CGROUP).exists():
            cgroup.remove(path)


def inside(heard: str, known: dict[str, int]) -> Observation:
    """probe.sh's sections."""
    sections: dict[str, list[str]] = {}
    for line in heard.split("@end\n")[0].splitlines():
        if line.startswith("@"):
            lines = sections.setdefault(line[1:], [])
        elif line and sections:
            lines.append(line)
    seen: Observation = {}
    for line in sections.pop("ns"):
        name, inode = link(line)
        if not name.endswith("_for_children"):
            kind = name.rpartition("/")[2]
            seen[f"inside.ns.{kind}"] = whose(inode, kind, known)
    seen.update(status([line[2:] for line in sections.pop("status")]))
    seen.update(mounts([line[2:] for line in sections.pop("mounts")]))
    for line in sections.pop("limits"):
        seen["limit." + line[2:27].strip()] = " ".join(line[27:].split())
    for line in sections.pop("fds"):
        fd, _, what = line.partition(" ")
        put(seen, f"fd.{fd.strip(chr(39))}", re.sub(r"\[\d+\]", "", what))
    for line in sections.pop("dev"):
        name, _ = link(line)
        put(seen, f"dev.{name}", line)
    for name in ("hidden", "links", "power", "writable", "sysctl", "files", "uts"):
        for line in sections.pop(name):
            key, _, value = line.partition(" ")
            put(seen, f"{name}.{key}", " ".join(value.split()))
    for name, lines in sections.items():
        seen[name] = "\n".join(lines)
    return seen


def outside(pid: int, known: dict[str, int]) -> Observation:
    """What the host sees of the container's first process."""
    proc = Path("/proc", str(pid))
    seen = {
        f"outside.ns.{kind}": whose(os.readlink(proc / "ns" / kind), kind, known)
        for kind in NAMESPACES
    }
    lines = dict(
        line.split(":\t", 1) for line in (proc / "status").read_text().splitlines() if ":\t" in line
    )
    for key in ("Uid", "Gid", "Groups", "CapEff", "CapBnd", "Seccomp", "NoNewPrivs"):
        seen[f"outside.{key}"] = lines[key].strip()
    seen["outside.cgroup"] = next(
        line for line in (proc / "cgroup").read_text().splitlines() if line.startswith("0:")
    )
    seen["outside.oom_score_adj"] = (proc / "oom_score_adj").read_text().strip()
    seen["outside.nice"] = str(os.getpriority(os.PRIO_PROCESS, pid))
    seen["outside.scheduler"] = str(os.sched_getscheduler(pid))
    seen["outside.cpus"] = str(sorted(os.sched_getaffinity(pid)))
    for fd in (proc / "fd").iterdir():
        seen[f"outside.fd.{fd.name}"] = re.sub(r"\[\d+\]", "", os.readlink(fd))
    seen["outside.owner"] = str(proc.stat().st_uid)
    seen["outside.program"] = os.readlink(proc / "exe")
    seen["outside.arguments"] = str((proc / "cmdline").read_bytes().split(b"\0")[:2])
    return seen


def whose(link: str, kind: str, known: dict[str, int]) -> str:
    """Is a namespace ("net:[4026531840]") that of a process that we know, or a fresh one?"""
    for name, pid in known.items():
        child = "_for_children" if kind == "pid" else ""
        if link == os.readlink(f"/proc/{pid}/ns/{kind}{child}"):
            return name
    return "fresh" if link else "unknown"


def status(lines: list[str]) -> Observation:
    """The lines of proc_pid_status(5) that a runtime decides."""
    wanted = (
        "Umask", "Uid", "Gid", "Groups", "SigBlk", "SigIgn", "SigCgt", "CapInh", "CapPrm",
        "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "Seccomp_filters",
    )  # fmt: skip
    pairs = (line.split(":", 1) for line in lines if ":" in line)
    return {f"status.{k}": " ".join(v.split()) for k, v in pairs if k in wanted}


def mounts(lines: list[str]) -> Observation:
    """proc_pid_mountinfo(5) without its numbers; a place mounted on twice gets two entries."""
    places = {line.split()[0]: line.split()[4] for line in lines}
    peers: dict[str, str] = {}
    seen: Observation = {}
    for line in lines:
        fields, _, rest = line.partition(" - ")
        _, parent, _, root, place, options, *tags = fields.split()
        kind, source, super_options = rest.split(" ")[:3]
        for tag in tags:
            peers.setdefault(tag, tag.split(":")[0])
        key = f"mount.{place}"
        while f"{key}.type" in seen:
            key += "'"
        seen[f"{key}.type"] = f"{kind} {source} on {places.get(parent, 'nothing')}"
        seen[f"{key}.root"] = root
        seen[f"{key}.options"] = ",".join(sorted(options.split(",")))
        seen[f"{key}.super"] = ",".join(sorted(super_options.split(",")))
        seen[f"{key}.propagation"] = " ".join(peers[tag] for tag in tags) or "private"
    return seen


# ---- differences


class Difference(NamedTuple):
    """One line of a comparison."""

    key: str
    ours: str
    theirs: str

    def __str__(self) -> str:
        return f"{self.key}: ours {self.ours!r}, theirs {self.theirs!r}"


def differences(ours: Observation, theirs: Observation) -> list[Difference]:
    """Where two observations disagree.  Why a container did not start is said in many ways."""
    if "why" in ours or "why" in theirs:
        short = ("started", "said", "exit")
        ours, theirs = ({k: one.get(k, "") for k in short} for one in (ours, theirs))
    return [
        Difference(key, ours.get(key, ABSENT), theirs.get(key, ABSENT))
        for key in sorted({*ours, *theirs})
        if ours.get(key, ABSENT) != theirs.get(key, ABSENT)
    ]


class Choice(NamedTuple):
    """A line of docs/oracle-differences.md: there we differ, for a reason."""

    runtimes: tuple[str, ...]  # "runc", or "runc 1.1.5" if only that version does so
    variants: tuple[str, ...]
    keys: tuple[str, ...]
    reason: str

    def is_about(self, runtime: str) -> bool:
        """Is "crun 1.8.1" what it means by "crun", "crun 1.8" or "crun 1.8.1"?"""
        return any(f"{runtime}.".startswith((f"{one} ", f"{one}.")) for one in self.runtimes)

    def covers(self, runtime: str, variant: str, difference: Difference) -> bool:
        """Is this the difference that it means?"""
        return (
            self.is_about(runtime)
            and any(fnmatchcase(variant, one) for one in self.variants)
            and any(fnmatchcase(difference.key, key) for key in self.keys)
        )


def choices(text: str) -> Iterator[Choice]:
    """The rows of the tables with four columns."""
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if line.startswith("| `") and len(cells) == 4:
            names, variants, keys = (re.findall(r"`([^`]+)`", cell) for cell in cells[:3])
            yield Choice(tuple(names), tuple(variants), tuple(keys), cells[3])
