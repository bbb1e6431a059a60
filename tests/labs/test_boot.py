"""The boot lab in real guests, as a student in a hurry runs it: two arms, three boots each.

A machine that runs other tests at the same time cannot be trusted with times: there a check that judges one may be inconclusive, which
is what that verdict is for, but it must never fail. Everything else is asserted. The negative controls are in labs/boot/tests/.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from vmlab.deadline import Deadline
from vmlab.image.store import ImageStore
from vmlab.report import publish, store
from vmlab.report.model import Report

pytestmark = [pytest.mark.guest, pytest.mark.xdist_group("boot-lab")]

TIMED = {"sequential_time_adds_up", "systemd_takes_the_critical_path", "parallel_is_quicker_by_the_graph"}
LEFT_OUT = {
    "debian_starts_in_parallel_by_default",
    "others_start_in_parallel_as_quickly",
    "control_one_cpu_gains_nothing",
    "control_a_chain_gains_nothing",
}


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    home = tmp_path_factory.mktemp("boot")
    ImageStore().get("debian-13", Deadline(1800))
    argv = [sys.executable, "-m", "vmlab", "run", "boot", "--param", "quick=true", "--reports", str(home)]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    assert "Traceback" not in done.stdout + done.stderr
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return store.load(store.find_latest(home, "boot"))


def test_what_does_not_hang_on_time_passes(report: Report) -> None:
    verdicts = {check.id: check.verdict for check in report.checks if check.id not in TIMED | LEFT_OUT}
    assert set(verdicts.values()) == {"pass"}, [check for check in report.checks if check.verdict == "fail"]


def test_times_are_as_predicted_or_too_noisy_to_tell(report: Report) -> None:
    for check in report.checks:
        if check.id in TIMED:
            assert check.verdict in ("pass", "inconclusive"), check
            assert check.measured or "rests on" in check.rationale


def test_what_a_quick_run_leaves_out_is_not_held_against_anyone(report: Report) -> None:
    assert {check.id for check in report.checks if check.verdict == "not-observable"} == LEFT_OUT


def test_the_boots_differ_as_they_should(report: Report) -> None:
    (boots,) = (each.data["boots"] for each in report.evidence.observations if each.name == "boots")
    assert sorted((boot["arm"], boot["turn"]) for boot in boots) == [
        (arm, turn) for arm in ("systemd-native", "sysv-sequential") for turn in (1, 2, 3)
    ]
    for boot in boots:
        assert boot["rest"] == [], "every line of the port is understood"
        assert boot["noise"]["qemu_cpu_s"] > 0
        assert len(boot["marks"]) == 2 * 14


def test_the_report_draws_them(report: Report, tmp_path: Path) -> None:
    publish.render_report(report, tmp_path)
    page = (tmp_path / store.HTML_NAME).read_text()
    assert "Gantt chart: service by time since the first service began (s)." in page
    assert "No data: the run recorded nothing" in page, "the controls were left out, and the page says so"
