"""A guest: a virtual machine that runs.

start      cloned if that works, booted if not
boot       from QEMU's first instruction to a finished cloud-init
machine    a guest that runs, and what can end it early
qemu       its command line
qmp        QEMU's monitor
seed       what cloud-init is told
ssh        commands and files
console    what it prints before there is SSH
setting    what all guests of a run share
readiness  the ordered steps to a guest that is ready
workdir    the private directories of the guests of a run
frozen     a disk that is booted again and again
clone/     a booted guest that is saved, and its clones
look/      the look from outside: memory, page tables, KVM's counts
intel/     the emulated Intel host
inside/    what runs in a guest
"""
