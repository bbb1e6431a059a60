"""Where reports are kept: ``reports/<lab>/<time>/`` with report.json, its renderings, and the files that a run left as evidence.

Files appear whole or not at all, so a run that is killed leaves no half of a report. A directory without report.json is a run that
did not get that far; it is never taken for a report. (What is written there, and in which order: `publish`.)
"""

from __future__ import annotations

import errno
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import from_json

from vmlab.errors import HostError, UsageError
from vmlab.report.model import Part, Report

Document = TypeVar("Document", bound=Part)

REPORT_NAME = "report.json"
HTML_NAME = "report.html"
JUNIT_NAME = "junit.xml"
LATEST_NAME = "latest"
SIZE_LIMIT = 64 << 20

_STAMP = re.compile(r"(\d{8}T\d{6}Z)(?:-(\d+))?")
_MAKE_AGAIN = "make it again: vmlab run LAB"


def new_directory(reports_dir: Path, lab: str, started: datetime | None = None) -> Path:
    """A fresh directory for one run, named by its start; two runs in one second get two directories."""
    moment = (started or datetime.now(UTC)).astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
    parent = reports_dir / lab
    make_directory(parent)
    with _host_errors(parent, "create"):
        number = 1
        while True:
            directory = parent / (moment if number == 1 else f"{moment}-{number}")
            try:
                directory.mkdir()
            except FileExistsError:
                number += 1
                continue
            return directory


def report_json(report: Report) -> bytes:
    """The report as report.json holds it: the same bytes for the same report."""
    return (report.model_dump_json(indent=2) + "\n").encode()


def load(path: Path) -> Report:
    """The report at a path: a report.json, or the directory that holds one. UsageError says what is wrong with it."""
    file = path / REPORT_NAME if path.is_dir() else path
    value = read_json(file)
    if not isinstance(value, dict) or "schema_version" not in value:
        raise UsageError(f"{file} is not a report: it has no schema_version", hint="give the report.json of a run, or its directory")
    _refuse_other_versions(file, value["schema_version"])
    try:
        return Report.model_validate(value)
    except ValidationError as exc:
        raise UsageError(f"{file} is not a valid report: {problems_of(exc)}", hint=f"it was changed or cut off; {_MAKE_AGAIN}") from exc


def find_latest(reports_dir: Path, lab: str | None = None) -> Path:
    """The directory of the newest report, of one lab or of all. UsageError when there is none."""
    parents = [reports_dir / lab] if lab else _directories(reports_dir)
    found = [
        (order, each.parent.name, each)
        for parent in parents
        for each in _directories(parent)
        if (order := _order(each)) is not None and (each / REPORT_NAME).is_file()
    ]
    if not found:
        of = f" of the lab {lab}" if lab else ""
        raise UsageError(f"there is no report{of} in {reports_dir}", hint=f"make one: vmlab run {lab or 'LAB'}")
    return max(found)[2]


def point_latest_at(directory: Path) -> None:
    """Lead ``latest`` to a run. A convenience for people; a file system without symbolic links goes without."""
    link = directory.parent / LATEST_NAME
    temporary = directory.parent / f".{LATEST_NAME}.{os.getpid()}"
    with suppress(OSError, NotImplementedError):
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(directory.name, target_is_directory=True)
        temporary.replace(link)


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that it is there whole or not at all. HostError when the disk is full or may not be written."""
    with _host_errors(path, "write"):
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(descriptor)
            Path(temporary).chmod(0o644)
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise


def make_directory(path: Path) -> None:
    """Make a directory for reports unless it is there. HostError when that cannot be done."""
    with _host_errors(path, "create"):
        path.mkdir(parents=True, exist_ok=True)


def read_json(file: Path) -> Any:
    """The JSON value in a file of bounded size; UsageError says what is wrong with it."""
    return _parse(file, _read(file))


def read_part(file: Path, model: type[Document], what: str) -> Document:
    """A document of another kind than a report, from a file; UsageError says what is wrong with it as ``what`` it should be."""
    try:
        return model.model_validate(read_json(file))
    except ValidationError as exc:
        raise UsageError(f"{file} is not {what}: {problems_of(exc)}", hint="it was changed, or another vmlab wrote it") from exc


def _read(file: Path) -> bytes:
    try:
        if not file.is_file():
            raise UsageError(f"there is no report at {file}", hint="give a report.json or the directory that holds one")
        size = file.stat().st_size
        if size > SIZE_LIMIT:
            raise UsageError(f"{file} is too large for a report: {size >> 20} MiB, at most {SIZE_LIMIT >> 20}", hint=_MAKE_AGAIN)
        return file.read_bytes()
    except OSError as exc:
        raise UsageError(f"cannot read {file}: {exc.strerror}", hint="check the path and its permissions") from exc


def _parse(file: Path, data: bytes) -> Any:
    try:
        return from_json(data, allow_inf_nan=False)
    except (ValueError, RecursionError) as exc:
        raise UsageError(f"{file} is not JSON: {exc}", hint=f"it was changed or cut off; {_MAKE_AGAIN}") from exc


def _refuse_other_versions(file: Path, version: Any) -> None:
    ours: str = Report.model_fields["schema_version"].default
    if version == ours:
        return
    shown = version[:20] if isinstance(version, str) else type(version).__name__
    raise UsageError(
        f"{file} is a report of version {shown!r}; this vmlab reads {ours!r}", hint="use the vmlab that made it, or a newer one"
    )


def problems_of(exc: ValidationError) -> str:
    """The first problems, each with its place (``checks[2].verdict``)."""
    errors = exc.errors(include_url=False, include_input=False, include_context=False)
    lines = [f"{_place(each['loc'])}: {each['msg']}" for each in errors[:3]]
    return "; ".join(lines) + (f"; and {len(errors) - 3} more" if len(errors) > 3 else "")


def _place(location: tuple[int | str, ...]) -> str:
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step[:60]}" for step in location).lstrip(".") or "the document"


def _directories(parent: Path) -> list[Path]:
    try:
        return sorted(each for each in parent.iterdir() if each.is_dir() and not each.is_symlink())
    except OSError:
        return []


def _order(directory: Path) -> tuple[str, int] | None:
    """What sorts directories by time; None for a name that no run made."""
    match = _STAMP.fullmatch(directory.name)
    return (match[1], int(match[2] or 1)) if match else None


@contextmanager
def _host_errors(path: Path, verb: str) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        full = exc.errno in (errno.ENOSPC, errno.EDQUOT)
        hint = "free some space, or give another directory" if full else "give a directory that you may write to"
        raise HostError(f"cannot {verb} {path}: {exc.strerror}", hint=hint) from exc
