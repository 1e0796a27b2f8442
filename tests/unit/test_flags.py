"""The flag parser against pflag's rules, which docker's command line has.

Messages marked "docker" are word for word what docker 28.2 prints for the same command line.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicontainer.cli import flags
from minicontainer.cli.missing import MISSING, why
from minicontainer.cli.runflags import RUN
from minicontainer.errors import UsageError
from tests.unit.mutants import fails, mutant

GROUPS = (
    ("Things", (
        ("interactive", "i", "switch", "", "Keep standard input open"),
        ("tty", "t", "switch", "", "A terminal"),
        ("rm", "", "switch", "", "Remove"),
        ("name", "", "text", "NAME", "Name"),
        ("workdir", "w", "text", "DIR", "Directory"),
        ("env", "e", "list", "NAME=VALUE", "Variable"),
        ("network", "", "text", "NETWORK", "Network"),
        ("explain", "", "level", "N", "Tell"),
    )),
)  # fmt: skip


def table(module=flags):
    return module.Table("run", "[FLAGS] IMAGE", GROUPS, aliases={"net": "network"})


# --- what is understood: words -> values, rest

UNDERSTOOD = [
    ([], {}, []),
    (["alpine"], {}, ["alpine"]),
    # switches, bundles
    (["-i", "-t", "x"], {"interactive": ["true"], "tty": ["true"]}, ["x"]),
    (["-it", "x"], {"interactive": ["true"], "tty": ["true"]}, ["x"]),
    (["-ti", "x"], {"interactive": ["true"], "tty": ["true"]}, ["x"]),
    (["--rm=false", "x"], {"rm": ["false"]}, ["x"]),
    (["--rm=T", "x"], {"rm": ["true"]}, ["x"]),
    (["--rm=0", "x"], {"rm": ["false"]}, ["x"]),
    (["-i=false", "x"], {"interactive": ["false"]}, ["x"]),
    (["-ti=false", "x"], {"tty": ["true"], "interactive": ["false"]}, ["x"]),
    # a switch does not take the next word
    (["--rm", "false"], {"rm": ["true"]}, ["false"]),
    (["-i", "true", "x"], {"interactive": ["true"]}, ["true", "x"]),
    # values
    (["--name", "web", "x"], {"name": ["web"]}, ["x"]),
    (["--name=web", "x"], {"name": ["web"]}, ["x"]),
    (["--name=", "x"], {"name": [""]}, ["x"]),
    (["--name", "", "x"], {"name": [""]}, ["x"]),
    (["--name=a=b", "x"], {"name": ["a=b"]}, ["x"]),
    (["-w", "/tmp", "x"], {"workdir": ["/tmp"]}, ["x"]),
    (["-w/tmp", "x"], {"workdir": ["/tmp"]}, ["x"]),
    (["-w=/tmp", "x"], {"workdir": ["/tmp"]}, ["x"]),
    (["-w=", "x"], {"workdir": ["="]}, ["x"]),  # pflag's quirk
    (["-itw/tmp", "x"], {"interactive": ["true"], "tty": ["true"], "workdir": ["/tmp"]}, ["x"]),
    (["-itw", "/tmp", "x"], {"interactive": ["true"], "tty": ["true"], "workdir": ["/tmp"]}, ["x"]),
    (["-eA=B", "x"], {"env": ["A=B"]}, ["x"]),
    (["-e=A=B", "x"], {"env": ["A=B"]}, ["x"]),
    # a value may begin with a dash
    (["--name", "--rm", "x"], {"name": ["--rm"]}, ["x"]),
    (["-e", "-it", "x"], {"env": ["-it"]}, ["x"]),
    (["-w", "--", "x"], {"workdir": ["--"]}, ["x"]),
    # several
    (["-e", "A=1", "--env=B=2", "x"], {"env": ["A=1", "B=2"]}, ["x"]),
    (["--name", "a", "--name", "b", "x"], {"name": ["a", "b"]}, ["x"]),
    # a number that may be left out
    (["--explain", "x"], {"explain": ["1"]}, ["x"]),
    (["--explain=3", "x"], {"explain": ["3"]}, ["x"]),
    (["--explain", "3"], {"explain": ["1"]}, ["3"]),
    # another name for the same flag
    (["--net", "none", "x"], {"network": ["none"]}, ["x"]),
    # where the flags end
    (["alpine", "ls", "-l", "--rm"], {}, ["alpine", "ls", "-l", "--rm"]),
    (["-i", "alpine", "-t"], {"interactive": ["true"]}, ["alpine", "-t"]),
    (["--", "-i"], {}, ["-i"]),
    (["-i", "--", "alpine", "--", "-x"], {"interactive": ["true"]}, ["alpine", "--", "-x"]),
    (["-", "-i"], {}, ["-", "-i"]),
    (["", "-i"], {}, ["", "-i"]),
]


def check_understood(module):
    for words, values, rest in UNDERSTOOD:
        parsed = module.parse(table(module), words)
        assert (parsed.values, parsed.rest) == (values, rest), words


def test_understood():
    check_understood(flags)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('if word == "--":\n            break', 'if word == "--":\n            continue'),
        ('and rest[0] != "-":', ":"),
        ('word[2:].partition("=")', 'word[2:].rpartition("=")'),
        ("value = _BARE.get(flag.kind) or _next(", "value = _next("),
        ('if letters.startswith("=") and letters != "=":', 'if letters.startswith("="):'),
        ('if letters.startswith("=") and letters != "=":', "if False:"),
        ("elif flag.kind in _BARE:", "elif flag.kind == 'level':"),
        ("self.aliases.get(name, name)", "name"),
        ('values.setdefault(flag.long, []).append(value)', 'values[flag.long] = [value]'),
        ('value = "true" if value in _TRUE else "false"', "pass"),
        ('"level": "1"', '"level": "2"'),
    ],
)  # fmt: skip
def test_understood_mutants(old, new):
    fails(check_understood, mutant(flags, old, new))


def test_reading_values():
    parsed = flags.parse(table(), ["-e", "A", "-e", "B", "--name", "x", "--name", "y", "--rm=0"])
    assert parsed.texts("env") == ("A", "B")
    assert parsed.text("name") == "y", "the last one counts"
    assert parsed.text("workdir", "/") == "/"
    assert parsed.given("rm") and not parsed.on("rm")
    assert not parsed.on("tty") and not parsed.given("tty")
    assert parsed.each("env", str.lower) == ("a", "b")
    assert parsed.one("name", str.upper, None) == "Y"
    assert parsed.one("workdir", str.upper, None) is None


# --- what is refused

SEE = "See 'minicontainer run --help'"
REFUSED = [
    # docker
    (["--foo"], "unknown flag: --foo", SEE),
    (["-z"], "unknown shorthand flag: 'z' in -z", SEE),
    (["-iz"], "unknown shorthand flag: 'z' in -z", SEE),
    (["-zi"], "unknown shorthand flag: 'z' in -zi", SEE),
    (["-it-"], "unknown shorthand flag: '-' in --", SEE),
    (["-=x"], "unknown shorthand flag: '=' in -=x", SEE),
    (["-i="], "unknown shorthand flag: '=' in -=", SEE),
    (["---x"], "bad flag syntax: ---x", SEE),
    (["--=x"], "bad flag syntax: --=x", SEE),
    (["--name"], "flag needs an argument: --name", SEE),
    (["-e"], "flag needs an argument: 'e' in -e", SEE),
    (["-ite"], "flag needs an argument: 'e' in -e", SEE),
    # docker ends the line with Go's own words
    (["--rm=maybe"], 'invalid argument "maybe" for "--rm" flag: must be true or false', SEE),
    (["--rm="], 'invalid argument "" for "--rm" flag: must be true or false', SEE),
    (["-i=no"], 'invalid argument "no" for "-i, --interactive" flag: must be true or false', SEE),
    # the nearest name
    (["--netwrok", "x"], "unknown flag: --netwrok", f"did you mean --network? {SEE}"),
    (["--interactiv"], "unknown flag: --interactiv", f"did you mean --interactive? {SEE}"),
]


def refusal(parse, words):
    with pytest.raises(UsageError) as caught:
        parse(words)
    assert caught.value.exit_code == 125
    return caught.value.message, caught.value.hint


def check_refused(module):
    for words, message, hint in REFUSED:
        assert refusal(lambda w: module.parse(table(module), w), words) == (message, hint), words


def test_refused():
    check_refused(flags)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('if not name or name.startswith("-"):', "if False:"),
        ("if value not in _TRUE and value not in _FALSE:", "if False:"),
        ("n=1, cutoff=0.6)", "n=1, cutoff=1.0)"),
        ("if not rest:\n        raise", "if not rest:\n        return ''\n        raise"),
    ],
)
def test_refused_mutants(old, new):
    fails(check_refused, mutant(flags, old, new))


def test_a_bad_value_learns_which_flag_it_was():
    def parse_value(text):
        raise UsageError("too blue", "make it red")

    parsed = flags.parse(table(), ["-e", 'a"b\x1b[31m'])
    message, hint = refusal(lambda p: p.each("env", parse_value), parsed)
    assert message == 'invalid argument "a\\"b\\x1b[31m" for "-e, --env" flag: too blue'
    assert hint == "make it red"


words = st.lists(
    st.one_of(
        st.sampled_from(["-", "--", "-i", "-it", "--rm", "--rm=", "--name", "-w", "-e", "-="]),
        st.text(max_size=8),
        st.builds("-{}".format, st.text(max_size=5)),
        st.builds("--{}".format, st.text(max_size=8)),
        st.builds("--{}={}".format, st.sampled_from(sorted(RUN.rows)), st.text(max_size=8)),
    ),
    max_size=8,
)  # fmt: skip


@given(words)
def test_parse_answers_or_refuses(some):
    for which in (table(), RUN):
        try:
            parsed = flags.parse(which, some)
        except UsageError as error:
            assert error.message and "\n" not in error.hint
            continue
        assert parsed.values.keys() <= which.rows.keys()
        # the words of the container are passed on as they are
        assert some[len(some) - len(parsed.rest) :] == parsed.rest


# --- the table of run

# docker 28.2, `docker run --help`
DOCKER = """
    add-host annotation attach blkio-weight blkio-weight-device cap-add cap-drop cgroup-parent
    cgroupns cidfile cpu-count cpu-percent cpu-period cpu-quota cpu-rt-period cpu-rt-runtime
    cpu-shares cpus cpuset-cpus cpuset-mems detach detach-keys device device-cgroup-rule
    device-read-bps device-read-iops device-write-bps device-write-iops disable-content-trust dns
    dns-option dns-search domainname entrypoint env env-file expose gpus group-add health-cmd
    health-interval health-retries health-start-interval health-start-period health-timeout help
    hostname init interactive io-maxbandwidth io-maxiops ip ip6 ipc isolation kernel-memory label
    label-file link link-local-ip log-driver log-opt mac-address memory memory-reservation
    memory-swap memory-swappiness mount name network network-alias no-healthcheck oom-kill-disable
    oom-score-adj pid pids-limit platform privileged publish publish-all pull quiet read-only
    restart rm runtime security-opt shm-size sig-proxy stop-signal stop-timeout storage-opt sysctl
    tmpfs tty ulimit use-api-socket user userns uts volume volume-driver volumes-from workdir
""".split()
DOCKER_SHORT = {
    "a": "attach", "c": "cpu-shares", "d": "detach", "e": "env", "h": "hostname",
    "i": "interactive", "l": "label", "m": "memory", "p": "publish", "P": "publish-all",
    "q": "quiet", "t": "tty", "u": "user", "v": "volume", "w": "workdir",
}  # fmt: skip
OURS = {
    "explain", "explain-format", "pause", "dry-run", "as-shell", "without", "i-know", "bundle",
    "time-offset", "oom-group", "hugetlb", "cgroup",
}  # fmt: skip


def test_every_flag_of_dockers_is_known():
    for name in DOCKER:
        assert (name in RUN.rows) != bool(why(name)), f"{name}: here or missing, and not both"
    for letter, name in DOCKER_SHORT.items():
        if name in RUN.rows:
            assert RUN.shorts[letter][0] == name
        else:
            assert why(letter) == why(name) != ""
    assert RUN.rows.keys() - set(DOCKER) == OURS


@pytest.mark.parametrize("name", [name for names in MISSING.values() for name in names])
def test_a_missing_flag_is_answered(name):
    word = f"-{name}" if len(name) == 1 else f"--{name}"
    for some in ([word], [f"{word}=1", "x"], [word, "1", "x"]):
        message, _ = refusal(lambda w: flags.parse(RUN, w), some)
        assert message == f"{word} is not supported yet: {why(name)}"


def test_what_is_missing_is_not_dropped_in_silence():
    assert "--publish is not supported yet" in refusal(
        lambda w: flags.parse(RUN, w), ["--rm", "--publish", "80", "alpine"]
    )[0]  # fmt: skip
    assert "-p is not supported yet" in refusal(
        lambda w: flags.parse(RUN, w), ["-itp", "80", "alpine"]
    )[0]  # fmt: skip


def test_names_are_unique_and_rows_complete():
    rows = [row for _, group in RUN.groups for row in group]
    assert len({row[0] for row in rows}) == len(rows)
    shorts = [row[1] for row in rows if row[1]]
    assert len(set(shorts)) == len(shorts)
    for row in rows:
        assert row[2] in ("switch", "text", "list", "level"), row
        assert bool(row[3]) == (row[2] != "switch"), f"{row}: a value has a name"
        assert row[4], row
    assert set(RUN.aliases.values()) <= RUN.rows.keys()


def test_help_is_the_table():
    text = RUN.help()
    assert text.startswith("Usage:  minicontainer run [FLAGS] IMAGE [COMMAND] [ARGUMENT...]\n")
    for name, short, *_ in RUN.rows.values():
        assert f"{f'-{short}, ' if short else '      '}--{name}" in text
    assert max(map(len, text.splitlines())) <= 92
    assert "  -e, --env NAME[=VALUE]      Set a variable;" in text
    assert "--explain[=0..3]" in text
