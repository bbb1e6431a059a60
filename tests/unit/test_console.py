"""The console's reader, fed through a socket as QEMU would."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from vmlab.guest import console as module
from vmlab.guest.console import Console, Line


class Wire:
    def __init__(self, log: Path) -> None:
        self.guest, ours = socket.socketpair()
        self.panics: list[Line] = []
        self.console = Console(ours, log)
        self.console.watch(self.panics.append)
        self.log = log

    def say(self, data: bytes) -> None:
        self.guest.sendall(data)

    def settle(self, text: str) -> None:
        end = time.monotonic() + 5
        while text not in self.console.text() and time.monotonic() < end:
            time.sleep(0.01)


@pytest.fixture
def wire(tmp_path: Path) -> Iterator[Wire]:
    made = Wire(tmp_path / "console.log")
    yield made
    made.guest.close()
    made.console.close()


def test_what_is_printed_is_kept_and_written_down(wire: Wire) -> None:
    wire.say(b"vmlab-initrd: up\r\nsecond\r\n")
    wire.settle("second")
    assert wire.console.text() == "vmlab-initrd: up\nsecond\n"
    assert wire.log.read_bytes() == b"vmlab-initrd: up\r\nsecond\r\n"


def test_each_line_that_tells_of_a_panic_is_handed_on_once_even_if_it_comes_in_pieces(wire: Wire) -> None:
    began = time.monotonic()
    wire.say(b"[ 1.0] Kernel panic - not sync")
    time.sleep(0.05)
    wire.say(b"ing: Attempted to kill init! exitcode=0x00000100\r\n[ 1.1] CPU: 0\r\n")
    wire.settle("CPU: 0")
    wire.say(b"Kernel panic - not syncing: again\r\n")
    wire.settle("again")
    texts = ["[ 1.0] Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000100", "Kernel panic - not syncing: again"]
    assert [line.text for line in wire.panics] == texts
    assert began + 0.05 <= wire.panics[0].at <= wire.panics[1].at <= time.monotonic()


def test_one_that_came_before_anybody_watched_is_handed_on_too(tmp_path: Path) -> None:
    guest, ours = socket.socketpair()
    console = Console(ours, tmp_path / "log")
    guest.sendall(b"Kernel panic - not syncing: early\nand more\n")
    assert console.wait_for("more", 5)
    heard: list[Line] = []
    console.watch(heard.append)
    assert [line.text for line in heard] == ["Kernel panic - not syncing: early"]
    guest.close()
    console.close()
    assert len(heard) == 1


def test_ordinary_text_is_no_panic(wire: Wire) -> None:
    wire.say(b"systemd[1]: a unit panicked about kernels\r\n")
    wire.settle("kernels")
    assert wire.panics == []


def test_wait_for_sees_each_line_once(wire: Wire) -> None:
    wire.say(b"cgroup: fork rejected by pids controller in /a\ncgroup: fork rejected by pids controller in /b\n")
    assert "in /a" in str(wire.console.wait_for("fork rejected", 5))
    assert "in /b" in str(wire.console.wait_for("fork rejected", 5))
    assert wire.console.wait_for("fork rejected", 0.1) is None


def test_a_flood_is_cut_in_the_file_and_in_memory(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOG_LIMIT_BYTES", 10_000)
    wire.say(b"x" * 50_000 + b"\nthe end\n")
    wire.settle("the end")
    assert wire.log.stat().st_size < 11_000
    assert b"was cut here" in wire.log.read_bytes()
    wire.say(b"y" * (3 << 20) + b"\nreally the end\n")
    wire.settle("really the end")
    assert len(wire.console.text()) <= (1 << 20)


def test_lines_are_stamped_when_their_end_comes(wire: Wire) -> None:
    began = time.monotonic()
    wire.say(b"begin a 1.00\r\nbegin")
    wire.settle("begin a")
    time.sleep(0.1)
    wire.say(b" b 2.00\n\n")
    wire.settle("2.00\n\n")
    first, second, empty = wire.console.lines()
    assert [first.text, second.text, empty.text] == ["begin a 1.00", "begin b 2.00", ""]
    assert began <= first.at < first.at + 0.1 <= second.at <= empty.at <= time.monotonic()


def test_a_line_without_end_takes_no_room(wire: Wire) -> None:
    for _ in range(20):
        wire.say(b"x" * 1000)
    wire.say(b"\nshort\n")
    wire.settle("short")
    long, short = wire.console.lines()
    assert 4000 <= len(long.text) <= 4096 + 1000
    assert short.text == "short"


def test_only_so_many_lines_are_kept(wire: Wire) -> None:
    wire.say(b"".join(b"%d\n" % number for number in range(25_000)))
    wire.settle("24999")
    assert len(wire.console.lines()) == 20_000
    assert wire.console.lines()[-1].text == "24999"
