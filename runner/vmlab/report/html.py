"""The report as one HTML page that needs nothing else: no network, no script, no font.

A pure rendering: the same report gives the same bytes. What came from a guest is shown through `plain`, cut to a length, and escaped
by the page; a content security policy in the page forbids scripts and fetches should anything slip through all the same.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from vmlab.lab.claim import Standing
from vmlab.lab.definition import Question, QuestionKind
from vmlab.lab.kept import Kept
from vmlab.lab.pictures import Plot
from vmlab.lab.verdict import VerdictKind
from vmlab.report import text, translation
from vmlab.report.glossary import Glossary, Piece
from vmlab.report.headline import Words, sentence
from vmlab.report.model import AnswerPart, CheckPart, GuestPart, ObservationPart, PhasePart, Report, StepPart, TaskPart
from vmlab.report.page import form
from vmlab.report.plots import Drawing, SeriesData, drawings, unit_label
from vmlab.report.predictions import outcome, tally, tally_words

ROWS = 200
LISTED = 500  # observations and phases: no lab has as many
_TITLE, _WORDS = 300, 4_000  # characters of a check's title, and of any other text of it
_SEARCHED = 10_000  # characters of a text in which terms are looked for
_DATA = 16_000
_DATA_TOTAL = 400_000  # characters of raw observations in a page


@dataclass(frozen=True)
class ShownGuess:
    """What somebody predicted, and in words what came of it."""

    value: str
    right: bool | None
    outcome: str


@dataclass(frozen=True)
class ShownPrediction:
    """A question with its comparison, in words."""

    ask: str
    because: str
    prediction: ShownGuess
    answer: ShownGuess | None
    measured: str | None


@dataclass(frozen=True)
class ShownClaim:
    """What the course page says, and what is added to it."""

    says: list[Piece]
    correction: list[Piece]


@dataclass(frozen=True)
class ShownSource:
    """An observation that a check looked at, and where in it; without an ``anchor`` there is nothing to link to."""

    anchor: str
    name: str
    places: list[str]


@dataclass(frozen=True)
class ShownCheck:
    """A check with what belongs to it."""

    anchor: str
    part: CheckPart
    title: list[Piece]
    claim: ShownClaim | None
    method: list[list[Piece]]
    after: list[tuple[str, str]]  # anchor (empty when there is no such check), id
    sources: list[ShownSource]
    predictions: list[ShownPrediction]


@dataclass(frozen=True)
class ShownTask:
    """The student's own work on a task, with its tests."""

    anchor: str
    part: TaskPart
    tests: list[ShownCheck]


@dataclass(frozen=True)
class ShownBar:
    """A stretch of time as a bar, in percent of the whole."""

    name: str
    start_s: float
    length_s: float
    depth: int
    left: str
    width: str


@dataclass(frozen=True)
class ShownGuest:
    """A guest, with its readiness as bars."""

    part: GuestPart
    steps: list[ShownBar]


@dataclass(frozen=True)
class ShownObservation:
    """An observation with its raw data, cut to a size that a page bears."""

    anchor: str
    part: ObservationPart
    raw: str
    kept: list[tuple[list[str], str]]  # places that no check reads, and why they are there all the same


@dataclass(frozen=True)
class ShownTable:
    """The numbers of one series: a name for each column, and the rows."""

    name: str
    columns: list[str]
    rows: list[list[str]]
    note: str


@dataclass(frozen=True)
class ShownPlot:
    """A picture of the evidence and its numbers; without ``svg``, ``note`` says why there is none."""

    id: str
    title: str
    shows: str
    svg: str
    note: str
    notes: list[str] = field(default_factory=list)
    tables: list[ShownTable] = field(default_factory=list)


def report_html(report: Report) -> str:
    """The page."""
    glossary = Glossary(report.lab.glossary)
    checks, tasks = _checks(report, report.checks, glossary), _tasks(report, glossary)
    every = [*checks, *(test for task in tasks for test in task.tests)]
    glossary.notice(_other_texts(report))
    tallied = tally(report.answers)
    shown = {question.id for check in report.checks for question in report.lab.questions if question.check == check.id}
    page: str = form("report.html.j2").render(
        report=report,
        verdict=report.verdict(),
        headline=_headline(report),
        counts=[(kind, report.score.counts.get(kind, 0)) for kind in VerdictKind],
        attention=sorted((each for each in every if each.part.verdict.needs_attention), key=lambda each: -each.part.verdict.urgency),
        checks=checks,
        tasks=tasks,
        predictions=_predictions(report, [question for question in report.lab.questions if question.id not in shown]),
        plots=_pictures(report),
        phases=_phases(report.phases[:LISTED], report.run.duration_s),
        guests=[ShownGuest(guest, _steps(guest.steps)) for guest in report.guests],
        observations=_observations(report.evidence.observations[:LISTED], report.lab.kept_for_the_reader),
        unlisted=max(0, len(report.evidence.observations) - LISTED),
        kinds=list(VerdictKind),
        standings=list(Standing) if any(check.stands for check in report.checks) else [],
        tally="" if tallied is None else tally_words(tallied),
        terms=glossary.entries(),
    )
    return page


def _headline(report: Report) -> str:
    """How the run ended, as a sentence."""
    if report.run.error is not None:
        return "The run broke before it was finished"
    if not report.checks:
        return "This run has no checks"
    words = Words("check", "could not be judged", "cannot be observed on this host")
    said = sentence(Counter(check.verdict for check in report.checks), words)
    tests = report.tests()
    own = sentence(Counter(test.verdict for test in tests), replace(words, noun="test")) if tests else ""
    return f"{said}. Own work: {own[0].lower()}{own[1:]}" if own else said


def _other_texts(report: Report) -> list[str]:
    """What a reader meets beside titles, claims and methods; terms in it are explained, too, though it is not linked."""
    lab = report.lab
    texts = [lab.title, lab.summary, *(text for question in lab.questions for text in (question.ask, question.because))]
    texts += [text for check in (*report.checks, *report.tests()) for text in (check.rationale, check.expected, check.measured, check.hint)]
    texts += [
        text for plot in lab.plots for text in (plot.title, plot.shows, plot.x.label, plot.y.label, *(each.name for each in plot.series))
    ]
    texts += [text for each in lab.translations for text in (each.title, each.shows, *(stage.name for stage in each.stages))]
    # (The picture of a translation says it.)
    return [text[:_SEARCHED] for text in [*texts, *(["CR3"] if lab.translations else [])]]


def _tasks(report: Report, glossary: Glossary) -> list[ShownTask]:
    anchors = _anchors([task.id for task in report.tasks], "task")
    return [
        ShownTask(anchor, task, _checks(report, task.tests, glossary, f"{anchor}-test"))
        for task, anchor in zip(report.tasks, anchors, strict=True)
    ]


def _checks(report: Report, parts: Sequence[CheckPart], glossary: Glossary, prefix: str = "check") -> list[ShownCheck]:
    """Checks, or the tests of a task, with what belongs to each."""
    anchors = _anchors([check.id for check in parts], prefix)
    first = {check.id: anchor for check, anchor in reversed(list(zip(parts, anchors, strict=True)))}
    evidence = _anchors_of_evidence(report.evidence.observations[:LISTED])
    shown = []
    for check, anchor in zip(parts, anchors, strict=True):
        claim = report.lab.claims.get(check.claim)
        texts = [text.clip(check.title, _TITLE), *((claim.says, claim.correction) if claim else ("", "")), *check.method.split("\n\n")]
        title, says, correction, *method = glossary.linked([text.clip(part, _WORDS) for part in texts])
        shown.append(
            ShownCheck(
                anchor=anchor,
                part=check,
                title=title,
                claim=ShownClaim(says, correction) if claim else None,
                method=method if check.method else [],
                after=[(first.get(name, ""), name) for name in check.after],
                sources=_sources(check.rests_on, evidence),
                predictions=_predictions(report, [question for question in report.lab.questions if question.check == check.id]),
            )
        )
    return shown


def _anchors(names: Sequence[str], prefix: str) -> list[str]:
    """Ids to link to, readable and unique whatever the names hold."""
    found: dict[str, None] = {}
    for index, name in enumerate(names, 1):
        anchor = f"{prefix}-{re.sub(r'[^a-z0-9]+', '-', name.lower())[:80].strip('-')}"
        found[anchor if anchor != f"{prefix}-" and anchor not in found else f"{anchor.rstrip('-')}-{index}-again"] = None
    return list(found)


def _anchors_of_evidence(parts: Sequence[ObservationPart]) -> dict[str, str]:
    """Where the page shows each observation, and what else of the run a check may look at."""
    names = [part.name for part in parts]
    return dict(zip(names, _anchors(names, "evidence"), strict=True)) | {"parameters": "repeat", "run": "machines"}


def _sources(rests_on: Sequence[str], anchors: Mapping[str, str]) -> list[ShownSource]:
    """The places that a check rests on, by observation. (A name may have a dot in it: the longest that fits is meant.)"""
    found: dict[str, list[str]] = {}
    for place in rests_on:
        fitting = [name for name in anchors if place == name or place.startswith((f"{name}.", f"{name}["))]
        name = max(fitting, key=len, default=re.split(r"[.\[]", place, maxsplit=1)[0])
        found.setdefault(name, [])
        if within := place[len(name) :].removeprefix("."):
            found[name].append(within)
    return [ShownSource(anchors.get(name, ""), name, places) for name, places in found.items()]


def _predictions(report: Report, questions: Sequence[Question]) -> list[ShownPrediction]:
    answers = {each.question: each for each in report.answers}
    return [_prediction(question, answers.get(question.id)) for question in questions]


def _prediction(question: Question, answer: AnswerPart | None) -> ShownPrediction:
    given = None if answer is None else answer.answer
    measured = None if answer is None else answer.measured
    return ShownPrediction(
        ask=question.ask,
        because=question.because,
        prediction=_guess(question, question.prediction, measured, None if answer is None else answer.prediction_right),
        answer=None if given is None else _guess(question, given, measured, None if answer is None else answer.answer_right),
        measured=None if measured is None else _quantity(measured, question.unit),
    )


def _guess(question: Question, value: float | str, measured: float | str | None, right: bool | None) -> ShownGuess:
    if right is None:
        said = "left to the instructor" if question.kind is QuestionKind.TEXT else "cannot be told"
    else:
        said = outcome(question, value, measured, right=right)
    return ShownGuess(_quantity(value, question.unit), right, said)


def _quantity(value: float | str, unit: str) -> str:
    """A value in the unit in which it was asked for, whatever is shorter: two that are compared have one unit."""
    return f"{text.number(value)} {unit}".strip()


def _pictures(report: Report) -> list[ShownPlot]:
    """Every picture of the evidence: the translations first, which explain the words that the plots use."""
    observations = {each.name: each.data for each in report.evidence.observations}
    drawn = [translation.draw(each, observations, f"translation-{index}") for index, each in enumerate(report.lab.translations, 1)]
    return [*map(_translation, drawn), *map(_plot, drawings(report.lab.plots, observations))]


def _translation(picture: translation.Picture) -> ShownPlot:
    steps = [[str(step.level), str(step.index), f"{step.entry_address:#x}", f"{step.entry:#x}", step.flags] for step in picture.steps]
    stages = [[stage.name, "not shown" if stage.address is None else f"{stage.address:#x}", stage.holding] for stage in picture.stages]
    tables = [
        ShownTable("The walk", ["level", "index", "entry at", "entry", "bits"], steps, ""),
        ShownTable("The names of the byte", ["stage", "address", "read there"], stages, ""),
    ]
    shown = picture.definition
    return ShownPlot(picture.id, shown.title, shown.shows, picture.svg, picture.note, tables=[table for table in tables if table.rows])


def _plot(drawing: Drawing) -> ShownPlot:
    tables = [_table(drawing.plot, data) for data in drawing.series if data.rows]
    return ShownPlot(drawing.id, drawing.plot.title, drawing.plot.shows, drawing.svg, drawing.note, drawing.notes, tables)


def _table(plot: Plot, data: SeriesData) -> ShownTable:
    x, y = unit_label(plot.x), unit_label(plot.y)
    note = f"The first {ROWS} of {len(data.rows):,} rows; all are in report.json." if len(data.rows) > ROWS else ""
    if data.ends:
        bars = [[str(lane), text.number(start), text.number(end)] for (lane, start), end in zip(data.rows, data.ends, strict=True)]
        return ShownTable(data.name, [y, f"{x}: begin", f"{x}: end"], bars[:ROWS], note)
    return ShownTable(data.name, [x, y], [[text.number(a), text.number(b)] for a, b in data.rows[:ROWS]], note)


def _phases(phases: Sequence[PhasePart], duration_s: float) -> list[ShownBar]:
    whole = max([duration_s, *(phase.end_s for phase in phases)], default=0.0)
    return [_bar(phase.name, phase.start_s, phase.end_s, whole, phase.depth) for phase in phases]


def _steps(steps: Sequence[StepPart]) -> list[ShownBar]:
    """Each step takes from the step before it to the moment when it came true."""
    whole = max((step.at_s for step in steps), default=0.0)
    starts = [0.0, *(step.at_s for step in steps)]
    return [_bar(step.name, start, step.at_s, whole, 0) for start, step in zip(starts, steps, strict=False)]


def _bar(name: str, start: float, end: float, whole: float, depth: int) -> ShownBar:
    left = min(max(start / whole, 0.0), 1.0) if whole > 0 else 0.0
    width = min(max((end - start) / whole, 0.0), 1.0 - left) if whole > 0 else 0.0
    return ShownBar(name, start, max(end - start, 0.0), min(max(depth, 0), 6), f"{100 * left:.2f}%", f"{100 * width:.2f}%")


def _observations(parts: Sequence[ObservationPart], kept: Sequence[Kept]) -> list[ShownObservation]:
    views, budget = [], _DATA_TOTAL
    for part, anchor in zip(parts, _anchors([part.name for part in parts], "evidence"), strict=True):
        raw = text.plain(json.dumps(part.data, indent=2, ensure_ascii=False))
        allowed = min(_DATA, budget)
        budget -= min(len(raw), allowed)
        here = [(places, each.because) for each in kept if (places := each.of(part.name))]
        views.append(ShownObservation(anchor, part, text.clip(raw, allowed), here))
    return views
