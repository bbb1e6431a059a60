"""The look from outside at a guest that runs.

outside     its QEMU as a process
memory      its addresses and bytes, down to the host's frames
paging      the translation of an address as its page tables tell it
disk        what its disks hold, and what it asks of them
packets     what passes its network interfaces
statistics  what KVM has counted for it
"""
