"""``minicontainer pause``, ``unpause`` and ``kill``: docker's verbs for containers that run.

A foreground container's runtime is a process like any other that waits for it: it sees a killed
container end as it would see any end, and leaves with 128+n.
"""

from __future__ import annotations

import os

from minicontainer import state
from minicontainer.cli.flags import Table
from minicontainer.cli.targets import HELP, Refused, cgroup_of, for_each, read
from minicontainer.containers import Known, open_process
from minicontainer.kernel import cgroup, freezer, process
from minicontainer.values import signal_number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

PAUSE = Table("pause", "CONTAINER...", (("Flags", (HELP,)),),
              about="Stop all processes of containers where they stand")  # fmt: skip
UNPAUSE = Table(
    "unpause", "CONTAINER...", (("Flags", (HELP,)),), about="Let paused containers go on"
)
KILL = Table("kill", "[FLAGS] CONTAINER...", (
    ("Flags", (
        ("signal", "s", "text", "SIGNAL", "By name or number (default KILL)"),
        HELP,
    )),
), about="""\
Send a signal to containers, or end them

A signal goes to the first process of the container, which may have a handler for it, or
ignore it (as a first process does by default).  KILL ends all of its processes.""")  # fmt: skip


def pause_command(argv: Sequence[str]) -> int:
    """Stop all processes of containers where they stand, and wait until they do."""
    parsed, words = read(PAUSE, argv)
    if parsed.on("help"):
        print(PAUSE.help(), end="")
        return 0

    def pause(one: Known) -> None:
        path = cgroup_of(one)
        if freezer.is_frozen(path):
            raise Refused(f"container {one.id} is already paused")
        freezer.freeze(path)

    return for_each(PAUSE, words, pause)


def unpause_command(argv: Sequence[str]) -> int:
    """Let the processes of paused containers go on."""
    parsed, words = read(UNPAUSE, argv)
    if parsed.on("help"):
        print(UNPAUSE.help(), end="")
        return 0

    def unpause(one: Known) -> None:
        path = cgroup_of(one)
        if not freezer.is_frozen(path):
            raise Refused(f"container {one.id} is not paused")
        freezer.thaw(path)

    return for_each(UNPAUSE, words, unpause)


def kill_command(argv: Sequence[str]) -> int:
    """Send a signal to the first process of containers; KILL ends all their processes."""
    parsed, words = read(KILL, argv)
    if parsed.on("help"):
        print(KILL.help(), end="")
        return 0
    number = parsed.one("signal", signal_number, 9)

    def kill(one: Known) -> None:
        pidfd = open_process(one)
        try:
            # One write for all of them, and none can fork away meanwhile.  Without a cgroup, or
            # before Linux 5.14, the first process will do: with it a pid namespace ends.
            if number == 9:
                state.append(one.id, killed=f"`minicontainer kill` (by uid {os.getuid()})")
            if number == 9 and os.path.exists(f"{one.cgroup}/cgroup.kill"):
                cgroup.kill_all(one.cgroup)
            else:
                process.kill(pidfd, number)
        finally:
            os.close(pidfd)

    return for_each(KILL, words, kill)
