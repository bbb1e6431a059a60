#!/bin/sh
# Runs inside the new system once all packages are installed and files/ is copied in. Every step either makes the boot cheaper under
# emulation or makes two guests of one image differ where they must. Steps that concern one suite only test for what they change.
set -eu

# --- what files/ brought: an archive need not keep modes, so programs are made executable here ------------------------------------------
chmod 755 /usr/lib/vmlab/* /etc/init.d/vmlab-cloud-* /etc/systemd/system-generators/cloud-init-generator

# --- identity: none is baked in; cloud-init and systemd give each guest its own -----------------------------------------------------
rm -f /etc/ssh/ssh_host_* /var/lib/dbus/machine-id
: >/etc/machine-id
echo vmlab >/etc/hostname

# Guests have no way out unless a lab asks for one, and the address of whoever built the image is nobody's business.
rm -f /etc/apt/sources.list /etc/apt/sources.list.d/*

# The day on which an account's password was last changed is the day of the build otherwise. (No account has a password.)
sed -i -E 's/^([^:]*:[^:]*):[0-9]+:/\1:20000:/' /etc/shadow
rm -f /etc/passwd- /etc/group- /etc/shadow- /etc/gshadow-

# --- systemd ------------------------------------------------------------------------------------------------------------------------
mask() {
    for unit in "$@"; do
        ln -sf /dev/null "/etc/systemd/system/$unit"
    done
}

# Housekeeping for machines that live for months.
mask apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service fstrim.timer man-db.timer \
    systemd-tmpfiles-clean.timer systemd-update-done.service systemd-journal-catalog-update.service ldconfig.service \
    systemd-sysusers.service systemd-hwdb-update.service systemd-firstboot.service systemd-machine-id-commit.service

# The initrd has done it: root mounted as the command line says, modules loaded, network up. Devices come from devtmpfs.
mask systemd-remount-fs.service systemd-modules-load.service kmod-static-nodes.service modprobe@.service \
    systemd-tmpfiles-setup-dev.service systemd-tmpfiles-setup-dev-early.service systemd-udev-load-credentials.service \
    networking.service systemd-networkd.service systemd-networkd.socket systemd-resolved.service systemd-timesyncd.service

# virtio-rng and RDRAND seed the kernel, and a disk that is thrown away keeps no seed for later.
mask systemd-random-seed.service systemd-boot-random-seed.service

# Hardware and setups that no guest has.
mask systemd-pstore.service systemd-binfmt.service proc-sys-fs-binfmt_misc.automount systemd-quotacheck.service systemd-rfkill.service \
    systemd-rfkill.socket systemd-pcrphase.service systemd-pcrphase-sysinit.service systemd-pcrmachine.service \
    systemd-pcrextend.socket systemd-pcrlock.socket systemd-tpm2-setup.service systemd-tpm2-setup-early.service \
    systemd-hibernate-clear.service dev-hugepages.mount dev-mqueue.mount sys-kernel-debug.mount sys-kernel-tracing.mount \
    sys-kernel-config.mount sys-fs-fuse-connections.mount tmp.mount run-lock.mount

# Logins come by SSH alone, without PAM: no terminals, no seats, no passwords to ask for, no login records.
mask getty.target getty@tty1.service serial-getty@ttyS0.service console-getty.service getty-static.service autovt@.service \
    systemd-logind.service systemd-user-sessions.service systemd-ask-password-console.path systemd-ask-password-wall.path \
    systemd-update-utmp.service systemd-update-utmp-runlevel.service

# Services that wait for somebody to ask them, and nobody does.
mask systemd-initctl.socket systemd-hostnamed.socket systemd-creds.socket systemd-sysext.socket cloud-init-hotplugd.socket \
    systemd-journal-flush.service rc-local.service sshd-keygen.service

# D-Bus starts when something connects to its socket, as Debian 12 has it and as the labs show it.
rm -f /usr/lib/systemd/system/multi-user.target.wants/dbus.service

# Generators run one process each before anything else can start. Those that look for what a guest cannot have are masked.
mkdir -p /etc/systemd/system-generators
for generator in getty gpt-auto hibernate-resume rc-local ssh system-update tpm2; do
    ln -sf /dev/null "/etc/systemd/system-generators/systemd-$generator-generator"
done

ln -sf /usr/lib/systemd/system/multi-user.target /etc/systemd/system/default.target
rm -rf /var/log/journal

# --- SysV: what systemd's side of the image does not do either, so that the two can be compared ---------------------------------------
disable() {
    for service in "$@"; do
        [ ! -e "/etc/init.d/$service" ] || update-rc.d "$service" disable
    done
}
disable rc.local brightness hwclock.sh dbus sudo urandom mount-configfs kmod
# The initrd has mounted the root, nothing else is to be mounted or checked, and what is temporary on a new disk is empty.
disable mountnfs-bootclean.sh mountnfs.sh mountall-bootclean.sh mountall.sh checkroot-bootclean.sh checkfs.sh checkroot.sh
# The same few devices that systemd's side announces again (see systemd-udev-trigger.service.d), and of the subsystems none.
subsystems="--subsystem-match=block --subsystem-match=net --subsystem-match=misc --subsystem-match=virtio-ports"
sed -i "s/udevadm trigger --type=devices --action=add/& $subsystems/; s/udevadm trigger --type=subsystems/& --subsystem-match=none/" /etc/init.d/udev
grep -q -- "--type=devices --action=add --subsystem-match" /etc/init.d/udev

# Nobody logs in on the six virtual terminals that inittab starts.
sed -i -E 's/^([1-6]:.*getty)/#\1/' /etc/inittab

# --- cloud-init: one Python process for all four stages (see /usr/lib/vmlab/cloud-init-stages) ----------------------------------------
# Debian's own init scripts start one process a stage; Debian 13's even lack the network stage.
for service in cloud-final cloud-config cloud-init cloud-init-main cloud-init-local; do
    [ ! -e "/etc/init.d/$service" ] || update-rc.d -f "$service" remove
done
for service in vmlab-cloud-init-main vmlab-cloud-init vmlab-cloud-final; do
    update-rc.d "$service" defaults
done
# Those are for SysV alone; systemd would make units of them. (vmlab-cloud-init-main it has itself, where it is needed.)
mask vmlab-cloud-init.service vmlab-cloud-final.service
if [ -e /usr/lib/systemd/system/cloud-init-main.service ]; then
    # This version brings its own single process; only its slow start through importlib.metadata is avoided.
    mask vmlab-cloud-init-main.service
    for unit in cloud-init-local cloud-init cloud-config cloud-final; do
        rm -r "/etc/systemd/system/$unit.service.d"
    done
else
    rm -r /etc/systemd/system/cloud-init-main.service.d
fi

# --- hardware database: its sources are not installed, so an index of it is an empty file that udev would map -------------------------
rm -f /usr/lib/udev/hwdb.bin /etc/udev/hwdb.bin

# --- last: services that run "after an update of /usr" compare these dates with that of /usr ------------------------------------------
touch /etc/.updated /var/.updated
