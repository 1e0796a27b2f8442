"""Finished seccomp programs, kept between runs: what stands between a profile and a fast start.

Making a program of a profile takes milliseconds, most of them imports, and a start has none to
spare; reading a finished one takes microseconds.  But it decides what a container may do.  So it is
trusted only if root or we ourselves wrote it, if it is whole, and if it was made from exactly what
we would make it from now: profile, capabilities, machine, kernel version and compiler stand in the
file, letter for letter.  (A checksum of them would not do: who finds a second profile with the same
checksum chooses which program another container gets.)  In every other case it is made anew.

The file is put in place by rename(2), so nobody ever sees half of it.
"""

from __future__ import annotations

import os
import struct
import zlib

from minicontainer.libc import MACHINE

# A file: this header, then what the program was made from, then the program.
_HEADER = struct.Struct("<8sII")  # magic, SECCOMP_FILTER_FLAG_*, checksum of the program
_MAGIC = b"minibpf1"
_COMPILER = ("bpf", "seccomp_compile", "seccomp_profile", "seccomp_rules", "seccomp_syscalls")


def program_for(
    profile: str, capabilities: tuple[str, ...], cache_dir: str = ""
) -> tuple[bytes, int]:
    """The BPF program, and the SECCOMP_FILTER_FLAG_*, for a container with this bounding set.

    ``profile`` is "default" or JSON text; ``capabilities`` are CAP_ names, or "ALL".  What is not
    yet in ``cache_dir`` is compiled and left there ("" keeps nothing).  Raises UsageError for a
    profile that cannot be meant.
    """
    release = os.uname().release.split(".")  # 6.18.44-1-amd64
    kernel = (int(release[0]), int(release[1].partition("-")[0]))
    made_from = repr((MACHINE, kernel, _compiler(), sorted(capabilities), profile)).encode()
    path = f"{cache_dir}/{zlib.crc32(made_from):08x}.bpf"
    kept = _read(path, made_from) if cache_dir else None
    if kept:
        return kept

    from minicontainer.kernel.seccomp_compile import compile_profile

    if profile == "default":
        from minicontainer.kernel.seccomp_profile import DEFAULT as rules
    else:
        from minicontainer.kernel.seccomp_rules import parse_profile

        rules = parse_profile(profile)
    program = compile_profile(rules, capabilities, MACHINE, kernel)
    if cache_dir:
        _keep(path, made_from, program, rules.flags)
    return program, rules.flags


def warm_cache(cache_dir: str, *capability_sets: tuple[str, ...]) -> None:
    """Forget all that is kept, and compile the default profile for these bounding sets: so that
    the first ``run`` after an installation is as fast as any other."""
    if os.path.isdir(cache_dir):
        for name in os.listdir(cache_dir):
            if ".bpf" in name:
                os.unlink(f"{cache_dir}/{name}")
    for capabilities in capability_sets:
        program_for("default", capabilities, cache_dir)


def _compiler() -> list[tuple[int, int]]:
    """When profile and compiler were last changed: edit them, and the next run knows."""
    here = os.path.dirname(__file__)
    changed = [os.stat(f"{here}/{name}.py") for name in _COMPILER]
    return [(status.st_mtime_ns, status.st_size) for status in changed]


def _read(path: str, made_from: bytes) -> tuple[bytes, int] | None:
    """The kept program and its flags, if it can be trusted."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        status = os.fstat(fd)
        data = os.read(fd, status.st_size)
    finally:
        os.close(fd)
    if status.st_uid not in (0, os.geteuid()) or status.st_mode & 0o022:
        return None
    start = _HEADER.size + len(made_from)
    if len(data) <= start or data[_HEADER.size : start] != made_from:
        return None
    magic, flags, checksum = _HEADER.unpack_from(data)
    program = data[start:]
    if magic != _MAGIC or checksum != zlib.crc32(program, flags) or len(program) % 8:
        return None
    return program, flags


def _keep(path: str, made_from: bytes, program: bytes, flags: int) -> None:
    """Leave a program for the next run, whole or not at all: rename(2).

    A directory that cannot be written to, or that others can write to, keeps nothing: this costs
    time and nothing else.
    """
    directory = os.path.dirname(path)
    unfinished = f"{path}.{os.getpid()}"
    header = _HEADER.pack(_MAGIC, flags, zlib.crc32(program, flags))
    try:
        os.makedirs(directory, mode=0o700, exist_ok=True)
        status = os.stat(directory)
        if status.st_uid != os.geteuid() or status.st_mode & 0o022:
            return
        fd = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, header + made_from + program)
        finally:
            os.close(fd)
        os.rename(unfinished, path)
    except OSError:
        return
