"""The last system call: execve(2) puts the image's program into the process we have furnished.

A process is not started by exec, it is *refilled*: same pid, same namespaces, same cgroup, same
root, same user; only the memory is new.  What survives is what the steps before this one made.
Two things survive that should not:

* Open descriptors, unless they are marked close-on-exec.  One left open on a directory of the
  host is a door that no mount namespace closes (CVE-2024-21626).
* /proc/self/exe, for an instant: while the kernel opens the new program, the old one is still
  there, and that is the host's Python (CVE-2019-5736; kernel/seal.py).  So we execute a sealed
  trampoline first, by execveat(2), which takes a descriptor and asks no path of the image; it
  executes the program.

By hand:   echo $$ ; exec env -i sh ; echo $$         (same number, before and after)
           sh 3</etc -c 'ls /proc/self/fd/3/'         (a leak)
See it:    ls -l /proc/PID/exe /proc/PID/fd ; tr '\\0' '\\n' < /proc/PID/environ
Man pages: execve(2), execveat(2), exec(3), close_range(2)
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat

from minicontainer.errors import CannotExecute, CommandNotFound
from minicontainer.libc import Flags, check, syscall
from minicontainer.mountcalls import is_procfs
from minicontainer.step import Context, Step, quote

# ---- vocabulary: linux/close_range.h

CLOSE_RANGE_CLOEXEC = 4

FIRST_FD = 3  # the first descriptor after stdin, stdout and stderr

# ---- verbs


def close_range_cloexec(first: int) -> None:
    """Have execve(2) close every descriptor from ``first`` up: close_range(2)."""
    check(
        syscall("close_range", first, 0xFFFFFFFF, CLOSE_RANGE_CLOEXEC),
        "close_range", first, "~0", Flags(CLOSE_RANGE_CLOEXEC, {"CLOSE_RANGE_CLOEXEC": 4}),
        meaning={errno.EINVAL: "CLOSE_RANGE_CLOEXEC came with Linux 5.11"},
    )  # fmt: skip


def in_procfs(directory: str) -> bool:
    """Is ``directory`` on a procfs?  fstatfs(2); False where it cannot be opened."""
    try:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return is_procfs(fd)
    finally:
        os.close(fd)


def find_program(name: str, search: str) -> str:
    """The path that execvp(3) would execute for ``name``; ``search`` is the value of PATH.

    It is looked up with this process's root, directory and rights, which should be the
    container's by now.  Raises CommandNotFound or CannotExecute, in docker's words."""
    if "/" not in name:
        for directory in search.split(":"):
            candidate = f"{directory or '.'}/{name}"
            if cannot_execute(candidate) == 0:
                return candidate
        raise CommandNotFound(
            f'exec: "{name}": executable file not found in $PATH', f"PATH is {search}"
        )
    number = cannot_execute(name)
    if number in (errno.ENOENT, errno.ENOTDIR):
        raise CommandNotFound(f'exec: "{name}": stat {name}: {os.strerror(number).lower()}')
    if number:
        raise CannotExecute(f'exec: "{name}": {os.strerror(number).lower()}')
    return name


def cannot_execute(path: str) -> int:
    """Why the file at ``path`` cannot be executed, as an errno; 0: nothing speaks against it."""
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        return error.errno or errno.EINVAL
    except ValueError:  # a NUL byte
        return errno.EINVAL
    if stat.S_ISDIR(mode):
        return errno.EISDIR
    return 0 if os.access(path, os.X_OK) else errno.EACCES


# ---- steps


class CloseDescriptors(Step):
    """Have the exec close whatever we, or whoever started us, left open.

    Python marks what it opens itself, but not what it inherited without knowing.  This stands
    before the seccomp filter, because older profiles have never heard of close_range(2)."""

    name = "descriptors"
    without = "a directory that our caller had open leads out of the container: cd /proc/self/fd/3"
    look = ("fd",)

    preserve: int = 0  # so many, from 3 up, are meant for the program (LISTEN_FDS)

    def title(self) -> str:
        """In a few words."""
        return f"have the exec close all descriptors from {FIRST_FD + self.preserve} up"

    def shell(self) -> str:
        """exec; a shell names one digit, and 9 is asshell.py's own, which closes the rest."""
        return "exec" + "".join(f" {fd}<&-" for fd in range(FIRST_FD + self.preserve, 9))

    def run(self, context: Context) -> None:
        """close_range(2)."""
        close_range_cloexec(FIRST_FD + self.preserve)


class Execute(Step):
    """Become the program, by way of the trampoline.

    The program is looked for only now: root, working directory, user and rights are those of the
    container.  What only the kernel can tell (a missing ELF loader, a noexec mount) comes back
    from the trampoline, over the wire."""

    name = "exec"
    without = "nothing runs: the container is furnished, and nobody moves in"
    look = ("exe", "cmdline")

    args: tuple[str, ...]
    env: tuple[str, ...] = ()  # what earlier steps put into context.env comes after it
    init: bool = False
    preserve: int = 0  # as CloseDescriptors has it

    def title(self) -> str:
        """In a few words."""
        return f"execute {self.args[0]}" + (" under a small init" if self.init else "")

    def shell(self) -> str:
        """Nothing, for --init as well: a remark, since an image has no such program."""
        return "# --init is left out: by hand, put tini(1) into the image" if self.init else ""

    def shell_prefix(self) -> str:
        """env(1), so that no variable of the host goes along; $HOME was set by step "user-id"."""
        env = [entry for entry in self.env if "=" in entry]
        return 'env -i ${HOME:+HOME="$HOME"} ' + quote(*env, *self.args)

    def run(self, context: Context) -> None:
        """Find it, and leave the rest to execveat(2), at the end of this turn."""
        given = {entry.partition("=")[0] for entry in self.env}
        env = [*self.env, *(e for e in context.env if e.partition("=")[0] not in given)]
        path = next((entry[5:] for entry in env if entry.startswith("PATH=")), os.defpath)
        program = find_program(self.args[0], path)

        wire = FIRST_FD + self.preserve
        trampoline = context.fds.get("trampoline", -1)
        if trampoline < 0:  # --without seal: the old way, with the hole in it
            context.execute(program, self.args, env, "")
            return
        if trampoline == wire:
            trampoline = fcntl.fcntl(trampoline, fcntl.F_DUPFD_CLOEXEC, wire + 1)
        if context.wire_fd >= 0:
            os.dup2(context.wire_fd, wire)
            os.set_inheritable(wire, True)  # dup2 of a number onto itself does nothing
        # A seccomp profile may allow execve and never have heard of execveat.  Then the same file
        # has a name in /proc, if that is a real procfs and nothing of the image's.
        again = f"/proc/self/fd/{trampoline}" if in_procfs("/proc/self/fd") else ""
        mode = "minicontainer-init" if self.init else "minicontainer-exec"
        waits = "wait" if context.waits else "go"
        context.execute(trampoline, [mode, str(wire), waits, program, *self.args], env, again)
