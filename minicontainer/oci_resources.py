"""config.json's limits, linux.resources, as a Resources value and back; its devices are in
oci_devices.py.

The file speaks of cgroup v1.  What version 2 has under another name or in another unit is converted
(resources.py); what it does not have at all is refused by its path.

Specs: runtime-spec, config-linux.md, "Control groups"; config-linux.md, "Unified".
"""

from __future__ import annotations

from minicontainer.errors import UsageError
from minicontainer.oci_json import Json
from minicontainer.resources import (
    BlockIO,
    Cpu,
    DeviceNumber,
    HugepageLimit,
    Memory,
    Resources,
    cgroup_file,
    cpu_list,
    swap_alone,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_TOP = (1 << 63) - 1
# accepted: the kernel always does so, or it is about a later change of the limit
_WITHOUT_EFFECT = ("useHierarchy", "checkBeforeUpdate")
_UNDERSTOOD = {
    "memory": ("limit", "reservation", "swap", *_WITHOUT_EFFECT),
    "cpu": ("shares", "quota", "period", "burst", "idle", "cpus", "mems"),
    "blockIO": (
        "weight", "weightDevice", "throttleReadBpsDevice", "throttleWriteBpsDevice",
        "throttleReadIOPSDevice", "throttleWriteIOPSDevice",
    ),
    "pids": ("limit",),
}  # fmt: skip
_NOT_IN_V2 = {
    "swappiness": "cgroup v2 has no swappiness of a cgroup's own (runc ignores it)",
    "disableOOMKiller": "cgroup v2 cannot switch the OOM killer off: nothing would end the wait",
    "kernel": "cgroup v2 counts the kernel's memory in memory.max",
    "kernelTCP": "cgroup v2 counts the memory of sockets in memory.max",
    "realtimeRuntime": "cgroup v2 does not share out realtime scheduling",
    "realtimePeriod": "cgroup v2 does not share out realtime scheduling",
    "leafWeight": "cgroup v2 has no processes beside child cgroups, which it would be for",
}


def read_resources(resources: Json) -> Resources | None:
    """What linux.resources says of limits; None if nothing.  Raises UsageError, with the path."""
    for name, section in resources.members():
        if name in _UNDERSTOOD:
            for key, value in section.members():
                if key in _NOT_IN_V2:
                    if value.value and value.value != -1:
                        value.fail(f"cannot be had: {_NOT_IN_V2[key]}", "leave it out")
                elif key not in _UNDERSTOOD[name]:
                    value.refuse_what_it_says()
        elif name not in ("devices", "hugepageLimits", "unified"):
            section.refuse_what_it_says()
    memory = resources["memory"]
    found = Resources(
        memory=Memory(
            limit=_limit(memory["limit"]),
            reservation=_limit(memory["reservation"]),
            swap=_limit(memory["swap"]),
        ),
        cpu=_cpu(resources["cpu"]),
        pids=_limit(resources["pids"]["limit"]),
        block_io=_block_io(resources["blockIO"]),
        hugepage_limits=tuple([_hugepages(one) for one in resources["hugepageLimits"].items()]),
        unified=tuple([
            _checked(text, cgroup_file, name, text.text())
            for name, text in resources["unified"].members()
        ]),
    )  # fmt: skip
    _checked(memory["swap"], swap_alone, found.memory)
    return None if found == Resources() else found


def _limit(value: Json) -> int | None:
    """A limit, -1 for none; 0 is how Go programs leave it out."""
    return value.integer(-1, _TOP, 0) or None


def _cpu(cpu: Json) -> Cpu:
    quota = cpu["quota"].integer(-1, _TOP, 0) or None
    if quota is not None and 0 < quota < 1000:
        cpu["quota"].fail(f"is {quota}: the kernel's least is 1000, a millisecond")
    period = cpu["period"].integer(0, 1_000_000, 0) or None
    if period is not None and period < 1000:
        cpu["period"].fail(f"is {period}: the kernel takes 1000 to 1000000, a second")
    return Cpu(
        shares=cpu["shares"].integer(0, _TOP, 0) or None,
        quota=quota,
        period=period,
        burst=None if cpu["burst"].absent else cpu["burst"].integer(0, _TOP),
        idle=None if cpu["idle"].absent else cpu["idle"].integer(0, 1),
        cpus=_list(cpu["cpus"]),
        mems=_list(cpu["mems"]),
    )


def _list(value: Json) -> str:
    text = value.text("")
    return _checked(value, cpu_list, text) if text else ""


def _block_io(io: Json) -> BlockIO:
    def weight(value: Json) -> int | None:
        found = value.integer(0, 1000, 0) or None
        if found is not None and found < 10:
            value.fail(f"is {found}, which is not in [10, 1000]")
        return found

    def weights(entry: Json) -> DeviceNumber | None:
        for key in ("leafWeight",):
            entry[key].refuse_what_it_says()
        found = weight(entry["weight"])
        return None if found is None else DeviceNumber(*_disk(entry), found)

    def rates(entries: Json) -> tuple[DeviceNumber, ...]:
        return tuple([
            DeviceNumber(*_disk(entry), entry["rate"].integer(1, _TOP)) for entry in entries.items()
        ])  # fmt: skip

    return BlockIO(
        weight=weight(io["weight"]),
        weight_device=tuple([w for e in io["weightDevice"].items() if (w := weights(e))]),
        read_bps=rates(io["throttleReadBpsDevice"]),
        write_bps=rates(io["throttleWriteBpsDevice"]),
        read_iops=rates(io["throttleReadIOPSDevice"]),
        write_iops=rates(io["throttleWriteIOPSDevice"]),
    )


def _disk(entry: Json) -> tuple[int, int]:
    return entry["major"].integer(0, 0xFFF), entry["minor"].integer(0, 0xFFFFF)


def _hugepages(entry: Json) -> HugepageLimit:
    size = entry["pageSize"].text()
    number = size[:-2]
    if not (number.isascii() and number.isdecimal() and size[-2:] in ("KB", "MB", "GB")):
        entry["pageSize"].fail(f"is {size!r}, which is not a size as in 2MB")
    return HugepageLimit(size, entry["limit"].integer(0, _TOP))


def _checked(value: Json, check: Callable[..., Any], *arguments: Any) -> Any:
    """Call ``check``; its complaint gets the path it is about."""
    try:
        return check(*arguments)
    except UsageError as error:
        value.fail(f"is wrong: {error.message}", error.hint)


# ---- and back


def write_resources(resources: Resources) -> dict[str, Any]:
    """linux.resources without its devices; ``read_resources`` makes the same value of it."""
    memory, cpu, io = resources.memory, resources.cpu, resources.block_io

    def devices(entries: tuple[DeviceNumber, ...], word: str) -> list[dict[str, int]]:
        return [{"major": e.major, "minor": e.minor, word: e.value} for e in entries]

    return {
        "memory": {"limit": memory.limit, "reservation": memory.reservation, "swap": memory.swap},
        "cpu": {field: getattr(cpu, field) for field in cpu._fields},
        "pids": {"limit": resources.pids},
        "blockIO": {
            "weight": io.weight,
            "weightDevice": devices(io.weight_device, "weight"),
            "throttleReadBpsDevice": devices(io.read_bps, "rate"),
            "throttleWriteBpsDevice": devices(io.write_bps, "rate"),
            "throttleReadIOPSDevice": devices(io.read_iops, "rate"),
            "throttleWriteIOPSDevice": devices(io.write_iops, "rate"),
        },
        "hugepageLimits": [
            {"pageSize": one.page_size, "limit": one.limit} for one in resources.hugepage_limits
        ],
        "unified": dict(resources.unified),
    }
