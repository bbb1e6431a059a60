"""What a grader is told whose lab, or whose library for guest scripts, is not that of the report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Vmlab
from vmlab.lab import read_lab
from vmlab.lab.skeleton import create

LAB, LIBRARY = "note: the lab's files have changed", "note: vmlab 0.1.0, which wrote this report, had another library"


@pytest.mark.parametrize(
    ("changed", "says"), [("nothing", []), ("lab", [LAB]), ("library", [LIBRARY]), ("both", [LAB, LIBRARY]), ("older", [LIBRARY])]
)
def test_a_grader_is_told_which_of_the_two_has_changed(changed: str, says: list[str], tmp_path: Path, vmlab: Vmlab, samples: Any) -> None:
    """``older``: a report of a vmlab that had no library yet."""
    lab = read_lab(create("sample", tmp_path))
    report = samples.report()
    library = {"library": "ab" * 32, "both": "ab" * 32, "older": ""}.get(changed, lab.guest_library_digest)
    report.lab.name, report.lab.guest_library, report.lab.digest = "sample", library, lab.digest_with(library)
    report.run.runner_version = "0.1.0"
    if changed in ("lab", "both"):
        (lab.directory / "checks.py").write_text((lab.directory / "checks.py").read_text() + "\n")
    (tmp_path / "report.json").write_text(report.model_dump_json())
    done = vmlab("check", "report.json", "--labs", ".")
    notes = [line for line in done.stdout.splitlines() if line.startswith("note: ")]
    assert len(notes) == len(says), done.stdout + done.stderr
    assert all(line.startswith(beginning) for line, beginning in zip(notes, says, strict=True))
    told = json.loads(vmlab("check", "report.json", "--labs", ".", "--json").stdout)
    assert (told["lab_changed"], told["guest_library_changed"]) == (bool(says), LIBRARY in says)
