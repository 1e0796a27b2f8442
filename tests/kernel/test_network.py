"""kernel/network.py: lo is up, by pyroute2 and by a program that talks to itself."""

from __future__ import annotations

import errno
import socket

import pytest
from pyroute2 import IPRoute

from minicontainer.errors import KernelError
from minicontainer.kernel import capabilities, network
from tests.kernel.room import Room, unshare
from tests.support import forked
from tests.unit.mutants import fails, mutant

pytestmark = pytest.mark.requires_root
NEWNET = 0x40000000


def links() -> dict[str, tuple[bool, list[str]]]:
    """Every link with its state and addresses, as rtnetlink(7) tells pyroute2."""
    with IPRoute() as ip:
        addresses: dict[int, list[str]] = {}
        for message in ip.get_addr():
            addresses.setdefault(message["index"], []).append(message.get_attr("IFA_ADDRESS"))
        return {
            link.get_attr("IFLA_IFNAME"): (
                bool(link["flags"] & 1), sorted(addresses.get(link["index"], ()))
            )
            for link in ip.get_links()
        }  # fmt: skip


def talk() -> int:
    """Send a datagram to oneself: 0, or the errno."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.bind(("0.0.0.0", 0))
        try:
            one.sendto(b"hello", ("127.0.0.1", one.getsockname()[1]))
            return 0 if one.recv(10) == b"hello" else -1
        except OSError as error:
            return error.errno or -1


def check_loopback(module=network):
    def inside():
        unshare(NEWNET)
        before = links()["lo"][0], talk()
        module.BringUpLoopback().run(Room())
        module.BringUpLoopback().run(Room())  # up already is fine
        return before, links()["lo"], talk()

    before, after, error = forked(inside)
    assert before == (False, errno.ENETUNREACH)
    assert after[0] is True
    assert after[1][0] == "127.0.0.1"
    assert error == 0


def test_loopback_comes_up():
    check_loopback()


@pytest.mark.parametrize(
    ("old", "new"), [("flags | _IFF_UP", "flags"), ('        set_link_up("lo")', "        pass")]
)
def test_the_check_can_fail(old, new):
    fails(check_loopback, mutant(network, old, new))


def test_other_flags_stay():
    """Setting only IFF_UP would clear what was set before."""

    def inside():
        unshare(NEWNET)
        with IPRoute() as ip:
            ip.link("set", index=1, flags=0x100, change=0x100)  # IFF_PROMISC
            network.set_link_up("lo")
            return ip.get_links(1)[0]["flags"] & 0x101

    assert forked(inside) == 0x101


def test_a_link_that_is_not_there():
    def inside():
        unshare(NEWNET)
        network.set_link_up("eth7")

    with pytest.raises(KernelError, match=r"ioctl\(SIOCSIFFLAGS, .eth7.*ENODEV.*no such link"):
        forked(inside)


def test_without_the_right_to():
    def inside():
        unshare(NEWNET)
        capabilities.capset(0, 0, 0)
        network.set_link_up("lo")

    with pytest.raises(KernelError, match=r"EPERM.*CAP_NET_ADMIN"):
        forked(inside)
