"""The small languages of docker's flags: sizes, limits, id maps, clocks, mounts.

What is accepted and refused here was compared with docker 28.2's client where it checks itself.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicontainer import mountflags, values
from minicontainer.errors import UsageError
from minicontainer.spec import IdMap, Mount, Rlimit, TimeOffset
from tests.unit.mutants import fails, mutant

DAY = 86400
BOTH = ("monotonic", "boottime")

# function -> (text, what it means)
ACCEPTED = {
    "size": [
        ("0", 0), ("65536", 65536), ("64k", 65536), ("64K", 65536), ("64kb", 65536),
        ("64KiB", 65536), ("1b", 1), ("1.5g", 3 << 29), ("1.5GiB", 3 << 29), (".5m", 1 << 19),
        ("5 k", 5120), ("2t", 2 << 40), ("1p", 1 << 50), ("0.0001k", 0),
        ("8191p", 8191 << 50),
    ],
    "ulimit": [
        ("nofile=1024", Rlimit("RLIMIT_NOFILE", 1024, 1024)),
        ("nofile=1024:4096", Rlimit("RLIMIT_NOFILE", 1024, 4096)),
        ("core=0", Rlimit("RLIMIT_CORE", 0, 0)),
        ("core=-1", Rlimit("RLIMIT_CORE", -1, -1)),
        ("nproc=5:-1", Rlimit("RLIMIT_NPROC", 5, -1)),
        ("rttime=9223372036854775807", Rlimit("RLIMIT_RTTIME", 2**63 - 1, 2**63 - 1)),
    ],
    "time_offset": [
        ("boottime=-1d", (TimeOffset("boottime", -DAY, 0),)),
        ("monotonic=+3600", (TimeOffset("monotonic", 3600, 0),)),
        ("monotonic=90m", (TimeOffset("monotonic", 5400, 0),)),
        ("+1w", tuple(TimeOffset(c, 7 * DAY, 0) for c in BOTH)),
        ("2h", tuple(TimeOffset(c, 7200, 0) for c in BOTH)),
        ("0.5s", tuple(TimeOffset(c, 0, 500_000_000) for c in BOTH)),
        # the kernel's nanoseconds are never negative
        ("-0.5s", tuple(TimeOffset(c, -1, 500_000_000) for c in BOTH)),
        ("0", tuple(TimeOffset(c, 0, 0) for c in BOTH)),
    ],
    "id_maps": [
        ("0:100000:65536", (IdMap(0, 100000, 65536),)),
        ("0:1000:1,1:100000:65535", (IdMap(0, 1000, 1), IdMap(1, 100000, 65535))),
        ("0:0:4294967295", (IdMap(0, 0, 4294967295),)),
    ],
    "sysctl": [
        ("net.ipv4.ip_forward=1", ("net.ipv4.ip_forward", "1")),
        ("net.ipv4.ping_group_range=0 1", ("net.ipv4.ping_group_range", "0 1")),
        ("kernel.shmmax=1", ("kernel.shmmax", "1")),
        ("fs.mqueue.msg_max=5", ("fs.mqueue.msg_max", "5")),
    ],
    "label": [("a=b", ("a", "b")), ("a", ("a", "")), ("a=b=c", ("a", "b=c")), ("a=", ("a", ""))],
    "address": [("10.0.0.1", "10.0.0.1"), ("2001:db8::33", "2001:db8::33")],
    "extra_host": [
        ("db:10.0.0.2", ("db", "10.0.0.2")), ("db=10.0.0.2", ("db", "10.0.0.2")),
        ("db:2001:db8::33", ("db", "2001:db8::33")), ("db:[::1]", ("db", "::1")),
    ],
    "hostname": [("web", "web"), ("web-1.example_x", "web-1.example_x"), ("a" * 64, "a" * 64)],
    "signal_name": [
        ("TERM", "SIGTERM"), ("SIGTERM", "SIGTERM"), ("term", "SIGTERM"), ("15", "SIGTERM"),
        ("9", "SIGKILL"), ("RTMIN+3", "SIGRTMIN+3"), ("SIGRTMIN", "SIGRTMIN"),
    ],
    "signal_number": [
        ("TERM", 15), ("SIGKILL", 9), ("hup", 1), ("15", 15), ("35", 35), ("64", 64),
        ("RTMIN+3", 37), ("SIGRTMIN", 34),
    ],
    "whole_number": [("-1000", -1000), ("+5", 5), ("0", 0)],
    "word": [("example.org", "example.org"), ("ndots:2", "ndots:2")],
}  # fmt: skip

REFUSED = {
    "size": ["", "k", "-1", "1x", "5bb", "5kbb", "5ib", "1e3", "1.2.3", "x5", "٣", "8192p",
             "9" * 5000, "1_000"],
    "ulimit": ["", "nofile", "nofile=", "nofile=a", "nofile=:", "nofile=5:", "nofile=:5",
               "nofile=2:1", "nofile=-1:5", "nofile=-2", "NOFILE=1", "foo=1", "nofile=1:2:3",
               "nofile=1.5", "nofile=9223372036854775808", "nofile=" + "9" * 5000, "=1"],
    "time_offset": ["", "1x", "boottime=", "realtime=1", "=1", "1d1h", "--1", "+-1", "1mh",
                    "99999999999", "٣", "1.5.5"],
    "id_maps": ["", "0", "0:1", "0:1:2:3", "0:1:0", "1:1:1", "0:1:65536,5:900000:1",
                "0:1000:10,10:1005:10", "a:b:c", "-1:0:1", "0:4294967295:1", "0:1:4294967295",
                "0:1:1,", "1:1000:5"],
    "sysctl": ["", "net.x", "=1", "kernel.foo=1", "kernel.core_pattern=|/x", "vm.swappiness=1",
               "net/ipv4/ip_forward=1", "net.ipv4/ip_forward=1",
               "net...kernel.core_pattern=x", "net.ipv4/../../x=1",
               "net.=1", "netx.y=1"],
    "label": ["", "=b", " =b"],
    "address": ["", "foo", "10.0.0", "1.2.3.4\n5", "::1::", "1.2.3.4 "],
    "extra_host": ["foo", "a:b", ":10.0.0.1", "db:", "a b:10.0.0.1", "a\nb:1.2.3.4"],
    "hostname": ["", "a b", "-web", ".web", "a\nb", "a\tb", "web/x", "a" * 65, "ä", "..", "-"],
    "signal_name": ["", "FOO", "0", "99", "SIG", "_DFL", "SIG_DFL", "RTMIN+99", "RTMIN+x", "1.5"],
    "signal_number": ["", "FOO", "0", "65", "٣", "-9", "RTMIN+99", "1.5", "9" * 5000],
    "whole_number": ["", "zz", "1.5", "9999999999", "--1", "٣"],
    "word": ["", "a b", "a\nb"],
}  # fmt: skip


def check_values(module):
    for name, cases in ACCEPTED.items():
        for text, meaning in cases:
            assert getattr(module, name)(text) == meaning, (name, text)
    for name, texts in REFUSED.items():
        for text in texts:
            refused(getattr(module, name), text)


def refused(function, text):
    try:
        meaning = function(text)
    except UsageError as error:
        assert error.message
    else:
        raise AssertionError(f"{function.__name__}({text!r}) = {meaning!r}")


def test_values():
    check_values(values)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"nofile", ', ""),
        ("1 << 10 * (power + 1)", "1000 ** (power + 1)"),
        ("if units >= 1 << 63:", "if False:"),
        ("digits.isascii() and ", ""),
        ("len(digits) < 20", "True"),
        ("if not low <= int(text) <= high:", "if False:"),
        ("if hard != -1 and (soft == -1 or soft > hard):", "if soft > hard:"),
        ("if hard != -1 and (soft == -1 or soft > hard):", "if False:"),
        ("if equals and clock not in _CLOCKS:", "if False:"),
        ("nanoseconds = -nanoseconds", "pass"),
        ("divmod(nanoseconds, 10**9)", "(nanoseconds // 10**9, 0)"),
        ("if abs(seconds) > 1 << 32:", "if False:"),
        ("if max(inside, outside) + count > LAST_ID + 1:", "if False:"),
        ("inside < other.container_id + other.size", "False"),
        ("outside < other.host_id + other.size", "False"),
        ("if not any(m.container_id == 0 for m in maps):", "if False:"),
        ('or "/" in name', ""),
        ('not all(name.split("."))', "False"),
        ("not equals or not allowed", "not equals"),
        ("if not key.strip():", "if not key:"),
        ('or text[0] in "-."', ""),
        ("if len(text) > 64:", "if len(text) > 65:"),
        ('and not key.startswith("SIG_")', ""),
    ],
)
def test_values_mutants(old, new):
    fails(check_values, mutant(values, old, new))


@pytest.mark.parametrize("name", sorted(ACCEPTED))
@given(text=st.text(max_size=30))
def test_values_answer_or_refuse(name, text):
    try:
        getattr(values, name)(text)
    except UsageError as error:
        assert error.message


@given(st.integers(0, 1 << 62))
def test_a_size_in_bytes_is_itself(number):
    assert values.size(str(number)) == number


# --- mounts

DEFAULT_TMPFS = ("noexec", "nosuid", "nodev")
MOUNTS = [
    ("volume", "/a:/b", Mount("/b", "bind", "/a", ("rbind", "rprivate"))),
    ("volume", "/a:/b:rw", Mount("/b", "bind", "/a", ("rbind", "rprivate"))),
    ("volume", "/a:/b:ro", Mount("/b", "bind", "/a", ("rbind", "ro", "rro", "rprivate"))),
    ("volume", "/a:/b:rro", Mount("/b", "bind", "/a", ("rbind", "ro", "rro", "rprivate"))),
    ("volume", "/a:/b:ro-non-recursive", Mount("/b", "bind", "/a", ("rbind", "ro", "rprivate"))),
    ("volume", "/a:/b:ro,rslave", Mount("/b", "bind", "/a", ("rbind", "ro", "rro", "rslave"))),
    ("volume", "/a:/b:shared", Mount("/b", "bind", "/a", ("rbind", "shared"))),
    ("volume", "/a:/b:z,ro", Mount("/b", "bind", "/a", ("rbind", "ro", "rro", "rprivate"))),
    ("volume", "/a:/b:", Mount("/b", "bind", "/a", ("rbind", "rprivate"))),
    ("volume", "//a/../c/:/b//d/./", Mount("/b/d", "bind", "/c", ("rbind", "rprivate"))),
    ("volume", "/a:/../../b", Mount("/b", "bind", "/a", ("rbind", "rprivate"))),
    ("mount", "type=bind,source=/a,target=/b", Mount("/b", "bind", "/a", ("rbind", "rprivate"))),
    ("mount", "type=BIND,src=/a,dst=/b,ro",
     Mount("/b", "bind", "/a", ("rbind", "ro", "rro", "rprivate"))),
    ("mount", "type=bind,src=/a,destination=/b,readonly=true",
     Mount("/b", "bind", "/a", ("rbind", "ro", "rro", "rprivate"))),
    ("mount", "type=bind,src=/a,dst=/b,readonly=0",
     Mount("/b", "bind", "/a", ("rbind", "rprivate"))),
    ("mount", "type=bind,src=/a,dst=/b,bind-propagation=rslave",
     Mount("/b", "bind", "/a", ("rbind", "rslave"))),
    ("mount", "type=bind,src=/a,dst=/b,bind-recursive=disabled,ro",
     Mount("/b", "bind", "/a", ("bind", "ro", "rprivate"))),
    ("mount", "type=bind,src=/a,dst=/b,bind-nonrecursive",
     Mount("/b", "bind", "/a", ("bind", "rprivate"))),
    ("mount", "type=bind,src=/a,dst=/b,bind-recursive=writable,ro",
     Mount("/b", "bind", "/a", ("rbind", "ro", "rprivate"))),
    ("mount", 'type=bind,"src=/a,b",dst=/b', Mount("/b", "bind", "/a,b", ("rbind", "rprivate"))),
    ("mount", "type=tmpfs,target=/x", Mount("/x", "tmpfs", "tmpfs", DEFAULT_TMPFS)),
    ("mount", "type=tmpfs,target=/x,tmpfs-size=1m,tmpfs-mode=1770,ro",
     Mount("/x", "tmpfs", "tmpfs", (*DEFAULT_TMPFS, "ro", "mode=1770", "size=1048576"))),
    ("tmpfs", "/x", Mount("/x", "tmpfs", "tmpfs", DEFAULT_TMPFS)),
    ("tmpfs", "/x:", Mount("/x", "tmpfs", "tmpfs", DEFAULT_TMPFS)),
    ("tmpfs", "/x:exec", Mount("/x", "tmpfs", "tmpfs", ("nosuid", "nodev", "exec"))),
    ("tmpfs", "/x:size=64k,mode=700,uid=5",
     Mount("/x", "tmpfs", "tmpfs", (*DEFAULT_TMPFS, "size=65536", "mode=700", "uid=5"))),
    ("tmpfs", "/x:size=10%,size=20%", Mount("/x", "tmpfs", "tmpfs", (*DEFAULT_TMPFS, "size=20%"))),
    ("tmpfs", "/x:ro,rw", Mount("/x", "tmpfs", "tmpfs", (*DEFAULT_TMPFS, "rw"))),
    ("tmpfs", "/x:rw,noexec,nosuid,rprivate",
     Mount("/x", "tmpfs", "tmpfs", ("nodev", "rw", "noexec", "nosuid"))),
]  # fmt: skip

BAD_MOUNTS = [
    ("volume", ["", ":", ":/b", "/a", "/a:b", "/a:/", "/a:/.", "/a:/b/..", "/a:", "/a:/b:foo",
                "/a:/b:ro,rw", "/a:/b:rprivate,rslave", "/a:/b:z,Z", "/a:/b:nocopy", "a:b:c:d",
                "/a:ro", "/foo:rw", "name:/b", "a:b"]),
    ("mount", ["", "foo", "type=bind", "type=bind,target=/x", "type=bind,source=/x",
               "type=bind,source=,target=/x", "type=bind,source=/a,target=x",
               "type=bind,source=/a,target=/", "type=bind,source=name,target=/x",
               "type=foo,target=/x", "type=,target=/x", "type=volume,source=x,target=/x",
               "target=/x", "type=bind,source=/a,target=/x,ro=maybe",
               "type=bind,source=/a,target=/x,ro=", "type=bind,source=/a,target=/x,bogus=1",
               "type=bind,source=/a,target=/x,bogus", "type=bind, source=/a,target=/x",
               "type=bind,source=/a,target=/x,tmpfs-size=1",
               "type=bind,source=/a,target=/x,volume-nocopy",
               "type=bind,source=/a,target=/x,bind-propagation=zz",
               "type=bind,source=/a,target=/x,bind-recursive=foo",
               "type=bind,source=/a,target=/x,bind-recursive=readonly",
               "type=tmpfs,target=/x,bind-propagation=shared", "type=tmpfs,source=/a,target=/x",
               "type=tmpfs,target=/x,tmpfs-mode=9", "type=tmpfs,target=/x,tmpfs-mode=",
               "type=tmpfs,target=/x,tmpfs-size=zz", 'type=bind,"', "type=tmpfs\ntarget=/x",
               "type=tmpfs,target", "type=tmpfs,target=/x,tmpfs-size=-1"]),
    ("tmpfs", ["", "x", "/", ":size=1", "/x:foo", "/x:size=zz", "/x:mode=9", "/x:uid=-1",
               "/x:size", "/x:uid=root", "/x:suid,", "/x:size=1,foo=2"]),
]  # fmt: skip


def check_mounts(module):
    for name, text, meaning in MOUNTS:
        assert getattr(module, name)(text) == meaning, (name, text)
    for name, texts in BAD_MOUNTS:
        for text in texts:
            refused(getattr(module, name), text)


def test_mounts():
    check_mounts(mountflags)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"ro": ("ro", "rro")', '"ro": ("ro",)'),
        ('["ro"] if depth == "writable" or not below else ["ro", "rro"]', '["ro"]'),
        ("or _MODES[word] in wishes", ""),
        ('if "copy" in wishes:', "if False:"),
        ('if path == "/":', "if False:"),
        ('options = ["noexec", "nosuid", "nodev"]', "options = []"),
        ("options = [o for o in options if o not in pair]", "pass"),
        ('if key.startswith((other, "volume-")):', "if False:"),
        ('if "source" in fields:', "if False:"),
        ('if depth == "readonly" and not readonly:', "if False:"),
        ('if not text or text.strip("01234567")', "if False"),
        ("if propagation not in _PROPAGATION:", "if False:"),
        ('if value.lower() in ("false", "0"):', "if False:"),
    ],
)
def test_mounts_mutants(old, new):
    fails(check_mounts, mutant(mountflags, old, new))


def test_a_relative_source_is_relative_to_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert mountflags.volume("./x:/b").source == f"{tmp_path}/x"
    assert mountflags.volume(".:/b").source == str(tmp_path)
    assert mountflags.mount("type=bind,source=../y,target=/b").source == str(tmp_path.parent / "y")


def test_named_volumes_are_answered():
    for function, text in (
        (mountflags.volume, "data:/data"),
        (mountflags.volume, "/data"),
        (mountflags.mount, "type=volume,source=data,target=/data"),
        (mountflags.mount, "source=data,target=/data"),
    ):
        with pytest.raises(UsageError, match="not supported yet"):
            function(text)


@given(
    st.sampled_from(["volume", "mount", "tmpfs"]),
    st.lists(
        st.sampled_from(
            ["/a", "/b", ":", ",", "=", "ro", "type", "bind", "tmpfs", "source", "target", "size",
             "64k", "..", '"', "readonly", "\n", "\0"]
        ),
        max_size=12,
    ).map("".join) | st.text(max_size=30),
)  # fmt: skip
def test_mounts_answer_or_refuse(name, text):
    try:
        made = getattr(mountflags, name)(text)
    except UsageError as error:
        assert error.message
    else:
        assert made.destination.startswith("/") and made.destination != "/"
        assert ".." not in made.destination.split("/")
