"""Writing: a report with its pages into its directory, and the index of many with theirs above them.

A document is written before its renderings, and ``latest`` is led to a report as soon as that is whole: what a run that is killed here
loses is a page, never a report. matplotlib and jinja2 are loaded by the first page that needs them, not by importing this module.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from vmlab.report import store
from vmlab.report.batch import INDEX_NAME, Batch
from vmlab.report.html import report_html
from vmlab.report.index import INDEX_PAGE, index_html
from vmlab.report.junit import junit_of_rows, junit_xml
from vmlab.report.matrix import MATRIX_NAME, MATRIX_PAGE, Matrix
from vmlab.report.matrix_page import matrix_html
from vmlab.report.model import Report
from vmlab.report.store import Document
from vmlab.report.summary import SUMMARY_NAME, summary_markdown


def save_report(report: Report, directory: Path) -> Path:
    """Write report.json, lead ``latest`` to it, then write its renderings. Returns the path of report.json."""
    path = directory / store.REPORT_NAME
    store.write_atomically(path, store.report_json(report))
    store.point_latest_at(directory)
    render_report(report, directory)
    return path


def render_report(report: Report, directory: Path) -> None:
    """Write report.html and junit.xml into the directory; both follow from the report alone."""
    store.write_atomically(directory / store.HTML_NAME, report_html(report).encode())
    store.write_atomically(directory / store.JUNIT_NAME, junit_xml(report, directory))


def save_index(batch: Batch, base: Path) -> Path:
    """Write index.json and its rendering. Returns the page's path. HostError when the disk is full or may not be written."""
    return _save(base, (INDEX_NAME, INDEX_PAGE), batch, index_html)


def save_matrix(matrix: Matrix, directory: Path) -> Path:
    """Write controls.json and its rendering. Returns the page's path. HostError when the disk is full or may not be written."""
    return _save(directory, (MATRIX_NAME, MATRIX_PAGE), matrix, matrix_html)


def _save(directory: Path, names: tuple[str, str], document: Document, page_of: Callable[[Document], str]) -> Path:
    """Write a document into a directory, which is made for it, and then its page."""
    store.make_directory(directory)
    store.write_atomically(directory / names[0], (document.model_dump_json(indent=2) + "\n").encode())
    page = directory / names[1]
    store.write_atomically(page, page_of(document).encode())
    return page


def save_summaries(batch: Batch, base: Path) -> None:
    """Write what CI services read, once all labs are done: junit.xml over all reports, and a summary in Markdown."""
    store.write_atomically(base / store.JUNIT_NAME, junit_of_rows(batch, base))
    store.write_atomically(base / SUMMARY_NAME, summary_markdown(batch).encode())
