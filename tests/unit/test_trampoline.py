"""trampoline.c, alone: what it is as a file, what it does as exec, what it does as init.

Most checks are functions of a trampoline, so that each can be tried on a mutant: the same source
with one line changed, on which the check must fail.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pexpect
import pytest

from minicontainer.errors import MinicontainerError
from minicontainer.trampoline_build import FLAGS, build
from tests import elf
from tests.support import CHECKOUT

SOURCE = CHECKOUT / "minicontainer/trampoline.c"


@pytest.fixture(scope="module")
def trampoline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(build(str(tmp_path_factory.mktemp("trampoline") / "trampoline")))


@pytest.fixture
def mutant(tmp_path: Path) -> Callable[[str, str], Path]:
    """Compile the source with one piece of it replaced."""

    def compile_mutant(old: str, new: str) -> Path:
        text = SOURCE.read_text()
        assert text.count(old) == 1, f"the mutant's place is not there once: {old}"
        source, target = tmp_path / "mutant.c", tmp_path / "mutant"
        source.write_text(text.replace(old, new))
        subprocess.run(["cc", *FLAGS, "-w", "-o", target, source], check=True)
        return target

    return compile_mutant


class Started:
    """A trampoline that runs, and our end of its wire."""

    when = "go"

    def __init__(self, trampoline: Path, mode: str, program: str, *argv: str, **env: str) -> None:
        self.wire, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.wire.settimeout(20)
        self.process = subprocess.Popen(
            [f"minicontainer-{mode}", str(theirs.fileno()), self.when, program, *argv],
            executable=trampoline,
            env=env or {"A": "1"},
            pass_fds=[theirs.fileno()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
        )
        theirs.close()

    def finish(self) -> tuple[int, bytes, bytes]:
        """Its status, its output, and what it said on the wire."""
        out, _ = self.process.communicate(timeout=20)
        said = b"".join(iter(lambda: self.wire.recv(65536), b""))
        self.wire.close()
        return self.process.returncode, out, said

    def line(self) -> str:
        """The next line of output."""
        assert self.process.stdout
        assert select.select([self.process.stdout], [], [], 3)[0], "it says nothing"
        return self.process.stdout.readline().decode().strip()

    def end(self) -> None:
        """Kill it and, if it is an init, its program."""
        if self.process.poll() is None:
            children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
            for pid in children.read_text().split():
                os.kill(int(pid), signal.SIGKILL)
            self.process.kill()
            self.process.wait()
        self.wire.close()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe
            pipe.close()


@pytest.fixture
def started() -> Iterator[Callable[..., Started]]:
    """Start trampolines, and end them after the test."""
    all_of_them: list[Started] = []

    def start(*args: object, **env: str) -> Started:
        all_of_them.append(Started(*args, **env))  # type: ignore[arg-type]
        return all_of_them[-1]

    yield start
    for one in all_of_them:
        one.end()


# ---- the file


def dangers(program: bytes) -> list[str]:
    """What would let an image have a say in the trampoline, or let it change while it runs."""
    found = []
    segments = elf.segments(program)
    if any(s.kind in (elf.PT_INTERP, elf.PT_DYNAMIC) for s in segments):
        found.append("dynamic: the image's loader would run")
    if any(s.flags & elf.WRITE and s.flags & elf.EXECUTE for s in segments):
        found.append("writable and executable")
    if not any(s.kind == elf.PT_GNU_STACK for s in segments):
        found.append("an executable stack")
    return found


def test_the_file_is_static_and_no_part_is_writable_and_executable(trampoline):
    assert dangers(trampoline.read_bytes()) == []
    assert trampoline.stat().st_mode & 0o7777 == 0o755


@pytest.mark.parametrize(
    ("flags", "danger"),
    [
        (["-Wl,-z,execstack"], "writable and executable"),
        (["-Wl,-N"], "writable and executable"),
        (["-static-pie", "-fpie"], "dynamic"),
    ],
)
def test_the_look_at_the_file_can_fail(tmp_path, flags, danger):
    subprocess.run(["cc", *FLAGS, *flags, "-o", tmp_path / "bad", SOURCE], check=True)
    assert danger in " ".join(dangers((tmp_path / "bad").read_bytes()))


def test_the_compiler_has_no_complaint(tmp_path):
    done = subprocess.run(
        ["cc", *FLAGS, "-Werror", "-o", tmp_path / "t", SOURCE], capture_output=True, text=True
    )
    assert done.stderr == ""


def test_without_a_compiler_the_error_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setenv("CC", "/no/such/compiler")
    with pytest.raises(MinicontainerError) as caught:
        build(str(tmp_path / "t"))
    assert "apt-get install gcc" in caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_with_a_broken_compiler_the_old_trampoline_stays(monkeypatch, tmp_path):
    (tmp_path / "t").write_text("old")
    monkeypatch.setenv("CC", "false")
    with pytest.raises(MinicontainerError, match=r"could not compile trampoline\.c"):
        build(str(tmp_path / "t"))
    assert (tmp_path / "t").read_text() == "old"


def test_started_by_hand_it_says_what_it_is(trampoline):
    done = subprocess.run([trampoline], capture_output=True, text=True)
    assert (done.returncode, "trampoline" in done.stderr) == (126, True)


# ---- exec


def check_hands_over(trampoline: Path, started: Callable[..., Started]) -> None:
    """Arguments and environment go through unchanged, and the wire is closed by the exec."""
    program = "/usr/bin/env"
    one = started(trampoline, "exec", program, "a name", "-0", B="x\ny", A="", C="\udcff")
    status, out, said = one.finish()
    assert status == 0
    assert out.split(b"\0")[:-1] == [b"B=x\ny", b"A=", b"C=\xff"]
    assert said == b""
    one = started(trampoline, "exec", "/bin/sh", "my-sh", "-c", 'echo "$0|$1|$2"; ls /proc/$$/fd',
                  "zero", "", "t w o")  # fmt: skip
    assert one.finish()[:2] == (0, b"zero||t w o\n0\n1\n2\n")


def check_tells_errno(trampoline: Path, started: Callable[..., Started], tmp_path: Path) -> None:
    """What execve(2) refuses is told in seven words, with docker's exit status."""
    (tmp_path / "plain").write_text("text")
    (tmp_path / "script").write_text("#!/no/such/interpreter\n")
    (tmp_path / "script").chmod(0o755)
    deep = "/" + "a" * 255 + "/b" * 2000
    for program, status, number in [
        ("/no/such/program", 127, 2),
        (str(tmp_path / "script"), 127, 2),
        (str(tmp_path / "plain"), 126, 13),
        (str(tmp_path), 126, 13),
        (deep, 126, 36),
    ]:
        words = f'ERROR\0exec\0execve\0"{program}"\0{number}\0\0'.encode()
        assert started(trampoline, "exec", program, "x").finish() == (status, b"", words)


def check_three_digits(trampoline: Path, started: Callable[..., Started]) -> None:
    """The number is decimal, also where the kernel's is long."""
    assert started(trampoline, "exec", "/nope", "x").finish()[2].split(b"\0")[4] == b"110"


def test_exec_hands_over(trampoline, started):
    check_hands_over(trampoline, started)


def test_exec_tells_errno(trampoline, started, tmp_path):
    check_tells_errno(trampoline, started, tmp_path)


def test_an_errno_of_three_digits(mutant, started):
    check_three_digits(
        mutant("fail(wire, argv[0], -sys(", "fail(wire, argv[0], 108 - sys("), started
    )


def test_it_makes_no_other_system_calls(trampoline, mutant):
    """What a seccomp profile must allow for it, beyond what the program needs: only these."""
    assert behind_filter(trampoline) == 127
    curious = mutant("sys(__NR_fcntl, wire,", "sys(__NR_getpid, 0, 0, 0, 0); sys(__NR_fcntl, wire,")
    assert behind_filter(curious) == -signal.SIGSYS


def behind_filter(trampoline: Path) -> int:
    """Have it fail to execute something, where any call but four is deadly; how it ended."""
    import pyseccomp

    allowed = pyseccomp.SyscallFilter(pyseccomp.KILL_PROCESS)
    for call in ("execve", "fcntl", "writev", "exit_group"):
        allowed.add_rule(pyseccomp.ALLOW, call)
    pid = os.fork()
    if pid == 0:
        try:
            allowed.load()
            os.execve(trampoline, ["minicontainer-exec", "99", "go", "/no/such", "x"], {})
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.parametrize(
    ("check", "old", "new"),
    [
        ("hands_over", "F_SETFD, FD_CLOEXEC", "F_SETFD, 0"),
        ("hands_over", "envp = argv + argc + 1", "envp = argv + argc"),
        ("hands_over", "(long)(argv + 1), (long)envp", "(long)argv, (long)envp"),
        ("tells_errno", "error == ENOENT ? 127 : 126", "126"),
        (
            "tells_errno",
            "put(&message[1], program, length(program))",
            "put(&message[1], program, 4)",
        ),
        ("tells_errno", "error > 9 ? 2 : 1", "1"),
    ],
)
def test_the_checks_of_exec_can_fail(mutant, started, tmp_path, check, old, new):
    bad = mutant(old, new)
    more = (tmp_path,) if check == "tells_errno" else ()
    with pytest.raises(AssertionError):
        globals()["check_" + check](bad, started, *more)


# ---- init


def check_status(trampoline: Path, started: Callable[..., Started]) -> None:
    """Its status is the program's: the code, or 128 and the signal."""
    for script, status in [("exit 0", 0), ("exit 7", 7), ("exit 255", 255),
                           ("kill -TERM $$", 143), ("kill -KILL $$", 137),
                           ("(sh -c 'exit 9' &); sleep 0.2; exit 3", 3)]:  # fmt: skip
        one = started(trampoline, "init", "/bin/sh", "sh", "-c", script)
        assert one.finish() == (status, b"", b""), script
    one = started(trampoline, "init", "/no/such", "x")
    assert one.finish() == (127, b"", b'ERROR\0exec\0execve\0"/no/such"\x002\0\0')


ECHO_SIGNALS = """
import signal
signals = set(signal.valid_signals()) - {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD}
blocked = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
print(sorted(map(int, blocked)), flush=True)
while (number := signal.sigwait(signals)) != signal.SIGTERM:
    print(int(number), flush=True)
"""


def check_forwards(trampoline: Path, started: Callable[..., Started]) -> None:
    """Every signal that can be caught reaches the program; its own mask is as it was."""
    python = os.path.realpath(sys._base_executable)
    one = started(trampoline, "init", python, "python", "-ISc", ECHO_SIGNALS)
    assert one.line() == "[]"
    sent = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD, signal.SIGTERM}
    for number in sent:
        one.process.send_signal(number)
        assert one.line() == str(int(number))
    one.process.send_signal(signal.SIGTERM)
    assert one.finish()[0] == 0


def check_reaps(trampoline: Path, started: Callable[..., Started]) -> None:
    """An orphan of the program becomes a child of init, ends, and is gone: no zombie."""
    script = "for i in 1 2 3; do (sh -c 'echo $$; exec sleep 0.1' &) ; done; exec sleep 60"
    one = started(trampoline, "init", "/bin/sh", "sh", "-c", script)
    orphans = [one.line() for _ in range(3)]
    deadline = time.monotonic() + 3
    while any(Path("/proc", pid).exists() for pid in orphans):
        assert time.monotonic() < deadline, "a zombie"
        time.sleep(0.01)


def check_sleeps(trampoline: Path, started: Callable[..., Started]) -> None:
    """While nothing happens it does nothing."""
    one = started(trampoline, "init", "/bin/sh", "sh", "-c", "echo ready; exec sleep 60")
    one.line()
    time.sleep(0.1)  # the program's own exec is an event
    before = activity(one.process.pid)
    time.sleep(0.3)
    assert activity(one.process.pid) == before


def activity(pid: int) -> list[str]:
    """How often the process was scheduled, and how long it ran."""
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    ticks = Path(f"/proc/{pid}/stat").read_text().split()[13:15]
    return [*ticks, *(line for line in status if "ctxt_switches" in line)]


def check_closes_wire(trampoline: Path, started: Callable[..., Started]) -> None:
    """End of file on the wire as soon as the program runs, though init stays."""
    one = started(trampoline, "init", "/bin/sh", "sh", "-c", "echo ready; exec sleep 60")
    assert one.line() == "ready"
    one.wire.settimeout(2)
    try:
        assert one.wire.recv(100) == b""
    except TimeoutError:
        raise AssertionError("the wire is still open") from None
    assert one.process.poll() is None


def check_foreground(trampoline: Path) -> None:
    """At a terminal the program is in front, in a group of its own, and Ctrl-C is for it alone."""
    program = "/bin/sh sh -c 'cat /proc/$$/stat; exec cat'"
    script = f"exec -a minicontainer-init {trampoline} 9 go {program}"
    child = pexpect.spawn("bash", ["-c", script], timeout=10, encoding="utf-8")
    try:
        child.expect(r"(\d+) \(.*\) \S (\d+) (\d+) (\d+) \d+ (\d+) [^\r\n]*\r\n")
        pid, parent, group, session, foreground = map(int, child.match.groups())
        assert foreground == group == pid
        assert parent == session == child.pid
        child.sendline("typed")
        child.expect("typed\r\ntyped\r\n")  # the echo, then cat: it reads
        child.sendintr()
        child.expect(pexpect.EOF)
        child.wait()
        assert child.exitstatus == 130
    finally:
        child.close(force=True)


INIT_CHECKS = ["status", "forwards", "reaps", "sleeps", "closes_wire"]


@pytest.mark.parametrize("check", INIT_CHECKS)
def test_init(trampoline, started, check):
    globals()["check_" + check](trampoline, started)


def test_init_puts_the_program_in_the_foreground(trampoline):
    check_foreground(trampoline)


def test_init_as_pid_1(trampoline):
    """In a pid namespace the kernel would drop what has no handler; init gets it all the same."""
    script = 'exec -a minicontainer-init "$0" 9 go /bin/sh sh -c "trap \'echo TERM; exit 5\' TERM; echo $$ ready; while :; do sleep 0.05; done"'  # noqa: E501
    done = subprocess.Popen(
        ["unshare", "--pid", "--fork", "--kill-child", "bash", "-c", script, trampoline],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert done.stdout
    assert done.stdout.readline() == "1 ready\n"
    children = Path(f"/proc/{done.pid}/task/{done.pid}/children").read_text().split()
    os.kill(int(children[0]), signal.SIGTERM)
    assert done.communicate(timeout=20)[0] == "TERM\n"
    assert done.returncode == 5


@pytest.mark.parametrize(
    ("check", "old", "new"),
    [
        ("status", "status & 0x7f ? 128 + (status & 0x7f) :", ""),
        ("status", "if (dead == child)", "if (dead)"),
        ("forwards", "if (signal > 0", "if (signal > 0 && signal < 32"),
        ("forwards", "sys(__NR_rt_sigprocmask, SIG_SETMASK, (long)&before, 0, sizeof before);", ""),
        ("reaps", "sys(__NR_wait4, -1,", "sys(__NR_wait4, child,"),
        ("sleeps", "(long)&every, 0, 0, sizeof every); /* sleeps */",
         "(long)&every, 0, (long)(long[]){0, 1000000}, sizeof every);"),
        ("closes_wire", "sys(__NR_close, wire, 0, 0, 0);", ""),
    ],
)  # fmt: skip
def test_the_checks_of_init_can_fail(mutant, started, check, old, new):
    bad = mutant(old, new)
    with pytest.raises(AssertionError):
        globals()["check_" + check](bad, started)


def test_the_check_of_the_foreground_can_fail(mutant):
    bad = mutant("sys(__NR_ioctl, 0, TIOCSPGRP, (long)&self, 0);", "")
    with pytest.raises((AssertionError, pexpect.TIMEOUT, pexpect.EOF)):
        check_foreground(bad)
