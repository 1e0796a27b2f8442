"""kernel/limitevents.py: what the counters say about an end, and that they say it of a real one."""

from __future__ import annotations

import itertools
import os
import subprocess
from pathlib import Path

import pytest

from minicontainer import Linux, Process, Root, Spec, runtime
from minicontainer.image.store import Store
from minicontainer.kernel import cgroup, limitevents
from minicontainer.kernel.limitevents import Events
from tests.unit.mutants import fails, mutant

MIB = 1 << 20
NOTHING = Events(oom_kill=0, oom=0, oom_below=0, forks_refused=0, above=(("/p", 4),))
LIMITED = NOTHING.replace(memory_max=64 * MIB, memory_peak=64 * MIB, pids_max=20)
SOMEBODY = "killed by SIGKILL: somebody sent it, not the OOM killer (oom_kill 0)"
EXITED = "exit status 137 is its own, or a process below it was killed by SIGKILL"
NO_COUNT = (
    "by somebody or by the OOM killer, of which the cgroup keeps no count without the memory "
    "controller; see dmesg | grep -i oom"
)

# before, after, exit status or minus a signal, who said that it sent SIGKILL, what is told
CASES = {
    "a good end": (NOTHING, LIMITED, 0, "", []),
    "a bad end of its own": (NOTHING, LIMITED, 3, "", []),
    "its own limit": (
        NOTHING, LIMITED.replace(oom_kill=1, oom=1, oom_below=1), -9, "",
        ["killed by the OOM killer in its own cgroup: peak 64.0 MiB of 64.0 MiB (oom_kill 1)"],
    ),
    "no memory.peak before 5.19": (
        NOTHING, LIMITED.replace(oom_kill=1, oom=1, oom_below=1, memory_peak=None), -9, "",
        ["killed by the OOM killer in its own cgroup: memory.max 64.0 MiB (oom_kill 1)"],
    ),
    "a child of a program that lives on": (
        NOTHING, LIMITED.replace(oom_kill=1, oom=2, oom_below=2), 0, "",
        ["a process was killed by the OOM killer in its own cgroup: peak 64.0 MiB of 64.0 MiB "
         "(oom_kill 1)"],
    ),
    "children": (
        NOTHING, LIMITED.replace(oom_kill=3, oom=3, oom_below=3), 1, "",
        ["3 processes were killed by the OOM killer in its own cgroup: peak 64.0 MiB of 64.0 MiB "
         "(oom_kill 3)"],
    ),
    "memory.oom.group": (
        NOTHING, LIMITED.replace(oom_kill=2, oom=1, oom_below=1, oom_group_kill=1), -9, "",
        ["killed by the OOM killer in its own cgroup: peak 64.0 MiB of 64.0 MiB (oom_kill 2, all "
         "together: memory.oom.group 1)"],
    ),
    "a limit further in": (
        NOTHING, LIMITED.replace(oom_kill=1, oom=0, oom_below=1), -9, "",
        ["killed by the OOM killer in a cgroup of its own making, below its own (oom_kill 1)"],
    ),
    "a limit further out": (
        NOTHING, LIMITED.replace(oom_kill=1, above=(("/p", 5),)), -9, "",
        ["killed by the OOM killer for the limit of an outer cgroup, /p (oom_kill 1)"],
    ),
    "the whole machine": (
        NOTHING, LIMITED.replace(oom_kill=1), -9, "",
        ["killed by the OOM killer of the whole machine, which ran out of memory: it met no limit "
         "(oom_kill 1)"],
    ),
    "what was counted before is not its own": (
        LIMITED.replace(oom_kill=2, oom=2, oom_below=2, forks_refused=5),
        LIMITED.replace(oom_kill=2, oom=2, oom_below=2, forks_refused=5), -9, "", [SOMEBODY],
    ),
    "a new cgroup below one that has counted": (
        Events(above=(("/p", 4),)), LIMITED.replace(oom_kill=1), -9, "",
        ["killed by the OOM killer of the whole machine, which ran out of memory: it met no limit "
         "(oom_kill 1)"],
    ),
    "its own limit was met before, and now the machine's": (
        LIMITED.replace(oom_kill=2, oom=2, oom_below=2),
        LIMITED.replace(oom_kill=3, oom=2, oom_below=2), -9, "",
        ["killed by the OOM killer of the whole machine, which ran out of memory: it met no limit "
         "(oom_kill 1)"],
    ),
    "somebody": (NOTHING, LIMITED, -9, "", [SOMEBODY]),
    "somebody who said so": (NOTHING, LIMITED, -9, "root", ["killed by SIGKILL: root sent it"]),
    "both": (
        NOTHING, LIMITED.replace(oom_kill=1, oom=1, oom_below=1), -9, "root",
        ["a process was killed by the OOM killer in its own cgroup: peak 64.0 MiB of 64.0 MiB "
         "(oom_kill 1)", "killed by SIGKILL: root sent it"],
    ),
    "nobody counts": (Events(), Events(), -9, "", ["killed by SIGKILL: " + NO_COUNT]),
    "it exited with 137": (
        NOTHING, LIMITED, 137, "", [EXITED + "; no OOM kill was counted (oom_kill 0)"],
    ),
    "it exited with 137, and nobody counts": (
        Events(), Events(), 137, "", [EXITED + ", " + NO_COUNT],
    ),
    "a shell whose program was too big": (
        NOTHING, LIMITED.replace(oom_kill=1, oom=1, oom_below=1), 137, "",
        ["a process was killed by the OOM killer in its own cgroup: peak 64.0 MiB of 64.0 MiB "
         "(oom_kill 1)"],
    ),
    "another signal": (NOTHING, LIMITED, 128 + 15, "", []),
    "forks": (
        NOTHING, LIMITED.replace(forks_refused=3), 2, "",
        ["fork was refused 3 times: pids.max 20 (pids.events max 3)"],
    ),
    "one fork": (
        NOTHING.replace(forks_refused=1), LIMITED.replace(forks_refused=2), 2, "",
        ["fork was refused once: pids.max 20 (pids.events max 1)"],
    ),
    "forks, for another's limit": (
        NOTHING, LIMITED.replace(forks_refused=1, pids_max=limitevents.UNLIMITED), 2, "",
        ["fork was refused once: pids.max of an outer cgroup (pids.events max 1)"],
    ),
}  # fmt: skip


def check_all(module=limitevents):
    for name, (before, after, status, sender, lines) in CASES.items():
        assert list(module.compare(before, after, status, sender).lines) == lines, name


def test_what_the_counters_say():
    check_all()
    assert limitevents.compare(NOTHING, LIMITED.replace(oom_kill=2), 0).oom_kills == 2
    assert limitevents.compare(Events(), Events(), 0).oom_kills is None


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("kills = after.oom_kill - (before.oom_kill or 0)", "kills = after.oom_kill"),
        ("refused = after.forks_refused - (before.forks_refused or 0)",
         "refused = after.forks_refused"),
        ("if (after.oom or 0) > (before.oom or 0):", "if after.oom or 0:"),
        ("if (after.oom_below or 0) > (before.oom_below or 0):", "if False:"),
        ("if oom > earlier.get(path, 0):", "if oom:"),
        ("if end != -_SIGKILL or sender:", "if end != -_SIGKILL:"),
        ("elif end == -_SIGKILL and not kills:", "elif end == -_SIGKILL:"),
        ("elif end == -_SIGKILL and", "elif end in (-_SIGKILL, 128 + _SIGKILL) and"),
        ("elif end == 128 + _SIGKILL and not kills:", "elif end == 128 + _SIGKILL:"),
        ("elif end == 128 + _SIGKILL and", "elif False and"),
        ("whom = whom if kills == 0 else", "whom = whom if not kills else"),
        ("what + (whom if kills == 0 else", "what + (whom if not kills else"),
        ("if after.oom_group_kill > before.oom_group_kill:", "if False:"),
        ("if after.pids_max not in (None, UNLIMITED):", "if True:"),
    ],
)  # fmt: skip
def test_the_check_on_the_counters_can_fail(old, new):
    fails(check_all, mutant(limitevents, old, new))


def test_whatever_the_counters_are_one_cause_of_death_is_told():
    """Never two that exclude each other, never none for a SIGKILL."""
    for kills, oom, end, sender in itertools.product((None, 0, 1), (0, 1), (0, -9), ("", "x")):
        after = LIMITED.replace(oom_kill=kills, oom=oom, oom_below=oom)
        lines = limitevents.compare(NOTHING, after, end, sender).lines
        deaths = [line for line in lines if line.startswith("killed by")]
        assert len(deaths) == (1 if end == -9 else 0), (kills, oom, end, sender, lines)


# ---- the files


def check_files(path, module=limitevents):
    """As Linux 6.12 writes them."""
    box = path / "slice/box"
    box.mkdir(parents=True, exist_ok=True)
    for name, text in {
        "memory.events": "low 0\nhigh 0\nmax 7\noom 3\noom_kill 2\noom_group_kill 1\n",
        "memory.events.local": "low 0\nhigh 0\nmax 7\noom 1\noom_kill 2\noom_group_kill 1\n",
        "memory.peak": "1048576\n", "memory.max": "max\n",
        "pids.events": "max 9\n", "pids.events.local": "max 5\n", "pids.max": "20\n",
    }.items():  # fmt: skip
        (box / name).write_text(text)
    (path / "slice/memory.events.local").write_text("oom 4\n")
    assert module.read(str(box)) == module.Events(
        oom_kill=2, oom=1, oom_below=3, oom_group_kill=1, forks_refused=5,
        above=((str(path / "slice"), 4),), memory_peak=1048576, memory_max=-1, pids_max=20,
    )  # fmt: skip
    # before 6.11, 5.17 and 5.2
    for name in ("pids.events.local", "memory.events.local", "memory.peak"):
        (box / name).unlink()
    (box / "memory.events").write_text("low 0\nhigh 0\nmax 7\noom 3\noom_kill 2\n")
    old = module.read(str(box))
    assert (old.forks_refused, old.oom, old.oom_group_kill, old.memory_peak) == (9, 3, 0, None)


def test_the_files(tmp_path):
    check_files(tmp_path)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('pairs(path, "pids.events.local") or ', ""),
        ('.get("oom", memory.get("oom"))', '.get("oom")'),
        ('memory.get("oom_group_kill", 0)', 'memory["oom_group_kill"]'),
        ("found.append((path, local", "found.append((path + '/', local"),
    ],
)  # fmt: skip
def test_the_check_on_the_files_can_fail(tmp_path, old, new):
    fails(check_files, tmp_path, mutant(limitevents, old, new))


def test_no_cgroup_no_counters():
    assert limitevents.read("") == Events()
    assert limitevents.read("/sys/fs/cgroup/minicontainer-never-made").oom_kill is None


# ---- real ends


def check_end(busybox, flags, script, status, told):
    done = busybox("run", "--rm", "--network", "none", *flags, "busybox", "sh", "-c", script)
    assert done.status == status, done
    words = [line for line in done.err.splitlines() if line.startswith("minicontainer: ")]
    assert len(words) == len(told), done.err
    for line, start in zip(words, told, strict=True):
        assert line.startswith("minicontainer: " + start), done.err


OWN = "by the OOM killer in its own cgroup: peak 16.0 MiB of 16.0 MiB (oom_kill "


@pytest.mark.requires_root
@pytest.mark.kernel("memory", "pids")
@pytest.mark.parametrize(
    ("flags", "script", "status", "told"),
    [
        (["-m", "16m"], "exec tail /dev/zero", 137, ["killed " + OWN + "1)"]),
        (["-m", "16m"], "tail /dev/zero; exit 5", 5, ["a process was killed " + OWN + "1)"]),
        (["-m", "16m"], "tail /dev/zero; tail /dev/zero; exit 0", 0,
         ["2 processes were killed " + OWN + "2)"]),
        (["-m", "16m", "--oom-group"], "tail /dev/zero; exit 5", 137, ["killed " + OWN]),
        # (with oom.group the kernel counts the one it chose first twice)
        (["--pids-limit", "4"], "for i in 1 2 3 4 5; do sleep 9 & done; exit 5", 2,
         ["fork was refused once: pids.max 4 (pids.events max 1)"]),
        (["-m", "64m", "--pids-limit", "4"], "exit 5", 5, []),
        (["-m", "64m"], "kill -9 $$; sleep 1; exit 5", 5, []),  # pid 1 does not hear its own
        (["-m", "64m"], "exit 137", 137,
         [EXITED + "; no OOM kill was counted (oom_kill 0)"]),
    ],
)  # fmt: skip
def test_a_limit_that_was_met_is_told(busybox, flags, script, status, told):
    check_end(busybox, flags, script, status, told)


@pytest.mark.requires_root
@pytest.mark.kernel("memory")
def test_with_oom_group_all_end_together(busybox):
    words = ["run", "--network", "none", "-m", "16m", "busybox", "sh", "-c", "tail /dev/zero; exit"]
    alone, group = busybox(*words), busybox(*words[:1], "--oom-group", *words[1:])
    assert ": killed by the OOM killer" in group.err and "all together" in group.err
    assert ": a process was killed by the OOM killer" in alone.err
    assert (group.status, alone.status) == (137, 137)  # the latter is tail's, as sh has it


@pytest.mark.requires_root
@pytest.mark.kernel("memory", "pids")
def test_the_check_on_real_ends_can_fail(busybox):
    fails(check_end, busybox, ["-m", "64m"], "exit 137", 137, ["killed " + OWN])


@pytest.mark.requires_root
@pytest.mark.kernel("memory")
def test_an_outer_limit_is_not_taken_for_its_own(busybox):
    """A parent with 24 MiB, a container in it that may have 64."""
    parent = cgroup.mount_point() + "/minicontainer-outer"
    cgroup.make(parent)
    try:
        with open(cgroup.mount_point() + "/cgroup.subtree_control", "w") as file:
            file.write("+memory")
        with open(parent + "/memory.max", "w") as file:
            file.write(str(24 * MIB))
        words = (
            f"killed by the OOM killer for the limit of an outer cgroup, {parent}: memory.max 24"
        )
        flags = ["-m", "64m", "--cgroup-parent", "/minicontainer-outer"]
        check_end(busybox, flags, "exec tail /dev/zero", 137, [words])
    finally:
        cgroup.remove(parent)


def check_used_cgroup(layer, path, module):
    """A cgroup that is there already, and has counted an OOM kill and a refused fork before."""
    spec = Spec(
        process=Process(args=("sh", "-c", "exit 3")), root=Root(layers=(layer,)),
        linux=Linux(cgroups_path=path),
    )  # fmt: skip
    with module.Container(spec) as container:
        assert container.wait() == 3
        assert container.post_mortem is not None
        assert container.post_mortem.lines == ()
        assert container.post_mortem.oom_kills == 0


@pytest.mark.requires_root
@pytest.mark.kernel("memory", "pids")
def test_what_a_used_cgroup_has_counted_is_not_the_containers(busybox, monkeypatch):
    monkeypatch.setenv("MINICONTAINER_ROOT", str(busybox.root))
    monkeypatch.setenv("MINICONTAINER_RUN", str(busybox.run))
    image = Store().get("busybox")
    assert image
    path = "/minicontainer-used/box"
    box = cgroup.mount_point() + path
    try:
        counted_before(box)
        check_used_cgroup(image.layers[0], path, runtime)
        counted_before(box)
        forgetful = mutant(runtime, "if used := os.path.exists(self._cgroup):", "if used := False:")
        fails(check_used_cgroup, image.layers[0], path, forgetful)
    finally:
        cgroup.remove(os.path.dirname(box))


def counted_before(box):
    """Make the cgroup, and have a process in it die for want of memory."""
    cgroup.make(box)
    for above in (cgroup.mount_point(), os.path.dirname(box)):
        Path(above, "cgroup.subtree_control").write_text("+memory +pids")
    Path(box, "memory.max").write_text(str(8 * MIB))
    join = f'echo 0 > "{box}/cgroup.procs"; exec tail /dev/zero'
    assert subprocess.run(["sh", "-c", join]).returncode == -9
    Path(box, "memory.max").write_text("max")
    assert limitevents.read(box).oom_kill == 1
