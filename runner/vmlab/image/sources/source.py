"""What an image's source is to the store: something that names a version, finds it among what is kept, and makes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

from vmlab.deadline import Deadline
from vmlab.image.shelf import Shelf, entry_name
from vmlab.image.signature import Algorithm
from vmlab.progress import Progress


@dataclass(frozen=True)
class Version:
    """One image of a name: ``key`` is a digest, in hexadecimal, of all that decides its content, or of the content itself."""

    name: str
    key: str
    algorithm: Algorithm = "sha256"
    trusted_by: str = ""
    """Who says that this is the right one, for the user; empty for what is built here."""

    @property
    def entry(self) -> str:
        """Where it is kept, or will be: the cache's name for it."""
        return entry_name(self.name, self.key)


@dataclass(frozen=True)
class Workplace:
    """Where a version is made, by whoever holds its lock."""

    partial: Path
    """What a maker leaves here under one of its source's `Source.resumable` names is there again when it was killed and is called anew."""
    out: Path
    """Empty at first. The image's files, of which ``disk.qcow2`` must be one; the manifest is written by the store."""


class Source(Protocol):
    """Where one image comes from."""

    kind: ClassVar[str]
    """The word for it in the catalogue, in the manifest and in ``vmlab image list``."""
    command: ClassVar[str]
    """The command of ``vmlab image`` that makes it anew; empty where none does."""
    made: ClassVar[str]
    """What is done to make it, as a participle: built, fetched, copied."""
    described: ClassVar[str]
    """The end of a sentence that begins with "the image is"."""
    unchanged: ClassVar[str]
    """The same for a version that was to be made and is there already."""
    resumable: ClassVar[tuple[str, ...]]
    """The files in a workplace that a later attempt goes on from."""

    @property
    def name(self) -> str:
        """The image's name."""

    @property
    def space_bytes(self) -> int:
        """What making it takes on the disk at its height."""

    def key(self) -> str:
        """What changes when the image does, as far as that is known without asking anybody: for the caches of CI services."""

    def kept(self, shelf: Shelf) -> str | None:
        """The cache's entry that is this image until it is made anew, there or not; None when there is no telling without its publisher."""

    def latest(self, progress: Progress, deadline: Deadline) -> Version:
        """The version that is to be had now."""

    def make(self, version: Version, place: Workplace, progress: Progress, deadline: Deadline) -> Mapping[str, Any]:
        """Put the image's files into ``place.out``, once they are found right; returns what the manifest says of them.

        Its fields beyond name, key and kind: cmdline, inits, default_user; optionally firmware and origin.
        """
