"""Another terminal looks at a foreground container, and takes hold of it: the verbs, on real ones.

Everything here needs a cgroup2 tree of any kind, and no controller; what needs one is marked.
"""

from __future__ import annotations

import json
import os
import re
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from minicontainer.cli import missing, statsview
from tests.support import CHECKOUT, Cli, Host
from tests.unit.mutants import fails, mutant

pytestmark = pytest.mark.requires_root

COUNT = "echo ready; while :; do echo; sleep 0.01; done"
PATIENCE = 30.0  # seconds, for what should come at once; less where a mutant keeps it from coming
SLEEP = "trap 'exit 7' TERM; echo ready; while :; do sleep 1; done"


def until(condition: Callable[[], object], what: str) -> None:
    """Sleep until it is so."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.02)


class Running:
    """A container in the foreground of a terminal that is not ours."""

    def __init__(self, cli: Cli, name: str, script: str = SLEEP, *flags: str) -> None:
        self.cli = cli
        self.name = name
        self.process = cli.start(
            "run",
            "--rm",
            "--network",
            "none",
            "--name",
            name,
            *flags,
            "busybox",
            "sh",
            "-c",
            script,
        )
        assert self.process.stdout and self.process.stdout.readline().strip() == "ready"
        until(lambda: self.say("{{.State.Status}}") == "running", "it is not on record")

    def say(self, template: str) -> str:
        """What inspect says."""
        return self.cli("inspect", "-f", template, self.name).out.rstrip("\n")

    def end(self) -> tuple[int, str]:
        """Exit status and standard error of its runtime."""
        until(lambda: self.process.poll() is not None, "it does not end")
        _, words = self.process.communicate()
        return self.process.returncode, words


@pytest.fixture
def web(busybox: Cli) -> Running:
    return Running(busybox, "web")


@pytest.fixture
def broken(
    busybox: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str, str, str], Cli]:
    """A minicontainer whose FILE has NEW where it had OLD, with the same data and containers."""

    def make(file: str, old: str, new: str) -> Cli:
        monkeypatch.setitem(globals(), "PATIENCE", 3.0)
        shutil.copytree(CHECKOUT / "minicontainer", tmp_path / "broken/minicontainer")
        source = tmp_path / "broken/minicontainer" / file
        text = source.read_text()
        assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in {file}"
        source.write_text(text.replace(old, new))
        launcher = tmp_path / "broken/launcher"
        words = busybox.launcher.read_text()
        shutil.rmtree(
            tmp_path / "broken/minicontainer/__pycache__"
        )  # and what is loaded from there
        for path in (str(CHECKOUT), f"{CHECKOUT}/minicontainer/__pycache__/run."):
            there = path.replace(str(CHECKOUT), str(tmp_path / "broken"))
            words = words.replace(repr(path), repr(there))
        launcher.write_text(words)
        launcher.chmod(0o755)
        command = Cli(launcher, busybox.root, busybox.run)
        command.started = busybox.started  # closed with it
        return command

    return make


# ---- ps


def check_ps(cli: Cli) -> None:
    heading = ["CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"]
    assert cli("ps").out == "   ".join(heading) + "\n"
    one, two = Running(cli, "one"), Running(cli, "two", "echo ready; sleep 600")
    lines = cli("ps").out.splitlines()
    assert len(lines) == 3
    cells = [lines[1][lines[0].index(word) :].split("   ")[0].strip() for word in heading]
    assert (cells[1], cells[2]) == ("busybox", '"sh -c \'echo ready; …"')
    assert re.fullmatch(r"(Less than a|\d+) seconds? ago", cells[3]), cells
    assert re.fullmatch(r"Up (Less than a|\d+) seconds?", cells[4]), cells
    assert cells[5:] == ["", "two"]
    ids = cli("ps", "-q", "--no-trunc").out.split()
    assert ids == [two.say("{{.Id}}"), one.say("{{.Id}}")]
    assert cli("ps", "-q").out.split() == [name[:12] for name in ids]
    assert cli("ps", "--format", "{{.Names}}={{.State}}").out == "two=running\none=running\n"
    first = json.loads(cli("ps", "--json").out.splitlines()[0])
    assert (first["Names"], first["Image"], first["ID"]) == ("two", "busybox", ids[0][:12])
    assert "echo ready; sleep 600" in cli("ps", "--no-trunc").out
    assert cli("pause", "one").status == 0
    assert "(Paused)" in cli("ps").out.splitlines()[2]
    assert cli("kill", "one", "two").out == "one\ntwo\n"
    assert one.end()[0] == two.end()[0] == 137
    assert len(cli("ps", "-a").out.splitlines()) == 1


def test_ps_lists_what_runs(busybox: Cli, leaves_nothing: Host) -> None:
    check_ps(busybox)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('one for one in all_known("ps")', 'one for one in reversed(all_known("ps"))'),
        ('"ID": one.id if full else one.id[:12]', '"ID": one.id'),
        ('command[:19] + "…"', "command[:20]"),
        ('return f"{up} (Paused)" if status', "return up if status"),
        ('        form = "{{.ID}}"', "        pass"),
    ],
)
def test_the_check_on_ps_can_fail(broken, old: str, new: str) -> None:
    fails(check_ps, broken("cli/ps.py", old, new))


# ---- inspect


def check_inspect(cli: Cli) -> None:
    web = Running(cli, "web")
    (found,) = json.loads(cli("inspect", "web").out)
    state = found["State"]
    assert (found["Name"], found["Path"], found["Args"]) == ("/web", "sh", ["-c", SLEEP])
    assert found["Config"] == {"Image": "busybox", "Cmd": ["sh", "-c", SLEEP]}
    assert (state["Status"], state["Running"], state["Paused"]) == ("running", True, False)
    command = Path(f"/proc/{state['Pid']}/cmdline").read_bytes().split(b"\0")
    assert command[:2] == [b"sh", b"-c"]
    assert Path(found["CgroupPath"], "cgroup.procs").read_text().split()[0] == str(state["Pid"])
    assert (
        found["Created"] < state["StartedAt"] < time.strftime("%Y-%m-%dT%H:%M:%S.~", time.gmtime())
    )
    assert state["FinishedAt"] == "0001-01-01T00:00:00Z"
    assert web.say("{{json .State.Running}} {{.State.Paused}}") == "true false"
    done = cli("inspect", "web", "nope")
    assert (done.status, json.loads(done.out)) == (1, [found])
    assert done.err.startswith("minicontainer: No such container: nope\n")
    assert cli("inspect", "-f", "{{.Nope}}", "web").status == 125


def test_inspect_tells_what_is(busybox: Cli) -> None:
    check_inspect(busybox)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"Path": one.command[0] if one.command else "",', '"Path": "",'),
        ('"Pid": one.pid if alive else 0', '"Pid": 1'),
        ("    if not seconds:\n        return NEVER\n", ""),
        ("    if failed:\n", "    if False:\n"),
        ("time.gmtime(seconds)", "time.gmtime(seconds + 7200)"),
    ],
)
def test_the_check_on_inspect_can_fail(broken, old: str, new: str) -> None:
    fails(check_inspect, broken("cli/inspect.py", old, new))


def test_the_post_mortem_is_kept_as_long_as_the_container_is(
    busybox: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through Python, where the end and the removal are apart."""
    from minicontainer import Container, Process, Root, Spec
    from minicontainer.image.store import Store

    monkeypatch.setenv("MINICONTAINER_ROOT", str(busybox.root))
    monkeypatch.setenv("MINICONTAINER_RUN", str(busybox.run))
    image = Store().get("busybox")
    assert image
    spec = Spec(process=Process(args=("sleep", "600")), root=Root(layers=tuple(image.layers)))
    with Container(spec, name="kept", image="busybox") as container:
        assert busybox("kill", "kept").status == 0
        assert container.wait() == 137
        (found,) = json.loads(busybox("inspect", "kept").out)
        assert (found["State"]["Status"], found["State"]["ExitCode"]) == ("exited", 137)
        assert found["State"]["OOMKilled"] is False
        assert found["State"]["PostMortem"] == [
            "killed by SIGKILL: `minicontainer kill` (by uid 0) sent it"
        ]
        assert found["State"]["FinishedAt"] > found["State"]["StartedAt"]
        assert "Exited (137)" in busybox("ps", "-a").out
        assert len(busybox("ps").out.splitlines()) == 1
        assert busybox("pause", "kept").status == 1
    assert busybox("inspect", "kept").status == 1


# ---- top


def check_top(cli: Cli) -> None:
    web = Running(cli, "web", "sleep 600 & echo ready; exec sleep 601", "-t")
    out = cli("top", "web").out.splitlines()
    assert out[0].split() == "UID PID PPID C STIME TTY TIME NSPID CMD".split()
    rows = {line.split(None, 8)[8]: line.split(None, 8) for line in out[1:]}
    first, second = rows["sleep 601"], rows["sleep 600"]
    assert first[1] == web.say("{{.State.Pid}}")
    assert (first[0], first[7], second[7]) == ("root", "1", "2")
    assert second[2] == first[1], "the parent's number here"
    assert first[5] == "pts/0", "the first of its own devpts (devices(4))"
    ask = ["ps", "-o", "user=,pid=,ppid=,time=", "-p", f"{first[1]},{second[1]}"]
    for line in subprocess.check_output(ask, text=True).splitlines():
        user, pid, parent, cpu = line.split()
        (mine,) = [row for row in rows.values() if row[1] == pid]
        assert [mine[0], mine[2], mine[6]] == [user, parent, cpu]
    now = time.time()
    assert first[4] in {time.strftime("%H:%M", time.localtime(now - ago)) for ago in (0, 30, 60)}
    # as one knows it, and without -e, where ps alone would list the caller's own terminal; and
    # with an option that does not go with the -q of ps(1)
    for options in (["-eo"], ["-o"], ["--forest", "-eo"]):
        by_ps = cli("top", "web", *options, "pid,args").out.splitlines()
        assert sorted(re.sub(r"[|\\]_?", "", line).split() for line in by_ps[1:]) == sorted(
            [[first[1], "sleep", "601"], [second[1], "sleep", "600"]]
        ), options
        assert by_ps[0].split() == ["PID", "COMMAND"]
    assert "Couldn't find PID field" in cli("top", "web", "-eo", "args").err
    assert cli("top", "web", "--nonsense").status == 1
    nobody = cli("top", "web", "-o", "pid", "-p", str(os.getpid()))
    assert (nobody.status, nobody.out, "shows none of its processes" in nobody.err) == (1, "", True)
    assert cli("top").status == 125


def test_top_tells_both_numbers(busybox: Cli) -> None:
    check_top(busybox)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('lines["NSpid"].split()[-1]', 'lines["NSpid"].split()[0]'),
        ("        fields[1].decode(),", "        str(pid),"),
        ("(major - 136) * 256 + minor", "0"),
        ("user_name(int(lines", "str(int(lines"),
        ("for line in lines if int(line.split()[column]) in pids", "for line in lines"),
        ("ask(f\"-q{','.join(map(str, pids))}\")", "ask()"),
        ("            done = ask()", "            pass"),
        ("    if not found:\n", "    if False:\n"),
        ("    for pid in pids:", "    for pid in pids[:1]:"),
    ],
)
def test_the_check_on_top_can_fail(broken, old: str, new: str) -> None:
    if "136" in old:
        new = "99"
    fails(check_top, broken("cli/ps.py", old, new))


# ---- pause, unpause


def check_pause(cli: Cli) -> None:
    """What it prints stops, and goes on; its runtime does not notice."""
    web = Running(cli, "web", COUNT)
    assert web.process.stdout
    assert cli("unpause", "web").err.endswith("is not paused\n")
    assert cli("pause", "web").out == "web\n"
    out = web.process.stdout.fileno()
    os.set_blocking(out, False)
    while os.read(out, 65536) if select.select([out], [], [], 0)[0] else b"":
        pass  # what it wrote before
    assert not select.select([out], [], [], 0.2)[0]
    assert web.say("{{.State.Status}} {{.State.Paused}}") == "paused true"
    again = cli("pause", "web")
    assert (again.status, again.out) == (1, "")
    assert re.search(r"container [0-9a-f]{64} is already paused", again.err)
    assert cli("unpause", "web").out == "web\n"
    assert select.select([out], [], [], PATIENCE)[0]
    assert web.process.poll() is None
    assert cli("pause", "nope").err.startswith("minicontainer: No such container: nope\n")
    assert cli("pause").status == 125


def test_pause_and_unpause(busybox: Cli) -> None:
    check_pause(busybox)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("        freezer.freeze(path)", "        pass"),
        ("        freezer.thaw(path)", "        pass"),
        ("        if freezer.is_frozen(path):", "        if False:"),
        ("        if not freezer.is_frozen(path):", "        if False:"),
    ],
)
def test_the_check_on_pause_can_fail(broken, old: str, new: str) -> None:
    fails(check_pause, broken("cli/control.py", old, new))


def test_signals_for_a_paused_container_wait_and_its_end_does_not(
    busybox: Cli, leaves_nothing: Host
) -> None:
    web = Running(busybox, "web")
    busybox("pause", "web")
    web.process.send_signal(signal.SIGTERM)  # Ctrl-C and the like, in its own terminal
    assert busybox("kill", "-s", "TERM", "web").status == 0
    assert web.say("{{.State.Status}}") == "paused"
    busybox("unpause", "web")
    assert web.end() == (7, "")
    web = Running(busybox, "web")
    busybox("pause", "web")
    assert busybox("kill", "web").out == "web\n"
    assert web.end()[0] == 137
    web = Running(busybox, "web")
    busybox("pause", "web")
    web.process.kill()  # the runtime: then the kernel ends the container, frozen or not
    assert web.end()[0] == -9
    until(lambda: busybox("ps", "-aq").out == "", "it was not swept")


# ---- kill


def check_kill(cli: Cli) -> None:
    web, other = Running(cli, "web"), Running(cli, "other", "sleep 600 & " + SLEEP)
    done = cli("kill", "--signal=TERM", "web", "nope")
    assert (done.status, done.out) == (1, "web\n")
    assert web.end() == (7, ""), "128+n is for who has no handler"
    path = other.say("{{.CgroupPath}}")
    pids = Path(path, "cgroup.procs").read_text().split()
    assert len(pids) >= 2
    assert cli("kill", other.say("{{.Id}}")[:9]).status == 0
    status, words = other.end()
    assert status == 137
    assert words == "minicontainer: killed by SIGKILL: `minicontainer kill` (by uid 0) sent it\n"
    assert not any(os.path.exists(f"/proc/{pid}") for pid in pids)
    for signal_, message in (("FOO", "invalid signal: FOO"), ("0", "invalid signal: 0")):
        done = cli("kill", "-s", signal_, "web")
        assert (done.status, message in done.err) == (125, True)


def test_kill(busybox: Cli, leaves_nothing: Host) -> None:
    check_kill(busybox)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('number = parsed.one("signal", signal_number, 9)', "number = 9"),
        ("                state.append(one.id", "                str((one.id"),
        ("                process.kill(pidfd, number)", "                pass"),
    ],
)
def test_the_check_on_kill_can_fail(broken, old: str, new: str) -> None:
    if "append" in old:
        old, new = 'killed=f"`minicontainer kill`', 'ended_by=f"`minicontainer kill`'
    fails(check_kill, broken("cli/control.py", old, new))


def check_sigkill(cli: Cli) -> None:
    """Ways to 137, and what can be said of each: a stranger is blamed only where there is one."""
    web = Running(cli, "web")
    os.kill(int(web.say("{{.State.Pid}}")), signal.SIGKILL)
    status, words = web.end()
    assert status == 137
    assert words.startswith("minicontainer: killed by SIGKILL: ")
    assert "minicontainer kill" not in words
    quiet = Running(cli, "web", SLEEP, "--quiet")  # -q is about the image, not about this
    assert cli("kill", "web").status == 0
    assert quiet.end()[1].startswith("minicontainer: killed by SIGKILL: `minicontainer kill`")
    for flags, script in (
        ([], "sh -c 'kill -9 $$'; exit $?"), ([], "exit 137"), (["--init"], "kill -9 $$"),
    ):  # fmt: skip
        done = cli("run", "--rm", "--network", "none", *flags, "busybox", "sh", "-c", script)
        assert done.status == 137
        words = done.err.removeprefix("Killed\n")  # the shell's
        assert words.startswith("minicontainer: exit status 137 is its own, or a process below")
        assert words.count("\n") == 1 and "somebody sent it" not in words


def test_who_sent_a_sigkill_and_to_whom(busybox: Cli) -> None:
    check_sigkill(busybox)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("if ended and ended.si_status == 9 and status == 128 + 9 else", "if status == 137 else"),
        ('state.read_facts(self.id).get("killed", "") if end == -9 else ""', '""'),
        ("    for line in container.post_mortem.lines if container.post_mortem else ():",
         "    for line in ():"),
    ],
)  # fmt: skip
def test_the_check_on_sigkill_can_fail(broken, old: str, new: str) -> None:
    fails(check_sigkill, broken("runtime.py", old, new))


def test_an_end_of_its_own_needs_no_words(busybox: Cli) -> None:
    for script, status in (("exit 0", 0), ("exit 3", 3), ("kill -TERM $$; exit 9", 9)):
        done = busybox("run", "--rm", "--network", "none", "busybox", "sh", "-c", script)
        assert (done.status, done.err) == (status, "")


def check_network_note(cli: Cli) -> None:
    """What is missing is said, with the flag that silences it; and it does."""
    assert cli("run", "--rm", "busybox", "true").err == (
        "minicontainer: no network but loopback: bridges are not supported yet "
        "(use --network none to silence this)\n"
    )
    assert cli("run", "--rm", "--network", "none", "busybox", "true").err == ""


def test_the_missing_network_is_told(busybox: Cli) -> None:
    check_network_note(busybox)


@pytest.mark.parametrize("new", ["if not (", "if (request.network_given or "])
def test_the_check_on_the_missing_network_can_fail(broken, new: str) -> None:
    fails(check_network_note, broken("cli/run.py", "if not (request.network_given or ", new))


def check_meanwhile(cli: Cli, words=missing) -> None:
    """What is to be typed in place of docker's verbs that are not here does what they would."""
    Running(cli, "web", "echo hello > /made; echo ready; exec sleep 600")

    def hinted(verb: str, start: str, end: str, **replaced: str) -> str:
        hint = words.verb(verb)[1]
        command = hint[hint.index(start) : hint.index(end) + len(end)].replace("NAME)", "web)")
        for old, new in replaced.items():
            command = command.replace(old, new)
        env = {**cli.env, "PATH": f"{cli.launcher.parent}:{os.environ['PATH']}"}
        command = command.replace("minicontainer ", f"{cli.launcher} ")
        shell = ["sh", "-c", command]
        return subprocess.run(shell, env=env, stdout=subprocess.PIPE, encoding="latin-1").stdout

    assert hinted("exec", "nsenter", " sh", sh="cat /made") == "hello\n"
    assert hinted("export", "tar", " -c .").count("hello\n") >= 1
    hinted("commit", "tar", "NEWNAME", NEWNAME="again")
    done = cli("run", "--rm", "--network", "none", "again", "cat", "/made")
    assert done.out == "hello\n"
    upper = hinted("diff", "grep", "mountinfo").split("upperdir=")[1].split(",")[0]
    assert Path(upper, "made").read_text() == "hello\n"


def test_what_to_do_meanwhile(busybox: Cli) -> None:
    check_meanwhile(busybox)


def test_the_check_on_meanwhile_can_fail(busybox: Cli) -> None:
    fails(
        check_meanwhile, busybox, mutant(missing, "-a -t {_PID} sh joins", "-n -t {_PID} sh joins")
    )


# ---- cgroup devices


def test_devices_are_those_that_were_asked_for(busybox: Cli) -> None:
    """What the kernel holds, against what the container may really do."""
    web = Running(busybox, "web", SLEEP, "--device", "/dev/null:/dev/mine:r")
    out = busybox("cgroup", "devices", "web").out
    assert out.startswith(web.say("{{.CgroupPath}}") + "\nprogram ")
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert "refuse everything" in lines and "allow c 1:3 r /dev/null" in lines
    assert "exit" not in out
    assert "exit" in busybox("cgroup", "devices", "--instructions", "web").out
    free = Running(busybox, "free", SLEEP, "--privileged")
    assert "every device may be opened" in busybox("cgroup", "devices", "free").out
    for words in (["devices"], ["devices", "web", "free"], ["nope"]):
        assert busybox("cgroup", *words).status == 125
    assert busybox("cgroup", "devices", "nope").status == 1
    assert free.say("{{.State.Running}}") == "true"


# ---- stats


def check_stats(cli: Cli) -> None:
    """Two containers: one does nothing, one all it can."""
    Running(cli, "idle", "echo ready; exec sleep 600")
    Running(cli, "busy", "echo ready; while :; do :; done")
    done = cli("stats", "--no-stream")
    heading, *rows = done.out.splitlines()
    for word in ("CPU %", "MEM USAGE / LIMIT", "MEM %", "NET I/O", "BLOCK I/O", "PIDS", "ANON"):
        assert word in heading
    assert len(rows) == 2
    form = ["--no-stream", "--format", "{{.Name}} {{.CPUPerc}}"]
    shares = dict(line.split() for line in cli("stats", *form).out.splitlines())
    assert float(shares["idle"].rstrip("%")) < 5 < float(shares["busy"].rstrip("%"))
    assert cli("stats", *form, "idle").out.startswith("idle ")
    (one,) = map(json.loads, cli("stats", "--no-stream", "--json", "busy").out.splitlines())
    assert one["Raw"]["cpu_usec"] > 0 and len(one["ID"]) == 12
    # whatever is "-" has its reason, told once; and nothing else has one
    empty = {key for key in ("MemUsage", "PIDs", "BlockIO", "Throttled") if one[key] == "-"}
    told = done.err.count("is not known")
    assert bool(empty) <= bool(one["Missing"]) and told == len(one["Missing"])
    assert cli("stats", "--no-stream", "nope").status == 1
    raw = cli("stats", "--no-stream", "--format", "{{.Container}} {{.Raw.cpu_usec}}", "busy")
    assert int(raw.out.split()[1]) > 0
    table_ = cli("stats", "--no-stream", "--format", r"table {{.Container}}\t{{.Name}}", "busy")
    assert table_.out.splitlines()[0].split() == ["CONTAINER", "NAME"]
    wrong = cli("stats", "--format", "{{.Nope}}", "nope")  # the line itself is wrong: found first
    assert wrong.status == 125


def test_stats_once(busybox: Cli) -> None:
    check_stats(busybox)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("before.get(name), known", "None, known"),
        ("if words else known\n", "if False else known\n"),
        ("    template.check(form, statsview.KEYS)\n", ""),
        ('if missing != told and form != "json":', "if False:"),
    ],
)
def test_the_check_on_stats_can_fail(broken, old: str, new: str) -> None:
    fails(check_stats, broken("cli/stats.py", old, new))


@pytest.mark.kernel("memory", "pids", "cpu", "io")
def test_stats_where_everything_is_counted(busybox: Cli) -> None:
    """docker's numbers, beside where the memory is; throttling; and nothing is missing but PSI."""
    fill = "dd if=/dev/zero of=/dev/shm/file bs=1M count=10 2>/dev/null; "
    limits = ("-m", "64m", "--pids-limit", "20", "--cpus", "0.1", "--blkio-weight", "500")
    Running(busybox, "busy", fill + "echo ready; while :; do :; done", *limits)

    def look() -> dict[str, Any]:
        done = busybox("stats", "--no-stream", "--json", "busy")
        found: dict[str, Any] = json.loads(done.out)
        return found

    until(lambda: (look()["Raw"]["throttled"] or 0) > 2, "it is not throttled")
    seen = look()
    raw = seen["Raw"]
    assert seen["MemUsage"].endswith(" / 64MiB") and raw["memory_max"] == 64 << 20
    assert raw["file"] >= 10 << 20, "tmpfs is file"
    assert raw["working_set"] == max(raw["memory"] - raw["inactive_file"], 0)
    assert float(seen["MemPerc"].rstrip("%")) == round(100 * raw["working_set"] / (64 << 20), 2)
    assert (seen["PIDs"], raw["pids_max"]) == ("1", 20)
    assert (raw["cpu_quota"], raw["cpu_period"]) == (10_000, 100_000)
    assert raw["cpu_percent"] < 50, "a tenth of a CPU, give or take"
    assert seen["Throttled"] == f"{raw['throttled']} of {raw['periods']}"
    assert [line for line in seen["Missing"] if not line.startswith("waits: ")] == []


def check_live(cli: Cli) -> None:
    """In a terminal: repainted in place, with who comes and goes; after Ctrl-C the frame stays."""
    import pexpect

    one = Running(cli, "one")
    child = pexpect.spawn(
        str(cli.launcher), ["stats"], env={**cli.env, "TERM": "xterm"}, dimensions=(24, 120),
        timeout=PATIENCE, encoding="utf-8",
    )  # fmt: skip
    child.expect("\x1b\\[H")
    child.expect("CONTAINER ID +NAME +CPU %")
    child.expect("one ")
    child.expect("WORKING SET")  # 120 columns are not enough for one table
    Running(cli, "late")
    child.expect("\x1b\\[Hlate|late ")
    cli("kill", "one")
    assert one.end()[0] == 137
    child.expect("\x1b\\[J\x1b\\[H")
    child.expect("\x1b\\[J\x1b\\[H")
    child.expect("\x1b\\[J")
    assert "late" in child.before and "one " not in child.before
    for width in (80, 20):
        child.setwinsize(24, width)
        child.expect("\x1b\\[J\x1b\\[H")
        child.expect("\x1b\\[J\x1b\\[H")
        child.expect("\x1b\\[J")
        lines = [line.split("\x1b")[0] for line in child.before.split("\r\n")]
        assert max(map(len, lines)) <= width
        if width == 80:  # every column is there, and every reason to its end
            words = " ".join(" ".join(lines).split())
            for heading, _ in statsview.COLUMNS:
                assert heading in words
            for reason in json.loads(cli("stats", "--no-stream", "--json", "late").out)["Missing"]:
                assert reason in words
    child.sendintr()
    child.expect(pexpect.EOF)
    assert child.before.replace("^C", "").endswith("\r\n")
    assert child.before.rpartition("\x1b[J")[2].endswith("^C\r\n")
    child.close()
    assert child.exitstatus == 130
    assert "Traceback" not in child.before


def test_the_live_view(busybox: Cli) -> None:
    check_live(busybox)


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("cli/statsview.py", "{line[:columns]}", "{line}"),
        ("cli/statsview.py", 'f"\\x1b[H{text}', 'f"{text}'),
        ("cli/statsview.py", "*folded(missing, columns)", "*missing.splitlines()"),
        (
            "cli/stats.py",
            "        if sys.stdout.isatty():\n            print()",
            "        if False:\n            pass",
        ),
        ("cli/stats.py", "    while True:\n", "    for _ in range(2):\n"),
    ],
)
def test_the_check_on_the_live_view_can_fail(broken, file: str, old: str, new: str) -> None:
    import pexpect

    with pytest.raises((AssertionError, pexpect.ExceptionPexpect)):
        check_live(broken(file, old, new))


def test_the_live_view_of_one_ends_with_it(busybox: Cli) -> None:
    """Piped, as into a file: a table each second, and no escape sequences."""
    one = Running(busybox, "one")
    watching = busybox.start("stats", "one")
    assert watching.stdout
    assert watching.stdout.readline().startswith("CONTAINER ID")
    assert watching.stdout.readline().split()[1] == "one"
    busybox("kill", "one")
    one.end()
    out, _ = watching.communicate(timeout=PATIENCE)
    assert watching.returncode == 0
    assert "\x1b" not in out


# ---- update


def check_update(cli: Cli) -> None:
    web = Running(cli, "web", SLEEP, "-m", "64m", "--pids-limit", "20", "--cpus", "0.5")
    names = ("Memory", "PidsLimit", "CpuQuota", "CpuPeriod")
    limits = " ".join("{{.HostConfig." + name + "}}" for name in names)
    swap = Path(web.say("{{.CgroupPath}}"), "memory.swap.max")
    before = swap.read_text() if swap.exists() else ""
    assert web.say(limits) == f"{64 << 20} 20 50000 100000"
    assert cli("update", "-m", "100m", "--cpu-period", "50000", "web").out == "web\n"
    assert web.say(limits) == f"{100 << 20} 20 50000 50000"
    assert (swap.read_text() if swap.exists() else "") == before
    assert cli("update", "--cpu-quota", "20000", "web").status == 0
    assert web.say(limits) == f"{100 << 20} 20 20000 50000"
    done = cli("update", "-m", "128m", "--pids-limit", "30", "--cgroup", "pids.max=x", "web")
    assert (done.status, "EINVAL" in done.err) == (1, True)
    assert web.say(limits) == f"{100 << 20} 20 20000 50000", "all of them, or none"
    # an effect: a fork more than pids.max is refused from now on
    assert cli("update", "--pids-limit", "1", "web").status == 0
    assert web.end()[0] == 2
    later = Running(cli, "later", SLEEP, "--without", "accounting")
    assert "counted from now on" in cli("update", "-m", "64m", "later").err
    assert "counted from now on" not in cli("update", "-m", "65m", "later").err
    assert later.say("{{.HostConfig.Memory}}") == str(65 << 20)


@pytest.mark.kernel("memory", "pids", "cpu")
def test_update_changes_what_is_asked_for_and_nothing_else(busybox: Cli) -> None:
    check_update(busybox)


@pytest.mark.kernel("memory", "pids", "cpu")
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("            restore(path, file, text)", "            pass"),
        ("cpu = cpu.replace(period=now.cpu_period)", "pass"),
        ("cpu = cpu.replace(quota=now.cpu_quota)", "pass"),
        ("            step.run(context)", "            pass"),
        ("if not counted and os", "if os"),
    ],
)
def test_the_check_on_update_can_fail(broken, old: str, new: str) -> None:
    fails(check_update, broken("cli/update.py", old, new))


def test_update_says_what_it_wants(busybox: Cli) -> None:
    Running(busybox, "web")
    for words, status, message in (
        (["web"], 125, "you must provide one or more flags"),
        (["-m", "1", "web"], 125, "Minimum memory limit allowed is 6MB"),
        (["-m", "64m"], 125, "requires at least 1 argument"),
        (["-m", "64m", "nope"], 1, "No such container: nope"),
        (["--restart", "always", "web"], 125, "--restart is not supported yet"),
    ):  # fmt: skip
        done = busybox("update", *words)
        assert (done.status, message in done.err) == (status, True), done
