"""``minicontainer inspect``: all that is known of containers, as JSON in docker's shape.

What docker has no field for (the cgroup, the post-mortem) has names of our own.  Limits are those
that the kernel enforces now: they are read from the cgroup, not from what was once asked for.
"""

from __future__ import annotations

import os
import time

from minicontainer.cli.flags import Table
from minicontainer.cli.targets import HELP, Refused, all_known, need_words, read, usage_of
from minicontainer.containers import Known, find
from minicontainer.errors import MinicontainerError
from minicontainer.kernel import usage

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

INSPECT = Table("inspect", "[FLAGS] CONTAINER...", (
    ("Flags", (
        ("format", "f", "text", "TEMPLATE", "Only this, such as '{{.State.Pid}}'"),
        HELP,
    )),
), about="All about containers, as JSON")  # fmt: skip

NEVER = "0001-01-01T00:00:00Z"  # Go's zero time, which scripts look for


def inspect_command(argv: Sequence[str]) -> int:
    """Print all about containers."""
    import json

    from minicontainer.cli.template import fill

    parsed, words = read(INSPECT, argv)
    if parsed.on("help"):
        print(INSPECT.help(), end="")
        return 0
    need_words(INSPECT, words)
    known, found, failed = all_known("inspect"), [], []
    for word in words:
        try:
            found.append(describe(find(word, known)))
        except MinicontainerError as error:
            failed.append(error)
    form = parsed.text("format")
    if form == "json":
        form = "{{json .}}"
    if form:
        for one in found:
            print(fill(form, one, one), flush=True)
    else:
        print(json.dumps(found, indent=4), flush=True)
    if failed:
        raise Refused("\n".join(error.message for error in failed), failed[-1].hint)
    return 0


def describe(one: Known) -> dict[str, Any]:
    """A container with the keys of ``docker inspect``."""
    status = one.status
    alive = status in ("running", "paused")
    return {
        "Id": one.id,
        "Created": moment(one.created),
        "Path": one.command[0] if one.command else "",
        "Args": list(one.command[1:]),
        "State": {
            "Status": status,
            "Running": alive,
            "Paused": status == "paused",
            "Restarting": False,
            "OOMKilled": one.oom_kills > 0,
            "Dead": False,
            "Pid": one.pid if alive else 0,
            "ExitCode": one.exit_code,
            "Error": "",
            "StartedAt": moment(one.started),
            "FinishedAt": moment(one.finished),
            "PostMortem": list(one.post_mortem),
        },
        "Image": one.image,
        "Name": f"/{one.name}",
        "HostConfig": limits(one),
        "Config": {"Image": one.image, "Cmd": list(one.command)},
        "CgroupPath": one.cgroup,
    }


def limits(one: Known) -> dict[str, Any]:
    """docker's HostConfig, as far as it is limits; 0 and null mean "none", as docker's do."""
    now = usage_of(one)
    limited = now.cpu_quota is not None and now.cpu_quota != usage.UNLIMITED
    return {
        "CgroupParent": os.path.dirname(one.cgroup),
        "Memory": max(now.memory_max or 0, 0),
        "CpuQuota": now.cpu_quota if limited else 0,
        "CpuPeriod": now.cpu_period if limited else 0,
        "PidsLimit": now.pids_max if now.pids_max and now.pids_max > 0 else None,
    }


def moment(seconds: float) -> str:
    """RFC 3339, in UTC."""
    if not seconds:
        return NEVER
    fraction = f"{seconds % 1:.9f}"[1:]
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + fraction + "Z"
