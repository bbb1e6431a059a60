"""`vmlab record`: a sound set from a run or from a report, and nothing from what is not sound."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.stand_in.machine import StandIn
from tests.tinylab import write_lab
from vmlab.lab import read_lab
from vmlab.lab.controls import Sound

pytestmark = pytest.mark.timeout(120)


def record(machine: StandIn, lab: str, *words: str) -> tuple[int, str]:
    options = ["--labs", str(machine.labs), "--reports", str(machine.reports), "--accel", "tcg", "--image", str(machine.image)]
    done = machine.run("record", lab, *words, *options)
    return done.returncode, done.stdout + done.stderr


def test_a_run_becomes_the_sound_set(machine: StandIn) -> None:
    folder = write_lab(machine.labs, "aa", "guest")
    code, said = record(machine, "aa", "--cold", "--param", "answer=7")
    assert code == 0, said
    assert f"wrote {folder / 'tests' / 'sound.json'}" in said
    assert "not observable in this run, so that its evidence shows nothing of them: it_cannot_be_seen" in said
    sound = Sound.read(read_lab(folder))
    sound.hold()
    assert sound.world()["seen"] == {"answer": 7, "said": "hello", "right": True}
    assert sound.world()["parameters.answer"] == 7
    assert sound.world()["run.accelerator"] == "tcg"
    evidence = sound.world().evidence
    report = machine.report("aa")
    assert (evidence.run.kernel, evidence.run.image) == (report["guests"][0]["kernel"], report["guests"][0]["image"])
    assert evidence.run.guest("main").accelerator == "tcg"


def test_a_report_that_is_there_is_taken_without_a_run_and_gives_the_same_file(machine: StandIn) -> None:
    folder = write_lab(machine.labs, "aa")
    assert machine.run("run", "aa").returncode == 0
    written = []
    for path in (machine.reports / "aa" / "latest", machine.reports / "aa" / "latest" / "report.json"):
        code, said = record(machine, "aa", "--report", str(path))
        assert code == 0, said
        written.append((folder / "tests" / "sound.json").read_bytes())
    assert written[0] == written[1]
    assert len(list((machine.reports / "aa").iterdir())) == 2, "one run, and `latest`"
    (folder / "README.md").write_text("# aa\n")
    code, said = record(machine, "aa", "--report", str(machine.reports / "aa" / "latest"))
    assert (code, "note: the lab's files have changed since this report was written" in said) == (0, True)


@pytest.mark.parametrize(("does", "code"), [("fail", 1), ("break", 3)])
def test_a_run_that_is_not_sound_leaves_nothing(machine: StandIn, does: str, code: int) -> None:
    folder = write_lab(machine.labs, "aa", does)
    found, said = record(machine, "aa")
    assert found == code, said
    assert "nothing was written, because this run is not sound: " in said
    assert not (folder / "tests").exists()
    found, said = record(machine, "aa", "--report", str(machine.reports / "aa" / "latest"))
    assert found == 2
    assert "is not sound, and nothing was written" in said
    assert not (folder / "tests").exists()


def test_what_was_there_before_is_kept_when_nothing_is_written(machine: StandIn) -> None:
    folder = write_lab(machine.labs, "aa", "fail")
    (folder / "tests").mkdir()
    (folder / "tests" / "sound.json").write_text("precious")
    assert record(machine, "aa")[0] == 1
    assert (folder / "tests" / "sound.json").read_text() == "precious"


def test_a_report_of_another_lab_and_a_contradiction_are_refused(machine: StandIn, tmp_path: Path) -> None:
    for name in ("aa", "bb"):
        write_lab(machine.labs, name)
    assert machine.run("run", "bb").returncode == 0
    latest = str(machine.reports / "bb" / "latest")
    for words, told in (
        (["--report", latest], "this is a report of the lab bb, not of aa"),
        (["--report", latest, "--param", "answer=1"], "--param is for a run"),
        (["--report", str(tmp_path / "nowhere")], "there is no report at"),
    ):
        code, said = record(machine, "aa", *words)
        assert (code, told in said) == (2, True), said


def test_the_evidence_is_judged_by_the_checks_as_they_are_now(machine: StandIn) -> None:
    folder = write_lab(machine.labs, "aa")
    assert machine.run("run", "aa").returncode == 0
    text = (folder / "checks.py").read_text()
    (folder / "checks.py").write_text(text.replace('seen.flag("right")', 'seen.flag("left")'))
    code, said = record(machine, "aa", "--report", str(machine.reports / "aa" / "latest"))
    assert (code, "it_is_so: inconclusive" in said) == (2, True), said


def test_a_member_that_would_be_taken_for_another_value_is_refused(machine: StandIn) -> None:
    folder = write_lab(machine.labs, "aa")
    text = (folder / "experiment.py").read_text()
    (folder / "experiment.py").write_text(
        text.replace('observed["right"] = True', 'observed["right"] = True\n    observed["x"] = {"same as": [1]}')
    )
    code, said = record(machine, "aa")
    assert code == 2, said
    assert "same as" in said
    assert json.loads((machine.reports / "aa" / "latest" / "report.json").read_text())["run"]["error"] is None
