"""What doctor says of machines that we do not have."""

from __future__ import annotations

import errno
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.unit.conftest import PLAIN, RECORDS, World
from vmlab.host import doctor
from vmlab.host.accelerator import CI_RULE
from vmlab.host.facts import GIB, Qemu
from vmlab.packages import Requirement
from vmlab.probes.kvm import read


def findings(diagnosis: doctor.Diagnosis) -> dict[str, doctor.Finding]:
    return {finding.subject: finding for finding in diagnosis.findings}


def test_a_good_machine(kvm_world: World, tmp_path: Path) -> None:
    diagnosis = doctor.examine(kvm_world.view(), tmp_path)
    assert {finding.sign for finding in diagnosis.findings} == {doctor.Sign.OK}
    assert (diagnosis.can_run, diagnosis.exit_code, diagnosis.install) == (True, 0, "")
    assert doctor.render(diagnosis).plain.endswith("Labs can run here.")


def test_tcg_is_a_warning_with_its_reason(world: World, tmp_path: Path) -> None:
    world.put(PLAIN).put({"dev/kvm": ""})
    diagnosis = doctor.examine(world.view(), tmp_path)
    found = findings(diagnosis)["accelerator"]
    assert (found.sign, diagnosis.exit_code) == (doctor.Sign.WARNING, 0)
    assert "neither vmx nor svm" in found.found


def test_one_command_installs_all_that_is_missing(kvm_world: World, tmp_path: Path) -> None:
    rows = [
        Requirement("mcopy", "mtools", "fills the boot partition"),
        Requirement("qemu-system-x86_64", "qemu-system-x86", "runs the guests"),
        Requirement("qemu-x", "mtools", "the same package twice"),
    ]
    kvm_world.programs = {"newuidmap"}
    diagnosis = doctor.examine(kvm_world.view(missing=lambda: rows), tmp_path)
    assert (diagnosis.install, diagnosis.exit_code) == ("sudo apt-get install mtools qemu-system-x86", 3)
    text = doctor.render(diagnosis).plain
    assert text.count("sudo apt-get install mtools qemu-system-x86") == 1
    assert "Labs cannot run here yet" in text
    as_root = doctor.examine(kvm_world.view(missing=lambda: rows, is_root=True), tmp_path)
    assert as_root.install == "apt-get install mtools qemu-system-x86"


@pytest.mark.parametrize(
    ("changes", "subject", "sign"),
    [
        ({"memory_bytes": GIB // 2}, "memory", doctor.Sign.MISSING),
        ({"memory_available_bytes": GIB}, "memory", doctor.Sign.WARNING),
        ({"disk_free_bytes": GIB}, "disk", doctor.Sign.MISSING),
        ({"disk_free_bytes": 5 * GIB}, "disk", doctor.Sign.WARNING),
        ({"qemu": Qemu("/usr/bin/qemu-system-x86_64", "6.2.0")}, "qemu", doctor.Sign.MISSING),
        ({"qemu": None}, "qemu", doctor.Sign.MISSING),
        ({"unprivileged_builds": "/etc/subuid has no line for student"}, "image builds", doctor.Sign.WARNING),
    ],
)
def test_what_is_wrong_is_seen_and_told(kvm_world: World, tmp_path: Path, changes: dict[str, Any], subject: str, sign: doctor.Sign) -> None:
    good = doctor.examine(kvm_world.view(), tmp_path)
    diagnosis = doctor.diagnose(replace(good.facts, **changes), good.accelerator)
    found = findings(diagnosis)[subject]
    assert found.sign is sign
    assert diagnosis.can_run == (sign is not doctor.Sign.MISSING)
    assert f"{sign:<9}" in next(line for line in doctor.render(diagnosis).plain.splitlines() if subject in line)


def test_an_accelerator_that_cannot_be_chosen_is_told(world: World, tmp_path: Path) -> None:
    world.put(PLAIN).answers["-accel"] = "Accelerators supported in QEMU binary:\nkvm\n"
    diagnosis = doctor.examine(world.view(), tmp_path)
    assert (findings(diagnosis)["accelerator"].sign, diagnosis.exit_code) == (doctor.Sign.MISSING, 3)


def test_80_columns_but_commands_stay_whole(kvm_world: World) -> None:
    kvm_world.opening = PermissionError(errno.EACCES, "Permission denied")
    lines = doctor.render(doctor.examine(kvm_world.view(in_ci=True), Path("/home/student/.cache/vmlab"))).plain.splitlines()
    assert [line.strip() for line in lines if len(line) > 80] == [CI_RULE]
    starts = {line[24] == " " for line in lines if line and not line.startswith("Labs") and "->" not in line and CI_RULE not in line}
    assert starts == {False}, "the column of what was found is not aligned"


def test_json(kvm_world: World, tmp_path: Path) -> None:
    told = json.loads(doctor.to_json(doctor.examine(kvm_world.view(), tmp_path)))
    assert told["can_run"] is True
    assert told["accelerator"]["facts"]["module"] == "kvm_intel"
    assert told["facts"]["qemu"]["version"] == "7.2.22"


def test_show_prints_plain_lines_off_a_terminal(kvm_world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    doctor.show(doctor.examine(kvm_world.view(), tmp_path))
    assert "\x1b" not in (printed := capsys.readouterr().out)
    assert "+ ok       qemu" in printed


def test_this_machine() -> None:
    diagnosis = doctor.examine()
    assert diagnosis.facts.cpus >= 1
    assert diagnosis.facts.memory_bytes > GIB // 4
    assert json.loads(doctor.to_json(diagnosis))["can_run"] is diagnosis.can_run


def test_the_probe_runs_when_it_is_asked_for_whatever_the_machine(world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    world.record = json.loads((RECORDS / "software.json").read_text())
    assert doctor.examine(world.view(), tmp_path).probe is None
    diagnosis = doctor.examine(world.view(), tmp_path, probe=True)
    assert world.probed == 1
    told = json.loads(doctor.to_json(diagnosis))["probe"]
    assert read(told["record"]) == read(world.record)
    assert told["judgement"]["kind"] == "emulated"
    doctor.show(diagnosis)
    assert "Emulation: software decodes each instruction" in capsys.readouterr().out
