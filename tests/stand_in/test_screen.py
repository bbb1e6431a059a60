"""What a terminal shows of one lab while it runs."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from tests.stand_in.machine import StandIn
from tests.stand_in.test_run import guest_lab
from vmlab.progress import Progress
from vmlab.run.screen import LiveScreen

pytestmark = pytest.mark.timeout(120)


def test_a_terminal_shows_what_goes_on_and_keeps_what_was_found(machine: StandIn) -> None:
    guest_lab(machine, 'seen["right"] = False\nwith bench.phase("\\x1b[2J[red]a phase"):\n    bench.wait(0.5, "the end")')
    status, text = machine.on_terminal("run", "aa", "--cold")
    assert status == 1
    assert text.index("Booting guest main") < text.index("waiting for the end") < text.index("✗ fail")
    assert "[red]a phase" in text, "no markup"
    assert "\x1b[2J" not in text, "what a lab says draws nothing"
    assert "The lab aa: fail" in text
    assert text.index("\x1b[?25l") < text.rindex("\x1b[?25h"), "the cursor was given back"


def drawn(screen: LiveScreen) -> str:
    """The live line as it would be drawn now."""
    out = io.StringIO()
    Console(file=out, width=100).print(screen._render())
    return out.getvalue()


def test_the_live_line_shows_the_innermost_phase_and_what_it_waits_for() -> None:
    out = io.StringIO()
    screen, progress = LiveScreen(Console(file=out, force_terminal=True, width=100)), Progress()
    progress.subscribe(screen)
    assert "Starting" in drawn(screen)
    progress.begin("A lab", ["on a machine"])
    with progress.phase("The experiment"):
        with progress.phase("A part of it"):
            progress.waiting("a line")
            assert "A part of it" in drawn(screen)
            assert "waiting for a line" in drawn(screen)
        assert "The experiment" in drawn(screen)
        assert "waiting" not in drawn(screen), "that was the inner phase's"
    progress.notice("worth a line")
    screen.close()
    assert "A lab" in out.getvalue()
    assert "on a machine" in out.getvalue()
    assert "worth a line" in out.getvalue()
