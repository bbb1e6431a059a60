"""Guests that are there in half a second.

template   a booted guest that is saved, and a clone of it
store      the templates that are kept
migration  QEMU's state out of one process and into another
identity   names, clock and random numbers that are the clone's own
control    the quick SSH server that waits in a template
"""
