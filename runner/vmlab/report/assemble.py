"""From evidence to a report, and back: judging, judging again, and comparing the two.

Nothing here touches a guest. A report that a student hands in is judged again from its own observations, so its verdicts follow from its
evidence or show that they do not. The digests show evidence that was changed by accident or without care, and no more: they have no key, so
whoever forges evidence computes them anew.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vmlab.lab.checks import Check, Judgement, Missing, judge
from vmlab.lab.definition import LabDefinition
from vmlab.lab.evidence import Evidence, digest
from vmlab.lab.task_tests import TaskTest
from vmlab.report import tasks as work
from vmlab.report.model import (
    AnswerPart,
    CheckPart,
    ClaimPart,
    ErrorPart,
    EvidencePart,
    FilePart,
    GuestPart,
    HostPart,
    LabPart,
    ObservationPart,
    PhasePart,
    Report,
    RunPart,
    ScorePart,
    TaskPart,
)
from vmlab.report.predictions import Answer, compare
from vmlab.report.scores import check_part, score
from vmlab.report.text import encodable, is_plain_path, points

_CHUNK = 1 << 20


def observation(name: str, data: Mapping[str, Any], *, at_s: float) -> ObservationPart:
    """An observation with its digest. ValueError when the data is no JSON value (NaN and infinity are none)."""
    clean: dict[str, Any] = encodable(data)
    return ObservationPart(name=name, at_s=at_s, sha256=digest(clean), data=clean)


def evidence_part(observations: Sequence[ObservationPart], files: Sequence[FilePart] = ()) -> EvidencePart:
    """The evidence with the digest over all of it."""
    return EvidencePart(observations=list(observations), files=list(files), sha256=evidence_digest(observations))


def evidence_digest(observations: Sequence[ObservationPart]) -> str:
    """SHA-256 over the names and digests of all observations, in order."""
    return digest([[each.name, each.sha256] for each in observations])


def lab_part(name: str, definition: LabDefinition, lab_digest: str, guest_library_digest: str = "") -> LabPart:
    """What a report keeps of a lab's definition."""
    return LabPart(
        name=name,
        title=definition.title,
        summary=definition.summary,
        digest=lab_digest,
        claims={name: ClaimPart(**dict(claim)) for name, claim in definition.claims.items()},
        guest_library=guest_library_digest,
        questions=list(definition.questions),
        plots=list(definition.plots),
        translations=list(definition.translations),
        kept_for_the_reader=list(definition.kept_for_the_reader),
        glossary=dict(definition.glossary),
    )


@dataclass(frozen=True)
class Recorded:
    """What a run leaves to be judged: how it went, and what was observed."""

    run: RunPart
    host: HostPart
    guests: Sequence[GuestPart]
    phases: Sequence[PhasePart]
    observations: Sequence[ObservationPart]
    files: Sequence[FilePart] = ()
    tasks: Sequence[TaskPart] = ()


def judge_report(lab: LabPart, checks: Sequence[Check], recorded: Recorded, answers: Mapping[str, Answer]) -> Report:
    """The report of a run: its evidence judged, its predictions compared, its points counted. The tests of tasks come by `with_tests`."""
    evidence = _evidence(recorded.observations, recorded.run, run_facts(recorded.host.accelerator.name, recorded.guests))
    judgements = _judge(checks, evidence, recorded.run)
    return Report(
        lab=lab,
        run=recorded.run,
        host=recorded.host,
        guests=list(recorded.guests),
        phases=list(recorded.phases),
        evidence=evidence_part(recorded.observations, recorded.files),
        answers=compare(lab.questions, answers, _by_name(recorded.observations)),
        checks=[check_part(each, lab.claims) for each in judgements],
        score=score(judgements),
        tasks=list(recorded.tasks),
    )


def with_tests(report: Report, tests: Sequence[TaskTest]) -> Report:
    """The report with the student's own work judged, from its evidence: what it claims of tests and of their points is not believed."""
    evidence = _evidence(report.evidence.observations, report.run, run_facts(report.host.accelerator.name, report.guests))
    return report.model_copy(update={"tasks": [work.judged(each, tests, evidence) for each in report.tasks]})


def rejudge(report: Report, checks: Sequence[Check], tests: Sequence[TaskTest] = (), *, definition: LabDefinition | None = None) -> Report:
    """The report with every verdict, comparison and point derived again from its own evidence; nothing that it claims is believed.

    ``definition`` is the grader's own: with it, claims, questions and plots are the grader's too. The report given is not changed.
    """
    lab = report.lab if definition is None else lab_part(report.lab.name, definition, report.lab.digest, report.lab.guest_library)
    observations = report.evidence.observations
    answers = {each.question: each.answer for each in report.answers if each.answer is not None}
    evidence = _evidence(observations, report.run, run_facts(report.host.accelerator.name, report.guests))
    judgements = _judge(checks, evidence, report.run)
    fresh = report.model_copy(
        update={
            "lab": lab,
            "answers": compare(lab.questions, answers, _by_name(observations)),
            "checks": [check_part(each, lab.claims) for each in judgements],
            "score": score(judgements),
        }
    )
    return with_tests(fresh, tests)


def differences(claimed: Report, judged_again: Report) -> list[str]:
    """What a report claims and judging it again does not bear out, one line each: verdicts, points, answers, the score."""
    found: list[str] = []
    for kind, said, derived in (("check", claimed.checks, judged_again.checks), ("test", claimed.tests(), judged_again.tests())):
        there, here = {each.id: each for each in said}, {each.id: each for each in derived}
        for name in dict.fromkeys([*there, *here]):
            found += _check_difference(f"{kind} {name}", there.get(name), here.get(name))
    found += _answer_differences(claimed.answers, judged_again.answers)
    if _score_words(claimed.score) != _score_words(judged_again.score):
        found.append(f"score: the report says {_score_words(claimed.score)}, its evidence gives {_score_words(judged_again.score)}")
    for task in claimed.tasks:
        found += [
            f"task {task.id}: the file {each.name} does not match its sha256"
            for each in task.files
            if work.file_part(each.name, each.text) != each
        ]
    return found


def verify_evidence(report: Report, directory: Path | None) -> list[str]:
    """Where the evidence and its digests do not agree, one line each; an empty list when every digest is right.

    That they agree shows that nobody changed it without care. It does not show that nobody did: the digests have no key.

    ``directory`` is where the files beside the report are; without one they are not looked at.
    """
    problems: list[str] = []
    names: set[str] = set()
    for each in report.evidence.observations:
        if each.name in names:
            problems.append(f"observation {each.name!r}: recorded twice")
        names.add(each.name)
        if _digest_or_none(each.data) != each.sha256:
            problems.append(f"observation {each.name!r}: its data does not match its sha256")
    if evidence_digest(report.evidence.observations) != report.evidence.sha256:
        problems.append("evidence: the digest over all observations does not match them (one was added, removed, renamed or moved)")
    if directory is not None:
        problems += [problem for part in report.evidence.files if (problem := _file_problem(part, directory))]
    return problems


def file_part(directory: Path, name: str) -> FilePart:
    """A file that lies in the report's directory, with its digest and size."""
    path = directory / name
    return FilePart(path=name, sha256=_file_digest(path), size_bytes=path.stat().st_size)


def run_facts(accelerator: str, guests: Sequence[GuestPart]) -> dict[str, Any]:
    """What a check may know of the run beside what was observed (`vmlab.lab.evidence.RunFacts`)."""
    known = {each.name: {"accelerator": each.accelerator, "kernel": each.kernel, "image": each.image} for each in guests}
    return {"accelerator": accelerator, "guests": known}


def _evidence(observations: Sequence[ObservationPart], run: RunPart, facts: Mapping[str, Any]) -> Evidence:
    return Evidence(_by_name(observations), run.parameters, facts)


def _judge(checks: Sequence[Check], evidence: Evidence, run: RunPart) -> list[Judgement]:
    return judge(checks, evidence, Missing(_broken_by(run.error), run.unsuitable, run.left_out))


def _broken_by(error: ErrorPart | None) -> str:
    return "" if error is None else (error.message or error.kind or "an error without a message")


def _by_name(observations: Sequence[ObservationPart]) -> dict[str, Any]:
    return {each.name: each.data for each in observations}


def _check_difference(name: str, claimed: CheckPart | None, judged: CheckPart | None) -> list[str]:
    if claimed is None:
        return [f"{name}: the report does not have it"]
    if judged is None:
        return [f"{name}: the lab has no such check"]
    if claimed.verdict is not judged.verdict:
        return [f"{name}: the report says {claimed.verdict}, its evidence gives {judged.verdict}"]
    if (claimed.points, claimed.max_points) != (judged.points, judged.max_points):
        ours, theirs = f"{points(judged.points)}/{points(judged.max_points)}", f"{points(claimed.points)}/{points(claimed.max_points)}"
        return [f"{name}: the report gives {theirs} points, the lab {ours}"]
    return []


def _answer_differences(claimed: Sequence[AnswerPart], judged: Sequence[AnswerPart]) -> list[str]:
    words = {True: "right", False: "wrong", None: "undecided"}
    there = {each.question: each for each in claimed}
    return [
        f"answer {each.question}: the report says {words[said.answer_right]}, its evidence gives {words[each.answer_right]}"
        for each in judged
        if (said := there.get(each.question)) is not None and said.answer_right is not each.answer_right
    ]


def _score_words(part: ScorePart) -> str:
    return f"{points(part.earned)} of {points(part.possible)}"


def _digest_or_none(data: Any) -> str | None:
    """The digest, or None for data that has no canonical form: nothing that we wrote is such."""
    try:
        return digest(data)
    except (ValueError, TypeError, RecursionError):
        return None


def _file_problem(part: FilePart, directory: Path) -> str | None:
    """What is wrong with a file of the evidence. The path comes from the report, so it must not lead out of the directory."""
    if not is_plain_path(part.path):
        return f"file {part.path[:80]!r}: not the plain name of a file beside the report"
    path = directory / part.path
    if not path.resolve().is_relative_to(directory.resolve()):
        return f"file {part.path}: leads out of the report's directory"
    if not path.is_file():
        return f"file {part.path}: missing"
    try:
        if path.stat().st_size != part.size_bytes or _file_digest(path) != part.sha256:
            return f"file {part.path}: it is not the file that the run left (its size or sha256 differs)"
    except OSError as exc:
        return f"file {part.path}: cannot be read ({exc.strerror})"
    return None


def _file_digest(path: Path) -> str:
    total = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            total.update(chunk)
    return total.hexdigest()
