/*
 * The trampoline: the first program of every container, for some fifty microseconds.
 *
 * Why it exists.  The process that becomes a container is a Python interpreter of the *host*.  If
 * that process itself called execve(2) on the image's program, the kernel would, while it opens
 * that program, still answer "/proc/self/exe" with the host's interpreter.  An image that names
 * /proc/self/exe as its program (or after #!, or as its ELF loader) would so be handed the host's
 * /usr/bin/python3, and a patient root in the container could write to it.  That is CVE-2019-5736.
 *
 * So Python's last act is to become this program, from a sealed copy that nobody can write to
 * (kernel/seal.py), and this program becomes the image's.  /proc/self/exe is then the copy.
 *
 * How it is called:
 *
 *     argv[0]              argv[1]   argv[2]   argv[3]   argv[4]...
 *     minicontainer-exec   WIRE      WHEN      PROGRAM   ARGV...     become PROGRAM
 *     minicontainer-init   WIRE      WHEN      PROGRAM   ARGV...     start PROGRAM, stay as its pid 1
 *
 * WIRE is the number of the descriptor that leads to the runtime.  It is closed on a successful
 * exec: to the runtime, end of file means "the container runs".  WHEN is "go", or "wait": then the
 * host has something left to do to this process, so we say READY and wait until it says GO.  Words
 * about a failure are separated by NUL bytes, as everywhere on the wire.
 *
 * No C library: whatever stands here runs in the container, behind its seccomp filter, with an
 * environment that the image wrote.  A C library would make twelve system calls and read that
 * environment before main(), and would take seven times as long (0.4 ms more).
 *
 * Man pages: execve(2), syscall(2), pid_namespaces(7).
 */
#include <asm/errno.h>
#include <asm/ioctls.h>
#include <asm/signal.h>
#include <asm/unistd.h>
#include <linux/fcntl.h>
#include <linux/prctl.h>
#include <linux/uio.h>
#include <linux/wait.h>

/* A system call, as syscall(2) makes it: the number and the arguments move to the registers where
   the kernel expects them, then the trap.  It returns -errno on failure. */
long sys(long number, long a, long b, long c, long d);

/* The kernel enters a program at _start, with argc, argv and envp lying on the stack. */
__attribute__((noreturn)) void begin(long *stack);

#if defined __x86_64__
__asm__(".globl _start\n _start: mov %rsp, %rdi\n  and $-16, %rsp\n  call begin\n"
        ".globl sys\n sys: mov %rdi, %rax\n  mov %rsi, %rdi\n  mov %rdx, %rsi\n"
        "  mov %rcx, %rdx\n  mov %r8, %r10\n  syscall\n  ret\n");
#elif defined __aarch64__
__asm__(".globl _start\n _start: mov x0, sp\n  bl begin\n"
        ".globl sys\n sys: mov x8, x0\n  mov x0, x1\n  mov x1, x2\n"
        "  mov x2, x3\n  mov x3, x4\n  svc 0\n  ret\n");
#else
#error "minicontainer knows x86_64 and aarch64"
#endif

static long length(const char *text)
{
    long n = 0;
    while (text[n])
        n++;
    return n;
}

__attribute__((noreturn)) static void leave(long status)
{
    for (;;)
        sys(__NR_exit_group, status, 0, 0, 0);
}

static void put(struct iovec *piece, const char *bytes, long size)
{
    piece->iov_base = (void *)bytes;
    piece->iov_len = size;
}

/* ERROR, step, call, arguments, errno, meaning, hint: one message, the last two words empty. */
__attribute__((noreturn)) static void fail(long wire, const char *program, long error)
{
    char number[] = "000\0"; /* every errno has at most three digits; then two empty words */
    long digits = error > 99 ? 3 : error > 9 ? 2 : 1;
    struct iovec message[4];

    for (long i = 2, left = error; i >= 0; i--, left /= 10)
        number[i] = '0' + left % 10;
    put(&message[0], "ERROR\0exec\0execve\0\"", 19);
    put(&message[1], program, length(program));
    put(&message[2], "\"", 2);
    put(&message[3], number + 3 - digits, digits + 2);
    sys(__NR_writev, wire, (long)message, 4, 0);
    leave(error == ENOENT ? 127 : 126); /* the shell's numbers: not found, cannot be executed */
}

__attribute__((noreturn)) static void become(long wire, char **argv, char **envp)
{
    sys(__NR_fcntl, wire, F_SETFD, FD_CLOEXEC, 0);
    fail(wire, argv[0], -sys(__NR_execve, (long)argv[0], (long)(argv + 1), (long)envp, 0));
}

/* docker's --init.  Pid 1 is special twice: the kernel drops signals for which it has no handler,
   and every orphan becomes its child.  A program that knows neither cannot be stopped politely
   and gathers zombies; so a small pid 1 stands before it, which does nothing else. */
__attribute__((noreturn)) static void stay(long wire, char **argv, char **envp)
{
    unsigned long every = ~0ul, before = 0; /* signal sets: one bit a signal */
    long child, signal, dead;
    int status = 0, self;

    /* A blocked signal waits in the queue, even for pid 1: we take them out one by one below.
       Blocked before the fork, so that none is lost between the two. */
    sys(__NR_rt_sigprocmask, SIG_SETMASK, (long)&every, (long)&before, sizeof every);
    /* Orphans come to pid 1 by themselves; with --pid host we are not pid 1, so we ask. */
    sys(__NR_prctl, PR_SET_CHILD_SUBREAPER, 1, 0, 0);
    sys(__NR_prctl, PR_SET_NAME, (long)"mini:[init]", 0, 0);

    child = sys(__NR_clone, SIGCHLD, 0, 0, 0); /* fork(2), as the kernel spells it */
    if (child < 0)
        fail(wire, argv[0], -child);
    if (child == 0) {
        /* A process group of its own, in front of the terminal if there is one: Ctrl-C then
           reaches the program and its children, and us not at all. */
        sys(__NR_setpgid, 0, 0, 0, 0);
        self = sys(__NR_getpid, 0, 0, 0, 0);
        sys(__NR_ioctl, 0, TIOCSPGRP, (long)&self, 0);
        sys(__NR_rt_sigprocmask, SIG_SETMASK, (long)&before, 0, sizeof before);
        become(wire, argv, envp);
    }
    sys(__NR_close, wire, 0, 0, 0); /* or the runtime would never see the end of file */

    for (;;) {
        signal = sys(__NR_rt_sigtimedwait, (long)&every, 0, 0, sizeof every); /* sleeps */
        if (signal > 0 && signal != SIGCHLD)
            sys(__NR_kill, child, signal, 0, 0);
        /* Many deaths may hide behind one SIGCHLD: reap until none is left. */
        while ((dead = sys(__NR_wait4, -1, (long)&status, WNOHANG, 0)) > 0)
            if (dead == child) /* its status is ours: the code, or 128 + the killing signal */
                leave(status & 0x7f ? 128 + (status & 0x7f) : status >> 8 & 0xff);
    }
}

static int same(const char *a, const char *b)
{
    while (*a && *a == *b)
        a++, b++;
    return *a == *b;
}

void begin(long *stack)
{
    long argc = stack[0], wire = 0;
    char **argv = (char **)(stack + 1), **envp = argv + argc + 1;
    char word[8];
    static const char usage[] = "this is minicontainer's trampoline; it is started by the runtime\n";

    if (argc >= 5) {
        for (const char *digit = argv[1]; *digit >= '0' && *digit <= '9'; digit++)
            wire = wire * 10 + *digit - '0';
        if (same(argv[2], "wait")) {
            sys(__NR_write, wire, (long)"READY", 5, 0);
            if (sys(__NR_read, wire, (long)word, sizeof word, 0) != 2) /* GO */
                leave(125); /* the runtime is gone: nobody would wait for this container */
        }
        if (same(argv[0], "minicontainer-exec"))
            become(wire, argv + 3, envp);
        if (same(argv[0], "minicontainer-init"))
            stay(wire, argv + 3, envp);
    }
    sys(__NR_write, 2, (long)usage, sizeof usage - 1, 0);
    leave(126);
}
