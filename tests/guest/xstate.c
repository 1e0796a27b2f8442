/* A ptrace(2) for User-Mode Linux on processors whose registers are larger than it knows.
 *
 * UML keeps the floating point and vector registers of a process in 2696 bytes, enough for
 * AVX-512.  A processor with AMX has 11008, and its kernel takes all of them or none: PTRACE_SETREGSET
 * of less is EFAULT, and the guest's first process dies with "ptrace set fp regs failed, errno = 14".
 * (Linux 6.14 as UML asks for the size; Debian 12 and 13 are older.)
 *
 * So read all of them, put UML's bytes over the first part, and write all of them back.
 *
 * By hand:  gcc -shared -fPIC -o xstate.so xstate.c; LD_PRELOAD=./xstate.so linux.uml ...
 */
#include <elf.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { ROOM = 65536 };

long ptrace(enum __ptrace_request request, ...)
{
    va_list args;
    va_start(args, request);
    pid_t pid = va_arg(args, pid_t);
    void *address = va_arg(args, void *);
    void *data = va_arg(args, void *);
    va_end(args);

    static char all[ROOM]; /* UML is one thread */
    struct iovec *part = data, whole = { all, ROOM };
    if (request == PTRACE_SETREGSET && (long)address == NT_X86_XSTATE
        && syscall(SYS_ptrace, PTRACE_GETREGSET, pid, address, &whole) == 0
        && part->iov_len < whole.iov_len) {
        memcpy(all, part->iov_base, part->iov_len);
        data = &whole;
    }
    /* The C library's promise, which the system call does not keep: PEEK returns the word. */
    long word;
    if (request >= PTRACE_PEEKTEXT && request <= PTRACE_PEEKUSER)
        return syscall(SYS_ptrace, request, pid, address, &word) < 0 ? -1 : word;
    return syscall(SYS_ptrace, request, pid, address, data);
}
