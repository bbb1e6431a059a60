"""A directory of finished things that are expensive to make: each is whole or absent, and is made by one process at a time.

    <root>/<entry>/            finished: read-only, and there by one rename
    <root>/partial/<entry>/    being made, or what is left of a maker that was killed
    <root>/locks/<entry>.lock  held by the one process that may touch either
    <root>/seals/<entry>.json  which files were read and found right; its date is when the entry was last used

The lock is the kernel's and ends with its owner (`vmlab.lease`): whoever gets it knows that any partial directory is nobody's any more.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import stat
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from vmlab import lease, paths, process
from vmlab.deadline import Deadline
from vmlab.errors import HostError
from vmlab.image.builder import namespace
from vmlab.lease import Lease
from vmlab.progress import Progress

_TELL_EVERY_S = 10.0
_OURS = ("partial", "locks", "seals")


class Cache:
    """The entries below one root, by name. Directories are made when they are first needed."""

    def __init__(self, root: Path, progress: Progress) -> None:
        self._directory = root
        self._progress = progress

    @property
    def root(self) -> Path:
        """Where the entries are; HostError when it cannot be made."""
        root = paths.ensure_private_dir(self._directory)
        for child in _OURS:
            paths.ensure_private_dir(root / child)
        return root

    def final(self, entry: str) -> Path:
        """Where the finished entry is, or will be."""
        return self.root / entry

    def partial(self, entry: str) -> Path:
        """Where the entry is made. Only the holder of its lock may touch it."""
        return self.root / "partial" / entry

    def entries(self) -> list[str]:
        """The names of what is finished."""
        return sorted(path.name for path in self.root.iterdir() if path.is_dir() and path.name not in _OURS)

    def leftovers(self) -> list[str]:
        """The names of what is being made, or was when its maker was killed."""
        return sorted(path.name for path in (self.root / "partial").iterdir())

    @contextlib.contextmanager
    def locked(self, entry: str, what: str, deadline: Deadline) -> Iterator[None]:
        """Hold an entry's lock, telling the user whom we wait for; HostError when the deadline passes first."""
        while (held := self._take(entry, what, deadline.within(_TELL_EVERY_S))) is None:
            if deadline.expired():
                raise HostError(
                    f"another process is still building {what} after {deadline.budget_s:.0f} s",
                    hint="wait for it to finish, then try again",
                )
            self._progress.notice(f"waiting for another process that is building {what}")
        with held:
            yield

    def _take(self, entry: str, what: str, deadline: Deadline) -> Lease | None:
        try:
            return lease.take(self._lock(entry), deadline)
        except OSError as exc:
            raise HostError(
                f"cannot lock {what} in {self._directory}: {exc.strerror}",
                hint="give a directory you may write to: VMLAB_CACHE=/some/where",
            ) from exc

    def publish(self, out: Path, entry: str, *, writable: str = "") -> Path:
        """Put a finished entry in its place. Between the two renames it is absent, never half there. The caller holds its lock.

        Its files become read-only, all but the one named ``writable``.
        """
        final = self.final(entry)
        for path in out.iterdir():
            path.chmod(0o600 if path.name == writable else 0o444)
            sync(path)
        sync(out)
        if final.exists():
            final.chmod(0o700)
            final.rename(self.partial(entry) / f"replaced-{uuid.uuid4().hex}")
        out.rename(final)
        final.chmod(0o555)
        sync(final.parent)
        return final

    def problems(self, entry: str, files: Mapping[str, Mapping[str, Any]], *, thorough: bool = False) -> list[str]:
        """What is wrong with an entry's files, one line each; ``files`` gives each one's ``size`` in bytes and ``sha256``.

        A file is read once and sealed: as long as the kernel gives it the same inode, size and times, its content is the one that was
        read. (The time of change, st_ctime, is nobody's to set; see inode(7).) ``thorough`` reads every byte in any case.
        """
        seal = self._seal(entry)
        try:
            sealed = None if thorough else json.loads(seal.read_text())
        except (OSError, ValueError):
            sealed = None
        problems, now = [], {}
        for name, expected in files.items():
            path = self.final(entry) / name
            try:
                now[name] = [*_marks(path), expected["sha256"]]
                size = path.stat().st_size
                if size != expected["size"]:
                    problems.append(f"{name} has {size} bytes, expected {expected['size']}")
                elif not (isinstance(sealed, dict) and sealed.get(name) == now[name]) and sha256(path) != expected["sha256"]:
                    problems.append(f"{name} has changed since it was built")
            except OSError as exc:
                problems.append(f"{name} cannot be read: {exc.strerror}")
        # A cache that cannot be written is read the long way each time.
        with contextlib.suppress(OSError):
            if problems:
                seal.unlink(missing_ok=True)
            elif sealed != now:
                new = seal.with_suffix(f".{uuid.uuid4().hex}")
                new.write_text(json.dumps(now))
                new.replace(seal)
            else:
                os.utime(seal)
        return problems

    def last_used(self, entry: str) -> float:
        """When the entry was last found right for a user, in seconds since the epoch; 0 when never."""
        try:
            return self._seal(entry).stat().st_mtime
        except OSError:
            return 0.0

    def discard(self, entry: str, directory: Path | None = None) -> int:
        """Remove an entry (or its partial directory) unless somebody holds its lock; returns the bytes freed."""
        held = lease.try_take(self._lock(entry))
        if held is None:
            return 0
        with held:
            directory = directory or self.final(entry)
            size = size_of(directory)
            remove(directory)
            if directory == self.final(entry):
                self._seal(entry).unlink(missing_ok=True)
            return size

    def _lock(self, entry: str) -> Path:
        return self.root / "locks" / f"{entry}.lock"

    def _seal(self, entry: str) -> Path:
        return self.root / "seals" / f"{entry}.json"


def _marks(path: Path) -> list[int]:
    """What the kernel changes when a file is written, replaced or restored from elsewhere."""
    info = path.stat()
    return [info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns]


def sha256(path: Path) -> str:
    """The digest of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def size_of(directory: Path) -> int:
    """What a directory takes on the disk in bytes, sparse files counted as what they hold."""
    total = 0
    for folder, _, names in os.walk(directory):
        for name in names:
            with contextlib.suppress(OSError):
                total += (Path(folder) / name).lstat().st_blocks * 512
    return total


def remove(path: Path) -> None:
    """Remove a file or a tree, although finished entries are read-only and a build's leftovers may belong to other users."""
    if not path.is_dir() or path.is_symlink():
        path.unlink(missing_ok=True)
        return
    with contextlib.suppress(OSError):
        for folder, _, _ in os.walk(path):
            Path(folder).chmod(stat.S_IRWXU)
        shutil.rmtree(path)
    if path.exists():
        process.run([*namespace.prefix(), "rm", "-rf", "--", str(path)], deadline=Deadline(120))


def sync(path: Path) -> None:
    """Make sure that a file or a directory is on the disk before a name is given to it that promises so."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
