"""A drive that a lab gives a guest beside its root disk: a raw file in the guest's own directory, and a virtio disk in the guest.

Each guest has a fresh one. A clone has too, and its kernel remembers what the template read of it at its boot: so a template may never
have written to one (`require_untouched`), and the content that a lab gives it is part of the template's key.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vmlab.errors import HostError, TemplateError

# The serial number of a virtio disk, by which the guest names it (Virtio 1.2, section 5.2.6, VIRTIO_BLK_T_GET_ID).
NAME_LIMIT_BYTES = 20

# The time at which a file changed that nobody has written to since it was made.
_UNTOUCHED_NS = 0


@dataclass(frozen=True)
class Drive:
    """What lab.yaml says of a drive. ``content`` is a file that it begins with; what it does not fill is zeros.

    Without ``host_cache`` QEMU opens the file with O_DIRECT, so that each of the guest's requests reaches the host's disk.
    """

    name: str
    size_mib: int
    host_cache: bool = True
    read_only: bool = False
    content: Path | None = None

    @property
    def id(self) -> str:
        """What QEMU calls it."""
        return f"drive-{self.name}"

    @property
    def size_bytes(self) -> int:
        """How large it is."""
        return self.size_mib << 20

    def file(self, directory: Path) -> Path:
        """Where it lies in a guest's own directory."""
        return directory / f"{self.id}.raw"


def make(drives: Sequence[Drive], directory: Path) -> None:
    """Make the files of a guest's drives, but for those that are there: after a power cycle they hold what was written to them.

    HostError when that cannot be.
    """
    for drive in drives:
        path = drive.file(directory)
        if path.exists():
            continue
        try:
            with path.open("xb") as file:
                if drive.content is not None:
                    with drive.content.open("rb") as source:
                        shutil.copyfileobj(source, file)
                file.truncate(drive.size_bytes)
            os.utime(path, ns=(_UNTOUCHED_NS, _UNTOUCHED_NS))
        except OSError as exc:
            raise HostError(f"the drive {drive.name} cannot be made in {directory}: {exc.strerror}") from exc
        if not drive.host_cache:
            _require_direct(drive, path)


def require_untouched(drives: Sequence[Drive], directory: Path) -> None:
    """TemplateError when a guest that is to be cloned has written to a drive: its clones would remember what theirs do not hold."""
    for drive in drives:
        if drive.file(directory).stat().st_mtime_ns != _UNTOUCHED_NS:
            raise TemplateError(
                f"the drive {drive.name} was written to while the guest booted, and a clone gets a fresh one",
                hint="write to it in the experiment, not by cloud_init; or ask for start: cold",
            )


def _require_direct(drive: Drive, path: Path) -> None:
    """HostError where the file system knows no O_DIRECT (open(2): EINVAL)."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_DIRECT | os.O_CLOEXEC))
    except OSError as exc:
        if exc.errno != errno.EINVAL:
            raise HostError(f"the drive {drive.name} cannot be opened in {path.parent}: {exc.strerror}") from exc
        raise HostError(
            f"the drive {drive.name} has host_cache: false, and on the file system of {path.parent} there is no way past the host's cache",
            hint="set VMLAB_CACHE to a directory on a disk (ext4, xfs): a tmpfs is memory, and knows no O_DIRECT",
        ) from exc
