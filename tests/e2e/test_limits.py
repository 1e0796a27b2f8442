"""Limits bite: what a container may not use it does not get.  Effects, not files.

Each check also runs without the step that it is about, and must then fail.
"""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from minicontainer.cgrouptree import mount_point
from tests.support import Cli, Result
from tests.unit.mutants import fails

pytestmark = pytest.mark.requires_root


def run(cli: Cli, flags: str, *program: str, without: str = "") -> Result:
    """A container of busybox with these flags, less a step."""
    left_out = ("--without", without) if without else ()
    return cli(
        "run", "--rm", "--network", "none", *flags.split(), *left_out, "busybox", *program,
        timeout=120,
    )  # fmt: skip


# 48 MiB, all of them touched: by a program's own buffer
ALLOCATE = ("dd", "if=/dev/zero", "of=/dev/null", "bs=48M", "count=1")


# ---- memory


def check_memory(cli, without=""):
    done = run(cli, "-m 16m", *ALLOCATE, without=without)
    assert done.status == 137, done.err  # 128 + SIGKILL
    assert "records" not in done.err


@pytest.mark.kernel("memory")
def test_what_is_allocated_beyond_the_limit_is_killed(busybox, leaves_nothing):
    check_memory(busybox)
    assert run(busybox, "-m 64m", *ALLOCATE).status == 0


@pytest.mark.kernel("memory")
def test_the_check_on_memory_can_fail(busybox):
    fails(check_memory, busybox, "memory")


@pytest.mark.kernel("memory")
def test_the_least_that_docker_allows_is_enough_to_start_in(busybox):
    assert run(busybox, "-m 6m", "true").status == 0


def check_oom_group(cli, flags):
    """The shell uses nothing, and goes with the dd that does."""
    done = run(cli, flags, "sh", "-c", f"{' '.join(ALLOCATE)}; echo the shell lives")
    assert (done.status, done.out) == (137, "")


@pytest.mark.kernel("memory")
def test_the_whole_group_is_killed_if_asked_for(busybox, leaves_nothing):
    check_oom_group(busybox, "-m 16m --oom-group")


@pytest.mark.kernel("memory")
def test_the_check_on_the_group_can_fail(busybox):
    fails(check_oom_group, busybox, "-m 16m")


def check_any_file(cli, without=""):
    """By its name, and after what a flag says: the last word is the most precise."""
    done = run(cli, "-m 64m --cgroup memory.max=16M", *ALLOCATE, without=without)
    assert done.status == 137, done.err


@pytest.mark.kernel("memory")
def test_any_file_of_the_kernels_can_be_set(busybox):
    check_any_file(busybox)


@pytest.mark.kernel("memory")
def test_the_check_on_any_file_can_fail(busybox):
    fails(check_any_file, busybox, "cgroup-files")


# ---- processes

FORKS = ("sh", "-c", "for i in 1 2 3 4 5 6 7 8; do sleep 9 & done; echo all of them")


def check_pids(cli, without=""):
    done = run(cli, "--pids-limit 5", *FORKS, without=without)
    assert "can't fork: Resource temporarily unavailable" in done.err
    assert done.out == ""
    assert done.status not in (0, 125)


@pytest.mark.kernel("pids")
def test_fork_stops_at_the_limit(busybox, leaves_nothing):
    check_pids(busybox)
    assert run(busybox, "--pids-limit 9", *FORKS).out == "all of them\n"
    assert run(busybox, "--pids-limit -1", "cat", "/sys/fs/cgroup/pids.max").out == "max\n"


@pytest.mark.kernel("pids")
def test_the_check_on_pids_can_fail(busybox):
    fails(check_pids, busybox, "pids")


# ---- cpu

# Spin for two seconds; say how long it was by the clock and by the CPU's account, in microseconds.
SPIN = """
read a rest < /proc/uptime; timeout 2 sh -c 'while :; do :; done'; read b rest < /proc/uptime
echo wall_usec $(( (${b%.*}${b#*.} - ${a%.*}${a#*.}) * 10000 )); cat /sys/fs/cgroup/cpu.stat
"""


def spin(cli, flags, without=""):
    done = run(cli, flags, "sh", "-c", SPIN, without=without)
    words = dict(line.split() for line in done.out.splitlines())
    return {key: int(value) for key, value in words.items()}


def check_cpu(cli, without=""):
    half = spin(cli, "--cpus 0.5", without)
    assert half["nr_throttled"] >= 5
    assert 0.2 < half["usage_usec"] / half["wall_usec"] < 0.75


@pytest.mark.kernel("cpu")
def test_half_a_cpu_is_half_a_cpu(busybox):
    """A free one gets more than that, by the same measure."""
    check_cpu(busybox)
    free = spin(busybox, "--cpu-shares 1024")
    assert free["nr_throttled"] == 0


@pytest.mark.kernel("cpu")
def test_the_check_on_cpu_can_fail(busybox):
    fails(check_cpu, busybox, "cpu")


# Wait for one moment and spin until another, both by the machine's clock in hundredths of a second;
# say how much of the CPU that was.
TURN = """
taskset -p 1 1 > /dev/null
now() {{ read u rest < /proc/uptime; t=${{u%.*}}${{u#*.}}; }}
used() {{ read word u < /sys/fs/cgroup/cpu.stat; }}
now; while [ $t -lt {begin} ]; do usleep 10000; now; done
used; before=$u; while [ $t -lt {end} ]; do now; done; used; echo $(( u - before ))
"""


def check_shares(cli, without=""):
    """Two that both want one CPU: 2 shares and 262144 are weights of 1 and 10000."""
    argv = ["run", "--rm", "--network", "none"]
    left_out = ["--without", without] if without else []
    begin = int(100 * time.clock_gettime(time.CLOCK_BOOTTIME)) + 400
    words = ["busybox", "sh", "-c", TURN.format(begin=begin, end=begin + 150)]
    both = [cli.start(*argv, "-c", shares, *left_out, *words) for shares in ("2", "262144")]
    used = [int(one.communicate(timeout=120)[0]) for one in both]
    assert used[1] > 4 * used[0], used


@pytest.mark.kernel("cpu")
def test_shares_decide_who_runs(busybox):
    check_shares(busybox)


@pytest.mark.kernel("cpu")
def test_the_check_on_shares_can_fail(busybox):
    fails(check_shares, busybox, "cpu")


@pytest.mark.kernel("cpuset", "smp")
def test_pinned_to_a_cpu(busybox):
    """sched_setaffinity(2), which taskset calls, does not lead out of it."""
    words = ("sh", "-c", "taskset -p 3 1 > /dev/null; grep Cpus_allowed_list /proc/1/status")
    assert run(busybox, "--cpuset-cpus 1", *words).out.split() == ["Cpus_allowed_list:", "1"]
    with pytest.raises(AssertionError):
        left = run(busybox, "--cpuset-cpus 1", *words, without="cpuset")
        assert left.out.split() == ["Cpus_allowed_list:", "1"]


# ---- disks


def seconds_to_write(cli, disk, flags, without=""):
    """3 MiB past the page cache."""
    program = ("dd", "if=/dev/zero", "of=/dev/disk", "bs=256k", "count=12", "oflag=direct")
    began = time.monotonic()
    done = run(cli, f"--device {disk}:/dev/disk {flags}", *program, without=without)
    assert done.status == 0, done.err
    return time.monotonic() - began


def check_io(cli, disk, without=""):
    """At a mebibyte a second it takes three seconds, or longer on a slow machine: never less."""
    assert seconds_to_write(cli, disk, f"--device-write-bps {disk}:1mb", without) > 2


@pytest.mark.kernel("io", "disk")
def test_a_disk_is_written_no_faster(busybox, spare_disk):
    check_io(busybox, spare_disk)
    by_requests = seconds_to_write(busybox, spare_disk, f"--device-write-iops {spare_disk}:8")
    assert by_requests > 1  # twelve requests, if none is split


@pytest.mark.kernel("io", "disk")
def test_the_check_on_disks_can_fail(busybox, spare_disk):
    fails(check_io, busybox, spare_disk, "io")


@pytest.mark.kernel("io")
def test_a_partition_or_no_disk_is_told(busybox, tmp_path):
    node = Path("/dev/minicontainer-test-no-disk")
    os.mknod(node, 0o60600, os.makedev(259, 99999))
    try:
        done = run(busybox, f"--device-read-bps {node}:1mb", "true")
    finally:
        node.unlink()
    assert done.status == 125
    assert "ENODEV" in done.err
    assert "no disk has this number" in done.err


@pytest.mark.kernel("io.weight")
def test_the_share_of_a_disk(busybox):
    shown = run(busybox, "--blkio-weight 500", "cat", "/sys/fs/cgroup/io.weight")
    assert shown.out.splitlines()[0] == "default 4950"


@pytest.mark.kernel("io")
def test_a_kernel_that_keeps_no_shares_of_disks_is_told(busybox):
    done = run(busybox, "--blkio-weight 500", "ls", "/sys/fs/cgroup")
    assert done.status == 0
    kept = {"io.weight", "io.bfq.weight"} & set(done.out.split())
    assert bool(kept) != ("the disks are not shared by weight" in done.err)


# ---- one in the other


def in_parent(cli, limit):
    """A container that may have 64 MiB, in a cgroup that may have ``limit``."""
    parent = Path(mount_point(), f"minicontainer-test-{os.getpid()}")
    parent.mkdir()
    try:
        Path(mount_point(), "cgroup.subtree_control").write_text("+memory")
        (parent / "memory.max").write_text(limit)
        return run(cli, f"-m 64m --cgroup-parent /{parent.name}", *ALLOCATE)
    finally:
        parent.rmdir()


@pytest.mark.kernel("memory")
def test_the_outer_limit_holds_for_all_that_is_in_it(busybox, leaves_nothing):
    assert in_parent(busybox, "16M").status == 137
    assert in_parent(busybox, "max").status == 0


# As in a container that has a shell, and a cgroup tree of its own: the root that one sees there is
# the container's cgroup, and the shell lives in it.
INNER = """
echo $$ > {place}/cgroup.procs
exec unshare --cgroup --mount --propagation private sh -c '
  umount -l /sys/fs/cgroup; mount -t cgroup2 none /sys/fs/cgroup
  {evacuate}
  exec "$@"' sh "$@"
"""


def inside(cli, limit, evacuate, *flags):
    """``run`` where the root of the tree is a cgroup with a limit, and is inhabited."""
    place = Path(mount_point(), f"minicontainer-test-{os.getpid()}")
    place.mkdir()
    try:
        Path(mount_point(), "cgroup.subtree_control").write_text("+memory")
        (place / "memory.max").write_text(limit)
        script = INNER.format(place=place, evacuate=evacuate)
        argv = cli.argv("run", "--rm", "--network", "none", *flags, "busybox", *ALLOCATE)
        # a second shell in there: whoever asks is not the only one
        done = subprocess.run(["sh", "-c", script, "sh", "sh", "-c", '"$@"; exit $?', "sh", *argv],
                              env=cli.env, capture_output=True, text=True, timeout=120)  # fmt: skip
        return Result(done.returncode, done.stdout, done.stderr)
    finally:
        for folder in (place / "init", place):
            if folder.exists():
                folder.rmdir()


@pytest.mark.kernel("memory")
def test_in_a_container_the_way_out_is_told_and_works(busybox):
    """EBUSY, the hint; the hint word for word; and then limits in limits, the outer one holding."""
    refused = inside(busybox, "max", "", "-m", "16m")
    assert refused.status == 125
    assert "EBUSY" in refused.err
    assert "processes live in /sys/fs/cgroup itself" in refused.err
    hint = refused.err.split("move them into a leaf: ")[1].splitlines()[0]
    assert hint.startswith("mkdir /sys/fs/cgroup/init;")
    assert inside(busybox, "max", hint, "-m", "16m").status == 137
    assert inside(busybox, "max", hint, "-m", "64m").status == 0
    assert inside(busybox, "24M", hint, "-m", "64m").status == 137
    assert inside(busybox, "max", "", "-m", "0").status == 0  # without limits no one is in the way


# ---- where it cannot be


def test_without_limits_no_controller_is_asked_for(busybox):
    plan = busybox("run", "--network", "none", "--dry-run", "busybox", "true").out
    assert " controllers " not in plan
    assert " controllers " in busybox(
        "run", "--network", "none", "--dry-run", "-m", "64m", "busybox", "true"
    ).out  # fmt: skip


def test_a_controller_that_cgroup_v1_has_is_told(busybox, leaves_nothing):
    """On a hybrid machine: which it is, where, what to do; and 125, with nothing made."""
    if os.path.exists("/sys/fs/cgroup/cgroup.controllers"):
        pytest.skip("this machine has no cgroup v1")
    done = run(busybox, "-m 64m", "true")
    assert done.status == 125
    assert "the memory controller belongs to cgroup v1 here (mounted at /sys/fs/cgroup" in done.err
    assert "hint: boot with systemd.unified_cgroup_hierarchy=1" in done.err
    assert run(busybox, "", "true").status == 0


# ---- by hand


def check_by_hand(cli, *without):
    """The script that --as-shell prints makes the same cgroup, and the limit bites there, too."""
    script = cli("run", "--network", "none", "-m", "16m", "--pids-limit", "9", *without,
                 "--as-shell", "busybox", "sh", "-c", f"{' '.join(ALLOCATE)}; echo $?")  # fmt: skip
    done = subprocess.run(["sh"], input=script.out, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "137\n"), done.stderr


@pytest.mark.kernel("memory", "pids")
def test_by_hand(busybox, leaves_nothing):
    check_by_hand(busybox)


@pytest.mark.kernel("memory", "pids")
def test_the_check_by_hand_can_fail(busybox):
    fails(check_by_hand, busybox, "--without", "memory")


@pytest.mark.kernel("memory")
def test_explain_shows_the_file_the_value_and_the_echo(busybox):
    told = busybox("run", "--network", "none", "-m", "64m", "--explain=2", "busybox", "true").err
    assert 'call    write("memory.max", "67108864") = 0' in told
    assert 'shell   echo 67108864 > "$CGROUP/memory.max"' in told
