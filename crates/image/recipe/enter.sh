#!/bin/sh
# Runs setup.sh inside an unpacked root, without a network, in namespaces of its own that die with their first process.
# Usage: enter.sh ROOT BUILD_DIR   (BUILD_DIR holds setup.sh and wheels/ and is seen inside as /.build)
set -eu
root=$1
build=$2

mkdir -p "$root/.build" "$root/dev" "$root/proc"
mount --bind "$build" "$root/.build"
mount -t tmpfs -o mode=0755,nosuid tmpfs "$root/dev"
for node in null zero full random urandom; do
    : >"$root/dev/$node"
    mount --bind "/dev/$node" "$root/dev/$node"
done
mkdir "$root/dev/shm"
chmod 1777 "$root/dev/shm"
# A masked /proc (a container without extra rights) forbids this mount in a user namespace; setup.sh can do without.
mount -t proc -o nosuid,nodev,noexec proc "$root/proc" 2>/dev/null || echo "no /proc in the root: continuing without"

exec chroot "$root" /bin/sh /.build/setup.sh
