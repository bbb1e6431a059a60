"""What a user can get wrong on the command line: one line that says what is wrong, one that says what to do, exit code 2, no traceback.

What this machine lacks is exit code 3. Nothing here boots a guest.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.conftest import ROOT, Vmlab
from vmlab.cli.app import cli

GOOD = """
title: T
summary: S
claims:
  X1: {says: "C", stands: holds}
guests:
  main: {memory_mib: 256}
parameters:
  rounds: {type: integer, default: 3, minimum: 1, maximum: 9, help: "how often"}
"""
CHECKS = '''from vmlab.lab import check, passed
@check(points=1, claim="X1")
def one(evidence):
    """One."""
    return passed("yes", measured="1")
'''


def lab(directory: Path, *, yaml: str = GOOD, checks: str = CHECKS, experiment: str = "def experiment(bench):\n    pass\n") -> Path:
    """A folder of labs with one lab named ``mine``."""
    home = directory / "mylabs" / "mine"
    (home / "guest").mkdir(parents=True)
    (home / "lab.yaml").write_text(yaml)
    (home / "checks.py").write_text(checks)
    (home / "experiment.py").write_text(experiment)
    return home.parent


def refused(done: subprocess.CompletedProcess[str], *words: str, code: int = 2) -> None:
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    for word in words:
        assert word in done.stderr
    lines = done.stderr.strip().splitlines()
    assert lines[0].startswith("vmlab: ")
    assert len(lines) >= 2, "an error says what is wrong and what to do"
    assert lines[1].startswith("       ")


def test_an_unknown_lab_suggests_the_nearest_name(vmlab: Vmlab) -> None:
    refused(vmlab("run", "zombeis"), "no lab named 'zombeis'", "did you mean 'zombies'")


def test_an_unknown_parameter_suggests_the_nearest_name(vmlab: Vmlab, tmp_path: Path) -> None:
    refused(vmlab("run", "mine", "--labs", str(lab(tmp_path)), "--param", "round=3"), "'round'", "did you mean 'rounds'")


@pytest.mark.parametrize("pair", ["rounds", "rounds=10"])
def test_a_parameters_value_is_looked_at(vmlab: Vmlab, tmp_path: Path, pair: str) -> None:
    refused(vmlab("run", "mine", "--labs", str(lab(tmp_path)), "--param", pair), "rounds")


def test_a_malformed_lab_yaml_is_answered_with_file_and_line(vmlab: Vmlab, tmp_path: Path) -> None:
    wrong = GOOD.replace("memory_mib: 256", "memory_mib: lots")
    refused(vmlab("run", "mine", "--labs", str(lab(tmp_path, yaml=wrong))), "lab.yaml:7", "memory_mib", "whole number")


def test_a_lab_whose_code_is_broken_is_answered_with_file_and_line(vmlab: Vmlab, tmp_path: Path) -> None:
    refused(vmlab("run", "mine", "--labs", str(lab(tmp_path, checks="def x(:\n"))), "checks.py:1")


def test_a_guest_larger_than_the_host_is_refused_with_both_sizes(vmlab: Vmlab, tmp_path: Path) -> None:
    huge = GOOD.replace("memory_mib: 256", "memory_mib: 8000000")
    refused(vmlab("run", "mine", "--labs", str(lab(tmp_path, yaml=huge))), "GiB")


def test_an_image_that_is_not_in_the_catalogue_is_refused(vmlab: Vmlab, tmp_path: Path) -> None:
    refused(vmlab("run", "mine", "--labs", str(lab(tmp_path)), "--image", "debian-31"), "debian-31", "debian-13")


def test_an_image_that_the_lab_does_not_run_on_is_refused(vmlab: Vmlab, tmp_path: Path) -> None:
    narrow = GOOD.replace("{memory_mib: 256}", "{memory_mib: 256, images: [debian-13]}")
    refused(vmlab("run", "mine", "--labs", str(lab(tmp_path, yaml=narrow)), "--image", "debian-12"), "does not run on", "debian-13")


def test_kvm_where_there_is_none_is_an_error_with_the_reason(vmlab: Vmlab, tmp_path: Path) -> None:
    flags = (Path("/proc/cpuinfo").read_text() + " ").split()
    if "vmx" in flags or "svm" in flags:
        pytest.skip("this machine may really have KVM")
    refused(vmlab("run", "mine", "--labs", str(lab(tmp_path)), "--accel", "kvm"), "kvm", code=3)


def test_no_qemu_names_the_package(vmlab: Vmlab, tmp_path: Path) -> None:
    done = vmlab("run", "mine", "--labs", str(lab(tmp_path)), env={"PATH": str(tmp_path)})
    refused(done, "QEMU", "apt-get install", code=3)


def test_a_qemu_that_is_too_old_is_refused(vmlab: Vmlab, tmp_path: Path) -> None:
    fake = tmp_path / "bin" / "qemu-system-x86_64"
    fake.parent.mkdir()
    fake.write_text("#!/bin/sh\necho 'QEMU emulator version 6.2.0 (Debian 1:6.2)'\n")
    fake.chmod(0o755)
    done = vmlab("run", "mine", "--labs", str(lab(tmp_path)), env={"PATH": f"{fake.parent}:/usr/bin:/bin"})
    refused(done, "6.2", "7.0", code=3)


@pytest.mark.parametrize("text", ["[", "nonsense: 3\n"])
def test_answers_that_make_no_sense_are_refused(vmlab: Vmlab, tmp_path: Path, text: str) -> None:
    (tmp_path / "answers.yaml").write_text(text)
    refused(vmlab("run", "mine", "--labs", str(lab(tmp_path)), "--answers", "answers.yaml"), "answers.yaml")


def test_answers_that_are_not_there_are_refused(vmlab: Vmlab, tmp_path: Path) -> None:
    refused(vmlab("run", "mine", "--labs", str(lab(tmp_path)), "--answers", "nowhere.yaml"), "nowhere.yaml")


def test_a_directory_of_labs_that_is_not_there_is_refused(vmlab: Vmlab) -> None:
    refused(vmlab("list", "--labs", "nowhere"), "nowhere")


def test_an_unknown_command_and_an_unknown_option_are_refused(vmlab: Vmlab) -> None:
    refused(vmlab("rum"), "rum")
    refused(vmlab("run", "zombies", "--acel", "tcg"), "--acel")


def test_report_without_any_report_says_how_to_make_one(vmlab: Vmlab) -> None:
    refused(vmlab("report"), "vmlab run")


@pytest.mark.parametrize("text", ["{", '{"schema_version": "9.0"}'])
def test_check_of_what_is_no_report_is_refused(vmlab: Vmlab, tmp_path: Path, text: str) -> None:
    (tmp_path / "report.json").write_text(text)
    refused(vmlab("check", "report.json"), "report.json")


def test_check_of_what_is_not_there_is_refused(vmlab: Vmlab) -> None:
    refused(vmlab("check", "nowhere.json"), "nowhere.json")


def test_new_does_not_overwrite_and_refuses_bad_names(vmlab: Vmlab, tmp_path: Path) -> None:
    assert vmlab("new", "mylab").returncode == 0
    before = sorted(path.read_bytes() for path in (tmp_path / "labs").rglob("*") if path.is_file())
    refused(vmlab("new", "mylab"), "mylab")
    refused(vmlab("new", "../evil"), "evil")
    assert sorted(path.read_bytes() for path in (tmp_path / "labs").rglob("*") if path.is_file()) == before


def test_predict_writes_a_form_once(vmlab: Vmlab, tmp_path: Path) -> None:
    assert vmlab("predict", "zombies", "--output", "a.yaml").returncode == 0
    text = (tmp_path / "a.yaml").read_text()
    assert text.startswith("#")
    refused(vmlab("predict", "zombies", "--output", "a.yaml"), "a.yaml")
    assert (tmp_path / "a.yaml").read_text() == text


def test_help_needs_no_heavy_library() -> None:
    program = "import sys\nfrom vmlab import cli\nsys.argv = ['vmlab', '--help']\n"
    program += "heavy = ('paramiko', 'matplotlib', 'pydantic', 'jinja2', 'rich', 'qemu')\n"
    program += "try:\n    cli.main()\nfinally:\n    print([name for name in heavy if name in sys.modules])\n"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert "Usage: vmlab" in done.stdout
    assert done.stdout.strip().endswith("[]")


def test_every_command_has_help_that_begins_with_a_sentence() -> None:
    assert set(cli.commands) >= {"run", "list", "shell", "report", "doctor", "image", "clean", "check", "new"}
    for name in cli.commands:
        done = CliRunner().invoke(cli, [name, "--help"])
        assert done.exit_code == 0
        assert len(done.output.splitlines()[2].split()) >= 3


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_are_printed(shell: str) -> None:
    done = CliRunner().invoke(cli, ["completion", shell])
    assert done.exit_code == 0
    assert "_VMLAB_COMPLETE" in done.output


def test_completion_knows_the_labs(vmlab: Vmlab) -> None:
    done = vmlab(env={"_VMLAB_COMPLETE": "bash_complete", "COMP_WORDS": "vmlab run zo", "COMP_CWORD": "2"})
    assert "zombies" in done.stdout


def test_doctor_and_list_speak_json(vmlab: Vmlab) -> None:
    assert "zombies" in [row["name"] for row in json.loads(vmlab("list", "--json").stdout)]
    assert isinstance(json.loads(vmlab("doctor", "--json").stdout), dict)
    assert {row["name"] for row in json.loads(vmlab("image", "list", "--json").stdout)} >= {"debian-12", "debian-13"}
