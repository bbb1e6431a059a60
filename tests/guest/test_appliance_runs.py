"""The appliance for real: made out of a guest, booted by QEMU on an emulated AMD processor, and by Bochs on an emulated Intel one."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import BOOT_S
from tests.guest.conftest import World, world_of
from tests.stage import setting
from vmlab import process
from vmlab.bench import GUEST_LAB_DIR, GUEST_PROBE_DIR
from vmlab.bench.request import boot_request
from vmlab.deadline import Deadline
from vmlab.guest import qemu, start
from vmlab.guest.intel import console as appliance_console
from vmlab.guest.intel.appliance import CMDLINE, Appliance, ApplianceStore, Job
from vmlab.guest.intel.console import Said
from vmlab.guest.machine import Machine
from vmlab.guest.workdir import WorkDir
from vmlab.host import probe
from vmlab.image.image import Image
from vmlab.probes import kvm
from vmlab.progress import Progress

pytestmark = pytest.mark.guest


@pytest.fixture(scope="module")
def world(debian13: Image, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world_of(debian13, tmp_path_factory.mktemp("logs")) as made:
        yield made


@pytest.fixture(scope="module")
def made(world: World, debian13: Image) -> Appliance:
    """Packed by a guest as small as the emulated one is."""

    @contextlib.contextmanager
    def packer() -> Iterator[Machine]:
        request = boot_request(world.bench._lab, "packer", world.bench._lab.definition.guests["intel"], debian13, "tcg")
        with contextlib.ExitStack() as stack:
            yield start.start(stack, request, setting(world.work, world.logs / "packer.log", limit_s=BOOT_S), None)

    return ApplianceStore(Progress()).get(debian13, packer, Deadline(BOOT_S))


def counts(record: dict[str, Any]) -> dict[str, float]:
    return {f"{row['phase']} {row['counter']}": row["measured"] for row in record["judged"]["rows"]}


NESTED = {f"{row.phase} {row.counter}": row.nested for row in kvm.EXPECTED}
SHADOW = {f"{row.phase} {row.counter}": row.shadow for row in kvm.EXPECTED}


def by_qemu(made: Appliance, directory: Path, job: Job) -> Said:
    """One boot by QEMU, minutes quicker than Bochs, of the same initrd: whatever is wrong with it shows here."""
    argv = [qemu.PROGRAM, "-accel", "tcg", "-machine", "q35", "-cpu", qemu.SVM_CPU, "-m", "512", "-nodefaults", "-display", "none"]
    argv += ["-no-reboot", "-kernel", str(made.kernel), "-initrd", str(made.with_job(job, directory / "initrd"))]
    argv += ["-append", f"{CMDLINE} {qemu.SVM_KERNEL_ARGS}"]
    child = process.spawn([*argv, "-serial", f"file:{directory / 'console'}"])
    try:
        return appliance_console.read(
            appliance_console.wait(child, setting(WorkDir(directory), directory / "console", limit_s=BOOT_S), said=str)
        )
    finally:
        process.stop(child)


def test_the_probe_under_qemu_on_an_emulated_amd_processor(made: Appliance, tmp_path: Path) -> None:
    """The driver was loaded by the processor's own name, as in any guest."""
    files = {f"{GUEST_PROBE_DIR}/{name}": path for name, path in probe.KVM.files().items()}
    said = by_qemu(made, tmp_path, Job(probe.KVM.argv(300), GUEST_PROBE_DIR, files))
    record = probe.KVM.read(said.stdout.encode())
    assert (said.status, record["claim"]["module"], record["claim"]["boot_id"]) == (0, "kvm_amd", said.boot_id)
    assert record["judged"]["kind"] == "nested", record
    assert counts(record) == pytest.approx(NESTED, abs=0.01)


SCRIPT = """
import json, subprocess, sys
for name in ("statistics", "asyncio", "unicodedata", "decimal", "ctypes", "hashlib", "zoneinfo", "xml.dom.minidom"):
    __import__(name)
print(json.dumps({"argv": sys.argv[1:], "given": sys.stdin.read()}))
subprocess.run(["rmmod", "kvm_amd"], check=True)
subprocess.run(["modprobe", "kvm_amd", "npt=0"], check=True)
print(json.dumps({"npt": open("/sys/module/kvm_amd/parameters/npt").read().strip()}))
print("Kernel panic - not syncing: no", file=sys.stderr)
sys.exit(3)
"""


def test_a_script_has_the_standard_library_and_modprobe(made: Appliance, tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(SCRIPT)
    job = Job(["python3", "-u", "a.py", "x y"], GUEST_LAB_DIR, {f"{GUEST_LAB_DIR}/a.py": tmp_path / "a.py"}, b"input")
    said = by_qemu(made, tmp_path, job)
    assert [json.loads(line) for line in said.stdout.splitlines()] == [{"argv": ["x y"], "given": "input"}, {"npt": "N"}], said
    assert (said.status, said.stderr) == (3, "Kernel panic - not syncing: no\n")


def test_under_bochs_on_an_emulated_intel_processor(made: Appliance, world: World) -> None:
    """A guest like any other of the lab's, in which both settings of the module are measured in one boot."""
    guest = world.bench.guest("intel")
    assert guest is world.bench.guest("intel")
    result = guest.script("both_settings.py", GUEST_PROBE_DIR, time_limit_s=900)
    nested, shadow = (kvm.judged(kvm.read(each)) for each in result.records)
    assert (nested["judged"]["kind"], nested["judged"]["claimed"]) == ("nested", "ept=Y")
    assert (shadow["judged"]["kind"], shadow["judged"]["claimed"]) == ("shadow", "ept=N")
    assert counts(nested) == pytest.approx(NESTED, abs=0.01)
    assert counts(shadow) == pytest.approx(SHADOW, abs=0.01)
    assert "@vmlab" in (world.logs / "console-intel.log").read_text()
    (part,) = [part for part in world.notebook.guests if part.name == "intel"]
    assert part.virtualisation.startswith("Intel VMX with EPT: hardware walk emulated by Bochs ")
    assert (part.argv[0], part.boot_id, part.memory_bytes, part.cpus) == ("bochs", nested["claim"]["boot_id"], 512 << 20, 1)
