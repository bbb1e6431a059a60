"""The run of many labs as Markdown, for the summary that a CI service shows of a job. A pure rendering of index.json."""

from __future__ import annotations

import re

from vmlab.report.batch import Batch, LabRow
from vmlab.report.index import headline, worst
from vmlab.report.predictions import tally_words
from vmlab.report.text import clip, plain, points, seconds

SUMMARY_NAME = "summary.md"

_SHOWN = 60  # labs whose troubles are told at length: services cut a summary at 1 MiB
_LINE = 400


def summary_markdown(batch: Batch) -> str:
    """The text. What comes from a guest is escaped, so that it is neither markup nor HTML."""
    lines = [f"## {worst(batch).sign} {escaped(headline(batch))}", ""]
    lines += ["| lab | verdict | points | predictions | time |", "|---|---|---:|---|---:|"]
    lines += [_row(row) for row in batch.by_urgency()]
    troubled = [row for row in batch.by_urgency() if row.attention or row.trouble]
    for row in troubled[:_SHOWN]:
        lines += ["", f"### {escaped(row.job)}: {escaped(row.title)}", ""]
        if row.trouble is not None:
            lines.append(f"- {escaped(row.trouble.message)} ({escaped(row.trouble.hint)})")
        lines += [
            f"- {each.verdict.sign} **{each.verdict.value}** {escaped(each.title)}: {escaped(each.rationale)}" for each in row.attention
        ]
    if len(troubled) > _SHOWN:
        lines += ["", f"and {len(troubled) - _SHOWN} more labs; index.html has all"]
    return "\n".join(lines) + "\n"


def escaped(text: str) -> str:
    """A text on one line, of bounded length, in which nothing is markup: every ASCII sign that could be is escaped (CommonMark, 2.4)."""
    return re.sub(r"([!-/:-@\[-`{-~])", r"\\\1", clip(" ".join(plain(text).split()), _LINE)).replace("\\<", "&lt;").replace("\\>", "&gt;")


def _row(row: LabRow) -> str:
    verdict = "not run" if row.verdict is None else f"{row.verdict.sign} {row.verdict.value}"
    score = "" if row.score is None else f"{points(row.score.earned)}/{points(row.score.possible)}"
    predictions = tally_words(row.predictions) if row.predictions else ""
    return f"| {escaped(row.job)} | {verdict} | {score} | {predictions} | {seconds(row.duration_s) if row.duration_s else ''} |"
