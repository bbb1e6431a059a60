"""The KVM probe: what stands behind /dev/kvm, found out by a guest of a few instructions. No root, no image, no QEMU.

Three kinds look alike to a program that only opens the device and must be told apart by what happens inside:

    nested     the processor runs guest code and walks a second set of page tables (Intel EPT, AMD NPT) by itself
    shadow     the processor runs guest code, but its page tables are KVM's merged copy ("shadow") of the guest's
    emulated   software decodes each instruction of the guest

interface     the kernel's side of /dev/kvm
tiny_guest    a guest on it
programs      what the guest executes
counters      what KVM counts meanwhile
measurements  what it does, how often, and what KVM counted
claims        what the processor and the kernel say of themselves

``python3 -m kvm`` prints one record as one JSON object.

This directory is also copied into guests and run there. It therefore uses Python's standard library alone (3.9 and later), and imports
nothing but its own modules.
"""
