"""A guest's disks: the files of a lab's own, and the look at them from outside. QEMU is a stand-in."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.stand_in.monitor import Monitor, Refused, monitor
from tests.unit.test_qemu_argv import SPEC, option
from vmlab.deadline import Deadline
from vmlab.errors import HostError, TemplateError, UsageError
from vmlab.guest import boot, drive
from vmlab.guest.drive import Drive
from vmlab.guest.look.disk import DiskView
from vmlab.guest.machine import Machine
from vmlab.guest.qemu import argv
from vmlab.guest.qmp import Qmp, QmpError

DATA = Drive("data", 4)


# The files.


def test_a_drive_is_a_sparse_file_of_zeros_or_begins_with_a_file_of_the_lab(tmp_path: Path) -> None:
    book = tmp_path / "book.txt"
    book.write_bytes(b"a book")
    drive.make([DATA, Drive("book", 1, content=book)], tmp_path)
    empty, filled = (tmp_path / f"drive-{name}.raw" for name in ("data", "book"))
    assert (empty.stat().st_size, empty.stat().st_blocks) == (4 << 20, 0)
    assert filled.stat().st_size == 1 << 20
    assert filled.read_bytes().rstrip(b"\0") == b"a book"


def test_after_a_power_cycle_it_holds_what_was_written(tmp_path: Path) -> None:
    drive.make([DATA], tmp_path)
    with DATA.file(tmp_path).open("r+b") as file:
        file.write(b"written")
    drive.make([DATA], tmp_path)
    assert DATA.file(tmp_path).read_bytes()[:7] == b"written"


def test_a_template_that_has_written_to_its_drive_is_none(tmp_path: Path) -> None:
    drive.make([DATA], tmp_path)
    drive.require_untouched([DATA], tmp_path)
    with DATA.file(tmp_path).open("r+b") as file:
        # (Zeros too: what counts is that the guest's kernel thinks that it has written.)
        file.write(bytes(512))
    with pytest.raises(TemplateError, match="the drive data was written to while the guest booted"):
        drive.require_untouched([DATA], tmp_path)


def test_no_way_past_the_hosts_cache_is_told_in_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(path: Path, flags: int) -> int:
        assert flags & os.O_DIRECT
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(os, "open", refuses)
    with pytest.raises(HostError, match="no way past the host's cache") as caught:
        drive.make([replace(DATA, host_cache=False)], tmp_path)
    assert "VMLAB_CACHE" in caught.value.hint


def test_a_full_disk_is_an_error_of_the_hosts(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="the drive data cannot be made"):
        drive.make([DATA], tmp_path / "missing")


def test_room_for_the_drives_is_asked_for_before_anything_is_made(tmp_path: Path) -> None:
    boot.require_space(tmp_path)
    with pytest.raises(HostError, match=r"its drives included \(\d+\)"):
        boot.require_space(tmp_path, 1 << 60)


# QEMU's command.


def test_a_drive_is_a_virtio_disk_with_its_name_as_serial_number() -> None:
    drives = (DATA, Drive("raw", 1, host_cache=False), Drive("book", 1, read_only=True))
    command = argv(replace(SPEC, drives=drives, drives_in=Path("/run/g,uest")))
    assert option(command, "-drive")[2:] == [
        "id=drive-data,if=none,file=/run/g,,uest/drive-data.raw,format=raw,cache=unsafe,discard=unmap",
        "id=drive-raw,if=none,file=/run/g,,uest/drive-raw.raw,format=raw,cache=none,discard=unmap",
        "id=drive-book,if=none,file=/run/g,,uest/drive-book.raw,format=raw,cache=unsafe,discard=unmap,readonly=on",
    ]
    assert option(command, "-device")[-3:] == [f"virtio-blk-pci,drive=drive-{name},serial={name}" for name in ("data", "raw", "book")]


def test_what_a_lab_adds_changes_nothing_of_the_rest() -> None:
    plain, more = argv(SPEC), argv(replace(SPEC, drives=(DATA,), wires=replace(SPEC.wires, networks=(11, 13))))
    at = plain.index("virtio-net-pci,netdev=net,romfile=") + 1
    added = len(more) - len(plain)
    assert more[:at] + more[at + added :] == plain


# The look from outside.


class Qemu:
    """What QEMU knows of its disks."""

    def __init__(self) -> None:
        self.limits: dict[str, Any] = {"bps": 0, "bps_rd": 0, "bps_wr": 0, "iops": 0, "iops_rd": 0, "iops_wr": 0}
        self.refuses = False

    def answer(self, command: str, arguments: dict[str, Any]) -> object:
        cache = {"direct": False, "no-flush": True, "writeback": True}
        match command:
            case "query-blockstats":
                return [
                    {
                        "device": name,
                        "stats": {"rd_operations": number, "rd_bytes": 4096 * number, "flush_operations": 2, "idle_time_ns": 5},
                    }
                    for number, name in enumerate(("disk", "seed", "drive-data"))
                ]
            case "query-block":
                return [{"device": name, "inserted": {"cache": cache, **self.limits}} for name in ("disk", "drive-data")]
            case "block_set_io_throttle":
                if self.refuses:
                    raise Refused("no")
                assert arguments.pop("device") == "drive-data"
                assert arguments.keys() == self.limits.keys(), "all six must be sent"
                self.limits = arguments
        return {}


@contextlib.contextmanager
def machine(tmp_path: Path, qemu: Qemu) -> Iterator[tuple[Machine, Monitor]]:
    drive.make([DATA], tmp_path)
    with monitor(qemu.answer) as heard:
        qmp = Qmp(heard.sock, name="main", on_event=lambda event: None, deadline=Deadline(10))
        request = SimpleNamespace(name="main", drives=(DATA,))
        try:
            yield (
                cast(Machine, SimpleNamespace(request=request, monitor=qmp, directory=tmp_path, attributing=contextlib.nullcontext)),
                heard,
            )
        finally:
            qmp.close()


@pytest.fixture
def qemu() -> Qemu:
    return Qemu()


@pytest.fixture
def data(tmp_path: Path, qemu: Qemu) -> Iterator[DiskView]:
    with machine(tmp_path, qemu) as (running, _):
        yield DiskView(running, "data", Deadline(30))


def test_what_is_counted_is_that_of_this_disk_and_goes_into_an_observation(tmp_path: Path, qemu: Qemu) -> None:
    with machine(tmp_path, qemu) as (running, _):
        root, data = (DiskView(running, name, Deadline(30)) for name in ("root", "data"))
        assert root.statistics() == {"rd_operations": 0, "rd_bytes": 0, "flush_operations": 2}
        assert data.statistics() == {"rd_operations": 2, "rd_bytes": 8192, "flush_operations": 2}
        assert data.cache() == {"direct": False, "no_flush": True, "writeback": True}
        assert json.loads(json.dumps(data.cache()))


def test_a_disk_that_there_is_not_is_refused_with_those_that_there_are(tmp_path: Path, qemu: Qemu) -> None:
    with machine(tmp_path, qemu) as (running, _), pytest.raises(UsageError, match="no disk named 'dat'") as caught:
        DiskView(running, "dat", Deadline(30))
    assert "root, data" in caught.value.hint


def test_bytes_are_read_written_and_found(data: DiskView) -> None:
    assert data.find(b"needle") is None
    data.write((3 << 20) - 3, b"needle")
    assert data.read((3 << 20) - 3, 6) == b"needle"
    assert data.find(b"needle") == (3 << 20) - 3, "across the end of a chunk"
    data.write(100, b"needle")
    assert (data.find(b"needle"), data.find(b"needle", 101)) == (100, (3 << 20) - 3)
    assert data.find(b"needle", (3 << 20) - 2) is None
    data.write((4 << 20) - 1, b"x")
    assert data.find(b"x") == (4 << 20) - 1
    assert data.read(4 << 20, 0) == b""


@pytest.mark.parametrize(
    "asks",
    [
        lambda disk: disk.read(-1, 1),
        lambda disk: disk.read(0, -1),
        lambda disk: disk.read(4 << 20, 1),
        lambda disk: disk.write((4 << 20) - 1, b"ab"),
        lambda disk: disk.find(b"x", -1),
        lambda disk: disk.find(b""),
        lambda disk: disk.find(bytes(2 << 20)),
    ],
)
def test_what_is_beyond_its_end_or_nothing_is_refused(data: DiskView, asks: Any) -> None:
    with pytest.raises(UsageError):
        asks(data)
    assert data.find(b"a") is None, "nothing was written"


def test_more_than_is_good_at_once_is_refused(tmp_path: Path, qemu: Qemu) -> None:
    with machine(tmp_path, qemu) as (running, _):
        running.request.drives[0].file(tmp_path).unlink()
        large = Drive("data", 32)
        drive.make([large], tmp_path)
        running.request.drives = (large,)  # type: ignore[misc]
        with pytest.raises(UsageError, match="can be read at once"):
            DiskView(running, "data", Deadline(30)).read(0, 17 << 20)


@pytest.mark.parametrize("asks", [lambda disk: disk.read(0, 1), lambda disk: disk.write(0, b"x"), lambda disk: disk.find(b"x")])
def test_the_root_disk_cannot_be_read_from_outside(tmp_path: Path, qemu: Qemu, asks: Any) -> None:
    with machine(tmp_path, qemu) as (running, _), pytest.raises(UsageError, match=r"overlay \(qcow2\)") as caught:
        asks(DiskView(running, "root", Deadline(30)))
    assert "statistics()" in caught.value.hint


def test_limits_nest_and_what_held_before_holds_again(data: DiskView, qemu: Qemu) -> None:
    none = dict(qemu.limits)
    with data.limited(operations_per_s=100):
        assert qemu.limits == none | {"iops": 100}
        with pytest.raises(ZeroDivisionError), data.limited(bytes_per_s=8 << 20):
            assert qemu.limits == none | {"bps": 8 << 20}
            raise ZeroDivisionError
        assert qemu.limits == none | {"iops": 100}
    assert qemu.limits == none


def test_a_failed_block_is_told_though_the_limits_cannot_be_taken_back(data: DiskView, qemu: Qemu) -> None:
    with pytest.raises(ZeroDivisionError), data.limited(operations_per_s=100):
        qemu.refuses = True
        raise ZeroDivisionError
    qemu.refuses = False
    with pytest.raises(QmpError), data.limited(operations_per_s=100):
        qemu.refuses = True


@pytest.mark.parametrize("limits", [{}, {"operations_per_s": -1}, {"operations_per_s": 5, "bytes_per_s": -1}, {"bytes_per_s": 0}])
def test_a_limit_that_is_none_is_refused(data: DiskView, limits: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="positive number"), data.limited(**limits):
        pytest.fail("the block was entered")
