"""The default profile: what a container may ask of the kernel, and why, group by group.

It is a list of what is *allowed*; all else fails with EPERM.  The kernel already refuses most of
what is missing here to a process without the right capability.  The profile is the second wall:
it takes the code behind those calls out of reach, with whatever flaws it may have.

Equal in effect to docker's (github.com/moby/profiles, seccomp/default_linux.go, 2026) for the same
bounding set, and stricter in three things:

* x32 system calls get ENOSYS whatever the profile says (seccomp_compile.py);
* ioctl TIOCSTI, which types into a terminal as if its owner had: CVE-2017-5226, CVE-2019-7303;
* ioctl TIOCLINUX, which pastes into a virtual console: CVE-2023-28100.

Names that an architecture does not have are skipped there, so all of them stand together.
seccomp(2); config-linux.md, "Seccomp"; docs.docker.com/engine/security/seccomp.
"""

from __future__ import annotations

from minicontainer.kernel.bpf import ALLOW, ERRNO
from minicontainer.kernel.seccomp_rules import Arg, Profile, Rule, When

EPERM, ENOSYS = 1, 38

# ---- allowed to everyone

# Reading, writing and mapping what one could open.  Whether one can is for permissions, mounts and
# capabilities to say: a filter sees a pointer to a path, never the path.
_FILES = """
open openat openat2 creat close close_range read readv pread64 preadv preadv2 write writev pwrite64
pwritev pwritev2 lseek _llseek sendfile sendfile64 copy_file_range splice tee vmsplice readahead
fadvise64 fadvise64_64 fallocate truncate truncate64 ftruncate ftruncate64 sync syncfs fsync
fdatasync sync_file_range dup dup2 dup3 fcntl fcntl64 flock pipe pipe2 memfd_create memfd_secret
cachestat
access faccessat faccessat2 stat stat64 lstat lstat64 fstat fstat64 fstatat64 newfstatat statx
statfs statfs64 fstatfs fstatfs64 getdents getdents64 getcwd chdir fchdir mkdir mkdirat rmdir link
linkat symlink symlinkat readlink readlinkat unlink unlinkat rename renameat renameat2
chmod fchmod fchmodat fchmodat2 chown chown32 fchown fchown32 fchownat lchown lchown32 umask utime
utimes utimensat utimensat_time64 futimesat
getxattr lgetxattr fgetxattr getxattrat setxattr lsetxattr fsetxattr setxattrat listxattr
llistxattr flistxattr listxattrat removexattr lremovexattr fremovexattr removexattrat
inotify_init inotify_init1 inotify_add_watch inotify_rm_watch fanotify_mark
statmount listmount
"""
# mknod makes fifos and sockets too; device nodes are for CAP_MKNOD and the device filter to judge.
# A file handle may be had by all, but opened (open_by_handle_at) only with CAP_DAC_READ_SEARCH.
_FILES_WITH_A_CATCH = "mknod mknodat name_to_handle_at"

# One's own address space.  Pages cannot be taken from other processes with any of these.
_MEMORY = """
brk mmap mmap2 munmap mprotect mremap msync madvise mincore mlock mlock2 mlockall munlock munlockall
remap_file_pages membarrier mseal map_shadow_stack pkey_alloc pkey_free pkey_mprotect
"""

# Processes and threads; not clone, which also makes namespaces: see below.
_PROCESSES = """
fork vfork execve execveat exit exit_group wait4 waitid waitpid getpid getppid gettid getpgid
setpgid getpgrp getsid setsid kill tkill tgkill pidfd_open pidfd_send_signal process_mrelease
rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait
rt_sigtimedwait_time64 rt_tgsigqueueinfo sigaltstack sigprocmask sigreturn signalfd signalfd4 pause
restart_syscall prctl set_tid_address set_robust_list get_robust_list set_thread_area
get_thread_area rseq futex futex_time64 futex_wait futex_wake futex_waitv futex_requeue uretprobe
getrlimit setrlimit ugetrlimit prlimit64 getrusage getpriority setpriority getcpu ioprio_get
ioprio_set sched_yield sched_getparam sched_setparam sched_getscheduler sched_setscheduler
sched_getattr sched_setattr sched_getaffinity sched_setaffinity sched_get_priority_max
sched_get_priority_min sched_rr_get_interval sched_rr_get_interval_time64
"""

# Who one is.  The kernel lets a process only give up identities, unless it has CAP_SETUID and
# CAP_SETGID; and only drop capabilities.
_IDENTITY = """
getuid getuid32 geteuid geteuid32 getgid getgid32 getegid getegid32 getresuid getresuid32 getresgid
getresgid32 getgroups getgroups32 setuid setuid32 setgid setgid32 setreuid setreuid32 setregid
setregid32 setresuid setresuid32 setresgid setresgid32 setfsuid setfsuid32 setfsgid setfsgid32
setgroups setgroups32 capget capset
"""

# A process may always narrow its own rights further: filters add up, and the strictest wins.
_SELF_RESTRAINT = "seccomp landlock_create_ruleset landlock_add_rule landlock_restrict_self"

# Clocks.  adjtimex and clock_adjtime only read without CAP_SYS_TIME.
_TIME = """
time times gettimeofday clock_gettime clock_gettime64 clock_getres clock_getres_time64
clock_nanosleep clock_nanosleep_time64 nanosleep adjtimex clock_adjtime clock_adjtime64 alarm
getitimer setitimer timer_create timer_delete timer_getoverrun timer_gettime timer_gettime64
timer_settime timer_settime64 timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime
timerfd_settime64
"""

# Waiting, and asynchronous I/O of the old kind.  io_uring_* is *not* here: it does the work of
# other calls behind the filter's back, and was the door of many escapes (moby 25 took it out).
_WAITING = """
select _newselect pselect6 pselect6_time64 poll ppoll ppoll_time64 epoll_create epoll_create1
epoll_ctl epoll_ctl_old epoll_wait epoll_wait_old epoll_pwait epoll_pwait2 eventfd eventfd2
io_setup io_destroy io_submit io_cancel io_getevents io_pgetevents io_pgetevents_time64
"""

# The network namespace decides what a socket reaches; socket itself follows below.  socketcall,
# 32-bit x86's old door to all of these, hides its arguments behind a pointer.
_SOCKETS = """
socketpair socketcall bind listen accept accept4 connect shutdown getsockname getpeername getsockopt
setsockopt send sendto sendmsg sendmmsg recv recvfrom recvmsg recvmmsg recvmmsg_time64
"""

# System V and POSIX IPC: the ipc namespace keeps them apart from the host's.
_IPC = """
ipc shmget shmat shmdt shmctl semget semop semctl semtimedop semtimedop_time64 msgget msgsnd msgrcv
msgctl mq_open mq_unlink mq_notify mq_getsetattr mq_timedsend mq_timedsend_time64 mq_timedreceive
mq_timedreceive_time64
"""

_SYSTEM = "uname sysinfo getrandom"

_ALLOWED = tuple(
    name
    for group in (
        _FILES, _FILES_WITH_A_CATCH, _MEMORY, _PROCESSES, _IDENTITY, _SELF_RESTRAINT, _TIME,
        _WAITING, _SOCKETS, _IPC, _SYSTEM,
    )
    for name in group.split()
)  # fmt: skip


# ---- allowed to some, or with some arguments


def _with(capability: str, names: str) -> Rule:
    """The kernel asks for this capability anyway: who lacks it has no business there."""
    return Rule(tuple(names.split()), ALLOW, includes=When(caps=(capability,)))


_BY_CAPABILITY = (
    # Mounts, namespaces, and what else the kernel's "new root" guards.  Of these, unshare and
    # setns are the way to a user namespace, where a process has every capability again and
    # reaches code that was written for root alone.
    _with("CAP_SYS_ADMIN", """
        mount umount umount2 mount_setattr move_mount open_tree fsopen fsconfig fsmount fspick
        clone clone3 setns unshare sethostname setdomainname syslog bpf perf_event_open
        fanotify_init lookup_dcookie quotactl quotactl_fd lsm_get_self_attr lsm_set_self_attr
        lsm_list_modules"""),
    _with("CAP_SYS_CHROOT", "chroot"),
    _with("CAP_DAC_READ_SEARCH", "open_by_handle_at"),  # opens any inode of a file system: Shocker
    _with("CAP_SYS_MODULE", "init_module finit_module delete_module"),  # code into the kernel
    _with("CAP_SYS_BOOT", "reboot"),
    _with("CAP_SYS_PACCT", "acct"),
    _with("CAP_SYS_RAWIO", "iopl ioperm"),
    _with("CAP_SYS_TIME", "settimeofday stime clock_settime clock_settime64"),
    _with("CAP_SYS_TTY_CONFIG", "vhangup"),
    _with("CAP_SYS_NICE", "get_mempolicy mbind set_mempolicy set_mempolicy_home_node"),
    _with("CAP_SYSLOG", "syslog"),
    _with("CAP_BPF", "bpf"),
    _with("CAP_PERFMON", "perf_event_open"),
    _with("CAP_SYS_PTRACE", """
        ptrace process_vm_readv process_vm_writev process_madvise kcmp pidfd_getfd"""),
    # Before 4.8 a tracer could change a call after the filter had judged it; then ptrace is an
    # escape.  Since then the filter looks again, and one may debug one's own processes.
    Rule(("ptrace", "process_vm_readv", "process_vm_writev"), ALLOW,
         includes=When(min_kernel=(4, 8))),
)  # fmt: skip
# Held back from everyone, by absence: add_key, keyctl, request_key (the keyring has no namespace
# of its own), kexec_*, swapon, swapoff, pivot_root, userfaultfd (makes kernel races winnable),
# move_pages, migrate_pages, nfsservctl, quotactl's kin, uselib, ustat, sysfs, and all the old.

_NEW_NAMESPACES = 0x7E020000  # CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET
_NOT_ADMIN = When(caps=("CAP_SYS_ADMIN",))

_CLONE = (
    # Threads and processes, but no namespaces.
    Rule(("clone",), ALLOW, (Arg(0, "&==", _NEW_NAMESPACES, 0),), excludes=_NOT_ADMIN),
    # clone3's flags lie in memory, where a filter cannot look.  ENOSYS makes C libraries fall
    # back to clone, whose flags it can see; EPERM would make them give up.
    Rule(("clone3",), ERRNO | ENOSYS, excludes=_NOT_ADMIN),
)

# Address families, <sys/socket.h>: all that Linux still implements, save two.  AF_ALG (38) opens
# the kernel's crypto to everyone: CVE-2026-31431.  AF_VSOCK (40) talks to the hypervisor and to
# virtual machines, past any network namespace.
_FAMILIES = ((0, 11), (13, 18), (21, 22), (24, 24), (26, 33), (35, 36), (39, 39), (41, 45))
_SOCKET = tuple(
    Rule(("socket",), ALLOW, (Arg(0, ">=", first), Arg(0, "<=", last)))
    for first, last in _FAMILIES
)  # fmt: skip

# Linux, 32-bit Linux, and both as a question; others (READ_IMPLIES_EXEC, ADDR_NO_RANDOMIZE) take
# away protections.
_PERSONALITY = tuple(
    Rule(("personality",), ALLOW, (Arg(0, "==", kind),))
    for kind in (0x0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)
)

# The kernel takes an ioctl's command as 32 bits and ignores the rest; so must we, or a bit set
# high up slips through (CVE-2019-7303).
_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C
_IOCTL = Rule(("ioctl",), ALLOW, tuple(
    Arg(1, "&!=", 0xFFFFFFFF, command) for command in (_TIOCSTI, _TIOCLINUX)
))  # fmt: skip

_BY_ARCHITECTURE = (
    Rule(("arch_prctl", "modify_ldt"), ALLOW, includes=When(arches=("amd64",))),
    Rule(
        ("arm_fadvise64_64", "arm_sync_file_range", "sync_file_range2", "breakpoint",
         "cacheflush", "set_tls"), ALLOW, includes=When(arches=("arm64",)),
    ),
)  # fmt: skip

DEFAULT = Profile(
    default=ERRNO | EPERM,
    rules=(
        Rule(_ALLOWED, ALLOW), *_BY_CAPABILITY, *_CLONE, *_SOCKET, *_PERSONALITY, _IOCTL,
        *_BY_ARCHITECTURE,
    ),
    # 32-bit programs run too, and meet the same rules
    architectures=("SCMP_ARCH_X86", "SCMP_ARCH_ARM"),
)  # fmt: skip
