"""The zombies lab in real guests, as a student runs it: by root on Debian 13, and by an unprivileged user on Debian 12.

One run each serves many tests. The lab's negative controls stand beside it, in labs/zombies/tests/.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import junitparser
import pytest

from tests.conftest import ROOT
from vmlab import paths
from vmlab.deadline import Deadline
from vmlab.errors import EXIT_FAIL
from vmlab.image.store import ImageStore
from vmlab.lab.verdict import VerdictKind
from vmlab.report import store
from vmlab.report.model import Report

pytestmark = [pytest.mark.guest]

# An ordinary user's id that owns nothing on this machine ("nobody" on Debian).
NOBODY = 65534


@dataclass(frozen=True)
class Run:
    """A finished run of the command line."""

    done: subprocess.CompletedProcess[str]
    reports: Path

    @property
    def directory(self) -> Path:
        return store.find_latest(self.reports, "zombies")

    @property
    def report(self) -> Report:
        return store.load(self.directory)


def measured(argv: list[str], reports: Path, *, cwd: Path, env: dict[str, str] | None = None) -> Run:
    """Run the lab; once more if a busy machine made a measurement inconclusive, which is what that verdict is for."""
    for _ in range(2):
        done = subprocess.run(argv, cwd=cwd, env=env, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
        run = Run(done, reports)
        if done.returncode != EXIT_FAIL or run.report.verdict() is not VerdictKind.INCONCLUSIVE:
            break
    return run


def everything_passed(run: Run) -> None:
    said = run.done.stdout + run.done.stderr
    assert run.done.returncode == 0, said
    assert "Traceback" not in said
    report = run.report
    assert {check.verdict for check in report.checks} == {"pass"}, said
    assert report.score.earned == report.score.possible > 0
    assert {check.claim for check in report.checks} >= {f"Z{n}" for n in range(1, 9)}
    assert all(check.measured and check.rationale for check in report.checks)


@pytest.fixture(scope="module")
def as_root(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """By whoever runs the tests, on the default image."""
    home = tmp_path_factory.mktemp("root")
    ImageStore().get("debian-13", Deadline(1800))
    answers = home / "answers.yaml"
    answers.write_text("exit_field: 1792\npages_resident: 5\n")
    argv = [sys.executable, "-m", "vmlab", "run", "zombies", "--student", "s123", "--answers", str(answers)]
    argv += ["--reports", str(home / "reports")]
    return measured(argv, home / "reports", cwd=ROOT)


@pytest.fixture(scope="module")
def as_user() -> Iterator[Run]:
    """By a user without any rights, who has only read access to the code and a cache of their own, on Debian 12."""
    image = ImageStore().get("debian-12", Deadline(1800))
    home = Path(tempfile.mkdtemp(prefix="vmlab-user-", dir="/var/tmp"))
    try:
        code = home / "code"
        for part in ("runner", "labs", "images", "cloud-init"):
            shutil.copytree(ROOT / part, code / part, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copytree(sysconfig.get_paths()["purelib"], home / "packages", ignore=shutil.ignore_patterns("__pycache__"))
        cache = home / "cache"
        shutil.copytree(image.directory, cache / "images" / image.directory.name)
        command = [sys.executable, "-m", "vmlab", "run", "zombies", "--image", "debian-12", "--reports", str(home / "reports")]
        if os.geteuid() == 0:
            subprocess.run(["chown", "-R", f"{NOBODY}:{NOBODY}", str(home)], check=True)
            command = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", *command]
            # The interpreter of the virtual environment may lie where only root may look; then the system's own serves.
            if subprocess.run([*command[:4], sys.executable, "-c", ""], capture_output=True, check=False).returncode != 0:
                command[4] = "/usr/bin/python3"
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "VMLAB_CACHE": str(cache),
            "PYTHONPATH": f"{code / 'runner'}:{home / 'packages'}",
        }
        yield measured(command, home / "reports", cwd=home, env=environment)
    finally:
        shutil.rmtree(home, ignore_errors=True)


@pytest.mark.xdist_group("zombies-13")
class TestAsRootOnDebian13:
    def test_every_claim_is_proved(self, as_root: Run) -> None:
        everything_passed(as_root)

    def test_the_report_says_what_ran_where(self, as_root: Run) -> None:
        report = as_root.report
        assert report.host.accelerator.name in ("tcg", "kvm")
        assert report.host.accelerator.reason
        (guest,) = report.guests
        assert guest.image == "debian-13"
        assert "Debian GNU/Linux 13" in guest.os
        assert (guest.start, guest.fallback) == ("clone", "")
        assert len(guest.template) == 64
        assert guest.cloud_init is not None
        assert guest.cloud_init.exit_code == 0
        assert guest.ended == "quit"
        assert report.run.student == "s123"
        assert "run zombies --student s123" in report.run.command

    def test_the_students_predictions_stand_beside_what_was_measured(self, as_root: Run) -> None:
        answers = {each.question: each for each in as_root.report.answers}
        assert (answers["exit_field"].answer, answers["exit_field"].answer_right) == (1792, True)
        assert (answers["pages_resident"].answer, answers["pages_resident"].answer_right) == (5, False)
        assert all(each.prediction_right is not None for each in answers.values())

    def test_the_timeline_covers_the_run(self, as_root: Run) -> None:
        report = as_root.report
        covered = sum(phase.end_s - phase.start_s for phase in report.phases if phase.depth == 0)
        assert covered > 0.95 * report.run.duration_s - 1

    def test_the_evidence_alone_gives_the_same_verdicts(self, as_root: Run) -> None:
        argv = [sys.executable, "-m", "vmlab", "check", str(as_root.directory)]
        done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "gives every verdict" in done.stdout

    def test_a_forged_verdict_and_changed_evidence_are_found(self, as_root: Run, tmp_path: Path) -> None:
        forged = json.loads((as_root.directory / "report.json").read_text())
        forged["evidence"]["observations"][0]["data"]["forged"] = 1
        forged["checks"][0]["verdict"] = "fail"
        (tmp_path / "report.json").write_text(json.dumps(forged))
        argv = [sys.executable, "-m", "vmlab", "check", str(tmp_path / "report.json")]
        done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert "does not match" in done.stdout
        assert forged["checks"][0]["id"] in done.stdout

    def test_all_the_files_of_a_report_are_there(self, as_root: Run) -> None:
        names = {path.name for path in as_root.directory.iterdir()}
        assert names >= {"report.json", "report.html", "junit.xml", "console.log"}
        cases = [case for suite in junitparser.JUnitXml.fromfile(str(as_root.directory / "junit.xml")) for case in suite]
        assert len(cases) == len(as_root.report.checks)
        html = (as_root.directory / "report.html").read_text()
        assert html.count("<svg") >= 2
        assert "http://" not in html.replace("http://www.w3.org/", "")

    def test_plain_lines_without_escapes_when_it_is_no_terminal(self, as_root: Run) -> None:
        out = as_root.done.stdout
        assert "\033" not in out
        assert "waiting for login" in out
        assert "report: " in out

    def test_nothing_is_left(self, as_root: Run) -> None:
        assert as_root.done.returncode == 0
        left = [path for path in paths.runs_dir().glob("run-*") if (path / "main").exists() and not _owned_by_a_living_run(path)]
        assert left == []


@pytest.mark.xdist_group("zombies-12")
class TestAsAnUnprivilegedUserOnDebian12:
    def test_every_claim_is_proved(self, as_user: Run) -> None:
        everything_passed(as_user)

    def test_it_was_debian_12_and_nobody(self, as_user: Run) -> None:
        (guest,) = as_user.report.guests
        assert "Debian GNU/Linux 12" in guest.os
        if os.geteuid() == 0:
            assert as_user.directory.stat().st_uid == NOBODY


def _owned_by_a_living_run(path: Path) -> bool:
    """Other tests run guests at the same time."""
    owner = json.loads((path / "owner.json").read_text())["processes"][0]["pid"]
    return Path(f"/proc/{int(owner)}").exists()
