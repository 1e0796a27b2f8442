"""containers.py and the command line's targets: who is on record, and who a word means."""

from __future__ import annotations

import os
import subprocess
import time

import pytest

from minicontainer import containers, runtime, state
from minicontainer.cli import targets
from minicontainer.containers import Known, NoSuchContainer
from minicontainer.kernel.limitevents import PostMortem
from tests.unit.mutants import fails, mutant


@pytest.fixture(autouse=True)
def run_root(tmp_path, monkeypatch):
    monkeypatch.setenv("MINICONTAINER_RUN", str(tmp_path / "run"))
    return tmp_path / "run"


@pytest.fixture
def sleeper():
    process = subprocess.Popen(["sleep", "600"])
    yield process
    process.kill()
    process.wait()


def silent(text: str) -> None:
    """Say nothing."""


ONE = Known(id="aa11" + "0" * 60, name="web")
TWO = Known(id="aa22" + "0" * 60, name="aa11")  # a name that looks like the other's id
THREE = Known(id="bb33" + "0" * 60)


def check_find(module=containers):
    known = [ONE, TWO, THREE]
    assert module.find(ONE.id, known) is ONE
    assert module.find(ONE.id, [Known(id=ONE.id + "0"), ONE]) is ONE
    assert module.find("web", known) is ONE
    assert module.find("/web", known) is ONE  # as inspect prints it
    assert module.find("aa11", known) is TWO  # a whole name beats the beginning of an id
    assert module.find("aa110", known) is ONE
    assert module.find("b", known) is THREE
    with pytest.raises(
        module.NoSuchContainer, match=r"^multiple IDs found with provided prefix: aa$"
    ):
        module.find("aa", known)
    for word in ("", "c", "3", "we", "webb", "/"):
        with pytest.raises(module.NoSuchContainer, match=r"^No such container: "):
            module.find(word, known)
    assert NoSuchContainer("x").exit_code == 1


def test_a_word_means_one_container():
    check_find()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("        if one.id == word:", "        if one.id in word[:4]:"),
        ("if one.name and one.name == word", "if one.name == word"),
        ("    if len(found) > 1:", "    if False:"),
        ("if word and one.id.startswith(word)]", "if one.id.startswith(word)]"),
        ('word.removeprefix("/")', "word"),
        ("one.id.startswith(word)]", "word in one.id]"),
    ],
)
def test_the_check_on_finding_can_fail(old, new):
    fails(check_find, mutant(containers, old, new))


# ---- what a runtime writes is what an observer reads

COMMAND = ("sh", "-c", "echo 'a\nb' \"\\\"; x\udcff", "ü")


def check_record(sleeper, module=containers):
    claim = state.claim("c" * 64, "box", silent)
    try:
        (fresh,) = [one for one in module.everyone(silent) if one.id == claim.id]
        assert (fresh.name, fresh.status, fresh.command) == ("box", "created", ())
        claim.write(cgroup="/nowhere", **runtime.facts_of("alpine:3", COMMAND, 1.5))
        born = state.start_time(sleeper.pid)
        claim.write(process=f"{sleeper.pid} {born}", started="2.5")
        (alive,) = module.everyone(silent)
        assert (alive.image, alive.command) == ("alpine:3", COMMAND)
        assert (alive.created, alive.started, alive.pid) == (1.5, 2.5, sleeper.pid)
        assert (alive.status, alive.has_cgroup) == ("running", False)
        os.close(module.open_process(alive))
        other = alive.replace(birth=str(int(born) - 1))  # the pid is somebody else's by now
        assert other.status == "exited"
        with pytest.raises(module.NoSuchContainer, match="is not running"):
            module.open_process(other)
        found = PostMortem(oom_kills=2, lines=("killed 'by'\n \"it\"",))
        claim.write(ended=runtime.end_facts(137, 9.5, found))
        (ended,) = module.everyone(silent)
        assert (ended.status, ended.exit_code, ended.finished) == ("exited", 137, 9.5)
        assert (ended.oom_kills, ended.post_mortem) == (2, found.lines)
        with pytest.raises(module.NoSuchContainer, match="is not running"):
            module.open_process(ended)
    finally:
        claim.release()
    assert module.everyone(silent) == []


def test_what_is_written_is_read(sleeper):
    check_record(sleeper)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('if state.start_time(self.pid) != self.birth:', "if False:"),
        ("if pidfd >= 0 and state.start_time(one.pid) == one.birth:", "if pidfd >= 0:"),
        ("    if one.pid and not one.finished:", "    if one.pid:"),
        ("        if self.finished or not self.pid:", "        if not self.pid:"),
        ('command=literal("command", ()),', 'command=tuple(facts.get("command", "").split()),'),
        ("bool(self.cgroup) and os.path.isdir(self.cgroup)", "bool(self.cgroup)"),
    ],
)  # fmt: skip
def test_the_check_on_the_record_can_fail(sleeper, old, new):
    fails(check_record, sleeper, mutant(containers, old, new))


def test_the_youngest_comes_first():
    claims = [state.claim(name * 64, "", silent) for name in "abc"]
    for claim, created in zip(claims, (2.0, 3.0, 1.0), strict=True):
        claim.write(**runtime.facts_of("x", (), created))
    assert [one.id[0] for one in containers.everyone(silent)] == ["b", "a", "c"]
    for claim in claims:
        claim.release()


def test_no_run_directory_no_containers(run_root):
    assert containers.everyone(silent) == []
    assert not run_root.exists(), "looking makes nothing"


def test_a_container_that_is_being_removed_is_not_shown(run_root):
    claim = state.claim("d" * 64, "", silent)
    (run_root / ("e" * 64 + state.GONE)).mkdir()
    claim.write(**runtime.facts_of("x", (), time.time()))
    assert [one.id[0] for one in containers.everyone(silent)] == ["d"]
    claim.release()


def test_what_a_killed_runtime_left_is_swept_and_told_before_it_is_shown(sleeper):
    claim = state.claim("f" * 64, "", silent)
    claim.write(process=f"{sleeper.pid} {state.start_time(sleeper.pid)}")
    os.close(claim.fd)  # as the kernel does for one that was killed
    said: list[str] = []
    assert containers.everyone(said.append) == []
    assert [line for line in said if "f" * 12 in line]
    assert sleeper.wait(10) == -9


# ---- several targets


def test_those_that_cannot_be_served_do_not_keep_the_others_from_it(capsys, monkeypatch):
    monkeypatch.setattr(targets, "all_known", lambda verb: [ONE, TWO, THREE])
    served = []

    def action(one):
        if one is TWO:
            raise targets.Refused("not TWO")
        if one is THREE:
            raise FileNotFoundError(2, "No such file or directory", "/its/cgroup")
        served.append(one)

    table = targets.Table("pause", "CONTAINER...", ())
    with pytest.raises(targets.Refused) as caught:
        targets.for_each(table, ["nope", "aa11", "bb", "web"], action)
    assert served == [ONE]
    assert capsys.readouterr().out == "web\n"
    assert caught.value.exit_code == 1
    assert caught.value.message.splitlines() == [
        "No such container: nope", "not TWO", "bb: No such file or directory: /its/cgroup",
    ]  # fmt: skip
