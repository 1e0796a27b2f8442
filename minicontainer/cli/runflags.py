"""The flags of ``minicontainer run``: docker's names and meaning, told in the order of the story.

Each row: long name, short name, kind, what its value is called, help.  ``cli/flags.py`` says what
the kinds are, parses by this table and prints ``--help`` from it; ``cli/request.py`` gives the
values their meaning.  Flags that docker has and we do not have yet are in ``cli/missing.py``.
"""

from __future__ import annotations

from minicontainer.cli.flags import Table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minicontainer.cli.flags import Group

GROUPS: tuple[Group, ...] = (
    ("Your terminal and the container's life", (
        ("interactive", "i", "switch", "", "Keep standard input open"),
        ("tty", "t", "switch", "", "Give the container a terminal of its own"),
        ("rm", "", "switch", "", "Remove the container when it ends (always so, for now)"),
        ("name", "", "text", "NAME", "Name the container (default: two random words)"),
        ("cidfile", "", "text", "FILE", "Write the container's id to FILE, which must not exist"),
        ("init", "", "switch", "", "Run a small pid 1 that passes signals on and reaps orphans"),
        ("stop-signal", "", "text", "SIGNAL", "The signal that asks the program to end"),
        ("stop-timeout", "", "text", "SECONDS", "How long to wait for it to end"),
        ("restart", "", "text", "POLICY", "Only 'no', which is the default"),
        ("sig-proxy", "", "switch", "", "Pass signals on to the program: always"),
        ("no-healthcheck", "", "switch", "", "Run no health check: always"),
    )),
    ("The program", (
        ("entrypoint", "", "text", "PROGRAM", "Run this instead of the image's ENTRYPOINT"),
        ("env", "e", "list", "NAME[=VALUE]",
         "Set a variable; NAME alone takes the value from here"),
        ("env-file", "", "list", "FILE", "Set variables from the NAME=VALUE lines of FILE"),
        ("workdir", "w", "text", "DIR", "The working directory; it is made if it is not there"),
        ("user", "u", "text", "USER[:GROUP]", "By name, from the image's own files, or by number"),
        ("group-add", "", "list", "GROUP", "A further group, by name or number"),
    )),
    ("Files", (
        ("volume", "v", "list", "SOURCE:DEST[:OPTIONS]",
         "Show a host directory in the container; options such as ro, rslave"),
        ("mount", "", "list", "KEY=VALUE,...", "The same in long: type=bind|tmpfs,source=,target="),
        ("tmpfs", "", "list", "DEST[:OPTIONS]", "An empty directory in memory"),
        ("read-only", "", "switch", "", "Refuse writes to the root file system"),
        ("shm-size", "", "text", "SIZE", "Size of /dev/shm (default 64m)"),
        ("device", "", "list", "HOST[:DEST]", "Make a device node of the host available"),
    )),
    ("Namespaces (what is private, what is shared)", (
        ("hostname", "h", "text", "NAME", "Host name (default: the first 12 digits of the id)"),
        ("domainname", "", "text", "NAME", "NIS domain name"),
        ("network", "", "list", "none|host", "Network (default none: only loopback)"),
        ("add-host", "", "list", "NAME:ADDRESS", "Add a line to /etc/hosts"),
        ("dns", "", "list", "ADDRESS", "Name server"),
        ("dns-search", "", "list", "DOMAIN", "Search domain of the resolver"),
        ("dns-option", "", "list", "OPTION", "Option of the resolver"),
        ("pid", "", "text", "private|host", "Process numbers"),
        ("ipc", "", "text", "private|host", "Shared memory, semaphores, message queues"),
        ("uts", "", "text", "private|host", "Host name"),
        ("cgroupns", "", "text", "private|host", "The view of the cgroup tree"),
        ("cgroup-parent", "", "text", "CGROUP", "Parent of the container's cgroup"),
        ("userns", "", "text", "host|auto|MAPS",
         "Users: UID:HOST:COUNT[,...] maps ids; auto picks 65536 unused ones"),
        ("time-offset", "", "list", "[CLOCK=]OFFSET",
         "Shift the clocks monotonic and boottime, as in boottime=-1d"),
        ("sysctl", "", "list", "NAME=VALUE", "Set a kernel switch that its namespace owns"),
    )),
    ("Limits (what it may use; files of its cgroup)", (
        ("memory", "m", "text", "SIZE", "Memory, as in 64m (memory.max)"),
        ("memory-reservation", "", "text", "SIZE",
         "Memory that is taken away last (memory.low)"),
        ("memory-swap", "", "text", "SIZE",
         "Memory and swap together; -1 for no limit (default: twice the memory)"),
        ("memory-swappiness", "", "text", "NUMBER", "Accepted as docker does, without effect"),
        ("oom-group", "", "switch", "", "Out of memory, end all its processes (memory.oom.group)"),
        ("oom-kill-disable", "", "switch", "", "Refused: cgroup v2 has no such thing"),
        ("oom-score-adj", "", "text", "SCORE", "-1000 to 1000: who goes first without memory"),
        ("cpus", "", "text", "NUMBER", "CPU time, as in 0.5 for half of one (cpu.max)"),
        ("cpu-shares", "c", "text", "NUMBER",
         "2 to 262144, usually 1024: its share when CPUs are busy (cpu.weight)"),
        ("cpu-period", "", "text", "MICROSECONDS", "How long a period is (cpu.max)"),
        ("cpu-quota", "", "text", "MICROSECONDS", "CPU time in each period (cpu.max)"),
        ("cpuset-cpus", "", "text", "LIST", "CPUs to run on, as in 0-3,7 (cpuset.cpus)"),
        ("cpuset-mems", "", "text", "LIST", "NUMA nodes to take memory from (cpuset.mems)"),
        ("pids-limit", "", "text", "NUMBER", "Processes and threads; -1 for any (pids.max)"),
        ("blkio-weight", "", "text", "WEIGHT",
         "10 to 1000: its share when disks are busy (io.weight)"),
        ("blkio-weight-device", "", "list", "DISK:WEIGHT", "The same for one disk"),
        ("device-read-bps", "", "list", "DISK:RATE", "Bytes a second, as in 10mb (io.max)"),
        ("device-write-bps", "", "list", "DISK:RATE", "The same for writing"),
        ("device-read-iops", "", "list", "DISK:NUMBER", "Requests a second (io.max)"),
        ("device-write-iops", "", "list", "DISK:NUMBER", "The same for writing"),
        ("hugetlb", "", "list", "SIZE=BYTES", "Huge pages, as in 2MB=64m (hugetlb.2MB.max)"),
        ("cgroup", "", "list", "FILE=VALUE", "Any file of its cgroup, as in memory.high=48M"),
    )),
    ("Power", (
        ("privileged", "", "switch", "", "All capabilities and devices, no filter: no walls"),
        ("cap-add", "", "list", "CAPABILITY", "Give a capability, or ALL"),
        ("cap-drop", "", "list", "CAPABILITY", "Take a capability, or ALL"),
        ("security-opt", "", "list", "OPTION",
         "seccomp=unconfined|FILE, no-new-privileges, systempaths=unconfined"),
        ("ulimit", "", "list", "NAME=SOFT[:HARD]", "Resource limit, as in nofile=1024"),
    )),
    ("The image", (
        ("pull", "", "text", "always|missing|never", "When to fetch it (default missing)"),
        ("platform", "", "text", "OS/ARCH", "Which variant, as in linux/arm64"),
        ("quiet", "q", "switch", "", "Do not tell where it came from"),
        ("disable-content-trust", "", "switch", "", "Accepted as docker does, without effect"),
    )),
    ("Notes on the container", (
        ("label", "l", "list", "KEY[=VALUE]", "A note for minicontainer"),
        ("annotation", "", "list", "KEY=VALUE", "A note in the OCI configuration"),
    )),
    ("See how it is done", (
        ("explain", "", "level", "0..3", "Tell each step and why, on standard error"),
        ("explain-format", "", "text", "text|json", "How to tell it"),
        ("pause", "", "switch", "", "Wait for a key after each step"),
        ("dry-run", "", "switch", "", "Only list the steps"),
        ("as-shell", "", "switch", "", "Print a shell script that makes the same container"),
        ("without", "", "list", "STEP,...", "Leave steps out and see what they were for"),
        ("i-know", "", "switch", "", "Also those that keep the others off this host"),
        ("bundle", "", "text", "DIR", "Run an OCI bundle instead of an image"),
        ("help", "", "switch", "", "Print this"),
    )),
)  # fmt: skip


def explain_unknown(name: str) -> str:
    """Why a flag of docker's is not here yet; "" for one that docker does not have either."""
    from minicontainer.cli.missing import why

    return why(name)


RUN = Table(
    "run",
    "[FLAGS] IMAGE [COMMAND] [ARGUMENT...]",
    GROUPS,
    aliases={"net": "network", "dns-opt": "dns-option"},
    explain_unknown=explain_unknown,
    about="Run a program in a new container made from an image",
)
