"""What QEMU is asked for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from vmlab.guest.qemu import CONTROL_PORT, GuestSpec, RamFile, Wires, argv, versioned_machine

SPEC = GuestSpec(
    name="main",
    machine="pc-q35-7.2",
    accelerator="tcg",
    memory_mib=1024,
    cpus=2,
    disk=Path("/run/d,isk.qcow2"),
    seed=Path("/run/seed.iso"),
    wires=Wires(qmp=5, console=7, identity=9),
    generation_id="0d3d6f4c-0000-4000-8000-000000000001",
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
    assert option(tcg, "-accel") == ["tcg,thread=multi,tb-size=192"]
    assert option(tcg, "-cpu") == ["max,-avx,-avx2"]
    assert option(kvm, "-accel") == ["kvm"]
    assert option(kvm, "-cpu") == ["host"]


def test_a_guest_that_can_run_guests_has_an_emulated_processor_with_svm() -> None:
    host = replace(SPEC, virtualisation="svm")
    (cpu,) = option(argv(host), "-cpu")
    assert {"EPYC", "+svm", "+npt"} <= set(cpu.split(","))
    assert option(argv(host), "-accel") == option(argv(SPEC), "-accel")
    with pytest.raises(ValueError, match="emulated"):
        argv(replace(host, accelerator="kvm"))


@pytest.mark.parametrize(("internet", "restrict"), [(False, "restrict=on"), (True, "restrict=off")])
def test_a_guest_has_no_way_out_unless_the_lab_asks(internet: bool, restrict: str) -> None:
    (net,) = option(argv(replace(SPEC, internet=internet)), "-netdev")
    assert restrict in net.split(",")


def test_the_ssh_port_is_the_kernels_choice_on_the_loopback_address_only() -> None:
    (net,) = option(argv(SPEC), "-netdev")
    forwarded = [option for option in net.split(",") if option.startswith("hostfwd=")]
    assert forwarded == ["hostfwd=tcp:127.0.0.1:0-:22", f"hostfwd=tcp:127.0.0.1:0-:{CONTROL_PORT}"]


def test_sockets_are_inherited_and_no_path_or_port_is_named() -> None:
    chardevs = option(argv(SPEC), "-chardev")
    assert chardevs == [f"socket,id={name},fd={fd}" for name, fd in (("qmp", 5), ("console", 7), ("identity", 9))]


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


def test_a_panic_is_seen_from_outside_and_the_kernel_may_still_say_why() -> None:
    command = argv(SPEC)
    assert "pvpanic-pci" in option(command, "-device")
    assert option(command, "-action") == ["panic=none"]
    assert "-no-reboot" in command


def test_only_the_overlay_is_written() -> None:
    seed = next(drive for drive in option(argv(SPEC), "-drive") if "seed.iso" in drive)
    assert "readonly=on" in seed


def test_the_machine_is_the_same_one_in_every_later_qemu() -> None:
    assert option(argv(SPEC), "-machine") == ["pc-q35-7.2"]
    assert versioned_machine((7, 2, 22)) == "pc-q35-7.2"
    assert versioned_machine((10, 0)) == "pc-q35-10.0"


def test_a_template_shares_its_memory_with_the_file_and_a_clone_copies_from_it() -> None:
    template, clone = (argv(replace(SPEC, ram=RamFile(Path("/t/r,am"), private=private))) for private in (False, True))
    for command, share in ((template, "on"), (clone, "off")):
        assert option(command, "-machine") == ["pc-q35-7.2,memory-backend=ram"]
        assert f"memory-backend-file,id=ram,size=1024M,mem-path=/t/r,,am,share={share}" in option(command, "-object")
    (ram, *_) = option(argv(replace(SPEC, ram=RamFile(Path("/t/ram"), private=True, read_only=True))), "-object")
    assert ram.endswith(",share=off,readonly=on,rom=off")


def test_a_clone_waits_for_a_state_and_differs_in_nothing_else() -> None:
    clone = argv(replace(SPEC, incoming=True))
    assert option(clone, "-incoming") == ["defer"]
    assert [word for word in clone if word not in ("-incoming", "defer")] == argv(SPEC)


def test_each_guest_has_a_generation_id_of_its_own() -> None:
    assert f"vmgenid,guid={SPEC.generation_id}" in option(argv(SPEC), "-device")
