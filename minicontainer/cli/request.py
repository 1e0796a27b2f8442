"""From the words after ``run`` to a Request: every value understood, every bad one refused.

This is where docker's flags get their meaning.  It may look at the host (an --env-file, a
--device) but makes nothing: when it returns, only the image is still unknown.
"""

from __future__ import annotations

from minicontainer.cli.flags import Parsed, parse
from minicontainer.cli.runflags import RUN
from minicontainer.errors import UsageError
from minicontainer.options import CGROUP_PARENT, RunOptions, check
from minicontainer.step import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from minicontainer.spec import Mount

# read by cli/limitflags.py
LIMITS = frozenset((
    "memory", "memory-reservation", "memory-swap", "memory-swappiness", "cpus", "cpu-shares",
    "cpu-period", "cpu-quota", "cpuset-cpus", "cpuset-mems", "pids-limit", "blkio-weight",
    "blkio-weight-device", "device-read-bps", "device-read-iops", "device-write-bps",
    "device-write-iops", "oom-kill-disable", "oom-group", "hugetlb", "cgroup",
))  # fmt: skip
# flags that are read here; the values of all others are understood by cli/rare.py
_ORDINARY = frozenset((
    "interactive", "tty", "rm", "name", "cidfile", "init", "entrypoint", "env", "env-file",
    "workdir", "user", "group-add", "volume", "mount", "tmpfs", "read-only", "hostname",
    "domainname", "network", "pid", "ipc", "uts", "cgroupns", "cgroup-parent", "pull", "platform",
    "quiet", "explain", "explain-format", "pause", "dry-run", "as-shell", "without", "i-know",
    "bundle",
))  # fmt: skip
# with --bundle the config.json says what the container is; these only say how to run it
_BESIDE_BUNDLE = frozenset((
    "bundle", "interactive", "rm", "name", "cidfile", "quiet", "explain", "explain-format",
    "pause", "dry-run", "as-shell", "without", "i-know", "sig-proxy",
))  # fmt: skip
_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")


class Request(Record):
    """One ``run``, understood: the container (``options``) and what is to be done with it."""

    options: RunOptions = RunOptions()
    image: str = ""  # "" only with a bundle
    bundle: str = ""
    interactive: bool = False
    name: str = ""
    cidfile: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    stop_signal: str = ""
    stop_timeout: int | None = None  # seconds
    pull: str = "missing"
    platform: str = ""
    quiet: bool = False
    network_given: bool = False
    make_sources: tuple[str, ...] = ()  # host directories of -v: made if missing
    need_sources: tuple[str, ...] = ()  # host paths of --mount: an error if missing
    explain: int | None = None  # 0..3
    explain_format: str = "text"
    pause: bool = False
    dry_run: bool = False
    as_shell: bool = False
    without: tuple[str, ...] = ()
    i_know: bool = False
    help: bool = False


def read(words: Sequence[str], container_id: str, environ: Mapping[str, str]) -> Request:
    """Understand the words after ``run``.  ``container_id`` seeds --userns auto, ``environ`` is
    where ``-e NAME`` finds a value.  Raises UsageError."""
    parsed = parse(RUN, words)
    if parsed.on("help"):
        return Request(help=True)
    bundle = parsed.text("bundle")
    if parsed.given("bundle"):
        _only_beside_bundle(parsed, bundle)
    elif not parsed.rest:
        raise UsageError("'minicontainer run' requires at least 1 argument: IMAGE", RUN.see)
    options: dict[str, Any] = {}
    notes: dict[str, Any] = {}
    if parsed.values.keys() - _ORDINARY - LIMITS:
        from minicontainer.cli import rare

        options, notes = rare.options(parsed, container_id), rare.notes(parsed)
    if parsed.values.keys() & LIMITS:
        from minicontainer.cli import limitflags

        options["resources"] = limitflags.resources(parsed)
    volumes, mounts, tmpfs = _mounts(parsed)
    made = RunOptions(
        command=tuple(parsed.rest[1:]),
        entrypoint=parsed.text("entrypoint") if parsed.given("entrypoint") else None,
        env=_env(parsed, environ),
        workdir=parsed.text("workdir"),
        user=parsed.text("user"),
        group_add=parsed.texts("group-add"),
        terminal=parsed.on("tty"),
        init=parsed.on("init"),
        hostname=parsed.text("hostname"),
        domainname=parsed.text("domainname"),
        mounts=tuple(dict.fromkeys(volumes + mounts + tmpfs)),
        read_only=parsed.on("read-only"),
        privileged=parsed.on("privileged"),
        network=_network(parsed),
        pid=parsed.text("pid") or "private",
        ipc=parsed.text("ipc") or "private",
        uts=parsed.text("uts") or "private",
        cgroupns=parsed.text("cgroupns") or "private",
        cgroup_parent=parsed.text("cgroup-parent") or CGROUP_PARENT,
        **options,
    )
    check(made)
    return Request(
        options=made,
        image=parsed.rest[0] if parsed.rest else "",
        bundle=bundle,
        # a bundle's program reads what we read, as under runc
        interactive=parsed.on("interactive") or bool(bundle),
        name=parsed.one("name", name, ""),
        cidfile=parsed.text("cidfile"),
        pull=parsed.one("pull", _pull, "missing"),
        platform=parsed.text("platform"),
        quiet=parsed.on("quiet"),
        network_given=parsed.given("network"),
        make_sources=tuple(volume.source for volume in volumes),
        need_sources=tuple(mount.source for mount in mounts if mount.type == "bind"),
        **notes,
        **_lesson(parsed),
    )


def name(text: str) -> str:
    """A container's name.  Raises UsageError, in docker's words."""
    good = _LETTERS.issuperset(text.replace("_", "").replace(".", "").replace("-", ""))
    if not good or len(text) < 2 or text[0] in "_.-" or len(text) > 200:
        raise UsageError(
            f"Invalid container name ({text}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed",
            "at least two characters, at most 200; the first a letter or a digit",
        )
    return text


def _mounts(parsed: Parsed) -> tuple[tuple[Mount, ...], tuple[Mount, ...], tuple[Mount, ...]]:
    if not parsed.values.keys() & {"volume", "mount", "tmpfs"}:
        return (), (), ()
    from minicontainer import mountflags

    return (
        parsed.each("volume", mountflags.volume),
        parsed.each("mount", mountflags.mount),
        parsed.each("tmpfs", mountflags.tmpfs),
    )


def _env(parsed: Parsed, environ: Mapping[str, str]) -> tuple[str, ...]:
    """Files first, flags after, so that flags win."""

    def entry(text: str) -> str:
        variable, equals, _ = text.partition("=")
        if not variable:
            raise UsageError(f"invalid environment variable: {text}", "as in -e NAME=VALUE")
        return text if equals or text not in environ else f"{text}={environ[text]}"

    entries: list[str] = []
    if parsed.given("env-file"):
        from minicontainer.host import env_file

        for path in parsed.texts("env-file"):
            entries += env_file(path, environ)
    return (*entries, *parsed.each("env", entry))


def _network(parsed: Parsed) -> str:
    networks = parsed.texts("network") or ("none",)
    if len(networks) > 1:
        raise UsageError(
            f"--network was given {len(networks)} times: a container has one network here", RUN.see
        )
    return networks[0]


def _lesson(parsed: Parsed) -> dict[str, Any]:
    """The flags that show the plan instead of, or beside, running it."""

    def level(text: str) -> int:
        if text not in ("0", "1", "2", "3"):
            raise UsageError(f"no such level: '{text}'", "0 phases, 1 steps, 2 calls, 3 /proc too")
        return int(text)

    def wording(text: str) -> str:
        if text not in ("text", "json"):
            raise UsageError(f"no such format: '{text}'", "text or json")
        return text

    steps = ",".join(parsed.texts("without")).split(",")
    level_asked = parsed.one("explain", level, None)
    shown = parsed.on("pause") or parsed.given("explain-format")
    return {
        "explain": 1 if level_asked is None and shown else level_asked,
        "explain_format": parsed.one("explain-format", wording, "text"),
        "pause": parsed.on("pause"),
        "dry_run": parsed.on("dry-run"),
        "as_shell": parsed.on("as-shell"),
        "i_know": parsed.on("i-know"),
        "without": tuple(dict.fromkeys(step for step in steps if step)),
    }


def _only_beside_bundle(parsed: Parsed, bundle: str) -> None:
    if not bundle:
        raise UsageError('invalid argument "" for "--bundle" flag: no directory', RUN.see)
    if parsed.rest:
        raise UsageError(f"with --bundle there is no IMAGE and no COMMAND: {parsed.rest[0]}",
                         "the bundle's config.json names the program")  # fmt: skip
    for flag in parsed.values:
        if flag not in _BESIDE_BUNDLE:
            raise UsageError(f"--{flag} does not go with --bundle",
                             "the bundle's config.json says what the container is")  # fmt: skip


def _pull(text: str) -> str:
    if text not in ("always", "missing", "never"):
        raise UsageError(f"invalid pull option: '{text}': must be one of always, missing, never")
    return text
