"""What a person sees while a lab runs: a live view on a terminal, plain lines elsewhere, nothing when asked to be quiet."""

from __future__ import annotations

import sys
import threading
import time
from typing import Protocol, TextIO

from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

from vmlab.errors import VmlabError
from vmlab.lab.verdict import VerdictKind
from vmlab.report.model import CheckPart, Report

STYLES = {
    VerdictKind.PASS: "green",
    VerdictKind.FAIL: "bold red",
    VerdictKind.NOT_OBSERVABLE: "cyan",
    VerdictKind.INCONCLUSIVE: "yellow",
    VerdictKind.ERROR: "bold magenta",
}


class View(Protocol):
    """Who is told how a run goes. Every text may come from a guest, so none is taken for markup."""

    def begin(self, title: str, lines: list[str]) -> None:
        """The run starts; ``lines`` say on what."""

    def began(self) -> None:
        """It has its slot, and begins."""

    def phase(self, title: str) -> None:
        """A phase begins."""

    def waiting(self, what: str) -> None:
        """What is waited for within it."""

    def notice(self, line: str) -> None:
        """Something worth a line (an image is being built, say)."""

    def verdict(self, check: CheckPart) -> None:
        """A check has its verdict."""

    def end(self, report: Report, where: str) -> None:
        """The run is over; ``where`` is the report's place."""

    def close(self) -> None:
        """Give the terminal back, whatever happened."""


class QuietView:
    """Says only how it ended, in one line."""

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = out or sys.stdout

    def begin(self, title: str, lines: list[str]) -> None:
        """Say nothing."""

    def began(self) -> None:
        """Say nothing."""

    def phase(self, title: str) -> None:
        """Say nothing."""

    def waiting(self, what: str) -> None:
        """Say nothing."""

    def notice(self, line: str) -> None:
        """Say nothing."""

    def verdict(self, check: CheckPart) -> None:
        """Say nothing."""

    def end(self, report: Report, where: str) -> None:
        """One line: verdict, points, and where the report is."""
        print(f"{report.lab.name}: {summary(report)}; report: {where}", file=self._out, flush=True)

    def close(self) -> None:
        """Nothing to give back."""


class SilentView(QuietView):
    """Says nothing at all: standard output belongs to the JSON."""

    def end(self, report: Report, where: str) -> None:
        """Say nothing."""


class PlainView(QuietView):
    """Lines with the elapsed time, for logs and pipes."""

    def __init__(self, out: TextIO | None = None) -> None:
        super().__init__(out)
        self._started = time.monotonic()

    def _say(self, line: str) -> None:
        print(f"[{time.monotonic() - self._started:6.1f} s] {printable(line)}", file=self._out, flush=True)

    def begin(self, title: str, lines: list[str]) -> None:
        """The title and what it runs on."""
        for line in (title, *lines):
            self._say(line)

    def phase(self, title: str) -> None:
        """A line."""
        self._say(title)

    def waiting(self, what: str) -> None:
        """A line for each thing waited for."""
        if what:
            self._say(f"  waiting for {what}")

    def notice(self, line: str) -> None:
        """A line."""
        self._say(line)

    def verdict(self, check: CheckPart) -> None:
        """A line, and for anything but a pass the reason below it."""
        for line in verdict_lines(check):
            self._say(line)

    def end(self, report: Report, where: str) -> None:
        """The outcome, an error if there was one, and where the report is."""
        for line in closing_lines(report, where):
            self._say(line)


class LiveView:
    """A terminal's view: verdicts scroll by, and the last line says what is going on and since when."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._started = time.monotonic()
        self._phase = ""
        self._since = self._started
        self._waiting = ""
        self._lock = threading.Lock()
        self._spinner = Spinner("dots", style="cyan")
        self._live = Live(console=console, refresh_per_second=5, transient=True, get_renderable=self._render)

    def _render(self) -> Spinner:
        now = time.monotonic()
        with self._lock:
            text = Text.assemble(
                (f"{now - self._started:5.0f} s  ", "dim"),
                (self._phase or "Starting", "bold"),
                (f"  {now - self._since:.0f} s", "dim"),
                (f"  waiting for {self._waiting}" if self._waiting else "", "dim"),
                overflow="ellipsis",
                no_wrap=True,
            )
        self._spinner.update(text=text)
        return self._spinner

    def begin(self, title: str, lines: list[str]) -> None:
        """The title and what it runs on, then the live line."""
        self._console.print(Text(printable(title), style="bold"))
        for line in lines:
            self._console.print(Text(printable(line), style="dim"))
        self._live.start()

    def began(self) -> None:
        """The first phase says it."""

    def phase(self, title: str) -> None:
        """Change the live line."""
        with self._lock:
            self._phase, self._since, self._waiting = printable(title), time.monotonic(), ""

    def waiting(self, what: str) -> None:
        """Change the live line."""
        with self._lock:
            self._waiting = printable(what)

    def notice(self, line: str) -> None:
        """A line that stays."""
        self._console.print(Text(printable(line), style="dim"))

    def verdict(self, check: CheckPart) -> None:
        """A line that stays, in the verdict's colour (and with its sign and word)."""
        style = STYLES[check.verdict]
        first, *rest = verdict_lines(check)
        sign, _, title = first.partition("  ")
        self._console.print(Text.assemble((sign, style), "  ", title))
        for line in rest:
            self._console.print(Text(line, style="dim"))

    def end(self, report: Report, where: str) -> None:
        """The outcome."""
        self._live.stop()
        for line in closing_lines(report, where):
            self._console.print(Text(printable(line)))

    def close(self) -> None:
        """Give the terminal back."""
        self._live.stop()


def choose_view(*, quiet: bool, as_json: bool) -> View:
    """The view that fits: none for ``--json``, one line for ``--quiet``, live on a terminal, plain lines elsewhere."""
    if as_json:
        return SilentView()
    if quiet:
        return QuietView()
    console = Console(highlight=False)
    return LiveView(console) if console.is_terminal and not console.is_dumb_terminal else PlainView()


def verdict_lines(check: CheckPart) -> list[str]:
    """A verdict in words: the sign, the word and the title; then what was measured, or the reason when it is not a pass."""
    points = f"{check.points:g}/{check.max_points:g}" if check.verdict.counts else "-"
    lines = [f"{check.verdict.sign} {check.verdict.value:<14}  {check.title}  [{check.claim}, {points}]"]
    if check.verdict is VerdictKind.PASS:
        return [*lines, *([f"    measured: {printable(check.measured)}"] if check.measured else [])]
    lines.append(f"    {printable(check.rationale)}")
    if check.expected or check.measured:
        lines.append(f"    expected: {printable(check.expected)}; measured: {printable(check.measured)}")
    if check.hint:
        lines.append(f"    hint: {printable(check.hint)}")
    return lines


def report_lines(report: Report) -> list[str]:
    """All verdicts of a report, as the run itself showed them."""
    return [line for check in report.checks for line in verdict_lines(check)]


def summary(report: Report) -> str:
    """The outcome in a few words: ``pass, 20/20 points (12 pass)``."""
    counts = ", ".join(f"{number} {kind.value}" for kind, number in report.score.counts.items() if number)
    return f"{report.verdict().value}, {report.score.earned:g}/{report.score.possible:g} points ({counts or 'no checks'})"


def closing_lines(report: Report, where: str) -> list[str]:
    """The lines that end a run."""
    error = report.run.error
    lines = []
    if error is not None:
        lines = [f"! {error.message}", *([f"  what to do: {error.hint}"] if error.hint else [])]
        lines += [f"  | {printable(line)}" for line in error.detail.strip().splitlines()[-8:]]
    return [*lines, f"{report.lab.title}: {summary(report)} in {report.run.took_s:.0f} s", f"report: {where}"]


def printable(text: str) -> str:
    """Text on one line without control characters: what a guest says must not move the cursor or change colours."""
    return "".join(char if char.isprintable() else " " for char in text)


def say_error(error: VmlabError, out: TextIO | None = None) -> None:
    """An error for a person: what is wrong, what to do, and the evidence below."""
    out = out or sys.stderr
    print(f"vmlab: {printable(error.message)}", file=out)
    if error.hint:
        print(f"       {printable(error.hint)}", file=out)
    for line in error.detail.strip().splitlines()[-20:]:
        print(f"  | {printable(line)}", file=out)
