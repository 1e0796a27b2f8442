"""Alpine Linux: the official minirootfs, 3.5 MB, with musl, busybox and apk.

Alpine's makers publish it for exactly this use.  Version and checksum are pinned: what you run is
what everybody with this version of minicontainer runs.  By hand:

    wget https://dl-cdn.alpinelinux.org/alpine/v3.20/releases/x86_64/alpine-minirootfs-3.20.3-x86_64.tar.gz
    sha256sum alpine-minirootfs-3.20.3-x86_64.tar.gz          # compare with SHA256 below
    minicontainer import -c 'CMD ["/bin/sh"]' alpine-minirootfs-3.20.3-x86_64.tar.gz alpine

Another server, with the same directories below it: MINICONTAINER_ALPINE_MIRROR=https://...
To change the version, change VERSION and take the checksums from the .sha256 files beside the
archives: https://alpinelinux.org/downloads/ ("Mini root filesystem").
"""

from __future__ import annotations

from minicontainer.image.config import ImageConfig
from minicontainer.image.recipes import Download, by_hand
from minicontainer.spec import DEFAULT_PATH

VERSION = "3.20.3"
BRANCH = "3.20"
SHA256 = (
    ("x86_64", "d4e6fd67dcf75e40c451560ac7265166c2b72a0f38ddc9aae756a7de3d1efa0c"),
    ("aarch64", "041fa34a81788242df9e78fa69b97ab45b8ec47ddbf88864755610414a7bf3de"),
)

RECIPE = Download(
    name="alpine",
    tags=("latest", "3", BRANCH, VERSION),
    config=ImageConfig(env=(DEFAULT_PATH,), cmd=("/bin/sh",)),
    server="https://dl-cdn.alpinelinux.org/alpine",
    mirror="MINICONTAINER_ALPINE_MIRROR",
    directory=f"v{BRANCH}/releases/{{machine}}",
    file=f"alpine-minirootfs-{VERSION}-{{machine}}.tar.gz",
    sha256=SHA256,
)

if __name__ == "__main__":
    by_hand(RECIPE)
