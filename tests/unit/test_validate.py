"""What a Spec must not say: each contradiction is refused, by the plan, before anything is done."""

from __future__ import annotations

import pytest

from minicontainer.errors import UsageError
from minicontainer.plan import Place, plan
from minicontainer.spec import (
    DEFAULT_NAMESPACES,
    IdMap,
    Linux,
    Namespace,
    Process,
    Root,
    Spec,
    TimeOffset,
    User,
)

PLACE = Place("id", "/scratch")
MAPS = (IdMap(0, 100000, 65536),)


def spec(*kinds, process=None, hostname="", domainname="", joined=(), **linux):
    """A Spec with these namespaces of its own, and these joined."""
    namespaces = [Namespace(kind) for kind in kinds or DEFAULT_NAMESPACES]
    namespaces += [Namespace(kind, f"/run/ns/{kind}") for kind in joined]
    return Spec(
        process=process or Process(args=("true",)),
        root=Root("/r"),
        hostname=hostname,
        domainname=domainname,
        linux=Linux(namespaces=tuple(namespaces), **linux),
    )


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (spec("pid"), "must have one of type mount"),
        (spec("pid", joined=("mount",)), "must have one of type mount"),
        (spec("mount", joined=("user",)), "joining a user namespace is not supported yet"),
        (spec("mount", joined=("time",)), "joining a time namespace is not supported yet"),
        (spec("mount", "user", joined=("network",), uid_mappings=MAPS, gid_mappings=MAPS),
         "a user namespace of its own and a path to join"),
        (spec("mount", hostname="box"), "hostname needs a namespace of type uts"),
        (spec("mount", domainname="box"), "domainname needs a namespace of type uts"),
        (spec(hostname="x" * 65), "hostname: the kernel's limit is 64 bytes"),
        (spec("mount", "user"), "linux.uidMappings is missing"),
        (spec("mount", "user", uid_mappings=MAPS), "linux.gidMappings is missing"),
        (spec(uid_mappings=MAPS), "linux.uidMappings needs a user namespace"),
        (spec("mount", "user", uid_mappings=(IdMap(1, 1, 1),), gid_mappings=MAPS),
         "linux.uidMappings leaves id 0 out"),
        (spec("mount", "user", uid_mappings=(*MAPS, IdMap(65535, 1, 1)), gid_mappings=MAPS),
         r"linux.uidMappings\[1\] maps an id a second time"),
        (spec("mount", "user", uid_mappings=(*MAPS, IdMap(70000, 165535, 1)), gid_mappings=MAPS),
         r"linux.uidMappings\[1\] maps an id a second time"),
        (spec("mount", "user", uid_mappings=(IdMap(0, 0xFFFFFFFE, 2),), gid_mappings=MAPS),
         r"linux.uidMappings\[0\] is empty or goes beyond"),
        (spec("mount", "user", uid_mappings=MAPS, gid_mappings=MAPS,
              process=Process(args=("true",), user=User(uid=65536))),
         "process.user: id 65536 is not in linux.uidMappings"),
        (spec("mount", "user", uid_mappings=MAPS, gid_mappings=MAPS,
              process=Process(args=("true",), user=User(additional_gids=(65536,)))),
         "process.user: id 65536 is not in linux.gidMappings"),
        (spec(time_offsets=(TimeOffset("monotonic", 1),)), "linux.timeOffsets needs a time"),
        (spec("mount", sysctl=(("net.ipv4.ip_forward", "1"),)), "namespace of type network"),
        (spec("mount", sysctl=(("kernel.msgmax", "1"),)), "namespace of type ipc"),
        (spec(sysctl=(("kernel.panic", "1"),)), "not private to a namespace"),
        (spec(sysctl=(("net/../kernel.panic", "1"),)), "not private to a namespace"),
        (spec(process=Process(args=("true",), apparmor_profile="x")), "process.apparmorProfile"),
        (spec(process=Process(args=("true",), selinux_label="x")), "process.selinuxLabel"),
    ],
)  # fmt: skip
def test_contradictions_are_refused(wrong, words):
    with pytest.raises(UsageError, match=words):
        plan(wrong, PLACE)


@pytest.mark.parametrize(
    "right",
    [
        spec(),
        spec("mount"),
        spec("mount", hostname="box", joined=("uts",)),
        spec("mount", sysctl=(("net.ipv4.ip_forward", "1"),), joined=("network",)),
        spec("mount", "user", uid_mappings=MAPS, gid_mappings=(*MAPS, IdMap(70000, 1, 1))),
        spec("mount", "user", uid_mappings=MAPS, gid_mappings=MAPS,
             process=Process(args=("true",), user=User(uid=99999, username="root"))),
        spec("mount", "time", time_offsets=(TimeOffset("monotonic", 1),)),
    ],
)  # fmt: skip
def test_what_is_no_contradiction_passes(right):
    assert "exec" in plan(right, PLACE).names()
