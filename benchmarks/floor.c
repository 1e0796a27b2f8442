/* The floor: a docker-like container from bare system calls, with no runtime around them.
 *
 * No runtime can start a container in less time than the kernel needs for the calls.  This program
 * makes the calls of minicontainer/plan.py, in that order, and nothing else: no records for a later
 * clean-up, no words between the two processes, no careful lookup of paths.
 *
 *   floor OPTIONS -- CMD [ARG...]             one container; exits with its status
 *   floor OPTIONS --serve -- CMD [ARG...]     "N\n" on stdin: N containers, their times in ms on stdout
 *   floor OPTIONS --stages N -- CMD [ARG...]  what each group of calls adds, medians of N rounds
 *
 * OPTIONS  --rootfs DIR       the lower layer; CMD is an absolute path inside it
 *          --scratch DIR      where each container's upper and work directories are made and removed
 *          --cgroup DIR       a cgroup2 directory to make each container's cgroup in
 *          --seccomp FILE     the filter: a bare array of struct sock_filter
 *          --trampoline FILE  the program that is sealed and executed before CMD
 *          --heap MB          touch that much memory first, as a parent with a big heap has
 *
 * Build: cc -O2 -o floor floor.c     (glibc 2.36 or later)
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <getopt.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/close_range.h>
#include <linux/filter.h>
#include <linux/keyctl.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum stage { EXEC, NAMESPACES, NETWORK, ROOT, MOUNTS, DEVICES, FILES, MASKS, POWER, FILTER, SEAL,
             CGROUP, STAGES };
static const char *const stage_names[STAGES] = {
    "clone3, execve, wait",
    "+ mount, pid, uts, ipc, cgroup namespaces",
    "+ network namespace, lo up",
    "+ scratch, overlay, /proc, pivot_root",
    "+ /dev, pts, shm, mqueue, /sys, cgroup2",
    "+ device nodes and links",
    "+ hosts, hostname, resolv.conf, sysctls",
    "+ masked and read-only paths",
    "+ keyring, capabilities, user, signals",
    "+ seccomp filter",
    "+ sealed trampoline",
    "+ cgroup of its own",
};
static const enum stage ALL = STAGES - 1;

/* docker's fourteen capabilities, as bits */
static const unsigned long long CAPS_KEPT = 0xa80425fbULL;
static const int STRICT = MS_NOSUID | MS_NODEV | MS_NOEXEC;

static const char *rootfs, *scratch, *cgroup, *seccomp_file, *trampoline_file;
static struct sock_fprog filter;

/* ------------------------------------------------------------------------------------- helpers */

static void need(long result, const char *what)
{
    if (result >= 0)
        return;
    fprintf(stderr, "floor: %s: %s\n", what, strerror(errno));
    _exit(99);
}

/* DIR/NAME, in one of eight buffers: enough for the few that are in use at the same time */
static char *below(const char *dir, const char *name)
{
    static char ring[8][640];
    static int turn;
    char *path = ring[turn++ % 8];
    snprintf(path, sizeof ring[0], "%s/%s", dir, name);
    return path;
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1e3 + t.tv_nsec / 1e6;
}

static void write_file(const char *path, int flags, const char *text)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC | flags, 0644);
    need(fd, path);
    need(write(fd, text, strlen(text)), path);
    close(fd);
}

/* ----------------------------------------------------------------- on the host, before the clone */

static char here[512]; /* this container's directory */

static void make_scratch(void)
{
    need(mkdir(here, 0700), here);
    need(mkdir(below(here, "upper"), 0755), "upper");
    need(mkdir(below(here, "work"), 0755), "work");
    need(mkdir(below(here, "root"), 0755), "root");
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st, (void)type, (void)ftw;
    return remove(path);
}

static int seal_trampoline(void)
{
    int source = open(trampoline_file, O_RDONLY | O_CLOEXEC);
    need(source, trampoline_file);
    int copy = memfd_create("trampoline", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    need(copy, "memfd_create");
    while (sendfile(copy, source, NULL, 1 << 20) > 0)
        ;
    close(source);
    need(fcntl(copy, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL), "seal");
    return copy;
}

/* --------------------------------------------------- in the container, with the host's files */

static void stack_layers(void)
{
    char options[2048];
    need(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), "make / private");
    snprintf(options, sizeof options, "lowerdir=%s,upperdir=%s/upper,workdir=%s/work,volatile",
             rootfs, here, here);
    need(mount("overlay", below(here, "root"), "overlay", 0, options), "overlay");
    need(chdir(below(here, "root")), "chdir to the new root");
    need(mount("proc", "proc", "proc", STRICT, NULL), "/proc");
}

static void make_devices(void)
{
    static const struct { const char *path; int major, minor; } nodes[] = {
        {"dev/null", 1, 3},   {"dev/zero", 1, 5},    {"dev/full", 1, 7},
        {"dev/random", 1, 8}, {"dev/urandom", 1, 9}, {"dev/tty", 5, 0},
    };
    static const char *const links[][2] = {
        {"/proc/self/fd", "dev/fd"},       {"/proc/self/fd/0", "dev/stdin"},
        {"/proc/self/fd/1", "dev/stdout"}, {"/proc/self/fd/2", "dev/stderr"},
        {"pts/ptmx", "dev/ptmx"},
    };
    for (size_t i = 0; i < sizeof nodes / sizeof *nodes; i++) {
        dev_t device = makedev(nodes[i].major, nodes[i].minor);
        need(mknod(nodes[i].path, S_IFCHR | 0666, device), nodes[i].path);
        need(chown(nodes[i].path, 0, 0), nodes[i].path);
        need(chmod(nodes[i].path, 0666), nodes[i].path); /* mknod's mode went through the umask */
    }
    for (size_t i = 0; i < sizeof links / sizeof *links; i++)
        need(symlink(links[i][0], links[i][1]), links[i][1]);
}

static void mount_filesystems(enum stage stage)
{
    need(mount("tmpfs", "dev", "tmpfs", MS_NOSUID | MS_STRICTATIME, "mode=755,size=65536k"), "/dev");
    if (stage >= DEVICES)
        make_devices();
    need(mkdir("dev/pts", 0755), "dev/pts");
    need(mount("devpts", "dev/pts", "devpts", MS_NOSUID | MS_NOEXEC,
               "newinstance,ptmxmode=0666,mode=0620,gid=5"), "/dev/pts");
    need(mount("sysfs", "sys", "sysfs", STRICT | MS_RDONLY, NULL), "/sys");
    need(mount("cgroup", "sys/fs/cgroup", "cgroup2", STRICT | MS_RDONLY, NULL), "/sys/fs/cgroup");
    need(mkdir("dev/mqueue", 0755), "dev/mqueue");
    need(mount("mqueue", "dev/mqueue", "mqueue", STRICT, NULL), "/dev/mqueue");
    need(mkdir("dev/shm", 0755), "dev/shm");
    need(mount("shm", "dev/shm", "tmpfs", STRICT, "mode=1777,size=67108864"), "/dev/shm");
}

/* Hang a copy of the mount behind SOURCE on the file behind PLACE. */
static void hang(int source, int place, const char *what)
{
    int tree = open_tree(source, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH);
    need(tree, what);
    need(move_mount(tree, "", place, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH), what);
    close(tree);
}

static void provide_files(void)
{
    static const char *const files[][2] = {
        {"hostname", "floor\n"}, {"hosts", "127.0.0.1 localhost\n"}, {"resolv.conf", "# none\n"},
    };
    for (int i = 0; i < 3; i++) {
        char *target = below("etc", files[i][0]), *source = below(here, files[i][0]);
        write_file(source, O_CREAT | O_EXCL, files[i][1]);
        int file = open(source, O_PATH | O_CLOEXEC);
        int place = open(target, O_RDONLY | O_CREAT | O_CLOEXEC, 0644); /* to be mounted on */
        need(place, target);
        hang(file, place, target);
        close(file);
        close(place);
    }
    write_file("proc/sys/net/ipv4/ip_unprivileged_port_start", O_TRUNC, "0");
    write_file("proc/sys/net/ipv4/ping_group_range", O_TRUNC, "0 2147483647");
}

static void raise_loopback(void)
{
    struct ifreq request = {.ifr_name = "lo"};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    need(fd, "socket");
    need(ioctl(fd, SIOCGIFFLAGS, &request), "lo");
    request.ifr_flags |= IFF_UP;
    need(ioctl(fd, SIOCSIFFLAGS, &request), "lo up");
    close(fd);
}

static void pivot(void)
{
    need(syscall(SYS_pivot_root, ".", "."), "pivot_root"); /* the old root now lies over the new */
    need(umount2(".", MNT_DETACH), "detach the old root");
    need(chdir("/"), "chdir /");
}

/* ------------------------------------------------------ in the container, with its own files */

static void hide_and_protect(void)
{
    static const char *const masked[] = {
        "/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys",
        "/proc/latency_stats", "/proc/sched_debug", "/proc/scsi", "/proc/timer_list",
        "/proc/timer_stats", "/sys/devices/virtual/powercap", "/sys/firmware",
    };
    static const char *const readonly[] = {
        "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger",
    };
    struct mount_attr read_only = {.attr_set = MOUNT_ATTR_RDONLY};
    struct stat st;
    int null = open("/dev/null", O_PATH | O_CLOEXEC);
    need(null, "/dev/null");
    for (size_t i = 0; i < sizeof masked / sizeof *masked; i++) {
        int place = open(masked[i], O_PATH | O_NOFOLLOW | O_CLOEXEC);
        if (place < 0)
            continue; /* not every kernel has every path */
        need(fstat(place, &st), masked[i]);
        if (S_ISDIR(st.st_mode))
            need(mount("tmpfs", masked[i], "tmpfs", MS_RDONLY, "size=0k"), masked[i]);
        else
            hang(null, place, masked[i]);
        close(place);
    }
    close(null);
    for (size_t i = 0; i < sizeof readonly / sizeof *readonly; i++) {
        int place = open(readonly[i], O_PATH | O_NOFOLLOW | O_CLOEXEC);
        if (place < 0)
            continue;
        int tree = open_tree(place, "", OPEN_TREE_CLONE | AT_EMPTY_PATH | AT_RECURSIVE);
        need(mount_setattr(tree, "", AT_EMPTY_PATH | AT_RECURSIVE, &read_only, sizeof read_only),
             readonly[i]);
        need(move_mount(tree, "", place, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH),
             readonly[i]);
        close(tree);
        close(place);
    }
}

static void give_up_power(enum stage stage)
{
    static const gid_t groups[] = {0, 1, 2, 3, 4, 6, 10, 11, 20, 26, 27}; /* Alpine's root's */
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct sets[2] = {{CAPS_KEPT, CAPS_KEPT, 0}, {0, 0, 0}};
    need(syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, "floor"), "keyctl");
    need(close_range(3, ~0U, CLOSE_RANGE_CLOEXEC), "close_range");
    for (int cap = 0; cap <= CAP_LAST_CAP; cap++)
        if (!(CAPS_KEPT >> cap & 1))
            need(prctl(PR_CAPBSET_DROP, cap, 0, 0, 0), "PR_CAPBSET_DROP");
    if (stage >= FILTER) /* without no_new_privs, while CAP_SYS_ADMIN is still there */
        need(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_SPEC_ALLOW, &filter),
             "seccomp");
    need(setgroups(sizeof groups / sizeof *groups, groups), "setgroups");
    need(setresgid(0, 0, 0), "setresgid");
    need(setresuid(0, 0, 0), "setresuid");
    need(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0), "ambient capabilities");
    need(syscall(SYS_capset, &header, sets), "capset");
    need(prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0), "PR_SET_PDEATHSIG");
    for (int number = 1; number <= SIGRTMAX; number++)
        signal(number, SIG_DFL);
}

static void container(enum stage stage, int trampoline, char **argv)
{
    static char *const env[] = {"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                                "HOSTNAME=floor", "HOME=/root", NULL};
    char *words[66] = {"minicontainer-exec", "3", "go", argv[0]}; /* 3: a wire, if there were one */
    need(prctl(PR_SET_DUMPABLE, 0, 0, 0, 0), "PR_SET_DUMPABLE");
    if (stage >= ROOT)
        stack_layers();
    if (stage >= MOUNTS)
        mount_filesystems(stage);
    if (stage >= FILES)
        provide_files();
    if (stage >= NETWORK)
        raise_loopback();
    if (stage >= ROOT) {
        pivot();
        need(sethostname("floor", 5), "sethostname");
    }
    setsid();
    if (stage >= MASKS)
        hide_and_protect();
    if (stage >= POWER)
        give_up_power(stage);
    if (stage >= SEAL) {
        for (int i = 0; argv[i] && i < 61; i++)
            words[4 + i] = argv[i];
        execveat(trampoline, "", words, env, AT_EMPTY_PATH);
        need(-1, trampoline_file);
    }
    execve(argv[0], argv, env);
    need(-1, argv[0]);
}

/* ------------------------------------------------------------------------------- one container */

/* Make one container, with the calls up to this stage, and wait for its end: milliseconds. */
static double once(enum stage stage, char **argv, int *status)
{
    static int count;
    char cgroup_path[512];
    struct clone_args args = {.exit_signal = SIGCHLD, .flags = CLONE_PIDFD};
    int pidfd, cgroup_fd = -1, trampoline = -1;
    double start = now();

    args.pidfd = (unsigned long)&pidfd;
    snprintf(here, sizeof here, "%s/floor-%d-%d", scratch, getpid(), ++count);
    snprintf(cgroup_path, sizeof cgroup_path, "%s/floor-%d-%d", cgroup, getpid(), count);
    if (stage >= SEAL)
        trampoline = seal_trampoline();
    if (stage >= ROOT)
        make_scratch();
    if (stage >= CGROUP) {
        need(mkdir(cgroup_path, 0755), cgroup_path);
        cgroup_fd = open(cgroup_path, O_PATH | O_DIRECTORY | O_CLOEXEC);
        need(cgroup_fd, cgroup_path);
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup_fd;
    }
    if (stage >= NAMESPACES)
        args.flags |= CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWCGROUP;
    if (stage >= NETWORK)
        args.flags |= CLONE_NEWNET;

    long pid = syscall(SYS_clone3, &args, sizeof args);
    need(pid, "clone3");
    if (pid == 0)
        container(stage, trampoline, argv);
    need(waitpid(pid, status, 0), "waitpid");

    close(pidfd);
    if (stage >= CGROUP) {
        close(cgroup_fd);
        need(rmdir(cgroup_path), "remove the cgroup");
    }
    if (stage >= ROOT)
        need(nftw(here, remove_one, 16, FTW_DEPTH | FTW_PHYS), here);
    if (stage >= SEAL)
        close(trampoline);
    return now() - start;
}

/* ----------------------------------------------------------------------------- many containers */

static double checked(enum stage stage, char **argv)
{
    int status;
    double time = once(stage, argv, &status);
    if (status != 0) {
        fprintf(stderr, "floor: \"%s\": wait status %#x\n", stage_names[stage], status);
        exit(99);
    }
    return time;
}

static void serve(char **argv)
{
    int count;
    while (scanf("%d", &count) == 1) {
        while (count-- > 0)
            printf("%.4f ", checked(ALL, argv));
        putchar('\n');
        fflush(stdout);
    }
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void print_stages(int rounds, char **argv)
{
    double *times = calloc((size_t)rounds * STAGES, sizeof *times), before = 0;
    for (int round = -3; round < rounds; round++) /* interleaved; three rounds to warm up */
        for (int stage = 0; stage < STAGES; stage++) {
            double time = checked(stage, argv);
            if (round >= 0)
                times[stage * rounds + round] = time;
        }
    for (int stage = 0; stage < STAGES; stage++) {
        double *mine = times + stage * rounds, median;
        qsort(mine, rounds, sizeof *mine, ascending);
        median = mine[rounds / 2];
        printf("%-46s %7.3f ms  %+7.3f\n", stage_names[stage], median, median - before);
        before = median;
    }
    free(times);
}

static void read_filter(const char *path)
{
    static struct sock_filter code[BPF_MAXINSNS];
    FILE *file = fopen(path, "rb");
    need(file ? 0 : -1, path);
    filter.filter = code;
    filter.len = fread(code, sizeof *code, BPF_MAXINSNS, file);
    fclose(file);
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"rootfs", 1, 0, 'r'},  {"scratch", 1, 0, 's'}, {"cgroup", 1, 0, 'c'},
        {"seccomp", 1, 0, 'b'}, {"trampoline", 1, 0, 't'}, {"heap", 1, 0, 'h'},
        {"serve", 0, 0, 'S'},   {"stages", 1, 0, 'T'},  {0, 0, 0, 0},
    };
    int option, serving = 0, rounds = 0, status;
    size_t heap = 0;
    while ((option = getopt_long(argc, argv, "+", options, NULL)) != -1)
        switch (option) {
        case 'r': rootfs = optarg; break;
        case 's': scratch = optarg; break;
        case 'c': cgroup = optarg; break;
        case 'b': seccomp_file = optarg; break;
        case 't': trampoline_file = optarg; break;
        case 'h': heap = strtoul(optarg, NULL, 10) << 20; break;
        case 'S': serving = 1; break;
        case 'T': rounds = atoi(optarg); break;
        default: return 2;
        }
    argv += optind;
    if (!rootfs || !scratch || !cgroup || !seccomp_file || !trampoline_file || !*argv) {
        fprintf(stderr, "usage: see the top of floor.c\n");
        return 2;
    }
    if (heap)
        memset(malloc(heap), 1, heap);
    read_filter(seccomp_file);
    umask(022);
    if (rounds > 0)
        print_stages(rounds, argv);
    else if (serving)
        serve(argv);
    else {
        once(ALL, argv, &status);
        return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    }
    return 0;
}
