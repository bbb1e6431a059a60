"""The machine wing: a guest as QEMU runs it, from its image to its SSH connection."""
