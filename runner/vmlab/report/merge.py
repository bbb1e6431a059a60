"""The reports of shards, joined into those of the whole run."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from vmlab import __version__
from vmlab.errors import UsageError
from vmlab.report import batch, publish, store
from vmlab.report.batch import Batch, LabRow, Trouble
from vmlab.report.text import is_plain_path


def merge(shards: Sequence[Path], base: Path, command: str) -> Batch:
    """Copy the reports of all shards below ``base`` and write their common index there.

    A lab that no shard brought is in the index as not run, with exit code 3. UsageError, and nothing written, when the directories are no
    shards of one run, when two of them bring the same lab, or when a report is not the one that its index names.
    """
    if (base / batch.INDEX_NAME).exists():
        raise UsageError(f"{base} holds the reports of a run already", hint="name a new directory with --into")
    loaded = [(directory, batch.load(directory)) for directory in shards]
    first_directory, first = loaded[0]
    for directory, each in loaded[1:]:
        if each.whole != first.whole:
            differ = f"one is of {_few(each.whole)}, the other of {_few(first.whole)}"
            raise UsageError(
                f"{directory} and {first_directory} are not shards of one run: {differ}",
                hint="merge what one command with --shard 1/N to N/N wrote",
            )
    found = _by_job(loaded)
    for directory, row in found.values():
        _look_at(directory, row)
    store.make_directory(base)
    rows = [_copied(*found[job], base) if job in found else _missing(job) for job in first.whole]
    joined = Batch(
        started_at=min(each.started_at for _, each in loaded),
        duration_s=max(each.duration_s for _, each in loaded),
        command=command,
        runner_version=__version__,
        interrupted=any(each.interrupted for _, each in loaded),
        whole=first.whole,
        rows=rows,
    )
    publish.save_index(joined, base)
    publish.save_summaries(joined, base)
    return joined


def _by_job(loaded: Sequence[tuple[Path, Batch]]) -> dict[str, tuple[Path, LabRow]]:
    found: dict[str, tuple[Path, LabRow]] = {}
    for directory, each in loaded:
        for row in each.rows:
            if row.job in found:
                other, _ = found[row.job]
                raise UsageError(f"the lab {row.job} is in {other} and in {directory}", hint="give each shard once, of one run")
            found[row.job] = directory, row
    return found


def _look_at(directory: Path, row: LabRow) -> None:
    """UsageError unless the report is there, below the shard's directory, and the one that the index names."""
    if not row.report:
        return
    if not is_plain_path(row.report):
        raise UsageError(f"{directory / batch.INDEX_NAME}: the report of {row.job} is not in a plain folder: {row.report[:80]!r}")
    path = directory / row.report / store.REPORT_NAME
    try:
        content = path.read_bytes()
    except OSError as exc:
        raise UsageError(f"cannot read {path}: {exc.strerror}", hint="was the shard's directory copied whole?") from exc
    if hashlib.sha256(content).hexdigest() != row.report_sha256:
        raise UsageError(f"{path} is not the report that {directory / batch.INDEX_NAME} names", hint="it was changed or cut off")


def _copied(directory: Path, row: LabRow, base: Path) -> LabRow:
    """The row, its report copied to a fresh directory. (Reports of attempts that were made again stay with their shard.)"""
    if not row.report:
        return row.model_copy(update={"earlier": []})
    report = store.load(directory / row.report)
    place = store.new_directory(base, row.lab, datetime.fromisoformat(report.run.started_at))
    shutil.copytree(directory / row.report, place, dirs_exist_ok=True)
    return row.model_copy(update={"report": batch.relative(place, base), "earlier": []})


def _missing(job: str) -> LabRow:
    trouble = Trouble(kind="MissingShard", message="none of the shards brought it", hint="look at the job of the shard that is missing")
    return LabRow(job=job, lab=job, title="", key="", trouble=trouble)


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "") if names else "no labs"
