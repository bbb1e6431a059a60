"""Shards and their merge: the same as the run that was not sharded, or an answer in words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import junitparser
import pytest

from tests.report.conftest import HOSTILE
from vmlab.cli.run import Part
from vmlab.errors import UsageError
from vmlab.lab.verdict import VerdictKind
from vmlab.many.job import numbered
from vmlab.report import batch, publish, store
from vmlab.report.batch import Batch, LabRow, row_of
from vmlab.report.merge import merge
from vmlab.report.model import Report
from vmlab.report.summary import escaped, summary_markdown

JOBS = numbered(["zombies"] * 60 + ["memory"] * 40)


@pytest.fixture(scope="module")
def reports(samples: Any) -> list[Report]:
    return [samples.passing(), samples.report(), samples.broken()]


def ran(names: list[str], base: Path, reports: list[Report], shard: str = "") -> Batch:
    """What a run of these jobs leaves behind, its pages left out: the same job has the same report in each run."""
    rows = []
    for name in names:
        report = reports[JOBS.index(name) % len(reports)]
        report = report.model_copy(update={"lab": report.lab.model_copy(update={"name": name.partition("-")[0]})})
        directory = store.new_directory(base, report.lab.name)
        (directory / store.REPORT_NAME).write_bytes(store.report_json(report))
        rows.append(row_of(report, directory, base, job=name, key=name))
    made = Batch(started_at="2026-11-24T08:00:00+00:00", command="vmlab run", runner_version="0", whole=JOBS, shard=shard, rows=rows)
    publish.save_index(made, base)
    return made


def without_places(made: Batch) -> list[dict[str, Any]]:
    return [row.model_dump(exclude={"report"}) for row in made.rows]


def test_a_hundred_shards_merged_equal_the_run_that_was_not_sharded(reports: list[Report], tmp_path: Path) -> None:
    whole = ran(JOBS, tmp_path / "whole", reports)
    parts = []
    for number in range(1, 101):
        parts.append(tmp_path / str(number))
        ran(Part(number, 100).of_names(JOBS), parts[-1], reports, f"{number}/100")
    merged = merge(parts, tmp_path / "merged", "vmlab merge")
    assert without_places(merged) == without_places(whole)
    assert merged.exit_code() == whole.exit_code() == 3
    for row in merged.rows:
        assert (tmp_path / "merged" / row.report / "report.json").is_file()
    assert len({row.report for row in merged.rows}) == 100
    publish.save_summaries(whole, tmp_path / "whole")
    assert (tmp_path / "merged" / "junit.xml").read_bytes() == (tmp_path / "whole" / "junit.xml").read_bytes()
    assert (tmp_path / "merged" / "summary.md").read_text() == (tmp_path / "whole" / "summary.md").read_text()
    assert batch.load(tmp_path / "merged") == merged


@pytest.mark.parametrize("of", [1, 3, 7, 100, 120])
def test_each_job_is_in_exactly_one_shard(of: int) -> None:
    found = [name for number in range(1, of + 1) for name in Part(number, of).of_names(JOBS)]
    assert sorted(found) == sorted(JOBS)


@pytest.fixture
def two(reports: list[Report], tmp_path: Path) -> list[Path]:
    places = [tmp_path / "one", tmp_path / "two"]
    for number, place in enumerate(places, 1):
        ran(Part(number, 2).of_names(JOBS[:4]), place, reports, f"{number}/2")
        value = json.loads((place / "index.json").read_text())
        (place / "index.json").write_text(json.dumps({**value, "whole": JOBS[:4]}))
    return places


def test_a_shard_that_is_missing_is_no_pass(two: list[Path], tmp_path: Path) -> None:
    merged = merge(two[:1], tmp_path / "merged", "")
    assert [row.verdict is None for row in merged.rows] == [False, True, False, True]
    assert merged.exit_code() == 3
    assert "none of the shards brought it" in (tmp_path / "merged" / "index.html").read_text()
    suites = junitparser.JUnitXml.fromfile(str(tmp_path / "merged" / "junit.xml"))
    assert suites.errors >= 2


def test_reports_that_come_twice_are_refused(two: list[Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"the lab zombies is in .*/one and in .*/one") as caught:
        merge([two[0], two[1], two[0]], tmp_path / "merged", "")
    assert caught.value.exit_code == 2
    assert not (tmp_path / "merged").exists()


def test_shards_of_different_runs_are_refused(two: list[Path], reports: list[Report], tmp_path: Path) -> None:
    ran(JOBS[5:6], tmp_path / "other", reports)
    with pytest.raises(UsageError, match="are not shards of one run: one is of zombies, zombies-2, zombies-3, zombies-4 and 96 more"):
        merge([two[0], tmp_path / "other"], tmp_path / "merged", "")


def test_what_was_changed_cut_off_or_leads_elsewhere_is_refused(two: list[Path], tmp_path: Path) -> None:
    index = two[0] / "index.json"
    sound = index.read_text()
    value = json.loads(sound)
    report = two[0] / value["rows"][0]["report"] / "report.json"
    report.write_text(report.read_text().replace('"pass"', '"fail"', 1))
    with pytest.raises(UsageError, match="is not the report that"):
        merge(two, tmp_path / "merged", "")
    report.unlink()
    with pytest.raises(UsageError, match=r"cannot read .*No such file"):
        merge(two, tmp_path / "merged", "")
    value["rows"][0]["report"] = "../../etc"
    index.write_text(json.dumps(value))
    with pytest.raises(UsageError, match="not in a plain folder"):
        merge(two, tmp_path / "merged", "")
    index.write_text(sound[:100])
    with pytest.raises(UsageError, match="is not JSON"):
        merge(two, tmp_path / "merged", "")
    assert not (tmp_path / "merged").exists()


def test_reports_are_not_merged_into_others(two: list[Path]) -> None:
    with pytest.raises(UsageError, match="holds the reports of a run already"):
        merge(two[1:], two[0], "")


def test_the_summary_says_what_did_not_pass_and_nothing_in_it_is_markup(samples: Any, tmp_path: Path) -> None:
    report = samples.nasty()
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "report.json").write_bytes(store.report_json(report))
    row = row_of(report, tmp_path / "x", tmp_path, job="x", key="")
    late = LabRow(job="late", lab="late", title="|", key="")
    made = Batch(started_at="", command="", runner_version="", whole=["x", "late"], rows=[late, row])
    text = summary_markdown(made)
    assert text.splitlines()[0].startswith("## ")
    assert text.index("| x |") < text.index("| late | not run |")
    assert "<script" not in text
    assert "\x1b" not in text
    assert escaped("a|b\n# c `d` [e](f) **g** <h>") == "a\\|b \\# c \\`d\\` \\[e\\]\\(f\\) \\*\\*g\\*\\* &lt;h&gt;"
    assert len(escaped(HOSTILE * 100)) < 2000


def test_a_lab_that_was_not_begun_is_skipped_in_junit(tmp_path: Path) -> None:
    made = Batch(started_at="", command="", runner_version="", whole=["a"], rows=[LabRow(job="a", lab="a", title="A", key="")])
    publish.save_summaries(made, tmp_path)
    (suite,) = junitparser.JUnitXml.fromfile(str(tmp_path / "junit.xml"))
    (case,) = suite
    assert isinstance(case.result[0], junitparser.Skipped)
    assert made.rows[0].verdict is not VerdictKind.PASS
