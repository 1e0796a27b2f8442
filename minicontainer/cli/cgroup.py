"""``minicontainer cgroup devices``: what no file of a cgroup says, read from the kernel.

The other controllers are files: ``ls $(minicontainer inspect -f '{{.CgroupPath}}' NAME)``.
"""

from __future__ import annotations

from minicontainer.cli.flags import Table
from minicontainer.cli.targets import HELP, all_known, cgroup_of, need_words, read
from minicontainer.containers import find
from minicontainer.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

DEVICES = Table("cgroup devices", "[FLAGS] CONTAINER", (
    ("Flags", (
        ("instructions", "", "switch", "", "Also the program's instructions"),
        HELP,
    )),
), about="Which devices a container may use, read back from the kernel")  # fmt: skip
HELP_TEXT = """\
Usage:  minicontainer cgroup devices CONTAINER

Which devices a container may use

  devices   Show which devices the container may use, read back from the kernel
"""


def cgroup_command(argv: Sequence[str]) -> int:
    """Find the second word's function."""
    if not argv or argv[0] in ("--help", "-h", "help"):
        print(HELP_TEXT, end="")
        return 0
    if argv[0] != "devices":
        raise UsageError(f"unknown command: minicontainer cgroup {argv[0]}", "there is: devices")
    return devices_command(argv[1:])


def devices_command(argv: Sequence[str]) -> int:
    """Show the device programs that are asked for a container."""
    from minicontainer.devicelist import report

    parsed, words = read(DEVICES, argv)
    if parsed.on("help"):
        print(DEVICES.help(), end="")
        return 0
    need_words(DEVICES, words)
    if len(words) > 1:
        raise UsageError(f"one container at a time: {words[1]}", DEVICES.see)
    one = find(words[0], all_known(DEVICES.verb))
    print(report(cgroup_of(one), instructions=parsed.on("instructions")), end="")
    return 0
