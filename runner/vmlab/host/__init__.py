"""The host wing: what this machine is, and what it can do for a guest."""
