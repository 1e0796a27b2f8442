/*
 * A child that borrows our memory, and takes turns with us: the C half of kernel/clone.py.
 *
 * clone3(2) with CLONE_VM makes a process that has everything of its own (descriptors, directory,
 * namespaces, credentials) but memory: that is ours, the Python interpreter in it included.  The
 * two never run Python at the same time.  The child sleeps in recv(2) until it is given a turn;
 * while it has its turn, we sleep.  In a turn it calls one Python function, as this very thread
 * would; what the function leaves in memory is there for us afterwards, and what it asks of the
 * kernel (mounts, credentials, ...) has happened to the child alone.  When it executes a program,
 * the kernel gives it memory of its own: vfork(2) is the same idea with one long turn.
 *
 * These few lines are in C because nothing of a Python frame may be left open when the child
 * leaves: execve(2) is called when the interpreter is at rest.
 *
 * Man pages: clone(2), vfork(2), execveat(2); docs.python.org/3/c-api/init.html (thread states).
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#define STACK (8 << 20) /* bytes of address space; only what is touched becomes memory */
#define GUARD 4096      /* below it: running into it is a fault, not somebody else's data */

struct child {
    int wire, host_end; /* a socket pair: the child's end, and ours */
    int pidfd;
    uint64_t turn;        /* the Python function to call: a PyObject * */
    void *state;          /* the child's own PyThreadState: ours stays as it is, whatever happens */
    char *stack;
    uint64_t mask;        /* of signals: what its program starts with, unless a step says more */
    /* What to execute at the end of a turn; argv NULL: nothing yet. */
    int program;          /* a descriptor for execveat(2), or AT_FDCWD: then it is `path` */
    const char *path;
    const char *path_again; /* tried where execveat(2) is forbidden; may be NULL */
    const char **argv, **envp;
    int error;            /* execve(2) failed with this errno */
    int left;             /* execve(2) has been called: if the child is gone, that is why */
    int busy;             /* it is in Python: if it is gone, it was killed there */
    int failed;           /* Python could not even begin its turn */
};

/* Python's private notion of who holds the interpreter lock in this thread. */
static PyThreadState *current_state(void)
{
#if PY_VERSION_HEX >= 0x030D0000
    return PyThreadState_GetUnchecked();
#else
    return _PyThreadState_UncheckedGet();
#endif
}

/* From 3.14 on Python compares the stack pointer with the stack it believes to be on. */
extern int PyUnstable_ThreadState_SetStackProtection(PyThreadState *, void *, size_t)
    __attribute__((weak));

static void execute(struct child *me)
{
    int flags = me->program == AT_FDCWD ? 0 : AT_EMPTY_PATH, error;
    uint64_t mask;

    /* Still blocked since birth (all but SIGKILL)?  A program inherits what its runtime had. */
    if (!syscall(SYS_rt_sigprocmask, SIG_SETMASK, NULL, &mask, 8) && mask & 1 << (SIGTERM - 1))
        syscall(SYS_rt_sigprocmask, SIG_SETMASK, &me->mask, NULL, 8);
    me->left = 1;
    syscall(SYS_execveat, me->program, me->path, me->argv, me->envp, flags);
    error = errno;
    if (me->path_again && (error == EPERM || error == EACCES || error == ENOSYS))
        execve(me->path_again, (char *const *)me->argv, (char *const *)me->envp);
    me->error = error; /* still here */
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, &mask, NULL, 8);
    me->left = 0;
    me->argv = NULL;
}

/* The child, between clone3(2) and execve(2), on a stack of its own. */
__attribute__((noreturn, used)) static void child_lives(struct child *me)
{
    struct pollfd host = { .fd = me->wire };
    char word;

    close(me->host_end); /* with a copy open here, the death of the runtime would go unnoticed */
    for (;;) {
        if (recv(me->wire, &word, 1, 0) != 1)
            _exit(125); /* the runtime is gone */
        me->busy = 1;
        PyEval_RestoreThread(me->state);
        PyObject *nothing = PyObject_CallObject((PyObject *)(uintptr_t)me->turn, NULL);
        if (!nothing) { /* clone.py's function catches what is raised in it, so it never began */
            PyErr_Clear();
            me->failed = 1;
        }
        Py_XDECREF(nothing);
        PyEval_SaveThread();
        me->busy = 0;
        if (me->argv) {
            /* From here on the runtime's death is noticed by others: the kernel's death signal,
               or a trampoline that waits.  Before here, by this. */
            if (poll(&host, 1, 0) > 0 && host.revents & POLLHUP)
                _exit(125);
            execute(me);
        }
        if (send(me->wire, &word, 1, MSG_NOSIGNAL) != 1)
            _exit(125);
    }
}

/* clone3(2), as syscall(2) would make it; but the child cannot return to where its parent called
   from, for it is on another stack: it goes straight to child_lives, and never comes back. */
static long clone3_to_child(struct clone_args *args, struct child *child)
{
    long result;
#if defined __x86_64__
    register struct child *whose __asm__("r8") = child; /* a system call keeps all but rcx, r11 */
    __asm__ volatile("syscall\n\t"
                     "test %%rax, %%rax\n\t"
                     "jnz 1f\n\t"
                     "xor %%ebp, %%ebp\n\t" /* the end of the list of frames */
                     "mov %%r8, %%rdi\n\t"
                     "call *%[lives]\n"
                     "1:"
                     : "=a"(result)
                     : "a"((long)SYS_clone3), "D"(args), "S"(sizeof *args), "r"(whose),
                       [lives] "b"(child_lives)
                     : "rcx", "r11", "memory");
#elif defined __aarch64__
    register long x0 __asm__("x0") = (long)args;
    register long x1 __asm__("x1") = sizeof *args;
    register long x8 __asm__("x8") = SYS_clone3;
    register struct child *whose __asm__("x9") = child;
    register void (*lives)(struct child *) __asm__("x10") = child_lives;
    __asm__ volatile("svc 0\n\t"
                     "cbnz x0, 1f\n\t"
                     "mov x29, xzr\n\t"
                     "mov x0, x9\n\t"
                     "blr x10\n"
                     "1:"
                     : "+r"(x0)
                     : "r"(x1), "r"(x8), "r"(whose), "r"(lives)
                     : "memory");
    result = x0;
#else
#error "minicontainer knows x86_64 and aarch64"
#endif
    return result;
}

/* Make the child: its pid, or -errno.  It waits for its first turn.  Of our signal handlers it gets
   none; nor may they run in it before it is born, for it has our memory, but it is not us.  So our
   caller has blocked all signals, and they stay blocked in the child until its program runs. */
static long child_start(struct child *child, uint64_t flags, int cgroup)
{
    struct clone_args args = {
        .flags = flags | CLONE_VM | CLONE_PIDFD | CLONE_CLEAR_SIGHAND,
        .pidfd = (uint64_t)(uintptr_t)&child->pidfd,
        .exit_signal = SIGCHLD,
        .stack = (uint64_t)(uintptr_t)child->stack,
        .stack_size = STACK,
        .cgroup = cgroup,
    };

    return clone3_to_child(&args, child);
}

/* Has somebody asked us to end?  The signal is blocked, so it waits. */
static int asked_to_end(void)
{
    static const int asking[] = { SIGINT, SIGTERM, SIGHUP, SIGQUIT };
    sigset_t waiting;

    sigpending(&waiting);
    for (unsigned i = 0; i < sizeof asking / sizeof *asking; i++)
        if (sigismember(&waiting, asking[i]) == 1)
            return 1;
    return 0;
}

static struct sigaction alarm_before;

static void give_up(int signal)
{
    static const char words[] =
        "minicontainer: the container's first process was killed while it held the interpreter's "
        "lock, and nobody can take it back: this process ends; the next command cleans up\n";

    (void)signal;
    (void)!write(2, words, sizeof words - 1);
    _exit(125);
}

/* Give the child its turn and sleep meanwhile, with all signals blocked: a handler would ask the
   interpreter, in which the child is, to call its Python half.
   1: it has come back to wait for another.  0: it has left our memory, by executing its program or
   by dying.  -1: it died in the middle of Python; child_recovered() is to be called next. */
static int child_turn(struct child *child)
{
    struct pollfd wire = { .fd = child->host_end, .events = POLLIN };
    struct sigaction ending = { .sa_handler = give_up };
    char words[2];
    ssize_t size = -1;
    sigset_t set;

    if (send(child->host_end, "t", 1, MSG_NOSIGNAL) == 1) {
        /* One that is stopped, frozen or stuck must not make us deaf to Ctrl-C. */
        while (poll(&wire, 1, 500) == 0)
            if (asked_to_end())
                syscall(SYS_pidfd_send_signal, child->pidfd, SIGKILL, NULL, 0);
        /* Peek: what the trampoline says, once it is the child's program, is for others. */
        size = recv(child->host_end, words, sizeof words, MSG_PEEK);
        if (size == 1)
            recv(child->host_end, words, 1, 0);
    }
    if (size == 1 || !child->busy)
        return size == 1;
    /* Killed in Python, it may have been between any two instructions: with the interpreter's
       lock, which nobody else can let go, or in the middle of taking it, which nobody can mend. */
    sigaction(SIGALRM, &ending, &alarm_before);
    sigemptyset(&set);
    sigaddset(&set, SIGALRM);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    alarm(2);
    if (current_state() == child->state)
        PyEval_SaveThread();
    return -1;
}

/* Back in Python: the lock could be taken. */
static void child_recovered(void)
{
    alarm(0);
    sigaction(SIGALRM, &alarm_before, NULL);
}

static void *spare; /* the stack of a child that has left: its pages need not be found again */

/* A stack and a thread state for the child: 0, or an errno. */
static int child_prepare(struct child *child)
{
    PyGILState_STATE mine;
    int error = 0;

    child->stack = __atomic_exchange_n(&spare, NULL, __ATOMIC_ACQ_REL);
    if (!child->stack) {
        void *fresh = mmap(NULL, STACK, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK | MAP_NORESERVE, -1, 0);
        if (fresh == MAP_FAILED)
            return errno;
        mprotect(fresh, GUARD, PROT_NONE);
        child->stack = fresh;
    }

    mine = PyGILState_Ensure();
    child->state = PyThreadState_New(PyThreadState_GetInterpreter(PyThreadState_Get()));
    if (!child->state)
        error = ENOMEM;
#if PY_VERSION_HEX >= 0x030E0000
    else if (!PyUnstable_ThreadState_SetStackProtection)
        error = ENOSYS;
    else if (PyUnstable_ThreadState_SetStackProtection(child->state, child->stack, STACK))
        error = EINVAL;
#endif
    PyGILState_Release(mine);
    return error;
}

/* The child has left our memory: what was made for it is free again.  But where it was killed in
   the middle of Python, its frames still lie there, and others may point to them: they stay. */
static void child_free(struct child *child)
{
    if (child->busy)
        return;
    if (child->state) {
        PyGILState_STATE mine = PyGILState_Ensure();
        PyThreadState_Clear(child->state);
        PyThreadState_Delete(child->state);
        PyGILState_Release(mine);
    }
    if (child->stack) {
        void *older = __atomic_exchange_n(&spare, child->stack, __ATOMIC_ACQ_REL);
        if (older)
            munmap(older, STACK);
    }
    child->state = NULL;
    child->stack = NULL;
}
