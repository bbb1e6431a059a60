"""The index of a run of many labs: the document, its page, and what is at the top of it."""

from __future__ import annotations

import io
import json
import time
from pathlib import Path
from typing import Any

import pytest

from tests.report.conftest import HOSTILE
from vmlab.errors import UsageError
from vmlab.lab.verdict import VerdictKind
from vmlab.many.board import LiveBoard, PlainBoard, _Progress
from vmlab.progress import Event, Kind
from vmlab.report import batch, publish
from vmlab.report.batch import Batch, LabRow, Trouble, row_of
from vmlab.report.index import headline, index_html, worst
from vmlab.report.lines import batch_lines
from vmlab.report.model import Report


def stored(report: Report, base: Path, name: str) -> LabRow:
    directory = base / name
    directory.mkdir(parents=True)
    publish.save_report(report, directory)
    return row_of(report, directory, base, job=name, key="k")


def batch_of(rows: list[LabRow], **more: Any) -> Batch:
    when = "2026-11-24T08:00:00+00:00"
    return Batch(
        started_at=when,
        duration_s=93.0,
        command="vmlab run all",
        runner_version="0.1.0",
        whole=[row.job for row in rows],
        rows=rows,
        **more,
    )


@pytest.fixture
def mixed(samples: Any, tmp_path: Path) -> Batch:
    rows = [stored(getattr(samples, name)(), tmp_path, name) for name in ("passing", "report", "broken", "nasty")]
    rows.append(LabRow(job="late", lab="late", title="Not reached", key="k"))
    trouble = Trouble(kind="HostError", message="QEMU is missing", hint="install it")
    rows.append(LabRow(job="none", lab="none", title=HOSTILE, key="k", verdict=VerdictKind.ERROR, trouble=trouble))
    return batch_of(rows)


def test_what_needs_attention_is_first(mixed: Batch) -> None:
    page = index_html(mixed)
    names = ("report", "broken", "none", "late", "passing")
    places = [page.index(f">{job}{'<br>' if job in ('late', 'none') else '</a>'}") for job in names]
    assert places == sorted(places)
    assert worst(mixed) is VerdictKind.ERROR
    assert headline(mixed).startswith("Of 6 labs, ")
    assert "1 was not run" in headline(mixed)
    assert "QEMU is missing" in page
    assert "install it" in page


def test_what_a_guest_said_is_escaped(mixed: Batch) -> None:
    page = index_html(mixed)
    assert "<script>" not in page
    assert "onerror=alert" not in page.replace("onerror=alert(2)&gt;", "")
    assert "\x1b" not in page


def test_a_report_cannot_lead_the_page_elsewhere(mixed: Batch) -> None:
    row = mixed.rows[0].model_copy(update={"report": 'javascript:alert(1)"//'})
    page = index_html(batch_of([row]))
    assert 'href="javascript%3Aalert%281%29%22///report.html"' in page


@pytest.mark.parametrize(
    ("kinds", "words", "verdict"),
    [
        ([VerdictKind.PASS], "The lab passes", "pass"),
        ([VerdictKind.PASS] * 3, "All 3 labs pass", "pass"),
        (
            [VerdictKind.PASS, VerdictKind.PASS, VerdictKind.NOT_OBSERVABLE],
            "All 2 labs pass; 1 more lab",
            "pass",
        ),
        ([VerdictKind.NOT_OBSERVABLE], "Nothing here can be observed on this host", "not-observable"),
        ([VerdictKind.PASS, VerdictKind.FAIL, VerdictKind.FAIL], "Of 3 labs, 2 fail", "fail"),
        ([VerdictKind.PASS, None], "Of 2 labs, 1 was not run", "inconclusive"),
    ],
)
def test_the_run_in_a_sentence(kinds: list[VerdictKind | None], words: str, verdict: str) -> None:
    found = batch_of([LabRow(job=str(n), lab="x", title="X", key="k", verdict=kind) for n, kind in enumerate(kinds)])
    assert headline(found).startswith(words)
    assert worst(found) == verdict


def test_the_document_is_read_back_and_a_changed_one_is_refused(mixed: Batch, tmp_path: Path) -> None:
    page = publish.save_index(mixed, tmp_path)
    assert batch.load(tmp_path) == mixed
    assert page.read_text() == index_html(mixed)
    value = json.loads((tmp_path / "index.json").read_text())
    value["rows"][0]["verdict"] = "perfect"
    (tmp_path / "index.json").write_text(json.dumps(value))
    with pytest.raises(UsageError, match=r"rows\[0\].verdict"):
        batch.load(tmp_path)


def test_plain_lines_tell_what_did_not_pass_and_move_no_cursor(mixed: Batch) -> None:
    out = io.StringIO()
    board = PlainBoard(out)
    board(Event(Kind.BEGIN, value=[row.model_copy(update={"verdict": None}) for row in mixed.rows]))
    board(Event(Kind.LAB_BEGIN, value=2, job="report"))
    board(Event(Kind.WAITING, "a slot: a CPU, 2 of 2 taken", job="report"))
    for row in mixed.rows:
        board(Event(Kind.LAB_END, value=row, job=row.job))
    board(Event(Kind.END, "reports/index.html", mixed))
    text = out.getvalue()
    assert "report: starts (attempt 2)" in text
    assert "report: waiting for a slot: a CPU" in text
    assert "late: not run" in text
    assert "\x1b" not in text
    assert text.splitlines()[-1].endswith("index: reports/index.html")
    assert batch_lines(mixed, "x")[0].endswith("(93 s)")


@pytest.mark.parametrize("height", [8, 60])
def test_the_table_fits_the_terminal_and_shows_what_moves(height: int) -> None:
    from rich.console import Console

    console = Console(file=io.StringIO(), force_terminal=True, width=80, height=height, highlight=False)
    board = LiveBoard(console)
    rows = [LabRow(job=f"lab{number}", lab=f"lab{number}", title="X", key="k") for number in range(40)]
    board(Event(Kind.BEGIN, value=rows))
    board(Event(Kind.LAB_END, value=rows[0].model_copy(update={"verdict": VerdictKind.PASS, "duration_s": 3}), job="lab0"))
    for number in (1, 2):
        board(Event(Kind.LAB_BEGIN, value=1, job=f"lab{number}"))
        board(Event(Kind.PHASE, f"Cloning guest {number} \x1b[2J", job=f"lab{number}"))
    board.close()
    with console.capture() as captured:
        console.print(board._table())
    lines = captured.get().splitlines()
    assert len(lines) <= height
    assert sum("Cloning guest" in line for line in lines) == 2
    assert "[2J" not in captured.get().replace(" [2J", "")
    assert any("not started" in line for line in lines)
    with console.capture() as captured:
        console.print(board._table(whole=True))
    assert len(captured.get().splitlines()) == 41


@pytest.mark.parametrize("width", [60, 80, 200])
def test_a_long_phase_gives_way_to_all_else(width: int) -> None:
    """On a narrow terminal it is cut, so that which lab, how long and how many checks can be read."""
    from rich.console import Console

    console = Console(file=io.StringIO(), width=width, height=24, highlight=False)
    board = LiveBoard(console)
    phase = "an emulated AMD host, hardware walk emulated by QEMU TCG: shadow page tables, the control"
    board._labs = {
        "memory": _Progress("memory", began=time.monotonic() - 43, phases=[phase], verdicts=dict.fromkeys("abc", VerdictKind.PASS)),
        "zombies": _Progress("zombies"),
    }
    with console.capture() as captured:
        console.print(board._table())
    heading, first, second = captured.get().rstrip().splitlines()
    assert heading.split() == ["lab", "time", "checks"]
    assert first.startswith("memory ")
    assert first.split()[-3:] == ["43", "s", "✓3"]
    assert (phase in first) == (width == 200)
    assert second.split() == ["zombies", "not", "started"]
