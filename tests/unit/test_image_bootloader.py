"""The disk's frame: the two sectors that are patched, the partition table, and the menu."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
from pathlib import Path
from uuid import UUID

import pytest

from vmlab.errors import ImageError
from vmlab.image.builder import bootloader
from vmlab.packages import which

SEED = UUID("12345678123456781234567812345678")


def core(sectors: int, *, announced: int | None = None) -> bytes:
    image = bytearray(b"\xcc" * 512 * sectors)
    struct.pack_into("<QHH", image, 500, 1, sectors - 1 if announced is None else announced, 0x820)
    return bytes(image)


def test_the_boot_sector_points_at_the_core_and_keeps_the_partition_table() -> None:
    boot = bytes(range(256)) * 2
    old = bytes(440) + bytes([7] * 72)
    new = bootloader.patched_boot_sector(boot, old, 2048)
    assert struct.unpack_from("<Q", new, 0x5C)[0] == 2048
    assert new[0x64] == 0xFF
    assert new[0x66:0x68] == b"\x90\x90"
    assert new[440:] == old[440:]
    untouched = [*range(0x5C), 0x65, *range(0x68, 440)]
    assert all(new[index] == boot[index] for index in untouched)


def test_a_boot_sector_of_another_size_is_refused() -> None:
    with pytest.raises(ImageError, match=r"boot\.img"):
        bootloader.patched_boot_sector(bytes(511), bytes(512), 2048)


def test_the_core_says_where_its_own_rest_lies() -> None:
    new = bootloader.patched_core(core(5), 2048)
    assert struct.unpack_from("<QHH", new, 500) == (2049, 4, 0x820)
    assert len(new) == 5 * 512


def test_the_core_is_padded_to_whole_sectors() -> None:
    assert len(bootloader.patched_core(core(5)[:-10], 2048)) == 5 * 512


def test_a_core_that_announces_another_length_is_refused() -> None:
    with pytest.raises(ImageError, match="announces 9 sectors"):
        bootloader.patched_core(core(5, announced=9), 2048)


@pytest.mark.skipif(not Path("/usr/lib/grub/i386-pc/boot.img").exists(), reason="GRUB for BIOS is not installed")
def test_grubs_own_boot_sector_has_the_values_that_are_patched() -> None:
    """If GRUB ever moves its fields, what stands there before patching is no longer what boot.S puts there."""
    boot = Path("/usr/lib/grub/i386-pc/boot.img").read_bytes()
    assert struct.unpack_from("<Q", boot, 0x5C)[0] == 1  # kernel_sector: .long 1, 0
    assert boot[0x64] == 0xFF  # boot_drive
    assert boot[0x66] == 0xEB  # boot_drive_check: a short jump
    assert boot[510:] == b"\x55\xaa"


@pytest.mark.skipif(which("sfdisk") is None, reason="sfdisk is not installed")
def test_sfdisk_makes_the_partitions_of_a_cloud_image(tmp_path: Path) -> None:
    layout = bootloader.Layout(root_size=64 << 20)
    disk = tmp_path / "disk.raw"
    with disk.open("wb") as file:
        file.truncate(layout.disk_size)
    sfdisk = which("sfdisk") or "sfdisk"
    subprocess.run([sfdisk, "--quiet", str(disk)], input=layout.table(SEED).encode(), check=True)
    table = json.loads(subprocess.run([sfdisk, "--json", str(disk)], capture_output=True, check=True).stdout)["partitiontable"]
    parts = {int(row["node"].removeprefix(str(disk))): row for row in table["partitions"]}
    assert table["label"] == "gpt"
    assert sorted(parts) == [1, 14, 15]
    assert parts[1]["start"] * 512 == layout.root_start
    assert parts[1]["size"] * 512 == layout.root_size
    # One recipe, one table: identifiers are derived, not drawn.
    assert layout.table(SEED) == bootloader.Layout(root_size=64 << 20).table(SEED)


def test_the_partitions_do_not_overlap() -> None:
    layout = bootloader.Layout(root_size=1 << 30)
    assert layout.bios_start + layout.bios_size <= layout.esp_start
    assert layout.esp_start + layout.esp_size <= layout.root_start
    assert layout.root_start + layout.root_size < layout.disk_size


@pytest.mark.skipif(shutil.which("grub-script-check") is None, reason="grub-script-check is not installed")
def test_grub_can_read_the_menu(tmp_path: Path) -> None:
    menu = tmp_path / "grub.cfg"
    menu.write_text(bootloader.grub_config("root=/dev/vda1 rw", "/lib/systemd/systemd"))
    assert subprocess.run(["grub-script-check", str(menu)], check=False).returncode == 0
