"""A boot that the emulator broke is tried once more; a panic of the guest's own making never is."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runner.errors import GuestPanicked
from runner.guest import boot
from runner.guest.image import Image
from tests.guest.conftest import world_of

STALE = "[    2.246398] Oops: int3: 0000 [#1] PREEMPT SMP NOPTI\n[    2.251221] Kernel panic - not syncing: Fatal exception in interrupt"
OWN = "[    4.1] Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000100"


@pytest.mark.parametrize(("console", "boots"), [(STALE, 2), (OWN, 1)])
def test_only_the_emulators_fault_is_tried_again(console: str, boots: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[Path] = []

    @contextlib.contextmanager
    def panics(*_: Any, console_log: Path, **__: Any) -> Iterator[None]:
        tried.append(console_log)
        console_log.write_text(console)
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


def test_a_real_processor_has_no_such_excuse() -> None:
    death = GuestPanicked("the guest's kernel panicked", detail=STALE)
    assert boot.is_emulators_fault(death, "tcg")
    assert not boot.is_emulators_fault(death, "kvm")
