"""What runs inside guests for the runner itself: Python's standard library only, and nothing of vmlab is imported.

standby    the quick SSH server that waits in a template
ending     ends a command that the host does not want any more
appliance  the first process of the emulated Intel host
pack       what that needs, packed out of a guest
"""
