"""``minicontainer ps`` and ``top``: which containers there are, and which processes live in them.

Columns, words and exit status are docker's.
"""

from __future__ import annotations

import os
import time

from minicontainer.cli import template
from minicontainer.cli.flags import Table, parse
from minicontainer.cli.imagetable import human_duration
from minicontainer.cli.targets import HELP, Refused, all_known, cgroup_of, need_words, read
from minicontainer.containers import Known, find
from minicontainer.errors import UsageError
from minicontainer.kernel import usage

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


def explain_unknown(name: str) -> str:
    """Why a flag of docker's is not here; "" for one that docker does not have either."""
    if name in ("filter", "f", "last", "n", "latest", "l"):
        return "grep and head do the same: ps --format '{{.ID}} {{.Names}}' | ..."
    return "nobody counts a container's files yet" if name in ("size", "s") else ""


PS = Table("ps", "[FLAGS]", (
    ("Flags", (
        ("all", "a", "switch", "", "Also those being made or cleaned up (one that ended is gone)"),
        ("format", "", "text", "FORMAT", "table, json, or a template such as '{{.ID}} {{.Names}}'"),
        ("json", "", "switch", "", "The same as --format json"),
        ("no-trunc", "", "switch", "", "Ids and commands in full"),
        ("quiet", "q", "switch", "", "Only ids"),
        HELP,
    )),
), explain_unknown=explain_unknown, about="List the containers")  # fmt: skip
TOP = Table(
    "top",
    "CONTAINER [OPTIONS OF PS]",
    (("Flags", (HELP,)),),
    about="""\
The processes of a container

With options ps(1) tells, and must show the column PID: top NAME -o pid,rss,args""",
)

COLUMNS = (
    ("CONTAINER ID", "ID"), ("IMAGE", "Image"), ("COMMAND", "Command"), ("CREATED", "RunningFor"),
    ("STATUS", "Status"), ("PORTS", "Ports"), ("NAMES", "Names"),
)  # fmt: skip
# for templates and json
MORE = (*COLUMNS, ("CREATED AT", "CreatedAt"), ("STATE", "State"), ("PID", "Pid"))

# NSPID is ours, and stands where it moves none of docker's
TOP_COLUMNS = ("UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "NSPID", "CMD")


def ps_command(argv: Sequence[str]) -> int:
    """List the containers, the youngest first."""
    parsed, words = read(PS, argv)
    if parsed.on("help"):
        print(PS.help(), end="")
        return 0
    if words:
        raise UsageError(f'"minicontainer ps" accepts no arguments: {words[0]}', PS.see)
    form = "json" if parsed.on("json") else parsed.text("format")
    template.check(form, MORE)
    full = parsed.on("no-trunc")
    shown = [
        one for one in all_known("ps")
        if parsed.on("all") or one.status in ("running", "paused")
    ]  # fmt: skip
    if parsed.on("quiet"):
        form = "{{.ID}}"
    now = time.time()
    print(
        template.show(
            [describe(one, full, now) for one in shown],
            form,
            COLUMNS if form in ("", "table") else MORE,
        ),
        end="",
    )
    return 0


def describe(one: Known, full: bool, now: float) -> dict[str, str]:
    """A container with the keys of ``docker ps --format json``; ``full``: nothing is cut short."""
    command = " ".join(f"'{word}'" if " " in word else word for word in one.command)
    created = time.strftime("%Y-%m-%d %H:%M:%S %z %Z", time.localtime(one.created))
    return {
        "ID": one.id if full else one.id[:12],
        "Image": one.image,
        "Command": quoted(command if full or len(command) <= 20 else command[:19] + "…"),
        "CreatedAt": created,
        "RunningFor": human_duration(now - one.created) + " ago",
        "Status": status_words(one, now),
        "Ports": "",
        "Names": one.name,
        "State": one.status,
        "Pid": str(one.pid),
    }


def status_words(one: Known, now: float) -> str:
    """As docker: "Up 5 minutes", "Up 5 minutes (Paused)", "Exited (137) 3 seconds ago"."""
    status = one.status
    if status == "created":
        return "Created"
    if status == "exited":
        ended = human_duration(now - (one.finished or now))
        return f"Exited ({one.exit_code}) {ended} ago"
    up = f"Up {human_duration(now - one.started)}"
    return f"{up} (Paused)" if status == "paused" else up


def quoted(text: str) -> str:
    """In double quotes; nothing in it moves a terminal's cursor."""
    safe = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
    return '"' + safe.replace('"', '\\"') + '"'


# ---- top


def top_command(argv: Sequence[str]) -> int:
    """List a container's processes, with their numbers here and in the container."""
    parsed = parse(TOP, argv)  # what stands behind the container is for ps
    if parsed.on("help"):
        print(TOP.help(), end="")
        return 0
    need_words(TOP, parsed.rest)
    word, *options = parsed.rest
    pids = usage.processes(cgroup_of(find(word, all_known("top"))))
    rows = [list(TOP_COLUMNS)]
    if options:
        print(selected(pids, options), end="")
        return 0
    for pid in pids:
        if row := process_row(pid):
            rows.append(row)
    if len(rows) == 1:
        raise Refused(f"container {word} ended just now")
    print(template.align(rows), end="")
    return 0


def selected(pids: list[int], options: list[str]) -> str:
    """What ps(1) prints with these options, as far as it is about these processes.  Raises
    Refused, with ps's own words."""
    import subprocess

    def ask(*more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["ps", *options, *more], capture_output=True, text=True, errors="replace"
        )

    try:
        # -q: these and no others.  Without it `ps -o pid,comm` lists only what the caller's own
        # terminal runs.  A few options do not go with it, and not every ps has it.
        done = ask(f"-q{','.join(map(str, pids))}")
        if done.returncode:
            done = ask()
    except FileNotFoundError:
        raise Refused("there is no ps here", "without options none is needed") from None
    if done.returncode:
        raise Refused(f"ps: {done.stderr.strip()}")
    heading, *lines = done.stdout.splitlines() or [""]
    names = heading.split()
    if "PID" not in names:
        raise Refused("Couldn't find PID field in ps output", "as in -o pid,args")
    column = names.index("PID")
    found = [line for line in lines if int(line.split()[column]) in pids]
    if not found:
        raise Refused(f"ps {' '.join(options)} shows none of its processes", "as in -eo pid,args")
    return "\n".join((heading, *found)) + "\n"


def process_row(pid: int) -> list[str]:
    """A process as ``ps -ef`` shows it, and its number in the innermost pid namespace; [] if it is
    gone.  proc_pid_stat(5), proc_pid_status(5)."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # the program's name, in parentheses, may hold anything
            name, _, rest = file.read().partition(b"(")[2].rpartition(b")")
        with open(f"/proc/{pid}/status", errors="replace") as text:
            lines = dict(line.rstrip("\n").split(":\t", 1) for line in text if ":\t" in line)
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = file.read().rstrip(b"\0").split(b"\0")
    except (FileNotFoundError, ProcessLookupError):
        return []
    fields = rest.split()
    ticks = os.sysconf("SC_CLK_TCK")
    cpu = (int(fields[11]) + int(fields[12])) // ticks  # utime, stime
    born = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + int(fields[19]) / ticks
    alive = max(time.time() - born, 1)
    today = time.strftime("%Y%j", time.localtime(born)) == time.strftime("%Y%j")
    # A kernel thread, or a program that wiped it, has no command line: its name in brackets
    command = b" ".join(words) if any(words) else b"[" + name + b"]"
    return [
        user_name(int(lines["Uid"].split()[1])),
        str(pid),
        fields[1].decode(),
        str(min(int(100 * cpu / alive), 99)),
        time.strftime("%H:%M" if today else "%b%d", time.localtime(born)),
        terminal(int(fields[4])),
        f"{cpu // 3600:02}:{cpu // 60 % 60:02}:{cpu % 60:02}",
        lines["NSpid"].split()[-1],
        "".join(c if c.isprintable() else "?" for c in command.decode(errors="replace")),
    ]


def user_name(uid: int) -> str:
    """The host's name for it, since it is the host's number."""
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def terminal(device: int) -> str:
    """tty_nr as ps names it: "pts/0", "?" for none."""
    major, minor = os.major(device), os.minor(device)
    if 136 <= major <= 143:
        return f"pts/{(major - 136) * 256 + minor}"
    return f"tty{minor}" if major == 4 and minor < 64 else "?"
