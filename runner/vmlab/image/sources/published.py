"""Images as their publishers made them: fetched, and not used before they are found to be what their publisher signed and safe to open."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from vmlab.deadline import Deadline
from vmlab.errors import UsageError
from vmlab.image import download, signature
from vmlab.image.catalog import Digests, PublishedItem
from vmlab.image.image import DISK
from vmlab.image.qcow2 import OWN_BOOT_LOADER, SPACE_NEEDED, make_disk
from vmlab.image.shelf import Shelf, entry_name
from vmlab.image.sources.source import Version, Workplace
from vmlab.progress import Progress

# The largest published cloud images have about 1 GiB.
LIMIT_BYTES = 16 << 30
_DOWNLOAD = "download"


@dataclass(frozen=True)
class PublishedSource:
    """The image of one name that a publisher has; ``catalog`` is the file that says so, and the publisher's key lies beside it.

    ``provided`` is a file that was fetched by other means; it is trusted for the same reasons as a download.
    """

    kind: ClassVar[str] = "published"
    command: ClassVar[str] = "pull"
    made: ClassVar[str] = "fetched"
    described: ClassVar[str] = "fetched from its publisher, not built"
    unchanged: ClassVar[str] = "what its publisher has"
    resumable: ClassVar[tuple[str, ...]] = (_DOWNLOAD, download.part_of(Path(_DOWNLOAD)).name)

    name: str
    item: PublishedItem
    catalog: Path
    provided: Path | None = None

    @property
    def space_bytes(self) -> int:
        """See `Source`."""
        return SPACE_NEEDED

    def key(self) -> str:
        """See `Source`."""
        return f"{self.name}-{self.item.pin or 'published'}"

    def kept(self, shelf: Shelf) -> str | None:
        """See `Source`: the version that is pinned, or without a pin the one that was fetched last."""
        pin = self.item.pin.partition(":")[2]
        found = [entry for entry in shelf.fetched(self.name) if not pin or entry == entry_name(self.name, pin)]
        return found[-1] if found else None

    def latest(self, progress: Progress, deadline: Deadline) -> Version:
        """See `Source`: the pin, else the publisher's word of today.

        Raises `signature.Untrusted` for a digest file that is not the publisher's, and what `download.fetch_small` raises.
        """
        if self.item.pin:
            algorithm, _, digest = self.item.pin.partition(":")
            return Version(self.name, digest, "sha512" if algorithm == "sha512" else "sha256", "the catalogue's pin")
        digests = self.item.digests
        if digests is None:
            raise UsageError(f"{self.item.title}: nothing says what its digest is")
        signed = self._signed(digests, download.fetch_small(digests.address, progress, deadline), progress, deadline)
        digest = signature.digest_in(signed.decode("utf-8", errors="replace"), self.item.file_name, digests.algorithm)
        keys = digests.signature.fingerprints if digests.signature else ()
        by = f"signed by {' or '.join(keys)}" if keys else "unsigned, by the publisher's server alone"
        return Version(self.name, digest, digests.algorithm, f"{digests.address}, {by}")

    def make(self, version: Version, place: Workplace, progress: Progress, deadline: Deadline) -> Mapping[str, Any]:
        """See `Source`. An interrupted download is gone on from.

        Raises `signature.Untrusted` when what is provided, or what the addresses give, is another file, and what `download.fetch` raises.
        """

        def check(path: Path) -> None:
            signature.check_file(path, version.key, version.algorithm, called=self.item.file_name)

        if self.provided is not None:
            signature.check_file(self.provided, version.key, version.algorithm)
            file = self.provided
        else:
            progress.notice(f"fetching image {self.name}")
            file = place.partial / _DOWNLOAD
            # It was found right before it was given this name. Whether it still is takes seconds to see, and a download takes minutes.
            if not (file.exists() and signature.file_digest(file, version.algorithm) == version.key):
                download.fetch(download.Wanted(self.item.addresses, LIMIT_BYTES, check), file, progress, deadline)
        make_disk(file, place.out / DISK, self.item.format, deadline)
        return {
            **OWN_BOOT_LOADER,
            "default_user": self.item.default_user,
            "firmware": self.item.firmware,
            "origin": {"trusted_by": version.trusted_by, "published_digest": f"{version.algorithm}:{version.key}"},
        }

    def _signed(self, digests: Digests, text: bytes, progress: Progress, deadline: Deadline) -> bytes:
        """The part of a digest file that is the publisher's word."""
        wanted = digests.signature
        if wanted is None:
            return text
        proof = download.fetch_small(wanted.address, progress, deadline) if wanted.address else None
        key = self.catalog.parent / wanted.key
        return signature.verified(text, proof, key, fingerprints=wanted.fingerprints, deadline=deadline)
