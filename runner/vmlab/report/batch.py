"""What came of many labs: one JSON document beside their reports, ``index.json``, of which the index page is a rendering.

It is written anew whenever a lab is done, so that a run that was stopped can be taken up where it ended.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Literal

from pydantic import Field

from vmlab.errors import EXIT_COULD_NOT_RUN, EXIT_PASS, UsageError
from vmlab.lab.verdict import VerdictKind
from vmlab.report import store
from vmlab.report.model import CheckPart, Part, Report, ScorePart, TallyPart
from vmlab.report.predictions import tally

INDEX_NAME = "index.json"


class Trouble(Part):
    """Why a lab has no report: what is wrong, and what to do."""

    kind: str
    message: str
    hint: str = ""
    exit_code: int = EXIT_COULD_NOT_RUN


class LabRow(Part):
    """One lab of the run."""

    job: str = Field(description="its name in the run: the lab's, with a number behind it when the lab was asked for more than once")
    lab: str
    title: str
    key: str = Field(description="sha256 of the lab's files and of everything that was asked of it: equal keys are the same work")
    verdict: VerdictKind | None = Field(default=None, description="null: it was not run")
    score: ScorePart | None = None
    predictions: TallyPart | None = Field(default=None, description="how many predictions held; null where there are none")
    duration_s: float = Field(default=0.0, description="without the wait for a slot")
    runner_cpu_s: float = Field(default=0.0, description="CPU seconds of the runner for it, its pages included and guests not counted")
    report: str = Field(default="", description="its report's directory, relative to this document; empty when there is none")
    report_sha256: str = Field(default="", description="of report.json")
    earlier: list[str] = Field(default_factory=list, description="reports of attempts that ended in an error, and were made again")
    attention: list[CheckPart] = Field(default_factory=list, description="the checks and tests that did not pass though they could")
    trouble: Trouble | None = None

    @property
    def standing(self) -> VerdictKind:
        """Its verdict; a lab that was not run is no pass, and nothing is known of it."""
        return VerdictKind.INCONCLUSIVE if self.verdict is None else self.verdict

    @property
    def is_settled(self) -> bool:
        """Whether it was run, and did not break: running it again would be the same work again."""
        return self.verdict is not None and self.verdict is not VerdictKind.ERROR

    def exit_code(self) -> int:
        """What it contributes to the run's exit code. (That of a run that was interrupted says so by itself.)"""
        if self.trouble is not None:
            return self.trouble.exit_code
        return EXIT_PASS if self.verdict is None else self.verdict.exit_code


class Batch(Part):
    """The whole document."""

    schema_version: Literal["1.0"] = "1.0"
    started_at: str = Field(description="ISO 8601, UTC")
    duration_s: float = 0.0
    command: str
    runner_version: str
    interrupted: bool = False
    whole: list[str] = Field(description="the jobs of the whole run, of which this may be a shard")
    shard: str = Field(default="", description="which shard of it, such as 2/5; empty: all")
    rows: list[LabRow]

    def exit_code(self) -> int:
        """The largest of all labs'."""
        return max((row.exit_code() for row in self.rows), default=EXIT_PASS)

    def by_urgency(self) -> list[LabRow]:
        """The rows, what needs attention first; rows of one kind stay in the order of the run."""
        return sorted(self.rows, key=lambda row: (-row.standing.urgency, row.verdict is None))


def row_of(report: Report, directory: Path, base: Path, *, job: str, key: str) -> LabRow:
    """A lab with its report, which lies in ``directory``; ``base`` is where index.json will be."""
    return LabRow(
        job=job,
        lab=report.lab.name,
        title=report.lab.title,
        key=key,
        verdict=report.verdict(),
        score=report.score,
        predictions=tally(report.answers),
        duration_s=report.run.took_s,
        report=relative(directory, base),
        report_sha256=hashlib.sha256((directory / store.REPORT_NAME).read_bytes()).hexdigest(),
        attention=[each for each in (*report.checks, *report.tests()) if each.verdict.needs_attention],
    )


def relative(directory: Path, base: Path) -> str:
    """A directory as seen from another, with slashes."""
    return directory.resolve().relative_to(base.resolve()).as_posix()


def load(base: Path) -> Batch:
    """The document of a directory of reports; UsageError says what is wrong with it."""
    path = base / INDEX_NAME
    if not path.is_file():
        raise UsageError(f"there is no {INDEX_NAME} in {base}", hint="`vmlab run` writes one when it runs several labs")
    return store.read_part(path, Batch, "the index of a run")
