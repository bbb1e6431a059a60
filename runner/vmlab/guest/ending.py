"""The host's side of runner/vmlab/guest/inside/ending.py: by what a command in the guest is known, with all that it starts.

OpenSSH gives each command a session of its own; Dropbear runs all of a connection in one, with its server in it, so that neither group nor
session tells one command's processes from another's, or from what an earlier one was meant to leave running. A variable in the environment
does, under every server and shell, and costs nothing until it is needed. (setsid(1) would cost every command 20 ms under emulation.)
"""

from __future__ import annotations

import secrets
from pathlib import Path

VARIABLE = "VMLAB_COMMAND"
COMMAND = "exec python3 -I -S -"
"""Reads `program` on its standard input."""

INSIDE = Path(__file__).with_name("inside") / "ending.py"


def new_mark() -> str:
    """A mark that no other command has."""
    return secrets.token_hex(16)


def marked(command: str, mark: str) -> str:
    """The same shell line, with the mark (if it is not empty) in its environment."""
    return command if not mark else f"export {VARIABLE}={mark}; {command}"


def program(mark: str) -> bytes:
    """What ends the command with this mark; its exit status is 1 when something of it would not end."""
    return f"{INSIDE.read_text()}\n\nraise SystemExit(not end({mark.encode()!r}))\n".encode()
