"""The probe's dealings with the kernel, held against the kernel's own numbers, and its encodings against the processor's."""

from __future__ import annotations

import ast
import ctypes
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from vmlab.host import probe
from vmlab.host.kvm import claims, counters, interface, programs, tiny_guest
from vmlab.probes import kvm


@pytest.mark.parametrize(
    ("structure", "size"),
    [
        (interface.KvmRegs, 144),
        (interface.KvmSegment, 24),
        (interface.KvmDtable, 16),
        (interface.KvmSregs, 312),
        (interface.KvmUserspaceMemoryRegion, 32),
        (interface.KvmCpuidHeader, 8),
        (counters.KvmStatsHeader, 24),
        (counters.KvmStatsDesc, 16),
    ],
)
def test_structures_have_the_kernels_sizes(structure: type[ctypes.Structure], size: int) -> None:
    assert ctypes.sizeof(structure) == size


def test_members_lie_where_the_kernel_has_them() -> None:
    assert (interface.KvmRun.exit_reason.offset, interface.KvmRun.detail.offset) == (8, 32)
    assert (interface.KvmRegs.rip.offset, interface.KvmRegs.rflags.offset) == (128, 136)
    assert (interface.KvmSregs.gdt.offset, interface.KvmSregs.cr0.offset, interface.KvmSregs.efer.offset) == (192, 224, 264)


@pytest.mark.parametrize(
    ("request_", "number"),
    [
        (interface.KVM_GET_API_VERSION, 0xAE00),
        (interface.KVM_CREATE_VM, 0xAE01),
        (interface.KVM_GET_VCPU_MMAP_SIZE, 0xAE04),
        (interface.KVM_GET_SUPPORTED_CPUID, 0xC008AE05),
        (interface.KVM_CREATE_VCPU, 0xAE41),
        (interface.KVM_SET_USER_MEMORY_REGION, 0x4020AE46),
        (interface.KVM_SET_TSS_ADDR, 0xAE47),
        (interface.KVM_SET_IDENTITY_MAP_ADDR, 0x4008AE48),
        (interface.KVM_RUN, 0xAE80),
        (interface.KVM_GET_REGS, 0x8090AE81),
        (interface.KVM_SET_REGS, 0x4090AE82),
        (interface.KVM_GET_SREGS, 0x8138AE83),
        (interface.KVM_SET_SREGS, 0x4138AE84),
        (interface.KVM_SET_CPUID2, 0x4008AE90),
        (interface.KVM_GET_STATS_FD, 0xAECE),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_requests_have_the_kernels_numbers(request_: interface.Request, number: int) -> None:
    """As <linux/kvm.h> of Linux 6.1 defines them on x86-64."""
    assert request_.number == number


def test_a_refused_request_is_named() -> None:
    with Path("/dev/null").open("rb") as nothing, pytest.raises(interface.KvmError) as caught:
        interface.ask(nothing.fileno(), interface.KVM_CREATE_VM)
    assert (caught.value.step, caught.value.errno) == ("KVM_CREATE_VM", "ENOTTY")


# --- counters ---------------------------------------------------------------------------------------------------------------------


def blob(entries: list[tuple[str, list[int]]], *, name_size: int = 48) -> bytes:
    """What a statistics descriptor holds: header, id, descriptions, values."""
    step = 16 + name_size
    descriptions, values, offset = b"", b"", 0
    for name, numbers in entries:
        descriptions += struct.pack("<IhHII", 0, 0, len(numbers), offset, 0) + name.encode().ljust(name_size, b"\0")
        values += struct.pack(f"<{len(numbers)}Q", *numbers)
        offset += 8 * len(numbers)
    at = 24 + name_size
    return (
        struct.pack("<6I", 0, name_size, len(entries), 24, at, at + step * len(entries))
        + b"kvm-1".ljust(name_size, b"\0")
        + descriptions
        + values
    )


def reader(data: bytes) -> counters.ReadAt:
    return lambda size, offset: data[offset : offset + size]


def test_counters_are_read_and_histograms_left_out() -> None:
    data = blob([("exits", [7]), ("halt_wait_hist", [1, 2, 3, 4]), ("pf_taken", [1 << 40])])
    assert counters.Counters(reader(data)).read() == {"exits": 7, "pf_taken": 1 << 40}
    assert counters.Counters(reader(blob([]))).read() == {}


@pytest.mark.parametrize("cut", [0, 10, 30, 80, 140])
def test_counters_that_are_cut_off_are_an_error(cut: int) -> None:
    data = blob([("exits", [7])])
    assert cut < len(data)
    with pytest.raises(ValueError, match="not of the documented form"):
        counters.Counters(reader(data[:cut])).read()


def test_what_stood_still_is_left_out() -> None:
    assert counters.since({"exits": 5, "pf_taken": 2}, {"exits": 9, "pf_taken": 2, "new": 1}) == {"exits": 4, "new": 1}


# --- what the guest is made of ----------------------------------------------------------------------------------------------------


def test_page_table_encodings() -> None:
    assert tiny_guest.entry(0x680000) == 0x680003
    assert tiny_guest.indices(0) == (0, 0, 0, 0)
    assert tiny_guest.indices(tiny_guest.WINDOW) == (0, 0, 1, 0)
    assert tiny_guest.indices(0x7FFF_FFFF_F000) == (255, 511, 511, 511)
    assert tiny_guest.interrupt_gate(0x1234_5678_9ABC).hex() == "bc9a0800008e7856" + "34120000" + "00000000"


def test_registers_switch_long_mode_on() -> None:
    assert (tiny_guest.CR0, tiny_guest.CR4, tiny_guest.EFER) == (0x80050033, 0x20, 0x500)


def test_no_two_pages_that_count_share_a_group_of_eight() -> None:
    """KVM may map present neighbours within an aligned group of eight pages together, which would hide faults."""
    pages = [
        *tiny_guest.WALK,
        tiny_guest.PAGE_A,
        tiny_guest.PAGE_B,
        tiny_guest.CODE,
        tiny_guest.HANDLER,
        tiny_guest.STACK_TOP,
        tiny_guest.GDT,
        tiny_guest.IDT,
        tiny_guest.LOW_TABLE,
    ]
    assert len({page // (8 * tiny_guest.PAGE) for page in pages}) == len(pages)


def test_the_programs_end_in_hlt_and_loop_to_their_start() -> None:
    for program in (programs.COMPUTE, programs.TOUCH, programs.REMAP, programs.RELOAD_CR3, programs.FAULT):
        assert program[-1] == 0xF4
        assert program[-3] == 0xE2  # loop rel8, counted from the next instruction
        assert struct.unpack("b", program[-2:-1])[0] == -(len(program) - 1)
    assert programs.FAULT_HANDLER.endswith(b"\x48\xcf")


# --- it runs anywhere -------------------------------------------------------------------------------------------------------------


def test_the_package_needs_nothing_but_an_old_python() -> None:
    for path in probe.KVM.files().values():
        tree = ast.parse(path.read_text(), feature_version=(3, 9))
        names = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
        names += [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and not node.level]
        assert not {name.split(".")[0] for name in names} - sys.stdlib_module_names, path
        assert all(node.level <= 1 for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)), path


def test_a_copy_of_the_package_runs_elsewhere(tmp_path: Path) -> None:
    """As in a guest: a bare directory named kvm, and a Python that knows nothing of ours."""
    (tmp_path / "kvm").mkdir()
    for name, path in probe.KVM.files().items():
        (tmp_path / name).write_bytes(path.read_bytes())
    done = subprocess.run(
        [sys.executable, "-S", "-m", "kvm", "--device", "/dev/null"], cwd=tmp_path, env={}, capture_output=True, timeout=60, check=True
    )
    record = kvm.parse(done.stdout)
    assert str(record.error) == "KVM_GET_API_VERSION failed: ENOTTY, Inappropriate ioctl for device"
    assert done.stdout.count(b"\n") == 1
    assert not done.stderr


def test_claims_of_a_machine(tmp_path: Path) -> None:
    for name, text in {
        "proc/cpuinfo": "model name : Some Xeon\nflags : fpu vmx ept hypervisor\n",
        "proc/sys/kernel/osrelease": "6.1.0\n",
        "proc/sys/kernel/random/boot_id": "0f0f\n",
        "sys/module/kvm_intel/parameters/ept": "Y\n",
        "sys/module/kvm/parameters/tdp_mmu": "Y\n",
        "sys/module/kvm_odd/parameters/x": "1\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert claims.read(tmp_path) == {
        "kernel": "6.1.0",
        "boot_id": "0f0f",
        "cpu_model": "Some Xeon",
        "flags": ["vmx", "ept", "hypervisor"],
        "module": "kvm_intel",
        "nested_paging": "ept=Y",
        "other_modules": ["kvm_odd"],
    }
    assert claims.read(tmp_path / "nowhere")["module"] == ""
