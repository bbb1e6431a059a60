"""Many labs: which runs next, what is tried again, when to stop, and the index of what came of it."""

from __future__ import annotations

import contextlib
import dataclasses
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from vmlab import __version__
from vmlab.errors import EXIT_PASS, EXIT_USAGE
from vmlab.lab.verdict import VerdictKind
from vmlab.many.job import Result
from vmlab.many.pool import Said, Workers
from vmlab.progress import Event, Kind, Progress
from vmlab.report import batch, publish, store
from vmlab.report.batch import Batch, LabRow
from vmlab.report.index import INDEX_PAGE
from vmlab.run.request import Job, RunRequest

# How long the loop sleeps when nothing happens; Ctrl-C is heard as late.
_PATIENCE_S = 0.25


@dataclass(frozen=True)
class Rules:
    """How a run of many labs deals with what does not pass."""

    fail_fast: bool = False
    """Start nothing more once a lab did not pass."""
    retries: int = 0
    """How often a lab is run again whose verdict is *error*. (A *fail* is an answer, and is never asked again.)"""
    is_noise: Callable[[LabRow], bool] | None = None
    """Whether what came of a lab may be noise: then it is run once more."""


@dataclass(frozen=True)
class Plan:
    """What is to be run, and what a reader of its index is told."""

    requests: Sequence[RunRequest]
    base: Path
    """Where the index goes."""
    command: str
    rules: Rules = field(default_factory=Rules)
    has_index: bool = True
    """Whether the index is written; whoever makes something else of the reports goes without, and tells of the end."""
    whole: Sequence[str] = ()
    """The jobs of the whole run, where these are only a ``shard`` of it."""
    shard: str = ""


@dataclass
class _Task:
    """A job on its way."""

    request: RunRequest
    row: LabRow
    attempts: int = 0
    earlier: list[str] = field(default_factory=list)
    was_noise: bool = False
    has_slot: bool = False
    dropped: bool = False
    """It was stopped while it still waited for its slot."""

    @property
    def job(self) -> Job:
        """What it is about."""
        return self.request.job


class Schedule:
    """The run of many labs. ``workers`` do the work, and who follows it listens to ``progress``."""

    def __init__(self, plan: Plan, workers: Workers, progress: Progress) -> None:
        self._workers = workers
        self._progress = progress
        self._base = plan.base
        self._has_index = plan.has_index
        self._rules = plan.rules
        self._tasks = {request.job.id: _Task(request, _fresh_row(request)) for request in plan.requests}
        self._queue = deque(self._tasks)
        self._running: set[str] = set()
        self._interrupts = 0
        self._stopping = False
        self._is_to_drop = False
        self._began = time.monotonic()
        self._batch = Batch(
            started_at=datetime.now(UTC).isoformat(timespec="seconds"),
            command=plan.command,
            runner_version=__version__,
            whole=list(plan.whole) or list(self._tasks),
            shard=plan.shard,
            rows=[task.row for task in self._tasks.values()],
        )

    def resume(self) -> int:
        """Keep what an earlier run in the same directory has finished already; how many labs that are.

        A lab is kept when its files and all that is asked of it are the same, its report is still there, and it did not end in an error.
        UsageError when there is no earlier run.
        """
        old = {row.job: row for row in batch.load(self._base).rows}
        kept = 0
        for task in self._tasks.values():
            row = old.get(task.job.id)
            if row is None or row.key != task.row.key or not row.is_settled:
                continue
            if not (self._base / row.report / store.REPORT_NAME).is_file():
                continue
            self._keep(task, row)
            self._queue.remove(task.job.id)
            kept += 1
        return kept

    def run(self) -> Batch:
        """Run all of it, or what can be before it is stopped, and write the index. Its page is `vmlab.report.index.INDEX_PAGE`.

        The first SIGINT lets the labs finish that have a slot; the second, like any other KeyboardInterrupt, ends everything at once: the
        index then says what is missing, and the interrupt is passed on.
        """
        self._save()
        self._progress.tell(Event(Kind.BEGIN, value=[task.row for task in self._tasks.values()]))
        try:
            with self._patient_interrupts(), contextlib.closing(self._workers):
                while self._running or (self._queue and not self._stopping):
                    self._fill()
                    if self._is_to_drop:
                        self._is_to_drop = False
                        self._drop_those_that_wait()
                    for said in self._workers.said(_PATIENCE_S):
                        self._take(said)
        except KeyboardInterrupt:
            self._interrupts += 1
            raise
        finally:
            self._batch.interrupted = self._interrupts > 0 and any(row.verdict is None for row in self._batch.rows)
            self._save()
            if self._has_index:
                publish.save_summaries(self._batch, self._base)
        if self._has_index:
            self._progress.end(self._batch, str(self._base / INDEX_PAGE))
        return self._batch

    def _fill(self) -> None:
        while self._queue and not self._stopping and len(self._running) < self._workers.room:
            name = self._queue.popleft()
            task = self._tasks[name]
            task.attempts += 1
            task.has_slot = False
            self._running.add(name)
            self._progress.tell(Event(Kind.LAB_BEGIN, value=task.attempts, job=name))
            self._workers.start(task.job)

    def _take(self, said: Said) -> None:
        task, what = self._tasks[said.job], said.what
        if isinstance(what, Result):
            self._running.discard(said.job)
            self._finish(task, what)
            return
        if what.kind is Kind.SLOT:
            task.has_slot = True
        self._progress.tell(dataclasses.replace(what, job=said.job))

    def _finish(self, task: _Task, result: Result) -> None:
        if task.dropped and result.directory is None:
            # It was told to stop before it had begun: that is nobody's error.
            self._progress.tell(Event(Kind.LAB_END, value=task.row, job=task.job.id))
            return
        row = self._row(task, result)
        ours = row.verdict is VerdictKind.ERROR and row.exit_code() != EXIT_USAGE
        noise = self._rules.is_noise is not None and not task.was_noise and self._rules.is_noise(row)
        if (noise or (ours and task.attempts <= self._rules.retries)) and not self._stopping:
            task.was_noise = task.was_noise or noise
            if row.report:
                task.earlier.append(row.report)
            self._progress.tell(Event(Kind.LAB_AGAIN, value=row, job=row.job))
            self._queue.appendleft(task.job.id)
            return
        self._keep(task, row)
        self._progress.tell(Event(Kind.LAB_END, value=row, job=row.job))
        self._save()
        if row.exit_code() != EXIT_PASS and self._rules.fail_fast and not self._stopping:
            self._stopping = True
            self._progress.notice(f"{row.job} did not pass: nothing more is started (--fail-fast)")
            self._drop_those_that_wait()

    def _row(self, task: _Task, result: Result) -> LabRow:
        also = {"earlier": list(task.earlier), "runner_cpu_s": round(result.cpu_s, 3)}
        if result.directory is None:
            return task.row.model_copy(update={"verdict": VerdictKind.ERROR, "trouble": result.trouble, **also})
        report = store.load(result.directory)
        return batch.row_of(report, result.directory, self._base, job=task.job.id, key=task.row.key).model_copy(update=also)

    def _keep(self, task: _Task, row: LabRow) -> None:
        self._batch.rows[self._batch.rows.index(task.row)] = row
        task.row = row

    def _save(self) -> None:
        self._batch.duration_s = round(time.monotonic() - self._began, 3)
        if self._has_index:
            publish.save_index(self._batch, self._base)

    def _drop_those_that_wait(self) -> None:
        for name in self._running:
            if not self._tasks[name].has_slot:
                self._tasks[name].dropped = True
                self._workers.stop(name)

    @contextlib.contextmanager
    def _patient_interrupts(self) -> Iterator[None]:
        def interrupted(_number: int, _frame: object) -> None:
            self._interrupts += 1
            if self._interrupts > 1:
                raise KeyboardInterrupt
            self._stopping = True
            # (Not here: this may be in the middle of starting one.)
            self._is_to_drop = True
            self._progress.notice("interrupted: the labs that have begun finish first; Ctrl-C again stops them at once")

        before = signal.signal(signal.SIGINT, interrupted)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)


def _fresh_row(request: RunRequest) -> LabRow:
    return LabRow(job=request.job.id, lab=request.job.lab, title=request.lab.definition.title, key=request.key)
