#!/bin/sh
# A systemd generator: what the kernel's command line says becomes the set of units of this boot.
#
# systemd knows one multi-user.target where SysV has the runlevels 2 to 4, so here the services of the other graphs are masked. With
# bootlab.units=native the graph's own units take the place of those that systemd's sysv-generator makes of the same LSB scripts.
read -r cmdline </proc/cmdline
runlevel=2 units=lsb
for word in $cmdline; do
    case $word in
    [234]) runlevel=$word ;;
    bootlab.units=native) units=native ;;
    esac
done
cp -PR /usr/lib/bootlab/masked-$runlevel/. "$2"
[ $units = lsb ] || cp -PR /usr/lib/bootlab/native-$runlevel/. "$1"
