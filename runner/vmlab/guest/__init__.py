"""A guest: a virtual machine that runs.

start      cloned if that works, booted if not
boot       from QEMU's first instruction to a finished cloud-init
machine    a guest that runs, and what can end it early
readiness  the ordered steps to a guest that is ready
fate       what becomes of it: what QEMU tells, what it died of
expected   its end, when an experiment expects that
power      its reset, and its power
panic      whether its kernel has panicked, by evidence
setting    what all guests of a run share
workdir    the private directories of the guests of a run
drive      a disk that a lab gives it
processor  features of its processor, and whether they can be had
link       its interface to a private network
network    such a network: a switch that may lose and delay
frames     what passes on it, in words
frozen     a disk that is booted again and again
clone/     a booted guest that is saved, and its clones
look/      the look from outside: memory, page tables, disks, packets, KVM's counts
intel/     the emulated Intel host
inside/    what runs in a guest

The ways into it:

seed          what cloud-init is told
qemu          its command line
qmp           QEMU's monitor
console       its serial line
ssh           commands and files over SSH
command       one command
account       a command that another user than root runs
conversation  a script that is talked to while it runs
ending        what ends a command that is not wanted any more
watchdog      an end for waits that have none
"""
