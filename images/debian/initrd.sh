#!/bin/busybox sh
# The initrd's /init: load the virtio modules, set up the network, mount the root, hand over to the init that the kernel's command line
# names. It does nothing else, so that the kernel reaches PID 1 in two seconds under emulation where a stock initrd takes six.
bb=/bin/busybox
$bb mount -t devtmpfs -o mode=0755 devtmpfs /dev
# The console says "reset to ready" from here on; the runner waits for this exact line.
echo "vmlab-initrd: up" >/dev/console
$bb mount -t proc proc /proc
$bb mount -t sysfs sysfs /sys

# Numbered at build time: what a module depends on comes before it.
for module in /modules/*.ko; do
    $bb insmod "$module"
done

root= init=/sbin/init mode=ro
read -r cmdline </proc/cmdline
for word in $cmdline; do
    case $word in
    root=*) root=${word#root=} ;;
    init=*) init=${word#init=} ;;
    ro | rw) mode=$word ;;
    esac
done

# QEMU's user network always has these addresses. Set here, they are the same under both init systems and cost neither of them a service.
if [ -e /sys/class/net/eth0 ]; then
    $bb ip link set lo up
    $bb ip address add 10.0.2.15/24 dev eth0
    $bb ip link set eth0 up
    $bb ip route add default via 10.0.2.2
fi

tries=0
until [ -b "$root" ]; do
    tries=$((tries + 1))
    if [ $tries -gt 600 ]; then
        echo "vmlab-initrd: no root device $root after 60 s" >/dev/console
        exit 1 # PID 1 ends, the kernel panics, and the runner sees that at once
    fi
    $bb usleep 100000
done

$bb mount -t ext4 -o "$mode" "$root" /root || exit 1
# As Debian's own initrd does: SysV's first scripts look for words in /proc/cmdline before anything has mounted /proc.
for mounted in proc sys dev; do
    $bb mount --move /$mounted /root/$mounted
done
# (What is left of the kernel's command line is meant for init: a runlevel, "single".)
exec $bb switch_root /root "$init" "$@"
