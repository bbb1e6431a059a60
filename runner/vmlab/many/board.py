"""What a person sees while many labs run: a live table on a terminal, plain lines elsewhere, little or nothing when asked."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, TextIO

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from vmlab.lab.verdict import VerdictKind
from vmlab.many.pool import Event
from vmlab.report.batch import Batch, LabRow
from vmlab.report.index import headline
from vmlab.run.live import STYLES, printable, verdict_lines

# The table's frame, its heading, the line of those that wait, and the prompt.
_LINES_BESIDE_ROWS = 5


@dataclass
class Progress:
    """How far one lab is. ``done`` is its row in the index, once it has one."""

    job: str
    done: LabRow | None = None
    began: float | None = None
    phase: str = ""
    waiting: str = ""
    verdicts: dict[str, VerdictKind] = field(default_factory=dict)
    attempt: int = 1

    def now(self) -> str:
        """What it does, in words."""
        return f"waiting for {self.waiting}" if self.waiting else self.phase or "starting"


class Board(Protocol):
    """Who is told how the labs get on. Every text may come from a guest, so none is taken for markup."""

    def begin(self, labs: Sequence[Progress]) -> None:
        """The run starts with these labs, some of them perhaps done already."""

    def started(self, job: str, attempt: int) -> None:
        """A lab was handed to a worker."""

    def happened(self, event: Event) -> None:
        """Something happened in it."""

    def again(self, row: LabRow) -> None:
        """It ended in an error and is run again."""

    def finished(self, row: LabRow) -> None:
        """It is done, or was stopped before it began."""

    def notice(self, line: str) -> None:
        """Something worth a line."""

    def refresh(self) -> None:
        """Time has passed."""

    def end(self, batch: Batch, page: str) -> None:
        """All is over; ``page`` is the index."""

    def close(self) -> None:
        """Give the terminal back, whatever happened."""


class QuietBoard:
    """A line a lab, and how it ended."""

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = out or sys.stdout

    def _say(self, line: str) -> None:
        print(printable(line), file=self._out, flush=True)

    def begin(self, labs: Sequence[Progress]) -> None:
        """Say nothing."""

    def started(self, job: str, attempt: int) -> None:
        """Say nothing."""

    def happened(self, event: Event) -> None:
        """Say nothing."""

    def again(self, row: LabRow) -> None:
        """Say nothing."""

    def finished(self, row: LabRow) -> None:
        """A line."""
        self._say(outcome(row))

    def notice(self, line: str) -> None:
        """Say nothing."""

    def refresh(self) -> None:
        """Nothing moves."""

    def end(self, batch: Batch, page: str) -> None:
        """How it ended, and where the index is."""
        for line in closing_lines(batch, page):
            self._say(line)

    def close(self) -> None:
        """Nothing to give back."""


class SilentBoard(QuietBoard):
    """Says nothing at all: standard output belongs to the JSON."""

    def _say(self, line: str) -> None:
        """Say nothing."""


class PlainBoard(QuietBoard):
    """Lines with the elapsed time, for logs and pipes: what starts, waits, does not pass, and ends."""

    def __init__(self, out: TextIO | None = None) -> None:
        super().__init__(out)
        self._started = time.monotonic()

    def _say(self, line: str) -> None:
        super()._say(f"[{time.monotonic() - self._started:6.1f} s] {line}")

    def begin(self, labs: Sequence[Progress]) -> None:
        """How many there are, and what of it is done."""
        self._say(f"labs: {', '.join(each.job for each in labs)}")
        for each in labs:
            if each.done is not None:
                self._say(f"kept: {outcome(each.done)}")

    def started(self, job: str, attempt: int) -> None:
        """A line."""
        self._say(f"{job}: starts{f' (attempt {attempt})' if attempt > 1 else ''}")

    def happened(self, event: Event) -> None:
        """A line for what is waited for before it begins, and for notices."""
        if event.name == "notice":
            self._say(f"{event.job}: {event.value}")
        elif event.name == "waiting" and str(event.value).startswith("a slot"):
            self._say(f"{event.job}: waiting for {event.value}")

    def again(self, row: LabRow) -> None:
        """A line."""
        self._say(f"{outcome(row)}; it is run again")

    def finished(self, row: LabRow) -> None:
        """A line, and what did not pass below it."""
        self._say(outcome(row))
        for line in details(row):
            self._say(f"  {line}")

    def notice(self, line: str) -> None:
        """A line."""
        self._say(line)


class LiveBoard:
    """A terminal's table: a lab a row, what it does, since when, and its verdicts; what does not pass is told above it at once."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._labs: dict[str, Progress] = {}
        self._live = Live(console=console, auto_refresh=False, transient=True, get_renderable=self._table)

    def begin(self, labs: Sequence[Progress]) -> None:
        """The table."""
        self._labs = {each.job: each for each in labs}
        self._live.start()

    def started(self, job: str, attempt: int) -> None:
        """Its row moves."""
        self._labs[job] = Progress(job, began=time.monotonic(), attempt=attempt)

    def happened(self, event: Event) -> None:
        """Its row changes."""
        lab = self._labs[event.job]
        match event.name:
            case "phase":
                lab.phase, lab.waiting = printable(event.value), ""
            case "waiting":
                lab.waiting = printable(event.value)
            case "verdict":
                lab.verdicts[event.value.id] = event.value.verdict
            case "notice":
                self.notice(f"{event.job}: {event.value}")

    def again(self, row: LabRow) -> None:
        """A line that stays."""
        self.notice(f"{outcome(row)}; it is run again")
        self._labs[row.job] = Progress(row.job)

    def finished(self, row: LabRow) -> None:
        """Its row is filled; what did not pass stands above the table."""
        self._labs[row.job] = Progress(row.job, done=row)
        if row.verdict is not None and row.verdict.needs_attention:
            self._console.print(Text(printable(outcome(row)), style="bold"))
            for line in details(row):
                self._console.print(Text(f"  {printable(line)}", style="dim"))
        self.refresh()

    def notice(self, line: str) -> None:
        """A line that stays."""
        self._console.print(Text(printable(line), style="dim"))

    def refresh(self) -> None:
        """Draw it again."""
        self._live.refresh()

    def end(self, batch: Batch, page: str) -> None:
        """The whole table, and the outcome."""
        self.close()
        self._console.print(self._table(whole=True))
        for line in closing_lines(batch, page):
            self._console.print(Text(printable(line), style="bold"))

    def close(self) -> None:
        """Give the terminal back."""
        self._live.stop()

    def _table(self, *, whole: bool = False) -> Table:
        table = Table(box=None, pad_edge=False, header_style="dim", expand=False)
        table.add_column("lab", no_wrap=True)
        # The only column that gives way on a narrow terminal; its texts are cut, not wrapped (see `_cells`).
        table.add_column("")
        table.add_column("time", justify="right", no_wrap=True)
        table.add_column("checks", no_wrap=True)
        rows = list(self._labs.values())
        room = len(rows) if whole else max(3, self._console.height - _LINES_BESIDE_ROWS)
        shown = rows
        if len(rows) > room:
            # What moves is shown first, then what is done last; those that wait are counted.
            shown = [each for each in rows if each.done is None and each.began is not None]
            shown = ([each for each in rows if each.done is not None][-(room - len(shown)) :] + shown)[-room:]
        for each in shown:
            table.add_row(*_cells(each))
        if len(shown) < len(rows):
            waits = sum(each.done is None and each.began is None for each in rows)
            done = sum(each.done is not None for each in rows)
            table.add_row(Text(f"{len(rows)} labs", style="dim"), Text(f"{done} done, {waits} not started", style="dim"))
        return table


def _cells(lab: Progress) -> tuple[Text, Text, Text, Text]:
    name = Text(lab.job, style="bold" if lab.began is not None else "")
    row = lab.done
    if row is not None:
        if row.verdict is None:
            return name, Text("not run", style="dim"), Text(), Text()
        word = Text(f"{row.verdict.sign} {row.verdict.value}", style=STYLES[row.verdict])
        return name, word, Text(f"{row.duration_s:.0f} s" if row.duration_s else ""), _signs(row.score.counts if row.score else {})
    if lab.began is None:
        return name, Text("not started", style="dim"), Text(), Text()
    again = f" (attempt {lab.attempt})" if lab.attempt > 1 else ""
    now = Text(lab.now() + again, no_wrap=True, overflow="ellipsis")
    return name, now, Text(f"{time.monotonic() - lab.began:.0f} s"), _signs(Counter(lab.verdicts.values()))


def _signs(counts: dict[VerdictKind, int] | Counter[VerdictKind]) -> Text:
    """``✓12 ✗1``: a sign and a number for each kind of verdict that there is."""
    text = Text()
    for kind in VerdictKind:
        if counts.get(kind):
            text.append(f"{kind.sign}{counts[kind]} ", style=STYLES[kind])
    return text


def choose_board(*, quiet: bool, as_json: bool) -> Board:
    """The board that fits: none for ``--json``, a line a lab for ``--quiet``, a table on a terminal, plain lines elsewhere."""
    if as_json:
        return SilentBoard()
    if quiet:
        return QuietBoard()
    console = Console(highlight=False)
    return LiveBoard(console) if console.is_terminal and not console.is_dumb_terminal else PlainBoard()


def outcome(row: LabRow) -> str:
    """A lab's end in a line."""
    if row.verdict is None:
        return f"{row.job}: not run"
    if row.score is None:
        return f"{row.job}: {row.verdict.value}, no report"
    counts = ", ".join(f"{number} {kind.value}" for kind, number in row.score.counts.items() if number)
    points = f"{row.score.earned:g}/{row.score.possible:g} points ({counts or 'no checks'})"
    return f"{row.job}: {row.verdict.value}, {points} in {row.duration_s:.0f} s"


def details(row: LabRow) -> list[str]:
    """Why a lab did not pass."""
    lines = [] if row.trouble is None else [row.trouble.message, *([f"what to do: {row.trouble.hint}"] if row.trouble.hint else [])]
    return [*lines, *(line for check in row.attention for line in verdict_lines(check))]


def closing_lines(batch: Batch, page: str) -> list[str]:
    """The lines that end a run of many labs."""
    return [f"{headline(batch)} ({batch.duration_s:.0f} s)", f"index: {page}"]
