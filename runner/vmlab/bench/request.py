"""From what lab.yaml asks for to what the machine wing understands."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from vmlab.errors import UsageError
from vmlab.guest.drive import Drive
from vmlab.guest.link import Link
from vmlab.guest.machine import BootRequest
from vmlab.guest.processor import ORDINARY, Processor
from vmlab.host import facts
from vmlab.image.image import Image
from vmlab.lab.guests import GuestRequest
from vmlab.lab.lab import Lab
from vmlab.yamlfile import shown


def boot_request(lab: Lab, name: str, wanted: GuestRequest, image: Image, accelerator: Literal["kvm", "tcg"]) -> BootRequest:
    """The guest of this name as ``wanted``, which is what lab.yaml says of it and perhaps more. ``accelerator`` is the run's.

    UsageError for a drive whose content cannot be had.
    """
    cpu = wanted.cpu
    return BootRequest(
        name=name,
        image=image,
        accelerator="tcg" if wanted.virtualisation != "none" else wanted.accelerator or accelerator,
        memory_mib=wanted.memory_mib,
        cpus=wanted.cpus,
        virtualisation=wanted.virtualisation,
        init=wanted.init,
        kernel_args=wanted.kernel_args,
        internet=wanted.internet,
        cloud_init=wanted.cloud_init,
        small_pages=wanted.small_pages,
        firmware=facts.uefi_firmware() if image.kernel is None and image.firmware == "uefi" else None,
        processor=Processor(cpu.la57, cpu.pcid, cpu.physical_bits or 0) if cpu else ORDINARY,
        drives=drives_of(lab, name, wanted),
        links=links_of(lab, name, wanted),
    )


def drives_of(lab: Lab, name: str, request: GuestRequest) -> tuple[Drive, ...]:
    """The drives of a guest. UsageError for one whose content cannot be had."""
    drives = []
    for drive, wanted in request.disks.items():
        place = f"{shown(lab.directory / 'lab.yaml')}: guests.{name}.disks.{drive}.content"
        content = _content(lab.directory, wanted.content, wanted.size_mib, place) if wanted.content is not None else None
        drives.append(Drive(drive, wanted.size_mib, wanted.host_cache, wanted.read_only, content))
    return tuple(drives)


def _content(directory: Path, name: str, size_mib: int, place: str) -> Path:
    path = directory / name
    if not path.is_file():
        raise UsageError(f"{place}: the lab has no file {name}", hint="name a file by its path from the lab's folder")
    if path.stat().st_size > size_mib << 20:
        raise UsageError(
            f"{place}: {name} has {path.stat().st_size} bytes, and the disk {size_mib} MiB", hint="give the disk more size_mib"
        )
    return path


def links_of(lab: Lab, name: str, request: GuestRequest) -> tuple[Link, ...]:
    """A guest's interfaces to networks, with addresses that are the same in each run: 10.77.NETWORK.GUEST, by their places in lab.yaml."""
    networks, guests = list(lab.definition.networks), list(lab.definition.guests)
    found = []
    for network in request.networks:
        number, guest = networks.index(network) + 1, guests.index(name) + 1
        found.append(Link(network, f"52:54:00:77:{number:02x}:{guest:02x}", f"10.77.{number}.{guest}"))
    return tuple(found)
