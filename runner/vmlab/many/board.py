"""What a person sees while many labs run: a live table on a terminal, plain lines elsewhere, little or nothing when asked."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from vmlab.lab.verdict import VerdictKind
from vmlab.output import printable
from vmlab.progress import Event, Kind
from vmlab.report import store
from vmlab.report.batch import LabRow
from vmlab.report.lines import batch_lines, details, outcome
from vmlab.run.screen import STYLES, Lines, Screen, live_console

# The table's frame, its heading, the line of those that wait, and the prompt.
_LINES_BESIDE_ROWS = 5


@dataclass(frozen=True)
class Words:
    """What is said of a row of the index, and of all at the end: of labs, unless those who run something else say otherwise."""

    noun: str = "lab"
    outcome: Callable[[LabRow], str] = outcome
    """The end of one, in a line."""
    details: Callable[[LabRow], list[str]] = details
    """Why one did not come out as it should; nothing when it did."""
    ending: Callable[[Any, str], list[str]] = batch_lines
    """The lines that end it all, from the document and the place of its page."""
    ends_in_table: bool = False
    """Whether these lines are a table, which a time before each would spoil."""
    verdict: Callable[[LabRow], VerdictKind | None] = lambda row: row.verdict
    """One of the five, or None for what was not run: how a row is shown."""


LABS = Words()


class QuietBoard(Lines):
    """A line a lab, and how all ended."""

    def __init__(self, out: TextIO | None = None, words: Words = LABS) -> None:
        super().__init__(out)
        self._words = words

    def __call__(self, event: Event) -> None:
        """A line for a lab that is done, and the outcome."""
        if event.kind is Kind.LAB_END:
            self.say(self._words.outcome(event.value))
        elif event.kind is Kind.END:
            for line in self._words.ending(event.value, event.text):
                self.say(line)


class JsonBoard(Lines):
    """Says all reports as one JSON list, when they are there."""

    def __call__(self, event: Event) -> None:
        """The documents, at the end."""
        if event.kind is Kind.END and self._out is not None:
            base = Path(event.text).parent
            texts = [store.load(base / row.report).model_dump_json(indent=2) for row in event.value.rows if row.report]
            print("[" + ",\n".join(texts) + "]", file=self._out, flush=True)


class PlainBoard(Lines):
    """Lines with the elapsed time, for logs and pipes: what starts, waits, does not pass, and ends."""

    def __init__(self, out: TextIO | None = None, words: Words = LABS) -> None:
        super().__init__(out)
        self._words = words

    def __call__(self, event: Event) -> None:
        """A line or some for what is worth it; what happens within a lab is told when it did not pass."""
        lines: list[str] = []
        words = self._words
        match event.kind:
            case Kind.BEGIN:
                kept = [f"kept: {words.outcome(row)}" for row in event.value if row.verdict is not None]
                lines = [f"{words.noun}s: {', '.join(row.job for row in event.value)}", *kept]
            case Kind.LAB_BEGIN:
                lines = [f"{event.job}: starts{f' (attempt {event.value})' if event.value > 1 else ''}"]
            case Kind.NOTICE:
                lines = [f"{event.job}: {event.text}" if event.job else event.text]
            case Kind.WAITING if event.text.startswith("a slot"):
                lines = [f"{event.job}: waiting for {event.text}"]
            case Kind.LAB_AGAIN:
                lines = [f"{words.outcome(event.value)}; it is run again"]
            case Kind.LAB_END:
                lines = [words.outcome(event.value), *(f"  {line}" for line in words.details(event.value))]
            case Kind.END:
                lines = words.ending(event.value, event.text)
                if words.ends_in_table:
                    for line in lines:
                        self.say(line)
                    lines = []
        for line in lines:
            self.stamped(line)


@dataclass
class _Progress:
    """How far one lab is. ``done`` is its row in the index, once it has one."""

    job: str
    done: LabRow | None = None
    began: float | None = None
    phases: list[str] = field(default_factory=list)
    waiting: str = ""
    verdicts: dict[str, VerdictKind] = field(default_factory=dict)
    attempt: int = 1

    def now(self) -> str:
        """What it does, in words."""
        return f"waiting for {self.waiting}" if self.waiting else self.phases[-1] if self.phases else "starting"

    def hear(self, event: Event) -> None:
        """Take note of what happened in it."""
        match event.kind:
            case Kind.PHASE:
                self.phases.append(printable(event.text))
                self.waiting = ""
            case Kind.PHASE_END:
                self.phases.pop()
                self.waiting = ""
            case Kind.WAITING:
                self.waiting = printable(event.text)
            case Kind.VERDICT:
                self.verdicts[event.value.id] = event.value.verdict


class LiveBoard:
    """A terminal's table: a lab a row, what it does, since when, and its verdicts; what does not pass is told above it at once."""

    def __init__(self, console: Console, words: Words = LABS) -> None:
        self._console = console
        self._words = words
        self._labs: dict[str, _Progress] = {}
        self._lock = threading.Lock()
        self._live = Live(console=console, refresh_per_second=4, transient=True, get_renderable=self._drawn)

    def __call__(self, event: Event) -> None:
        """Change a row, or print above the table what stays."""
        with self._lock:
            lines = self._take(event)
        for line, style in lines:
            self._console.print(Text(printable(line), style=style))
        if event.kind is Kind.BEGIN:
            self._live.start()
        elif event.kind is Kind.END:
            self.close()
            self._console.print(self._table(whole=True))
            for line in self._words.ending(event.value, event.text):
                self._console.print(Text(printable(line), style="bold"))

    def _take(self, event: Event) -> list[tuple[str, str]]:
        """Lines that stay, each with its style."""
        match event.kind:
            case Kind.BEGIN:
                self._labs = {row.job: _Progress(row.job, done=row if row.verdict is not None else None) for row in event.value}
            case Kind.LAB_BEGIN:
                self._labs[event.job] = _Progress(event.job, began=time.monotonic(), attempt=event.value)
            case Kind.NOTICE:
                return [(f"{event.job}: {event.text}" if event.job else event.text, "dim")]
            case Kind.LAB_AGAIN:
                self._labs[event.job] = _Progress(event.job)
                return [(f"{self._words.outcome(event.value)}; it is run again", "dim")]
            case Kind.LAB_END:
                row: LabRow = event.value
                self._labs[row.job] = _Progress(row.job, done=row)
                said = self._words.details(row)
                if row.verdict is not None and said:
                    return [(self._words.outcome(row), "bold"), *((f"  {line}", "dim") for line in said)]
            case _ if event.job in self._labs:
                self._labs[event.job].hear(event)
        return []

    def close(self) -> None:
        """Give the terminal back."""
        self._live.stop()

    def _drawn(self) -> Table:
        with self._lock:
            return self._table()

    def _table(self, *, whole: bool = False) -> Table:
        table = Table(box=None, pad_edge=False, header_style="dim", expand=False)
        table.add_column(self._words.noun, no_wrap=True)
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
            table.add_row(*_cells(each, self._words))
        if len(shown) < len(rows):
            waits = sum(each.done is None and each.began is None for each in rows)
            done = sum(each.done is not None for each in rows)
            table.add_row(Text(f"{len(rows)} {self._words.noun}s", style="dim"), Text(f"{done} done, {waits} not started", style="dim"))
        return table


def _cells(lab: _Progress, words: Words) -> tuple[Text, Text, Text, Text]:
    name = Text(lab.job, style="bold" if lab.began is not None else "")
    row = lab.done
    if row is not None:
        verdict = words.verdict(row)
        if verdict is None:
            return name, Text("not run", style="dim"), Text(), Text()
        word = Text(f"{verdict.sign} {verdict.value}", style=STYLES[verdict])
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


def choose_board(*, quiet: bool, as_json: bool) -> Screen:
    """The board that fits: the JSON alone, a line a lab for ``quiet``, a table on a terminal, plain lines elsewhere."""
    return JsonBoard() if as_json else board_with(LABS, quiet=quiet)


def board_with(words: Words, *, quiet: bool) -> Screen:
    """A board that says what it says in these words."""
    if quiet:
        return QuietBoard(words=words)
    console = live_console()
    return PlainBoard(words=words) if console is None else LiveBoard(console, words)
