"""The small languages of docker's flags: "64m", "nofile=1024:4096", "0:100000:65536", "+1d".

Each function takes what was typed and returns what it means, or raises UsageError with the
reason alone ("invalid size: 'x'"); the command line adds which flag it was.  Nothing here looks
at the machine.

Specs: docker-run(1); go-units' RAMInBytes and ParseUlimit for sizes and limits.
"""

from __future__ import annotations

from minicontainer.errors import UsageError
from minicontainer.spec import IdMap, Rlimit, TimeOffset

_SIZES = {"": 1, "b": 1} | {
    letter + tail: 1 << 10 * (power + 1)
    for power, letter in enumerate("kmgtp")
    for tail in ("", "b", "ib")
}
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_CLOCKS = ("monotonic", "boottime")

# getrlimit(2), by docker's names
ULIMITS = (
    "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc",
    "rss", "rtprio", "rttime", "sigpending", "stack",
)  # fmt: skip

# what a container may set: the rest of /proc/sys belongs to the whole machine, not to a namespace
IPC_SYSCTLS = (
    "kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shmall",
    "kernel.shmmax", "kernel.shmmni", "kernel.shm_rmid_forced",
)  # fmt: skip

LAST_ID = 0xFFFFFFFE  # the id after it, -1, means "leave unchanged" to chown(2) and setresuid(2)


def integer(text: str, low: int, high: int) -> int:
    """A decimal number from ``low`` to ``high``.  Raises UsageError."""
    digits = text[1:] if text[:1] in ("-", "+") else text
    # int() also takes "1_000" and other alphabets' digits, and refuses 4301 digits in its own way
    if not (digits.isascii() and digits.isdecimal() and len(digits) < 20):
        raise UsageError(f"not a whole number: '{text}'")
    if not low <= int(text) <= high:
        raise UsageError(f"out of range: {text} is not in [{low}, {high}]")
    return int(text)


def whole_number(text: str) -> int:
    """A number such as an exit status or a score, of any sign.  Raises UsageError."""
    return integer(text, -(1 << 31), (1 << 31) - 1)


def size(text: str) -> int:
    """Bytes: "65536", "64k", "64MB", "64MiB", "1.5g"; a k is 1024.  Raises UsageError."""
    number = text.rstrip("BbIiKkMmGgTtPp ")
    suffix = text[len(number) :].strip().lower()
    try:
        units = _fraction(number, _SIZES[suffix])
    except (KeyError, ValueError):
        raise UsageError(f"invalid size: '{text}'", "sizes look like 64m, 1.5g, 65536") from None
    if units >= 1 << 63:
        raise UsageError(f"invalid size: '{text}' is more than 64 bits can count")
    return units


def ulimit(text: str) -> Rlimit:
    """``NAME=SOFT[:HARD]``, -1 for unlimited.  Raises UsageError."""
    name, equals, limits = text.partition("=")
    if not equals:
        raise UsageError(f"invalid ulimit argument: {text}", "as in --ulimit nofile=1024:4096")
    if name not in ULIMITS:
        raise UsageError(f"invalid ulimit type: {name}", "the types are: " + ", ".join(ULIMITS))
    soft_text, colon, hard_text = limits.partition(":")
    top = (1 << 63) - 1
    soft = integer(soft_text, -1, top)
    hard = integer(hard_text, -1, top) if colon else soft
    if hard != -1 and (soft == -1 or soft > hard):
        raise UsageError(
            f"ulimit soft limit must be less than or equal to hard limit: {soft_text} > {hard_text}"
        )
    return Rlimit(f"RLIMIT_{name.upper()}", soft, hard)


def time_offset(text: str) -> tuple[TimeOffset, ...]:
    """``[CLOCK=]OFFSET``: "boottime=-1d", "monotonic=+3600", "+0.5h" for both clocks.

    Units s (the default), m, h, d, w.  time_namespaces(7).  Raises UsageError."""
    clock, equals, offset = text.rpartition("=")
    if equals and clock not in _CLOCKS:
        raise UsageError(f"no such clock: '{clock}'", "the clocks are: " + ", ".join(_CLOCKS))
    unsigned = offset[1:] if offset[:1] in ("-", "+") else offset
    number = unsigned.rstrip("smhdw")
    try:
        nanoseconds = _fraction(number, _SECONDS[unsigned[len(number) :]] * 10**9)
    except (KeyError, ValueError):
        raise UsageError(f"invalid time offset: '{text}'", "as in boottime=-1d or +3600") from None
    if offset.startswith("-"):
        nanoseconds = -nanoseconds
    # the kernel wants nanoseconds from 0 up: -0.5 s is -1 s and +500000000 ns
    seconds, rest = divmod(nanoseconds, 10**9)
    if abs(seconds) > 1 << 32:
        raise UsageError(f"invalid time offset: '{text}' is more than 136 years")
    return tuple(TimeOffset(c, seconds, rest) for c in ([clock] if equals else _CLOCKS))


def id_maps(text: str) -> tuple[IdMap, ...]:
    """``CONTAINER:HOST:COUNT[,...]``: uid_map's lines, user_namespaces(7).  Raises UsageError."""
    maps: list[IdMap] = []
    for part in text.split(","):
        fields = part.split(":")
        if len(fields) != 3:
            raise UsageError(
                f"invalid user namespace: '{part}'", "host, auto, or UID:HOST:COUNT[,...]"
            )
        inside, outside = (integer(field, 0, LAST_ID) for field in fields[:2])
        count = integer(fields[2], 1, LAST_ID + 1)
        if max(inside, outside) + count > LAST_ID + 1:
            raise UsageError(f"ids end at {LAST_ID}: '{part}' goes beyond")
        for other in maps:
            if (
                inside < other.container_id + other.size and other.container_id < inside + count
            ) or (outside < other.host_id + other.size and other.host_id < outside + count):
                raise UsageError(f"ranges overlap: '{part}' maps an id a second time")
        maps.append(IdMap(inside, outside, count))
    if not any(m.container_id == 0 for m in maps):
        raise UsageError("id 0 is not mapped: the container would have no root to furnish it")
    if len(maps) > 340:
        raise UsageError("the kernel takes at most 340 ranges")
    return tuple(maps)


def sysctl(text: str) -> tuple[str, str]:
    """``NAME=VALUE``, of those that a namespace has for itself.  Raises UsageError."""
    name, equals, value = text.partition("=")
    allowed = name in IPC_SYSCTLS or name.startswith(("net.", "fs.mqueue."))
    # a name becomes a path under /proc/sys: "/" and ".." would be ways out
    if not equals or not allowed or not all(name.split(".")) or "/" in name:
        raise UsageError(
            f"sysctl '{text}' is not allowed",
            "NAME=VALUE with net.*, fs.mqueue.* or " + ", ".join(IPC_SYSCTLS),
        )
    return name, value


def label(text: str) -> tuple[str, str]:
    """``KEY[=VALUE]``.  Raises UsageError."""
    key, _, value = text.partition("=")
    if not key.strip():
        raise UsageError(f"invalid label '{text}': empty name")
    return key, value


def word(text: str) -> str:
    """One word for a line of resolv.conf(5).  Raises UsageError."""
    if not text or not text.isprintable() or " " in text:
        raise UsageError(f"not one word: '{text}'")
    return text


def address(text: str) -> str:
    """An IPv4 or IPv6 address.  Raises UsageError."""
    import _socket  # socket itself imports enum: 10 ms

    try:
        _socket.inet_pton(_socket.AF_INET6 if ":" in text else _socket.AF_INET, text)
    except (OSError, ValueError):
        raise UsageError(f"IP address is not correctly formatted: {text}") from None
    return text


def extra_host(text: str) -> tuple[str, str]:
    """``NAME:ADDRESS`` (or ``NAME=ADDRESS``) as (name, address).  Raises UsageError."""
    split = "=" if "=" in text else ":"
    name, found, number = text.partition(split)
    if not name or not found:
        raise UsageError(f"bad format for add-host: '{text}'", "as in db:10.0.0.2")
    return hostname(name), address(number.removeprefix("[").removesuffix("]"))


def hostname(text: str) -> str:
    """A name for sethostname(2): letters, digits, "-", "_", "."; at most 64 bytes.

    Strict, because it is also written to the container's /etc/hosts.  Raises UsageError."""
    good = text.isascii() and text.replace("-", "").replace("_", "").replace(".", "").isalnum()
    if not good or text[0] in "-.":
        raise UsageError(f"invalid hostname format: {text}")
    if len(text) > 64:
        raise UsageError(f"the kernel's limit for a host name is 64 bytes, this has {len(text)}")
    return text


def signal_name(text: str) -> str:
    """TERM, SIGTERM, 15 or RTMIN+3 as "SIGTERM" or "SIGRTMIN+3": signal(7).

    Raises UsageError."""
    import _signal  # signal itself imports enum: 10 ms

    numbers = {
        key: int(value) for key, value in vars(_signal).items()
        if key.startswith("SIG") and not key.startswith("SIG_")
    }  # fmt: skip
    names = {str(value): key for key, value in numbers.items()}
    realtime = {f"SIGRTMIN+{n}" for n in range(1, numbers["SIGRTMAX"] - numbers["SIGRTMIN"])}
    found: str = names.get(text, "SIG" + text.upper().removeprefix("SIG"))
    if found not in numbers and found not in realtime:
        raise UsageError(f"invalid signal: {text}", "as in SIGTERM, TERM, 15 or RTMIN+3")
    return found


def signal_number(text: str) -> int:
    """The same as the kernel's number, as docker's `kill -s` takes it: 15, TERM, SIGTERM, RTMIN+3.

    Raises UsageError."""
    import _signal

    if text.isascii() and text.isdecimal() and 1 <= int(text[:3]) <= 64:
        return int(text)
    name, _, after = signal_name(text).partition("+")
    return int(getattr(_signal, name)) + int(after or "0")


def _fraction(number: str, unit: int) -> int:
    """A decimal number times ``unit``, exactly, rounded down.  Raises ValueError."""
    whole, _, part = number.partition(".")
    if not ((whole + part).isascii() and (whole + part).isdecimal() and len(number) < 25):
        raise ValueError(number)
    return int(whole or "0") * unit + int(part or "0") * unit // int(10 ** len(part))
