"""seccomp: a program of ours that the kernel asks before each system call of the container.

Namespaces hide the host's objects and capabilities forbid its privileges, but the container still
speaks to the host's own kernel, some 400 system calls wide, and any of them may have a flaw.  A
seccomp filter takes most of that surface away: for each call the kernel runs our BPF program
(bpf.py) on the call's number, architecture and arguments, and obeys its verdict: let pass, fail
with an errno, kill.  The program sees numbers and pointers, never what they point to: it can
forbid mount, not a path.

A filter can never be taken off again, only be joined by stricter ones, and every child inherits it.
Hence the order of things.  Loading needs CAP_SYS_ADMIN or no_new_privs, else one could load a
filter that breaks the checks of a set-uid program.  docker leaves no_new_privs off, so there the
filter comes while we still are root with all capabilities, just before those are dropped, and it
must let pass what follows: setresuid, setgroups, capset, prctl, write, execve.  With no_new_privs
the filter comes last of all, as late as it can.

The default profile (seccomp_profile.py, equal to docker's) is data; seccomp_compile.py makes a
program of it; seccomp_cache.py keeps finished programs, for a start has no milliseconds to spare.

Man pages: seccomp(2), prctl(2) PR_SET_SECCOMP, bpf(4).
By hand:   setpriv --seccomp-filter FILE sh      (util-linux 2.41 and later)
See it:    grep Seccomp /proc/self/status        2 = a filter; Seccomp_filters: how many
"""

from __future__ import annotations

import errno

from minicontainer import libc
from minicontainer.step import HOST, Context, Step, quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import ClassVar

# ---- vocabulary: linux/seccomp.h

SECCOMP_SET_MODE_FILTER = 1
OPERATIONS = {"SECCOMP_SET_MODE_FILTER": SECCOMP_SET_MODE_FILTER}
FILTER_FLAGS = {
    "SECCOMP_FILTER_FLAG_TSYNC": 1, "SECCOMP_FILTER_FLAG_LOG": 2,
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW": 4, "SECCOMP_FILTER_FLAG_NEW_LISTENER": 8,
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV": 32,
}  # fmt: skip

# ---- verbs


def seccomp_set_mode_filter(program: bytes, flags: int = 0) -> None:
    """Load ``program`` (struct sock_filter[]) as a filter of this thread and all it will start.

    ``flags`` are SECCOMP_FILTER_FLAG_*.  Raises KernelError: seccomp(2), "ERRORS".
    """
    filter_ = libc.ffi.new("struct sock_fprog *")
    filter_.len = len(program) // 8
    filter_.filter = libc.ffi.from_buffer("char[]", program)  # ``program`` keeps it alive
    libc.check(
        libc.syscall("seccomp", SECCOMP_SET_MODE_FILTER, flags, libc.address(filter_)),
        "seccomp", libc.Flags(SECCOMP_SET_MODE_FILTER, OPERATIONS),
        libc.Flags(flags, FILTER_FLAGS), f"{len(program) // 8} instructions",
        meaning={
            errno.EACCES: "without no_new_privs, loading a filter needs CAP_SYS_ADMIN",
            errno.EINVAL: "the kernel's verifier refused the program, or it does not know a flag",
            errno.ENOMEM: "all filters of a process together may have 32768 instructions",
            errno.ENOSYS: "this kernel was built without seccomp",
        },
    )  # fmt: skip


# ---- steps


class CompileSeccomp(Step):
    """The profile becomes a program on the host, before the clone: a child that is about to become
    the container should compile nothing, and has lost sight of the host's files."""

    side: ClassVar[str] = HOST
    name = "seccomp"
    without = "the container reaches all of the kernel's system calls"

    profile: str
    capabilities: tuple[str, ...]  # the bounding set: what the container can ever have
    cache_dir: str = ""

    def title(self) -> str:
        """Imperative."""
        return "make a program of the system call filter"

    def shell(self) -> str:
        """The finished program, in hexadecimal: no standard tool reads such a profile."""
        from minicontainer.kernel.seccomp_cache import program_for

        program, flags = program_for(self.profile, self.capabilities, self.cache_dir)
        lines = [program[at : at + 40].hex(" ", 8) for at in range(0, len(program), 40)]
        return "\n".join((f"export FILTER_FLAGS={flags} FILTER='", *lines, "'"))

    def run(self, context: Context) -> None:
        """Leave the program in ``context.blobs`` for LoadSeccomp."""
        if self not in _compiled:
            from minicontainer.kernel.seccomp_cache import program_for

            _compiled.clear()
            _compiled[self] = program_for(self.profile, self.capabilities, self.cache_dir)
        program, flags = _compiled[self]
        context.blobs["seccomp"] = program
        context.blobs["seccomp flags"] = bytes([flags])


_compiled: dict[CompileSeccomp, tuple[bytes, int]] = {}  # the last: many containers are alike


class LoadSeccomp(Step):
    """From here on, this process and all it starts ask the kernel only what the profile allows."""

    name = "seccomp"
    without = CompileSeccomp.without
    look = ("status:Seccomp", "status:Seccomp_filters")

    def title(self) -> str:
        """Imperative."""
        return "filter the system calls"

    def shell_prefix(self) -> str:
        """perl; setpriv(1) learnt to load a filter with util-linux 2.41 (--seccomp-filter FILE)."""
        number = libc.SYSCALLS["seccomp"]
        code = (
            '$f = pack "H*", $ENV{FILTER} =~ s/\\s//gr; '
            f"syscall({number}, {SECCOMP_SET_MODE_FILTER}, $ENV{{FILTER_FLAGS}} + 0, "
            'pack("Sx6P", length($f) / 8, $f)) and die "seccomp: $!\\n"; '
            "exec { $ARGV[0] } @ARGV"
        )
        return quote("perl", "-e", code, "--")

    def run(self, context: Context) -> None:
        """seccomp(2)."""
        flags = context.blobs["seccomp flags"][0]
        seccomp_set_mode_filter(context.blobs["seccomp"], flags)
