"""config.json's devices: which nodes are made (linux.devices), and which may be used
(linux.resources.devices).

The two know nothing of each other: a node that no rule allows is there and cannot be opened.  What
every container may use, null and the like, is allowed whatever the file says, as with runc.

Specs: runtime-spec, config-linux.md, "Devices" and "Allowed Device list".
"""

from __future__ import annotations

from minicontainer.oci_json import Json
from minicontainer.spec import Device, DeviceRule

NODE_TYPES = ("c", "u", "b", "p")
RULE_TYPES = ("a", "c", "b")
LAST_MAJOR, LAST_MINOR = 0xFFF, 0xFFFFF  # linux/kdev_t.h: 12 and 20 bits


def device_node(device: Json) -> Device:
    """An entry of linux.devices.  Raises UsageError."""
    kind = device["type"].text(among=NODE_TYPES)
    fifo = kind == "p"  # has no driver, so no number
    return Device(
        path=device["path"].absolute(),
        type=kind,
        major=device["major"].integer(0, LAST_MAJOR, 0 if fifo else None),
        minor=device["minor"].integer(0, LAST_MINOR, 0 if fifo else None),
        # docker writes what stat(2) says, with the file type above the permissions
        file_mode=device["fileMode"].integer(0, 0o177777, 0o666) & 0o7777,
        uid=device["uid"].identifier(0),
        gid=device["gid"].identifier(0),
        access="",
    )


def device_rule(rule: Json) -> DeviceRule:
    """An entry of linux.resources.devices.  Raises UsageError."""
    access = rule["access"].text()
    if not access or set(access) - set("rwm"):
        rule["access"].fail(f"is {access!r}, which is not made of r, w and m")
    found = DeviceRule(
        allow=rule["allow"].boolean(),
        type=rule["type"].text("", among=("", *RULE_TYPES)) or "a",
        major=rule["major"].integer(-1, LAST_MAJOR, -1),
        minor=rule["minor"].integer(-1, LAST_MINOR, -1),
        access="".join(letter for letter in "rwm" if letter in access),
    )
    # cgroup v1 took "a" for everything at once and did not look at the rest: it was never clear
    if found.type == "a" and found != DeviceRule(found.allow):
        rule.fail("is of type a (all), so it must be for all numbers and rwm", "or type b or c")
    return found
