"""The private working directory of a run, and the removal of what dead runs left behind.

    runs/live-<name>.lock           held by the run as long as it lives (`vmlab.lease`)
    runs/live-<name>/               the directory: there only while its lock file is
    runs/live-<name>/guests.lock    held by the run and, inherited on purpose, by each of its guests

A run that is killed by SIGKILL cannot clean up. Its guests die with it (see `vmlab.process`); its directory stays, and the next run
removes it once nobody holds its lock. A guest that outlived its run all the same still holds the second lock: that is what tells it
from every other process, and only such a one is ended. One that cannot be seen from here (in another PID namespace, on another host)
keeps its directory.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

from vmlab import lease
from vmlab.deadline import Deadline
from vmlab.errors import HostError
from vmlab.lease import Lease
from vmlab.paths import runs_dir

log = logging.getLogger(__name__)

# (Not "run-", the name that versions before this one judged by pid and start time: neither removes the other's.)
_PREFIX = "live-"
_LOCK = ".lock"
_GUESTS = "guests.lock"
# How long a guest that outlived its run may take to be gone, once it was killed.
_ENDING_LIMIT_S = 10.0


class WorkDir:
    """A directory of mode 0700 that exists as long as its run. Each guest is to inherit ``guests_fd``, which shows that it is the run's."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.guests_fd = _open_guests(path)
        lease.lock(self.guests_fd, shared=True)

    def close(self) -> None:
        """Let go of the lock that the guests share."""
        os.close(self.guests_fd)


@contextlib.contextmanager
def work_dir() -> Iterator[WorkDir]:
    """A fresh directory, removed at the end; what dead runs left is removed first. HostError when none can be made."""
    sweep()
    root = runs_dir()
    with contextlib.ExitStack() as stack:
        try:
            path, held = _new(root)
            stack.callback(_remove, path, held)
            path.mkdir(mode=0o700)
            work = WorkDir(path)
        except OSError as exc:
            raise HostError(
                f"cannot make a working directory in {root}: {exc.strerror}",
                hint="free some disk space, or name a directory that you may write to: VMLAB_CACHE=/some/where",
            ) from exc
        stack.callback(work.close)
        yield work


def sweep() -> list[Path]:
    """Remove the directories of runs that are dead, ending guests that outlived them. Returns what was removed.

    A directory whose owner cannot be told for dead (its lock cannot be opened, or the file system has no locks) is left alone.
    """
    root = runs_dir()
    removed = []
    # A run that was killed in its first or last moment leaves a lock file without a directory.
    for name in sorted({path.name.removesuffix(_LOCK) for path in root.glob(f"{_PREFIX}*")}):
        path = root / name
        with contextlib.suppress(OSError):
            held = lease.try_take(_lock_of(path))
            if held is None:
                continue
            with held:
                there = path.exists()
                if _end_guests(path) and _remove(path, held) and there:
                    removed.append(path)
    return removed


def _new(root: Path) -> tuple[Path, Lease]:
    """A path that nobody has, and the lease on it."""
    while True:
        path = root / f"{_PREFIX}{secrets.token_hex(6)}"
        held = lease.try_take(_lock_of(path))
        if held is not None and not path.exists():
            return path, held
        # (A sweep looks at our new lock file at this very moment. It removes it, and we take another name.)


def _remove(path: Path, held: Lease) -> bool:
    """Remove a directory and, once it is gone, its lock file, which the caller holds."""
    shutil.rmtree(path, ignore_errors=True)
    if path.exists():
        log.warning("%s cannot be removed", path)
        held.release()
        return False
    # (Without its file the lease is no less ended: an unlocked file is rubbish.)
    with contextlib.suppress(OSError):
        held.end()
    return True


def _end_guests(path: Path) -> bool:
    """End the guests that hold a dead run's second lock; whether none is left, here or elsewhere. The caller holds the first lock."""
    if not path.exists():
        return True
    guests = _open_guests(path)
    try:
        if not lease.lock(guests):
            for pid in _holders(guests):
                _kill(pid, guests)
            if not lease.wait_for_lock(guests, Deadline(_ENDING_LIMIT_S)):
                log.warning("a guest that outlived its run still uses %s, and cannot be ended from here", path)
                return False
    finally:
        os.close(guests)
    return True


def _open_guests(path: Path) -> int:
    return os.open(path / _GUESTS, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def _lock_of(path: Path) -> Path:
    return path.with_name(path.name + _LOCK)


def _holders(guests: int) -> list[int]:
    """The processes, of those that can be seen, which hold a lock on this open file."""
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal() and _holds(int(entry.name), guests)]


def _holds(pid: int, guests: int) -> bool:
    """Whether a process has this file open and its lock by it: others may have opened the file (a backup, say) and hold nothing."""
    ours = os.fstat(guests)
    with contextlib.suppress(OSError):
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                # The locks of an open file are told in its fdinfo, one to a line: "lock:	1: FLOCK  ADVISORY  READ ..." (proc(5)).
                if os.path.samestat(entry.stat(), ours) and "FLOCK" in Path(f"/proc/{pid}/fdinfo/{entry.name}").read_text():
                    return True
    return False


def _kill(pid: int, guests: int) -> None:
    """End a holder. The descriptor stands for one process: should the pid be another's by now, that one is looked at, and spared."""
    with contextlib.suppress(OSError):
        process = os.pidfd_open(pid)
        try:
            if _holds(pid, guests):
                log.warning("ending guest %d, which outlived its run", pid)
                signal.pidfd_send_signal(process, signal.SIGKILL)
        finally:
            os.close(process)
