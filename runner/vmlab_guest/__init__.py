"""The library for guest scripts: it lies beside them in every guest, and holds what they would all write again.

It is plumbing alone: what shows a lab's claim (the fork, the prctl, the store into memory) stays in the lab's own script. It needs Python
3.11, the standard library and Linux. Importing this package imports nothing: each module is imported by its name, and pays for itself
alone.
"""
