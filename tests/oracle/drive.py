"""Our side of a comparison: ``drive.py bundle|image DIRECTORY ID PIDFILE [STEP TO LEAVE OUT]...``

The library as ``minicontainer run`` uses it, for a bundle or for an image of one layer that runs
probe.sh, and a pid file as runc, crun and podman have one.
"""

from __future__ import annotations

import sys
from pathlib import Path

from minicontainer.compose import compose
from minicontainer.console import relay
from minicontainer.errors import MinicontainerError
from minicontainer.image.config import Image, ImageConfig
from minicontainer.oci import spec_from_bundle
from minicontainer.options import RunOptions
from minicontainer.runtime import Container
from minicontainer.signals import forward_signals
from minicontainer.spec import Rlimit


def main(kind: str, directory: str, container_id: str, pid_file: str, *without: str) -> int:
    """Run it; the exit status that ``minicontainer run`` would have."""

    def warn(text: str) -> None:
        print("warning:", text, file=sys.stderr)

    try:
        if kind == "bundle":
            spec = spec_from_bundle(directory, container_id, warn)
        else:
            image = Image("oracle", "sha256:0", (directory,), ImageConfig())
            probe = Path(__file__).with_name("probe.sh").read_text()
            probe = probe.replace("CONTAINER_ID", container_id)
            limits = (Rlimit("RLIMIT_NOFILE", 1000, 1000), Rlimit("RLIMIT_NPROC", 1000, 1000))
            options = RunOptions(command=("/bin/sh", "-c", probe), hostname="box", rlimits=limits)
            spec = compose(image, options, container_id)
        with Container(spec, container_id=container_id, without=without, warn=warn) as container:
            with open(pid_file, "w") as file:
                file.write(str(container.pid))
            if container.console >= 0:
                relay(container.console, container.pidfd)
            else:
                forward_signals(container.pidfd)
            return container.wait()
    except MinicontainerError as error:
        print(f"minicontainer: {error.message}", file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
