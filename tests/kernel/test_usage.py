"""kernel/usage.py: what it reads is what the kernel counts, and what is not counted is not 0."""

from __future__ import annotations

import os
import signal
import subprocess
import time

import pytest

from minicontainer import cgroupfiles
from minicontainer.kernel import cgroup, usage
from tests.unit.mutants import fails, mutant

pytestmark = pytest.mark.requires_root

# What Linux 6.1 wrote for a container with limits that was busy; the long memory.stat cut short.
FILES = {
    "cpu.stat": "usage_usec 700000\nuser_usec 600000\nsystem_usec 100000\nnr_periods 29\n"
    "nr_throttled 26\nthrottled_usec 2020000\nnr_bursts 0\nburst_usec 0\n",
    "cpu.max": "20000 100000\n",
    "memory.current": "5242880\n",
    "memory.max": "67108864\n",
    "memory.peak": "6291456\n",
    "memory.swap.current": "0\n",
    "memory.stat": "anon 1048576\nfile 3145728\nkernel 524288\nkernel_stack 65536\n"
    "pagetables 131072\npercpu 0\nshmem 4096\ninactive_file 2097152\nactive_file 1048576\n"
    "slab_reclaimable 40\nslab_unreclaimable 2\nslab 262144\n",
    "io.stat": "8:0 rbytes=4096 wbytes=8192 rios=1 wios=2 dbytes=0 dios=0\n"
    "253:16 rbytes=1000 wbytes=0 rios=3 wios=0 dbytes=5 dios=1\n",
    "pids.current": "3\n",
    "pids.max": "max\n",
    "cpu.pressure": "some avg10=1.53 avg60=0.87 avg300=0.73 total=1084031\n"
    "full avg10=0.00 avg60=0.00 avg300=0.00 total=0\n",
    "memory.pressure": "some avg10=0.00 avg60=0.00 avg300=0.00 total=0\n"
    "full avg10=0.00 avg60=0.00 avg300=0.00 total=0\n",
    "io.pressure": "some avg10=12.00 avg60=0.00 avg300=0.00 total=9\n"
    "full avg10=11.00 avg60=0.00 avg300=0.00 total=8\n",
}
READ = usage.Usage(
    memory=5242880, memory_max=67108864, memory_peak=6291456, swap=0, anon=1048576, file=3145728,
    inactive_file=2097152, kernel=524288, cpu_quota=20000, cpu_period=100000, cpu_usec=700000,
    user_usec=600000, system_usec=100000, periods=29, throttled=26, throttled_usec=2020000,
    read_bytes=5096, written_bytes=8192, reads=4, writes=2, pids=3, pids_max=usage.UNLIMITED,
    cpu_pressure=1.53, memory_pressure=0.0, io_pressure=12.0,
)  # fmt: skip


def written(tmp_path, files) -> str:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    return str(tmp_path)


# ---- what the files mean


def check_reading(path, module=usage):
    read = module.read(path)
    assert {name: getattr(read, name) for name in read._fields} == {
        name: getattr(READ, name) for name in READ._fields
    }
    assert read.working_set == 5242880 - 2097152


def test_each_file_is_read(tmp_path):
    check_reading(written(tmp_path, FILES))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("return max(self.memory - self.inactive_file, 0)", "return self.memory"),
        ('anon=memory.get("anon")', 'anon=memory.get("file")'),
        ("sums[key] += int(value)", "sums[key] = int(value)"),
        ("return float(line.split()[1]", "return float(line.split()[2]"),
        ('throttled=cpu.get("nr_throttled")', 'throttled=cpu.get("throttled")'),
        ('written_bytes=io.get("wbytes")', 'written_bytes=io.get("dbytes")'),
    ],
)  # fmt: skip
def test_the_check_on_reading_can_fail(tmp_path, old, new):
    fails(check_reading, written(tmp_path, FILES), mutant(usage, old, new))


def check_unknown(path, module=usage):
    read = module.read(path)
    known = {name for name in read._fields if getattr(read, name) is not None}
    assert known == {"cpu_usec", "user_usec", "system_usec"}
    assert read.working_set is None


def test_what_has_no_file_is_not_zero(tmp_path):
    check_unknown(written(tmp_path, {"cpu.stat": "usage_usec 7\nuser_usec 6\nsystem_usec 1\n"}))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("    if lines is None:\n        return {}\n    sums", "    lines = lines or ''\n    sums"),
        ("    if kernel is None and memory:", "    if kernel is None:"),
        ("    if self.memory is None or self.inactive_file is None:\n            return None",
         "    if self.memory is None or self.inactive_file is None:\n            return 0"),
    ],
)  # fmt: skip
def test_the_check_on_the_unknown_can_fail(tmp_path, old, new):
    path = written(tmp_path, {"cpu.stat": "usage_usec 7\nuser_usec 6\nsystem_usec 1\n"})
    fails(check_unknown, path, mutant(usage, old, new))


def with_broken_files(old, new):
    """kernel/usage.py over a mutant of cgroupfiles.py."""
    over = mutant(usage, '"""Usage: ', '"""Usage: ')
    files = mutant(cgroupfiles, old, new)
    over.__dict__.update(
        text=files.text, number=files.number, as_number=files.as_number, pairs=files.pairs
    )
    return over


@pytest.mark.parametrize(
    ("check", "old", "new"),
    [
        (check_reading, 'return UNLIMITED if word.startswith("max") else int(word)',
         "return int(word.strip().replace('max', '0'))"),
        (check_reading, "words[::2], words[1::2]", "words[1::2], words[1::2]"),
        (check_unknown, "    if not word:\n        return None\n",
         "    if not word:\n        return 0\n"),
        (check_unknown, "if error.errno not in _ABSENT:", "if True:"),
    ],
)  # fmt: skip
def test_the_checks_on_the_files_can_fail(tmp_path, check, old, new):
    files = FILES if check is check_reading else {"cpu.stat": "usage_usec 7\nuser_usec 6\n"
                                                  "system_usec 1\n"}  # fmt: skip
    fails(check, written(tmp_path, files), with_broken_files(old, new))


def test_a_file_of_any_length_is_read_whole(tmp_path):
    whole = "".join(f"key{n} {n}\n" for n in range(20_000))
    path = written(tmp_path, {"memory.stat": whole})
    assert cgroupfiles.pairs(path, "memory.stat")["key19999"] == 19_999


def test_a_file_that_may_not_be_read_is_an_error(tmp_path):
    (tmp_path / "memory.stat").mkdir()
    with pytest.raises(IsADirectoryError):
        cgroupfiles.text(str(tmp_path), "memory.stat")


def test_before_linux_5_18_the_kernels_part_is_a_sum(tmp_path):
    old = FILES["memory.stat"].replace("kernel 524288\n", "")
    path = written(tmp_path, {**FILES, "memory.stat": old})
    assert usage.read(path).kernel == 65536 + 131072 + 262144


def test_an_idle_disk_is_zero_and_not_unknown(tmp_path):
    assert usage.read(written(tmp_path, {**FILES, "io.stat": ""})).read_bytes == 0


def test_a_cgroup_that_is_gone_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such cgroup"):
        usage.read(str(tmp_path / "gone"))


# ---- on a cgroup2 of any kind


@pytest.fixture
def box():
    path = f"{cgroup.mount_point()}/minicontainer-test-{os.getpid()}"
    os.mkdir(path)
    yield path
    cgroup.remove(path)


def member(path: str, *command: str) -> subprocess.Popen:
    """A process that has joined the cgroup before it became ``command``."""
    join = f'echo 0 > "{path}/cgroup.procs"; echo joined; exec "$@"'
    process = subprocess.Popen(
        ["sh", "-c", join, "sh", *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout
    assert process.stdout.readline() == b"joined\n"
    return process


def seconds_of(pid: int) -> float:
    """utime and stime of a process."""
    with open(f"/proc/{pid}/stat") as file:
        return sum(map(int, file.read().split()[13:15])) / os.sysconf("SC_CLK_TCK")


def check_cpu(box, module=usage):
    """The kernel's own account of a busy process: proc_pid_stat(5) counts in ticks of 10 ms."""
    burner = member(box, "sh", "-c", "while :; do :; done")
    try:
        before, began = module.read(box).cpu_usec, seconds_of(burner.pid)
        while (used := seconds_of(burner.pid) - began) < 0.5:
            time.sleep(0.02)
        read = module.read(box)
        assert 0.3 < (read.cpu_usec - before) / 1e6 < used + 1
        assert abs(read.user_usec + read.system_usec - read.cpu_usec) <= 2
    finally:
        burner.kill()
        burner.communicate()


def test_cpu_time_is_known_without_a_controller(box):
    check_cpu(box)


def test_the_check_on_cpu_time_can_fail(box):
    old = 'cpu_usec=cpu.get("usage_usec")'
    fails(check_cpu, box, mutant(usage, old, 'cpu_usec=cpu.get("nice_usec")'))


def check_processes(box, module=usage):
    os.makedirs(box + "/a/b")
    members = [member(place, "sleep", "600") for place in (box, box + "/a", box + "/a/b")]
    try:
        assert module.processes(box) == sorted(process.pid for process in members)
        assert module.processes(box + "/a/b") == [members[2].pid]
        assert module.processes(box + "/gone") == []
    finally:
        for process in members:
            process.kill()
            process.communicate()


def test_processes_are_those_of_all_cgroups_below(box):
    check_processes(box)


def test_the_check_on_processes_can_fail(box):
    fails(check_processes, box, mutant(usage, "found.update(processes(below))", "pass"))


def test_why_a_controller_is_missing(box):
    """Either its files are there, or there is a reason; and the reason is a true one."""
    for name, file in (("memory", "memory.current"), ("pids", "pids.current"), ("io", "io.stat")):
        why = usage.why_missing(box, name)
        assert (why == "") == os.path.exists(f"{box}/{file}"), (name, why)
        with open("/proc/cgroups") as table:
            rows = {row.split()[0]: row.split()[1] for row in table}
        if why and rows[{"io": "blkio"}.get(name, name)] != "0":
            assert why.startswith("counted by cgroup v1")
        elif why:
            assert why.startswith("not handed down by ")
    assert usage.why_missing(box, "nonsense") == "no such controller in this kernel"


# ---- where there are controllers


@pytest.fixture
def whole():
    """A cgroup that has been given the four controllers."""
    parent = f"{cgroup.mount_point()}/minicontainer-test-{os.getpid()}"
    os.mkdir(parent)
    with open(parent + "/cgroup.subtree_control", "w") as file:
        file.write("+memory +pids +cpu +io")
    os.mkdir(parent + "/box")
    yield parent + "/box"
    cgroup.remove(parent)


@pytest.mark.kernel("memory", "pids", "cpu", "io")
def test_memory_is_told_apart(whole, tmp_path):
    """Pages of a process are anon; a file it wrote is file; and 0 is known to be 0."""
    nothing = usage.read(whole)
    assert (nothing.memory, nothing.pids, nothing.read_bytes, nothing.throttled) == (0, 0, 0, 0)
    assert [usage.why_missing(whole, name) for name in ("memory", "cpu", "io", "pids")] == [""] * 4
    mebibyte = 1 << 20
    with open(whole + "/memory.max", "w") as file:
        file.write(str(256 * mebibyte))
    process = member(whole, "python3", "-c", f"""
import sys
pages = bytearray(b"x") * (20 * {mebibyte})
file = open({str(tmp_path / "file")!r}, "wb"); file.write(bytes(10 * {mebibyte})); file.flush()
print("ready", flush=True)
sys.stdin.read()
""")  # fmt: skip
    assert process.stdout
    assert process.stdout.readline() == b"ready\n"
    read = usage.read(whole)
    assert 20 * mebibyte <= (read.anon or 0) < 40 * mebibyte
    assert 10 * mebibyte <= (read.file or 0) < 40 * mebibyte
    assert read.kernel and read.memory and read.working_set
    assert read.memory >= read.anon + read.file
    assert read.working_set == read.memory - (read.inactive_file or 0)
    assert read.memory_max == 256 * mebibyte
    assert read.pids == 1
    process.communicate()
    assert process.returncode == 0


@pytest.mark.kernel("cpu", "memory", "pids", "io")
def test_throttling_is_counted(whole):
    with open(whole + "/cpu.max", "w") as file:
        file.write("10000 100000")
    burner = member(whole, "sh", "-c", "while :; do :; done")
    try:
        end = time.monotonic() + 30
        while not (usage.read(whole).throttled or 0) > 3:
            assert time.monotonic() < end, usage.read(whole)
            time.sleep(0.05)
        read = usage.read(whole)
        assert (read.cpu_quota, read.cpu_period) == (10000, 100000)
        assert read.periods and read.throttled and read.throttled <= read.periods
    finally:
        burner.send_signal(signal.SIGKILL)
        burner.communicate()
