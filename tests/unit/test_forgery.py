"""What `vmlab check` finds out about a report that somebody changed, what it does not, and that nothing promises more."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from tests.conftest import ROOT
from tests.tinylab import write_lab
from vmlab.cli.app import cli
from vmlab.lab.collection import read_lab
from vmlab.report import assemble, publish
from vmlab.report.model import AcceleratorPart, HostPart, RunPart

Document = dict[str, Any]
Change = Callable[[Document], None]
Check = Callable[[Change], Result]

TIMES = {"started_at": "2026-11-24T08:00:00+00:00", "duration_s": 2.0, "runner_cpu_s": 1.0}
RUN = RunPart.model_validate(TIMES | {"id": "one", "command": "vmlab run one", "parameters": {"answer": 42}, "runner_version": "0"})
MACHINE = {"os": "Debian", "kernel": "6.1", "cpu_model": "any", "cpus": 1, "memory_bytes": 1, "qemu_version": "7", "python_version": "3"}
HOST = HostPart.model_validate(MACHINE | {"load_1min": 0.0, "accelerator": AcceleratorPart(name="tcg", reason="a test")})


@pytest.fixture
def check(tmp_path: Path) -> Check:
    """Judges a report of a lab that failed, after something was done to it."""
    lab = read_lab(write_lab(tmp_path / "labs", "one", "fail"))
    seen = assemble.observation("seen", {"answer": 42, "right": False}, at_s=1.0)
    recorded = assemble.Recorded(RUN, HOST, [], [], [seen])
    part = assemble.lab_part("one", lab.definition, lab.digest)
    publish.save_report(assemble.judge_report(part, lab.load_checks(), recorded, {}), tmp_path)

    def changed(change: Change) -> Result:
        path = tmp_path / "report.json"
        document = json.loads(path.read_text())
        change(document)
        path.write_text(json.dumps(document))
        return CliRunner().invoke(cli, ["check", str(path), "--labs", str(tmp_path / "labs")])

    return changed


def nothing(_: Document) -> None:
    """Leave it as it is."""


def a_verdict(document: Document) -> None:
    document["checks"][0]["verdict"] = "pass"


def the_evidence(document: Document) -> None:
    document["evidence"]["observations"][0]["data"]["right"] = True


def everything(document: Document) -> None:
    """Do what anybody can who has read this file: make evidence up, and compute what belongs to it."""
    seen = assemble.observation("seen", {"answer": 42, "right": True}, at_s=1.0)
    document["evidence"] = assemble.evidence_part([seen]).model_dump(mode="json")
    document["checks"][0] |= {"verdict": "pass", "points": 1.0}
    document["score"]["earned"] += 1.0


def test_what_was_not_changed_is_borne_out(check: Check) -> None:
    done = check(nothing)
    assert done.exit_code == 0, done.output
    assert "the evidence gives every verdict that the report claims" in done.output
    assert "careless edits, not forgery" in done.output


@pytest.mark.parametrize(("change", "says"), [(a_verdict, "its evidence gives fail"), (the_evidence, "does not match its sha256")])
def test_a_careless_edit_is_found(check: Check, change: Change, says: str) -> None:
    done = check(change)
    assert done.exit_code == 1
    assert says in done.output
    assert "judged again" not in done.output


def test_a_forgery_is_not_found_and_nobody_is_told_that_there_is_none(check: Check) -> None:
    done = check(everything)
    assert done.exit_code == 0, done.output
    assert "not forgery" in done.output


TOO_MUCH = re.compile(
    r"as it was recorded|forged verdicts? (?:show|are found)|changed evidence|evidence was changed|tamper[- ]?proof"
    r"|cannot be (?:forged|faked)",
    re.IGNORECASE,
)
PLACES = ("*.md", "labs/**/*.md", "runner/vmlab/**/*.py", "runner/vmlab/**/*.j2")
TEXTS = [path.relative_to(ROOT).as_posix() for place in PLACES for path in ROOT.glob(place)]


@pytest.mark.parametrize("path", sorted(TEXTS))
def test_no_text_promises_more(path: str) -> None:
    assert not TOO_MUCH.findall(" ".join((ROOT / path).read_text().split()))


def test_the_readme_and_the_commands_help_say_what_is_not_shown() -> None:
    assert "Forged evidence does not show" in " ".join((ROOT / "README.md").read_text().split())
    assert "It shows no forgery" in " ".join(CliRunner().invoke(cli, ["check", "--help"]).output.split())


def test_control_a_promise_is_seen() -> None:
    assert TOO_MUCH.search("Changed evidence and forged verdicts show.")
