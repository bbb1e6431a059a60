"""`pytest labs/`: a test a check, each lab run once, and nothing run that was not asked for. The labs start no guest."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import junitparser
import pytest

from tests.conftest import ROOT
from tests.stand_in.machine import StandIn
from tests.tinylab import write_lab

pytestmark = pytest.mark.timeout(200)


@pytest.fixture
def place(machine: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with three labs, one of which has tests of its own."""
    for name in ("PATH", "VMLAB_CACHE", "VMLAB_SLOTS"):
        monkeypatch.setenv(name, machine.env[name])
    for name, does in (("sound", "pass"), ("wrong", "fail"), ("broken", "break")):
        write_lab(tmp_path / "labs", name, does)
    (tmp_path / "labs" / "sound" / "tests").mkdir()
    (tmp_path / "labs" / "sound" / "tests" / "test_control.py").write_text("def test_control():\n    pass\n")
    (tmp_path / "pytest.ini").write_text(
        f"[pytest]\ntestpaths = labs\naddopts = -p no:cacheprovider -p no:randomly --accel tcg --lab-image {machine.image}\n"
    )
    return tmp_path


def run(place: Path, *words: str) -> subprocess.CompletedProcess[str]:
    env = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST")}
    env |= {"PYTHONPATH": str(ROOT), "COLUMNS": "150"}
    argv = [sys.executable, "-m", "pytest", *words]
    return subprocess.run(argv, cwd=place, env=env, capture_output=True, text=True, timeout=200, check=False)


def runs(place: Path) -> dict[str, int]:
    """How often each lab was run."""
    return {lab.name: len(list(lab.glob("2*/report.json"))) for lab in (place / "reports").iterdir()}


def test_the_plugin_is_declared_and_installed() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["pytest11"]
    assert declared == {"vmlab": "vmlab.pytest_plugin"}
    assert "vmlab.pytest_plugin" in {point.value for point in metadata.entry_points(group="pytest11")}


def test_each_verdict_is_what_pytest_calls_it(place: Path) -> None:
    done = run(place, "labs", "-v", "--junitxml", "junit.xml", "-rs")
    assert done.returncode == 1
    for line in (
        "labs/sound/lab.yaml::it_is_so PASSED",
        "labs/sound/lab.yaml::it_cannot_be_seen SKIPPED",
        "labs/wrong/lab.yaml::it_is_so FAILED",
        "labs/broken/lab.yaml::it_is_so ERROR",
        "labs/sound/tests/test_control.py::test_control PASSED",
    ):
        assert line in done.stdout, done.stdout
    assert "There is nothing to see." in done.stdout
    assert "wrong: It is so." in done.stdout
    for words in ("It was <not> so.", "expected: so; measured: otherwise", "hint: Look again."):
        assert words in done.stdout
    assert "RuntimeError: broken on purpose" in done.stdout
    assert "runner/vmlab/pytest_plugin.py:1" not in done.stdout.partition("short test summary")[0], "a traceback of ours"
    assert "xfail" not in done.stdout
    assert runs(place) == {"sound": 1, "wrong": 1, "broken": 1}
    cases = {f"{case.classname}.{case.name}": case for suite in junitparser.JUnitXml.fromfile(str(place / "junit.xml")) for case in suite}
    kinds = {name.split(".")[1]: type(case.result[0]).__name__ for name, case in cases.items() if case.result and "it_is_so" in name}
    assert kinds == {"wrong": "Failure", "broken": "Error"}


@pytest.mark.slow
def test_only_what_is_named_is_run(place: Path) -> None:
    assert "1 passed" in run(place).stdout, "the project's own tests, and no lab"
    assert "1 passed" in run(place, "labs/sound/tests").stdout
    assert "1 passed" in run(place, "-n", "2").stdout
    assert not (place / "reports").exists()
    assert "1 passed, 1 skipped" in run(place, "labs/sound/lab.yaml").stdout
    done = run(place, "labs", "-k", "wrong and it_is_so")
    assert "1 failed, 6 deselected" in done.stdout
    assert runs(place) == {"sound": 1, "wrong": 1}


@pytest.mark.slow
@pytest.mark.parametrize("dist", [["--dist", "loadgroup"], [], ["--dist", "worksteal"]])
def test_a_lab_runs_once_however_many_workers_there_are(place: Path, dist: list[str]) -> None:
    done = run(place, "labs", "-n", "3", *dist)
    assert "1 failed, 2 passed, 3 skipped, 1 error" in done.stdout, done.stdout
    assert runs(place) == {"sound": 1, "wrong": 1, "broken": 1}


def test_options_reach_the_lab(place: Path) -> None:
    done = run(place, "labs/sound", "--lab-param", "answer=7", "--lab-reports", "elsewhere", "--accel", "tcg")
    assert done.returncode == 0, done.stdout
    (report,) = (place / "elsewhere" / "sound").glob("2*/report.json")
    text = report.read_text()
    assert '"measured": "7"' in text
    assert "asked for" in text
    assert '"command": "pytest labs/sound --lab-param answer=7' in text


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--lab-param", "answers=7"], "there is no parameter named 'answers'"),
        (["--lab-param", "answer"], "expected name=value"),
        (["--lab-image", "debian-31"], "debian-31"),
    ],
)
def test_a_mistake_is_said_in_words(place: Path, words: list[str], said: str) -> None:
    done = run(place, "labs/sound/lab.yaml", *words)
    assert done.returncode != 0
    assert said in done.stdout
    assert "Traceback" not in done.stdout


@pytest.mark.slow
def test_kvm_that_is_not_there_is_an_error_and_no_failure(place: Path) -> None:
    flags = (Path("/proc/cpuinfo").read_text() + " ").split()
    if "vmx" in flags or "svm" in flags:
        pytest.skip("this machine may really have KVM")
    done = run(place, "labs/sound/lab.yaml", "--accel", "kvm")
    assert "2 errors" in done.stdout
    assert "failed" not in done.stdout
