"""Published images: fetched, and not used before they are found to be what their publisher signed and safe to open."""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vmlab import process
from vmlab.deadline import Deadline
from vmlab.errors import HostError, ImageError, UsageError
from vmlab.image import download, signature
from vmlab.image.cache import Tell
from vmlab.image.catalog import Digests, PublishedEntry

log = logging.getLogger(__name__)

# The largest published cloud images have about 1 GiB; a server that sends without end shall not fill the disk.
LIMIT_BYTES = 16 << 30
# Whoever makes an image decides how large the guest's disk is; an overlay grows up to that.
DISK_LIMIT_BYTES = 1 << 40


@dataclass(frozen=True)
class Expected:
    """The digest that a file must have, and who says so."""

    algorithm: Literal["sha256", "sha512"]
    digest: str
    trusted_by: str

    def as_origin(self) -> dict[str, str]:
        """What an image's manifest keeps of it."""
        return {"trusted_by": self.trusted_by, "published_digest": f"{self.algorithm}:{self.digest}"}


def expected(entry: PublishedEntry, folder: Path, deadline: Deadline, tell: Tell) -> Expected:
    """What the image's digest must be: the pin, else the publisher's word of today.

    ``folder`` holds the keys. Raises `signature.Untrusted` for a digest file that is not the publisher's, ImageError when it cannot be had.
    """
    if entry.pin:
        algorithm, _, digest = entry.pin.partition(":")
        return Expected("sha512" if algorithm == "sha512" else "sha256", digest, "the catalogue's pin")
    digests = entry.digests
    if digests is None:
        raise UsageError(f"{entry.title}: nothing says what its digest is")
    text = download.fetch_small([digests.address], deadline=deadline, tell=tell)
    signed = _signed(digests, text, folder, deadline, tell)
    digest = signature.digest_in(signed.decode("utf-8", errors="replace"), entry.file_name, digests.algorithm)
    by = f"signed by {' or '.join(digests.signature.fingerprints)}" if digests.signature else "unsigned, by the publisher's server alone"
    return Expected(digests.algorithm, digest, f"{digests.address}, {by}")


def _signed(digests: Digests, text: bytes, folder: Path, deadline: Deadline, tell: Tell) -> bytes:
    """The part of a digest file that is the publisher's word."""
    wanted = digests.signature
    if wanted is None:
        return text
    proof = download.fetch_small([wanted.address], deadline=deadline, tell=tell) if wanted.address else None
    return signature.verified(text, proof, folder / wanted.key, fingerprints=wanted.fingerprints, deadline=deadline)


def obtain(entry: PublishedEntry, wanted: Expected, partial: Path, deadline: Deadline, tell: Tell) -> Path:
    """The image's file in ``partial``, fetched there and found right. An interrupted download is gone on from.

    Raises `signature.Untrusted` when the addresses give another file, and what `download.fetch` raises.
    """
    # The digest is in the name, so that the rest of another version is never taken for the beginning of this one.
    target = partial / f"download-{wanted.digest[:16]}"
    for left in partial.glob("download-*"):
        if not left.name.startswith(target.name):
            left.unlink()
    if not target.exists():
        download.fetch(entry.addresses, target, deadline=deadline, tell=tell, limit_bytes=LIMIT_BYTES)
    try:
        signature.check_file(target, wanted.digest, wanted.algorithm)
    except signature.Untrusted:
        download.forget(target)
        raise
    return target


def make_disk(source: Path, disk: Path, declared: Literal["qcow2", "raw", ""], deadline: Deadline) -> None:
    """Copy an image's file to ``disk``, as qcow2, once it is known that opening it opens nothing else.

    A qcow2 file can name a backing file or a data file, and QEMU would give the guest whatever of the host's that is. ``declared`` is its
    format as the catalogue has it; empty is to look. Raises ImageError when it is no such file, or one that is not safe.
    """
    if shutil.which("qemu-img") is None:
        raise HostError("qemu-img is missing", hint="run `vmlab doctor`; on Debian and Ubuntu: apt-get install qemu-utils")
    with source.open("rb") as file:
        # "QFI\xfb" begins every qcow2 file (QEMU's docs/interop/qcow2.txt). Without a look of our own QEMU would guess among all formats.
        found: Literal["qcow2", "raw"] = "qcow2" if file.read(4) == b"QFI\xfb" else "raw"
    if declared and found != declared:
        raise ImageError(f"{source.name} is not a {declared} file", hint="the catalogue's `format` must be the file's")
    try:
        said = process.run(["qemu-img", "info", "--output=json", "-U", "-f", found, str(source)], deadline=deadline.within(60)).stdout
        info = json.loads(said)
        special = (info.get("format-specific") or {}).get("data") or {}
    except (process.CommandError, ValueError, AttributeError) as exc:
        raise ImageError(f"{source.name} is not a disk image: {exc}", hint="expected a qcow2 or raw file") from exc
    for field, place in (("backing-filename", info), ("full-backing-filename", info), ("data-file", special)):
        if place.get(field):
            raise ImageError(
                f"{source.name} refers to another file ({field}: {place[field]!r})",
                hint="use an image that stands alone: `qemu-img convert -O qcow2` makes one of it",
            )
    size = int(info["virtual-size"])
    if not 1 << 20 <= size <= DISK_LIMIT_BYTES:
        raise ImageError(f"{source.name} describes a disk of {size} bytes", hint="expected one between 1 MiB and 1 TiB")
    if found == "qcow2":
        shutil.copyfile(source, disk)
    else:
        process.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(source), str(disk)], deadline=deadline)
