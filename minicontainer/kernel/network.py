"""The network namespace: a whole network stack with nothing in it but ``lo``, and that is down.

Links, addresses, routes, ports, firewall rules, abstract sockets: each network namespace has its
own.  A fresh one is as far from the internet as a machine without a cable.  Loopback is brought up
so that programs can talk to themselves on 127.0.0.1, as docker's ``--network none`` does.

Man pages: network_namespaces(7), netdevice(7).
By hand:   unshare --net sh -c 'ip link; ip link set lo up; ip addr'
See it:    cat /proc/net/dev
"""

from __future__ import annotations

import errno
import fcntl
import struct

from minicontainer.errors import KernelError
from minicontainer.step import Context, Step

# ---- vocabulary: netdevice(7)

_SIOCGIFFLAGS = 0x8913
_SIOCSIFFLAGS = 0x8914
_IFF_UP = 1

# ---- verbs


def set_link_up(link: str) -> None:
    """``ip link set LINK up`` by the oldest interface there is: SIOCSIFFLAGS of netdevice(7)."""
    import _socket

    request = struct.pack("16sh14x", link.encode(), 0)
    with_socket = _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
    try:
        answer = fcntl.ioctl(with_socket.fileno(), _SIOCGIFFLAGS, request)
        (flags,) = struct.unpack_from("h", answer, 16)
        request = struct.pack("16sh14x", link.encode(), flags | _IFF_UP)
        fcntl.ioctl(with_socket.fileno(), _SIOCSIFFLAGS, request)
    except OSError as error:
        raise KernelError(
            "ioctl", f'SIOCSIFFLAGS, "{link}", IFF_UP', error.errno or 0,
            {errno.EPERM: "CAP_NET_ADMIN is needed in the network namespace's user namespace",
             errno.ENODEV: "there is no such link in this network namespace"}.get(
                 error.errno or 0, ""),
        ) from error  # fmt: skip
    finally:
        with_socket.close()


# ---- steps


class BringUpLoopback(Step):
    """127.0.0.1 and ::1 work only once ``lo`` is up; the kernel leaves it down."""

    name = "loopback"
    without = "a program in the container cannot reach itself on 127.0.0.1: ENETUNREACH"
    look = ("net/if_inet6",)

    def title(self) -> str:
        """In a few words."""
        return "bring up lo"

    def shell(self) -> str:
        """ip(8)."""
        return "ip link set lo up"

    def run(self, context: Context) -> None:
        """Two ioctls."""
        set_link_up("lo")
