"""An image: the disk that a guest boots from, and the manifest that says what it is.

disk.qcow2  vmlinuz  initrd.img   what it boots from (a published image has its kernel inside its disk)
manifest.json                     what it is, where it comes from, and the digest of each file
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from vmlab.errors import ImageError
from vmlab.image.cache import sha256

DISK, KERNEL, INITRD = "disk.qcow2", "vmlinuz", "initrd.img"
MANIFEST = "manifest.json"

Manifest = Mapping[str, Any]


@dataclass(frozen=True)
class Image:
    """A disk to boot from, checked against its manifest when it was handed out."""

    name: str
    digest: str
    directory: Path
    disk: Path
    kernel: Path | None
    initrd: Path | None
    cmdline: str
    inits: Mapping[str, str]
    default_user: str
    manifest: Manifest
    firmware: str = "bios"
    """What starts its own boot loader, where it is not started by a kernel beside it: ``bios`` or ``uefi``."""


def load(name: str, directory: Path) -> Image:
    """The image in a directory whose files were found right; ImageError when it has gone meanwhile."""
    manifest = read_manifest(directory)
    if manifest is None:
        raise ImageError(f"image {name} vanished from the cache", hint="try again")
    return Image(
        name=name,
        digest=manifest["files"][DISK]["sha256"],
        directory=directory,
        disk=directory / DISK,
        kernel=directory / KERNEL if KERNEL in manifest["files"] else None,
        initrd=directory / INITRD if INITRD in manifest["files"] else None,
        cmdline=manifest["cmdline"],
        inits=manifest["inits"],
        default_user=manifest["default_user"],
        manifest=manifest,
        firmware=manifest.get("firmware", "bios"),
    )


def write_manifest(directory: Path, facts: Mapping[str, Any]) -> None:
    """Write down what an image is, when it was made (or fetched), and the digest of each of its files."""
    paths = sorted(path for path in directory.iterdir() if path.is_file())
    files = {path.name: {"sha256": sha256(path), "size": path.stat().st_size} for path in paths}
    # To the microsecond: of two versions that were fetched one after the other, the later is the newer one.
    manifest = {**facts, "built_at": datetime.now(UTC).isoformat(timespec="microseconds"), "vmlab": _version(), "files": files}
    (directory / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def read_manifest(directory: Path) -> Manifest | None:
    """An image's manifest, or None where there is none that can be used."""
    try:
        manifest: Manifest = json.loads((directory / MANIFEST).read_text(encoding="utf-8"))
        usable = all(isinstance(manifest["files"][name]["sha256"], str) for name in boots_from(manifest)) and all(
            manifest[field] for field in ("name", "key", "built_at", "inits", "default_user")
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return manifest if usable else None


def boots_from(manifest: Manifest) -> tuple[str, ...]:
    """The files that an image boots from, and which are therefore verified."""
    return (DISK,) if manifest.get("kind") in ("published", "file") else (DISK, KERNEL, INITRD)


def _version() -> str:
    try:
        return metadata.version("vmlab")
    except metadata.PackageNotFoundError:
        return "unknown"  # run from a clone that was never installed
