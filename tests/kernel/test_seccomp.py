"""Filters in the real kernel: what is blocked, what works, and how finished programs are kept.

Each test loads its filter in a forked child, for a filter can never be taken off again.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import mmap
import os
import pty
import shutil
import signal
import socket
import struct
import subprocess
import sysconfig
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from minicontainer import libc
from minicontainer.errors import KernelError, UsageError
from minicontainer.kernel import bpf, seccomp, seccomp_cache, seccomp_compile, seccomp_profile
from minicontainer.kernel.seccomp import CompileSeccomp, LoadSeccomp, seccomp_set_mode_filter
from minicontainer.kernel.seccomp_cache import program_for, warm_cache
from minicontainer.kernel.seccomp_compile import MACHINES, X86, X86_64
from minicontainer.kernel.seccomp_rules import Arg, Profile, Rule
from minicontainer.spec import DEFAULT_CAPABILITIES
from minicontainer.step import Context
from tests.bpf_machine import decode, mutant, run
from tests.support import CHECKOUT

NUMBERS = MACHINES[libc.MACHINE][1][0].numbers
EPERM = bpf.ERRNO | errno.EPERM
TIOCSTI = 0x5412
HIGH = 1 << 32
only_x86 = pytest.mark.skipif(libc.MACHINE != "x86_64", reason="this is no x86 machine")
Fork = Callable[[Callable[[], Any]], Any]


def syscall(number: int, *args: int) -> int:
    """A system call with nothing in between: its result, or -errno."""
    six = [*args, 0, 0, 0, 0, 0, 0][:6]
    result = libc.C.system_call(number, *six)
    return int(result) if result != -1 else -libc.ffi.errno


def load(profile: Profile = seccomp_profile.DEFAULT) -> None:
    program = seccomp_compile.compile_profile(profile, DEFAULT_CAPABILITIES, libc.MACHINE, (6, 1))
    seccomp_set_mode_filter(program)


def ending(action: Callable[[], object]) -> int:
    """Do it in a child of its own: the exit code, or minus the signal that ended it."""
    pid = os.fork()
    if pid == 0:
        action()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


# ---- what the default profile does

# Calls with arguments that do no harm, even where they are allowed: the kernel refuses them with
# something other than EPERM, or they do nothing.
HARMLESS = {
    "mount": (), "umount2": (), "pivot_root": (), "unshare": (0,), "setns": (-1, 0),
    "keyctl": (99,), "add_key": (), "request_key": (), "bpf": (99,), "init_module": (),
    "finit_module": (-1,), "kexec_load": (0, 0, 0, 99), "io_uring_setup": (0, 0),
    "userfaultfd": (99,), "perf_event_open": (), "open_by_handle_at": (-1,), "move_mount": (-1, 0),
    "fsopen": (), "open_tree": (-1, 0), "settimeofday": (0, 0), "quotactl": (99,),
    "process_madvise": (-1,), "kcmp": (0, 0, 99), "swapon": (), "acct": (1,),
}  # fmt: skip


def test_blocked_calls_fail_with_eperm(forked: Fork) -> None:
    def child() -> dict[str, tuple[int, int]]:
        before = {name: syscall(NUMBERS[name], *args) for name, args in HARMLESS.items()}
        load()
        after = {name: syscall(NUMBERS[name], *args) for name, args in HARMLESS.items()}
        return {name: (before[name], after[name]) for name in HARMLESS}

    results = forked(child)
    assert {name: after for name, (_, after) in results.items() if after != -errno.EPERM} == {}
    # The filter did it: most of these fail otherwise, or not at all, without it.
    changed = [name for name, (before, after) in results.items() if before != after]
    assert len(changed) > len(HARMLESS) / 2


def test_newer_calls_and_clone3_fail_with_enosys(forked: Fork) -> None:
    def child() -> list[int]:
        names = ("clone3", "open_tree_attr", "file_getattr", "listns")
        load()
        return [syscall(NUMBERS[name], -1) for name in names] + [syscall(600)]

    assert forked(child) == [-errno.ENOSYS] * 5


def test_sockets(forked: Fork) -> None:
    def child() -> dict[str, int]:
        load()
        number = NUMBERS["socket"]
        kinds = {"alg": 38, "vsock": 40, "unix": 1, "inet": 2, "netlink": 16}
        found = {name: min(syscall(number, family, 3, 0), 0) for name, family in kinds.items()}
        return {**found, "alg, high": syscall(number, HIGH | 38, 5, 0)}

    found = forked(child)
    blocked = ("alg", "vsock", "alg, high")
    assert {name: found[name] for name in blocked} == dict.fromkeys(blocked, -errno.EPERM)
    assert -errno.EPERM not in [found[name] for name in ("unix", "inet", "netlink")]


def inject(command: int) -> int:
    """Try to type a letter into a terminal, as root may."""
    _, terminal = pty.openpty()
    letter = libc.ffi.new("char *", b"x")
    return syscall(NUMBERS["ioctl"], terminal, command, libc.address(letter))


def test_terminal_injection(forked: Fork) -> None:
    """TIOCSTI, plain and with a bit that the kernel does not look at."""

    def child() -> list[int]:
        before = [inject(TIOCSTI), inject(HIGH | TIOCSTI)]
        load()
        window = fcntl.ioctl(pty.openpty()[1], 0x5413, b"\0" * 8)
        return [*before, inject(TIOCSTI), inject(HIGH | TIOCSTI), len(window)]

    assert forked(child) == [0, 0, -errno.EPERM, -errno.EPERM, 8]


def test_a_profile_that_compares_64_bits_lets_injection_through(forked: Fork) -> None:
    """The flaw itself (CVE-2019-7303), so that the test above is known to see it."""
    naive = Rule(("ioctl",), bpf.ALLOW, (Arg(1, "!=", TIOCSTI),))
    rules = tuple(r for r in seccomp_profile.DEFAULT.rules if r.names != ("ioctl",))

    def child() -> list[int]:
        load(seccomp_profile.DEFAULT.replace(rules=(*rules, naive)))
        return [inject(TIOCSTI), inject(HIGH | TIOCSTI)]

    assert forked(child) == [-errno.EPERM, 0]


@only_x86
def test_x32_is_refused(forked: Fork) -> None:
    def child() -> list[int]:
        load()
        return [syscall(0x40000000 | n) for n in (39, 165, 512, 520)]

    assert forked(child) == [-errno.ENOSYS] * 4


def int80(number: int, *args: int) -> int:
    """A system call by the 32-bit door of x86: eax, ebx, ecx, edx, int 0x80."""
    ebx, ecx, edx = [*args, 0, 0, 0][:3]
    code = struct.pack("<BBIBIBIBIBBBB", 0x53, 0xB8, number, 0xBB, ebx, 0xB9, ecx, 0xBA, edx,
                       0xCD, 0x80, 0x5B, 0xC3)  # fmt: skip
    page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(code)
    at = ctypes.addressof(ctypes.c_char.from_buffer(page))
    return int(ctypes.CFUNCTYPE(ctypes.c_int)(at)())


@only_x86
@pytest.mark.kernel("ia32")
def test_the_32_bit_door(forked: Fork) -> None:
    """A 64-bit program that calls with 32-bit numbers meets the same profile."""
    if ending(lambda: int80(20)) != 0:
        pytest.skip("this kernel runs no 32-bit programs")

    def child() -> list[int]:
        before = int80(X86.numbers["unshare"], 0)
        load()
        mine = int80(X86.numbers["getpid"]) == os.getpid()
        return [
            before,
            mine,
            int80(X86.numbers["unshare"], 0),
            int80(X86.numbers["mount"]),
            int80(X86.numbers["clone3"], 0xFFFFFFFF),
            int80(X86.numbers["socket"], 38, 5, 0),
        ]

    no, nosys = -errno.EPERM, -errno.ENOSYS
    assert forked(child) == [0, True, no, no, nosys, no]


@only_x86
@pytest.mark.kernel("ia32")
def test_an_architecture_that_is_not_listed_is_killed(forked: Fork) -> None:
    if ending(lambda: int80(20)) != 0:
        pytest.skip("this kernel runs no 32-bit programs")

    def child() -> list[int]:
        load(seccomp_profile.DEFAULT.replace(architectures=()))
        return [ending(lambda: int80(20)), ending(os.getpid)]

    assert forked(child) == [-signal.SIGSYS, 0]


@only_x86
def test_a_compiler_without_the_question_for_the_architecture(forked: Fork) -> None:
    """What happens then: 32-bit umount2 has the number of 64-bit fcntl, and passes."""
    if ending(lambda: int80(20)) != 0:
        pytest.skip("this kernel runs no 32-bit programs")
    broken = mutant(
        seccomp_compile,
        "program.jump(bpf.JEQ, abi.audit, program.load(bpf.NUMBER, search), root)",
        "root if abi.bits == 32 else program.load(bpf.NUMBER, search)",
    )
    program = broken.compile_profile(seccomp_profile.DEFAULT, (), "x86_64", (6, 1))

    def child() -> list[int]:
        before = int80(X86.numbers["umount2"])
        seccomp_set_mode_filter(program)
        return [before, int80(X86.numbers["umount2"]), syscall(X86_64.numbers["umount2"])]

    before, by_the_32_bit_door, by_the_64_bit_door = forked(child)
    assert by_the_64_bit_door == -errno.EPERM
    assert by_the_32_bit_door == before != -errno.EPERM


# ---- ordinary life goes on


def test_ordinary_programs_run(forked: Fork) -> None:
    """Processes, threads (whose clone3 falls back to clone), pipes, files, signals, timers."""

    def child() -> list[object]:
        load()
        seen: list[object] = []
        thread = threading.Thread(target=seen.append, args=("thread",))
        thread.start()
        thread.join()
        done = subprocess.run(
            ["sh", "-c", "ls / >/dev/null && echo a | cat && sleep 0.01 && kill -0 $$ && id -u"],
            capture_output=True, text=True,
        )  # fmt: skip
        seen += [done.returncode, done.stdout, done.stderr, ending(os.getpid)]
        here, there = socket.socketpair()
        here.send(b"x")
        seen.append(there.recv(1))
        return seen

    assert forked(child) == ["thread", 0, "a\n0\n", "", 0, b"x"]


def test_busybox_runs(forked: Fork, tmp_path: Path) -> None:
    """A static program from another C library's world."""
    busybox = shutil.which("busybox") or pytest.fail("busybox-static is part of the installation")

    def child() -> tuple[int, str]:
        load()
        script = "mkdir a && cd a && touch b && ls && ps >/dev/null && date +%Y >/dev/null"
        done = subprocess.run(
            [busybox, "sh", "-c", script], cwd=tmp_path, capture_output=True, text=True
        )
        return done.returncode, done.stdout + done.stderr

    assert forked(child) == (0, "b\n")


def test_the_last_steps_still_work(forked: Fork) -> None:
    """The filter comes before capabilities and ids are given up: that must still be possible."""

    def child() -> tuple[int, int, str]:
        load()
        libc.check(libc.C.prctl(8, 1, 0, 0, 0), "prctl", "PR_SET_KEEPCAPS")
        os.setgroups([])
        os.setresgid(65534, 65534, 65534)
        os.setresuid(65534, 65534, 65534)
        header = libc.ffi.new("struct cap_header *", {"version": 0x20080522})
        data = libc.ffi.new("struct cap_data[2]")
        dropped = libc.syscall("capset", libc.address(header), libc.address(data))
        closed = libc.syscall("close_range", 1000, 0xFFFFFFFF, 4)
        done = subprocess.run(["id", "-u"], capture_output=True, text=True)
        return dropped, closed, done.stdout

    assert forked(child) == (0, 0, "65534\n")


# ---- loading


def status(word: str) -> str:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(line.split()[1] for line in lines if line.startswith(word + ":"))


def test_steps(forked: Fork, tmp_path: Path) -> None:
    def child() -> tuple[str, int]:
        context = Context("test", str(tmp_path))
        CompileSeccomp("default", DEFAULT_CAPABILITIES, str(tmp_path / "cache")).run(context)
        LoadSeccomp().run(context)
        return status("Seccomp"), syscall(NUMBERS["unshare"], 0)

    assert forked(child) == ("2", -errno.EPERM)


def test_flags_of_a_profile_reach_the_kernel(forked: Fork, tmp_path: Path) -> None:
    """The kernel refuses a flag that does not exist, so it saw the flags that do."""
    profile = json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_LOG"]})

    def child() -> tuple[int, str, str]:
        context = Context("test", str(tmp_path))
        CompileSeccomp(profile, ()).run(context)
        LoadSeccomp().run(context)
        loaded = status("Seccomp")
        context.blobs["seccomp flags"] = b"\x80"
        with pytest.raises(KernelError) as caught:
            LoadSeccomp().run(context)
        return context.blobs["seccomp"][0], loaded, caught.value.message

    _, loaded, message = forked(child)
    assert loaded == "2"
    assert "seccomp(SECCOMP_SET_MODE_FILTER, 0x80, " in message
    assert "EINVAL" in message


def test_loading_needs_privilege_or_no_new_privs(forked: Fork) -> None:
    def child() -> tuple[int, str, str]:
        os.setresuid(65534, 65534, 65534)
        with pytest.raises(KernelError) as caught:
            load()
        libc.check(libc.C.prctl(38, 1, 0, 0, 0), "prctl", "PR_SET_NO_NEW_PRIVS")
        load()
        return caught.value.errno, caught.value.message, status("Seccomp")

    number, message, loaded = forked(child)
    assert number == errno.EACCES
    assert "needs CAP_SYS_ADMIN" in message
    assert loaded == "2"


def test_a_program_the_kernel_refuses(forked: Fork) -> None:
    """No verdict at its end: the verifier says no, and the error says who."""
    endless = struct.pack("=HBBI", 0x05, 0, 0, 0)

    def child() -> str:
        with pytest.raises(KernelError, match="verifier") as caught:
            seccomp_set_mode_filter(endless)
        return caught.value.message

    assert "1 instructions" in forked(child)


def test_the_longest_program(forked: Fork) -> None:
    """A profile near the kernel's limit loads, jumps of all lengths and all."""
    many = tuple(Rule(("getppid",), bpf.ERRNO | 99, (Arg(0, "==", n),)) for n in range(1, 1010))
    rules = (Rule(("mseal",), bpf.ALLOW), *many)

    def child() -> list[int]:
        load(Profile(bpf.ALLOW, rules))
        return [syscall(NUMBERS["getppid"], n) for n in (1, 500, 1009, 1010)]

    found = forked(child)
    assert found[:3] == [-99] * 3
    assert found[3] > 0


def test_shell_equivalent_is_the_same_program() -> None:
    script = CompileSeccomp("default", DEFAULT_CAPABILITIES).shell() + '\nprintf %s "$FILTER"'
    made = subprocess.run(["sh", "-ec", script], capture_output=True, text=True, check=True).stdout
    assert bytes.fromhex(made) == program_for("default", DEFAULT_CAPABILITIES)[0]


@pytest.mark.requires_root
def test_shell_equivalent_loads_it() -> None:
    program = "sh -c 'grep ^Seccomp: /proc/self/status; unshare --mount true'"
    script = f"{CompileSeccomp('default', ()).shell()}\n{LoadSeccomp().shell_prefix()} {program}"
    done = subprocess.run(["sh", "-ec", script], capture_output=True, text=True)
    assert done.stdout.split() == ["Seccomp:", "2"], done.stderr
    assert "Operation not permitted" in done.stderr


# ---- runc as the oracle: what filter does it load for the same profile?


def as_oci(profile: Profile) -> dict[str, object]:
    """A profile for config.json; ``&!=`` and ranges, which OCI cannot say, as what they allow."""
    words = {"==": "EQ", ">=": "GE", "<=": "LE", "&==": "MASKED_EQ"}
    syscalls = []
    for rule in profile.rules:
        kept = [arg for arg in rule.args if arg.op in words]
        alternatives = [kept]
        if [arg.op for arg in kept] == [">=", "<="]:
            first, last = kept
            alternatives = [[Arg(first.index, "==", n)] for n in range(first.value, last.value + 1)]
        for args in alternatives:
            entry: dict[str, object] = {
                "names": list(rule.names),
                "action": "SCMP_ACT_ALLOW" if rule.verdict == bpf.ALLOW else "SCMP_ACT_ERRNO",
                "args": [{"index": a.index, "op": "SCMP_CMP_" + words[a.op], "value": a.value,
                          "valueTwo": a.value_two} for a in args],
            }  # fmt: skip
            if rule.verdict != bpf.ALLOW:
                entry["errnoRet"] = rule.verdict & 0xFFFF
            syscalls.append(entry)
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": profile.default & 0xFFFF,
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": syscalls,
    }


def loaded_filter(pid: int) -> list[tuple[int, int, int, int]]:
    """The newest filter of a process, from the kernel: ptrace(2), PTRACE_SECCOMP_GET_FILTER."""
    seize, interrupt, get_filter, detach = 0x4206, 0x4207, 0x420C, 17
    c = ctypes.CDLL(None, use_errno=True)
    c.ptrace.restype = ctypes.c_long
    c.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    assert c.ptrace(seize, pid, None, None) == 0, os.strerror(ctypes.get_errno())
    c.ptrace(interrupt, pid, None, None)
    os.waitpid(pid, 0x40000000)  # __WALL
    try:
        length = c.ptrace(get_filter, pid, None, None)
        assert length > 0, os.strerror(ctypes.get_errno())
        program = ctypes.create_string_buffer(length * 8)
        c.ptrace(get_filter, pid, None, program)
    finally:
        c.ptrace(detach, pid, None, None)
    return decode(program.raw)


@pytest.fixture
def runc_filter(tmp_path: Path) -> Iterator[Callable[[Profile], list[tuple[int, int, int, int]]]]:
    """Start a container with runc under a profile, and read its filter back from the kernel."""
    runc = shutil.which("runc")
    if runc is None:
        pytest.skip("runc is not installed")
    command = [runc, "--root", str(tmp_path / "runc")]
    name = f"seccomp-oracle-{os.getpid()}"
    bundle = tmp_path / "bundle"
    (bundle / "rootfs/bin").mkdir(parents=True)
    busybox = shutil.which("busybox") or pytest.fail("busybox-static is part of the installation")
    shutil.copy(busybox, bundle / "rootfs/bin/busybox")
    subprocess.run([*command, "spec", "--bundle", str(bundle)], check=True)

    def start(profile: Profile) -> list[tuple[int, int, int, int]]:
        config = json.loads((bundle / "config.json").read_text())
        config["process"] |= {"args": ["/bin/busybox", "sleep", "60"], "terminal": False}
        config["process"].pop("rlimits", None)  # some hosts' root may not raise them
        config["linux"]["seccomp"] = as_oci(profile)
        (bundle / "config.json").write_text(json.dumps(config))
        subprocess.run(
            [*command, "run", "--detach", "--bundle", str(bundle), name],
            check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        state = subprocess.run([*command, "state", name], check=True, capture_output=True)
        return loaded_filter(json.loads(state.stdout)["pid"])

    yield start
    subprocess.run([*command, "delete", "--force", name], check=True, capture_output=True)


# runc's library knows calls up to some number, which differs; up to here all do
EVERYBODY_KNOWS = 449


@only_x86
@pytest.mark.requires_root
@pytest.mark.kernel("checkpoint")
def test_runc_loads_an_equal_filter(runc_filter: Any) -> None:
    """The default profile under runc: each number, on both architectures, ENOSYS for new ones."""
    too_new = {name for name, number in NUMBERS.items() if number > EVERYBODY_KNOWS} | {"uretprobe"}
    rules = [
        rule.replace(names=tuple(name for name in rule.names if name not in too_new))
        for rule in seccomp_profile.DEFAULT.rules
        if seccomp_compile._holds(rule, DEFAULT_CAPABILITIES, "amd64", (6, 1))
    ]
    profile = seccomp_profile.DEFAULT.replace(rules=tuple(rule for rule in rules if rule.names))
    theirs = runc_filter(profile)

    def differences(compiler: ModuleType) -> list[tuple[str, int, str]]:
        program = compiler.compile_profile(profile, DEFAULT_CAPABILITIES, "x86_64", (6, 1))
        ours = decode(program)
        return [
            (abi.name, number, hex(arg))
            for abi in (X86_64, X86)
            for number in range(700)
            for arg in (0, 1, 2, 8, 17, 38, 40, 0x20008, 0x7E020000, 0xFFFFFFFF, 0x5401)
            if run(theirs, number, abi.audit, (arg, arg))
            != run(ours, number, abi.audit, (arg, arg))
        ]

    assert differences(seccomp_compile) == []
    without_enosys = mutant(seccomp_compile, "default if passes or not named else", "default or")
    assert (X86_64.name, EVERYBODY_KNOWS + 1, "0x0") in differences(without_enosys)


# ---- finished programs


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def kept(cache: Path) -> list[Path]:
    return sorted(cache.iterdir()) if cache.exists() else []


def fresh(profile: str = "default") -> tuple[bytes, int]:
    return program_for(profile, DEFAULT_CAPABILITIES)


def test_a_program_is_compiled_once(cache: Path, base_python: list[str]) -> None:
    first = program_for("default", DEFAULT_CAPABILITIES, str(cache))
    assert first == fresh()
    (file,) = kept(cache)
    assert (file.stat().st_mode & 0o777, cache.stat().st_mode & 0o777) == (0o600, 0o700)
    again = (
        f"import sys; sys.path += {[str(CHECKOUT), sysconfig.get_path('purelib')]!r}\n"
        "from minicontainer.kernel.seccomp_cache import program_for\n"
        f"program, flags = program_for('default', {DEFAULT_CAPABILITIES!r}, {str(cache)!r})\n"
        "assert 'minicontainer.kernel.seccomp_compile' not in sys.modules\n"
        "assert 'json' not in sys.modules\n"
        "print(len(program), flags)"
    )
    done = subprocess.run([*base_python, "-c", again], capture_output=True, text=True)
    assert done.stdout.split() == [str(len(first[0])), str(first[1])], done.stderr


def test_different_wishes_are_kept_apart(cache: Path) -> None:
    allow = json.dumps({"defaultAction": "SCMP_ACT_ALLOW"})
    wishes: list[tuple[str, tuple[str, ...]]] = [
        ("default", ()), ("default", DEFAULT_CAPABILITIES), ("default", ("CAP_SYS_ADMIN",)),
        (allow, ()), (allow + " ", ()),
    ]  # fmt: skip
    for _ in range(2):
        for profile, capabilities in wishes:
            found = program_for(profile, capabilities, str(cache))
            assert found == program_for(profile, capabilities)
    assert len(kept(cache)) == len(wishes)
    program_for("default", tuple(reversed(DEFAULT_CAPABILITIES)), str(cache))
    assert len(kept(cache)) == len(wishes)


def test_a_profile_that_cannot_be_meant_is_not_kept(cache: Path) -> None:
    with pytest.raises(UsageError, match="defaultAction"):
        program_for("{}", (), str(cache))
    assert kept(cache) == []


PERMISSIVE = struct.pack("=HBBI", 0x06, 0, 0, bpf.ALLOW)


def poison(file: Path, module: ModuleType = seccomp_cache) -> bytes:
    """The file with its program replaced by one that allows everything, checksum and all."""
    data = file.read_bytes()
    program, flags = fresh()
    made_from = data[16 : -len(program)]
    header = module._HEADER.pack(module._MAGIC, flags, module.zlib.crc32(PERMISSIVE, flags))
    return header + made_from + PERMISSIVE


def belongs_to_another(file: Path) -> None:
    os.chown(file, 65534, 65534)


def others_may_write(file: Path) -> None:
    file.chmod(0o602)


def is_a_link(file: Path) -> None:
    elsewhere = file.with_name("elsewhere")
    file.rename(elsewhere)
    file.symlink_to(elsewhere)


def is_cut_short(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-8])


def is_cut_to_the_header(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:16])


def has_a_wrong_bit(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[-3] ^= 1
    file.write_bytes(data)


def has_other_flags(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[8] ^= 2
    file.write_bytes(data)


def was_made_from_something_else(file: Path) -> None:
    file.write_bytes(file.read_bytes().replace(b"CAP_CHOWN", b"CAP_CHOWX"))


def is_of_another_version(file: Path) -> None:
    file.write_bytes(b"minibpf0" + file.read_bytes()[8:])


def is_a_fifo(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


DISTRUSTED = [
    belongs_to_another, others_may_write, is_a_link, is_cut_short, is_cut_to_the_header,
    has_a_wrong_bit, has_other_flags, was_made_from_something_else, is_of_another_version,
    is_a_fifo,
]  # fmt: skip


def served(cache: Path, module: ModuleType, harm: Callable[[Path], None]) -> tuple[bytes, int]:
    """What ``module`` answers when the kept file has been poisoned, then harmed."""
    module.program_for("default", DEFAULT_CAPABILITIES, str(cache))
    (file,) = kept(cache)
    file.write_bytes(poison(file, module))
    harm(file)
    found: tuple[bytes, int] = module.program_for("default", DEFAULT_CAPABILITIES, str(cache))
    return found


def test_a_whole_file_of_ours_is_trusted(cache: Path) -> None:
    """Poisoned without any harm it *is* served: so the tests below would see it."""
    assert served(cache, seccomp_cache, lambda file: None)[0] == PERMISSIVE


@pytest.mark.requires_root
@pytest.mark.parametrize("harm", DISTRUSTED)
def test_a_file_that_cannot_be_trusted_is_not(cache: Path, harm: Callable[[Path], None]) -> None:
    assert served(cache, seccomp_cache, harm) == fresh()
    # and the next run finds a good one
    assert program_for("default", DEFAULT_CAPABILITIES, str(cache)) == fresh()


@pytest.mark.requires_root
@pytest.mark.parametrize(
    ("old", "new", "harm"),
    [
        ("status.st_uid not in (0, os.geteuid()) or", "", belongs_to_another),
        ("or status.st_mode & 0o022:\n        return None", ":\n        return None",
         others_may_write),
        ("| os.O_NOFOLLOW", "", is_a_link),
        ("checksum != zlib.crc32(program, flags) or", "", has_a_wrong_bit),
        ("checksum != zlib.crc32(program, flags) or", "", has_other_flags),
        ("or data[_HEADER.size : start] != made_from", "", was_made_from_something_else),
        ("magic != _MAGIC or", "", is_of_another_version),
    ],
)  # fmt: skip
def test_a_cache_that_trusts_too_much_is_found(cache: Path, old: str, new: str, harm: Any) -> None:
    assert served(cache, mutant(seccomp_cache, old, new), harm) != fresh()


@pytest.mark.requires_root
def test_a_directory_others_can_write_to_keeps_nothing(cache: Path) -> None:
    cache.mkdir()
    for harm in (lambda: cache.chmod(0o777), lambda: os.chown(cache, 65534, 65534)):
        harm()
        assert program_for("default", DEFAULT_CAPABILITIES, str(cache)) == fresh()
        assert kept(cache) == []


def test_a_directory_that_cannot_be_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    found = program_for("default", DEFAULT_CAPABILITIES, str(tmp_path / "file" / "cache"))
    assert found == fresh()


def test_a_changed_compiler_is_noticed(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program_for("default", DEFAULT_CAPABILITIES, str(cache))
    monkeypatch.setattr(seccomp_cache, "_compiler", lambda: [(1, 1)])
    program_for("default", DEFAULT_CAPABILITIES, str(cache))
    assert len(kept(cache)) == 2


def test_the_files_that_make_a_program_are_all_watched() -> None:
    """What the compiler imports from kernel/ is what the cache looks at."""
    watched = set(seccomp_cache._COMPILER)
    text = "".join((CHECKOUT / f"minicontainer/kernel/{name}.py").read_text() for name in watched)
    used = {
        word.strip(" ,")
        for line in text.splitlines()
        if line.startswith("from minicontainer.kernel")
        for word in (
            line.partition("import ")[2].split(",")
            if line.startswith("from minicontainer.kernel import")
            else [line.split()[1].rpartition(".")[2]]
        )
    }
    assert used | {"seccomp_compile", "seccomp_profile"} == watched


def test_warm_cache_replaces_what_was_kept(cache: Path) -> None:
    program_for("default", ("CAP_CHOWN",), str(cache))
    (cache / "0123abcd.bpf.4711").write_bytes(b"unfinished")
    (cache / "unrelated").write_text("")
    warm_cache(str(cache), DEFAULT_CAPABILITIES, ())
    names = [path.name for path in kept(cache)]
    assert len(names) == 3
    assert "unrelated" in names
    assert "0123abcd.bpf.4711" not in names


def test_the_vocabulary_is_the_headers() -> None:
    """Constants against linux/seccomp.h, where it is installed."""
    header = Path("/usr/include/linux/seccomp.h")
    lines = header.read_text().splitlines() if header.exists() else []
    values = {words[1]: words[2] for line in lines if len(words := line.split()) >= 3}
    for name, bit in seccomp.FILTER_FLAGS.items():
        if name in values:
            assert f"<< {bit.bit_length() - 1})" in next(
                line for line in lines if line.startswith(f"#define {name} ") or f"{name}\t" in line
            )
    for name, verdict in (
        ("KILL_PROCESS", bpf.KILL_PROCESS), ("KILL_THREAD", bpf.KILL_THREAD), ("TRAP", bpf.TRAP),
        ("ERRNO", bpf.ERRNO), ("TRACE", bpf.TRACE), ("LOG", bpf.LOG), ("ALLOW", bpf.ALLOW),
    ):  # fmt: skip
        if lines:
            assert int(values[f"SECCOMP_RET_{name}"].rstrip("U"), 16) == verdict
