"""Build step: compile the door to C, ``minicontainer/_libc``, from these declarations.

Run by the installer (``python -m minicontainer.libc_build``), never at run time: parsing C
declarations costs 75 ms, importing the compiled result a tenth of one.  cffi writes the C code that
takes Python's values to C and back ("API mode"); clone.c, the only C of ours that runs in the
interpreter, is compiled with it.  A call through it takes 0.45 microseconds; without a compiler,
by libffi, it would take 0.9.

https://cffi.readthedocs.io/en/stable/cdef.html
"""

from __future__ import annotations

import os
import subprocess
import sysconfig

from minicontainer.errors import MinicontainerError
from minicontainer.trampoline_build import COMPILER_HINT

_HERE = os.path.dirname(os.path.abspath(__file__))

#: the file name of the product: it fits the Python that it was built with, and says so
PRODUCT = "_libc" + (sysconfig.get_config_var("EXT_SUFFIX") or ".so")

DECLARATIONS = """
/* Almost everything goes through syscall(2), so the numbers in libc.py are all there is to know. */
long system_call(long number, long a, long b, long c, long d, long e, long f);

/* These have had wrappers in every C library for decades. */
int mount(const char *source, const char *target, const char *type, unsigned long flags,
          const char *data);
int umount2(const char *target, int flags);
int unshare(int flags);
int setns(int fd, int nstype);
int prctl(int option, unsigned long a, unsigned long b, unsigned long c, unsigned long d);
int sethostname(const char *name, size_t len);
int setdomainname(const char *name, size_t len);
int file_system_of(int fd, long *magic); /* fstatfs(2): the number of its kind */
int reset_signals(void); /* rt_sigaction(2): SIG_DFL, also where the C library would not */

/* mount_setattr(2) */
struct mount_attr { uint64_t attr_set, attr_clr, propagation, userns_fd; };

/* openat2(2) */
struct open_how { uint64_t flags, mode, resolve; };

/* capset(2): two of the second kind, for capabilities 0..31 and 32..63 */
struct cap_header { uint32_t version; int pid; };
struct cap_data { uint32_t effective, permitted, inheritable; };

/* prlimit(2) */
struct rlimit64 { uint64_t soft, hard; };

/* seccomp(2), bpf classic: linux/filter.h */
struct sock_fprog { unsigned short len; const char *filter; };

/* clone.c */
struct child {
    int wire, host_end, pidfd;
    uint64_t turn;
    int program;
    const char *path, *path_again;
    const char **argv, **envp;
    int error, left, failed;
    uint64_t mask;
    ...;
};
int child_prepare(struct child *child);
long child_start(struct child *child, uint64_t flags, int cgroup);
int child_turn(struct child *child);
void child_recovered(void);
void child_free(struct child *child);
"""

# What the declarations above promise and no C library has.
SOURCE = """
#include "clone.c"

#include <linux/mount.h> /* and not sys/mount.h, which says half of the same */
#include <linux/openat2.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/vfs.h>

int mount(const char *source, const char *target, const char *type, unsigned long flags,
          const void *data);
int umount2(const char *target, int flags);

struct cap_header { uint32_t version; int pid; };
struct cap_data { uint32_t effective, permitted, inheritable; };
struct rlimit64 { uint64_t soft, hard; };
struct sock_fprog { unsigned short len; const char *filter; };

static long system_call(long number, long a, long b, long c, long d, long e, long f)
{
    return syscall(number, a, b, c, d, e, f);
}

static int reset_signals(void)
{
    static const uint64_t standard[4]; /* handler, flags, restorer, mask: all zero */

    for (int number = 1; number <= 64; number++)
        if (number != SIGKILL && number != SIGSTOP &&
            syscall(SYS_rt_sigaction, number, standard, NULL, 8))
            return -1;
    return 0;
}

static int file_system_of(int fd, long *magic)
{
    struct statfs answer;
    int result = fstatfs(fd, &answer);

    *magic = (long)answer.f_type;
    return result;
}
"""

FLAGS = (
    "-std=gnu11", "-O2", "-Wall", "-Wextra", "-shared", "-fPIC",
    # for this very Python: cffi would keep to what all have in common, which knows no lock's holder
    "-D_CFFI_NO_LIMITED_API",
    # what cffi generates is not ours to mend
    "-Wno-unused-parameter", "-Wno-missing-field-initializers", "-Wno-sign-compare",
)  # fmt: skip


def main(folder: str = _HERE) -> None:
    """Build the module into ``folder``: beside this file, unless a wheel is being built.

    Raises MinicontainerError when there is no C compiler (``cc``, or the environment's CC), or
    when it refuses; an older module is then still in place."""
    from cffi import FFI

    ffi = FFI()
    ffi.cdef(DECLARATIONS)
    ffi.set_source("minicontainer._libc", SOURCE, py_limited_api=False)
    target = os.path.join(folder, PRODUCT)
    fresh = f"{target}.{os.getpid()}"
    ffi.emit_c_code(fresh + ".c")
    headers = [f"-I{sysconfig.get_path(kind)}" for kind in ("include", "platinclude")]
    compiler = os.environ.get("CC") or "cc"
    command = [*compiler.split(), *FLAGS, *headers, f"-I{_HERE}", "-o", fresh, fresh + ".c"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise MinicontainerError(
            f"no C compiler: {compiler!r} was not found", COMPILER_HINT
        ) from None
    finally:
        os.unlink(fresh + ".c")
    if done.returncode != 0:
        raise MinicontainerError(
            f"{compiler} could not compile clone.c:\n{done.stderr.strip()}", COMPILER_HINT
        )
    os.replace(fresh, target)


if __name__ == "__main__":
    main()
