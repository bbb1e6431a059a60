"""The zombies lab in every world of its controls, in real guests. (The boot lab's take half an hour: see tests/controls.md.)"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from vmlab.report import matrix
from vmlab.report.matrix import Standing

pytestmark = [pytest.mark.guest, pytest.mark.timeout(900)]


def test_every_check_of_the_zombies_lab_is_refuted(tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "vmlab", "controls", "zombies", "--retry-errors", "1", "--reports", str(tmp_path)]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = matrix.load(tmp_path / "controls" / "zombies")
    assert {check.standing for check in found.checks} == {Standing.REFUTED}
    assert len(found.checks) == 20
    assert not found.not_run
