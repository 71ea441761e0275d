#!/usr/bin/env bash
# The first process of a machine (machine.py), in namespaces of its own:
#   machine.sh FOLDER
# Makes the machine's places, says "ready" and stays; its end is the end of everything in it.
# What the machine writes to /etc, /opt and /var lies in FOLDER, what it writes to /run in memory; it
# finds /var/lib and /run empty.
set -euo pipefail
exec 3<"$1"
cd "$1"

mount --make-rprivate /
hostname "$(cat hostname)"

mount -t sysfs sysfs /sys
mount -t tmpfs -o mode=755 cgroup /sys/fs/cgroup
while IFS=: read -r _ controllers _; do
    [ -n "$controllers" ] || continue
    place=/sys/fs/cgroup/${controllers#name=}
    mkdir "$place"
    [ "$controllers" = "${controllers#name=}" ] || controllers=none,$controllers
    mount -t cgroup -o "$controllers" cgroup "$place"
done </proc/self/cgroup

for place in etc opt var; do
    mkdir -p "upper/$place" "work/$place"
    mount -t overlay -o "lowerdir=/$place,upperdir=upper/$place,workdir=work/$place" overlay "/$place"
done
mkdir -p "$1"
mount --bind /proc/self/fd/3 "$1" # were it below /var, it would be hidden now
# Without an overlay: containerd lays its own on top, SQLite's locks are to hold from outside too.
mkdir -p var-lib
mount --bind var-lib /var/lib
mount -t tmpfs -o mode=755 run /run
mkdir /run/lock /run/netns

# The kubelet sets variables of the kernel that are the whole computer's: here it sets files.
while read -r variable value; do
    echo "$value" >"${variable//\//.}"
    mount --bind "${variable//\//.}" "/proc/sys/$variable"
done <<'VARIABLES'
vm/overcommit_memory 1
vm/panic_on_oom 0
kernel/panic 10
kernel/panic_on_oops 1
kernel/keys/root_maxkeys 1000000
kernel/keys/root_maxbytes 25000000
VARIABLES

ip link set lo up
echo 1 >/proc/sys/net/ipv4/ip_forward
echo 1 >/proc/sys/net/ipv6/conf/all/forwarding
echo ready
exec >/dev/null
# Waiting, bash also takes in the orphans that come to a first process.
sleep infinity &
wait
