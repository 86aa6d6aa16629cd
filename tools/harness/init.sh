#!/bin/busybox sh
# SPDX-License-Identifier: GPL-2.0-only
# The guest's first process. Makes the host's root file system the guest's, read-only
# below a tmpfs, and hands over to the agent. initramfs.py fills in the words with @.
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
echo "harness: first instruction"

word() { sed -n "s/.*\b$1=\([^ ]*\).*/\1/p" /proc/cmdline; }

load() {
	while read -r module; do
		[ -d "/sys/module/${module%.ko}" ] || insmod "/modules/$module"
	done <"/modules/$1.list"
}

fail() { echo "harness: $*"; poweroff -f; }

for name in root $(word harness.load | tr , ' '); do
	load "$name"
done

mkdir -p /host /upper /root
mount -t 9p -o trans=virtio,version=9p2000.L,msize=262144,cache=loose,ro root /host ||
	fail "cannot mount the host's root"
mount -t tmpfs -o mode=755 tmpfs /upper
mkdir /upper/upper /upper/work
mount -t overlay -o lowerdir=/host,upperdir=/upper/upper,workdir=/upper/work overlay /root ||
	fail "cannot mount the overlay"
for name in proc sys dev; do
	mount --move /$name /root/$name
done
# The kernel's modules are not where modprobe looks.
modules=/root/lib/modules/$(uname -r)
mkdir -p "$modules"
mount --bind /root@MODULES@ "$modules"
mkdir -p /root/dev/shm /root/dev/pts
mount -t tmpfs -o mode=755 tmpfs /root/run
mount -t tmpfs tmpfs /root/dev/shm
mount -t devpts devpts /root/dev/pts
mount -t debugfs debugfs /root/sys/kernel/debug
mount -t configfs configfs /root/sys/kernel/config
mkdir -p /root/run/lock
ip link set lo up
hostname guest
# Warnings are printed from the first line on; information only from here on.
echo 7 >/root/proc/sys/kernel/printk
exec switch_root /root /usr/bin/python3 -I -S -B @AGENT@
