# A world of its own for one container: wrap.sh ALPINE BUNDLE private|shared COMMAND...
# It runs in a fresh, private mount namespace, so all it mounts is gone with its last process.
set -e
layer=$1 bundle=$2 propagation=$3
shift 3
# A fresh root for each run: what one runtime makes in it, the next must not find.
mount -t tmpfs -o mode=755 scratch "$bundle/scratch"
mkdir -m 755 "$bundle/scratch/up" "$bundle/scratch/work"
mount -t overlay overlay "$bundle/rootfs" \
    -o "lowerdir=$layer,upperdir=$bundle/scratch/up,workdir=$bundle/scratch/work"
# Something to bind: a file system with another one below it.
mount -t tmpfs -o mode=755 source "$bundle/source"
mkdir "$bundle/source/below"
mount -t tmpfs -o nosuid below "$bundle/source/below"
# crun and podman want cgroup2 alone; where the machine has version 1 too, they get it here.
if [ "$(stat -f -c %T /sys/fs/cgroup)" != cgroup2fs ]; then
    umount -l /sys/fs/cgroup
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
fi
mount --make-"r$propagation" /
exec "$@"
