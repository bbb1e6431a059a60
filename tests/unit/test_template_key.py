"""A template serves for another guest only if nothing differs that a clone would notice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from vmlab.guest import boot, qemu
from vmlab.guest.clone import identity as standby
from vmlab.guest.clone import template
from vmlab.guest.clone.template import Host, key_of
from vmlab.guest.drive import Drive
from vmlab.guest.link import Link
from vmlab.guest.machine import BootRequest
from vmlab.guest.processor import Processor
from vmlab.host.facts import Qemu
from vmlab.image.image import Image

FILES = {name: {"sha256": letter * 64, "size": 1} for name, letter in (("disk.qcow2", "a"), ("vmlinuz", "b"), ("initrd.img", "c"))}
IMAGE = Image(
    name="debian-13",
    digest="a" * 64,
    directory=Path("/cache/x"),
    disk=Path("/cache/x/disk.qcow2"),
    kernel=Path("/cache/x/vmlinuz"),
    initrd=Path("/cache/x/initrd.img"),
    cmdline="quiet",
    inits={"systemd": "/lib/systemd/systemd", "sysv": "/sbin/init"},
    default_user="debian",
    manifest={"files": FILES},
)
REQUEST = BootRequest("main", IMAGE, "tcg")
HOST = Host(Qemu("/usr/bin/qemu-system-x86_64", "7.2.22", "QEMU emulator version 7.2.22 (Debian 1)"), "vendor_id A; flags fpu", "6.1.0")

LINK = Link("wire", "52:54:00:77:01:01", "10.77.1.1")

Change = Callable[[BootRequest, Host], tuple[BootRequest, Host]]


def other_file(name: str) -> Change:
    files = {**FILES, name: {"sha256": "f" * 64, "size": 1}}
    return lambda request, host: (replace(request, image=replace(IMAGE, manifest={"files": files})), host)


def asked(**changes: Any) -> Change:
    return lambda request, host: (replace(request, **changes), host)


def on(**changes: Any) -> Change:
    return lambda request, host: (request, replace(host, **changes))


MATTERS: dict[str, Change] = {
    "QEMU's version": on(qemu=replace(HOST.qemu, version="7.2.23", build="QEMU emulator version 7.2.23 (Debian 1)")),
    "QEMU's patches": on(qemu=replace(HOST.qemu, build="QEMU emulator version 7.2.22 (Debian 2)")),
    "the machine type": on(qemu=replace(HOST.qemu, version="9.0.1")),
    "the host's processor": on(cpu="vendor_id B; flags fpu"),
    "its flags": on(cpu="vendor_id A; flags fpu sse"),
    "the accelerator and so the CPU model": asked(accelerator="kvm"),
    "memory": asked(memory_mib=512),
    "CPUs": asked(cpus=1),
    "whether it can run guests": asked(virtualisation="svm"),
    "the init system": asked(init="sysv"),
    "kernel arguments": asked(kernel_args="nosmp"),
    "a way out": asked(internet=True),
    "cloud-init": asked(cloud_init={"bootcmd": ["true"]}),
    "how it boots": asked(own_loader=True),
    "a feature of its processor": asked(processor=Processor(la57=False)),
    "a drive": asked(drives=(Drive("data", 64),)),
    "a drive's size": asked(drives=(Drive("data", 65),)),
    "a drive's name": asked(drives=(Drive("other", 64),)),
    "a drive's cache": asked(drives=(Drive("data", 64, host_cache=False),)),
    "whether a drive may be written": asked(drives=(Drive("data", 64, read_only=True),)),
    "an interface to a network": asked(links=(LINK,)),
    "a second interface": asked(links=(LINK, LINK)),
    "the disk": other_file("disk.qcow2"),
    "the kernel": other_file("vmlinuz"),
    "the initrd": other_file("initrd.img"),
}
DOES_NOT: dict[str, Change] = {
    "its name": asked(name="other"),
    "where the image lies": asked(image=replace(IMAGE, directory=Path("/y"), disk=Path("/y/disk.qcow2"), kernel=Path("/y/k"))),
    "the host's kernel under emulation": on(kernel="6.12.0"),
    "where QEMU lies": on(qemu=replace(HOST.qemu, path="/opt/qemu")),
}


@pytest.mark.parametrize("what", MATTERS)
def test_a_change_that_matters_is_another_key(what: str) -> None:
    assert key_of(*MATTERS[what](REQUEST, HOST)) != key_of(REQUEST, HOST)


def test_a_guest_is_told_of_its_timer_what_its_processor_needs() -> None:
    wires = qemu.Wires(0, 0, 0)
    plain, host = (boot.cold_spec(replace(REQUEST, virtualisation=kind), Path("/place"), wires).cmdline for kind in ("none", "svm"))
    assert plain == "quiet oops=panic init=/lib/systemd/systemd no_timer_check"
    assert host == f"{plain} {qemu.SVM_KERNEL_ARGS}"
    # What only an emulated processor needs: a real one's timer is to be looked at.
    assert "no_timer_check" not in boot.cold_spec(replace(REQUEST, accelerator="kvm"), Path("/place"), wires).cmdline


@pytest.mark.parametrize("what", DOES_NOT)
def test_a_change_that_does_not_matter_is_the_same_key(what: str) -> None:
    assert key_of(*DOES_NOT[what](REQUEST, HOST)) == key_of(REQUEST, HOST)


def test_no_two_of_the_changes_give_the_same_key() -> None:
    keys = {key_of(*change(REQUEST, HOST)) for change in MATTERS.values()}
    assert len(keys) == len(MATTERS)


def test_an_accelerated_guest_depends_on_the_hosts_kernel() -> None:
    accelerated = replace(REQUEST, accelerator="kvm")
    assert key_of(accelerated, HOST) != key_of(accelerated, replace(HOST, kernel="6.12.0"))


def test_firmware_counts_by_its_content(tmp_path: Path) -> None:
    one, same, other = (tmp_path / name for name in ("one", "same", "other"))
    for path, content in ((one, b"1"), (same, b"1"), (other, b"2")):
        path.write_bytes(content)
    keys = [key_of(replace(REQUEST, own_loader=True, firmware=path), HOST) for path in (one, same, other)]
    assert keys[0] == keys[1] != keys[2]


def test_guests_with_as_many_interfaces_share_a_template_whatever_networks_they_lead_to() -> None:
    one, other = (replace(REQUEST, links=(link,)) for link in (LINK, Link("bridge", "52:54:00:77:02:03", "10.77.2.3")))
    assert key_of(one, HOST) == key_of(other, HOST)


def test_a_drive_counts_by_its_content_not_by_where_it_lies(tmp_path: Path) -> None:
    one, same, other = (tmp_path / name for name in ("one", "same", "other"))
    for path, content in ((one, b"1"), (same, b"1"), (other, b"2")):
        path.write_bytes(content)
    keys = [key_of(replace(REQUEST, drives=(Drive("data", 64, content=path),)), HOST) for path in (one, same, other)]
    assert keys[0] == keys[1] != keys[2]
    assert keys[0] != key_of(replace(REQUEST, drives=(Drive("data", 64),)), HOST)


@pytest.mark.parametrize("what", ["format", "settle", "inside"])
def test_a_change_of_ours_that_matters_is_another_key(what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = key_of(REQUEST, HOST)
    changed = tmp_path / "standby.py"
    changed.write_bytes(standby.INSIDE.read_bytes() + b"#\n")
    target, name, value = {
        "format": (template, "FORMAT", template.FORMAT + 1),
        "settle": (template, "_SETTLE", "true"),
        "inside": (standby, "INSIDE", changed),
    }[what]
    monkeypatch.setattr(target, name, value)
    assert key_of(REQUEST, HOST) != before
