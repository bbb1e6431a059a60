"""A disk that boots by itself: its own loader, kernel and initrd, with nothing from the host but firmware and a seed."""

from __future__ import annotations

import socket
import subprocess
import time
from pathlib import Path

import pytest

from vmlab import process
from vmlab.deadline import Deadline
from vmlab.guest import seed
from vmlab.image.image import Image
from vmlab.image.store import ImageStore

FIRMWARE = Path("/usr/share/OVMF/OVMF_CODE_4M.fd")
BOOT_LIMIT_S = 420

pytestmark = pytest.mark.guest


def qemu(image: Image, directory: Path, port: int, *, uefi: bool) -> list[str]:
    overlay, volume = directory / "overlay.qcow2", directory / "seed.iso"
    create = ["qemu-img", "create", "-q", "-f", "qcow2", "-b", str(image.disk), "-F", "qcow2", str(overlay)]
    process.run(create, deadline=Deadline(60))
    seed.write_iso(seed.render(seed.Identity.new("guest"), user=image.default_user, extra={}), volume)
    argv = [
        "qemu-system-x86_64",
        "-nodefaults",
        "-display",
        "none",
        "-no-reboot",
        "-machine",
        "q35",
        "-cpu",
        "max",
        "-smp",
        "2",
        "-m",
        "1024",
    ]
    argv += ["-accel", "tcg,thread=multi,tb-size=256", "-serial", f"file:{directory}/console", "-device", "virtio-rng-pci"]
    argv += ["-drive", f"file={overlay},if=virtio,cache=unsafe", "-drive", f"file={volume},if=virtio,format=raw,readonly=on"]
    argv += ["-nic", f"user,model=virtio-net-pci,restrict=on,hostfwd=tcp:127.0.0.1:{port}-:22"]
    if uefi:
        # Without a store for variables: the fallback path EFI/BOOT/BOOTX64.EFI must be enough.
        argv += ["-drive", f"if=pflash,format=raw,readonly=on,file={FIRMWARE}"]
    return argv


def banner(port: int) -> bytes:
    try:
        with socket.create_connection(("127.0.0.1", port), 1) as connection:
            connection.settimeout(2)
            return connection.recv(64)
    except OSError:
        return b""


@pytest.mark.timeout(BOOT_LIMIT_S + 600)
@pytest.mark.parametrize(("name", "uefi"), [("debian-13", False), ("debian-12", True)], ids=["debian-13-bios", "debian-12-uefi"])
def test_the_disk_boots_by_its_own_loader(tmp_path: Path, name: str, uefi: bool) -> None:
    if uefi and not FIRMWARE.exists():
        pytest.skip("OVMF is not installed (package ovmf)")
    image = ImageStore().get(name, Deadline(600))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with (tmp_path / "qemu.log").open("wb") as log:
        guest = process.spawn(qemu(image, tmp_path, port, uefi=uefi), stdout=log, stderr=subprocess.STDOUT)
    try:
        deadline, answer = Deadline(BOOT_LIMIT_S), b""
        while not answer.startswith(b"SSH-2.0-") and not deadline.expired():
            assert guest.poll() is None, (tmp_path / "qemu.log").read_text()
            answer = banner(port)
            time.sleep(0.5)
        console = (tmp_path / "console").read_text(errors="replace")
        assert "vmlab-initrd: up" in console
        assert answer.startswith(b"SSH-2.0-"), console[-3000:]
    finally:
        process.stop(guest, grace_s=1)
