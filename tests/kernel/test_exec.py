"""kernel/exec.py and kernel/seal.py on the real kernel: the program, and only the program, goes in.

The attacks of CVE-2019-5736 and CVE-2024-21626 are made for real.  Victim and trampoline are
private copies: a test that fails damages nothing else.
"""

from __future__ import annotations

import errno
import fcntl
import json
import mmap
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pyseccomp
import pytest

from minicontainer import mountcalls
from minicontainer.errors import CannotExecute, CommandNotFound, KernelError, MinicontainerError
from minicontainer.kernel import exec as exec_
from minicontainer.kernel import process, seal
from minicontainer.kernel.clone import Child
from minicontainer.libc import C, check
from minicontainer.step import Context, Step
from minicontainer.trampoline_build import FLAGS, TRAMPOLINE
from tests import elf
from tests.support import CHECKOUT, own_mounts

pytestmark = pytest.mark.requires_root

CLONE_NEWNS, CLONE_NEWUSER = 0x00020000, 0x10000000


# ---- running steps in a child that execs


class Ended(NamedTuple):
    """How a child ended, what it printed, and what it said on the wire."""

    status: int
    out: bytes
    said: list[str]


def execute(*steps: Step, env: tuple[str, ...] = ("PATH=/usr/bin:/bin",), prepare=None) -> Ended:
    """Run steps in a child, the last of which has it exec; ``prepare`` is called in it first."""
    read, write = os.pipe()
    child = Child()
    assert child.wire > 10, "the tests use the numbers below as they like"
    context = Context("test", "")
    context.wire_fd, context.execute, context.env = child.wire, child.execute, list(env)

    def turn() -> None:
        os.dup2(write, 1)
        os.dup2(write, 2)
        if prepare:
            prepare()
        for step in steps:
            step.run(context)

    child.start(0)
    try:
        child.turn(turn)
        os.close(write)
        with os.fdopen(read, "rb") as pipe:
            out = pipe.read()
        said = child.hear().decode()
        status = process.wait(child.pidfd)
    except MinicontainerError as error:
        process.kill(child.pidfd)
        process.wait(child.pidfd)
        os.close(write)
        os.close(read)
        status, out, said = 99, b"", f"RAISED\0{type(error).__name__}\0{error.message}"
    child.close()
    os.close(child.pidfd)
    return Ended(status, out, said.split("\0") if said else [])


def program(*args: str, init: bool = False) -> tuple[Step, ...]:
    """The plan's last steps."""
    return seal.SealTrampoline(), exec_.CloseDescriptors(), exec_.Execute(args, init=init)


# ---- what reaches the program


@pytest.mark.parametrize("init", [False, True])
def test_the_program_gets_exactly_its_arguments_and_environment(init):
    env = ("B=x\ny", "PATH=/usr/bin:/bin", "A=", "B=again", "\udcff=\udcfe", "no equals sign")
    ended = execute(*program("cat", "/proc/self/environ", init=init), env=env)
    assert ended == (0, b"".join(os.fsencode(e) + b"\0" for e in env), [])
    ended = execute(*program("cat", "/proc/self/cmdline", "", "\udcff", init=init))
    assert ended.out.startswith(b"cat\0/proc/self/cmdline\0\0\xff\0")


def leaks(*steps: Step) -> list[str]:
    """The descriptors that a program finds, beyond the three."""

    def open_some() -> None:
        # what a careless caller leaves open: below, at and above the wire's number
        folder = os.open("/etc", os.O_RDONLY | os.O_DIRECTORY)
        for number in (3, 4, 200):
            os.dup2(folder, number)

    listing = exec_.Execute(("sh", "-c", "ls -l /proc/$$/fd"))
    ended = execute(*steps[:-1], listing, prepare=open_some)
    assert ended.status == 0, ended
    found = re.findall(r"(\d+) -> (.*)", ended.out.decode())
    assert {"0", "1", "2"} <= {number for number, _ in found}
    return [f"{number} {target}" for number, target in found if int(number) > 2]


def test_no_descriptor_of_the_host_leaks():
    assert leaks(*program("...")) == []


def test_the_look_for_leaks_can_fail():
    sealing, _, execution = program("...")
    assert "200 /etc" in leaks(sealing, execution)


def test_preserved_descriptors_stay():
    def listen() -> None:
        null = os.open("/dev/null", os.O_RDONLY)
        for number in (3, 4, 5):
            os.dup2(null, number)

    ended = execute(
        seal.SealTrampoline(), exec_.CloseDescriptors(preserve=2),
        exec_.Execute(("sh", "-c", "ls /proc/$$/fd"), preserve=2), prepare=listen,
    )  # fmt: skip
    assert (ended.status, ended.out.split()) == (0, [b"0", b"1", b"2", b"3", b"4"])


@pytest.mark.parametrize("taken", [[], [3], [3, 4, 5, 6, 7]])
def test_whatever_numbers_the_descriptors_have(taken):
    """The trampoline or the wire may already be number 3."""

    class Renumber(Step):
        def run(self, context: Context) -> None:
            for number in taken:
                context.fds["trampoline"] = os.dup2(context.fds["trampoline"], number)
            context.wire_fd = fcntl.fcntl(context.wire_fd, fcntl.F_DUPFD_CLOEXEC, 20)

    sealing, closing, execution = program("echo", "fine")
    assert execute(sealing, Renumber(), closing, execution) == (0, b"fine\n", [])


class Chroot(Step):
    """Another root, and nothing else."""

    root: str

    def run(self, context: Context) -> None:
        os.chroot(self.root)
        os.chdir("/")


class EnterRoot(Step):
    """What the steps before the exec do, in a few lines: mounts, root, user, directory."""

    root: str
    user_namespace: bool = False
    uid: int = 0

    def run(self, context: Context) -> None:
        own_mounts(shared_root=False)
        mountcalls.mount("proc", f"{self.root}/proc", "proc", 0)
        os.chdir(self.root)
        if self.user_namespace:
            enter_user_namespace()
        os.chroot(".")
        os.chdir("/tmp")
        os.setgroups([])
        os.setresgid(self.uid, self.uid, self.uid)
        os.setresuid(self.uid, self.uid, self.uid)


def enter_user_namespace() -> None:
    """unshare(2), and a helper that stays outside and writes the maps."""
    unshared, mapped = os.pipe(), os.pipe()
    pid = os.getpid()
    if os.fork() == 0:
        os.read(unshared[0], 1)
        for kind in ("uid", "gid"):
            Path(f"/proc/{pid}/{kind}_map").write_text("0 100000 1000")
        os.write(mapped[1], b".")
        os._exit(0)
    check(C.unshare(CLONE_NEWUSER | CLONE_NEWNS), "unshare")
    os.write(unshared[1], b".")
    os.read(mapped[0], 1)
    os.wait()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root file system with nothing but busybox, which everyone may enter."""
    place = tmp_path / "root"
    for folder in ("bin", "proc", "tmp", "lib64", "lib"):
        (place / folder).mkdir(parents=True)
    busybox = shutil.which("busybox")
    assert busybox, "busybox is installed by make"
    shutil.copy(busybox, place / "bin/busybox")
    for applet in ("sh", "id", "pwd", "grep", "cat", "echo"):
        (place / "bin" / applet).symlink_to("busybox")
    for folder in (place, *place.iterdir()):
        folder.chmod(0o755)
    return place


@pytest.mark.parametrize("init", [False, True])
@pytest.mark.parametrize("user_namespace", [False, True])
@pytest.mark.parametrize("kind", ["copy", "mount"])
def test_it_works_from_the_bottom(root, init, user_namespace, kind):
    """Another root, directory and user, no capabilities: the descriptor is all that is needed."""
    sealing, closing, _ = program("...")
    if kind == "mount":
        sealing = SealByMount()
    ended = execute(
        sealing, EnterRoot(str(root), user_namespace, 5), closing,
        exec_.Execute(("sh", "-c", "id; pwd; grep CapEff /proc/self/status"), init=init),
        env=("PATH=/bin",),
    )  # fmt: skip
    assert ended.out.decode().splitlines() == ["uid=5 gid=5", "/tmp", "CapEff:\t" + 16 * "0"]
    assert ended.status == 0


class SealByMount(seal.SealTrampoline):
    """The second choice, as where memory may not be executed."""

    def run(self, context: Context) -> None:
        context.fds["trampoline"] = seal.seal_mount(self.path)


# ---- a seccomp profile from before execveat and close_range


class Forbid(Step):
    """A profile that answers EPERM to some calls, as an allow-list that never heard of them."""

    calls: tuple[str, ...]

    def run(self, context: Context) -> None:
        profile = pyseccomp.SyscallFilter(pyseccomp.ALLOW)
        for call in self.calls:
            profile.add_rule(pyseccomp.ERRNO(errno.EPERM), call)
        profile.load()


def test_a_profile_without_execveat():
    sealing, closing, execution = program("echo", "fine")
    old = Forbid(("execveat", "close_range"))
    assert execute(sealing, closing, old, execution) == (0, b"fine\n", [])


def test_a_profile_without_execveat_and_no_procfs(root):
    """Then nothing of the image's is taken for the trampoline."""
    (root / "proc/self/fd").mkdir(parents=True)
    for number in range(3, 20):
        shutil.copy(root / "bin/busybox", root / f"proc/self/fd/{number}")

    sealing, closing, _ = program("...")
    ended = execute(
        sealing, Chroot(str(root)), closing, Forbid(("execveat",)), exec_.Execute(("/bin/sh",)),
        env=("PATH=/bin",),
    )  # fmt: skip
    assert ended.status == 99
    assert ended.said[1] == "KernelError"
    assert "execveat" in ended.said[2]


# ---- which program


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH of two directories with what may lie in them."""
    for name, mode in [("first/plain", 0o644), ("second/plain", 0o755), ("second/only", 0o755),
                       ("first/refused", 0o644), ("here", 0o755)]:  # fmt: skip
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.write_text("#!/bin/sh\n")
        file.chmod(mode)
    (tmp_path / "first/only").mkdir()
    (tmp_path / "first/circle").symlink_to("circle")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "search", "found"),
    [
        ("only", "first:second", "second/only"),  # a directory of that name does not count
        ("plain", "first:second", "second/plain"),  # nor a file without x
        ("here", "first::second", "./here"),  # an empty part is the working directory
        ("second/only", "first", "second/only"),  # a slash: no search
        ("./here", "", "./here"),
    ],
)
def test_find_program(programs, name, search, found):
    assert exec_.find_program(name, search) == found
    # execvp(3) itself is asked as well
    ran = subprocess.run(["env", f"PATH={search}", "/usr/bin/env", name], cwd=programs)
    assert ran.returncode == 0


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("nope", CommandNotFound, 'exec: "nope": executable file not found in $PATH'),
        ("", CommandNotFound, 'exec: "": executable file not found in $PATH'),
        (".", CommandNotFound, 'exec: ".": executable file not found in $PATH'),
        ("refused", CommandNotFound, 'exec: "refused": executable file not found in $PATH'),
        ("here", CommandNotFound, 'exec: "here": executable file not found in $PATH'),
        ("a\0b", CommandNotFound, 'exec: "a\0b": executable file not found in $PATH'),
        ("./nope", CommandNotFound, 'exec: "./nope": stat ./nope: no such file or directory'),
        ("./here/x", CommandNotFound, 'exec: "./here/x": stat ./here/x: not a directory'),
        ("first/refused", CannotExecute, 'exec: "first/refused": permission denied'),
        ("./first", CannotExecute, 'exec: "./first": is a directory'),
        ("first/circle", CannotExecute,
         'exec: "first/circle": too many levels of symbolic links'),
    ],
)  # fmt: skip
def test_what_cannot_be_found(programs, name, kind, message):
    with pytest.raises(MinicontainerError) as caught:
        exec_.find_program(name, "first:second:nowhere")
    assert (type(caught.value), caught.value.message) == (kind, message)


@pytest.mark.parametrize(
    "name", ["only", "nope", "plain", "refused", "", "/first/plain", "/nope", "/here/x"]
)
def test_runc_says_the_same(programs, root, name):
    """The oracle: the same files, PATH and program under runc."""
    if not shutil.which("runc"):
        pytest.skip("runc is not installed")
    for folder in ("first", "second"):
        shutil.copytree(programs / folder, root / folder, symlinks=True)
    shutil.copy(programs / "here", root / "here")
    said = runc(root, [name], ["PATH=/first:/second"])

    sealing, closing, execution = program(name)
    ended = execute(sealing, Chroot(str(root)), closing, execution, env=("PATH=/first:/second",))
    if not said:
        assert ended == (0, b"", [])
    else:
        assert ended.said[2] in said


def runc(root: Path, args: list[str], env: list[str]) -> str:
    """What runc says instead of running this, "" if it runs."""
    bundle = root.parent
    (bundle / "config.json").unlink(missing_ok=True)
    subprocess.run(["runc", "spec"], cwd=bundle, check=True)
    config = json.loads((bundle / "config.json").read_text())
    config["process"] |= {"args": args, "env": env, "terminal": False}
    config["process"].pop("rlimits", None)
    config["root"]["path"] = str(root)
    (bundle / "config.json").write_text(json.dumps(config))
    for folder in ("dev", "sys"):
        (root / folder).mkdir(exist_ok=True)
    done = subprocess.run(
        ["runc", "--log-format=json", "run", f"minicontainer-test-{os.getpid()}"], cwd=bundle,
        stdin=subprocess.DEVNULL, capture_output=True, text=True,
    )  # fmt: skip
    # warnings may come first, a line each
    return json.loads(done.stderr.splitlines()[-1])["msg"] if done.returncode else ""


@pytest.mark.parametrize("args", [("echo", "a\0b"), ("echo", "\ud800")])
def test_what_no_c_string_can_hold(args):
    ended = execute(*program(*args))
    assert ended.said[:2] == ["RAISED", "CannotExecute"]


@pytest.mark.parametrize("init", [False, True])
def test_what_only_the_kernel_knows_comes_back_on_the_wire(tmp_path, init):
    script = tmp_path / "script"
    script.write_text("#!/no/such/interpreter\n")
    script.chmod(0o755)
    ended = execute(*program(str(script), init=init))
    assert ended == (127, b"", ["ERROR", "exec", "execve", f'"{script}"', "2", "", ""])
    script.write_text("echo no first line\n")
    assert execute(*program(str(script), init=init))[2][4] == str(errno.ENOEXEC)


def test_without_a_trampoline_it_executes_by_itself():
    """--without seal: the counterfactual."""
    _, closing, execution = program("echo", "fine")
    assert execute(closing, execution) == (0, b"fine\n", [])


def test_a_missing_trampoline_is_told_before_anything_starts(tmp_path):
    with pytest.raises(MinicontainerError) as caught:
        seal.SealTrampoline(str(tmp_path / "nope")).run(Context("test", ""))
    assert "make install" in caught.value.hint


def test_undo_closes_it():
    context, before = Context("test", ""), sorted(os.listdir("/proc/self/fd"))
    step = seal.SealTrampoline()
    step.run(context)
    assert sorted(os.listdir("/proc/self/fd")) != before
    step.undo(context)
    step.undo(context)
    assert (sorted(os.listdir("/proc/self/fd")), context.fds) == (before, {})


# ---- the seal


def attempts(fd: int) -> dict[str, int]:
    """Try every way to change the file behind ``fd``: 0 where it worked, else the errno."""
    path = f"/proc/self/fd/{fd}"

    def write(flags: int) -> None:
        target = os.open(path, flags)
        os.write(target, b"x")

    def map_shared() -> None:
        target = os.open(path, os.O_RDWR)
        mmap.mmap(target, 0, mmap.MAP_SHARED, mmap.PROT_WRITE)[0] = 0

    ways: dict[str, Callable[[], object]] = {
        "write": lambda: write(os.O_WRONLY),
        "append": lambda: write(os.O_WRONLY | os.O_APPEND),
        "this descriptor": lambda: os.pwrite(fd, b"x", 0),
        "map": map_shared,
        "truncate": lambda: write(os.O_WRONLY | os.O_TRUNC),
        "unseal": lambda: fcntl.fcntl(fd, fcntl.F_ADD_SEALS, 0),
    }
    results = {}
    for way, attempt in ways.items():
        try:
            attempt()
            results[way] = 0
        except OSError as error:
            results[way] = error.errno or -1
    return results


def unseal_by_mount(fd: int) -> None:
    """What CAP_SYS_ADMIN in a container can do to a mount, wherever it hangs."""
    try:
        mountcalls.mount_setattr(fd, clear=seal.MOUNT_ATTR_RDONLY, recursive=False)
    except KernelError:
        return


def test_no_one_changes_a_sealed_copy(tmp_path, forked):
    def attack() -> tuple[dict[str, int], bytes]:
        fd = seal.seal_copy(TRAMPOLINE)
        unseal_by_mount(fd)
        results = attempts(fd)
        return results, os.pread(fd, 1 << 20, 0)

    results, content = forked(attack)
    assert content == Path(TRAMPOLINE).read_bytes()
    assert set(results.values()) <= {errno.EPERM, errno.EINVAL}, results


def test_why_a_read_only_mount_is_the_second_choice(tmp_path, forked):
    victim = shutil.copy(TRAMPOLINE, tmp_path / "victim")

    def attack(unseal: bool) -> dict[str, int]:
        fd = seal.seal_mount(str(victim))
        if unseal:
            unseal_by_mount(fd)
        return attempts(fd)

    results = forked(lambda: attack(unseal=False))
    assert 0 not in results.values(), results
    assert results["write"] == results["append"] == results["map"] == errno.EROFS
    # root with CAP_SYS_ADMIN takes it off: the mutant that the memory copy is not
    assert forked(lambda: attack(unseal=True))["write"] == 0


def test_where_memory_may_not_be_executed_it_is_a_mount(monkeypatch, tmp_path, forked):
    def refuse(name: str, flags: int) -> int:
        raise OSError(errno.EACCES, "vm.memfd_noexec is 2")

    def choose() -> int:
        monkeypatch.setattr(os, "memfd_create", refuse)
        return attempts(seal.open_sealed(TRAMPOLINE))["write"]

    assert forked(choose) == errno.EROFS


def test_before_linux_6_3(monkeypatch):
    """MFD_EXEC is not known there."""
    real = os.memfd_create

    def old_kernel(name: str, flags: int) -> int:
        if flags & seal.MFD_EXEC:
            raise OSError(errno.EINVAL, "unknown flag")
        return real(name, flags)

    monkeypatch.setattr(os, "memfd_create", old_kernel)
    assert execute(*program("echo", "fine")).status == 0


# ---- CVE-2019-5736


ATTACK = Path(__file__).with_name("attack.c")
LOADED = pytest.param("/loaded", marks=pytest.mark.kernel("machine"))

RUNTIME = """
import os, sys
sys.path += {paths!r}
from minicontainer.kernel import exec as exec_
from minicontainer.kernel import process, seal
from minicontainer.kernel.clone import Child
from minicontainer.libc import C, check
from minicontainer.step import Context
from tests.kernel.test_exec import EnterRoot
context = Context("test", "")
if {sealed!r}:
    seal.SealTrampoline().run(context)
def turn():
    EnterRoot({root!r}).run(context)
    exec_.CloseDescriptors().run(context)
    exec_.Execute(({entrypoint!r},), ("PATH=/bin",)).run(context)
if not {sealed!r}:  # the attack waits until nobody executes the file any more, so: no parent
    context.execute = lambda program, argv, env, again: os.execve(program, argv, {{"PATH": "/bin"}})
    turn()
child = Child()
context.execute = child.execute
child.start(0)
child.turn(turn)
sys.exit(process.wait(child.pidfd))
"""


@pytest.fixture
def evil(root: Path, tmp_path: Path) -> Path:
    """An image that tries all it can, with ``/attack`` as the loader of whatever runs in it."""
    # at an address of its own, so that it can be loaded beside another program
    subprocess.run(
        ["cc", *FLAGS, "-w", "-Wl,-Ttext-segment=0x10000000", "-o", root / "attack", ATTACK],
        check=True,
    )
    loader = root / elf.interpreter(Path(python())).lstrip("/")
    loader.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(root / "attack", loader)
    (root / "link").symlink_to("/proc/self/exe")
    (root / "script").write_text("#!/proc/self/exe\n")
    (root / "script").chmod(0o755)
    # a dynamic program whose loader, by name, is whatever executes it
    source = tmp_path / "loaded.c"
    source.write_text("void _start(void) { for (;;) ; }")
    subprocess.run(
        ["cc", "-nostdlib", "-pie", "-fpie", "-Wl,--dynamic-linker=/proc/self/exe",
         "-o", root / "loaded", source], check=True,
    )  # fmt: skip
    assert elf.interpreter(root / "loaded") == "/proc/self/exe"
    return root


def python() -> str:
    """The interpreter that the launcher uses: it is what CVE-2019-5736 would be after."""
    return os.path.realpath(sys._base_executable)


def run_evil(evil: Path, entrypoint: str, sealed: bool) -> tuple[int, str, bool]:
    """Run an entrypoint by a runtime that is a private copy of Python: status, output, and
    whether that copy is still what it was."""
    victim = evil.parent / "victim"
    shutil.copy(python(), victim)
    script = RUNTIME.format(
        paths=[str(CHECKOUT), sysconfig.get_path("purelib")],
        root=str(evil), entrypoint=entrypoint, sealed=sealed,
    )  # fmt: skip
    done = subprocess.run([victim, "-c", script], capture_output=True, text=True, timeout=60)
    same = victim.read_bytes() == Path(python()).read_bytes()
    return done.returncode, done.stdout + done.stderr, same


@pytest.mark.parametrize("entrypoint", ["/proc/self/exe", "/link", "/script", LOADED])
def test_the_runtime_is_out_of_reach(evil, entrypoint):
    status, words, unharmed = run_evil(evil, entrypoint, sealed=True)
    assert unharmed
    # What the image got to run in its stead was the trampoline.
    assert (status, "minicontainer's trampoline" in words) == (126, True), words


@pytest.mark.kernel("machine")
@pytest.mark.parametrize("entrypoint", ["/proc/self/exe", "/link", "/script"])
def test_without_the_trampoline_the_runtime_is_overwritten(evil, entrypoint):
    """The mutant: the attack is real, and it works on a runtime that executes by itself."""
    status, words, unharmed = run_evil(evil, entrypoint, sealed=False)
    assert (status, "OWNED" in words, unharmed) == (0, True, False), words


@pytest.mark.kernel("machine")
def test_without_the_trampoline_the_runtime_becomes_a_loader(evil):
    """The third way in: here, too, it is the host's program that the image has executed."""
    status, words, _ = run_evil(evil, "/loaded", sealed=False)
    assert status < 0, words


def test_nothing_is_wrong_with_the_evil_image_itself(evil):
    """An ordinary program of it runs, so that the tests above fail for the right reason."""
    assert run_evil(evil, "/bin/sh", sealed=True) == (0, "", True)


def attack_init(evil: Path, sealing: Step) -> Ended:
    """The program that an init watches over takes a handle on init's file, kills it, and writes.

    Without a pid namespace, in which init's end would be the attacker's too."""
    return execute(
        sealing, EnterRoot(str(evil)), exec_.CloseDescriptors(),
        exec_.Execute(("sh", "-c", "exec /attack $PPID"), init=True), env=("PATH=/bin",),
    )  # fmt: skip


def test_init_is_sealed(evil):
    assert attack_init(evil, seal.SealTrampoline()).out == b"OPENED, NOT WRITTEN\n"


def test_the_attack_on_init_can_succeed(evil, tmp_path):
    victim = shutil.copy(TRAMPOLINE, tmp_path / "trampoline")

    class Unsealed(Step):
        def run(self, context: Context) -> None:
            context.fds["trampoline"] = os.open(victim, os.O_RDONLY)

    assert attack_init(evil, Unsealed()).out == b"OWNED\n"
    assert Path(victim).read_bytes()[:5] == b"OWNED"
