#!/bin/sh
# Become systemd, as PID 1 of the namespaces that machine.py made: boot.sh LOWER SCRATCH SHARED.
#
# LOWER is a Debian tree that stays as it is; what the machine writes goes to a tmpfs at SCRATCH and goes away with it.
# SHARED is a directory of the host that the machine sees, read-only, as /mnt/shared. No network but its own loopback.
set -eu
lower=$1 scratch=$2 shared=$3
mount -t tmpfs -o mode=755 tmpfs "$scratch"
mkdir "$scratch/upper" "$scratch/work" "$scratch/root"
mount -t overlay -o "lowerdir=$lower,upperdir=$scratch/upper,workdir=$scratch/work" overlay "$scratch/root"
cd "$scratch/root"
mkdir -p mnt/shared mnt/old
mount --bind "$shared" mnt/shared
mount -o remount,bind,ro mnt/shared
mount -t proc proc proc
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs dev
for device in null zero full random urandom tty; do
    touch "dev/$device"
    mount --bind "/dev/$device" "dev/$device"
done
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=666 devpts dev/pts
mount -t tmpfs tmpfs dev/shm
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs tmpfs tmp
hostname blobedge-test
ip link set lo up
pivot_root . mnt/old
umount -l /mnt/old
# systemd does this itself on a real machine; without it credentials are mounted where no service sees them.
mount --make-rshared /
exec env -i container=other PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    /lib/systemd/systemd --log-target=journal --show-status=0 </dev/null >/dev/null 2>&1
