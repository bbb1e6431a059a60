"""The initrd: the archive format, and the order in which modules load."""

from __future__ import annotations

import io
import lzma
import shutil
import stat
import subprocess
import tarfile
from pathlib import Path

import pytest

from vmlab.errors import ImageError
from vmlab.image.builder.initrd import Member, cpio, from_system, load_order

MEMBERS = [
    Member("dev", stat.S_IFDIR | 0o755),
    Member("dev/console", stat.S_IFCHR | 0o600, device=(5, 1)),
    Member("empty", stat.S_IFREG | 0o644),
    Member("odd", stat.S_IFREG | 0o755, b"three"),
    Member("init", stat.S_IFREG | 0o755, b"#!/bin/sh\n" * 100),
]

DEP = """kernel/net/core/failover.ko.xz:
kernel/drivers/net/net_failover.ko.xz: kernel/net/core/failover.ko.xz
kernel/drivers/net/virtio_net.ko.xz: kernel/drivers/net/net_failover.ko.xz kernel/net/core/failover.ko.xz
kernel/drivers/block/virtio_blk.ko.xz:
kernel/drivers/char/hw_random/virtio-rng.ko.xz:
"""
BUILT_IN = "kernel/drivers/virtio/virtio_pci.ko\nkernel/fs/ext4/ext4.ko\n"


def parsed(archive: bytes) -> dict[str, tuple[int, bytes, tuple[int, int]]]:
    """A reader of the format that shares no code with the writer: fixed offsets, straight from the kernel's description."""
    found: dict[str, tuple[int, bytes, tuple[int, int]]] = {}
    inodes, at = set(), 0
    while True:
        assert archive[at : at + 6] == b"070701"
        field = [int(archive[at + 6 + 8 * n : at + 14 + 8 * n], 16) for n in range(13)]
        name = archive[at + 110 : at + 110 + field[11] - 1].decode()
        start = (at + 110 + field[11] + 3) // 4 * 4
        if name == "TRAILER!!!":
            assert not archive[start:].strip(b"\0")
            return found
        assert field[0] not in inodes
        inodes.add(field[0])
        found[name] = (field[1], archive[start : start + field[6]], (field[9], field[10]))
        at = (start + field[6] + 3) // 4 * 4


def test_what_is_written_is_read_back() -> None:
    assert parsed(cpio(MEMBERS)) == {member.path: (member.mode, member.content, member.device) for member in MEMBERS}


def test_the_same_members_make_the_same_bytes() -> None:
    assert cpio(MEMBERS) == cpio(iter(MEMBERS))


@pytest.mark.skipif(shutil.which("cpio") is None and shutil.which("busybox") is None, reason="neither cpio nor busybox is here")
def test_another_program_lists_the_archive() -> None:
    tool = ["cpio", "-t"] if shutil.which("cpio") else ["busybox", "cpio", "-t"]
    listed = subprocess.run(tool, input=cpio(MEMBERS), capture_output=True, check=True).stdout.decode().split()
    assert listed == [member.path for member in MEMBERS]


def names(order: list[str]) -> list[str]:
    return [path.rsplit("/", 1)[1].split(".")[0] for path in order]


def test_a_module_comes_after_what_it_depends_on() -> None:
    assert names(load_order(["virtio_net", "virtio_blk"], DEP, BUILT_IN)) == ["failover", "net_failover", "virtio_net", "virtio_blk"]


def test_built_in_modules_are_passed_over_and_dashes_are_underscores() -> None:
    assert names(load_order(["virtio_pci", "virtio_rng", "virtio-rng", "ext4"], DEP, BUILT_IN)) == ["virtio-rng"]


def test_an_unknown_module_is_named() -> None:
    with pytest.raises(ImageError, match="no module ahci"):
        load_order(["virtio_blk", "ahci"], DEP, BUILT_IN)


def system(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(f"./{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


FILES = {
    "boot/vmlinuz-6.1": b"kernel",
    "usr/bin/busybox": b"busybox",
    "usr/lib/modules/6.1/modules.dep": DEP.encode(),
    "usr/lib/modules/6.1/modules.builtin": BUILT_IN.encode(),
    "usr/lib/modules/6.1/kernel/drivers/block/virtio_blk.ko.xz": lzma.compress(b"blk"),
}


def test_kernel_modules_and_script_come_out_of_the_system(tmp_path: Path) -> None:
    boot = from_system(system(tmp_path / "system.tar", FILES), ["virtio_blk", "ext4"], b"script")
    content = {name: data for name, (_, data, _) in parsed(boot.initrd).items()}
    assert (boot.kernel, boot.version) == (b"kernel", "6.1")
    assert content["init"] == b"script"
    assert content["bin/busybox"] == b"busybox"
    assert content["modules/00-virtio_blk.ko"] == b"blk"


@pytest.mark.parametrize("missing", ["usr/bin/busybox", "boot/vmlinuz-6.1", "usr/lib/modules/6.1/modules.dep"])
def test_a_system_without_a_needed_file_is_refused(tmp_path: Path, missing: str) -> None:
    files = {name: content for name, content in FILES.items() if name != missing}
    with pytest.raises(ImageError):
        from_system(system(tmp_path / "system.tar", files), ["virtio_blk"], b"script")


def test_two_kernels_are_one_too_many(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="found 2"):
        from_system(system(tmp_path / "system.tar", {**FILES, "boot/vmlinuz-6.2": b""}), ["virtio_blk"], b"script")
