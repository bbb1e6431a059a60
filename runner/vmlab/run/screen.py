"""What a person sees while a lab runs: a live line on a terminal, plain lines elsewhere, one line or the JSON when asked.

A screen listens to the run's progress on a thread of its own and can only show it: when its output breaks (the reader of a pipe has gone,
the disk is full, the terminal stands still), the run goes on to its report.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Iterator
from typing import Protocol, TextIO

from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

from vmlab.lab.verdict import VerdictKind
from vmlab.output import complain, own, printable, say
from vmlab.progress import Event, Kind, Progress, Relay
from vmlab.report.lines import closing_lines, summary, verdict_lines

STYLES = {
    VerdictKind.PASS: "green",
    VerdictKind.FAIL: "bold red",
    VerdictKind.NOT_OBSERVABLE: "cyan",
    VerdictKind.INCONCLUSIVE: "yellow",
    VerdictKind.ERROR: "bold magenta",
}


class Screen(Protocol):
    """A listener that shows what it hears. Every text may come from a guest, so none is taken for markup."""

    def __call__(self, event: Event) -> None:
        """Show an event, or pass over it."""

    def close(self) -> None:
        """Give the terminal back, whatever happened."""


@contextlib.contextmanager
def shown(progress: Progress, screen: Screen | None) -> Iterator[None]:
    """Let a screen (None: nothing) listen for the length of the block; what it could not show is said in one line at the end."""
    if screen is None:
        yield
        return
    relay = Relay(screen)
    progress.subscribe(relay)
    try:
        yield
    finally:
        relay.close()
        # (To a terminal that stands still nothing can be given back, and trying would wait for it.)
        if not relay.is_stuck:
            with contextlib.suppress(Exception):
                screen.close()
        # A reader that has gone (`vmlab run zombies | head`) knows it.
        if relay.broken is not None and not isinstance(relay.broken, BrokenPipeError):
            complain(f"vmlab: standard output broke ({relay.broken}); the run went on without it")


class Lines:
    """A stream that takes lines, each as its encoding can show it, and at once."""

    def __init__(self, out: TextIO | None = None) -> None:
        self._is_own = out is None
        self._out = own(sys.stdout) if out is None else out
        self._started = time.monotonic()

    def say(self, line: str) -> None:
        """Write a line. OSError when nobody can read it any more."""
        if self._out is not None:
            say(line, self._out)

    def stamped(self, line: str) -> None:
        """Write a line with the seconds since the start."""
        self.say(f"[{time.monotonic() - self._started:6.1f} s] {line}")

    def close(self) -> None:
        """Close what was opened for it."""
        if self._is_own and self._out is not None and self._out is not sys.stdout:
            self._out.close()


class QuietScreen(Lines):
    """Says only how it ended: verdict, points, and where the report is."""

    def __call__(self, event: Event) -> None:
        """One line, at the end."""
        if event.kind is Kind.END:
            self.say(f"{event.value.lab.name}: {summary(event.value)}; report: {event.text}")


class JsonScreen(Lines):
    """Says the report as JSON, when it is there."""

    def __call__(self, event: Event) -> None:
        """The document, at the end."""
        if event.kind is Kind.END and self._out is not None:
            print(event.value.model_dump_json(indent=2), file=self._out, flush=True)


class PlainScreen(Lines):
    """Lines with the elapsed time, for logs and pipes."""

    def __call__(self, event: Event) -> None:
        """A line for what begins, is waited for, is noticed and is found."""
        match event.kind:
            case Kind.BEGIN:
                lines = [event.text, *event.value]
            case Kind.PHASE | Kind.NOTICE:
                lines = [event.text]
            case Kind.WAITING:
                lines = [f"  waiting for {event.text}"] if event.text else []
            case Kind.VERDICT:
                lines = verdict_lines(event.value)
            case Kind.END:
                lines = closing_lines(event.value, event.text)
            case _:
                lines = []
        for line in lines:
            self.stamped(line)


class LiveScreen:
    """A terminal's view: verdicts scroll by, and the last line says what is going on and since when."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._started = time.monotonic()
        self._phases: list[tuple[str, float]] = []
        self._waiting = ""
        self._lock = threading.Lock()
        self._spinner = Spinner("dots", style="cyan")
        self._live = Live(console=console, refresh_per_second=5, transient=True, get_renderable=self._render)

    def _render(self) -> Spinner:
        now = time.monotonic()
        with self._lock:
            phase, since = self._phases[-1] if self._phases else ("Starting", self._started)
            text = Text.assemble(
                (f"{now - self._started:5.0f} s  ", "dim"),
                (phase, "bold"),
                (f"  {now - since:.0f} s", "dim"),
                (f"  waiting for {self._waiting}" if self._waiting else "", "dim"),
                overflow="ellipsis",
                no_wrap=True,
            )
        self._spinner.update(text=text)
        return self._spinner

    def __call__(self, event: Event) -> None:
        """Change the live line, or print above it what stays."""
        match event.kind:
            case Kind.BEGIN:
                self._print(event.text, "bold")
                for line in event.value:
                    self._print(line, "dim")
                self._live.start()
            case Kind.PHASE | Kind.PHASE_END | Kind.WAITING:
                with self._lock:
                    self._move(event)
            case Kind.NOTICE:
                self._print(event.text, "dim")
            case Kind.VERDICT:
                first, *rest = verdict_lines(event.value)
                sign, _, title = first.partition("  ")
                self._console.print(Text.assemble((sign, STYLES[event.value.verdict]), "  ", title))
                for line in rest:
                    self._print(line, "dim")
            case Kind.END:
                self._live.stop()
                for line in closing_lines(event.value, event.text):
                    self._print(line)

    def _move(self, event: Event) -> None:
        if event.kind is Kind.WAITING:
            self._waiting = printable(event.text)
            return
        self._waiting = ""
        if event.kind is Kind.PHASE:
            self._phases.append((printable(event.text), time.monotonic()))
        else:
            self._phases.pop()

    def _print(self, line: str, style: str = "") -> None:
        self._console.print(Text(printable(line), style=style))

    def close(self) -> None:
        """Give the terminal back."""
        self._live.stop()


def live_console() -> Console | None:
    """The terminal, when standard output is one that can be drawn on. (FORCE_COLOR makes rich take any file for a terminal.)"""
    if sys.stdout is None or not sys.stdout.isatty():
        return None
    console = Console(highlight=False, file=own(sys.stdout))
    return console if console.is_terminal and not console.is_dumb_terminal else None


def choose_screen(*, quiet: bool = False, as_json: bool = False) -> Screen:
    """The screen that fits: the JSON alone, one line for ``quiet``, live on a terminal, plain lines elsewhere."""
    if as_json:
        return JsonScreen()
    if quiet:
        return QuietScreen()
    console = live_console()
    return PlainScreen() if console is None else LiveScreen(console)
