"""The index page of a run of many labs: what needs attention first, and a way to each report. A pure rendering of index.json."""

from __future__ import annotations

from collections import Counter

from vmlab.lab.verdict import VerdictKind
from vmlab.report.batch import Batch
from vmlab.report.headline import Words, sentence
from vmlab.report.page import form
from vmlab.report.predictions import tally_words, totals
from vmlab.report.store import HTML_NAME

INDEX_PAGE = "index.html"


def index_html(batch: Batch) -> str:
    """The page."""
    counts = Counter(row.verdict for row in batch.rows)
    scores = [row.score for row in batch.rows if row.score is not None]
    page: str = form("index.html.j2").render(
        batch=batch,
        rows=batch.by_urgency(),
        verdict=worst(batch),
        headline=headline(batch),
        counts=[(kind, counts[kind]) for kind in VerdictKind],
        not_run=counts[None],
        earned=sum(score.earned for score in scores),
        possible=sum(score.possible for score in scores),
        predictions=[f"Predictions: {tally_words(each)}." for each in totals(row.predictions for row in batch.rows)],
        tally_words=tally_words,
        kinds=list(VerdictKind),
        report_name=HTML_NAME,
    )
    return page


def worst(batch: Batch) -> VerdictKind:
    """The run in one word: that of the lab that needs attention most."""
    return VerdictKind.worst(row.standing for row in batch.rows)


def headline(batch: Batch) -> str:
    """How the run ended, as a sentence."""
    return sentence(Counter(row.verdict for row in batch.rows), Words("lab", "could not be run", "can show nothing on this host"))
