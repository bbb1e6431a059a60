"""The zombies and the memory lab in every world of their controls, in real guests. (The boot lab's take half an hour.)"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from vmlab.lab import read_lab
from vmlab.report import matrix
from vmlab.report.matrix import Matrix, Standing

# (Each takes minutes, and `make controls` does the same every night: .github/workflows/controls.yml.)
pytestmark = [
    pytest.mark.guest,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(not os.environ.get("VMLAB_TEST_CONTROLS"), reason="takes minutes a lab: VMLAB_TEST_CONTROLS=1"),
]


def matrix_of(lab: str, reports: Path, *options: str) -> Matrix:
    """What ``vmlab controls`` leaves, which must be green."""
    argv = [sys.executable, "-m", "vmlab", "controls", lab, "--retry-errors", "1", "--reports", str(reports), *options]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = matrix.load(reports / "controls" / lab)
    assert not found.not_run
    return found


def test_every_check_of_the_zombies_lab_is_refuted(tmp_path: Path) -> None:
    found = matrix_of("zombies", tmp_path)
    assert {check.standing for check in found.checks} == {Standing.REFUTED}
    assert len(found.checks) == 20


def test_of_the_memory_lab_what_a_guest_can_break_is_refuted(tmp_path: Path) -> None:
    # (The emulated host on any machine, also on one that has KVM.)
    found = matrix_of("memory", tmp_path, "--param", "host=npt")
    lab = read_lab(ROOT / "labs" / "memory")
    named = {check for control in lab.definition.controls.values() for check in control.fails}
    assert named == {check.id for check in lab.load_checks()}
    # What this machine cannot show at all: its frames to others than root, and without KVM what is measured of its own.
    refuted = {check.id for check in found.checks if check.standing is Standing.REFUTED}
    assert {check.standing for check in found.checks if check.id not in refuted} <= {Standing.NOT_OBSERVABLE}
    hidden = set() if os.geteuid() == 0 else {"the_hosts_tables_name_a_frame", "one_byte_has_four_names"}
    of_kvm = {check for check in named if check.startswith("own_")} | {"a_miss_costs_a_walk"}
    assert named - refuted <= of_kvm | hidden
