"""Leases: who uses a thing is told by the kernel, by a lock that ends with its holder.

A pid says nothing about life or death once it has been used again, in another PID namespace or on another host; a start time moves when
the clock is set. A lock of flock(2) has none of that: the kernel drops it when the last descriptor of its holder is closed, however the
holder ends, and shows it to every process that opens the same file, in any container of this machine. Over NFS it is a lock of the
server's, which other hosts see too (flock(2), "NFS details"), unless the file system was mounted with ``nolock`` or ``local_lock``.

The descriptor is closed on exec, so that no program inherits a lease by accident. A fork shares it: a lease lasts as long as the last
process that has it.

A lock file is removed only by whoever holds it, and whoever gets a lock looks whether the file is still the one at that path: two
processes that lock two files of one name would both believe to be alone.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from pathlib import Path
from types import TracebackType

from vmlab.deadline import Deadline

# A lock that is held for long is looked for less often than one that is held for milliseconds.
_TAKE_POLL_S = 0.05
_LOCK_POLL_S = 0.005


class Lease:
    """The sole right to a thing, as long as this process lives or until `release`. `try_take` and `take` make one."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, _type: type[BaseException] | None, _value: BaseException | None, _trace: TracebackType | None) -> None:
        self.release()

    def release(self) -> None:
        """Let go; the file stays for the next. Does nothing the second time."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def end(self) -> None:
        """Let go for good: the thing is gone, and its lock file with it. OSError when that cannot be removed."""
        try:
            self.path.unlink(missing_ok=True)
        finally:
            self.release()


def try_take(path: Path) -> Lease | None:
    """The lease on the thing whose lock file is ``path``, made when there is none; None while somebody else has it.

    OSError when the file cannot be made (a full disk, a read-only one) or the file system has no locks.
    """
    while True:
        # (An exclusive lock over NFS needs a descriptor that may write.)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        opened = Lease(path, descriptor)
        try:
            if not lock(descriptor):
                opened.release()
                return None
            if _is_at(path, descriptor):
                return opened
        except BaseException:
            opened.release()
            raise
        # Its holder ended it between our opening and our locking: the next file of this name is another one.
        opened.release()


def take(path: Path, deadline: Deadline) -> Lease | None:
    """The same, after as long a wait as the deadline allows; None when somebody else still has it then."""
    while (lease := try_take(path)) is None and not deadline.expired():
        time.sleep(min(_TAKE_POLL_S, deadline.left_s()))
    return lease


def lock(descriptor: int, *, shared: bool = False) -> bool:
    """Lock an open file or directory, without waiting; False when somebody else's lock forbids it.

    For a thing whose file is found, judged and removed under rules of its own (`vmlab.host.slots`, `vmlab.guest.workdir`).
    """
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except OSError as exc:
        # (Over SMB a lock that is held is "permission denied".)
        if exc.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return False
        raise
    return True


def wait_for_lock(descriptor: int, deadline: Deadline) -> bool:
    """`lock`, after as long a wait as the deadline allows."""
    while not (taken := lock(descriptor)) and not deadline.expired():
        time.sleep(min(_LOCK_POLL_S, deadline.left_s()))
    return taken


def _is_at(path: Path, descriptor: int) -> bool:
    """Whether an open file is the one that bears this name now."""
    try:
        return os.path.samestat(path.lstat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
