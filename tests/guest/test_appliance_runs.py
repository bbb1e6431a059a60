"""The appliance for real: made out of a guest, booted by QEMU on an emulated AMD processor, and by Bochs on an emulated Intel one."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import BOOT_S
from tests.guest.conftest import World, world_of
from tests.stage import setting
from vmlab import process
from vmlab.deadline import Deadline
from vmlab.guest import qemu
from vmlab.guest.intel import bochs
from vmlab.guest.intel import console as appliance_console
from vmlab.guest.intel.appliance import CMDLINE, Appliance, ApplianceStore
from vmlab.guest.workdir import WorkDir
from vmlab.host import probe
from vmlab.image.image import Image
from vmlab.progress import Progress

pytestmark = pytest.mark.guest


@pytest.fixture(scope="module")
def world(debian13: Image, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world_of(debian13, tmp_path_factory.mktemp("logs")) as made:
        yield made


@pytest.fixture(scope="module")
def made(world: World, debian13: Image) -> Appliance:
    return ApplianceStore(Progress()).get(debian13, lambda: world.bench._packer("main"), Deadline(BOOT_S))


def counts(record: dict[str, Any]) -> dict[str, float]:
    return {f"{row['phase']} {row['counter']}": row["measured"] for row in record["judged"]["rows"]}


ALIKE = {"compute insn_emulation": 0, "touch_fresh pf_taken": 1, "touch_again pf_taken": 0, "swap_data pf_taken": 1}
NESTED = ALIKE | {"remap exits": 0, "reload_cr3 exits": 0, "page_fault exits": 0, "page_fault pf_guest": 0}
NESTED |= {"swap_table pf_taken": 1, "swap_walk pf_taken": 5}
SHADOW = ALIKE | {"remap exits": 2, "reload_cr3 exits": 2, "page_fault exits": 3, "page_fault pf_guest": 1}
SHADOW |= {"swap_table pf_taken": 0, "swap_walk pf_taken": 1}


def test_under_qemu_on_an_emulated_amd_processor(made: Appliance, tmp_path: Path) -> None:
    """Minutes quicker than Bochs, and the same initrd: whatever is wrong with it shows here."""
    argv = [qemu.PROGRAM, "-accel", "tcg", "-machine", "q35", "-cpu", qemu.SVM_CPU, "-m", "512", "-nodefaults", "-display", "none"]
    argv += ["-no-reboot", "-kernel", str(made.kernel), "-initrd", str(made.initrd), "-append", f"{CMDLINE} {qemu.SVM_KERNEL_ARGS}"]
    child = process.spawn([*argv, "-serial", f"file:{tmp_path / 'console'}"])
    try:
        text = appliance_console.wait(child, setting(WorkDir(tmp_path), tmp_path / "console", limit_s=BOOT_S), said=str)
    finally:
        process.stop(child)
    found = appliance_console.findings(text)
    nested, shadow = probe.judged(found.nested), probe.judged(found.shadow)
    assert (found.module, nested["judged"]["kind"], shadow["judged"]["kind"]) == ("kvm_amd", "nested", "shadow")
    assert counts(nested) == pytest.approx(NESTED, abs=0.01)
    assert counts(shadow) == pytest.approx(SHADOW, abs=0.01)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which(bochs.PROGRAM) is None, reason=f"Bochs is not installed: {bochs.INSTALL}")
def test_under_bochs_on_an_emulated_intel_processor(made: Appliance, world: World) -> None:
    found = world.bench.emulated_intel_host(time_limit_s=600)
    assert (found["ept"]["judged"]["kind"], found["ept"]["judged"]["claimed"]) == ("nested", "ept=Y")
    assert (found["shadow"]["judged"]["kind"], found["shadow"]["judged"]["claimed"]) == ("shadow", "ept=N")
    assert counts(found["ept"]) == pytest.approx(NESTED, abs=0.01)
    assert counts(found["shadow"]) == pytest.approx(SHADOW, abs=0.01)
    assert "@vmlab" in (world.logs / "console-intel_host.log").read_text()
    assert not made.disk.with_name("disk.img.lock").exists(), "Bochs locked the disk in the cache"
