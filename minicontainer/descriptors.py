"""Descriptors on a journey: a copy of an open file, for another process, over a socket.

A descriptor is a number in a table of one process; the kernel's open file behind it has no other
name.  sendmsg(2) can carry such files: the message says "these, of mine", and the receiver finds
new numbers for the same files in its own table.  unix(7), SCM_RIGHTS; cmsg(3).

The sockets here are numbers, too: two processes that share their memory would share a socket
object, and whoever closed it would have closed it for both, in one table only.
"""

from __future__ import annotations

import _socket
from sys import byteorder

PACKETS = (_socket.AF_UNIX, _socket.SOCK_SEQPACKET)  # kept apart, in order; tells who is gone


def send_descriptor(over: int, fd: int) -> None:
    """Send a copy of ``fd`` over a socket: sendmsg(2)."""
    sock = _socket.socket(*PACKETS, 0, over)
    rights = fd.to_bytes(4, byteorder, signed=True)
    try:
        sock.sendmsg([b"fd"], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, rights)])
    finally:
        sock.detach()


def receive_descriptor(over: int) -> int:
    """The next descriptor that was sent, close-on-exec: recvmsg(2)."""
    sock = _socket.socket(*PACKETS, 0, over)
    try:
        _, ancillary, _, _ = sock.recvmsg(2, _socket.CMSG_SPACE(4), _socket.MSG_CMSG_CLOEXEC)
    finally:
        sock.detach()
    return int.from_bytes(ancillary[0][2][:4], byteorder, signed=True)
