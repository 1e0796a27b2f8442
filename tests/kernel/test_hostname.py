"""kernel/hostname.py, read back by uname(2) and /proc; the host keeps its name."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from minicontainer.errors import KernelError
from minicontainer.kernel import capabilities, hostname
from tests.kernel.room import Room, unshare
from tests.support import forked
from tests.unit.mutants import fails, mutant

pytestmark = pytest.mark.requires_root
NEWUTS = 0x04000000


def named(name: str, domain: str = "", module=hostname):
    def inside():
        unshare(NEWUTS)
        module.SetHostname(name, domain).run(Room())
        domainname = Path("/proc/sys/kernel/domainname").read_text().strip()
        return os.uname().nodename, socket.gethostname(), domainname

    return forked(inside)


def check_names(module=hostname):
    host, domain = os.uname().nodename, Path("/proc/sys/kernel/domainname").read_text()
    assert named("box", "example", module) == ("box", "box", "example")
    assert named("", "example", module)[0] == host
    assert named("box", "", module)[2] == domain.strip()
    assert named("é" * 32, "", module)[0] == "é" * 32
    assert os.uname().nodename == host
    assert Path("/proc/sys/kernel/domainname").read_text() == domain


def test_names():
    check_names()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("            sethostname(self.hostname)", "            pass"),
        ("            setdomainname(self.domainname)", "            pass"),
        ("C.sethostname(text, len(text))", "C.sethostname(text, len(name))"),
        ("        if self.hostname:\n            set", "        if True:\n            set"),
    ],
)
def test_the_check_can_fail(old, new):
    fails(check_names, mutant(hostname, old, new))


@pytest.mark.parametrize(("name", "domain"), [("x" * 65, ""), ("é" * 33, ""), ("x", "y" * 65)])
def test_a_name_that_is_too_long_by_a_byte(name, domain):
    with pytest.raises(KernelError, match=r"EINVAL.*at most 64 bytes"):
        named(name, domain)


def test_without_the_right_to():
    def inside():
        unshare(NEWUTS)
        capabilities.capset(0, 0, 0)
        hostname.sethostname("box")

    with pytest.raises(KernelError, match=r'sethostname\("box"\).*EPERM.*CAP_SYS_ADMIN'):
        forked(inside)
