"""The appliance: a small Linux whose only program is the KVM probe, for emulators on which a whole guest would take minutes to boot.

It is made from one of our images, without root: a clean guest of that image packs what the probe needs (its own Python and the modules of
KVM; `vmlab.guest.inside.pack`), and the host makes an initrd of it and a disk that boots it. It says what it found over the serial port
(`vmlab.guest.inside.appliance`). Kept like an image, under ``<cache>/appliances/``.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import stat
import tarfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from vmlab import paths
from vmlab.deadline import Deadline
from vmlab.errors import GuestError, ImageError
from vmlab.guest.inside import appliance as inside
from vmlab.guest.machine import Machine
from vmlab.host import probe
from vmlab.image.builder import bootloader, initrd
from vmlab.image.builder.workshop import Workshop
from vmlab.image.cache import Cache, remove, sha256
from vmlab.image.image import Image
from vmlab.progress import Progress

log = logging.getLogger(__name__)

_INSIDE = Path(inside.__file__)
_PACK = _INSIDE.with_name("pack.py")
_IN_GUEST = "/run/vmlab/pack"

FORMAT = 1
"""Counted up when appliances are made in another way than before."""
CMDLINE = "console=ttyS0 quiet mitigations=off nokaslr init_on_alloc=0 cryptomgr.notests audit=0 apparmor=0"
"""Without what costs an emulated processor time and is of no use in a system that runs one program for a minute."""
_KERNEL, _INITRD, _DISK, _MANIFEST = "vmlinuz", "initrd.img", "disk.img", "manifest.json"
_FILES = (_KERNEL, _INITRD, _DISK)

PACK_LIMIT_S = 120.0

# Linux runs from the initrd: the root partition is there for the table's sake alone. Kernel and initrd take half of the boot partition.
_LAYOUT = bootloader.Layout(root_size=1 << 20, esp_size=60 << 20, root_start=64 << 20)


@dataclass(frozen=True)
class Appliance:
    """Kernel and initrd for an emulator that loads them itself, and a disk that boots the same by a BIOS."""

    kernel: Path
    initrd: Path
    disk: Path


class ApplianceStore:
    """The appliances in one cache directory. ``progress`` is told what takes long."""

    def __init__(self, progress: Progress, directory: Path | None = None) -> None:
        self._cache = Cache(directory or paths.cache_dir() / "appliances", progress)

    def find(self, image: Image) -> Appliance | None:
        """The appliance made from this image, when there is one and every byte of it is as it was made."""
        entry = entry_name(image)
        directory = self._cache.final(entry)
        files = _manifest(directory)
        if files is None or self._cache.problems(entry, files):
            return None
        return _load(directory)

    def get(self, image: Image, packer: Callable[[], AbstractContextManager[Machine]], deadline: Deadline) -> Appliance:
        """The appliance made from this image; made now if need be, out of the clean guest of that image that ``packer`` starts.

        Raises ImageError when it cannot be made, GuestError for an image that has no kernel beside its disk, what a guest's start
        raises, and HostError when another process makes it for longer than the deadline.
        """
        found = self.find(image)
        if found is not None:
            return found
        entry = entry_name(image)
        with self._cache.locked(entry, f"the appliance {entry}", deadline):
            # Somebody else may have made it while we waited for the lock.
            return self.find(image) or self._make(image, entry, packer, deadline)

    def _make(self, image: Image, entry: str, packer: Callable[[], AbstractContextManager[Machine]], deadline: Deadline) -> Appliance:
        if image.kernel is None:
            raise GuestError(
                f"the image {image.name} has no kernel beside its disk to make an appliance of", hint="use one that vmlab builds"
            )
        partial = self._cache.partial(entry)
        remove(partial)
        out = partial / "out"
        out.mkdir(parents=True, mode=0o700)
        try:
            with packer() as machine:
                pack(machine, partial / "packed.tar", deadline)
            shutil.copyfile(image.kernel, out / _KERNEL)
            with tarfile.open(partial / "packed.tar") as packed:
                (out / _INITRD).write_bytes(initrd.cpio(_entries(packed)))
            _write_disk(out, partial, image, deadline)
            manifest = {name: {"size": (out / name).stat().st_size, "sha256": sha256(out / name)} for name in _FILES}
            (out / _MANIFEST).write_text(json.dumps({"maker": _maker(), "image": image.digest, "files": manifest}, indent=2))
            directory = self._cache.publish(out, entry)
        finally:
            remove(partial)
        _drop_useless(self._cache)
        return _load(directory)


def pack(machine: Machine, target: Path, deadline: Deadline) -> None:
    """Let a guest pack what the appliance needs, and fetch the tar. ImageError when the guest lacks a part of it."""
    files = {path.name: path for path in (_INSIDE, _PACK)} | {f"kvm/{name}": path for name, path in probe.files().items()}
    with machine.attributing():
        machine.ssh.put_tree(files, _IN_GUEST, deadline=deadline)
        packed = machine.ssh.execute(f"cd {_IN_GUEST} && python3 pack.py >packed.tar", deadline=deadline.within(PACK_LIMIT_S))
        if packed.status != 0:
            last = (packed.stderr.strip().splitlines() or ["it said nothing"])[-1]
            raise ImageError(
                f"a guest of the image {machine.request.image.name} cannot be packed: {last[:200]}", detail=packed.stderr[-2000:]
            )
        machine.ssh.get(f"{_IN_GUEST}/packed.tar", target, deadline=deadline)


def key_of(image: Image) -> str:
    """What an appliance is made of, as one digest."""
    return hashlib.sha256(f"{_maker()} {image.digest}".encode()).hexdigest()


def _maker() -> str:
    """How this version of vmlab makes appliances, as one digest: whatever differs in it makes those of another version useless."""
    made_by = hashlib.sha256(f"{FORMAT} {CMDLINE} {_LAYOUT}".encode())
    for path in (_INSIDE, _PACK, *probe.files().values()):
        made_by.update(path.read_bytes())
    return made_by.hexdigest()


def entry_name(image: Image) -> str:
    """What an appliance's directory is called."""
    return f"{image.name}-{key_of(image)[:16]}"


def prune(directory: Path | None = None) -> int:
    """Remove what killed makers left, and appliances that this version of vmlab does not use; returns the bytes freed."""
    cache = Cache(directory or paths.cache_dir() / "appliances", Progress())
    return sum(cache.discard(entry, cache.partial(entry)) for entry in cache.leftovers()) + _drop_useless(cache)


def _drop_useless(cache: Cache) -> int:
    return sum(cache.discard(entry) for entry in cache.entries() if _manifest(cache.final(entry)) is None)


def _load(directory: Path) -> Appliance:
    return Appliance(directory / _KERNEL, directory / _INITRD, directory / _DISK)


def _manifest(directory: Path) -> dict[str, dict[str, Any]] | None:
    """Size and digest of each file, or None where there is no appliance that can be used."""
    try:
        manifest = json.loads((directory / _MANIFEST).read_text())
        files = {name: {"size": manifest["files"][name]["size"], "sha256": manifest["files"][name]["sha256"]} for name in _FILES}
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return files if manifest.get("maker") == _maker() else None


def _entries(packed: tarfile.TarFile) -> Iterator[initrd.Member]:
    """The initrd's files: what was packed, with modules unpacked, and our own."""
    file, link = stat.S_IFREG, stat.S_IFLNK
    files = {"init": (file | 0o755, _INSIDE.read_bytes())}
    for member in packed:
        opened = packed.extractfile(member) if member.isfile() else None
        content = opened.read() if opened is not None else member.linkname.encode()
        top, _, name = member.name.partition("/")
        if top == "modules":
            files[f"modules/{name.partition('.ko')[0]}.ko"] = (file | 0o644, initrd.decompressed(name, content))
        else:
            files[name] = ((file | member.mode) if member.isfile() else (link | 0o777), content)
    folders = {str(folder) for name in files for folder in PurePosixPath(name).parents if str(folder) != "."}
    for folder in sorted(folders | {"dev", "proc", "sys"}):
        yield initrd.Member(folder, stat.S_IFDIR | 0o755)
    yield initrd.CONSOLE
    for name, (mode, content) in sorted(files.items()):
        yield initrd.Member(name, mode, content)


def _write_disk(out: Path, scratch: Path, image: Image, deadline: Deadline) -> None:
    """A disk that boots kernel and initrd by GRUB, as our images' disks do."""
    disk = out / _DISK
    with disk.open("wb") as file:
        file.truncate(_LAYOUT.disk_size)
    with (scratch / "build.log").open("wb") as written:
        bootloader.write(
            disk,
            _LAYOUT,
            uuid.uuid5(uuid.NAMESPACE_OID, key_of(image)),
            kernel=out / _KERNEL,
            initrd=out / _INITRD,
            config=bootloader.grub_config(CMDLINE, "/init"),
            shop=Workshop(scratch, written, deadline),
        )
