"""What becomes of a guest, told by several threads; and a console with more than one reader."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from vmlab.deadline import Deadline
from vmlab.errors import GuestEnded, GuestExited, GuestPanicked
from vmlab.guest.console import Console
from vmlab.guest.fate import Fate
from vmlab.host.noise import Meter, Noise


@pytest.fixture
def wire(tmp_path: Path) -> Iterator[tuple[socket.socket, Console]]:
    ours, theirs = socket.socketpair()
    console = Console(ours, tmp_path / "console.log")
    yield theirs, console
    theirs.close()
    console.close()


def test_the_first_death_counts_and_wakes_who_waits(wire: tuple[socket.socket, Console]) -> None:
    woken: list[str] = []
    fate = Fate(wire[1], lambda: woken.append("woken"))
    fate.check()
    fate.die(GuestExited("first"))
    fate.die(GuestPanicked("second"))
    with pytest.raises(GuestExited, match="first"):
        fate.check()
    assert woken == ["woken"]


def test_what_we_end_has_not_died(wire: tuple[socket.socket, Console]) -> None:
    fate = Fate(wire[1], lambda: pytest.fail("nobody died"))
    fate.stopping = True
    fate.die(GuestExited("by us"))
    assert fate.death is None


def test_an_end_that_was_wanted_is_told_whoever_asks_for_more(wire: tuple[socket.socket, Console]) -> None:
    fate = Fate(wire[1], lambda: None)
    fate.die(GuestPanicked("it panicked"))
    fate.is_over("panicked, as was expected")
    with pytest.raises(GuestEnded, match="panicked, as was expected"):
        fate.check()


def test_events_are_waited_for_and_counted_and_a_flood_of_them_is_cut(wire: tuple[socket.socket, Console]) -> None:
    fate = Fate(wire[1], lambda: None)
    assert not fate.wait_for("RESET", 1, Deadline(0.05))
    threading.Timer(0.1, fate.tell, ["RESET", {"guest": False}]).start()
    assert fate.wait_for("RESET", 1, Deadline(10))
    began = time.monotonic()
    for _ in range(1000):
        fate.tell("GUEST_PANICKED", {})
    assert fate.count("GUEST_PANICKED") == 1000
    assert len(fate.told(began)) == 64
    assert fate.told(time.monotonic() + 1) == []


def test_each_reader_of_a_console_finds_every_line(wire: tuple[socket.socket, Console]) -> None:
    theirs, console = wire
    mine, other = console.cursor(), console.cursor()
    theirs.sendall(b"one\ntwo\none\n")
    assert console.wait_for("two", 5) == "two"
    assert mine.wait_for("one|two", 5) == "one"
    assert mine.wait_for("one|two", 5) == "two"
    assert mine.wait_for("one", 5) == "one"
    assert mine.wait_for("one", 0.05) is None
    assert other.wait_for("one", 5) == "one"
    assert console.wait_for("two", 0.05) is None


def test_the_share_of_others_is_of_all_processors_and_counts_what_was_stolen() -> None:
    def noise(others_s: float, steal_s: float, wall_s: float = 10.0) -> Noise:
        return Noise(wall_s=wall_s, cpus=2, qemu_cpu_s=1, others_cpu_s=others_s, steal_s=steal_s, waited_s=0, load_1min=0)

    assert noise(4, 1).others_share == 0.25
    assert noise(99, 0).others_share == 1
    assert noise(1, 1, wall_s=0).others_share == 0


def test_a_process_that_ran_before_counts_from_the_meters_begin_on() -> None:
    import os

    while sum(os.times()[:2]) < 0.3:
        pass
    assert Meter([os.getpid()]).stop().qemu_cpu_s < 0.2
