"""Images in files of the user's own, named by their paths. Nobody vouches for them but the user."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from vmlab.deadline import Deadline
from vmlab.errors import UsageError
from vmlab.image.cache import sha256
from vmlab.image.image import DISK
from vmlab.image.qcow2 import OWN_BOOT_LOADER, SPACE_NEEDED, make_disk
from vmlab.image.shelf import Shelf
from vmlab.image.sources.source import Version, Workplace
from vmlab.progress import Progress


def is_file_name(name: str) -> bool:
    """Whether an image is named by its file, not by the catalogue's word for it."""
    return "/" in name or name.endswith((".qcow2", ".img", ".raw"))


@dataclass(frozen=True)
class FileSource:
    """The image in one file, copied into the cache unless a copy with this content is there."""

    kind: ClassVar[str] = "file"
    command: ClassVar[str] = ""
    made: ClassVar[str] = "copied"
    described: ClassVar[str] = "a file of your own, copied when a lab is run with it"
    unchanged: ClassVar[str] = "what is in its file"
    resumable: ClassVar[tuple[str, ...]] = ()

    path: Path

    @property
    def name(self) -> str:
        """See `Source`: a name that can be a directory's."""
        return f"file-{re.sub('[^a-z0-9.-]', '-', self.path.stem.lower())[:40]}"

    @property
    def space_bytes(self) -> int:
        """See `Source`."""
        return SPACE_NEEDED

    def key(self) -> str:
        """See `Source`."""
        return self._version.entry

    def kept(self, _shelf: Shelf) -> str:
        """See `Source`."""
        return self._version.entry

    def latest(self, _progress: Progress, _deadline: Deadline) -> Version:
        """See `Source`."""
        return self._version

    def make(self, version: Version, place: Workplace, progress: Progress, deadline: Deadline) -> Mapping[str, Any]:
        """See `Source`. Raises what `make_disk` raises."""
        progress.notice(f"copying {self.path} into the cache")
        make_disk(self.path, place.out / DISK, "", deadline)
        return {**OWN_BOOT_LOADER, "default_user": "student", "firmware": "bios", "origin": {"trusted_by": version.trusted_by}}

    @cached_property
    def _version(self) -> Version:
        """Read once: a file that is written meanwhile is taken for what it was."""
        if not self.path.is_file():
            hint = "give a qcow2 or raw file, or a name that `vmlab image list` shows"
            raise UsageError(f"there is no image file {self.path}", hint=hint)
        try:
            digest = sha256(self.path)
        except OSError as exc:
            raise UsageError(f"cannot read {self.path}: {exc.strerror}", hint="give a file that you may read") from exc
        return Version(self.name, digest, trusted_by=f"the user, as {self.path}")
