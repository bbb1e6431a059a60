"""The report as JUnit XML, for the CI services that read it: one test case a check.

People see the element content of ``failure``, ``error`` and ``skipped``; some tools read ``message`` and ``type`` instead, so all
three are written. What did not run is skipped, never failed; what the evidence does not decide is a failure of type *inconclusive*,
because it is not a pass and nobody's program broke.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

from junitparser import Error, Failure, JUnitXml, Properties, Property, Skipped, TestCase, TestSuite

from vmlab.lab.verdict import VerdictKind
from vmlab.report import store
from vmlab.report.batch import Batch, LabRow
from vmlab.report.model import CheckPart, ErrorPart, Report
from vmlab.report.predictions import tally
from vmlab.report.text import clip, clip_head, is_plain_path, plain

_Result: TypeAlias = Failure | Error | Skipped

_MESSAGE = 500  # an attribute, shown in one line
_CONTENT = 20_000  # CI services refuse files above 30 MB


def junit_xml(report: Report, directory: Path | None = None) -> bytes:
    """The XML document. ``directory`` is where the report's files lie; those that exist are named as attachments."""
    return _document([_suite(report, directory, report.lab.name)])


def junit_of_rows(batch: Batch, base: Path) -> bytes:
    """One document of a run of many labs, a suite a lab. ``base`` is where index.json lies."""
    return _document([_suite_of_row(row, base) for row in batch.rows])


def _document(suites: list[TestSuite]) -> bytes:
    document = JUnitXml("vmlab")
    times = [(suite, suite.time) for suite in suites]
    for suite in suites:
        document.add_testsuite(suite)
    document.update_statistics()  # type: ignore[no-untyped-call]
    # A check is judged after the run, in no time; the time of the run belongs to the suite.
    for suite, time in times:
        suite.time = time
    document.time = round(sum(time or 0.0 for _, time in times), 3)
    text: bytes = document.tostring()  # type: ignore[no-untyped-call]
    return text if text.startswith(b"<?xml") else b'<?xml version="1.0" encoding="utf-8"?>\n' + text + b"\n"


def _suite(report: Report, directory: Path | None, name: str) -> TestSuite:
    suite = TestSuite(plain(name))
    attachments = _attachments(report, directory)
    taken: set[str] = set()
    if report.run.error is not None:
        taken.add("run")
        suite.add_testcase(_case(name, "run", _run_error(report.run.error), attachments))
    for check in report.checks:
        result = _result(check)
        case = _case(name, _unique(check.id, taken), result, attachments if result is not None else "")
        suite.add_testcase(_with_properties(case, {"claim": check.claim, "claim_stands": check.stands or ""}))
    for task in report.tasks:
        if task.error is not None:
            suite.add_testcase(_case(name, _unique(f"{task.id}.run", taken), _run_error(task.error), attachments))
        for test in task.tests:
            result = _result(test)
            case = _case(name, _unique(f"{task.id}.{test.id}", taken), result, attachments if result is not None else "")
            suite.add_testcase(_with_properties(case, {"task": task.id}))
    suite.timestamp = plain(report.run.started_at)
    suite.add_property("accelerator", report.host.accelerator.name)
    suite.add_property("runner_version", plain(report.run.runner_version))
    suite.add_property("evidence_sha256", plain(report.evidence.sha256))
    tallied = tally(report.answers)
    if tallied is not None:
        suite.add_property(f"predictions_of_the_{tallied.whose}_that_held", f"{tallied.held} of {tallied.compared}")
    suite.time = round(report.run.took_s, 3)
    return suite


def _suite_of_row(row: LabRow, base: Path) -> TestSuite:
    """A lab without a report is one case: an error that says why, or skipped because it was never begun."""
    if row.report:
        return _suite(store.load(base / row.report), base / row.report, row.job)
    suite = TestSuite(plain(row.job))
    trouble = row.trouble
    if trouble is None:
        result = _filled(Skipped, "not run", "not-run", ["The run was ended before this lab was begun."])
    else:
        result = _filled(Error, trouble.message, trouble.kind, [plain(trouble.message), f"hint: {plain(trouble.hint)}"])
    suite.add_testcase(_case(row.job, "run", result, ""))
    return suite


def _case(lab: str, name: str, result: _Result | None, attachments: str) -> TestCase:
    case = TestCase(name, f"vmlab.{plain(lab)}", 0.0)
    if result is not None:
        case.result = [result]
    if attachments:
        case.system_out = attachments
    return case


def _with_properties(case: TestCase, values: Mapping[str, str]) -> TestCase:
    """The case with those properties that have a value. How a claim stands is no result: a check passes by what is so, claim or not."""
    properties = Properties()  # type: ignore[no-untyped-call]
    for name, value in values.items():
        if value:
            properties.add_property(Property(name, plain(value)))
    case.append(properties)  # type: ignore[no-untyped-call]
    return case


def _unique(name: str, taken: set[str]) -> str:
    """A name that no case before it has: of two with one name, readers count only the first."""
    base = plain(name) or "check"
    candidate, number = base, 2
    while candidate in taken:
        candidate, number = f"{base}-{number}", number + 1
    taken.add(candidate)
    return candidate


def _result(check: CheckPart) -> _Result | None:
    kinds: dict[VerdictKind, type[_Result]] = {
        VerdictKind.FAIL: Failure,
        VerdictKind.INCONCLUSIVE: Failure,
        VerdictKind.ERROR: Error,
        VerdictKind.NOT_OBSERVABLE: Skipped,
    }
    if check.verdict is VerdictKind.PASS:
        return None
    lines = [plain(check.title), plain(check.rationale)]
    lines += [f"{word}: {plain(text)}" for word, text in (("expected", check.expected), ("measured", check.measured)) if text]
    lines += [f"hint: {plain(check.hint)}"] if check.hint else []
    return _filled(kinds[check.verdict], check.rationale or check.title, check.verdict.value, lines)


def _run_error(error: ErrorPart) -> _Result:
    lines = [plain(error.message)]
    lines += [f"{word}: {plain(text)}" for word, text in (("hint", error.hint), ("while", error.phase)) if text]
    lines += ["", clip_head(plain(error.detail), _CONTENT)] if error.detail else []
    return _filled(Error, error.message, error.kind, lines)


def _filled(kind: type[_Result], message: str, type_: str, lines: list[str]) -> _Result:
    result = kind(clip(plain(message), _MESSAGE), plain(type_))
    result.text = "\n".join(clip(line, _CONTENT * 2) for line in lines)
    return result


def _attachments(report: Report, directory: Path | None) -> str:
    """The files that exist, in the notation that CI services read; relative to where vmlab was started when they lie below it."""
    if directory is None:
        return ""
    here, lines = Path.cwd(), []
    for part in report.evidence.files:
        path = directory / part.path
        if is_plain_path(part.path) and path.is_file():
            whole = path.resolve()
            shown = whole.relative_to(here) if whole.is_relative_to(here) else Path(part.path)
            lines.append(f"[[ATTACHMENT|{plain(shown.as_posix())}]]")
    return "\n".join(lines)
