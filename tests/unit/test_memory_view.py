"""The look from outside at a guest's memory: what QEMU's monitor is asked and how its answers are read. QEMU is a stand-in."""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.stand_in.monitor import Monitor, monitor
from vmlab.deadline import Deadline
from vmlab.errors import GuestError, UsageError
from vmlab.guest.look import memory, paging
from vmlab.guest.look.memory import MemoryView
from vmlab.guest.look.paging import Registers
from vmlab.guest.look.statistics import kvm_statistics
from vmlab.guest.machine import Machine
from vmlab.guest.qmp import Qmp, QmpError

FS_BASE = 0x7F00DEADB000
CPU_1 = Registers(cpu=1, cpl=3, rip=0, fs_base=0, cr0=0x80050033, cr3=0x1000000, cr4=0x6F0, efer=0xD01)


GENERAL = "".join(f"{name.upper():3}={index:016x}\r\n" for index, name in enumerate(paging.GENERAL))


def registers(*levels: int) -> str:
    """What ``info registers -a`` prints of so many processors, each at this privilege level."""
    return "".join(
        f"\r\nCPU#{number}\r\n{GENERAL}RIP=ffffffff81000000 RFL=00000246 [---Z-P-] CPL={level} II=0 A20=1 SMM=0 HLT=0\r\n"
        f"FS =0000 {FS_BASE + number:016x} 00000000 00000000\r\n"
        "CR0=80050033 CR2=0000000000000000 CR3=0000000001000000 CR4=000006f0\r\nEFER=0000000000000d01\r\n"
        for number, level in enumerate(levels)
    )


@contextlib.contextmanager
def view_of(tmp_path: Path, human: Callable[[str], str], *, cpus: int = 2, save: bytes = b"") -> Iterator[tuple[MemoryView, Monitor]]:
    """A view of this very process's memory, as if it were QEMU's; ``human`` answers lines of the monitor for humans."""

    def answer(command: str, arguments: dict[str, Any]) -> object:
        if command == "pmemsave":
            Path(arguments["filename"]).write_bytes(save)
        if command == "query-status":
            return {"running": True}
        return human(arguments["command-line"]) if command == "human-monitor-command" else {}

    with monitor(answer) as qemu:
        qmp = Qmp(qemu.sock, name="main", on_event=lambda event: None, deadline=Deadline(10))
        request = SimpleNamespace(memory_mib=256, cpus=cpus)
        machine = SimpleNamespace(
            pid=os.getpid(), request=request, monitor=qmp, attributing=contextlib.nullcontext, qemu_status=lambda: None
        )
        try:
            yield MemoryView(cast(Machine, machine), tmp_path, Deadline(30)), qemu
        finally:
            qmp.close()


def test_a_guest_stands_still_for_the_length_of_a_block_and_runs_again_whatever_happens_in_it(tmp_path: Path) -> None:
    with view_of(tmp_path, lambda line: registers(0, 3)) as (view, qemu):
        with view.frozen() as processors:
            assert [(each.cpu, each.cpl, each.fs_base) for each in processors] == [(0, 0, FS_BASE), (1, 3, FS_BASE + 1)]
            assert qemu.commands[-2:] == ["stop", "human-monitor-command"]
        assert qemu.commands[-1] == "cont"
        with pytest.raises(ZeroDivisionError), view.frozen():
            raise ZeroDivisionError
        assert qemu.commands[-1] == "cont"


def test_a_processor_that_is_not_shown_is_an_error_and_the_guest_runs_again(tmp_path: Path) -> None:
    with view_of(tmp_path, lambda line: registers(0)) as (view, qemu):
        with pytest.raises(GuestError, match="registers of 1 processors, of 2"), view.frozen():
            pytest.fail("the block was entered")
        assert qemu.commands[-1] == "cont"


def test_a_thread_is_met_when_it_runs_in_user_mode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_BETWEEN_FREEZES_S", 0.0)
    seen = iter([registers(0, 3), registers(0, 0), registers(3, 0)])
    with view_of(tmp_path, lambda line: next(seen)) as (view, qemu):
        with view.frozen_in(FS_BASE) as found:
            assert (found.cpu, found.cpl) == (0, 3)
        assert qemu.commands.count("stop") == qemu.commands.count("cont") == 3


def test_a_thread_that_is_never_met_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_FREEZES", 3)
    monkeypatch.setattr(memory, "_BETWEEN_FREEZES_S", 0.0)
    with (
        view_of(tmp_path, lambda line: registers(0, 0)) as (view, _),
        pytest.raises(GuestError, match="in 3 tries no processor"),
        view.frozen_in(FS_BASE),
    ):
        pytest.fail("the block was entered")


@pytest.mark.parametrize(
    ("asks", "line", "answer", "found"),
    [
        (lambda view: view.monitor_physical(CPU_1, 0x7000), "gva2gpa 0x7000", "gpa: 0x1234000\r\n", 0x1234000),
        (lambda view: view.monitor_physical(CPU_1, 0x7000), "gva2gpa 0x7000", "Unmapped\r\n", None),
        (
            lambda view: view.host_virtual(0x5000),
            "gpa2hva 0x5000",
            "Host virtual address for 0x5000 (ram) is 0x7f0000005000\r\n",
            0x7F0000005000,
        ),
        (lambda view: view.host_virtual(0x5000), "gpa2hva 0x5000", "No memory is mapped at address 0x5000\r\n", None),
        (lambda view: view.monitor_host_physical(0x5000), "gpa2hpa 0x5000", "Host physical address for 0x5000 (ram) is 0x9000\r\n", 0x9000),
    ],
)
def test_an_address_is_what_the_monitor_says_or_none(
    tmp_path: Path, asks: Callable[[MemoryView], int | None], line: str, answer: str, found: int | None
) -> None:
    with view_of(tmp_path, lambda _: answer) as (view, qemu):
        assert asks(view) == found
        _, arguments = qemu.heard[-1]
        assert arguments["command-line"] == line
        assert arguments["cpu-index"] == (1 if line.startswith("gva2gpa") else 0), "a translation is that of the thread's processor"


def test_physical_memory_is_read_by_way_of_a_file_that_is_gone_afterwards(tmp_path: Path) -> None:
    with view_of(tmp_path, lambda line: "", save=b"12345678") as (view, qemu):
        assert view.physical(0x1000, 8) == b"12345678"
        assert {name: qemu.heard[-1][1][name] for name in ("val", "size")} == {"val": 0x1000, "size": 8}
        assert list(tmp_path.iterdir()) == []
        with pytest.raises(QmpError, match="QEMU saved 8 of 16 bytes") as caught:
            view.physical(0x1000, 16)
        assert "is there memory at this address?" in caught.value.hint
        assert list(tmp_path.iterdir()) == []
        for size in (0, -1, (1 << 20) + 1):
            with pytest.raises(UsageError, match="can be read at once"):
                view.physical(0, size)


def test_a_walk_reads_the_tables_out_of_physical_memory(tmp_path: Path) -> None:
    # One table that leads to itself: every level reads the same entry, and the page is the table.
    entry = (0x1000000 | 1).to_bytes(8, "little")
    with view_of(tmp_path, lambda line: "", save=entry) as (view, _):
        walked = view.walk(CPU_1, 0x123)
        assert (walked.physical, walked.page_bytes, len(walked.steps)) == (0x1000123, 4096, 4)


def test_a_walk_may_begin_at_the_tables_of_a_process_that_does_not_run(tmp_path: Path) -> None:
    with view_of(tmp_path, lambda line: "", save=(0x2000000 | 1).to_bytes(8, "little")) as (view, qemu):
        view.walk(CPU_1, 0, cr3=0x2000000)
        first = next(arguments["val"] for command, arguments in qemu.heard if command == "pmemsave")
        assert first == 0x2000000


def test_memory_of_the_process_is_read_written_and_found_in_its_mapping(tmp_path: Path) -> None:
    buffer = ctypes.create_string_buffer(b"before", 4096)
    address = ctypes.addressof(buffer)
    with view_of(tmp_path, lambda line: "") as (view, _):
        assert view.read(address, 6) == b"before"
        view.write(address, b"after!")
        assert buffer.value == b"after!"
        mapping = view.mapping(address)
        assert mapping is not None
        assert mapping.start <= address < mapping.end
        assert view.host_pages(address)[0].present
        assert view.memory_bytes == 256 << 20


def test_kvms_counters_are_summed_over_processors_and_others_left_out() -> None:
    vm = [{"provider": "kvm", "stats": [{"name": "remote_tlb_flush", "value": 3}]}]
    vcpus = [
        {"provider": "kvm", "stats": [{"name": "exits", "value": 10}, {"name": "halt_poll_ns", "value": [1, 2]}]},
        {"provider": "kvm", "stats": [{"name": "exits", "value": 5}]},
        {"provider": "cryptodev", "stats": [{"name": "exits", "value": 100}]},
    ]
    with monitor(lambda command, arguments: {"vm": vm, "vcpu": vcpus}[arguments["target"]]) as qemu:
        qmp = Qmp(qemu.sock, name="main", on_event=lambda event: None, deadline=Deadline(10))
        try:
            machine = cast(Machine, SimpleNamespace(monitor=qmp, attributing=contextlib.nullcontext, qemu_status=lambda: None))
            assert kvm_statistics(machine, Deadline(10)) == {"remote_tlb_flush": 3, "exits": 15}
        finally:
            qmp.close()
