"""The stream of events: who listens, in which order, and that nobody who listens can disturb it."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time

import pytest

from tests.stage import Heard
from vmlab.bench import Notebook
from vmlab.lab.verdict import VerdictKind
from vmlab.output import printable, spelt
from vmlab.progress import Event, Kind, Progress, Relay, has_stuck_relay
from vmlab.run.screen import PlainScreen


def test_all_hear_the_same_in_the_same_order() -> None:
    first, second = Heard(), Heard()
    progress = Progress(first)
    progress.subscribe(second)
    with progress.phase("outer"):
        progress.waiting("rain")
        with progress.phase("inner"):
            progress.notice("it rains")
    progress.end("report", "there")
    assert first.events == second.events
    assert [(event.kind, event.text) for event in first.events] == [
        (Kind.PHASE, "outer"),
        (Kind.WAITING, "rain"),
        (Kind.PHASE, "inner"),
        (Kind.NOTICE, "it rains"),
        (Kind.PHASE_END, "inner"),
        (Kind.PHASE_END, "outer"),
        (Kind.END, "there"),
    ]


@pytest.mark.parametrize("error", [BrokenPipeError(), OSError(28, "full"), UnicodeEncodeError("ascii", "✓", 0, 1, "no"), KeyError("a bug")])
def test_a_listener_that_breaks_is_dropped_and_nobody_notices(error: Exception) -> None:
    asked, heard = [], Heard()

    def breaks(event: Event) -> None:
        asked.append(event)
        raise error

    progress = Progress(breaks, heard)
    with progress.phase("it goes on"):
        progress.notice("still")
    assert len(asked) == 1
    assert len(heard.events) == 3


def test_an_interrupt_while_something_is_shown_passes() -> None:
    def interrupted(_: Event) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Progress(interrupted).notice("x")


def test_the_notebook_times_phases_and_knows_where_an_error_came_through() -> None:
    notebook = Notebook()
    progress = Progress(notebook)

    def work() -> None:
        with progress.phase("outer"):
            with progress.phase("good"):
                pass
            with progress.phase("bad"):
                raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        work()
    assert [(phase.name, phase.depth) for phase in notebook.phases] == [("good", 1), ("bad", 1), ("outer", 0)]
    assert notebook.broke_in == "bad"


def test_a_relay_hands_on_everything_before_it_is_closed() -> None:
    heard = Heard()
    relay = Relay(heard)
    progress = Progress(relay)
    for number in range(1000):
        progress.notice(str(number))
    relay.close()
    assert heard.texts(Kind.NOTICE) == [str(number) for number in range(1000)]
    assert not has_stuck_relay()


def test_a_screen_that_stands_still_holds_nobody_up() -> None:
    free = threading.Event()

    def stands_still(_: Event) -> None:
        free.wait(60)

    relay = Relay(stands_still)
    progress = Progress(relay)
    began = time.monotonic()
    for _ in range(1000):
        progress.notice("x")
    relay.close(limit_s=0.2)
    # (With a relay that waited for it, this would take a minute.)
    assert time.monotonic() - began < 30
    assert has_stuck_relay()
    free.set()
    relay.close()
    assert not has_stuck_relay()


def test_a_relay_remembers_what_broke_its_listener() -> None:
    def breaks(_: Event) -> None:
        raise BrokenPipeError

    relay = Relay(breaks)
    relay(Event(Kind.NOTICE, "x"))
    relay.close()
    relay(Event(Kind.NOTICE, "y"))
    assert isinstance(relay.broken, BrokenPipeError)


def test_every_sign_of_a_verdict_has_a_spelling_of_its_own_in_ascii() -> None:
    spellings = [spelt(kind.sign, "ascii") for kind in VerdictKind]
    assert len(set(spellings)) == len(VerdictKind)
    assert all(len(each) == 1 and each.isascii() for each in spellings)


def test_what_an_encoding_lacks_is_written_in_another_way() -> None:
    assert spelt("✓ größer → x", "utf-8") == "✓ größer → x"
    assert spelt("✓ größer → x", "latin-1") == "+ größer -> x"
    assert spelt("✓ größer", "ascii") == r"+ gr\xf6\xdfer"


def test_what_a_guest_says_moves_no_cursor() -> None:
    assert printable("a\x1b[2Jb\r\nc\u202ed") == "a [2Jb  c d"


def full_pipe() -> tuple[int, int]:
    read, write = os.pipe()
    os.set_blocking(write, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(write, bytes(1 << 12))
    os.set_blocking(write, True)
    return read, write


def test_who_flushes_standard_output_neither_waits_for_a_screen_nor_meets_what_it_could_not_write(monkeypatch: pytest.MonkeyPatch) -> None:
    """As multiprocessing does before each process that it starts."""
    read, write = full_pipe()
    with os.fdopen(write, "w", encoding="utf-8") as out:
        monkeypatch.setattr(sys, "stdout", out)
        screen = PlainScreen()
        relay = Relay(screen)
        relay(Event(Kind.NOTICE, "nobody reads this"))
        flushed = threading.Thread(target=out.flush, daemon=True)
        time.sleep(0.2)
        assert relay.is_stuck
        flushed.start()
        flushed.join(30)
        assert not flushed.is_alive()
        os.close(read)
        relay.close()
        assert isinstance(relay.broken, BrokenPipeError)
        out.flush()
    with contextlib.suppress(OSError):
        screen.close()
