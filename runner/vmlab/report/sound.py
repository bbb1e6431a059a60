"""A report as the sound set of its lab's tests (`vmlab.lab.controls.kept`)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vmlab.errors import UsageError
from vmlab.lab.checks import Check
from vmlab.lab.controls import kept
from vmlab.lab.controls.thin import thinned
from vmlab.lab.lab import Lab
from vmlab.lab.verdict import VerdictKind
from vmlab.report import store
from vmlab.report.assemble import rejudge, run_facts
from vmlab.report.model import Report


def unsound(report: Report) -> list[str]:
    """Why a report is no evidence of a sound run, one line each; empty when it is."""
    found = [f"the run broke: {report.run.error.message}"] if report.run.error is not None else []
    found += [f"the run left out parts of the experiment: {', '.join(report.run.left_out)}"] if report.run.left_out else []
    return found + [f"{each.id}: {each.verdict}: {each.rationale}" for each in report.checks if not each.verdict.is_sound]


def save_sound(report: Report, lab: Lab) -> tuple[Path, list[str]]:
    """Write a lab's ``tests/sound.json`` from a report of it, judged anew. Returns the file and the checks that it cannot show.

    UsageError when the report is of another lab, or its evidence is not sound by the lab's checks as they are now.
    """
    if report.lab.name != lab.name:
        raise UsageError(f"this is a report of the lab {report.lab.name}, not of {lab.name}", hint=f"vmlab record {report.lab.name}")
    checks = lab.load_checks()
    judged = rejudge(report, checks, definition=lab.definition)
    wrong = unsound(judged)
    if wrong:
        raise UsageError(
            f"the evidence of {report.run.id} is not sound, and nothing was written: {wrong[0]}",
            hint="every check must pass in it, or not be observable; on a quiet machine, run it again",
            detail="\n".join(wrong[1:]),
        )
    path = lab.directory / "tests" / kept.NAME
    store.make_directory(path.parent)
    store.write_atomically(path, _text(judged, lab, checks).encode())
    return path, [each.id for each in judged.checks if each.verdict is VerdictKind.NOT_OBSERVABLE]


def _text(report: Report, lab: Lab, checks: Sequence[Check]) -> str:
    observations = {each.name: each.data for each in report.evidence.observations}
    facts = run_facts(report.host.accelerator.name, report.guests)
    places = [question.measured_by for question in lab.definition.questions if question.measured_by]
    return kept.text_of(thinned(kept.Kept(observations, dict(report.run.parameters), facts), checks, places))
