"""The worlds of labs' controls, run as labs are (`vmlab.many.schedule`), and what comes of them: a matrix a lab."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from vmlab import __version__
from vmlab.errors import UsageError
from vmlab.lab.collection import Collection
from vmlab.lab.verdict import VerdictKind
from vmlab.lab.worlds import World, is_noise, worlds_of
from vmlab.many.board import Words
from vmlab.many.pool import Workers
from vmlab.many.schedule import Plan, Rules, Schedule
from vmlab.progress import Event, Kind, Progress
from vmlab.report import publish, store
from vmlab.report.batch import LabRow
from vmlab.report.matrix import MATRIX_PAGE, Matrix, MatrixWorld, Occasion, Outcome, Trial, column_of, matrix_of, seen_in, what_is_wrong
from vmlab.report.table import matrix_lines
from vmlab.run.request import Job, RunRequest, prepare
from vmlab.run.screen import Lines


@dataclass(frozen=True)
class Task:
    """A world of a lab, ready to be run."""

    trial: Trial
    world: World
    request: RunRequest

    @property
    def job(self) -> str:
        """Its name in the run."""
        return self.request.job.id


def tasks_of(job: Job, names: Sequence[str]) -> list[Task]:
    """The worlds of a lab (of these names; none: all), looked at before any is started. ``job`` is what is asked of each.

    UsageError for a lab without controls, a world that there is not, and whatever is wrong with a run of one.
    """
    lab = Collection(job.labs).get(job.lab)
    definition = lab.definition
    if not definition.controls:
        raise UsageError(
            f"the lab {lab.name} has no controls", hint="labs/README.md tells how lab.yaml declares worlds that refute its checks"
        )
    worlds, every = worlds_of(definition, names), worlds_of(definition)
    trial = Trial(
        lab=lab.name,
        title=definition.title,
        digest=lab.digest,
        checks=lab.load_checks(),
        worlds=worlds,
        unrefuted=definition.unrefuted,
        not_run=[world.name for world in every if world not in worlds],
    )
    return [Task(trial, world, prepare(_of_world(job, world))) for world in worlds]


def _of_world(job: Job, world: World) -> Job:
    return dataclasses.replace(
        job,
        id=f"{job.lab}/{world.name}",
        given={**job.given, **world.texts},
        parts=tuple(world.parts),
        shelf=f"{job.lab}/{world.name}",
    )


class Trials:
    """All the worlds of a command. Reports and matrices go below ``base``, a folder a lab."""

    def __init__(self, tasks: Sequence[Task], base: Path, command: str) -> None:
        self._tasks = {task.job: task for task in tasks}
        self._base = base
        self._command = command
        self._outcomes: dict[str, Outcome] = {}

    @property
    def without_control(self) -> list[str]:
        """Checks that no control names and of which no reason is given, one line each: known before anything is run."""
        trials = {task.trial.lab: task.trial for task in self._tasks.values()}
        return [
            f"{trial.lab}: no control refutes {each.id}"
            for trial in trials.values()
            for each in trial.checks
            if not trial.not_run and each.id not in trial.unrefuted and not any(each.id in world.fails for world in trial.worlds)
        ]

    def run(self, workers: Workers, progress: Progress, retries: int = 0) -> tuple[list[Matrix], bool]:
        """Run all worlds, and write the matrix of each lab; the matrices, and whether it was interrupted before the end."""
        started_at = datetime.now(UTC).isoformat(timespec="seconds")
        requests = [task.request for task in self._tasks.values()]
        plan = Plan(requests, self._base, self._command, Rules(retries=retries, is_noise=self._is_noise), has_index=False)
        batch = Schedule(plan, workers, progress).run()
        outcomes = {row.job: self._outcome(row) for row in batch.rows}
        occasion = Occasion(started_at, self._command, __version__)
        matrices = []
        for lab in dict.fromkeys(task.trial.lab for task in self._tasks.values()):
            mine = {job: task for job, task in self._tasks.items() if task.trial.lab == lab}
            trial = next(iter(mine.values())).trial
            found = {task.world.name: _below(outcomes[job], lab) for job, task in mine.items()}
            matrices.append(matrix_of(trial, found, occasion))
            publish.save_matrix(matrices[-1], self._base / lab)
        progress.end(matrices, str(self._base))
        return matrices, batch.interrupted

    @property
    def words(self) -> Words:
        """What a board says of these worlds."""
        return Words(
            noun="world", outcome=self._said, details=self._details, ending=_ending, ends_in_table=True, verdict=self._as_it_must_be
        )

    def _outcome(self, row: LabRow) -> Outcome:
        """A row with its report, which is read once."""
        known = self._outcomes.get(row.job)
        if known is None or known.row.report != row.report:
            known = Outcome(row, store.load(self._base / row.report) if row.report else None)
            self._outcomes[row.job] = known
        return dataclasses.replace(known, row=row)

    def _is_noise(self, row: LabRow) -> bool:
        task, outcome = self._tasks[row.job], self._outcome(row)
        broke = row.verdict is VerdictKind.ERROR
        return not broke and is_noise(task.world, task.trial.checks, seen_in(outcome.report))

    def _column(self, row: LabRow) -> MatrixWorld:
        """A world that has just ended, compared with the sound one where that has ended."""
        task = self._tasks[row.job]
        sound = next((each for job, each in self._outcomes.items() if self._is_sound_of(task.trial.lab, job)), None)
        return column_of(task.world, "", self._outcome(row), task.trial.checks, seen_in(sound.report if sound else None))

    def _is_sound_of(self, lab: str, job: str) -> bool:
        return self._tasks[job].trial.lab == lab and self._tasks[job].world.is_sound

    def _said(self, row: LabRow) -> str:
        column = self._column(row)
        if column.verdict is None:
            return f"{row.job}: not run"
        if column.broke:
            return f"{row.job}: its run broke"
        wrong = sum(bool(cell.wrong) for cell in column.cells)
        return f"{row.job}: {'as it must be' if not wrong else f'{wrong} not as they must be'}, in {row.duration_s:.0f} s"

    def _details(self, row: LabRow) -> list[str]:
        column = self._column(row)
        if column.broke:
            hint = row.trouble.hint if row.trouble is not None else ""
            return [column.broke, *([f"what to do: {hint}"] if hint else [])]
        return [f"{cell.check} {what_is_wrong(cell)}" for cell in column.cells if cell.wrong]

    def _as_it_must_be(self, row: LabRow) -> VerdictKind | None:
        column = self._column(row)
        if column.verdict is None or column.broke:
            return None if column.verdict is None else VerdictKind.ERROR
        return VerdictKind.FAIL if any(cell.wrong for cell in column.cells) else VerdictKind.PASS


class JsonTable(Lines):
    """Says all matrices as one JSON list, when they are there."""

    def __call__(self, event: Event) -> None:
        """The documents, at the end."""
        if event.kind is Kind.END and self._out is not None:
            print("[" + ",\n".join(matrix.model_dump_json(indent=2) for matrix in event.value) + "]", file=self._out, flush=True)


def _below(outcome: Outcome, lab: str) -> Outcome:
    """The same, its reports named as they are seen from the lab's folder."""
    row = outcome.row
    update = {"report": row.report.removeprefix(f"{lab}/"), "earlier": [each.removeprefix(f"{lab}/") for each in row.earlier]}
    return dataclasses.replace(outcome, row=row.model_copy(update=update))


def _ending(matrices: Sequence[Matrix], base: str) -> list[str]:
    lines = []
    for matrix in matrices:
        lines += [*matrix_lines(matrix), f"table: {Path(base) / matrix.lab / MATRIX_PAGE}", ""]
    return lines[:-1]
