"""The CI files are what their services accept (by the schemas that these publish), and call commands that there are."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from vmlab.cli.app import cli
from vmlab.host.accelerator import CI_RULE
from vmlab.lab.collection import Collection

ROOT = Path(__file__).resolve().parents[2]
GITHUB, GITLAB = ROOT / ".github/workflows/labs.yml", ROOT / ".gitlab-ci.yml"
NIGHTLY = ROOT / ".github/workflows/controls.yml"
SCHEMAS = {GITHUB: "vendor.github-workflows", NIGHTLY: "vendor.github-workflows", GITLAB: "vendor.gitlab-ci"}


def problems(schema: str, file: Path) -> str:
    """What check-jsonschema, which brings the services' schemas along, says against a file; empty when nothing."""
    argv = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, str(file)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    return "" if done.returncode == 0 else done.stdout + done.stderr


@pytest.mark.parametrize("file", [GITHUB, NIGHTLY, GITLAB], ids=["github", "nightly", "gitlab"])
def test_the_service_accepts_it(file: Path) -> None:
    assert problems(SCHEMAS[file], file) == ""


@pytest.mark.parametrize(
    ("file", "found", "instead"), [(GITHUB, "runs-on:", "run-on:"), (GITLAB, "stage: labs", "stage: [3]")], ids=["github", "gitlab"]
)
def test_control_a_file_that_the_service_would_refuse_is_seen(file: Path, found: str, instead: str, tmp_path: Path) -> None:
    wrong = tmp_path / file.name
    assert found in file.read_text()
    wrong.write_text(file.read_text().replace(found, instead))
    assert "errors" in problems(SCHEMAS[file], wrong).lower()


def scripts(file: Path) -> list[str]:
    """Every shell line of a CI file."""
    found: list[str] = []

    def walk(node: Any) -> None:
        if isinstance(node, dict):
            for key, value in node.items():
                if key in {"run", "script", "before_script"}:
                    lines = value if isinstance(value, list) else [value]
                    found.extend(line for text in lines for line in str(text).splitlines())
                else:
                    walk(value)
        elif isinstance(node, list):
            for each in node:
                walk(each)

    walk(yaml.safe_load(file.read_text()))
    return found


@pytest.mark.parametrize("file", [GITHUB, GITLAB], ids=["github", "gitlab"])
def test_every_command_of_ours_is_there_with_its_options(file: Path) -> None:
    asked = []
    for line in scripts(file):
        text = re.sub(r"\$\{\{.*?\}\}|\$CI_NODE_INDEX", "1", line).replace("$CI_NODE_TOTAL", "3")
        for call in re.findall(r"\.venv/bin/vmlab ([^|>&)\"]+)", text):
            words = shlex.split(call)
            command: click.Command = cli
            while isinstance(command, click.Group):
                command = command.commands[words.pop(0)]
            command.make_context(command.name, words)
            asked.append(command.name)
    assert {"run", "merge"} <= set(asked)


def test_control_an_option_that_is_not_there_is_seen() -> None:
    with pytest.raises(click.UsageError):
        cli.commands["run"].make_context("run", ["all", "--shards", "1/3"])


@pytest.mark.parametrize("file", [GITHUB, GITLAB], ids=["github", "gitlab"])
def test_a_silent_fall_back_to_emulation_is_an_error(file: Path) -> None:
    runs = [line for line in scripts(file) if "vmlab run" in line]
    assert runs
    assert all("--accel kvm" in line for line in runs)


@pytest.mark.parametrize("file", [GITHUB, NIGHTLY], ids=["github", "nightly"])
def test_kvm_is_opened_as_the_doctor_says(file: Path) -> None:
    ran = [line.strip() for line in scripts(file)]
    assert all(step in ran for step in CI_RULE.split(" && "))


def test_every_night_each_lab_that_has_controls_is_tried_with_kvm_or_not_at_all() -> None:
    with_controls = [name for name in Collection().names() if Collection().get(name).definition.controls]
    assert yaml.safe_load(NIGHTLY.read_text())["jobs"]["controls"]["strategy"]["matrix"]["lab"] == with_controls
    (tried,) = (line for line in scripts(NIGHTLY) if "make controls" in line)
    assert "ACCEL=kvm" in tried
    assert "\n  schedule:\n" in NIGHTLY.read_text()


def test_the_matrix_runs_every_shard_and_no_other() -> None:
    shard = yaml.safe_load(GITHUB.read_text())["jobs"]["shard"]
    count = len(shard["strategy"]["matrix"]["shard"])
    assert shard["strategy"]["matrix"]["shard"] == list(range(1, count + 1))
    assert f"--shard ${{{{ matrix.shard }}}}/{count} " in GITHUB.read_text()


def test_actions_are_pinned_by_major_version() -> None:
    uses = re.findall(r"uses: (\S+)", GITHUB.read_text() + NIGHTLY.read_text())
    assert uses
    assert all(re.fullmatch(r"actions/[a-z-]+@v\d+", each) for each in uses)
