# What a process in a container can see of itself: run by busybox's sh as the container's program.
# Each section is "@name" and lines.  It ends with "@end" and waits for its exit status on stdin, so
# that it can be looked at from outside meanwhile.  A fork is dear here, so little is forked.
at() { echo "@$1"; }

# show NAME FILE: its lines, each with the name before it.
show() {
    while read -r line || [ -n "$line" ]; do
        echo "$1 $line"
    done < "$2"
}

at ns
stat -c %N /proc/self/ns/*
at status
show : /proc/$$/status
at stat
read -r pid name state parent group session terminal foreground rest < /proc/$$/stat
[ "$group" = "$pid" ] && echo "leads its process group"
[ "$session" = "$pid" ] && echo "leads its session"
[ "$terminal" = 0 ] && echo "no terminal" || echo "a terminal"
[ "$foreground" = "$pid" ] && echo "in the foreground"
at mounts
show : /proc/$$/mountinfo
at env
tr '\0' '\n' < /proc/$$/environ
at fds
stat -c %N /proc/$$/fd/[012] | sed 's/.*fd.//'
stat -L -c '%n %F %a %u' /proc/$$/fd/[012] | sed 's/.*fd.//'
at places
stat -c %N /proc/$$/cwd /proc/$$/root | sed "s/$$/PID/"
at limits
show : /proc/$$/limits
at files
for file in oom_score_adj uid_map gid_map setgroups timens_offsets personality coredump_filter \
    loginuid; do
    show $file /proc/$$/$file
done 2>&1
at uts
show hostname /proc/sys/kernel/hostname
show domainname /proc/sys/kernel/domainname
at cgroup
grep '^0:' /proc/self/cgroup
at sysctl
for key in net/ipv4/ping_group_range net/ipv4/ip_unprivileged_port_start kernel/shmmax \
    kernel/msgmax fs/mqueue/msg_max; do
    echo "$key $(cat /proc/sys/$key)"  # not by "read": a sysctl has to be read in one go
done
at links
show lo /sys/class/net/lo/flags
at hidden
for path in /proc/acpi /proc/kcore /proc/keys /proc/timer_list /proc/interrupts /sys/firmware \
    /proc/version; do
    if [ -d $path ]; then
        set -- $path/*
        [ -e "$1" ] && echo "$path has entries" || echo "$path is empty"
    elif read -r line < $path; then
        echo "$path has lines"
    else
        echo "$path is empty"
    fi
done 2>&1
at writable
for path in / /tmp /dev /dev/shm /proc/bus /proc/irq /sys/kernel/mm /sys/fs/cgroup /mnt /srv; do
    error=$(mkdir $path/probe 2>&1)
    rmdir $path/probe 2> /dev/null && echo "$path yes" || echo "$path ${error##*: }"
done
for path in /proc/sys/kernel/msgmax /proc/sysrq-trigger; do
    error=$( (true >> $path) 2>&1) && echo "$path yes" || echo "$path ${error##*: }"
done
at dev
find /dev /mnt /srv /tmp -xdev | sort | xargs stat -c '%N %F %a %u:%g %t:%T' 2>&1
at power
mknod /tmp/null c 1 3 && rm /tmp/null && echo "mknod done"
mount -t tmpfs none /media && umount /media && echo "mount done"
unshare -m true && echo "unshare done"
chroot / true && echo "chroot done"
nice -n -5 true && echo "nice done"
touch /tmp/owned && chown 5:5 /tmp/owned && echo "chown done"
rm -f /tmp/owned
mknod /tmp/loop b 7 0 && head -c1 /tmp/loop 2>&1 | sed 's/.*: /loop /' && rm -f /tmp/loop
at keyring
grep -c CONTAINER_ID /proc/keys
at first
show name /proc/1/comm
at end
read -r status
exit "${status:-0}"
