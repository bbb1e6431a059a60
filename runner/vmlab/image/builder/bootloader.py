"""The disk's frame: partition table, boot partition, and GRUB for both kinds of firmware, all by writing into a file.

Partitions are numbered and placed as Debian's own cloud images do it: 1 the root, 14 GRUB's core for BIOS, 15 the EFI system partition.
``grub-install`` would want mounted block devices; what it does to a disk is two patched sectors, and they are patched here.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID, uuid5

from vmlab.errors import ImageError
from vmlab.image.builder.workshop import Workshop

_SECTOR = 512
_MIB = 1 << 20
_GRUB = Path("/usr/lib/grub")

# GRUB's modules for both firmwares: read the table and the boot partition, show a serial console, start Linux.
_MODULES = ("part_gpt", "fat", "normal", "linux", "serial", "terminal", "echo", "search", "search_label")


@dataclass(frozen=True)
class Layout:
    """Where things lie on the disk, in bytes."""

    root_size: int
    bios_start: int = 1 * _MIB
    bios_size: int = 3 * _MIB
    esp_start: int = 4 * _MIB
    esp_size: int = 124 * _MIB
    root_start: int = 128 * _MIB

    @property
    def disk_size(self) -> int:
        """The whole disk; the last MiB holds the table's second copy."""
        return self.root_start + self.root_size + _MIB

    def table(self, seed: UUID) -> str:
        """The partition table for sfdisk(8); every id is derived from ``seed``, so that one recipe always makes one table."""
        rows = (
            # number, start, size, type, name
            (1, self.root_start, self.root_size, "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709", "root"),
            (14, self.bios_start, self.bios_size, "21686148-6449-6E6F-744E-656564454649", "bios"),
            (15, self.esp_start, self.esp_size, "C12A7328-F81F-11D2-BA4B-00A0C93EC93B", "esp"),
        )
        lines = ["label: gpt", f"label-id: {uuid5(seed, 'disk')}"]
        lines += [
            f"{number}: start={start // _SECTOR}, size={size // _SECTOR}, type={kind}, name={name}, uuid={uuid5(seed, name)}"
            for number, start, size, kind, name in rows
        ]
        return "\n".join(lines) + "\n"


def grub_config(cmdline: str, init: str) -> str:
    """The menu's only entry, started at once; the console is the serial line, as in every other way to boot the image."""
    return (
        "serial --unit=0 --speed=115200\n"
        "terminal_input serial console\n"
        "terminal_output serial console\n"
        "set timeout=0\n"
        "menuentry vmlab {\n"
        f"    linux /vmlinuz {cmdline} init={init}\n"
        "    initrd /initrd.img\n"
        "}\n"
    )


def write(disk: Path, layout: Layout, seed: UUID, *, kernel: Path, initrd: Path, config: str, shop: Workshop) -> None:
    """Write everything but the root file system into ``disk``, which has its full size already."""
    shop.run(["sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", disk], stdin=layout.table(seed).encode())
    efi, menu = shop.directory / "BOOTX64.EFI", shop.directory / "grub.cfg"
    # No disk and no partition in the prefix: GRUB takes the partition that the firmware loaded it from.
    _mkimage("x86_64-efi", efi, "/grub", _MODULES, shop)
    menu.write_text(config)
    files = {"vmlinuz": kernel, "initrd.img": initrd, "EFI/BOOT/BOOTX64.EFI": efi, "grub/grub.cfg": menu}
    _copy_into(_boot_partition(layout.esp_size, f"{uuid5(seed, 'esp').fields[0]:08x}", files, shop), disk, layout.esp_start)
    core = _core_for_bios(shop)
    if len(core) > layout.bios_size:
        raise ImageError(f"GRUB's core image ({len(core)} bytes) does not fit into its partition")
    with disk.open("r+b") as file:
        old = file.read(_SECTOR)
        file.seek(0)
        file.write(patched_boot_sector((_GRUB / "i386-pc/boot.img").read_bytes(), old, layout.bios_start // _SECTOR))
        file.seek(layout.bios_start)
        file.write(patched_core(core, layout.bios_start // _SECTOR))


def patched_boot_sector(boot: bytes, old: bytes, core_sector: int) -> bytes:
    """GRUB's boot.img made ready for a disk: it will load the core's first sector from ``core_sector``.

    The offsets are those of grub-core/boot/i386/pc/boot.S, named in include/grub/i386/pc/boot.h; what is written is what
    util/setup.c writes for a hard disk.
    """
    sector = bytearray(boot)
    if len(sector) != _SECTOR or len(old) != _SECTOR:
        raise ImageError(f"GRUB's boot.img has {len(boot)} bytes, expected {_SECTOR}")
    # GRUB_BOOT_MACHINE_KERNEL_SECTOR: where the core image starts, 64 bits.
    struct.pack_into("<Q", sector, 0x5C, core_sector)
    # GRUB_BOOT_MACHINE_BOOT_DRIVE: 0xFF takes the drive that the firmware booted from.
    sector[0x64] = 0xFF
    # GRUB_BOOT_MACHINE_DRIVE_CHECK: a jump over the check for BIOSes that pass a wrong drive; two nops enable the check on hard disks.
    sector[0x66:0x68] = b"\x90\x90"
    # From GRUB_BOOT_MACHINE_WINDOWS_NT_MAGIC on the sector belongs to the partition table: disk id, protective entry, signature.
    sector[0x1B8:] = old[0x1B8:]
    return bytes(sector)


def patched_core(core: bytes, core_sector: int) -> bytes:
    """GRUB's core image made ready to lie at ``core_sector``: its first sector (diskboot.S) loads the rest.

    That sector ends in a list of blocks, the first entry last: start (64 bits), length in sectors, segment to load to
    (struct grub_pc_bios_boot_blocklist). grub-mkimage fills in the length and the segment; the start is known only now.
    """
    sectors = -(-len(core) // _SECTOR)
    image = bytearray(core.ljust(sectors * _SECTOR, b"\0"))
    place = _SECTOR - 12
    length = struct.unpack_from("<QHH", image, place)[1]
    if length != sectors - 1:
        raise ImageError(f"GRUB's core image announces {length} sectors after the first, but has {sectors - 1}")
    struct.pack_into("<Q", image, place, core_sector + 1)
    return bytes(image)


def _core_for_bios(shop: Workshop) -> bytes:
    core = shop.directory / "core.img"
    # A partition but no disk in the prefix: GRUB takes the disk that it was loaded from.
    _mkimage("i386-pc", core, "(,gpt15)/grub", ("biosdisk", *_MODULES), shop)
    return core.read_bytes()


def _boot_partition(size: int, volume_id: str, files: Mapping[str, Path], shop: Workshop) -> Path:
    """An EFI system partition that holds ``files`` (path there: file here), as a file of its own."""
    esp = shop.directory / "esp.img"
    with esp.open("wb") as file:
        file.truncate(size)
    shop.run(["mkfs.vfat", "--invariant", "-n", "ESP", "-i", volume_id, esp])
    shop.run(["mmd", "-i", esp, "::/EFI", "::/EFI/BOOT", "::/grub"])
    for target, source in files.items():
        shop.run(["mcopy", "-i", esp, source, f"::/{target}"])
    return esp


def _mkimage(target: str, output: Path, prefix: str, modules: tuple[str, ...], shop: Workshop) -> None:
    shop.run(["grub-mkimage", "-O", target, "-d", _GRUB / target, "-o", output, "-p", prefix, *modules])


def _copy_into(source: Path, disk: Path, offset: int) -> None:
    """Copy a file to an offset of the disk, leaving out blocks of zeros: the disk stays sparse."""
    with source.open("rb") as reader, disk.open("r+b") as writer:
        position = offset
        while block := reader.read(_MIB):
            if block.strip(b"\0"):
                writer.seek(position)
                writer.write(block)
            position += len(block)
