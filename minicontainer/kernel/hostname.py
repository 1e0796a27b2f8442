"""The host name: the smallest namespace, one struct with six strings (uname(2)).

The uts namespace holds what ``uname -n`` prints.  It is the best first look at namespaces: one
call changes it, and the host's name is still the same.

By hand:   unshare --uts sh -c 'hostname box; hostname' ; hostname
See it:    cat /proc/sys/kernel/hostname      (the reader's own namespace answers)
"""

from __future__ import annotations

import errno

from minicontainer.libc import C, check
from minicontainer.step import Context, Step, quote

# ---- vocabulary

HOST_NAME_MAX = 64  # bytes: include/uapi/linux/utsname.h, __NEW_UTS_LEN

# ---- verbs


def sethostname(name: str) -> None:
    """sethostname(2): rename the uts namespace this process is in."""
    text = name.encode()
    check(
        C.sethostname(text, len(text)), "sethostname", name,
        meaning={
            errno.EINVAL: f"a host name has at most {HOST_NAME_MAX} bytes",
            errno.EPERM: "CAP_SYS_ADMIN is needed in the namespace's user namespace",
        },
    )  # fmt: skip


def setdomainname(name: str) -> None:
    """setdomainname(2): the NIS domain, which is not DNS's."""
    text = name.encode()
    check(
        C.setdomainname(text, len(text)), "setdomainname", name,
        meaning={errno.EINVAL: f"a domain name has at most {HOST_NAME_MAX} bytes"},
    )  # fmt: skip


# ---- steps


class SetHostname(Step):
    """Name the container; without a uts namespace of its own this would rename the host."""

    name = "hostname"
    without = "the container is called like the host"

    hostname: str
    domainname: str = ""

    def title(self) -> str:
        """In a few words."""
        return f"set the host name to {self.hostname}"

    def shell(self) -> str:
        """hostname(1), domainname(1)."""
        lines = [quote("hostname", self.hostname)] if self.hostname else []
        lines += [quote("domainname", self.domainname)] if self.domainname else []
        return "\n".join(lines)

    def run(self, context: Context) -> None:
        """sethostname(2)."""
        if self.hostname:
            sethostname(self.hostname)
        if self.domainname:
            setdomainname(self.domainname)
