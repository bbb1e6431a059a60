"""What a terminal shows of a report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.report.test_index import batch_of
from vmlab.report import publish, store
from vmlab.report.batch import row_of
from vmlab.report.index import index_html
from vmlab.report.lines import closing_lines, outcome, verdict_lines
from vmlab.report.summary import summary_markdown


def first_lines(report: Any) -> dict[str, str]:
    return {check.id: verdict_lines(check)[0] for check in report.checks}


def test_a_verdict_says_how_its_claim_stands(samples: Any) -> None:
    lines = first_lines(samples.passing())
    assert lines["an_unreaped_child_is_a_zombie"].endswith("zombie.  [Z1, which is simplified; 2/2]")
    assert lines["a_zombie_holds_a_few_kib_of_slab"].endswith("[Z2, which holds; 3/3]")
    assert lines["kill_does_not_remove_a_zombie"].startswith("✓ pass")
    assert "[Z4, which is wrong; " in lines["kill_does_not_remove_a_zombie"]


def test_a_claim_of_which_nothing_is_said(samples: Any) -> None:
    check = samples.passing().checks[0].model_copy(update={"stands": None})
    assert verdict_lines(check)[0].endswith("[Z1; 2/2]")


def test_the_end_counts_predictions(samples: Any) -> None:
    counted = "predictions: 1 of the student's 2 predictions held; 1 more cannot be compared"
    assert counted in closing_lines(samples.report(), "here")
    assert not any("prediction" in line for line in closing_lines(samples.empty(), "here"))


def test_the_index_and_its_summaries_count_predictions(samples: Any, tmp_path: Path) -> None:
    rows = []
    for name, report in (("own", samples.report(answers={})), ("student", samples.report()), ("none", samples.empty())):
        (tmp_path / name).mkdir()
        publish.save_report(report, tmp_path / name)
        rows.append(row_of(store.load(tmp_path / name), tmp_path / name, tmp_path, job=name, key=""))
    own, student, none = rows
    said = "1 of the student's 2 predictions held; 1 more cannot be compared"
    assert outcome(student).endswith(f", {said}")
    assert "prediction" not in outcome(none)
    made = batch_of(rows)
    page = index_html(made).replace("&#39;", "'")
    assert f"Predictions: {said}." in page
    assert "Predictions: 1 of the lab's own 2 predictions held; 1 more cannot be compared." in page
    assert f"| {said} |" in summary_markdown(made)
    assert own.predictions is not None
    assert own.predictions.whose == "lab"
