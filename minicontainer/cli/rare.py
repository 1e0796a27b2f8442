"""The flags that an ordinary ``run`` does not have: their values, understood.

Apart from ``cli/request.py`` only so that a plain ``run alpine sh`` does not load what reads them.
"""

from __future__ import annotations

from minicontainer import host, values
from minicontainer.cli.flags import Parsed
from minicontainer.errors import UsageError
from minicontainer.options import SHM_SIZE, capability
from minicontainer.spec import Seccomp

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def options(parsed: Parsed, container_id: str) -> dict[str, Any]:
    """The fields of RunOptions that these flags set.  Raises UsageError."""
    every = host.all_devices() if parsed.on("privileged") else ()
    given = [node for nodes in parsed.each("device", host.device) for node in nodes]
    offsets = parsed.each("time-offset", values.time_offset)
    uids, gids = _user_namespace(parsed, container_id)
    return {
        "cap_add": parsed.each("cap-add", capability),
        "cap_drop": parsed.each("cap-drop", capability),
        "devices": tuple({node.path: node for node in (*every, *given)}.values()),
        "rlimits": parsed.each("ulimit", values.ulimit),
        "oom_score_adj": parsed.one("oom-score-adj", values.whole_number, None),
        "shm_size": parsed.one("shm-size", values.size, SHM_SIZE) or SHM_SIZE,
        "uid_mappings": uids,
        "gid_mappings": gids,
        "time_offsets": tuple(offset for clocks in offsets for offset in clocks),
        "sysctl": parsed.each("sysctl", values.sysctl),
        "extra_hosts": parsed.each("add-host", values.extra_host),
        "resolv_conf": (
            *(f"nameserver {server}" for server in parsed.each("dns", values.address)),
            *(f"search {domain}" for domain in parsed.each("dns-search", values.word)),
            *(f"options {option}" for option in parsed.each("dns-option", values.word)),
        ),
        "annotations": parsed.each("annotation", values.label),
        **_security(parsed),
    }


def notes(parsed: Parsed) -> dict[str, Any]:
    """What is remembered about a container (fields of Request), and the flags of docker's that
    can have one value only here.  Raises UsageError."""
    policy = parsed.text("restart", "no")
    if policy not in ("no", ""):
        raise UsageError(
            f"--restart {policy} is not supported yet: nothing watches a container from outside",
            parsed.table.see,
        )
    if parsed.given("sig-proxy") and not parsed.on("sig-proxy"):
        raise UsageError(
            "--sig-proxy=false is not supported yet: signals are always passed on",
            parsed.table.see,
        )
    return {
        "labels": parsed.each("label", values.label),
        "stop_signal": parsed.one("stop-signal", values.signal_name, ""),
        "stop_timeout": parsed.one("stop-timeout", values.whole_number, None),
    }


def _user_namespace(parsed: Parsed, container_id: str) -> tuple[Any, Any]:
    """(uid, gid) mappings; both empty for the host's user namespace."""
    mode = parsed.text("userns")
    if mode == "auto":
        return host.auto_userns(container_id)
    if mode in ("", "host"):
        return (), ()
    maps = parsed.one("userns", values.id_maps, ())
    return maps, maps


def _security(parsed: Parsed) -> dict[str, Any]:
    """``--security-opt KEY[=VALUE]``; docker still takes ":" for "=" too."""
    fields: dict[str, Any] = {}

    def option(text: str) -> None:
        key, _, value = text.replace(":", "=", "=" not in text).partition("=")
        if key == "seccomp" and value:
            known = {"unconfined": None, "builtin": Seccomp()}
            fields["seccomp"] = known[value] if value in known else host.seccomp_profile(value)
        elif key == "no-new-privileges" and value in ("", "true", "false"):
            fields["no_new_privileges"] = value != "false"
        elif text == "systempaths=unconfined":
            fields["system_paths"] = False
        elif key in ("apparmor", "label") and value in ("unconfined", "disable"):
            pass  # so it is: no profile and no label is set
        elif key in ("apparmor", "label", "writable-cgroups", "credentialspec"):
            raise UsageError(f"{key} is not supported yet", "leave it out")
        else:
            raise UsageError(
                f"invalid security option: {text}",
                "seccomp=unconfined|builtin|FILE, no-new-privileges[=true|false], "
                "systempaths=unconfined",
            )

    parsed.each("security-opt", option)
    return fields
