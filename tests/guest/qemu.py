"""QEMU without KVM: a whole machine, emulated, for the few needs that User-Mode Linux cannot meet.

It is slow, five seconds to boot and a tenth of the speed afterwards, and it has everything: two
processors, cpuset, PSI, io.weight, nftables.  The kernel is Debian's for clouds.  tools/install
unpacks it into .venv/guest-kernel, and does not install it: it has no place in the boot menu.

The host's files come by virtiofs, and the kernel has that as a module, so an initrd comes first:
a static busybox that loads a few modules, mounts the host's root and makes init.py process 1.

By hand:  qemu-system-x86_64 -kernel vmlinuz -initrd initrd -append console=ttyS0 -nographic
"""

from __future__ import annotations

import os
import shlex
import shutil
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

from tests.guest.init import module_bytes, module_files

UNPACKED = Path(__file__).resolve().parents[2] / ".venv/guest-kernel"
ORDERS = {
    "share_by": "bind",
    "modules": str(UNPACKED / "lib/modules"),
    "lines": ["out", "line"],  # names of virtio ports
    "disk": "/dev/vda",
}
FOR_ROOT = ["virtio_pci", "virtiofs", "virtio_console", "virtio_blk", "overlay"]
TRAILER = "TRAILER!!!"  # cpio's end of archive


def kernel() -> Path | None:
    """The unpacked kernel, named vmlinuz-RELEASE."""
    found = sorted(UNPACKED.glob("boot/vmlinuz-*"))
    return found[-1] if found else None


def virtiofsd() -> str | None:
    """The program that serves the host's files; no distribution has it on the PATH."""
    return shutil.which("virtiofsd", path="/usr/libexec:/usr/lib/qemu:/usr/lib/virtiofsd")


def missing() -> str:
    """What is not installed, for a sentence; "" if nothing is."""
    if os.geteuid() != 0:
        return "root's rights (virtiofsd)"
    there = {
        "qemu-system-x86": shutil.which("qemu-system-x86_64"),
        "virtiofsd": virtiofsd(),
        "busybox-static": os.path.exists("/bin/busybox"),
        "a kernel in .venv/guest-kernel": kernel(),
    }
    return ", ".join(name for name, found in there.items() if not found)


def commands(
    work: str, memory: int, fds: dict[str, int], command: list[str]
) -> Iterator[tuple[list[str], dict[str, str]]]:
    """First the server of the host's files, then, once it listens, the machine."""
    image, server = kernel(), virtiofsd()
    assert image
    assert server
    env = {"PATH": os.environ["PATH"]}
    files = f"{work}/files"
    yield (
        [server, f"--socket-path={files}", "-o", "source=/,sandbox=chroot,cache=always,xattr"],
        env,
    )
    wait_for(files)
    modules = UNPACKED / "lib/modules" / image.name.removeprefix("vmlinuz-")
    Path(work, "initrd").write_bytes(initrd(str(modules), command))
    words = [
        "qemu-system-x86_64", "-machine", "q35,memory-backend=memory",
        "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", f"{memory}G",
        "-object", f"memory-backend-memfd,id=memory,size={memory}G,share=on",  # virtiofsd's, too
        "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-monitor", "none",
        "-kernel", str(image), "-initrd", f"{work}/initrd",
        "-append", "console=ttyS0 quiet panic=-1 tsc=reliable mitigations=off",
        "-chardev", f"socket,id=console,fd={fds['console']}", "-serial", "chardev:console",
        "-chardev", f"socket,id=files,path={files}",
        "-device", "vhost-user-fs-pci,chardev=files,tag=host,queue-size=1024",
        "-device", "virtio-rng-pci", "-device", "virtio-serial-pci",
    ]  # fmt: skip
    for name in ("disk", "spare"):
        words += ["-drive", f"if=none,id={name},format=raw,file={work}/{name}"]
        words += ["-device", f"virtio-blk-pci,drive={name}"]
    for name in ("out", "line"):
        words += ["-chardev", f"socket,id={name},fd={fds[name]}"]
        words += ["-device", f"virtserialport,chardev={name},name={name}"]
    yield words, env


def wait_for(path: str) -> None:
    """Sleep until a socket is there."""
    for _ in range(1000):
        if os.path.exists(path):
            return
        time.sleep(0.01)
    raise TimeoutError(f"virtiofsd did not make {path}")


def initrd(modules: str, command: list[str]) -> bytes:
    """The initial root: busybox, modules, and a script that goes on to the real one."""
    files = {name: module_bytes(name) for name in module_files(modules, FOR_ROOT)}
    loads = [f"$B insmod /modules/{os.path.basename(name)}" for name in files]
    script = [
        "#!/bin/busybox sh", "B=/bin/busybox", *loads,
        "$B mount -t virtiofs -o ro host /root || { echo no root; $B poweroff -f; }",
        "$B mount -t devtmpfs none /root/dev",
        f"exec $B switch_root /root {shlex.join(command)}", "",
    ]  # fmt: skip
    return archive(
        {
            **dict.fromkeys(("bin", "modules", "root", "dev"), None),
            "bin/busybox": Path("/bin/busybox").read_bytes(),
            "init": "\n".join(script).encode(),
            **{f"modules/{os.path.basename(name)}": data for name, data in files.items()},
        }
    )


def archive(files: dict[str, bytes | None]) -> bytes:
    """A gzipped cpio(5) archive ("newc") of programs, and directories (None)."""
    out = bytearray()
    for number, (name, data) in enumerate([*files.items(), (TRAILER, b"")], 1):
        mode = 0o040755 if data is None else 0o100755
        size, path = len(data or b""), name.encode() + b"\0"
        #         inode   mode  uid gid links mtime size  device rdevice  length of name, no check
        fields = (number, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, len(path), 0)
        out += b"070701" + b"".join(b"%08X" % field for field in fields) + path
        out += bytes(-len(out) % 4)
        out += data or b""
        out += bytes(-len(out) % 4)
    gzip = zlib.compressobj(1, wbits=31)
    return gzip.compress(out) + gzip.flush()
