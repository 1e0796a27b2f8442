"""busybox: a root file system out of one file, this machine's own static busybox.

A root file system needs no distribution.  One statically linked program with a link for each of
its names (sh, ls, ps, ...), a few directories and /etc/passwd are enough.  No network.  By hand:

    mkdir -p r/bin r/etc r/tmp r/root r/usr/bin
    cp "$(command -v busybox)" r/bin/
    for name in $(busybox --list); do ln -s busybox "r/bin/$name"; done
    echo 'root:x:0:0:root:/root:/bin/sh' > r/etc/passwd
    tar -C r -c . | minicontainer import -c 'CMD ["sh"]' - busybox

It must be *static*: a dynamic one needs the host's libc, which is not in here.  The ELF header
tells (readelf -l shows no INTERP); file(1) would say "statically linked".
"""

from __future__ import annotations

import io
import os
import shutil
import struct
import subprocess
import tarfile

from minicontainer.errors import ImageError
from minicontainer.image.config import ImageConfig
from minicontainer.image.recipes import Build, by_hand
from minicontainer.spec import DEFAULT_PATH

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import IO

INSTALL = "install a static one: apt install busybox-static, or your distribution's name for it"

DIRECTORIES = {
    "bin": 0o755, "dev": 0o755, "etc": 0o755, "home": 0o755, "proc": 0o555, "root": 0o700,
    "run": 0o755, "sys": 0o555, "tmp": 0o1777, "usr": 0o755, "usr/bin": 0o755, "usr/sbin": 0o755,
    "sbin": 0o755, "var": 0o755, "var/tmp": 0o1777, "var/spool": 0o755, "var/www": 0o755,
}  # fmt: skip

PASSWD = """\
root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/bin/false
bin:x:2:2:bin:/bin:/bin/false
sys:x:3:3:sys:/dev:/bin/false
mail:x:8:8:mail:/var/spool/mail:/bin/false
www-data:x:33:33:www-data:/var/www:/bin/false
nobody:x:65534:65534:nobody:/home:/bin/false
"""
GROUP = """\
root:x:0:
daemon:x:1:
bin:x:2:
sys:x:3:
tty:x:5:
mail:x:8:
www-data:x:33:
users:x:100:
nogroup:x:65534:
"""
SHADOW = "root:*:::::::\n"  # nobody logs in with a password

PT_INTERP = 3


def is_static(path: str) -> bool:
    """Whether an ELF program needs no other file to run: no program header asks for a loader.

    elf(5): in the header e_phoff says where the program headers are, e_phnum how many.
    Raises ImageError for what is not a 64-bit little-endian ELF file.
    """
    with open(path, "rb") as file:
        header = file.read(64)
        if len(header) < 64 or header[:6] != b"\x7fELF\x02\x01":
            raise ImageError(f"{path} is not a 64-bit ELF program", INSTALL)
        (offset,) = struct.unpack_from("<Q", header, 32)
        size, count = struct.unpack_from("<HH", header, 54)
        file.seek(offset)
        table = file.read(size * count)
    kinds = [struct.unpack_from("<I", table, index * size)[0] for index in range(count)]
    return PT_INTERP not in kinds


def make(into: IO[bytes], tag: str, machine: str) -> str:
    """Write the tar.  The same busybox makes the same tar, to the byte."""
    if machine != os.uname().machine:
        raise ImageError(f"this machine's busybox does not run on {machine}")
    program = shutil.which("busybox")
    if program is None:
        raise ImageError("there is no busybox on this machine", INSTALL)
    if not is_static(program):
        raise ImageError(f"{program} is dynamically linked: in a root of its own it cannot start",
                         INSTALL)  # fmt: skip
    listed = subprocess.run([program, "--list"], capture_output=True, text=True, check=True)
    applets = sorted(set(listed.stdout.split()) - {"busybox"})
    with open(program, "rb") as file, tarfile.open(fileobj=into, mode="w") as tar:
        when = int(os.fstat(file.fileno()).st_mtime)
        for name, mode in {".": 0o755, **DIRECTORIES}.items():
            _add(tar, name, mode, when, kind=tarfile.DIRTYPE)
        _add(tar, "bin/busybox", 0o755, when, content=file.read())
        for applet in applets:
            _add(tar, f"bin/{applet}", 0o777, when, kind=tarfile.SYMTYPE, target="busybox")
        # scripts begin with #!/usr/bin/env
        _add(tar, "usr/bin/env", 0o777, when, kind=tarfile.SYMTYPE, target="../../bin/busybox")
        _add(tar, "etc/passwd", 0o644, when, content=PASSWD.encode())
        _add(tar, "etc/group", 0o644, when, content=GROUP.encode())
        _add(tar, "etc/shadow", 0o640, when, content=SHADOW.encode())
    return f"from this machine's {program} and {len(applets)} links to it"


def _add(
    tar: tarfile.TarFile, name: str, mode: int, when: int,
    kind: bytes = tarfile.REGTYPE, content: bytes = b"", target: str = "",
) -> None:  # fmt: skip
    """One entry, owned by root."""
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode, entry.mtime, entry.linkname = kind, mode, when, target
    entry.size = len(content)
    tar.addfile(entry, io.BytesIO(content))


RECIPE = Build(
    name="busybox",
    tags=("latest",),
    config=ImageConfig(env=(DEFAULT_PATH,), cmd=("sh",)),
    make=make,
)

if __name__ == "__main__":
    by_hand(RECIPE)
