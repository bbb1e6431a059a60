"""What is written when a run is done: documents before pages, and no heavy library before there is a page to make."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from vmlab.report import batch, publish, store
from vmlab.report.model import Report


@pytest.mark.parametrize("breaks", ["report_html", "junit_xml"])
def test_a_page_that_breaks_costs_no_report(samples: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, breaks: str) -> None:
    def broken(*_: object) -> bytes:
        raise RuntimeError("no page")

    monkeypatch.setattr(publish, breaks, broken)
    directory = store.new_directory(tmp_path, "zombies")
    with pytest.raises(RuntimeError, match="no page"):
        publish.save_report(samples.report(), directory)

    assert store.load(directory) == store.load(tmp_path / "zombies" / "latest") == samples.report()


def test_the_index_is_written_before_its_page(samples: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report: Report = samples.report()
    directory = store.new_directory(tmp_path, report.lab.name)
    publish.save_report(report, directory)
    row = batch.row_of(report, directory, tmp_path, job="one", key="k")
    made = batch.Batch(started_at="2026-11-23T20:15:00+00:00", command="vmlab run", runner_version="0.1.0", whole=["one"], rows=[row])
    monkeypatch.setattr(publish, "index_html", lambda _: (_ for _ in ()).throw(RuntimeError("no page")))
    with pytest.raises(RuntimeError, match="no page"):
        publish.save_index(made, tmp_path)

    assert batch.load(tmp_path) == made


@pytest.mark.parametrize("module", ["vmlab.report.publish", "vmlab.report.merge", "vmlab.report.batch"])
def test_to_import_it_loads_no_heavy_library(module: str) -> None:
    program = f"import sys, {module}\nprint([name for name in ('matplotlib', 'jinja2', 'rich', 'paramiko') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
