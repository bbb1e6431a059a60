"""What QEMU is asked for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from runner.guest.qemu import GuestSpec, argv

SPEC = GuestSpec(
    name="main",
    accelerator="tcg",
    memory_mib=1024,
    cpus=2,
    disk=Path("/run/d,isk.qcow2"),
    seed=Path("/run/seed.iso"),
    qmp_fd=5,
    console_fd=7,
    kernel=Path("/images/vmlinuz"),
    initrd=Path("/images/initrd.img"),
    cmdline="root=/dev/vda1 init=/sbin/init",
)


def option(command: list[str], name: str) -> list[str]:
    return [command[i + 1] for i, word in enumerate(command) if word == name]


def test_the_same_spec_gives_the_same_command() -> None:
    assert argv(SPEC) == argv(SPEC)


def test_tcg_has_a_bounded_translation_buffer_and_kvm_the_hosts_processor() -> None:
    tcg, kvm = argv(SPEC), argv(replace(SPEC, accelerator="kvm"))
    assert option(tcg, "-accel") == ["tcg,thread=multi,tb-size=256"]
    assert option(tcg, "-cpu") == ["max"]
    assert option(kvm, "-accel") == ["kvm"]
    assert option(kvm, "-cpu") == ["host"]


@pytest.mark.parametrize(("internet", "restrict"), [(False, "restrict=on"), (True, "restrict=off")])
def test_a_guest_has_no_way_out_unless_the_lab_asks(internet: bool, restrict: str) -> None:
    (net,) = option(argv(replace(SPEC, internet=internet)), "-netdev")
    assert restrict in net.split(",")


def test_the_ssh_port_is_the_kernels_choice_on_the_loopback_address_only() -> None:
    (net,) = option(argv(SPEC), "-netdev")
    assert "hostfwd=tcp:127.0.0.1:0-:22" in net.split(",")


def test_sockets_are_inherited_and_no_path_or_port_is_named() -> None:
    chardevs = option(argv(SPEC), "-chardev")
    assert chardevs == ["socket,id=qmp,fd=5", "socket,id=console,fd=7"]


def test_a_comma_in_a_path_is_not_taken_for_an_option() -> None:
    assert any("file=/run/d,,isk.qcow2," in drive for drive in option(argv(SPEC), "-drive"))


def test_direct_boot_and_own_loader_differ_in_the_kernel_only() -> None:
    direct = argv(SPEC)
    loader = argv(replace(SPEC, kernel=None, initrd=None, cmdline=""))
    assert option(direct, "-kernel") == ["/images/vmlinuz"]
    assert option(direct, "-append") == ["root=/dev/vda1 init=/sbin/init"]
    assert option(direct, "-initrd") == ["/images/initrd.img"]
    assert not {"-kernel", "-append", "-initrd"} & set(loader)
    assert set(loader) <= set(direct)


def test_uefi_firmware_is_a_flash_device() -> None:
    command = argv(replace(SPEC, kernel=None, firmware=Path("/fw/OVMF.fd")))
    assert "if=pflash,unit=0,format=raw,readonly=on,file=/fw/OVMF.fd" in option(command, "-drive")


def test_a_panic_is_seen_from_outside_and_stops_the_guest() -> None:
    command = argv(SPEC)
    assert "pvpanic-pci" in option(command, "-device")
    assert option(command, "-action") == ["panic=pause"]
    assert "-no-reboot" in command


def test_only_the_overlay_is_written() -> None:
    seed = next(drive for drive in option(argv(SPEC), "-drive") if "seed.iso" in drive)
    assert "readonly=on" in seed
