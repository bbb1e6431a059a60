"""Root enough to build an image.

Unpacking a system needs many users' files, mounts and chroot. A user namespace gives an ordinary user all of it: there, root is the
user, and users 1 to 65535 are the subordinate ids of /etc/subuid. mmdebstrap can make such a namespace by itself (``--mode=unshare``),
but then root is a *subordinate* id that may not enter a home directory of mode 0700; in this one, files of the cache stay within reach
in every step, and the steps after mmdebstrap run behind the same prefix.

A PID namespace comes with it, for real root too: when its first process dies, the kernel kills all others, so that no apt or dpkg
outlives a builder that was killed.
"""

from __future__ import annotations

import os
import pwd
from functools import cache
from pathlib import Path

from vmlab import process
from vmlab.deadline import Deadline
from vmlab.errors import HostError

_ISOLATE = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
_AS_ROOT = ("--user", "--map-root-user", "--map-auto")


@cache
def prefix() -> tuple[str, ...]:
    """What to put before a command so that it runs as root over files of many users; HostError when this machine refuses."""
    if os.geteuid() == 0:
        # Root in a container may lack the right to make namespaces, and needs none: only a killed build leaves more behind.
        return _ISOLATE if _works(_ISOLATE) else ()
    argv = (*_ISOLATE, *_AS_ROOT)
    if not _works(argv):
        raise HostError("an image cannot be built as an ordinary user on this machine", hint=_remedy())
    return argv


def _works(argv: tuple[str, ...]) -> bool:
    return process.run([*argv, "true"], deadline=Deadline(30), check=False).status == 0


def _remedy() -> str:
    """One line that makes the namespace possible here, or the way around it."""
    name = pwd.getpwuid(os.geteuid()).pw_name
    process.require("newuidmap")
    for table in (Path("/etc/subuid"), Path("/etc/subgid")):
        lines = table.read_text().splitlines() if table.exists() else []
        if not any(line.split(":")[0] in (name, str(os.geteuid())) for line in lines):
            return f"sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {name}"
    return "the kernel refuses user namespaces here (see `unshare --user true`); build the image once as root"
