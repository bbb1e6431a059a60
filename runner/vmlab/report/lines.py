"""A report as lines of text, for terminals and logs: a verdict, the outcome, and the same of a run of many labs."""

from __future__ import annotations

from collections.abc import Mapping

from vmlab.lab.claim import Standing
from vmlab.lab.verdict import VerdictKind
from vmlab.output import printable
from vmlab.report.batch import Batch, LabRow
from vmlab.report.index import headline
from vmlab.report.model import CheckPart, Report, ScorePart, TaskPart
from vmlab.report.predictions import tally, tally_words

_STANDS = {Standing.HOLDS: "holds", Standing.SIMPLIFIED: "is simplified", Standing.WRONG: "is wrong"}
"""Behind "the claim ...". A check tests the claim with its correction, so that its verdict does not say this."""


def verdict_lines(check: CheckPart) -> list[str]:
    """A verdict in words: the sign, the word and the title; then what was measured, or the reason when it is not a pass."""
    points = f"{check.points:g}/{check.max_points:g}" if check.verdict is not VerdictKind.NOT_OBSERVABLE else "-"
    claim = f"{check.claim}, which {_STANDS[check.stands]}" if check.stands else check.claim
    about = "; ".join(filter(None, [claim, points]))  # (A test of a task is of no claim.)
    lines = [f"{check.verdict.sign} {check.verdict.value:<14}  {check.title}  [{about}]"]
    if check.verdict is VerdictKind.PASS:
        return [*lines, *([f"    measured: {printable(check.measured)}"] if check.measured else [])]
    lines.append(f"    {printable(check.rationale)}")
    if check.expected or check.measured:
        lines.append(f"    expected: {printable(check.expected)}; measured: {printable(check.measured)}")
    if check.hint:
        lines.append(f"    hint: {printable(check.hint)}")
    return lines


def report_lines(report: Report) -> list[str]:
    """All verdicts of a report, as the run itself showed them."""
    found = [line for check in report.checks for line in verdict_lines(check)]
    for task in report.tasks:
        found += ["", task_line(task), *(line for test in task.tests for line in verdict_lines(test))]
    return found


def task_lines(task: TaskPart) -> list[str]:
    """The lines that end the try of a task, whose verdicts were shown before."""
    lines = []
    if task.error is not None:
        lines = [f"! {task.error.message}", *([f"  what to do: {task.error.hint}"] if task.error.hint else [])]
        lines += [f"  | {printable(line)}" for line in task.error.detail.strip().splitlines()[-8:]]
    return [*lines, task_line(task)]


def task_line(task: TaskPart) -> str:
    """A task and its points in a line."""
    if not task.attempted:
        return f"task {task.id}: {task.title}: not attempted (the files are as `vmlab start` wrote them), 0/{task.score.possible:g} points"
    return f"task {task.id}: {task.title}: {score(task.score)}"


def score(part: ScorePart) -> str:
    """Points and verdicts in a few words: ``20/20 points (12 pass)``."""
    return f"{part.earned:g}/{part.possible:g} points ({counts(part.counts) or 'no checks'})"


def counts(numbers: Mapping[VerdictKind, int]) -> str:
    """How many there are of each verdict: ``11 pass, 1 fail``."""
    return ", ".join(f"{number} {kind.value}" for kind, number in numbers.items() if number)


def summary(report: Report) -> str:
    """The outcome in a few words: ``pass, 20/20 points (12 pass)``."""
    return f"{report.verdict().value}, {score(report.score)}"


def closing_lines(report: Report, where: str) -> list[str]:
    """The lines that end a run."""
    error = report.run.error
    lines = []
    if error is not None:
        lines = [f"! {error.message}", *([f"  what to do: {error.hint}"] if error.hint else [])]
        lines += [f"  | {printable(line)}" for line in error.detail.strip().splitlines()[-8:]]
    if report.run.left_out:
        lines.append(f"parts run: {', '.join(report.run.parts)}; left out: {', '.join(report.run.left_out)}")
    tallied = tally(report.answers)
    if tallied is not None:
        lines.append(f"predictions: {tally_words(tallied)}")
    lines += [task_line(each) for each in report.tasks]
    return [*lines, f"{report.lab.title}: {summary(report)} in {report.run.took_s:.0f} s", f"report: {where}"]


def outcome(row: LabRow) -> str:
    """The end of one lab of many, in a line."""
    if row.verdict is None:
        return f"{row.job}: not run"
    if row.score is None:
        return f"{row.job}: {row.verdict.value}, no report"
    predictions = f", {tally_words(row.predictions)}" if row.predictions else ""
    return f"{row.job}: {row.verdict.value}, {score(row.score)} in {row.duration_s:.0f} s{predictions}"


def details(row: LabRow) -> list[str]:
    """Why one lab of many did not pass."""
    lines = [] if row.trouble is None else [row.trouble.message, *([f"what to do: {row.trouble.hint}"] if row.trouble.hint else [])]
    return [*lines, *(line for check in row.attention for line in verdict_lines(check))]


def batch_lines(batch: Batch, page: str) -> list[str]:
    """The lines that end a run of many labs."""
    return [f"{headline(batch)} ({batch.duration_s:.0f} s)", f"index: {page}"]
