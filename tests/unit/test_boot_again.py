"""A boot that the emulator broke is tried once more; a panic of the guest's own making never is."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.guest.conftest import world_of
from tests.stage import setting
from vmlab.errors import GuestPanicked
from vmlab.guest import boot, frozen
from vmlab.guest.frozen import ColdBoot, FrozenDisk
from vmlab.guest.machine import BootRequest
from vmlab.guest.setting import Setting
from vmlab.guest.workdir import WorkDir
from vmlab.host.noise import Noise
from vmlab.image.image import Image

STALE = "[    2.246398] Oops: int3: 0000 [#1] PREEMPT SMP NOPTI\n[    2.251221] Kernel panic - not syncing: Fatal exception in interrupt"
CORRUPT = "[    3.1] Oops: invalid opcode: 0000 [#1] PREEMPT SMP NOPTI\n[    3.2] Kernel panic - not syncing: Fatal exception"
TIMER = "[    0.3] Kernel panic - not syncing: IO-APIC + timer doesn't work!  Boot with apic=debug and send a report."
SILENT = "vmlab-initrd: up"
OWN = "[    4.1] Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000100"


@pytest.mark.parametrize(("console", "boots"), [(STALE, 2), (CORRUPT, 2), (SILENT, 2), (TIMER, 2), (OWN, 1)])
def test_only_the_emulators_fault_is_tried_again(console: str, boots: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[Path] = []

    @contextlib.contextmanager
    def panics(_request: BootRequest, setting: Setting, **_: Any) -> Iterator[None]:
        tried.append(setting.console_log)
        setting.console_log.write_text(console)
        raise GuestPanicked("the guest's kernel panicked", detail=console)
        yield

    monkeypatch.setenv("VMLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(boot, "boot", panics)
    nothing = Image("x", "0", tmp_path, tmp_path / "disk", None, None, "", {}, "user", {})
    with world_of(nothing, tmp_path) as world, pytest.raises(GuestPanicked):
        world.bench.guest()
    assert len(tried) == boots
    # The console of the boot that was given up stays evidence.
    assert (tmp_path / "console.broken-boot.log").exists() == (boots == 2)


@pytest.mark.parametrize(("deaths", "boots"), [([], 1), ([STALE], 2), ([TIMER], 2), ([SILENT, STALE], 3), ([STALE] * 3, 3), ([OWN], 1)])
def test_a_timed_boot_too_and_what_broke_is_kept(deaths: list[str], boots: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left, tried = list(deaths), 0

    def once(*_: Any) -> ColdBoot:
        nonlocal tried
        tried += 1
        if left:
            raise GuestPanicked("the guest's kernel panicked", detail=left.pop(0))
        return ColdBoot([], [], [], Noise(1, 1, 1, 0, 0, 0, 0), [])

    monkeypatch.setattr(frozen, "_boot_once", once)
    image = Image("x", "0", tmp_path, tmp_path / "disk", None, None, "", {}, "user", {})
    request = BootRequest("again", image, "tcg")
    disk = FrozenDisk(request, tmp_path / "disk", tmp_path / "seed")
    outcome = pytest.raises(GuestPanicked) if boots == len(deaths) else contextlib.nullcontext()
    with outcome:
        done = frozen.cold_boot(disk, request, setting(WorkDir(tmp_path), tmp_path / "console"), frozen.Until("x"))
        assert done.broken == deaths
    assert tried == boots


def test_a_real_processor_has_no_such_excuse() -> None:
    death = GuestPanicked("the guest's kernel panicked", detail=STALE)
    assert boot.is_emulators_fault(death, "tcg")
    assert not boot.is_emulators_fault(death, "kvm")


def test_words_about_the_timer_are_no_reason_to_boot_again() -> None:
    """Only the panic is the emulator's: what else the console says of it may stand before a panic of the guest's own."""
    death = GuestPanicked("the guest's kernel panicked", detail=f"[    0.3] IO-APIC + timer doesn't work, says somebody\n{OWN}")
    assert not boot.is_emulators_fault(death, "tcg")
