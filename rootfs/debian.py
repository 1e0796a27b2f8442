"""Debian: made by Debian's own packages and tools, as its developers make theirs.

mmdebstrap asks apt which packages a minimal system needs, fetches them, verifies Debian's
signatures and unpacks them: about 35 seconds and 140 MB.  By hand:

    mmdebstrap --variant=minbase trixie - | minicontainer import -c 'CMD ["bash"]' - debian

Another server: MINICONTAINER_DEBIAN_MIRROR=http://...  (deb.debian.org when unset)
Not pinned by checksum: packages get security updates, and their signatures are verified instead.
"""

from __future__ import annotations

import os
import shutil
import subprocess

from minicontainer.errors import ImageError
from minicontainer.image.config import ImageConfig
from minicontainer.image.recipes import Build, by_hand
from minicontainer.spec import DEFAULT_PATH

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import IO

SUITES = {
    "latest": "trixie", "13": "trixie", "trixie": "trixie", "12": "bookworm",
    "bookworm": "bookworm",
}  # fmt: skip


def make(into: IO[bytes], tag: str, machine: str) -> str:
    """Let mmdebstrap write the tar."""
    if machine != os.uname().machine:
        raise ImageError(f"not made for {machine} on this machine: it would need emulation")
    if shutil.which("mmdebstrap") is None:
        raise ImageError("there is no mmdebstrap on this machine", "apt install mmdebstrap")
    suite = SUITES[tag]
    mirror = os.environ.get("MINICONTAINER_DEBIAN_MIRROR", "")
    command = ["mmdebstrap", "--variant=minbase", "--format=tar", suite, "-"]
    done = subprocess.run(
        command + ([mirror] if mirror else []),
        stdin=subprocess.DEVNULL, stdout=into, stderr=subprocess.PIPE, errors="replace",
    )  # fmt: skip
    if done.returncode:
        last = [line for line in done.stderr.splitlines() if line.startswith(("E:", "Err:"))]
        why = (last or done.stderr.splitlines() or ["no reason given"])[-1]
        raise ImageError(f"mmdebstrap failed: {why}", "it needs a network and an apt mirror")
    return f"with mmdebstrap --variant=minbase {suite}"


RECIPE = Build(
    name="debian",
    tags=tuple(SUITES),
    config=ImageConfig(env=(DEFAULT_PATH,), cmd=("bash",)),
    make=make,
)

if __name__ == "__main__":
    by_hand(RECIPE)
