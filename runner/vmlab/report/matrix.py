"""A lab's checks against worlds in which its claims are false: one JSON document, of which the table and the page are renderings.

It is made from the reports of the worlds by `matrix_of`, which runs nothing. A schema is published (``schema/controls-1.json``).
"""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Literal

from pydantic import Field

from vmlab.errors import EXIT_COULD_NOT_RUN, EXIT_FAIL, EXIT_PASS, UsageError
from vmlab.lab.checks import Check
from vmlab.lab.verdict import VerdictKind
from vmlab.lab.worlds import Seen, World, disagreement, expected
from vmlab.report import store
from vmlab.report.batch import LabRow
from vmlab.report.model import CheckPart, Part, Report

MATRIX_NAME = "controls.json"
MATRIX_PAGE = "controls.html"


class Standing(StrEnum):
    """What is known of a check after all worlds."""

    REFUTED = "refuted"
    """It failed in a world that a control names it in, and passed in the sound one: it can see what it looks for."""
    UNREFUTED = "unrefuted"
    """The lab says why no real guest can make it fail."""
    NOT_OBSERVABLE = "not-observable"
    """This host cannot show it even in the sound world."""
    UNPROVED = "unproved"
    """It has not been seen to fail, or does not pass in the sound world."""
    UNKNOWN = "unknown"
    """Not all worlds were run, and it failed in none of those that were."""


class MatrixCheck(Part):
    """A check, and whether it was seen to fail."""

    id: str
    title: str
    claim: str
    standing: Standing
    refuted_in: list[str] = Field(description="the worlds that it failed in, as a control says that it must")
    unrefuted: str = Field(default="", description="why no real guest can make it fail; empty where a control does")


class MatrixCell(Part):
    """How one check came out in one world."""

    check: str
    verdict: VerdictKind
    expected: VerdictKind = Field(description="pass, fail, or inconclusive; where that is pass, not-observable will do")
    left_out: bool = Field(default=False, description="its evidence belongs to parts of the experiment that this world does not run")
    wrong: str = Field(default="", description="what is wrong with this verdict, in words; empty when nothing is")
    rationale: str = ""
    wanted: str = Field(default="", description="what the check would have wanted to see")
    measured: str = ""


class MatrixWorld(Part):
    """One world, as it was run."""

    name: str
    letter: str = Field(description="its column in the table")
    breaks: str = Field(default="", description="what is false in it; empty for the sound world")
    parameters: dict[str, int | float | str | bool] = Field(default_factory=dict, description="those that it sets")
    parts: list[str] = Field(default_factory=list, description="the parts of the experiment that it needs; empty: all of it")
    verdict: VerdictKind | None = Field(default=None, description="of its run; null: it was not run")
    broke: str = Field(default="", description="why its run broke, or never began")
    duration_s: float = 0.0
    report: str = Field(default="", description="the directory of its report, relative to this document; empty when there is none")
    earlier: list[str] = Field(default_factory=list, description="reports of runs before it that noise or an error spoiled")
    cells: list[MatrixCell] = Field(default_factory=list)


class Matrix(Part):
    """The whole document."""

    schema_version: Literal["1.0"] = "1.0"
    lab: str
    title: str
    digest: str = Field(description="sha256 over the lab's files")
    started_at: str = Field(description="ISO 8601, UTC")
    duration_s: float = Field(default=0.0, description="of all worlds together, without the waits for slots")
    command: str
    runner_version: str
    host: str = Field(default="", description="what ran the guests, in words")
    checks: list[MatrixCheck]
    worlds: list[MatrixWorld]
    not_run: list[str] = Field(default_factory=list, description="worlds of the lab that were not asked for")
    problems: list[str] = Field(default_factory=list, description="what keeps it from being green, one line each")
    green: bool

    def exit_code(self) -> int:
        """0 when it is green, 3 when a world's run broke, else 1."""
        if any(world.broke for world in self.worlds):
            return EXIT_COULD_NOT_RUN
        return EXIT_PASS if self.green else EXIT_FAIL


@dataclass(frozen=True)
class Outcome:
    """How the run of a world ended: its row in the index, and its report where there is one."""

    row: LabRow
    report: Report | None = None


@dataclass(frozen=True)
class Trial:
    """What was tried: a lab's checks in these worlds."""

    lab: str
    title: str
    digest: str
    checks: Sequence[Check]
    worlds: Sequence[World]
    unrefuted: Mapping[str, str] = field(default_factory=dict)
    not_run: Sequence[str] = ()
    """The worlds of the lab that were not asked for."""


@dataclass(frozen=True)
class Occasion:
    """When and how it was tried."""

    started_at: str
    command: str
    runner_version: str


def matrix_of(trial: Trial, outcomes: Mapping[str, Outcome], occasion: Occasion) -> Matrix:
    """The document. ``outcomes`` are by the name of the world; one that is missing was not run."""
    sound = next((seen_in(outcomes[world.name].report) for world in trial.worlds if world.is_sound and world.name in outcomes), {})
    letters = iter(string.ascii_letters)
    worlds = [
        column_of(world, "-" if world.is_sound else next(letters), outcomes.get(world.name), trial.checks, sound) for world in trial.worlds
    ]
    checks = [_row(each, trial, worlds) for each in trial.checks]
    problems = [*_problems_of_worlds(worlds), *_problems_of_checks(checks, trial)]
    host = next((outcome.report for outcome in outcomes.values() if outcome.report is not None), None)
    return Matrix(
        lab=trial.lab,
        title=trial.title,
        digest=trial.digest,
        started_at=occasion.started_at,
        duration_s=round(sum(world.duration_s for world in worlds), 3),
        command=occasion.command,
        runner_version=occasion.runner_version,
        host="" if host is None else _host(host),
        checks=checks,
        worlds=worlds,
        not_run=list(trial.not_run),
        problems=problems,
        green=not problems,
    )


def _host(report: Report) -> str:
    images = ", ".join(dict.fromkeys(guest.image for guest in report.guests)) or "no guest"
    return f"{report.host.accelerator.name.upper()}, {images}, on {report.host.cpu_model}"


def seen_in(report: Report | None) -> dict[str, Seen]:
    """How the checks of a report came out; nothing where there is none."""
    return {} if report is None else {each.id: Seen(each.verdict, each.left_out) for each in report.checks}


def column_of(world: World, letter: str, outcome: Outcome | None, checks: Sequence[Check], sound: Mapping[str, Seen]) -> MatrixWorld:
    """One world of the document. ``sound`` is what was seen in the sound one, where it was run before."""
    column = MatrixWorld(name=world.name, letter=letter, breaks=world.breaks, parameters=dict(world.given), parts=list(world.parts))
    if outcome is None or outcome.row.verdict is None:
        return column
    row, report = outcome.row, outcome.report
    found = {each.id: each for each in report.checks} if report is not None else {}
    wanted = expected(world, checks)
    cells = [_cell(found[name], kind, None if world.is_sound else sound.get(name)) for name, kind in wanted.items() if name in found]
    return column.model_copy(
        update={
            "verdict": row.verdict,
            "broke": _why_it_broke(row, report),
            "duration_s": row.duration_s,
            "report": row.report,
            "earlier": list(row.earlier),
            "cells": cells,
        }
    )


def _why_it_broke(row: LabRow, report: Report | None) -> str:
    """Why a run has no verdicts that could be compared; empty when it has."""
    if report is None:
        return row.trouble.message if row.trouble is not None else "it left no report"
    if report.run.error is not None:
        return report.run.error.message
    return next((f"{each.id}: {each.rationale}" for each in report.checks if each.verdict is VerdictKind.ERROR), "")


def _cell(part: CheckPart, wanted: VerdictKind, sound: Seen | None) -> MatrixCell:
    wrong = disagreement(wanted, Seen(part.verdict, part.left_out), sound.kind if sound is not None else None)
    return MatrixCell(
        check=part.id,
        verdict=part.verdict,
        expected=wanted,
        left_out=part.left_out,
        wrong=wrong,
        rationale=part.rationale,
        wanted=part.expected,
        measured=part.measured,
    )


def _row(check: Check, trial: Trial, worlds: Sequence[MatrixWorld]) -> MatrixCheck:
    cells = {world.name: cell for world in worlds for cell in world.cells if cell.check == check.id}
    sound = next((cells[world.name] for world in trial.worlds if world.is_sound and world.name in cells), None)
    refuted = [name for name, cell in cells.items() if cell.expected is cell.verdict is VerdictKind.FAIL]
    return MatrixCheck(
        id=check.id,
        title=check.title,
        claim=check.claim,
        standing=_standing(check.id, refuted, sound, trial),
        refuted_in=refuted,
        unrefuted=trial.unrefuted.get(check.id, ""),
    )


def _standing(check: str, refuted: Sequence[str], sound: MatrixCell | None, trial: Trial) -> Standing:
    if sound is not None and sound.verdict is VerdictKind.NOT_OBSERVABLE:
        return Standing.NOT_OBSERVABLE
    if sound is not None and sound.verdict is not VerdictKind.PASS:
        return Standing.UNPROVED
    if refuted:
        return Standing.REFUTED
    if check in trial.unrefuted:
        return Standing.UNREFUTED
    return Standing.UNKNOWN if trial.not_run else Standing.UNPROVED


def _problems_of_worlds(worlds: Sequence[MatrixWorld]) -> list[str]:
    found = []
    for world in worlds:
        if world.verdict is None:
            found.append(f"world {world.name}: it was not run")
        elif world.broke:
            found.append(f"world {world.name}: its run broke: {world.broke}")
        else:
            found += [f"world {world.name}: {cell.check} {what_is_wrong(cell)}" for cell in world.cells if cell.wrong]
    return found


def what_is_wrong(cell: MatrixCell) -> str:
    """What is wrong with a cell, with what the check said."""
    said = f"measured: {cell.measured}" if cell.measured else cell.rationale
    return f"{cell.wrong} ({said})" if said else cell.wrong


def _problems_of_checks(checks: Sequence[MatrixCheck], trial: Trial) -> list[str]:
    """Checks that no control refutes. (One that does not fail where a control says so is told of its world already.)"""
    named = {name for world in trial.worlds for name in world.fails}
    return [
        f"check {each.id}: no control refutes it, and `unrefuted` does not say why"
        for each in checks
        if each.standing is Standing.UNPROVED and each.id not in named and each.id not in trial.unrefuted
    ]


def load(path: Path) -> Matrix:
    """The document of a directory, or of a file; UsageError says what is wrong with it."""
    file = path / MATRIX_NAME if path.is_dir() else path
    if not file.is_file():
        raise UsageError(f"there is no {MATRIX_NAME} at {path}", hint="`vmlab controls LAB` writes one")
    return store.read_part(file, Matrix, "a matrix of controls")
