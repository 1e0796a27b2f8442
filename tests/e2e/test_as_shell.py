"""`run --as-shell` prints a script; the container it makes has to be the one we would have made.

The same Spec is run twice, by us and by the script, with a program that reports all it can see of
its own container.  Each line of the two reports must be equal, once what differs from container to
container (its id, its directories) is replaced.  Plans with a step left out are the mutants: the
script of such a plan must be seen to make another container.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from minicontainer.asshell import here_document, joined, script
from minicontainer.compose import compose
from minicontainer.errors import UsageError
from minicontainer.image.config import Image, ImageConfig
from minicontainer.options import RunOptions
from minicontainer.plan import plan
from minicontainer.runtime import Container, place_for
from minicontainer.spec import (
    IdMap,
    Linux,
    Mount,
    Namespace,
    Process,
    Rlimit,
    Root,
    Spec,
    TimeOffset,
    User,
)
from tests.support import SHARED_ROOT

pytestmark = pytest.mark.requires_root

# What pid 1 sees.  No pipes and no subshells where they would show up in what is reported.
REPORT = r"""
show() { echo "== $1"; shift; "$@" 2>&1; }
show argv tr '\0' '\n' < /proc/1/cmdline
show env tr '\0' '\n' < /proc/1/environ
show exe readlink /proc/1/exe
show cwd pwd
show id id
show umask umask
show hostname hostname
show limits cat /proc/1/limits
show status grep -E '^(Umask|Uid|Gid|Groups|NoNewPrivs|Seccomp|Cap|SigIgn|SigBlk)' /proc/1/status
show session awk '{ print $5, $6, $7 }' /proc/1/stat
for n in mnt pid uts ipc net cgroup user time; do
  show namespace sh -c 'echo $1 $(readlink /proc/1/ns/$1)' sh $n
done
show mounts cat /proc/1/mountinfo
show fds ls /proc/1/fd
show cgroup cat /proc/1/cgroup
show cgroup ls /sys/fs/cgroup/cgroup.type
show links cat /proc/net/dev /proc/net/if_inet6
show sysctl cat /proc/sys/net/ipv4/ip_unprivileged_port_start
show uptime awk '{ print int($1 / 86400) }' /proc/uptime
show ids cat /proc/1/uid_map /proc/1/gid_map
show files stat -c '%A %u %g %t:%T %N' /dev/* /* /etc/*
show etc cat /etc/hosts /etc/hostname /etc/resolv.conf
for f in /proc/kcore /proc/timer_list /sys/firmware/x; do
  show masked sh -c 'echo $1; head -c 20 $1' sh $f
done
show write sh -c 'echo x > /proc/sys/kernel/domainname'
show root sh -c 'echo x > /written && cat /written'
"""


def docker_like(rootfs: Path, command: tuple[str, ...], **options: object) -> Spec:
    """The Spec of `run [OPTIONS] IMAGE COMMAND`; its cgroup tells the id."""
    image = Image("test", "sha256:0", (str(rootfs),), ImageConfig(env=("PATH=/bin:/usr/bin",)))
    return compose(image, RunOptions(command=command, **options), secrets.token_hex(16))


def ours(spec: Spec, out: Path) -> int:
    """Run it ourselves, with the report going to a file."""
    with out.open("wb") as file:
        container = Container(
            spec, container_id=identity(spec), stdio=(-1, file.fileno(), file.fileno())
        )
        with container:
            return container.wait()


def identity(spec: Spec) -> str:
    return os.path.basename(spec.linux.cgroups_path)


def shell_script(spec: Spec, *without: str) -> str:
    return script(plan(spec, place_for(identity(spec))).without(*without))


def by_hand(text: str, out: Path, cwd: Path | None = None) -> int:
    """Run the script as a person would: sh FILE."""
    file = out.with_suffix(".sh")
    file.write_bytes(text.encode("utf-8", "surrogateescape"))
    with out.open("wb") as report:
        done = subprocess.run(
            ["sh", str(file)], stdin=subprocess.DEVNULL, stdout=report, stderr=report,
            cwd=cwd, timeout=60,
        )  # fmt: skip
    return done.returncode


def normal(out: Path, spec: Spec) -> list[str]:
    """The report, without what is different for every container."""
    text = out.read_text(errors="backslashreplace").replace(identity(spec), "ID")
    lines = []
    for line in text.split("\n"):
        line = line.replace(identity(spec)[:12], "ID12")
        kind = re.match(r"(\w+) (\w+):\[(\d+)\]$", line)
        if kind:
            host = os.readlink(f"/proc/self/ns/{kind[1]}")
            line = f"{kind[1]} {'the host' if host == f'{kind[2]}:[{kind[3]}]' else 'its own'}"
        if " - " in line and re.match(r"\d+ \d+ \d+:\d+ ", line):
            line = re.sub(r"^\d+ \d+ \d+:\d+ ", "", line)
        lines.append(re.sub(r"\w{3} +\d+ \d+:\d+|^total \d+", "", line))
    return lines


def difference(spec: Spec, tmp_path: Path, *without: str) -> list[str]:
    """Run the Spec both ways; what the reports disagree on."""
    status = ours(spec, tmp_path / "ours")
    twin = spec.replace(
        linux=spec.linux.replace(cgroups_path=f"/minicontainer/{secrets.token_hex(16)}")
    )
    theirs = by_hand(shell_script(twin, *without), tmp_path / "script")
    # both directories and both ids have one name in the reports, as have both host names
    a, b = normal(tmp_path / "ours", spec), normal(tmp_path / "script", twin)
    a = [line.replace(identity(spec)[:12], "ID12") for line in a]
    b = [line.replace(identity(spec)[:12], "ID12") for line in b]
    assert "== root" in a, "\n".join(a)
    told = [f"status {status} and {theirs}"] if status != theirs else []
    return told + [f"- {x}" for x in a if x not in b] + [f"+ {x}" for x in b if x not in a]


def same(spec: Spec, tmp_path: Path) -> None:
    """Fail with all that differs."""
    found = difference(spec, tmp_path)
    assert not found, "\n".join(found)


REPORTING = ("sh", "-c", REPORT, "sh", "two words", "it's")

CASES = {
    "default": {},
    "user": {"user": "app", "workdir": "/home/app", "group_add": ("video", "99")},
    "user and group": {"user": "app:video", "env": ("HOME=/elsewhere", "X=a=b c")},
    "number": {"user": "4242"},
    "last line of passwd": {"user": "last"},
    "no-new-privileges": {"no_new_privileges": True, "user": "1000:10"},
    "read-only": {
        "read_only": True,
        "mounts": (Mount("/scratch", "tmpfs", "tmpfs", ("nosuid", "size=64k", "mode=1770")),),
    },
    "limits": {"rlimits": (Rlimit("RLIMIT_NOFILE", 64, 128), Rlimit("RLIMIT_CORE", 0, -1)),
               "oom_score_adj": 100},
    "no capabilities": {"cap_drop": ("ALL",)},
    "more capabilities": {"cap_add": ("NET_ADMIN", "SYS_PTRACE"), "cap_drop": ("CHOWN",)},
    "no seccomp": {"seccomp": None},
    "privileged": {"privileged": True},
    "host network": {"network": "host"},
    "host namespaces": {"pid": "host", "ipc": "host", "uts": "host", "cgroupns": "host"},
    "time": {"time_offsets": (TimeOffset("boottime", 86400 * 1000),)},
    "domain": {"hostname": "box", "domainname": "nis.test"},
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_same_container(rootfs: Path, place: Path, case: str) -> None:
    options = dict(CASES[case])
    options.setdefault("hostname", "" if options.get("uts") == "host" else "box")
    spec = docker_like(rootfs, REPORTING, **options)
    same(spec, place)


def test_volumes(rootfs: Path, place: Path) -> None:
    source = place / "source"
    (source / "below").mkdir(parents=True)
    (source / "file").write_text("kept\n")
    command = (
        "sh",
        "-c",
        REPORT + "cat /etc/one /in/it/file; echo x > /ro/x; echo y > /rw/y; ls -n /ro /rw",
    )
    mounts = (
        Mount("/ro", "bind", str(source), ("rbind", "ro", "rro", "rprivate")),
        Mount("/rw", "bind", str(source), ("rbind", "rprivate")),
        Mount("/in/it", "bind", str(source), ("bind", "ro", "nosuid", "nodev", "noexec")),
        Mount("/etc/one", "bind", str(source / "file"), ("rbind", "rprivate")),
    )
    spec = docker_like(rootfs, command, mounts=mounts, hostname="box")
    same(spec, place)
    assert (source / "y").exists() and not (source / "x").exists()


def bundle(rootfs: Path, place: Path, **linux: object) -> Spec:
    """A Spec whose root is one directory, as an OCI bundle has it."""
    root = place / "rootfs"
    if not root.exists():
        shutil.copytree(rootfs, root, symlinks=True)
        for path in (root, *root.rglob("*")):
            os.chown(path, 100000, 100000, follow_symlinks=False)
    return Spec(
        Process(REPORTING, cwd="/tmp", user=User(5, 6, (7, 8), umask=0o77)),
        Root(path=str(root)),
        hostname="box",
        linux=Linux(cgroups_path=f"/minicontainer/{secrets.token_hex(16)}", **linux),
    )


def test_bundle(rootfs: Path, place: Path) -> None:
    same(bundle(rootfs, place), place)


def test_user_namespace(rootfs: Path, place: Path) -> None:
    """The host writes the maps while the child waits."""
    kinds = ("user", "pid", "network", "ipc", "uts", "mount", "cgroup")
    spec = bundle(
        rootfs, place, namespaces=tuple(map(Namespace, kinds)),
        uid_mappings=(IdMap(0, 100000, 1000),), gid_mappings=(IdMap(0, 100000, 1000),),
    )  # fmt: skip
    same(spec, place)
    again = "echo to stdout > /dev/stdout; echo to stderr > /dev/stderr"
    spec = spec.replace(process=spec.process.replace(args=("sh", "-c", again)))
    done = subprocess.run(["sh", "-c", shell_script(spec)], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("to stdout\n", "to stderr\n")


def mounts_that_leak(spec: Spec, text: str) -> list[str]:
    """Run the script where `/` is shared; what of the container's mounts shows up out there."""
    process = subprocess.Popen(
        [*SHARED_ROOT, "sh", "-c", text], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout and process.stdout.readline() == "up\n"
    # the shell that runs the script lives where the caller of a script lives
    mounts = Path(f"/proc/{process.pid}/mountinfo").read_text().splitlines()
    process.communicate("\n", timeout=20)
    return [line for line in mounts if identity(spec) in line]


def test_mounts_do_not_show_on_a_shared_host(rootfs: Path, place: Path) -> None:
    spec = docker_like(rootfs, ("sh", "-c", "echo up; read x"), hostname="box")
    text = shell_script(spec)
    assert mounts_that_leak(spec, text) == []
    private, too_late = "\nmount --make-rprivate /\n", '\ncd "$ROOT"\n'
    assert text.count(private) == text.count(too_late) == 1
    mutant = text.replace(private, "\n").replace(too_late, private + too_late)
    assert mounts_that_leak(spec, mutant) != []
    shutil.rmtree(place / "root/containers")  # which the mutant could not do


@pytest.mark.parametrize(
    "step",
    ["masks", "readonly-paths", "seccomp", "capabilities", "hostname", "session", "signals",
     "user-id", "ipc", "uts", "network", "pid", "cgroupns", "cgroup", "loopback", "sysctl", "etc",
     "/dev/shm", "cwd"],
)  # fmt: skip
def test_a_step_less_is_seen(rootfs: Path, place: Path, step: str) -> None:
    """The mutants: a script that leaves something out makes another container."""
    spec = docker_like(rootfs, REPORTING, hostname="box", workdir="/home/app", user="app")
    also = {"uts": ("hostname",), "network": ("sysctl", "loopback")}.get(step, ())
    assert difference(spec, place, step, *also) != []


NASTY = (
    "a 'b\" $(touch canary) `touch canary` ;touch canary;\n touch canary\nINSIDE\ntouch canary\n#"
)


def test_nothing_hostile_is_executed(rootfs: Path, place: Path) -> None:
    """Names that a shell would act on arrive as they are."""
    work = place / "work"
    source = work / NASTY
    source.mkdir(parents=True)
    (source / "proof").write_text("seen\n")
    show = 'printf "<%s>" "$@"; printf "[%s]" "$V"; pwd; cat "$V"/proof'
    spec = docker_like(
        rootfs, ("sh", "-c", show, NASTY, NASTY, "..."), env=(f"V=/v/{NASTY}", f"{NASTY}=1"),
        mounts=(Mount(f"/v/{NASTY}", "bind", str(source), ("rbind", "ro", "rprivate")),),
        workdir=f"/v/{NASTY}", hostname="box", extra_hosts=((NASTY, "1.2.3.4"),),
    )  # fmt: skip
    assert by_hand(shell_script(spec), place / "out", cwd=work) == 0
    report = (place / "out").read_text()
    assert report == f"<{NASTY}><...>[/v/{NASTY}]/v/{NASTY}\nseen\n"
    assert list(work.rglob("*canary*")) == [source, source / "proof"][:1]
    assert list(place.rglob("canary")) == []


def test_link_out_of_the_image_is_refused(rootfs: Path, place: Path) -> None:
    evil = place / "evil"
    shutil.copytree(rootfs, evil, symlinks=True)
    (evil / "out").symlink_to(place)
    volume = Mount("/out/made", "bind", "/etc", ("rbind", "ro", "rprivate"))
    spec = docker_like(evil, ("true",), mounts=(volume,), hostname="box")
    assert by_hand(shell_script(spec), place / "report") == 125
    assert "leads out of the new root" in (place / "report").read_text()
    assert not (place / "made").exists()
    trusting = shell_script(spec).replace("stay_inside \\", ": \\")
    by_hand(trusting, place / "mutant")
    assert (place / "made").exists()


def descriptors_seen(text: str, place: Path) -> list[str]:
    """What the script's program has open, when the script's caller had 3, 7 and 40 open."""
    (place / "s.sh").write_text(text)
    leak = "import os, sys; os.dup2(os.open('/', 0), 40); os.execvp(sys.argv[1], sys.argv[1:])"
    start = 'exec 3< / 7< /etc; exec "$0" -c "$1" sh "$2"'
    done = subprocess.run(
        ["sh", "-c", start, sys.executable, leak, str(place / "s.sh")],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return sorted(done.stdout.split(), key=int)


def test_descriptors_of_the_host_stay_out(rootfs: Path, place: Path) -> None:
    """Those of the script's caller, and the one that leads to the host's tools."""
    text = shell_script(docker_like(rootfs, ("ls", "/proc/self/fd"), hostname="box"))
    assert descriptors_seen(text, place) == ["0", "1", "2", "3"]  # 3: ls, of the directory
    close = "syscall(436, 3, 0xffffffff, 4)"
    assert text.count(close) == 1
    mutant = text.replace(close, "0")
    assert {"9", "40"} <= {*descriptors_seen(mutant, place)}


def test_directory_of_the_host_is_refused(rootfs: Path, place: Path) -> None:
    """CVE-2024-21626 in the script's own dress: descriptor 9 is a directory of the host."""
    spec = docker_like(rootfs, ("ls", "."), workdir="/proc/self/fd/9", hostname="box")
    text = shell_script(spec)
    assert by_hand(text, place / "out") == 125
    assert "setpriv" not in (place / "out").read_text()
    check = "case $(pwd -P) in /*)"
    assert text.count(check) == 1
    assert by_hand(text.replace(check, "case x in *)"), place / "mutant") == 0
    assert "setpriv" in (place / "mutant").read_text()


@pytest.mark.parametrize(
    ("command", "status"),
    [(("sh", "-c", "exit 7"), 7), (("nothing-like-it",), 127), (("/etc",), 126),
     (("sh", "-c", "kill -9 $$; sleep 9"), None)],
)  # fmt: skip
def test_status(rootfs: Path, place: Path, command: tuple[str, ...], status: int | None) -> None:
    spec = docker_like(rootfs, command, hostname="box")
    assert by_hand(shell_script(spec), place / "out") in ((status,) if status else (0, 137))


def test_the_caller_keeps_its_input(rootfs: Path, place: Path) -> None:
    spec = docker_like(rootfs, ("cat",), hostname="box")
    done = subprocess.run(
        ["sh", "-c", shell_script(spec)], input="typed\n", capture_output=True, text=True
    )
    assert (done.stdout, done.stderr, done.returncode) == ("typed\n", "", 0)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_ended_early_leaves_nothing(
    rootfs: Path, place: Path, leaves_nothing: object, number: int
) -> None:
    """The script is told to stop: the container ends, all is taken back (the fixtures check)."""
    spec = docker_like(rootfs, ("sh", "-c", "echo up; sleep 100"), hostname="box")
    process = subprocess.Popen(
        ["sh", "-c", shell_script(spec)], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout and process.stdout.readline() == "up\n"
    process.send_signal(number)
    assert process.wait(20) == 128 + number
    process.stdout.close()


def test_a_second_one_does_no_harm_to_the_first(rootfs: Path, place: Path) -> None:
    """The same script twice at the same time: the second gives up, and cleans nothing away."""
    text = shell_script(docker_like(rootfs, ("sh", "-c", "echo up; read x; cat /etc/hosts")))
    first = subprocess.Popen(
        ["sh", "-c", text], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert first.stdout and first.stdout.readline() == "up\n"
    assert by_hand(text, place / "second") not in (0, 125)
    out, _ = first.communicate("\n", timeout=20)
    assert first.returncode == 0
    assert "localhost" in out


def test_killed_runtime_ends_the_container(rootfs: Path, place: Path) -> None:
    """kill -9 of unshare(1), the container's parent: step "death-signal" at work."""
    text = shell_script(docker_like(rootfs, ("sh", "-c", "echo up; sleep 100"), hostname="box"))
    process = subprocess.Popen(["sh", "-c", text], stdout=subprocess.PIPE, text=True)
    assert process.stdout and process.stdout.readline() == "up\n"
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(children[-1]), signal.SIGKILL)
    began = time.monotonic()
    process.wait(20)
    assert time.monotonic() - began < 15
    process.stdout.close()


def test_script_is_plain_sh(rootfs: Path, place: Path) -> None:
    """Every shell has to be able to read it."""
    text = shell_script(docker_like(rootfs, REPORTING, user="app:video", group_add=("wheel",)))
    for shell in ("dash", "bash"):
        if shutil.which(shell):
            subprocess.run([shell, "-n", "-c", text], check=True)
    busybox = shutil.which("busybox")
    assert busybox
    subprocess.run([busybox, "sh", "-n", "-c", text], check=True)


def test_every_step_is_told(rootfs: Path, place: Path) -> None:
    spec = docker_like(rootfs, ("true",))
    steps = plan(spec, place_for(identity(spec)))
    text = script(steps)
    for number, step in enumerate(steps, 1):
        assert f"\n# [{number}/{len(steps)}] {step.title()}" in text


def test_bad_profile_is_an_error(rootfs: Path, place: Path) -> None:
    from minicontainer.spec import Seccomp

    with pytest.raises(UsageError):
        shell_script(docker_like(rootfs, ("true",), seccomp=Seccomp("{}nonsense")))


def test_prefixes_are_joined_at_the_last() -> None:
    assert joined(["unshare --mount", "", "setsid", "unshare --uts", "setpriv -x", "perl"]) == [
        "setsid", "unshare --mount --uts", "setpriv -x", "perl"
    ]  # fmt: skip


def test_here_document_cannot_be_cut_short() -> None:
    text = "echo a\nINSIDE\nINSIDE_\necho b"
    lines = here_document("inside", text)
    out = subprocess.check_output(["sh", "-c", f'{lines}\nprintf %s "$inside"'], text=True)
    assert out == text
