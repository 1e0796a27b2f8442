"""``minicontainer run``: what flags mean, what is refused, and that refusing leaves no trace."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sysconfig

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicontainer.cli import main as cli_main
from minicontainer.cli import missing, rare, request
from minicontainer.cli.main import VERBS, command, main
from minicontainer.cli.names import name_for
from minicontainer.cli.request import Request, read
from minicontainer.cli.run import CidFile
from minicontainer.cli.runflags import RUN
from minicontainer.compose import compose
from minicontainer.errors import CommandNotFound, UsageError
from minicontainer.image.config import Image, ImageConfig
from minicontainer.options import RunOptions
from minicontainer.spec import Device, IdMap, Mount, Rlimit, Seccomp, TimeOffset
from tests.house.test_hot_path import SLOW
from tests.support import CHECKOUT
from tests.unit.mutants import fails, mutant

ID = "0123456789abcdef" * 4
BIND = Mount("/b", "bind", "/a", ("rbind", "rprivate"))
BOTH = (TimeOffset("monotonic", 60), TimeOffset("boottime", 60))

# flags -> what they change in an otherwise plain Request
MEANINGS = [
    ("-i", {"interactive": True}, {}),
    ("-t", {}, {"terminal": True}),
    ("-it", {"interactive": True}, {"terminal": True}),
    ("--rm", {}, {}),
    ("--rm=false", {}, {}),
    ("--name web-1", {"name": "web-1"}, {}),
    ("--cidfile /x/y", {"cidfile": "/x/y"}, {}),
    ("--init", {}, {"init": True}),
    ("--stop-signal int", {"stop_signal": "SIGINT"}, {}),
    ("--stop-timeout 5", {"stop_timeout": 5}, {}),
    ("--restart no --sig-proxy --no-healthcheck --disable-content-trust", {}, {}),
    ("--entrypoint /bin/ls", {}, {"entrypoint": "/bin/ls"}),
    ("--entrypoint=", {}, {"entrypoint": ""}),
    ("-e A=1 --env B", {}, {"env": ("A=1", "B")}),
    ("-e HERE", {}, {"env": ("HERE=yes",)}),
    ("-w /x", {}, {"workdir": "/x"}),
    ("-u 5:6", {}, {"user": "5:6"}),
    ("--group-add a --group-add 5", {}, {"group_add": ("a", "5")}),
    ("-v /a:/b", {"make_sources": ("/a",)}, {"mounts": (BIND,)}),
    ("-v /a:/b -v /a:/b", {"make_sources": ("/a", "/a")}, {"mounts": (BIND,)}),
    ("--mount type=bind,src=/a,dst=/b", {"need_sources": ("/a",)}, {"mounts": (BIND,)}),
    ("--mount type=tmpfs,dst=/b", {},
     {"mounts": (Mount("/b", "tmpfs", "tmpfs", ("noexec", "nosuid", "nodev")),)}),
    ("--tmpfs /b:exec", {},
     {"mounts": (Mount("/b", "tmpfs", "tmpfs", ("nosuid", "nodev", "exec")),)}),
    ("--read-only", {}, {"read_only": True}),
    ("--shm-size 1m", {}, {"shm_size": 1 << 20}),
    ("--shm-size 0", {}, {}),
    ("--device /dev/zero:/dev/z", {}, {"devices": (Device("/dev/z", "c", 1, 5, 0o666),)}),
    ("-h web", {}, {"hostname": "web"}),
    ("--domainname x.org", {}, {"domainname": "x.org"}),
    ("--network host", {"network_given": True}, {"network": "host"}),
    ("--net=none", {"network_given": True}, {}),
    ("--add-host db:10.0.0.2", {}, {"extra_hosts": (("db", "10.0.0.2"),)}),
    ("--dns 10.0.0.1 --dns-search x.org --dns-option ndots:2", {},
     {"resolv_conf": ("nameserver 10.0.0.1", "search x.org", "options ndots:2")}),
    ("--pid host", {}, {"pid": "host"}),
    ("--pid=", {}, {}),
    ("--ipc host", {}, {"ipc": "host"}),
    ("--uts host", {}, {"uts": "host"}),
    ("--cgroupns host", {}, {"cgroupns": "host"}),
    ("--cgroup-parent /x", {}, {"cgroup_parent": "/x"}),
    ("--userns host", {}, {}),
    ("--userns 0:5:9", {},
     {"uid_mappings": (IdMap(0, 5, 9),), "gid_mappings": (IdMap(0, 5, 9),)}),
    ("--time-offset 1m", {}, {"time_offsets": BOTH}),
    ("--time-offset boottime=1m", {}, {"time_offsets": BOTH[1:]}),
    ("--sysctl net.a=1", {}, {"sysctl": (("net.a", "1"),)}),
    ("--cap-add net_admin --cap-drop ALL", {},
     {"cap_add": ("CAP_NET_ADMIN",), "cap_drop": ("ALL",)}),
    ("--security-opt seccomp=unconfined", {}, {"seccomp": None}),
    ("--security-opt seccomp:unconfined", {}, {"seccomp": None}),
    ("--security-opt seccomp=builtin", {}, {"seccomp": Seccomp()}),
    ("--security-opt no-new-privileges", {}, {"no_new_privileges": True}),
    ("--security-opt no-new-privileges:true", {}, {"no_new_privileges": True}),
    ("--security-opt no-new-privileges=false", {}, {"no_new_privileges": False}),
    ("--security-opt systempaths=unconfined", {}, {"system_paths": False}),
    ("--security-opt apparmor=unconfined --security-opt label=disable", {}, {}),
    ("--ulimit nofile=5", {}, {"rlimits": (Rlimit("RLIMIT_NOFILE", 5, 5),)}),
    ("--oom-score-adj -5", {}, {"oom_score_adj": -5}),
    ("--pull never", {"pull": "never"}, {}),
    ("--platform linux/arm64", {"platform": "linux/arm64"}, {}),
    ("-q", {"quiet": True}, {}),
    ("-l a=b --label c", {"labels": (("a", "b"), ("c", ""))}, {}),
    ("--annotation a=b", {}, {"annotations": (("a", "b"),)}),
    ("--explain", {"explain": 1}, {}),
    ("--explain=0", {"explain": 0}, {}),
    ("--explain=3 --explain-format json", {"explain": 3, "explain_format": "json"}, {}),
    ("--pause", {"explain": 1, "pause": True}, {}),
    ("--dry-run", {"dry_run": True}, {}),
    ("--as-shell", {"as_shell": True}, {}),
    ("--without pid,seccomp --without uts", {"without": ("pid", "seccomp", "uts")}, {}),
    ("--without mount --i-know", {"without": ("mount",), "i_know": True}, {}),
]  # fmt: skip


def check_meanings(module):
    for text, in_request, in_options in MEANINGS:
        got = module.read([*text.split(), "alpine", "ls", "-l"], ID, {"HERE": "yes"})
        options = RunOptions(command=("ls", "-l"), **in_options)
        wanted = {"options": options, "image": "alpine", **in_request}
        for field in Request._fields:
            assert getattr(got, field) == wanted.get(field, getattr(Request, field)), (text, field)


def test_meanings():
    check_meanings(request)


def test_every_flag_has_a_meaning_here():
    flagged = {word for text, *_ in MEANINGS for word in text.split() if word.startswith("-")}
    names = {RUN.aliases.get(n := word.lstrip("-").partition("=")[0], n) for word in flagged}
    names |= {RUN.shorts[n][0] for n in names if n in RUN.shorts} | {"interactive", "tty"}
    # tests of their own: below, and in test_limit_flags.py
    elsewhere = {"help", "bundle", "privileged", "env-file"} | request.LIMITS
    assert RUN.rows.keys() - elsewhere <= names
    # what request.py believes to be a flag is one
    assert RUN.rows.keys() >= request._ORDINARY | request._BESIDE_BUNDLE


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('parsed.text("entrypoint") if parsed.given("entrypoint") else None',
         'parsed.text("entrypoint") or None'),
        ("if parsed.values.keys() - _ORDINARY - LIMITS:", "if False:"),
        ("tuple(dict.fromkeys(volumes + mounts + tmpfs))", "volumes + mounts + tmpfs"),
        ('pid=parsed.text("pid") or "private"', 'pid=parsed.text("pid", "private")'),
        ("return text if equals or text not in environ else", "return text if True else"),
        ("tuple(volume.source for volume in volumes)",
         "tuple(volume.source for volume in (*volumes, *mounts))"),
        ('if mount.type == "bind"', ""),
        ("1 if level_asked is None and shown else level_asked", "level_asked"),
    ],
)  # fmt: skip
def test_meanings_mutants(old, new):
    fails(check_meanings, mutant(request, old, new))


def test_privileged_brings_the_hosts_devices():
    options = read(["--privileged", "--device", "/dev/zero:/dev/mine", "x"], ID, {}).options
    paths = [device.path for device in options.devices]
    assert options.privileged and "/dev/mine" in paths and len(paths) > 1
    plain = RunOptions(privileged=True, devices=options.devices)
    assert options == plain


def test_userns_auto_belongs_to_the_id():
    first, second = (read(["--userns", "auto", "x"], i, {}).options for i in (ID, ID[1:] + "0"))
    (block,) = first.uid_mappings
    assert (block.container_id, block.size) == (0, 65536)
    assert first.gid_mappings[0].size == 65536
    assert first == read(["--userns", "auto", "x"], ID, {}).options
    assert first.uid_mappings != second.uid_mappings


def test_env_files_come_before_flags(tmp_path):
    for name, text in (("one", "A=1\nB=1\nHERE\n"), ("two", "B=2\n")):
        (tmp_path / name).write_text(text)
    words = ["-e", "A=flag", "--env-file", str(tmp_path / "one"), "--env-file",
             str(tmp_path / "two"), "x"]  # fmt: skip
    env = read(words, ID, {"HERE": "yes"}).options.env
    assert env == ("A=1", "B=1", "HERE=yes", "B=2", "A=flag")


def test_seccomp_from_a_file(tmp_path):
    (tmp_path / "p.json").write_text("{}")
    words = ["--security-opt", f"seccomp={tmp_path}/p.json", "x"]
    assert read(words, ID, {}).options.seccomp == Seccomp("{}")


def test_bundle():
    got = read(["--bundle", "/x", "--name", "ab", "-i", "--explain=2"], ID, {})
    assert (got.bundle, got.image, got.name, got.interactive, got.explain) == (
        "/x", "", "ab", True, 2,
    )  # fmt: skip


# --- refused: words -> message; nothing may have been made

LONG = "x" * 201
REFUSED = [
    ("", "'minicontainer run' requires at least 1 argument: IMAGE"),
    ("--rm", "'minicontainer run' requires at least 1 argument: IMAGE"),
    ("--", "'minicontainer run' requires at least 1 argument: IMAGE"),
    ("--foo x", "unknown flag: --foo"),
    ("-d x", "-d is not supported yet: containers run in the foreground"),
    ("-p 80:80 x", "-p is not supported yet: containers have no network but loopback"),
    ("--name a x", "Invalid container name (a), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"),
    ("--name -ab x", "Invalid container name (-ab)"),
    ("--name a/b x", "Invalid container name (a/b)"),
    ("--name .. x", "Invalid container name (..)"),
    ("--name= x", 'invalid argument "" for "--name" flag: Invalid container name ()'),
    (f"--name {LONG} x", "Invalid container name"),
    ("--name äöü x", "Invalid container name (äöü)"),
    ("-e =b x", 'invalid argument "=b" for "-e, --env" flag: invalid environment variable: =b'),
    ("--env-file /nonexistent x", "open /nonexistent: no such file or directory"),
    ("-w rel x", "the working directory 'rel' is invalid, it needs to be an absolute path"),
    ("-v a:/b x", 'invalid argument "a:/b" for "-v, --volume" flag: volumes kept by'),
    ("-v /a:/b --tmpfs /b x", "Duplicate mount point: /b"),
    ("-v /a:/b -v /c:/b x", "Duplicate mount point: /b"),
    ("-v /a:/proc/self x", "/proc/self cannot be mounted because it is inside /proc"),
    ("--mount type=foo,dst=/x x", 'for "--mount" flag: mount type unknown'),
    ("--tmpfs x x", 'invalid argument "x" for "--tmpfs" flag: invalid mount path'),
    ("--ulimit foo=1 x", 'invalid argument "foo=1" for "--ulimit" flag: invalid ulimit type: foo'),
    ("--shm-size 1x x", 'invalid argument "1x" for "--shm-size" flag: invalid size'),
    ("--cap-add foo x", 'for "--cap-add" flag: unknown capability: "CAP_FOO"'),
    ("--cap-drop foo x", 'for "--cap-drop" flag: unknown capability: "CAP_FOO"'),
    ("--security-opt foo x", "invalid security option: foo"),
    ("--security-opt seccomp x", "invalid security option: seccomp"),
    ("--security-opt seccomp= x", "invalid security option: seccomp="),
    ("--security-opt seccomp=/nonexistent x", "opening seccomp profile (/nonexistent) failed"),
    ("--security-opt no-new-privileges=maybe x", "invalid security option"),
    ("--security-opt apparmor=mine x", "apparmor is not supported yet"),
    ("--security-opt label=type:x x", "label is not supported yet"),
    ("--security-opt systempaths=masked x", "invalid security option"),
    ("--network bridge x", "--network bridge is not supported yet"),
    ("--network none --network host x", "--network was given 2 times"),
    ("--pid foo x", "--pid: invalid PID mode: 'foo'"),
    ("--uts host -h web x", "conflicting options: hostname and the UTS mode"),
    ("-h a_b- x", None),
    ("-h a;b x", "invalid hostname format: a;b"),
    ("--userns foo x", 'invalid argument "foo" for "--userns" flag: invalid user namespace'),
    ("--userns 1:1:1 x", "id 0 is not mapped"),
    ("--userns auto --privileged x", "privileged mode is incompatible with user namespaces"),
    ("--time-offset 1y x", 'for "--time-offset" flag: invalid time offset'),
    ("--sysctl vm.x=1 x", "for \"--sysctl\" flag: sysctl 'vm.x=1' is not allowed"),
    ("--device /nonexistent x", 'custom device "/nonexistent": no such file or directory'),
    ("--oom-score-adj 1001 x", "Invalid value 1001, range for oom score adj is [-1000, 1000]"),
    ("--label =b x", "for \"-l, --label\" flag: invalid label '=b': empty name"),
    ("--stop-signal FOO x", 'for "--stop-signal" flag: invalid signal: FOO'),
    ("--stop-timeout q x", 'for "--stop-timeout" flag: not a whole number'),
    ("--restart always x", "--restart always is not supported yet"),
    ("--sig-proxy=false x", "--sig-proxy=false is not supported yet"),
    ("--pull foo x", "invalid pull option: 'foo': must be one of always, missing, never"),
    ("--explain=4 x", "for \"--explain\" flag: no such level: '4'"),
    ("--explain= x", "for \"--explain\" flag: no such level: ''"),
    ("--explain-format xml x", "no such format: 'xml'"),
    ("--cgroup-parent ../x x", "the parent cgroup '../x' must not contain '..'"),
    ("--add-host a x", 'for "--add-host" flag: bad format for add-host'),
    ("--dns a x", 'for "--dns" flag: IP address is not correctly formatted: a'),
    ("--bundle= --rm", 'for "--bundle" flag: no directory'),
    ("--bundle /x alpine", "with --bundle there is no IMAGE and no COMMAND: alpine"),
    ("--bundle /x -e A=1", "--env does not go with --bundle"),
    # the last one wins, but all must be good
    ("--pull never --pull foo x", "invalid pull option: 'foo'"),
    ("--pull foo --pull never x", "invalid pull option: 'foo'"),
]


def check_refused(module):
    for text, message in REFUSED:
        if message is None:
            module.read(text.split(), ID, {})
            continue
        try:
            got = module.read(text.split(), ID, {})
        except UsageError as error:
            assert message in error.message, (text, error.message)
        else:
            raise AssertionError(f"{text}: {got}")


def test_refused():
    check_refused(request)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("    check(made)\n", ""),
        ("if len(networks) > 1:", "if False:"),
        ("if not good or len(text) < 2", "if not good"),
        ('or text[0] in "_.-"', ""),
        ("or len(text) > 200", ""),
        ("if not good or", "if"),
        ("if not variable:", "if False:"),
        ('if text not in ("0", "1", "2", "3"):', 'if text not in ("0", "1", "2", "3", "4"):'),
        ("if flag not in _BESIDE_BUNDLE:", "if False:"),
        ("    if parsed.rest:\n", "    if False:\n"),
        ('if text not in ("always", "missing", "never"):', "if False:"),
        ('if text not in ("text", "json"):', "if False:"),
    ],
)
def test_refused_mutants(old, new):
    fails(check_refused, mutant(request, old, new))


def check_short_name(module):
    """docker's words, of which none is about one letter being too few."""
    with pytest.raises(UsageError) as told:
        module.read(["--name", "k", "x"], ID, {})
    assert told.value.hint.startswith("at least two characters")


def test_a_name_has_two_characters():
    check_short_name(request)
    fails(check_short_name, mutant(request, '"at least two characters, at', '"at'))


def check_security(module):
    table_of_run = {"security-opt": ["no-new-privileges", "seccomp=unconfined"]}
    parsed = request.parse(RUN, [])
    parsed.values.update(table_of_run)
    fields = module.options(parsed, ID)
    assert (fields["no_new_privileges"], fields["seccomp"]) == (True, None)
    for bad in ("apparmor=x", "seccomp=", "no-new-privileges=x", "x", "writable-cgroups=true"):
        parsed.values["security-opt"] = [bad]
        with pytest.raises(UsageError):
            module.options(parsed, ID)
    parsed.values = {"restart": ["always"]}
    with pytest.raises(UsageError):
        module.notes(parsed)
    parsed.values = {"sig-proxy": ["false"]}
    with pytest.raises(UsageError):
        module.notes(parsed)


def test_security():
    check_security(rare)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('and value in ("", "true", "false"):', ":"),
        ('and value in ("unconfined", "disable"):', ":"),
        ('if policy not in ("no", ""):', "if False:"),
        ('if parsed.given("sig-proxy") and not parsed.on("sig-proxy"):', "if False:"),
        ('value != "false"', 'value == "true"'),
        ('{"unconfined": None,', '{"unconfined": Seccomp(),'),
    ],
)
def test_security_mutants(old, new):
    fails(check_security, mutant(rare, old, new))


VALUES = ["", "x", "host", "none", "0", "-1", "/a:/b:ro", "a=b", "=", ":", ",", "type=tmpfs,dst=/x",
          "0:1:2", "nofile=1", "64m", "\n", "\x1b[31m", "\udcff", "/nonexistent", "auto", "..",
          "/proc", "net.a=1", "seccomp=x", "ALL", "true", "1" * 30]  # fmt: skip
command_lines = st.lists(
    st.one_of(
        st.builds("--{}={}".format, st.sampled_from(sorted(RUN.rows)), st.sampled_from(VALUES)),
        st.builds("--{}".format, st.sampled_from(sorted(RUN.rows))),
        st.builds("-{}{}".format, st.sampled_from(sorted(RUN.shorts)), st.sampled_from(VALUES)),
        st.sampled_from(VALUES),
    ),
    max_size=6,
)


@given(command_lines)
def test_any_command_line_is_understood_or_refused(words):
    try:
        got = read(words, ID, {"x": "1"})
    except UsageError as error:
        assert error.exit_code == 125 and error.message
        return
    # understood: so it is a container, whatever the image
    any_image = Image("x", "", (), ImageConfig(cmd=("sh",)))
    with contextlib.suppress(UsageError):  # --entrypoint= and no command
        spec = compose(any_image, got.options, ID)
        assert spec.process.args and spec.process.cwd.startswith("/")


# --- the command itself


@pytest.mark.parametrize("text", [text for text, message in REFUSED if message])
def test_a_refusal_is_125_and_leaves_no_trace(text, capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("MINICONTAINER_ROOT", str(tmp_path / "data"))
    monkeypatch.setenv("MINICONTAINER_RUN", str(tmp_path / "run"))
    assert main(["run", *text.split()]) == 125
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert lines[0].startswith("minicontainer: ") and not lines[0].endswith(": ")
    assert all(line.startswith("  hint: ") for line in lines[1:]) and len(lines) <= 2
    assert list(tmp_path.iterdir()) == []


def test_refusals_that_only_the_machine_can_tell(cli, tmp_path):
    taken = tmp_path / "cid"
    taken.write_text("mine")
    for words, message in (
        (["--cidfile", taken, "alpine"], f"container ID file found, make sure the other container "
         f"isn't running or delete {taken}"),
        (["-it", "alpine"], "the input device is not a TTY"),
        (["--mount", f"type=bind,src={tmp_path}/no,dst=/x", "alpine"],
         f"bind source path does not exist: {tmp_path}/no"),
        (["Alpine"], "'Alpine' is not an image name"),
        ([""], "'' is not an image name"),
        (["-v", f"{tmp_path}/made:/x", "a:b:c"], "'a:b:c' is not an image name"),
        # everything is checked before the image is looked for and before -v makes a directory
        (["-v", f"{tmp_path}/made:/x", "--pull", "never", "nothing"], "cannot find the image"),
    ):  # fmt: skip
        done = cli("run", *words)
        assert (done.status, done.out) == (125, ""), done
        assert done.err.startswith(f"minicontainer: {message}"), done.err
    assert taken.read_text() == "mine"
    assert not (tmp_path / "made").exists()
    assert not cli.root.exists() and not cli.run.exists()


def test_help_and_version(cli):
    for words in (["run", "--help"], ["run", "--rm", "--help", "alpine"], ["help", "run"]):
        done = cli(*words)
        assert (done.status, done.out, done.err) == (0, RUN.help(), "")
    for words in ([], ["help"], ["--help"], ["-h"]):
        done = cli(*words)
        assert (done.status, done.err) == (0, "")
        assert done.out.startswith("Usage:  minicontainer VERB")
        for verb in VERBS:
            assert f"\n  {verb} " in done.out
    for words in (["version"], ["--version"], ["-v"]):
        done = cli(*words)
        assert (done.status, done.err) == (0, "")
        assert done.out.startswith("minicontainer ") and os.uname().release in done.out


def check_sentences(module=cli_main):
    """VERB --help begins with the sentence that the list of the verbs has for it."""
    for verb in VERBS:
        if verb in ("version", "help"):
            continue
        (sentence,) = (
            line.split(None, 1)[1]
            for line in module.HELP.splitlines()
            if line.startswith(f"  {verb} ")
        )
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            assert module.main([verb, "--help"]) == 0
        usage, nothing, first = printed.getvalue().splitlines()[:3]
        assert usage.startswith(f"Usage:  minicontainer {verb}")
        assert (nothing, first) == ("", sentence), verb
        assert max(map(len, printed.getvalue().splitlines())) <= 96


def test_every_verbs_help_says_what_it_does():
    check_sentences()


@pytest.mark.parametrize(
    ("old", "new"),
    [("The processes of a container\n", "Processes\n"), ("  rmi      Remove", "  rmi      Drop")],
)
def test_the_check_on_sentences_can_fail(old, new):
    fails(check_sentences, mutant(cli_main, old, new))


def test_unknown_verbs(cli):
    done = cli("rnu")
    assert (done.status, done.out) == (125, "")
    assert done.err == (
        "minicontainer: unknown command: minicontainer rnu\n"
        "  hint: did you mean run? See 'minicontainer --help' for the commands\n"
    )
    done = cli("--foo", "run")
    assert (done.status, done.out) == (125, "")
    assert done.err.startswith("minicontainer: unknown flag: minicontainer --foo\n")


# docker --help, version 28, with those of Docker Desktop's that everybody has heard of
DOCKERS_VERBS = """
    attach build builder buildx checkpoint commit compose config container context cp create diff
    events exec export history image images import info inspect kill load login logout logs manifest
    network node pause plugin port ps pull push rename restart rm rmi run save search secret
    service stack start stats stop swarm system tag top trust unpause update version volume wait
""".split()


def check_dockers_verbs(module=cli_main, words=missing):
    """Each is there, or said not to be; and never both."""
    for verb in DOCKERS_VERBS:
        what, meanwhile = words.verb(verb)
        assert bool(what) != (verb in VERBS), verb
        if what:
            with pytest.raises(UsageError) as told:
                module.command([verb, "x"])
            assert told.value.exit_code == 125
            assert told.value.message == f"{verb} is not supported yet: {what}"
            assert meanwhile in told.value.hint and "did you mean" not in told.value.hint
    named = [name for names, *_ in words.VERBS for name in names]
    assert sorted(named) == sorted(set(DOCKERS_VERBS) - set(VERBS))
    assert words.verb("rnu") == ("", "")


def test_a_verb_that_is_known_is_never_unknown(cli):
    check_dockers_verbs()
    done = cli("stop", "web")
    assert (done.status, done.out) == (125, "")
    assert "kill -s TERM NAME" in done.err and "did you mean" not in done.err


@pytest.mark.parametrize(
    ("module", "old", "new"),
    [
        (cli_main, "missing.verb(verb)", 'missing.verb("")'),
        (cli_main, "{verb} is not supported yet", "unknown command: {verb}"),
        (missing, '(("rm",), _GONE', '(("ps",), _GONE'),
        (missing, '"pull", "push", ', '"pull", '),
    ],
)
def test_the_check_on_known_verbs_can_fail(module, old, new):
    broken = mutant(module, old, new)
    fails(check_dockers_verbs, *((broken,) if module is cli_main else (cli_main, broken)))


def test_an_escape_sequence_does_not_reach_the_terminal(cli):
    done = cli("run", "--pid", "\x1b[2J", "x")
    assert done.status == 125
    assert "\x1b" not in done.err and "\\x1b[2J" in done.err


def test_a_closed_pipe_is_no_error(cli):
    read_end, write_end = os.pipe()
    os.close(read_end)
    with subprocess.Popen(
        cli.argv("run", "--help"), stdout=write_end, stderr=subprocess.PIPE, env=cli.env
    ) as process:
        os.close(write_end)
        assert process.communicate(timeout=30)[1] == b""
    assert process.returncode == 128 + 13


def test_closed_descriptors_are_no_error(cli):
    for redirect, status in ((">&-", 0), ("2>&-", 0), ("<&- >&- 2>&-", 0)):
        argv = cli.argv("version")
        done = subprocess.run(["sh", "-c", f'"$@" {redirect}', "sh", *argv], env=cli.env)
        assert done.returncode == status
    argv = cli.argv("run", "--foo")
    done = subprocess.run(["sh", "-c", '"$@" 2>&-', "sh", *argv], env=cli.env)
    assert done.returncode == 125


def check_statuses(module, capsys):
    def raises(error):
        def run(words):
            raise error

        module.command = lambda argv: run
        status = module.main(["x"])
        return status, capsys.readouterr().err

    assert raises(CommandNotFound("no sh", "try ash")) == (
        127, "minicontainer: no sh\n  hint: try ash\n",
    )  # fmt: skip
    assert raises(UsageError("bad")) == (125, "minicontainer: bad\n")
    assert raises(KeyboardInterrupt()) == (130, "")
    error = FileNotFoundError(2, "No such file or directory", "/x")
    assert raises(error) == (125, "minicontainer: No such file or directory: /x\n")
    status, err = raises(ZeroDivisionError("oops"))
    assert status == 125
    assert "Traceback" in err and "minicontainer: ZeroDivisionError: oops\n  hint: this is" in err


def test_statuses(capsys, monkeypatch):
    monkeypatch.setattr(cli_main, "command", command)  # put back afterwards
    check_statuses(cli_main, capsys)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("return error.exit_code", "return EXIT_RUNTIME_FAILED"),
        ("return 128 + 2\n", "return 1\n"),
        ("traceback.print_exc()", "pass"),
        ('(f"\\n  hint: {hint}" if hint else "")', 'f"\\n  hint: {hint}"'),
    ],
)
def test_statuses_mutants(old, new, capsys):
    fails(check_statuses, mutant(cli_main, old, new), capsys)


# --- --cidfile and names


def test_cidfile(tmp_path):
    path = tmp_path / "cid"
    with CidFile(str(path), ID) as file:
        assert path.read_text() == ID
        file.keep()
    assert path.read_text() == ID, "the container has started: the file stays"
    with (
        pytest.raises(UsageError, match="failed to create the container ID file"),
        CidFile(str(path), ID),
    ):
        raise AssertionError("an existing file must not be taken")
    assert path.read_text() == ID

    path.unlink()
    with pytest.raises(ZeroDivisionError), CidFile(str(path), ID):
        raise ZeroDivisionError
    assert not path.exists(), "nothing has started: nothing is left"

    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageError), CidFile(str(path), ID):
        pass
    assert not (tmp_path / "elsewhere").exists()
    with CidFile("", ID):
        pass


@given(st.integers(0, (1 << 256) - 1).map("{:064x}".format))
def test_names_are_valid_and_follow_from_the_id(container_id):
    made = name_for(container_id)
    assert request.name(made) == made == name_for(container_id)


def test_names_differ():
    assert len({name_for(os.urandom(32).hex()) for _ in range(2000)}) > 1990


# --- the price


TYPICAL = ["--rm", "--network", "none", "alpine", "true"]
SESSION = [
    *("-it", "--rm", "--name", "web", "-e", "A=1", "-v", "/srv:/srv:ro", "--tmpfs", "/x"),
    *("--cap-drop", "ALL", "--ulimit", "nofile=64", "-u", "5", "-w", "/", "alpine", "sh"),
]


def modules_loaded(base_python, words):
    """The modules that are there once a command line has become a Spec."""
    folders = [str(CHECKOUT), sysconfig.get_path("purelib")]
    program = (
        f"import sys; sys.path += {folders!r}\n"
        "import minicontainer.cli.main, minicontainer.cli.run\n"
        "from minicontainer.cli.request import read\n"
        "from minicontainer.compose import compose\n"
        "from minicontainer.image.config import Image, ImageConfig\n"
        f"asked = read({words!r}, {ID!r}, {{}})\n"
        f"compose(Image('x', '', (), ImageConfig(cmd=('sh',))), asked.options, {ID!r})\n"
        "print(*sys.modules)"
    )
    done = subprocess.run([*base_python, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_flags_load_nothing_slow(base_python, tmp_path):
    assert modules_loaded(base_python, TYPICAL) & SLOW == set()
    assert modules_loaded(base_python, SESSION) & SLOW == set()
    # the check can fail: a profile is JSON, and only then json is loaded
    (tmp_path / "p.json").write_text("{}")
    profile = ["--security-opt", f"seccomp={tmp_path}/p.json", *TYPICAL]
    assert modules_loaded(base_python, profile) & SLOW >= {"json", "re"}


def test_a_plain_run_does_not_load_what_it_does_not_use(base_python):
    seldom = {"cli.rare", "cli.missing", "values", "mountflags", "host", "kernel.capabilities"}
    limits = {"cli.limitflags", "resources", "kernel.limits", "kernel.controllers"}
    named = {f"minicontainer.{name}" for name in seldom}
    limiting = {f"minicontainer.{name}" for name in limits}
    assert modules_loaded(base_python, TYPICAL) & (named | limiting) == set()
    loaded = modules_loaded(base_python, SESSION)
    assert loaded >= named - {"minicontainer.cli.missing"}
    assert loaded & limiting == set()
    assert modules_loaded(base_python, ["-m", "64m", *TYPICAL]) >= limiting
