"""``minicontainer run`` on a real image: what each flag does, seen from inside or from the host."""

from __future__ import annotations

import os
import signal
import subprocess
import sysconfig
from pathlib import Path

import pytest

from tests.support import SLOWER, Cli, Host

pytestmark = pytest.mark.requires_root

# flags, what sh does inside, what it prints
INSIDE: list[tuple[list[str], str, str]] = [
    ([], "echo $$", "1\n"),
    ([], "hostname | wc -c", "13\n"),
    (["-h", "box"], "hostname", "box\n"),
    (["--hostname=box", "--domainname", "lan"], "cat /proc/sys/kernel/domainname", "lan\n"),
    (["-e", "A=b c", "-e", "B=x=y"], 'echo "$A|$B"', "b c|x=y\n"),
    ([], 'echo "$HOME|$PATH"',
     "/root|/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n"),
    (["-w", "/made/here"], "pwd; stat -c %a /made", "/made/here\n755\n"),
    (["-u", "nobody"], "id -u; id -g; echo $HOME", "65534\n65534\n/\n"),
    (["-u", "1234:5"], "id -u; id -G", "1234\n5\n"),
    (["-u", "guest", "--group-add", "disk"], "id -G", "100 6\n"),
    (["--entrypoint", "echo"], "x", "-c x\n"),
    (["--read-only"], "touch /x 2>&1; touch /dev/shm/y && echo ok",
     "touch: /x: Read-only file system\nok\n"),
    (["--tmpfs", "/t:size=64k"], "df -k /t | tail -1 | awk '{print $2}'", "64\n"),
    (["--shm-size", "1m"], "df -k /dev/shm | tail -1 | awk '{print $2}'", "1024\n"),
    (["--ulimit", "nofile=64:128"], "ulimit -n; ulimit -Hn", "64\n128\n"),
    (["--init"], "echo $$; tr '\\0' ' ' < /proc/1/cmdline | cut -d' ' -f1",
     "2\nminicontainer-init\n"),
    (["--cap-drop", "ALL"], "grep CapEff /proc/self/status", "CapEff:\t0000000000000000\n"),
    (["--cap-drop=ALL", "--cap-add=chown"],
     "grep CapBnd /proc/self/status", "CapBnd:\t0000000000000001\n"),
    ([], "grep -E 'CapEff|CapInh|CapAmb' /proc/self/status | awk '{print $2}'",
     "0000000000000000\n00000000a80425fb\n0000000000000000\n"),
    ([], "grep -E 'NoNewPrivs|Seccomp:' /proc/self/status | awk '{print $2}'", "0\n2\n"),
    (["--security-opt", "no-new-privileges"],
     "grep NoNewPrivs /proc/self/status | awk '{print $2}'", "1\n"),
    (["--security-opt", "seccomp=unconfined"],
     "grep Seccomp: /proc/self/status | awk '{print $2}'", "0\n"),
    ([], "ls /proc/self/fd | wc -l", "4\n"),
    ([], "cat /proc/self/cgroup | tail -1", "0::/\n"),
    ([], "ip -o link | wc -l; ping -c1 -q 127.0.0.1 >/dev/null && echo pong", "1\npong\n"),
    (["--network", "host"], "test $(ip -o link | wc -l) -ge 1 && echo $?", "0\n"),
    pytest.param(["--time-offset", "boottime=+864000"],
                 "test $(cut -d. -f1 /proc/uptime) -gt 864000 && echo later", "later\n",
                 marks=pytest.mark.kernel("time_ns")),
    (["--userns", "0:1000000:65536"],
     "cat /proc/self/uid_map | tr -s ' '; id -u; touch /x && stat -c %u /x",
     " 0 1000000 65536\n0\n0\n"),
    (["--sysctl", "net.ipv4.ip_forward=1"], "cat /proc/sys/net/ipv4/ip_forward", "1\n"),
    ([], "cat /proc/keys /proc/timer_list 2>/dev/null | wc -c; "
     "(echo x > /proc/sys/kernel/hostname) 2>/dev/null || echo refused",
     "0\nrefused\n"),
    ([], "stat -c '%t:%T' /dev/null /dev/zero /dev/tty", "1:3\n1:5\n5:0\n"),
    ([], "awk '$5 == \"/\" {print $7 == \"-\"}' /proc/self/mountinfo", "1\n"),
]  # fmt: skip


@pytest.mark.parametrize(("flags", "script", "expected"), INSIDE, ids=lambda value: str(value)[:40])
def test_inside(alpine: Cli, flags: list[str], script: str, expected: str) -> None:
    shell = () if "--entrypoint" in flags else ("sh",)
    done = alpine("run", "--rm", "-q", *flags, "alpine", *shell, "-c", script)
    assert (done.status, done.out, done.err) == (0, expected, "")


STATUS = [
    (["true"], 0),
    (["sh", "-c", "exit 3"], 3),
    (["nope"], 127),
    (["/nope/at/all"], 127),
    (["/etc"], 126),
    (["/etc/passwd"], 126),
    (["sh", "-c", "sh -c 'kill -SEGV $$'; exit $?"], 139),
]


@pytest.mark.parametrize(("command", "status"), STATUS, ids=str)
def test_exit_status(alpine: Cli, leaves_nothing: Host, command: list[str], status: int) -> None:
    assert alpine("run", "--rm", "-q", "alpine", *command).status == status


def test_killed_by_a_signal_is_128_plus_n(alpine: Cli) -> None:
    process = alpine.start("run", "--rm", "-q", "alpine", "sh", "-c", "echo up; exec sleep 100")
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    process.send_signal(signal.SIGTERM)  # passed on; pid 1 without a handler does not notice
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.3)
    process.send_signal(signal.SIGKILL)
    assert process.wait(10) == -9
    after = alpine("run", "--rm", "-q", "alpine", "true")
    assert (after.status, after.out) == (0, "")
    assert "whose runtime was killed" in after.err


def test_signals_are_forwarded(alpine: Cli) -> None:
    script = "trap 'echo term; exit 7' TERM; echo up; while :; do sleep 0.1; done"
    process = alpine.start("run", "--rm", "-q", "alpine", "sh", "-c", script)
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=10 * SLOWER)
    assert (process.returncode, out) == (7, "term\n")


def test_standard_input_only_with_i(alpine: Cli) -> None:
    assert alpine("run", "-q", "alpine", "cat", stdin="eaten").out == ""
    assert alpine("run", "-q", "-i", "alpine", "cat", stdin="given").out == "given"


def test_volumes(
    alpine: Cli, leaves_nothing: Host, tmp_path_factory: pytest.TempPathFactory
) -> None:
    shared = tmp_path_factory.mktemp("shared")
    (shared / "file").write_text("from the host\n")
    done = alpine("run", "-q", "-v", f"{shared}:/data", "alpine",
                  "sh", "-c", "cat /data/file; echo back > /data/new")  # fmt: skip
    assert done.out == "from the host\n"
    assert (shared / "new").read_text() == "back\n"
    done = alpine("run", "-q", "-v", f"{shared}:/data:ro", "alpine", "touch", "/data/x")
    assert (done.status, done.err) == (1, "touch: /data/x: Read-only file system\n")
    file = f"type=bind,src={shared}/file,dst=/etc/motd,ro"
    done = alpine("run", "-q", "--mount", file, "alpine", "cat", "/etc/motd")
    assert done.out == "from the host\n"


def test_a_readonly_volume_stays_readonly_for_a_powerful_root(
    alpine: Cli, tmp_path_factory: pytest.TempPathFactory
) -> None:
    shared = tmp_path_factory.mktemp("shared")
    done = alpine(
        "run", "-q", "--userns=0:1000000:65536", "--cap-add=SYS_ADMIN", "-v", f"{shared}:/data:ro",
        "alpine", "sh", "-c", "mount -o remount,bind,rw /data 2>/dev/null; echo x > /data/x",
    )  # fmt: skip
    assert done.status != 0
    assert not (shared / "x").exists()


@pytest.mark.parametrize(
    "where", ["/data", "/proc/../data", "/link/data"], ids=["plain", "dotdot", "through-a-link"]
)
def test_propagation_leaves_the_host_alone(alpine: Cli, where: str, leaves_nothing: Host) -> None:
    for shared_root in (False, True):
        done = alpine("run", "-q", "--tmpfs", "/link", "-v", f"/usr:{where}:ro", "alpine",
                      "true", shared_root=shared_root)  # fmt: skip
        assert done.status == 0, done.err


REFUSED = [
    ["--no-such-flag"],
    ["--memory", "64x"],
    ["-d"],
    ["-p", "80:80"],
    ["--network", "bridge"],
    ["--cap-add", "CAP_NOPE"],
    ["--ulimit", "nofile=x"],
    ["-v", "relative:/x"],
    ["--name", "bad name"],
    ["-u", "nosuchuser"],
    ["-u", ":5:6"],
    ["-v", "/nosuch/a:/data:bogus"],
    ["--mount", "type=bind,src=/nosuch/path,dst=/x"],
    ["--security-opt", "seccomp=/nosuch/file"],
    ["--sysctl", "kernel.panic=1"],
    ["--without", "nosuchstep"],
]


@pytest.mark.parametrize("flags", REFUSED, ids=" ".join)
def test_a_bad_value_is_125_and_leaves_nothing(
    alpine: Cli, leaves_nothing: Host, flags: list[str]
) -> None:
    done = alpine("run", *flags, "alpine", "true")
    assert done.status == 125
    assert done.err.startswith("minicontainer: ")
    assert "Traceback" not in done.err
    assert done.out == ""


def test_a_name_is_taken_once(alpine: Cli) -> None:
    first = alpine.start("run", "-q", "--name", "one", "alpine", "sh", "-c", "echo up; sleep 100")
    assert first.stdout is not None
    assert first.stdout.readline() == "up\n"
    second = alpine("run", "-q", "--name", "one", "alpine", "true")
    assert second.status == 125
    assert '"one" is already in use' in second.err


def test_cidfile(alpine: Cli, tmp_path_factory: pytest.TempPathFactory) -> None:
    file = tmp_path_factory.mktemp("cid") / "id"
    assert alpine("run", "-q", "--cidfile", file, "alpine", "true").status == 0
    assert len(file.read_text()) == 64
    assert alpine("run", "-q", "--cidfile", file, "alpine", "true").status == 125


def test_no_descriptor_and_no_variable_leaks(alpine: Cli) -> None:
    read, write = os.pipe()
    etc = os.open("/etc", os.O_RDONLY)
    script = "ls /proc/self/fd; env"
    done = subprocess.run(
        alpine.argv("run", "-q", "alpine", "sh", "-c", script),
        env={**alpine.env, "SECRET": "of the host"}, pass_fds=[read, write, etc],
        capture_output=True, text=True,
    )  # fmt: skip
    for fd in (read, write, etc):
        os.close(fd)
    assert done.stdout.split()[:4] == ["0", "1", "2", "3"]  # 3 is ls reading the directory
    assert "SECRET" not in done.stdout
    assert "MINICONTAINER" not in done.stdout


def test_python_never_imports_from_the_image(
    alpine: Cli, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """After pivot_root our interpreter's search path leads into the image: a trojan waits there."""
    evil = tmp_path_factory.mktemp("evil")
    stdlib = sysconfig.get_path("stdlib")
    for name in ("resource", "struct", "termios", "shlex", "json", "re", "signal", "stat"):
        (evil / f"{name}.py").write_text("open('/data/caught', 'w').write('run as us')\n")
    flags = ["--ulimit", "core=0", "-u", "guest", "-v", f"{evil}:{stdlib}", "-v", f"{evil}:/data",
             "-w", "/data", "--sysctl", "net.ipv4.ip_forward=1"]  # fmt: skip
    done = alpine("run", "-q", *flags, "alpine", "true")
    assert done.status == 0, done.err
    assert alpine("run", "-q", *flags, "alpine", "nope").status == 127
    assert not (evil / "caught").exists()


def test_the_host_kernel_is_the_containers_kernel(alpine: Cli) -> None:
    inside = alpine("run", "-q", "alpine", "cat", "/proc/sys/kernel/random/boot_id").out
    assert inside == Path("/proc/sys/kernel/random/boot_id").read_text()
