"""What is read from the host for a container: variables, devices, id ranges, profiles, sources."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicontainer import host
from minicontainer.errors import UsageError
from minicontainer.spec import IdMap, Seccomp
from tests.unit.mutants import fails, mutant

HERE = {"HOME": "/root", "EMPTY": ""}


# --- --env-file: what docker 28.2 does with the same lines

ENV_FILES = [
    (b"A=1\nB=2\n", ("A=1", "B=2")),
    (b"A=1", ("A=1",)),
    (b"\n  \n# no\n  # no\nA=1 # is part of it\n", ("A=1 # is part of it",)),
    (b"  A=1\n", ("A=1",)),
    (b"A= x \n", ("A= x ",)),
    (b'A="quoted"\n', ('A="quoted"',)),
    (b"A=1\r\nB=2\r\n", ("A=1", "B=2")),
    (b"HOME\nEMPTY\nMISSING\n", ("HOME=/root", "EMPTY=")),
    (b"\xef\xbb\xbfA=1\n", ("A=1",)),
    (b"A=\xc3\xa4\n", ("A=\u00e4",)),
    (b"A=b=c\n", ("A=b=c",)),
    (b"", ()),
]
BAD_ENV_FILES = [
    (b"A B=1\n", "variable 'A B' contains whitespaces"),
    (b"A =1\n", "variable 'A ' contains whitespaces"),
    (b"=1\n", "no variable name on line '=1'"),
    (b"A=1\n\xff\n", "not UTF-8 at line 2"),
    (b"A=\0\n", "NUL byte at line 1"),
]


def check_env_files(module, path):
    for content, entries in ENV_FILES:
        path.write_bytes(content)
        assert module.env_file(str(path), HERE) == entries, content
    for content, message in BAD_ENV_FILES:
        path.write_bytes(content)
        with pytest.raises(UsageError) as caught:
            module.env_file(str(path), HERE)
        assert caught.value.message == f"invalid env file ({path}): {message}"


def test_env_files(tmp_path):
    check_env_files(host, tmp_path / "env")
    with pytest.raises(UsageError, match="open /nonexistent: no such file or directory"):
        host.env_file("/nonexistent", {})
    with pytest.raises(UsageError, match="is a directory"):
        host.env_file(str(tmp_path), {})


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('.removeprefix(b"\\xef\\xbb\\xbf")', ""),
        ('.removesuffix("\\r")', ""),
        (".lstrip()", ""),
        ("elif name in environ:", "else:"),
        ("if any(c.isspace() for c in name):", "if False:"),
        ("if not name:", "if False:"),
        ('if "\\0" in line:', "if False:"),
        ('if not line or line.startswith("#"):', "if not line:"),
    ],
)
def test_env_files_mutants(old, new, tmp_path):
    fails(check_env_files, mutant(host, old, new), tmp_path / "env")


# --- --device


def check_devices(module, place):
    (null,) = module.device("/dev/null")
    status = os.stat("/dev/null")
    assert (null.path, null.type, null.major, null.minor) == ("/dev/null", "c", 1, 3)
    assert null.file_mode == stat.S_IMODE(status.st_mode) == 0o666
    assert (null.uid, null.gid) == (status.st_uid, status.st_gid)
    for text, path in (
        ("/dev/null:/dev/x", "/dev/x"),
        ("/dev/null:rwm", "/dev/null"),
        ("/dev/null:/dev/x:mrw", "/dev/x"),
    ):
        assert [node.path for node in module.device(text)] == [path], text
    for text, access in (
        ("/dev/null", "rwm"), ("/dev/null:r", "r"), ("/dev/null:/dev/x:mrw", "mrw"),
        ("/dev/null:/dev/x:rw", "rw"), ("/dev/null:/dev/x", "rwm"),
    ):  # fmt: skip
        assert [node.access for node in module.device(text)] == [access], text
    link = place / "link"
    if not link.is_symlink():
        link.symlink_to("/dev/zero")
    assert module.device(f"{link}:/dev/z")[0].minor == 5, "a link stands for what it points to"
    for text, message in (
        ("", "bad format for path"),
        (":/dev/x", "bad format for path"),
        ("/dev/null:/a:rwm:x", "bad format for path"),
        ("/dev/null:/a:zz", "bad mode specified: zz"),
        ("/dev/null:x", "x is not an absolute path"),
        ("/dev/null:rr", "rr is not an absolute path"),
        ("/nonexistent", 'custom device "/nonexistent": no such file or directory'),
        ("/etc/passwd", 'custom device "/etc/passwd": not a device node'),
        (str(place), "not a device node"),
    ):
        with pytest.raises(UsageError) as caught:
            module.device(text)
        assert message in caught.value.message, text


def test_devices(tmp_path):
    check_devices(host, tmp_path)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("node.replace(access=access)", "node"),
        ("source, target = parts[0], parts[-1]", "source, target = parts[0], parts[0]"),
        ('if not target.startswith("/"):', "if False:"),
        ("status = os.stat(source)", "status = os.lstat(source)"),
        ("stat.S_IMODE(status.st_mode)", "0o600"),
        ("if not found or None in found:", "if False:"),
        ("len(set(text)) == len(text)", "True"),
        ("os.major(status.st_rdev), os.minor(status.st_rdev)",
         "os.minor(status.st_rdev), os.major(status.st_rdev)"),
    ],
)  # fmt: skip
def test_devices_mutants(old, new, tmp_path):
    fails(check_devices, mutant(host, old, new), tmp_path)


def test_all_devices_are_those_of_dev_without_the_runtimes_own():
    found = host.all_devices()
    paths = [node.path for node in found]
    assert len(set(paths)) == len(paths)
    assert not {"/dev/null", "/dev/tty", "/dev/console"} & set(paths)
    assert not [p for p in paths if p.startswith(("/dev/pts", "/dev/shm", "/dev/fd"))]
    for node in found:
        status = os.lstat(node.path)
        assert stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode)
        assert (node.major, node.minor) == (os.major(status.st_rdev), os.minor(status.st_rdev))
    expected = {
        f"/dev/{name}"
        for name in os.listdir("/dev")
        if stat.S_ISCHR(mode := os.lstat(f"/dev/{name}").st_mode) or stat.S_ISBLK(mode)
    } - {f"/dev/{n}" for n in ("null", "zero", "full", "random", "urandom", "tty", "console")}
    assert expected <= set(paths)


# --- --userns auto


def id_files(tmp_path, subuid, subgid):
    names = {"/etc/subuid": tmp_path / "subuid", "/etc/subgid": tmp_path / "subgid"}
    names["/etc/subuid"].write_text(subuid)
    names["/etc/subgid"].write_text(subgid)
    return lambda path, **how: open(names[path], **how)


ids = st.integers(0, (1 << 256) - 1).map("{:064x}".format)
ENTRY = "someone:100000:65536\ncontainers:2000000:131072\n# no\n"


def check_auto(module, container_id, subuid="", subgid=""):
    (uids,), (gids,) = module.auto_userns(container_id)
    for block, entry in ((uids, subuid), (gids, subgid)):
        assert (block.container_id, block.size) == (0, 65536)
        if entry:
            assert block.host_id in (2000000, 2065536)
        else:
            assert block.host_id % 65536 == 0 and 0x00080000 <= block.host_id <= 0x6FFF0000


@given(ids)
def test_auto_without_entries(container_id):
    copy = mutant(host, '"/etc/subuid", "/etc/subgid"', '"/nonexistent", "/nonexistent"')
    check_auto(copy, container_id)
    assert copy.auto_userns(container_id) == copy.auto_userns(container_id)
    (uids,), (gids,) = copy.auto_userns(container_id)
    assert uids == gids


def test_auto_picks_among_many():
    copy = mutant(host, '"/etc/subuid", "/etc/subgid"', '"/nonexistent", "/nonexistent"')
    bases = {copy.auto_userns(os.urandom(32).hex())[0][0].host_id for _ in range(200)}
    assert len(bases) > 190


@pytest.mark.parametrize("entry", [ENTRY, "minicontainer:2000000:131073\n" + ENTRY])
def test_auto_keeps_to_the_entries(tmp_path, entry):
    copy = mutant(host, "import os\n", "import os\n")
    copy.open = id_files(tmp_path, entry, entry)
    found = set()
    for number in range(16):
        check_auto(copy, f"{number:016x}" + "0" * 48, entry, entry)
        found.add(copy.auto_userns(f"{number:016x}")[0])
    assert found == {(IdMap(0, 2000000, 65536),), (IdMap(0, 2065536, 65536),)}


@pytest.mark.parametrize(
    "entry", ["containers:5:100\n", "containers:x:65536\n", "containers\n", "other:5:65536\n"]
)
def test_auto_passes_over_useless_entries(tmp_path, entry):
    copy = mutant(host, "import os\n", "import os\n")
    copy.open = id_files(tmp_path, entry, entry)
    check_auto(copy, "ab" * 32)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("if count >= _BLOCK:", "if True:"),
        ("first + count - _BLOCK + 1", "first + count"),
        ("entry[0] == user and ", ""),
    ],
)
def test_auto_mutants(tmp_path, old, new):
    def check(module):
        for entry in (ENTRY, "containers:2000000:131080\n", "containers:5:100\n" + ENTRY):
            module.open = id_files(tmp_path, entry, entry)
            for number in range(16):
                check_auto(module, f"{number:016x}", entry, entry)

    check(mutant(host, "import os\n", "import os\n"))
    fails(check, mutant(host, old, new))


# --- files and directories


def test_seccomp_profile(tmp_path):
    file = tmp_path / "profile.json"
    file.write_text('{"defaultAction": "SCMP_ACT_ALLOW"}')
    assert host.seccomp_profile(str(file)) == Seccomp('{"defaultAction": "SCMP_ACT_ALLOW"}')
    for text in ("", "[1]", "{", "[" * 100000, "\udcff"):
        file.write_bytes(text.encode("utf-8", "surrogateescape"))
        with pytest.raises(UsageError, match="is not JSON"):
            host.seccomp_profile(str(file))
    with pytest.raises(UsageError, match="failed: no such file or directory"):
        host.seccomp_profile("/nonexistent")


def test_sources(tmp_path):
    missing = tmp_path / "a" / "b"
    with pytest.raises(UsageError, match=f"bind source path does not exist: {missing}"):
        host.check_sources((str(tmp_path), str(missing)))
    assert not missing.exists()
    host.make_sources((str(missing), str(tmp_path)))
    assert missing.is_dir() and not list(missing.iterdir())
    host.check_sources((str(missing),))
    file = tmp_path / "file"
    file.write_text("kept")
    host.make_sources((str(file),))
    assert file.read_text() == "kept"
    with pytest.raises(UsageError, match="error while creating mount source path"):
        host.make_sources((f"{file}/x",))


def test_read_host():
    facts = host.read_host()
    assert facts.name == os.uname().nodename
    for path, text in (("/etc/hosts", facts.hosts), ("/etc/resolv.conf", facts.resolv_conf)):
        file = Path(path)  # a minimal system may have neither
        assert text == (file.read_text(errors="replace") if file.exists() else "")
