"""kernel/credentials.py: who the program is, by files that a hostile image may have written."""

from __future__ import annotations

import os
import random
import stat
import string

import prctl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicontainer.errors import UsageError
from minicontainer.kernel import credentials
from minicontainer.kernel.credentials import MAX_ID, look_up, number
from tests.kernel.room import Room, unshare
from tests.support import forked
from tests.unit.mutants import fails, mutant

NEWUSER = 0x10000000
PASSWD = """\
# a comment
root:x:0:0:root:/root:/bin/sh
postgres:x:70:71:PostgreSQL:/var/lib/postgresql:/bin/sh
short:x:80:81
1234:x:90:91::/numeric:/bin/sh
big:x:4294967294:4294967294::/big:/bin/sh
homeless:x:95:96:::
"""
GROUP = """\
root:x:0:
postgres:x:71:
ssl-cert:x:101:postgres,www
extra:x:102:www,postgres
almost:x:103:postgresql,xpostgres
"""


class Image:
    """A root with /etc/passwd and /etc/group."""

    def __init__(self, path, passwd: str | bytes = PASSWD, group: str | bytes = GROUP) -> None:
        self.path = path
        (path / "etc").mkdir(exist_ok=True)
        for name, text in (("passwd", passwd), ("group", group)):
            (path / "etc" / name).write_bytes(text if isinstance(text, bytes) else text.encode())

    def look_up(self, user: str, module=credentials):
        root = os.open(self.path, os.O_PATH)
        try:
            return module.look_up(root, user)
        finally:
            os.close(root)


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    return Image(tmp_path_factory.mktemp("image"))


# ---- looking up


@pytest.mark.parametrize(
    ("user", "found"),
    [
        ("postgres", (70, 71, (101, 102), "/var/lib/postgresql")),
        ("70", (70, 71, (101, 102), "/var/lib/postgresql")),
        ("postgres:ssl-cert", (70, 101, (), "/var/lib/postgresql")),
        ("postgres:500", (70, 500, (), "/var/lib/postgresql")),
        ("5000", (5000, 0, (), "/")),
        ("5000:6000", (5000, 6000, (), "/")),
        ("", (0, 0, (), "/root")),
        (":extra", (0, 102, (), "/root")),
        ("short", (80, 81, (), "/")),
        ("homeless", (95, 96, (), "/")),
        ("1234", (90, 91, (), "/numeric")),
        ("big", (MAX_ID, MAX_ID, (), "/big")),
        (str(MAX_ID), (MAX_ID, MAX_ID, (), "/big")),
    ],
)
def test_users(image, user, found):
    assert image.look_up(user) == found


@pytest.mark.parametrize(
    "user",
    ["nobody-here", "postgres:no-such", "postgres:", "5000:", "root:ssl", "# a comment", "x", "-1",
     "+0", " 0", "0x0", "\u0660", "\u00b2", "root ", "Root", "4294967295", "4294967296",
     "99999999999999999999", "0:4294967296", "postgres:4294967295", "root:x:0", "\n", "\0",
     "1e1", "0_0"],
)  # fmt: skip
def test_what_cannot_be_meant_is_an_error(image, user):
    with pytest.raises(UsageError):
        image.look_up(user)


NAMES_OF = {line.split(":")[0] for line in PASSWD.splitlines()}


def check_unknown_is_an_error(image, user, module=credentials):
    with pytest.raises(UsageError, match=r"unable to find user|out of range|missing after"):
        image.look_up(user, module)


@given(
    st.text(min_size=1).filter(
        lambda t: t.split(":")[0] not in {*NAMES_OF, ""} and number(t.split(":")[0][:9]) < 0
    )
)
def test_an_unknown_name_is_an_error_and_never_root(image, user):
    check_unknown_is_an_error(image, user)


@pytest.mark.parametrize(
    ("user", "old", "new"),
    [
        ("nobody", "    uid = number(wanted)", "    uid = max(number(wanted), 0)"),
        ("\u0663", "if not (text.isascii() and text.isdigit()):", "if not text.isdigit():"),
        ("4294967295", "int(digits) > MAX_ID:", "int(digits) > MAX_ID + 1:"),
        ("rootkit", "(entry[0] != wanted and", "(entry[0] != wanted[:4] and"),
    ],
)
def test_the_check_on_unknown_names_can_fail(image, user, old, new):
    check_unknown_is_an_error(image, user)
    fails(check_unknown_is_an_error, image, user, mutant(credentials, old, new))


@given(st.integers(0, MAX_ID))
def test_a_number_is_that_number(tmp_path_factory, uid):
    assert number(str(uid)) == uid


@given(st.binary(max_size=300), st.binary(max_size=300))
def test_files_of_any_bytes_make_no_root_of_a_name(tmp_path_factory, passwd, group):
    """Only a line that has the name and two good numbers counts, whatever stands around it."""
    wanted = "Q" + "".join(random.Random(passwd).choices(string.ascii_letters, k=12))
    path = tmp_path_factory.getbasetemp() / "any"
    path.mkdir(exist_ok=True)
    with pytest.raises(UsageError):
        Image(path, passwd, group).look_up(wanted)
    good = passwd + f"\n{wanted}:x:77:78::/home:\n".encode()
    assert Image(path, good, group).look_up(wanted)[:2] == (77, 78)


@pytest.mark.parametrize(
    "line",
    ["evil", "evil:x", "evil:x:", "evil:x:0", "evil:x::", "evil:x:a:0", "evil:x:0:a", "evil:x:-1:0",
     "evil:x: 0:0", "evil:x:\u0660:0", ":x:0:0:::evil", "evil;x;0;0", "evil\r:x:0:0"],
)  # fmt: skip
def test_a_hostile_line_is_not_taken_for_root(tmp_path, line):
    with pytest.raises(UsageError, match="unable to find user evil"):
        Image(tmp_path, line + "\n").look_up("evil")


def check_beyond(tmp_path, module=credentials):
    """4294967296 would be 0 in 32 bits; 2**32 - 1 means "as it is".  Others are not hurt."""
    for bad in ("4294967295", "4294967296", str(2**64), "9" * 5000):
        for line in (f"evil:x:{bad}:1", f"evil:x:1:{bad}"):
            image = Image(tmp_path, f"{line}\n{PASSWD}", f"evil:x:{bad}:postgres\n{GROUP}")
            with pytest.raises(UsageError, match="unable to find user evil"):
                image.look_up("evil", module)
            with pytest.raises(UsageError, match="unable to find group evil"):
                image.look_up("0:evil", module)
            assert image.look_up("postgres", module)[:3] == (70, 71, (101, 102))


def test_ids_beyond_the_kernels_are_no_ids(tmp_path):
    check_beyond(tmp_path)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("    except UsageError:\n        return -1", "    except UsageError:\n        raise"),
        ("    except UsageError:\n        return -1", "    except UsageError:\n        return 0"),
        ("len(digits) > 10 or int(digits) > MAX_ID", "int(digits[:10]) > 2**63"),
    ],
)
def test_the_check_on_ids_beyond_can_fail(tmp_path, old, new):
    fails(check_beyond, tmp_path, mutant(credentials, old, new))


def test_an_image_without_files_has_numbers_only(tmp_path):
    root = os.open(tmp_path, os.O_PATH)
    assert look_up(root, "7") == (7, 0, (), "/")
    assert look_up(root, "7:8") == (7, 8, (), "/")
    for user in ("root", "0:root"):
        with pytest.raises(UsageError, match="unable to find"):
            look_up(root, user)
    os.close(root)


@pytest.mark.parametrize("kind", ["fifo", "directory", "device", "huge", "link out", "loop"])
def test_a_passwd_that_is_no_small_file_is_not_read(tmp_path, kind):
    """CVE-2024-9676: opening a FIFO would wait for a writer for ever."""
    (tmp_path / "r").mkdir()
    image = Image(tmp_path / "r")
    file = tmp_path / "r/etc/passwd"
    file.unlink()
    (tmp_path / "passwd").write_text("postgres:x:0:0::/:\n")
    {
        "fifo": lambda: os.mkfifo(file),
        "directory": lambda: file.mkdir(),
        "device": lambda: file.symlink_to("/dev/zero"),
        "huge": lambda: file.write_text("x:x:1:1::/:\n" * 200_000),
        "link out": lambda: file.symlink_to("../../passwd"),
        "loop": lambda: file.symlink_to("passwd"),
    }[kind]()
    with pytest.raises(UsageError, match="unable to find user postgres"):
        image.look_up("postgres")
    assert image.look_up("7")[:2] == (7, 0)


# ---- becoming


def become(tmp_path, module=credentials, **fields):
    """BecomeUser in an image of its own; what the process is afterwards."""

    def inside():
        os.chroot(Image(tmp_path).path)
        os.chdir("/")
        room = Room()
        room.env = list(fields.pop("env", ()))
        module.BecomeUser(**fields).run(room)
        mask = os.umask(0)
        return {
            "uid": os.getresuid(), "gid": os.getresgid(), "groups": sorted(os.getgroups()),
            "home": room.env, "umask": mask, "permitted": prctl.cap_permitted.chown,
        }  # fmt: skip

    return forked(inside)


def check_become(tmp_path, module=credentials):
    found = become(tmp_path, module, username="postgres", additional_gids=(7, 101))
    assert found["uid"] == (70, 70, 70)
    assert found["gid"] == (71, 71, 71)
    assert found["groups"] == [7, 101, 102]
    assert found["home"] == ["HOME=/var/lib/postgresql"]
    assert found["umask"] == 0o022
    assert found["permitted"] is True, "the capabilities are kept for the next step to shrink"
    found = become(tmp_path, module, uid=5, gid=6, group_names=("extra", "9"), umask=0o77)
    assert (found["uid"][0], found["gid"][0], found["groups"]) == (5, 6, [9, 102])
    assert found["umask"] == 0o77
    assert become(tmp_path, module, uid=5)["groups"] == [], "none of the starter's groups"


@pytest.mark.requires_root
def test_becoming_a_user(tmp_path):
    check_become(tmp_path)


@pytest.mark.requires_root
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("become(uid, gid, list(dict.fromkeys(groups)))", "become(uid, gid, os.getgroups())"),
        ("        set_keep_capabilities()\n", ""),
        ("become(uid, gid, list", "become(uid, 0, list"),
        ("become(uid, gid, list", "become(0, gid, list"),
        ('                groups = (*others, *groups)\n', ""),
        ('context.env.append("HOME=" + home)', "pass"),
        ("os.umask(self.umask if self.umask >= 0 else 0o022)", "os.umask(0o022)"),
    ],
)  # fmt: skip
def test_the_check_on_becoming_can_fail(tmp_path, old, new):
    fails(check_become, tmp_path, mutant(credentials, old, new))


@pytest.mark.requires_root
def test_home_is_left_alone_if_it_is_said(tmp_path):
    found = become(tmp_path, username="postgres", env=("HOME=/mine",))
    assert found["home"] == ["HOME=/mine"]


@pytest.mark.requires_root
def test_an_id_that_is_not_mapped_is_told(tmp_path):
    def inside():
        unshare(NEWUSER)
        credentials.BecomeUser(uid=5).run(Room())

    with pytest.raises(UsageError, match="cannot become user 5:0"):
        forked(inside)


@pytest.mark.requires_root
def test_only_pipes_and_the_own_terminal_change_hands(tmp_path):
    def inside():
        read, _ = os.pipe()
        master, slave = os.openpty()
        file = os.open(tmp_path / "file", os.O_CREAT | os.O_RDWR)
        owners = []
        for terminal in (False, True):
            for target, source in enumerate((read, slave, file)):
                os.dup2(source, target)
                os.fchown(target, 0, -1)
            credentials.give_stdio(70, terminal)
            owners.append([os.fstat(fd).st_uid for fd in (0, 1, 2)])
        assert stat.S_ISFIFO(os.fstat(0).st_mode)
        os.close(master)
        return owners

    assert forked(inside) == [[70, 0, 0], [70, 70, 0]]
