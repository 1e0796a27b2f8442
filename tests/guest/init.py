"""Process 1 of a guest kernel: build a root from the host's files, run one command, power off.

boot.py starts the kernel, and the kernel starts this, with python3 -IS and one argument: the file
with its orders, which lies at the same path outside and inside, because the guest's root *is* the
host's root, read-only.  On top comes a tmpfs (an overlay's upper directory), so the command may
write anywhere and the host never sees it; only the directories named in "share" are the host's.

    /               overlay: the host's root, a tmpfs on top
    /tmp            an empty ext4, as a container's data wants it: an overlay's upper directory may
                    not lie on an overlay, and Linux 6.1 maps the ids of ext4, not of tmpfs
    /run            an empty tmpfs; in both, the directories named in "keep", as overlays
    /proc /sys /dev this kernel's own, with a pure cgroup2 tree on /sys/fs/cgroup
    /lib/modules/N  this kernel's modules, so that it can load what it wants (modprobe(8))

Two serial lines lead out: the command's output, and one for whatever it writes to $GUEST_LINE;
"exit STATUS" is the last thing said there.  Under User-Mode Linux every import costs
milliseconds, so there are few.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Orders = dict[str, Any]  # what boot.py wrote

RDONLY, NOSUID, NODEV, NOEXEC, REMOUNT, BIND, REC, SHARED = 1, 2, 4, 8, 32, 4096, 16384, 1 << 20
HARD = NOSUID | NODEV | NOEXEC
MNT_DETACH = 2
SYS_PIVOT_ROOT, SYS_INIT_MODULE = 155, 175
RB_POWER_OFF = 0x4321FEDC
SIOCSIFFLAGS, IFF_UP = 0x8914, 0x1
EEXIST = 17

LIBC = ctypes.CDLL(None, use_errno=True)


# ---- system calls that Python lacks


def call(words: str, result: int) -> None:
    """Raise OSError if a system call failed."""
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{words}: {os.strerror(number)}")


def mount(source: str, target: str, kind: str, flags: int = 0, data: str = "") -> None:
    """mount(2)."""
    words = [text.encode() or None for text in (source, target, kind)]
    result = LIBC.mount(*words, ctypes.c_ulong(flags), data.encode() or None)
    call(f"mount {kind} on {target}", result)


def overlay(lower: str, target: str, scratch: str) -> None:
    """Mount ``lower``, writable: what is written goes below ``scratch``, a new directory."""
    os.makedirs(f"{scratch}/upper")
    os.mkdir(f"{scratch}/work")
    os.chmod(f"{scratch}/upper", os.stat(lower).st_mode & 0o7777)
    layers = f"lowerdir={lower},upperdir={scratch}/upper,workdir={scratch}/work"
    mount("guest", target, "overlay", 0, layers)


# ---- modules; boot.py uses these too, for QEMU's initrd


def module_files(folder: str, names: list[str]) -> list[str]:
    """The files of these modules and of what they need, in the order to load them; names that
    this kernel does not know are built in, or missing, and left out: modules.dep(5)."""
    needs: dict[str, list[str]] = {}
    path_of: dict[str, str] = {}
    with open(f"{folder}/modules.dep") as file:
        for line in file:
            path, _, others = line.partition(":")
            needs[path] = others.split()
            path_of[os.path.basename(path).partition(".")[0].replace("-", "_")] = path
    order: list[str] = []
    for path in (path_of[name] for name in names if name in path_of):
        order += [one for one in [*reversed(needs[path]), path] if one not in order]
    return [f"{folder}/{path}" for path in order]


def module_bytes(path: str) -> bytes:
    """A module as the kernel wants it, uncompressed."""
    with open(path, "rb") as file:
        data = file.read()
    if path.endswith(".xz"):  # Debian 13; 12 does not compress
        import lzma

        return lzma.decompress(data)
    return data


def load_modules(folder: str, names: list[str]) -> None:
    """init_module(2), for each; those that are loaded already are fine."""
    for path in module_files(folder, names):
        data = module_bytes(path)
        result = LIBC.syscall(SYS_INIT_MODULE, data, ctypes.c_ulong(len(data)), b"")
        if result and ctypes.get_errno() != EEXIST:
            call(f"init_module {path}", result)


# ---- the root


def build_root(orders: Orders, scratch: str, modules: str) -> None:
    """Make the root described above, and make it the root: pivot_root(2)."""
    mount("guest", scratch, "tmpfs", 0, "size=75%,mode=755")
    new = f"{scratch}/new"
    os.mkdir(new)
    overlay("/", new, f"{scratch}/0")
    mount(orders["disk"], f"{new}/tmp", "ext4", NOSUID, "barrier=0")
    os.chmod(f"{new}/tmp", 0o1777)
    mount("tmpfs", f"{new}/run", "tmpfs", NOSUID | NODEV, "mode=755")
    for number, path in enumerate(orders["keep"], 1):
        os.makedirs(new + path, exist_ok=True)
        overlay(path, new + path, f"{scratch}/{number}")
    if orders["share"] and orders["share_by"] == "bind":
        mount("", "/", "", REMOUNT)  # it was mounted read-only, once for all
    for path in orders["share"]:
        os.makedirs(new + path, exist_ok=True)
        if orders["share_by"] == "bind":
            mount(path, new + path, "", BIND)
        else:
            mount("host", new + path, orders["share_by"], 0, path)
    if modules:
        place = f"{new}/lib/modules/{os.uname().release}"
        os.makedirs(place, exist_ok=True)
        mount(modules, place, "", BIND)
    mount_kernel_files(new)
    os.chdir(new)
    call("pivot_root", LIBC.syscall(SYS_PIVOT_ROOT, b".", b"."))
    call("umount2", LIBC.umount2(b".", MNT_DETACH))  # the old root, stacked on the new one
    os.chdir("/")
    mount("", "/", "", REC | SHARED)  # as systemd leaves it


def mount_kernel_files(new: str) -> None:
    """This kernel's own /proc, /sys and /dev: all that a booted system has there."""
    mount("proc", f"{new}/proc", "proc", HARD)
    mount("sysfs", f"{new}/sys", "sysfs", HARD)
    options = "nsdelegate,memory_recursiveprot"
    mount("cgroup2", f"{new}/sys/fs/cgroup", "cgroup2", HARD, options)
    mount("bpf", f"{new}/sys/fs/bpf", "bpf", HARD, "mode=700")
    mount("securityfs", f"{new}/sys/kernel/security", "securityfs", HARD)
    mount("devtmpfs", f"{new}/dev", "devtmpfs", NOSUID, "mode=755")
    for name, kind, options in (
        ("pts", "devpts", "gid=5,mode=620,ptmxmode=666"),
        ("shm", "tmpfs", "mode=1777"),
        ("mqueue", "mqueue", ""),
    ):
        os.makedirs(f"{new}/dev/{name}", exist_ok=True)
        mount(kind, f"{new}/dev/{name}", kind, NOSUID | NOEXEC, options)
    os.unlink(f"{new}/dev/ptmx")
    os.symlink("pts/ptmx", f"{new}/dev/ptmx")
    os.symlink("/proc/self/fd", f"{new}/dev/fd")
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        os.symlink(f"fd/{number}", f"{new}/dev/{name}")


def settle(modules: str) -> None:
    """What a booted system would have done by now."""
    with open("/sys/fs/cgroup/cgroup.controllers") as file:
        controllers = file.read().split()
    with open("/sys/fs/cgroup/cgroup.subtree_control", "w") as file:
        file.write(" ".join(f"+{name}" for name in controllers))
    if modules:
        # of what other kernels have built in, these two are not loaded on demand
        load_modules(modules, ["ipv6", "loop"])
    with open("/proc/sys/kernel/hostname", "w") as file:
        file.write("guest")
    bring_up_loopback()


def bring_up_loopback() -> None:
    """netdevice(7)."""
    import fcntl

    fd = LIBC.socket(2, 2, 0)
    fcntl.ioctl(fd, SIOCSIFFLAGS, b"lo".ljust(16, b"\0") + IFF_UP.to_bytes(2, "little") + bytes(14))
    os.close(fd)


# ---- the lines out


def open_line(name: str) -> int:
    """A serial line by its path (UML), or a virtio port by its name (QEMU): raw, and not ours."""
    import termios
    import tty

    fd = os.open(name if name.startswith("/") else virtio_port(name), os.O_WRONLY | os.O_NOCTTY)
    try:
        tty.setraw(fd)
    except termios.error:
        pass  # a virtio port is no terminal
    return fd


def virtio_port(name: str) -> str:
    """The device of a named port; it may take a moment to appear."""
    import time

    folder = "/sys/class/virtio-ports"
    for _ in range(200):
        for port in os.listdir(folder) if os.path.isdir(folder) else ():
            with open(f"{folder}/{port}/name") as file:
                if file.read().strip() == name:
                    return f"/dev/{port}"
        time.sleep(0.05)
    raise FileNotFoundError(f"no virtio port is called {name}")


def write_all(fd: int, data: bytes) -> None:
    """write(2), until all is written."""
    while data:
        data = data[os.write(fd, data) :]


# ---- the command


def run(orders: Orders, out: int, line: int) -> int:
    """Run the command, hand its output on, reap everyone; its exit status as the shell has it."""
    read, write = os.pipe()  # not the line itself: that is a terminal
    command = os.fork()
    if command == 0:
        become(orders, write, line)
    os.close(write)
    # Process 1 has to reap every orphan, so it sleeps for output and for SIGCHLD at once.
    woken, wake = os.pipe()
    os.set_blocking(woken, False)
    os.set_blocking(wake, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    import select

    poll = select.poll()
    poll.register(read, select.POLLIN)
    poll.register(woken, select.POLLIN)
    status = None
    while True:
        ready = [fd for fd, _ in poll.poll(None if status is None else 0)]
        if read in ready:
            data = os.read(read, 65536)
            write_all(out, data)
            if not data:
                poll.unregister(read)
        elif status is not None:
            return status  # the command is gone, and all it said is said
        if woken in ready:
            os.read(woken, 4096)
            for pid, how in reap():
                if pid == command:
                    code = os.waitstatus_to_exitcode(how)
                    status = code if code >= 0 else 128 - code


def reap() -> list[tuple[int, int]]:
    """Every child that has ended, with its wait status."""
    ended = []
    try:
        while (child := os.waitpid(-1, os.WNOHANG))[0]:
            ended.append(child)
    except ChildProcessError:
        pass
    return ended


def become(orders: Orders, output: int, line: int) -> None:
    """execve(2) the command, with nothing of ours."""
    os.setsid()
    os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.set_inheritable(line, True)
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores these
        signal.signal(number, signal.SIG_DFL)
    argv = orders["argv"]
    try:
        os.chdir(orders["cwd"])
        os.execvpe(argv[0], argv, {**orders["env"], "GUEST": "1", "GUEST_LINE": str(line)})
    except OSError as error:
        write_all(2, f"guest: {argv[0]}: {error}\n".encode())
    os._exit(127)


def main(orders_file: str) -> None:
    """The whole life of the guest."""
    import json

    with open(orders_file) as file:
        orders = json.load(file)
    if not os.path.exists("/proc/self"):
        mount("proc", "/proc", "proc")
    modules = f"{orders['modules']}/{os.uname().release}"
    modules = os.path.realpath(modules) if os.path.isdir(modules) else ""  # else all is built in
    if modules:
        load_modules(modules, ["overlay"])
    build_root(orders, os.path.dirname(orders_file) + "/root", modules)
    settle(modules)
    out, line = (open_line(name) for name in orders["lines"])
    status = run(orders, out, line)
    write_all(line, b"\nexit %d\n" % status)
    import termios

    for fd in (out, line):
        try:
            termios.tcdrain(fd)
        except termios.error:
            pass  # a virtio port holds nothing back


if __name__ == "__main__":
    try:
        main(sys.argv[1])
    except BaseException:
        import traceback

        traceback.print_exc()  # the console, which boot.py shows when a guest dies
    LIBC.reboot(RB_POWER_OFF)
