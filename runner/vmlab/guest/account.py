"""Users of a guest, and running a command as one of them.

The runner logs in as root. A command of another user's is started by root and gives root's rights up before its first instruction
(``setpriv`` of util-linux), so that nobody has to be let in by SSH, and so that an account without a shell (nobody) can run one too. Its
environment keeps the mark by which it is ended when it is abandoned (`vmlab.guest.ending`).
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from vmlab.deadline import Deadline
from vmlab.errors import ScriptError
from vmlab.guest.ssh import Connection

_LIMIT_S = 60.0


@dataclass(frozen=True)
class Account:
    """A row of the guest's user database (passwd(5))."""

    name: str
    uid: int
    gid: int
    home: str

    def running(self, command: str) -> str:
        """A shell line that runs ``command``, one too, as this user: in its home if it has one, by the shell that root's lines run by."""
        place = f"cd {shlex.quote(self.home)} 2>/dev/null || cd /"
        ids = f"--reuid={self.uid} --regid={self.gid} --init-groups"
        own = shlex.join(["env", "-u", "MAIL", f"HOME={self.home}", f"USER={self.name}", f"LOGNAME={self.name}"])
        return f'exec setpriv {ids} -- {own} "${{SHELL:-/bin/sh}}" -c {shlex.quote(f"{place}; {command}")}'


def account(connection: Connection, name: str, deadline: Deadline) -> Account:
    """The account of this name, or of this number. ScriptError when the guest has none."""
    asked = connection.execute(f"getent passwd {shlex.quote(name)}", deadline=deadline.within(_LIMIT_S))
    fields = asked.stdout.strip().split(":")
    if asked.status != 0 or len(fields) != 7 or not (fields[2].isdecimal() and fields[3].isdecimal()):
        raise ScriptError(f"the guest has no user {name!r}", hint="name one that it has (nobody), or make one first: useradd NAME")
    return Account(fields[0], int(fields[2]), int(fields[3]), fields[5])
