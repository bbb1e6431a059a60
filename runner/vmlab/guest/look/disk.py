"""A guest's disk, looked at from outside: what QEMU counts of it, how it is cached, what it holds, and how fast it may be.

What the guest's kernel keeps in its page cache, and what lies on the disk, are two things: these methods see the disk alone.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vmlab.deadline import Deadline
from vmlab.errors import HostError, UsageError
from vmlab.guest.drive import Drive
from vmlab.guest.machine import Machine
from vmlab.guest.qmp import QmpError

ROOT = "root"
_ROOT_ID = "disk"
_PATIENCE_S = 30.0
_READ_LIMIT_BYTES = 16 << 20
_CHUNK_BYTES = 1 << 20

# Of QEMU's BlockDeviceStats (qapi/block-core.json), those that tell what the guest asked of the device.
_COUNTERS = (
    *("rd_operations", "rd_bytes", "rd_merged", "wr_operations", "wr_bytes", "wr_merged"),
    *("flush_operations", "unmap_operations", "unmap_bytes"),
)
# block_set_io_throttle wants all six, 0 for none; a total excludes limits for one direction.
_LIMITS = ("bps", "bps_rd", "bps_wr", "iops", "iops_rd", "iops_wr")


class DiskView:
    """The look from outside at one disk of a guest: its root disk, or a drive that its lab gave it."""

    def __init__(self, machine: Machine, name: str, deadline: Deadline) -> None:
        drives = {drive.name: drive for drive in machine.request.drives}
        if name != ROOT and name not in drives:
            raise UsageError(
                f"guest {machine.request.name} has no disk named {name!r}",
                hint=f"it has: {', '.join([ROOT, *drives])}; lab.yaml says which (guests.{machine.request.name}.disks)",
            )
        self.name = name
        self._machine = machine
        self._drive: Drive | None = drives.get(name)
        self._id = self._drive.id if self._drive else _ROOT_ID
        self._deadline = deadline

    def statistics(self) -> dict[str, int]:
        """What QEMU has counted of it since the guest's start (``query-blockstats``).

        ``rd_operations``, ``rd_bytes``, ``rd_merged``, the same with ``wr_``, ``flush_operations``, ``unmap_operations``, ``unmap_bytes``:
        requests of the guest, whether or not they reached the host's disk.
        """
        counted = self._of_mine(self._ask("query-blockstats"))["stats"]
        return {name: int(counted[name]) for name in _COUNTERS if name in counted}

    def cache(self) -> dict[str, bool]:
        """How the host caches it (``query-block``).

        ``direct``: past the host's page cache; ``no_flush``: a flush of the guest's is counted and goes no further; ``writeback``: a write
        is done for the guest when the host has it, before a flush.
        """
        found = self._inserted()["cache"]
        return {"direct": bool(found["direct"]), "no_flush": bool(found["no-flush"]), "writeback": bool(found["writeback"])}

    def read(self, offset: int, size: int) -> bytes:
        """Bytes of the disk as the host holds them, 16 MiB at most. UsageError beyond its end."""
        self._check(offset, size)
        if size > _READ_LIMIT_BYTES:
            raise UsageError(f"{size} bytes of the disk {self.name} were asked for; {_READ_LIMIT_BYTES} can be read at once")
        with self._opened(os.O_RDONLY) as file:
            return os.pread(file, size, offset)

    def write(self, offset: int, content: bytes) -> None:
        """Change bytes of the disk behind the guest's back. UsageError beyond its end.

        A guest that has them in its page cache goes on reading what it had, until it drops them or reads past its cache (O_DIRECT);
        and what it writes back later takes the place of what was written here.
        """
        self._check(offset, len(content))
        with self._opened(os.O_RDWR) as file:
            done = 0
            while done < len(content):
                done += os.pwrite(file, content[done:], offset + done)

    def find(self, content: bytes, start: int = 0) -> int | None:
        """Where on the disk these bytes first stand, from ``start`` on; None where they do not. What was never written is not read."""
        if not content:
            raise UsageError("there must be at least one byte to look for")
        if len(content) > _CHUNK_BYTES:
            raise UsageError(f"{len(content)} bytes are too many to look for; {_CHUNK_BYTES} can be")
        self._check(start, 0)
        with self._opened(os.O_RDONLY) as file:
            for begin, end in _data(file, start):
                at = begin
                while at < end:
                    # (What stands across the end of a chunk, or of the data, is found too.)
                    chunk = os.pread(file, _CHUNK_BYTES + len(content) - 1, at)
                    found = chunk.find(content)
                    if found >= 0:
                        return at + found
                    at += _CHUNK_BYTES
        return None

    @contextlib.contextmanager
    def limited(self, *, operations_per_s: int = 0, bytes_per_s: int = 0) -> Iterator[None]:
        """Hold the disk to so many requests and bytes a second while the block lasts; 0 is no limit. What held before holds again after it.

        QEMU lets a tenth of a second's worth pass at once before it holds requests back. UsageError for a limit that is none.
        """
        if min(operations_per_s, bytes_per_s) < 0 or not operations_per_s + bytes_per_s:
            raise UsageError("a disk is limited to a positive number of operations_per_s, of bytes_per_s, or of both")
        inserted = self._inserted()
        before = {name: int(inserted.get(name, 0)) for name in _LIMITS}
        self._limit(dict.fromkeys(_LIMITS, 0) | {"iops": operations_per_s, "bps": bytes_per_s})
        try:
            yield
        except BaseException:
            # What went wrong in the block is told, not that a guest which died of it has no disk any more.
            with contextlib.suppress(QmpError):
                self._limit(before, attributed=False)
            raise
        self._limit(before)

    def _limit(self, limits: dict[str, int], *, attributed: bool = True) -> None:
        with self._machine.attributing() if attributed else contextlib.nullcontext():
            self._machine.monitor.execute("block_set_io_throttle", self._deadline.within(_PATIENCE_S), device=self._id, **limits)

    def _ask(self, command: str) -> list[dict[str, Any]]:
        with self._machine.attributing():
            return list(self._machine.monitor.execute(command, self._deadline.within(_PATIENCE_S)))

    def _inserted(self) -> dict[str, Any]:
        return dict(self._of_mine(self._ask("query-block"))["inserted"])

    def _of_mine(self, devices: list[dict[str, Any]]) -> dict[str, Any]:
        mine = next((each for each in devices if each.get("device") == self._id), None)
        if mine is None:
            raise QmpError(f"QEMU does not know the disk {self.name}")
        return mine

    def _check(self, offset: int, size: int) -> None:
        drive = self._raw()
        if offset < 0 or size < 0 or offset + size > drive.size_bytes:
            raise UsageError(f"the disk {self.name} has {drive.size_bytes} bytes; {size} at {offset} are not among them")

    def _raw(self) -> Drive:
        if self._drive is None:
            raise UsageError(
                "the root disk cannot be read, written or searched from outside: it is an overlay (qcow2) whose bytes lie anywhere",
                hint="use a drive of the lab's own (disks in lab.yaml); the root disk has statistics(), cache() and limited()",
            )
        return self._drive

    @contextlib.contextmanager
    def _opened(self, flags: int) -> Iterator[int]:
        path: Path = self._raw().file(self._machine.directory)
        try:
            file = os.open(path, flags | os.O_CLOEXEC)
            try:
                yield file
            finally:
                os.close(file)
        except OSError as exc:
            raise HostError(f"the file of the disk {self.name} cannot be used: {exc.strerror}") from exc


def _data(file: int, start: int) -> Iterator[tuple[int, int]]:
    """The parts of a sparse file, from ``start`` on, that were ever written (lseek(2), SEEK_DATA)."""
    size = os.fstat(file).st_size
    end = start
    while end < size:
        try:
            begin = os.lseek(file, end, os.SEEK_DATA)
        except OSError:
            # ENXIO: there is nothing but a hole up to the end.
            return
        end = os.lseek(file, begin, os.SEEK_HOLE)
        yield begin, end
