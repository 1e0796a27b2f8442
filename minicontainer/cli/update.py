"""``minicontainer update``: new limits for containers that run.

A limit is a number in a file of the cgroup, and the file can be written at any time; so this is
the limits' Steps of ``run`` (kernel/limits.py), run again.  What is not asked for stays as it is.
"""

from __future__ import annotations

import os

from minicontainer.cgrouptree import home, mount_point
from minicontainer.cli.flags import Table
from minicontainer.cli.limitflags import resources
from minicontainer.cli.output import say
from minicontainer.cli.runflags import RUN
from minicontainer.cli.targets import HELP, cgroup_of, for_each, need_words, read, usage_of
from minicontainer.containers import Known
from minicontainer.errors import MinicontainerError, UsageError
from minicontainer.kernel.usage import Usage
from minicontainer.resources import Resources, controller_steps, limit_steps
from minicontainer.step import Context

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

# docker's for update; and --cgroup, which is ours.  All mean what they mean to run.
FLAGS = (
    "memory", "memory-reservation", "memory-swap", "cpus", "cpu-shares", "cpu-period", "cpu-quota",
    "cpuset-cpus", "cpuset-mems", "pids-limit", "blkio-weight", "cgroup",
)  # fmt: skip


def explain_unknown(name: str) -> str:
    """Why a flag of docker's is not here; "" for one that docker does not have either."""
    return "nothing watches a container from outside yet" if name == "restart" else ""


UPDATE = Table(
    "update",
    "[FLAGS] CONTAINER...",
    (("Flags", (*(RUN.rows[name] for name in FLAGS), HELP)),),
    explain_unknown=explain_unknown,
    about="""\
Change limits of running containers

What is not named stays as it is.  -1 is no limit: --memory-swap -1, --cpu-quota -1,
--pids-limit -1; for memory itself it is --cgroup memory.max=max.""",
)


def update_command(argv: Sequence[str]) -> int:
    """Change limits of running containers."""
    parsed, words = read(UPDATE, argv)
    if parsed.on("help"):
        print(UPDATE.help(), end="")
        return 0
    need_words(UPDATE, words)
    asked = resources(parsed)
    if asked is None:
        raise UsageError("you must provide one or more flags when using this command", UPDATE.see)
    if not parsed.given("memory-swap"):  # to run, no flag means twice the memory; here, no change
        asked = asked.replace(memory=asked.memory.replace(swap=None))

    def update(one: Known) -> None:
        path = cgroup_of(one)
        change(path, completed(asked, usage_of(one)))

    return for_each(UPDATE, words, update)


def completed(asked: Resources, now: Usage) -> Resources:
    """cpu.max is one file for two numbers: who changes one of them keeps the other."""
    cpu = asked.cpu
    if cpu.quota is not None and cpu.period is None:
        cpu = cpu.replace(period=now.cpu_period)
    elif cpu.period is not None and cpu.quota is None:
        cpu = cpu.replace(quota=now.cpu_quota)
    return asked.replace(cpu=cpu)


def change(path: str, asked: Resources) -> None:
    """Write the limits of the cgroup whose directory is ``path``; all, or none of them.

    Raises MinicontainerError."""
    above = next((top for top in (home(), mount_point()) if path.startswith(top + "/")), "")
    context = Context(os.path.basename(path), "")
    context.warn = say
    context.cgroup_fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    before: list[tuple[str, str]] = []
    counted = os.path.exists(path + "/memory.current")
    try:
        for enabling in controller_steps(asked, path.removeprefix(above)):
            enabling.run(context)
        for step in limit_steps(asked):
            before += [(file, old(path, file)) for file, _ in step.files()]
            step.run(context)
        if not counted and os.path.exists(path + "/memory.current"):
            say("warning: memory is counted from now on; what was used before is not in the limit")
    except MinicontainerError:
        for file, text in reversed(before):
            restore(path, file, text)
        raise
    finally:
        os.close(context.cgroup_fd)


def old(path: str, file: str) -> str:
    """What a file says before it is written; "" if there is none."""
    try:
        with open(f"{path}/{file}") as text:
            return text.read()
    except FileNotFoundError:
        return ""


def restore(path: str, file: str, text: str) -> None:
    """Write a file's old text back, a line at a time (io.max has one for each disk)."""
    for line in text.splitlines():
        try:
            with open(f"{path}/{file}", "w") as target:
                target.write(line)
        except OSError as error:
            say(f"cannot write {file} back to {line!r}: {error.strerror}")
