"""Disk images that other people made, taken as the disk of an image of ours once it is known that opening them opens nothing else."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from vmlab import process
from vmlab.deadline import Deadline
from vmlab.errors import ImageError

# Whoever makes an image decides how large the guest's disk is; an overlay grows up to that.
DISK_LIMIT_BYTES = 1 << 40
# At the height there are the file, its copy, and some room beside them; the largest cloud images have about 1 GiB.
SPACE_NEEDED = 3 << 30
# Which program its boot loader starts as init is the image's own affair; all that we know of are systemd's.
OWN_BOOT_LOADER: Mapping[str, Any] = {"cmdline": "", "inits": {"systemd": "its own"}}


def make_disk(source: Path, disk: Path, declared: Literal["qcow2", "raw", ""], deadline: Deadline) -> None:
    """Copy an image's file to ``disk``, as qcow2, once it is known that opening it opens nothing else.

    A qcow2 file can name a backing file or a data file, and QEMU would give the guest whatever of the host's that is. ``declared`` is its
    format as the catalogue has it; empty is to look. Raises ImageError when it is no such file, or one that is not safe, and HostError when
    qemu-img is missing.
    """
    process.require("qemu-img")
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
