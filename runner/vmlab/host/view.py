"""Everything that the host wing asks of this machine, in one place, so that a test can put a broken machine in its stead.

A test builds a file tree with its own ``proc``, ``sys``, ``dev`` and ``etc``, gives it as ``root``, and replaces what a file tree
cannot pretend: opening a device, asking it something, starting a program.
"""

from __future__ import annotations

import fcntl
import os
import pwd
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vmlab.deadline import Deadline
from vmlab.errors import VmlabError
from vmlab.host.kvm import claims
from vmlab.host.probe import probe_once_a_boot, run_probe
from vmlab.packages import Requirement, missing, which
from vmlab.probes.kvm import KvmRecord
from vmlab.process import run

PATIENCE_S = 20.0
"""How long a question to a program (``qemu --version``) may take on a very busy machine."""


def _open_read_write(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CLOEXEC)


def _ioctl(descriptor: int, request: int) -> int:
    return fcntl.ioctl(descriptor, request, 0)


def _ask(argv: Sequence[str]) -> str | None:
    """What a program prints on standard output; None when it is missing, fails or hangs."""
    try:
        return run(argv, deadline=Deadline(PATIENCE_S)).stdout.decode(errors="replace")
    except VmlabError:
        return None


def _user() -> str:
    """The login name; the number where the account has none, as in some containers."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


@dataclass(frozen=True)
class HostView:
    """A machine as seen from this process."""

    root: Path = Path("/")
    open_read_write: Callable[[Path], int] = _open_read_write
    close: Callable[[int], None] = os.close
    ioctl: Callable[[int, int], int] = _ioctl
    ask: Callable[[Sequence[str]], str | None] = _ask
    which: Callable[[str], str | None] = which
    usable_cpus: Callable[[], int] = lambda: len(os.sched_getaffinity(0))
    disk_free_bytes: Callable[[Path], int] = lambda path: shutil.disk_usage(path).free
    missing: Callable[[], Sequence[Requirement]] = missing
    probe: Callable[[], KvmRecord] = probe_once_a_boot
    probe_now: Callable[[], KvmRecord] = run_probe
    user: str = field(default_factory=_user)
    is_root: bool = field(default_factory=lambda: os.geteuid() == 0)
    in_ci: bool = field(default_factory=lambda: bool(os.environ.get("CI")))

    def path(self, name: str) -> Path:
        """Where the absolute path ``name`` of that machine is found."""
        return self.root / name.lstrip("/")

    def read(self, name: str) -> str:
        """The text of a file, stripped; empty when it cannot be read: on Linux both mean that the kernel does not tell."""
        return claims.text(self.path(name))

    def cpuinfo(self, key: str) -> str:
        """The first value of ``key`` in /proc/cpuinfo; empty when there is none."""
        return claims.cpuinfo(self.root, key)
