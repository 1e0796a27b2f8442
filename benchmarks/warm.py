"""The process that stays: one container after the other through the Python API.

    python warm.py ROOTFS CGROUP HEAP_MB

"N" on a line of its own makes N containers and answers with their times in milliseconds: the whole
life of each, from making its Spec to having removed what it left.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from minicontainer.compose import compose
from minicontainer.image.config import Image, ImageConfig
from minicontainer.options import RunOptions
from minicontainer.runtime import Container, new_id


def main(rootfs: str, cgroup: str, heap_mb: str) -> None:
    """Serve until end of input."""
    heap = bytearray(b"x") * (int(heap_mb) << 20)  # written to: untouched pages cost nothing
    image = Image(name="alpine", id="", layers=(rootfs,), config=ImageConfig(), size=0)
    options = RunOptions(command=("true",), network="none", cgroup_parent=cgroup)
    for line in sys.stdin:
        times = []
        for _ in range(int(line)):
            began = time.perf_counter_ns()
            container_id = new_id()
            spec = compose(image, options, container_id)
            with Container(spec, container_id=container_id, stdio=(-1, 1, 2)) as container:
                status = container.wait()
            times.append((time.perf_counter_ns() - began) / 1e6)
            if status != 0:
                raise SystemExit(f"true ended with status {status}")
        print(*(f"{ms:.4f}" for ms in times), flush=True)
    del heap


if __name__ == "__main__":
    main(*sys.argv[1:])
