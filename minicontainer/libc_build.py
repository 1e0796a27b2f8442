"""Build step: turn these C declarations into ``minicontainer/_libc.py`` (out-of-line cffi).

Run by the installer (``python -m minicontainer.libc_build``), never at run time: parsing C
declarations costs 75 ms, importing the parsed result costs one.  No C compiler is involved:
cffi's "ABI mode" calls the C library that is already loaded in the interpreter.

https://cffi.readthedocs.io/en/stable/cdef.html
"""

from __future__ import annotations

import os

DECLARATIONS = """
/* Almost everything goes through syscall(2), so the numbers in libc.py are all there is to know.
   It is variadic in C; on Linux's calling conventions seven longs are the same call. */
long syscall(long number, long a, long b, long c, long d, long e, long f);

/* These have had wrappers in every C library for decades. */
int mount(const char *source, const char *target, const char *type, unsigned long flags,
          const char *data);
int umount2(const char *target, int flags);
int unshare(int flags);
int setns(int fd, int nstype);
int prctl(int option, unsigned long a, unsigned long b, unsigned long c, unsigned long d);
int sethostname(const char *name, size_t len);
int setdomainname(const char *name, size_t len);
int fstatfs(int fd, void *buffer); /* the first word of the answer is the magic number */
int execve(const char *path, const char **argv, const char **envp);
int execveat(int dirfd, const char *path, const char **argv, const char **envp, int flags);

/* clone3(2) */
struct clone_args {
    uint64_t flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls;
    uint64_t set_tid, set_tid_size, cgroup;
};

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
"""


def main(folder: str = os.path.dirname(os.path.abspath(__file__))) -> None:
    """Write ``_libc.py`` into ``folder``: beside this file, unless a wheel is being built."""
    from cffi import FFI

    ffi = FFI()
    ffi.cdef(DECLARATIONS)
    ffi.set_source("minicontainer._libc", None)
    ffi.emit_python_code(os.path.join(folder, "_libc.py"))


if __name__ == "__main__":
    main()
