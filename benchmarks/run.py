#!/usr/bin/env python3
"""The benchmark: one command, one report.

    sudo MINICONTAINER_IMAGES=/folder/with/the/alpine/archive python benchmarks/run.py

It times, interleaved in one run, minicontainer (cold: the command line; warm: the Python API), its
peers, and the C floor; then reports the budgets as met, not met or not measured.  It never fails
because of a number: a benchmark is a report, not a test.  See benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

import ours
import peers
from figures import Noise
from harness import Contender, Worker, interleave
from peers import Ground, Unavailable
from report import FLOOR, HEAP, WARM, Result, machine, report

HERE = Path(__file__).resolve().parent
ARCHIVE = "alpine-minirootfs-*-{machine}.tar.gz"
NAMES = ("python", "floor", "minicontainer", "bubblewrap", "crun", "runc", "podman")
BATCH = 5  # warm containers in a row
Made = TypeVar("Made")


def main(argv: Sequence[str]) -> int:
    """Parse, go to a place of our own, measure, report.  0, or 1 if nothing could be measured."""
    args = parse(argv)
    if os.geteuid() != 0:
        print("benchmarks/run.py: must run as root (sudo): it makes containers", file=sys.stderr)
        return 1
    if args.inside:
        return inside(args, Path(args.inside))
    home = "/var/tmp" if args.disk else None
    with tempfile.TemporaryDirectory(prefix="minibench-", dir=home) as scratch:
        return elsewhere(scratch, argv, args.disk)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="time minicontainer against its peers")
    parser.add_argument("--rounds", type=int, default=60, help="rounds to time (default 60)")
    parser.add_argument("--quick", action="store_true", help="few rounds: does it work at all?")
    only = "only this contender (may be repeated): " + " ".join(NAMES)
    parser.add_argument("--only", action="append", choices=NAMES, metavar="NAME", help=only)
    disk = "images and upper directories in /var/tmp, not on a tmpfs"
    parser.add_argument("--disk", action="store_true", help=disk)
    parser.add_argument("--json", metavar="FILE", help="write every single time there, too")
    parser.add_argument("--inside", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.quick:
        args.rounds = min(args.rounds, 5)
    return args


# ----------------------------------------------------------------------- a place of our own

# Runs in a private mount namespace, so it changes nothing for anybody else, and is gone when the
# benchmark ends.  /run is a tmpfs on every ordinary machine; podman keeps locks in /dev/shm; crun
# and podman refuse a machine that still mixes cgroup v1 with v2.
FURNISH = """
set -e
[ "$1" = disk ] || mount -t tmpfs minibench "$1"
mount -t tmpfs minibench /run
mount -t tmpfs minibench /dev/shm
if ! [ -e /sys/fs/cgroup/cgroup.procs ]; then
    umount -l /sys/fs/cgroup
    mount -t cgroup2 minibench /sys/fs/cgroup
fi
shift
exec "$@"
"""


def elsewhere(scratch: str, argv: Sequence[str], disk: bool) -> int:
    """Run ourselves again in a private mount namespace, once: a wrapper per run would be timed."""
    again = [sys.executable, str(HERE / "run.py"), *argv, "--inside", scratch]
    enter = ["unshare", "--mount", "--propagation", "private", "sh", "-c", FURNISH, "sh"]
    enter.append("disk" if disk else scratch)
    return subprocess.run([*enter, *again], check=False).returncode


def inside(args: argparse.Namespace, scratch: Path) -> int:
    """Prepare, measure, report; leave no cgroup behind."""
    ground = make_ground(scratch)
    try:
        result = measure(args, ground)
    finally:
        remove_cgroups(ground)
    print(report(result))
    if args.json:
        Path(args.json).write_text(json.dumps(result.as_json(), indent=1) + "\n")
        print(f"\nwritten: {args.json}")
    return 0 if result.cold or result.warm else 1


def make_ground(scratch: Path) -> Ground:
    """The real Alpine, extracted, and a cgroup for everything we start."""
    name = ARCHIVE.format(machine=os.uname().machine)
    folders = [Path(f) for f in os.environ.get("MINICONTAINER_IMAGES", "").split(":") if f]
    archives = [archive for folder in folders for archive in sorted(folder.glob(name))]
    if not archives:
        raise SystemExit(
            f"benchmarks/run.py: {name} not found: set MINICONTAINER_IMAGES to its folder\n"
            "(https://dl-cdn.alpinelinux.org/alpine/latest-stable/releases/)"
        )
    rootfs = scratch / "rootfs"
    rootfs.mkdir()
    subprocess.run(["tar", "-xzf", archives[-1], "-C", rootfs], check=True)
    cgroup = f"/minibench-{os.getpid()}"
    Path("/sys/fs/cgroup" + cgroup).mkdir()
    return Ground(scratch, rootfs, archives[-1], cgroup)


def remove_cgroups(ground: Ground) -> None:
    """End whatever a contender left running in our cgroup, and remove it, leaves first."""
    top = "/sys/fs/cgroup" + ground.cgroup
    Path(top, "cgroup.kill").write_text("1")
    for directory, _, _ in os.walk(top, topdown=False):
        for _ in range(100):  # EBUSY until the last process is gone altogether
            try:
                os.rmdir(directory)
                break
            except OSError:
                time.sleep(0.02)
        else:
            print(f"benchmarks/run.py: left behind: {directory}", file=sys.stderr)


# -------------------------------------------------------------------------------- measuring


def measure(args: argparse.Namespace, ground: Ground) -> Result:
    """Everything that ``args`` asks for."""
    wanted: list[str] = args.only or list(NAMES)
    result = Result(machine(ground.scratch), args.rounds)
    filter_file = attempt(result, "seccomp filter", lambda: ours.seccomp_filter(ground))
    cold(args, ground, wanted, filter_file, result)
    warm(args, ground, wanted, filter_file, result)
    if "minicontainer" in wanted:
        result.footprint = attempt(result, "memory", lambda: ours.footprint(ground))
        result.imports = attempt(result, "imports", lambda: ours.imports(ground)) or []
    return result


def cold(
    args: argparse.Namespace,
    ground: Ground,
    wanted: Sequence[str],
    filter_file: Path | None,
    result: Result,
) -> None:
    """Whole processes, from spawn to exit."""
    makers: dict[str, Callable[[], Contender]] = {
        "python": ours.bare_interpreter,
        "floor": lambda: peers.floor(ground, filter_file),
        "minicontainer": lambda: ours.cold(ground),
        "bubblewrap": lambda: peers.bubblewrap(ground, filter_file),
        "crun": lambda: peers.crun(ground),
        "runc": lambda: peers.runc(ground),
        "podman": lambda: peers.podman(ground),
    }
    for name in (name for name in NAMES if name in wanted):
        contender = attempt(result, name, makers[name])
        if contender is None:
            continue
        why_not = contender.probe()
        if why_not:
            result.missing[contender.name] = why_not
        else:
            result.cold.append(contender)
    result.noise.append(interleave(result.cold, args.rounds, progress("cold", args.rounds)))


def warm(
    args: argparse.Namespace,
    ground: Ground,
    wanted: Sequence[str],
    filter_file: Path | None,
    result: Result,
) -> None:
    """Containers one after the other from processes that stay: batches, interleaved."""
    makers: dict[str, Callable[[], Worker]] = {}
    if "floor" in wanted:
        makers[FLOOR] = lambda: peers.warm_floor(ground, FLOOR, filter_file)
    if "minicontainer" in wanted:
        makers[WARM] = lambda: ours.warm(ground, WARM)
        makers[HEAP] = lambda: ours.warm(ground, HEAP, heap_mb=512)
    rng, show = random.Random(7), progress("warm", args.rounds)
    with Noise() as noise:
        for name, make in makers.items():
            worker = attempt(result, name, make)
            if worker and attempt(result, name, partial(worker.batch, BATCH)):
                result.warm.append(worker)
        for number in range(args.rounds):
            for worker in rng.sample(result.warm, len(result.warm)):
                worker.times += attempt(result, worker.name, partial(worker.batch, BATCH)) or []
            noise.tick()
            show(number)
        for worker in result.warm:
            worker.close()  # their processor time counts as ours only once they have ended
    if result.warm:
        result.noise.append(noise)


def attempt(result: Result, name: str, make: Callable[[], Made]) -> Made | None:
    """make(); or None, and the reason is kept for the report."""
    try:
        return make()
    except (Unavailable, RuntimeError, OSError, subprocess.SubprocessError) as why:
        result.missing[name] = str(why)
        return None


def progress(what: str, rounds: int) -> Callable[[int], None]:
    """Says on a terminal how far we are."""

    def show(number: int) -> None:
        if sys.stderr.isatty():
            end = "\n" if number == rounds - 1 else ""
            sys.stderr.write(f"\r{what}: round {number + 1} of {rounds} {end}")
            sys.stderr.flush()

    return show


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
