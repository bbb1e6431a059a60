"""A guest: a virtual machine that runs.

start      cloned if that works, booted if not
boot       from QEMU's first instruction to a finished cloud-init
machine    a guest that runs, and what can end it early
qemu       its command line; qmp, QEMU's monitor; ssh, console and seed, the ways into it
panic      whether its kernel has panicked, by evidence
readiness  the ordered steps to a guest that is ready
workdir    the private directories of the guests of a run
frozen     a disk that is booted again and again
clone/     a booted guest that is saved, and its clones
look/      the look from outside: memory, page tables, KVM's counts
intel/     the emulated Intel host
inside/    what runs in a guest
"""
