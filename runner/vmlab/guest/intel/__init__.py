"""A guest with an Intel processor, VMX and EPT included, which QEMU cannot emulate: a small Linux that is booted for each thing it runs.

appliance  the small Linux, and what one boot of it runs
console    what it prints
bochs      the emulator
"""
