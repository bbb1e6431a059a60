"""The host wing: what this machine is, and what it can do for a guest.

facts        CPU, memory, QEMU, and the rest that a report names
view         all that is asked of this machine, in one place, for tests to break
accelerator  kvm or tcg, decided by evidence
probe        the KVM probe: run apart, read with care, remembered
kvm/         the probe itself
probe_view   what it found, for people
capacity     how much guests may take together
slots        the right to run guests now
noise        how much this machine was disturbed meanwhile
pages        another process's memory, as the kernel tells of it
doctor       `vmlab doctor`
"""
