"""The index page of a run of many labs: what needs attention first, and a way to each report. A pure rendering of index.json."""

from __future__ import annotations

from collections import Counter

from vmlab.lab.verdict import VerdictKind
from vmlab.report.batch import Batch
from vmlab.report.page import page_template
from vmlab.report.store import HTML_NAME
from vmlab.report.text import counted

INDEX_PAGE = "index.html"

_ATTENTION = (VerdictKind.ERROR, VerdictKind.FAIL, VerdictKind.INCONCLUSIVE)


def index_html(batch: Batch) -> str:
    """The page."""
    counts = Counter(row.verdict for row in batch.rows)
    scores = [row.score for row in batch.rows if row.score is not None]
    page: str = page_template("index.html.j2").render(
        batch=batch,
        rows=batch.by_urgency(),
        verdict=worst(batch),
        headline=headline(batch),
        counts=[(kind, counts[kind]) for kind in VerdictKind],
        not_run=counts[None],
        earned=sum(score.earned for score in scores),
        possible=sum(score.possible for score in scores),
        kinds=list(VerdictKind),
        report_name=HTML_NAME,
    )
    return page


def worst(batch: Batch) -> VerdictKind:
    """The run in one word: that of the lab that needs attention most; a lab that was not run is no pass."""
    found = [row.verdict or VerdictKind.INCONCLUSIVE for row in batch.by_urgency()]
    return found[0] if found else VerdictKind.NOT_OBSERVABLE


def headline(batch: Batch) -> str:
    """How the run ended, as a sentence."""
    counts = Counter(row.verdict for row in batch.rows)
    words = {
        VerdictKind.ERROR: ("could not be run", "could not be run"),
        VerdictKind.FAIL: ("fails", "fail"),
        VerdictKind.INCONCLUSIVE: ("is inconclusive", "are inconclusive"),
        None: ("was not run", "were not run"),
    }
    troubles = [f"{counts[kind]} {one if counts[kind] == 1 else more}" for kind, (one, more) in words.items() if counts[kind]]
    total = len(batch.rows)
    if troubles:
        return f"Of {counted(total, 'lab')}, {', '.join(troubles)}"
    unseen = counts[VerdictKind.NOT_OBSERVABLE]
    if unseen == total:
        return "Nothing here can be observed on this host"
    passing = f"All {total - unseen} labs pass" if total - unseen > 1 else "The lab passes"
    return f"{passing}; {counted(unseen, 'more lab')} can show nothing on this host" if unseen else passing
