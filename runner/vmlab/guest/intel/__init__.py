"""A host with an Intel processor, emulated by Bochs, in which the KVM probe runs.

appliance  the small Linux that boots there
console    what that prints
bochs      the emulator
"""
