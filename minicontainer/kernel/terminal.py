"""A terminal of its own: a pair of devices that pretend to be a screen and a keyboard.

A pseudoterminal (pty) has two ends.  Programs open the one that looks like a terminal, /dev/pts/N:
it echoes, edits lines and turns Ctrl-C into SIGINT.  Whoever holds the other end, the *master*, is
the hardware: what it writes was typed, what it reads is to be shown.  Each mount of devpts is a
set of ptys of its own, and opening its file ``ptmx`` makes a new pair in it.

The container gets a pty of its *own* devpts, because the host's terminal is dangerous to share:
a process whose controlling terminal it is may push keystrokes into it, which the shell runs as
soon as the container has ended (TIOCSTI, CVE-2017-5226).  A session has at most one controlling
terminal and the kernel gives it only to the session's leader, so: setsid(2), then TIOCSCTTY.

By hand:   script -q /dev/null ; tty ; stty size ; ps -o pid,sid,tty,tpgid
See it:    ls -l /proc/PID/fd/0 ; ls /dev/pts ; field 7 (tty_nr) of /proc/PID/stat
Man pages: pty(7), pts(4), ioctl_tty(2), TIOCSCTTY(2const), termios(3), setsid(2)
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from sys import byteorder

from minicontainer import mountcalls
from minicontainer.errors import KernelError
from minicontainer.libc import address, check, ffi, syscall
from minicontainer.step import Context, Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# ---- vocabulary: asm-generic/ioctls.h, linux/openat2.h, linux/magic.h

TIOCSCTTY = 0x540E
TIOCGWINSZ, TIOCSWINSZ = 0x5413, 0x5414
TIOCSPTLCK = 0x40045431  # lock or unlock the pair
TIOCGPTPEER = 0x5441  # open the other end
DEVPTS_SUPER_MAGIC = 0x1CD1
_RESOLVE_NO_XDEV, _RESOLVE_NO_MAGICLINKS, _RESOLVE_NO_SYMLINKS = 1, 2, 4

# ---- verbs


def open_ptmx(devpts: str = "/dev/pts") -> int:
    """A new pty pair in the devpts mounted at ``devpts``; the master end, unlocked: pts(4).

    The path is not believed: it has to be a devpts, and the ptmx has to be its own, for a
    container that is already running may have mounted something else there (CVE-2025-52565).
    Raises KernelError."""
    directory = _open(devpts, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        if mountcalls.fstatfs(directory) != DEVPTS_SUPER_MAGIC:
            raise KernelError("fstatfs", devpts, errno.ENOTTY, "no devpts is mounted there")
        name = ffi.new("char[]", b"ptmx")
        flags = os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC
        how = ffi.new("struct open_how *", {"flags": flags})
        how.resolve = _RESOLVE_NO_XDEV | _RESOLVE_NO_MAGICLINKS | _RESOLVE_NO_SYMLINKS
        master = check(
            syscall("openat2", directory, address(name), address(how), ffi.sizeof(how[0])),
            "openat2", devpts, "ptmx", "O_RDWR|O_NOCTTY",
            meaning={
                errno.EXDEV: "something else is mounted over this devpts's ptmx",
                errno.EACCES: "devpts was mounted without ptmxmode=0666",
                errno.ENOSPC: "no pty is left: /proc/sys/kernel/pty/max, or mount option max=",
            },
        )  # fmt: skip
    finally:
        os.close(directory)
    # A new pair is locked, so that its owner can first set who may open the other end.
    _ioctl(master, "TIOCSPTLCK", TIOCSPTLCK, bytes(4))  # an int, 0: unlock
    return master


def open_peer(master: int) -> int:
    """The terminal end that belongs to ``master``: TIOCGPTPEER.

    By descriptor, because /dev/pts/N by name might be another devpts's N.  Raises KernelError."""
    return int(_ioctl(master, "TIOCGPTPEER", TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))


def set_controlling_terminal(terminal: int) -> None:
    """Make ``terminal`` the controlling terminal of the session that we lead: TIOCSCTTY.

    Raises KernelError(EPERM) if we lead none, or it is another session's."""
    _ioctl(terminal, "TIOCSCTTY", TIOCSCTTY, 0)


def get_window_size(terminal: int) -> tuple[int, int]:
    """(rows, columns) in characters, (0, 0) if nobody has said: TIOCGWINSZ.  Raises KernelError."""
    answer = _ioctl(terminal, "TIOCGWINSZ", TIOCGWINSZ, bytes(8))
    return int.from_bytes(answer[0:2], byteorder), int.from_bytes(answer[2:4], byteorder)


def set_window_size(terminal: int, rows: int, columns: int) -> None:
    """Say how large the screen is; on either end.  If that is news, the kernel sends SIGWINCH to
    the terminal's foreground: TIOCSWINSZ.  Raises KernelError."""
    # struct winsize: four unsigned shorts, of which the last two (pixels) are of no use
    size = b"".join((n & 0xFFFF).to_bytes(2, byteorder) for n in (rows, columns, 0, 0))
    _ioctl(terminal, "TIOCSWINSZ", TIOCSWINSZ, size)


def make_raw(attributes: list[Any]) -> list[Any]:
    """The terminal attributes for a plain wire of bytes: cfmakeraw(3), as a new list.

    No echo, no lines, no Ctrl-C: all that is for the container's terminal to do, once."""
    import termios  # 0.4 ms, and only the host's side of a terminal needs it

    iflag, oflag, cflag, lflag, ispeed, ospeed, characters = attributes
    iflag &= ~(
        termios.IGNBRK | termios.BRKINT | termios.PARMRK | termios.ISTRIP | termios.INLCR
        | termios.IGNCR | termios.ICRNL | termios.IXON
    )  # fmt: skip
    oflag &= ~termios.OPOST
    lflag &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN)
    cflag = cflag & ~(termios.CSIZE | termios.PARENB) | termios.CS8
    characters = list(characters)
    characters[termios.VMIN], characters[termios.VTIME] = 1, 0  # a read waits for one byte
    return [iflag, oflag, cflag, lflag, ispeed, ospeed, characters]


def bind_console(terminal: int, path: str = "/dev/console") -> None:
    """Mount the terminal we have open on the file ``path``, which is made if it is missing.

    Both sides by descriptor: what is mounted is the pty that we opened, and where it lands is no
    symbolic link of the image's (CVE-2025-52565).  Raises KernelError."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        pass  # the image's, or a runtime's before us; it gets covered
    except OSError as error:
        raise KernelError("openat", path, error.errno or 0) from None
    file = _open(path, os.O_PATH | os.O_NOFOLLOW)
    try:
        if stat.S_ISLNK(os.fstat(file).st_mode):
            raise KernelError("move_mount", path, errno.ELOOP, "it is a symbolic link: refused")
        tree = mountcalls.open_tree("", recursive=False, dir_fd=terminal)
        try:
            mountcalls.move_mount(tree, file, path)
        finally:
            os.close(tree)
    finally:
        os.close(file)


def _open(path: str, flags: int) -> int:
    try:
        return os.open(path, flags | os.O_CLOEXEC)
    except OSError as error:
        raise KernelError("openat", path, error.errno or 0) from None


def _ioctl(fd: int, name: str, request: int, argument: int | bytes) -> Any:
    try:
        return fcntl.ioctl(fd, request, argument)
    except OSError as error:
        raise KernelError(
            "ioctl", f"{fd}, {name}", error.errno or 0,
            {
                errno.ENOTTY: "that is no terminal",
                errno.EIO: "its other end is closed",
                errno.EPERM: "we do not lead a session, or the terminal is another session's",
            }.get(error.errno or 0, ""),
        ) from None  # fmt: skip


# ---- steps


class OpenConsole(Step):
    """Give the container a terminal and the host the other end of it.

    After pivot_root(2), because the pty has to be one of the container's own devpts: a process in
    the container finds its terminal as /dev/pts/0 and /dev/console, and no terminal of the host."""

    name = "console"
    without = "no terminal: no line editing, no Ctrl-C, `tty` says 'not a tty'"
    look = ("fd/0",)

    uid: int = 0  # in the container's user namespace
    gid: int = -1  # -1: as devpts made it, group tty (5)
    rows: int = 0  # 0: unknown
    columns: int = 0
    console: bool = True  # False for a program that joins a running container

    def title(self) -> str:
        """In a few words."""
        return "open a terminal of its own"

    def shell(self) -> str:
        """None: a script has a terminal already, and its programs share it."""
        return "# script -qc PROGRAM /dev/null  would make one; this script shares yours"

    def run(self, context: Context) -> None:
        """open(2), TIOCGPTPEER, fchown(2), setsid(2), TIOCSCTTY, dup2(2), a mount."""
        master = open_ptmx()
        terminal = open_peer(master)
        os.fchown(terminal, self.uid, self.gid)
        if self.rows and self.columns:
            set_window_size(master, self.rows, self.columns)
        if os.getsid(0) != os.getpid():
            os.setsid()
        set_controlling_terminal(terminal)
        for standard in (0, 1, 2):
            os.dup2(terminal, standard)
        if self.console:
            bind_console(terminal)
        # From here on the host is the hardware; when it closes the master, the line goes dead.
        context.send_fd("CONSOLE", master)
        os.close(terminal)
        os.close(master)
