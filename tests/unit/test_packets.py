"""Packets that QEMU keeps of a guest's interface. QEMU is a stand-in, which writes what a test tells it to."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.stand_in.monitor import Monitor, Refused, monitor
from tests.unit.test_frames import ipv4, pcap, tcp
from vmlab.deadline import Deadline
from vmlab.errors import ScriptError
from vmlab.guest.look import packets
from vmlab.guest.look.packets import captured
from vmlab.guest.machine import Machine
from vmlab.guest.qmp import Qmp, QmpError

FRAMES = [(10.5, ipv4(6, tcp(b"one marker"))), (10.75, ipv4(6, tcp(b"two")))]


class Dump:
    """QEMU's filter-dump: it writes its file as the frames pass."""

    def __init__(self) -> None:
        self.path = Path()
        self.refuses = ""

    def answer(self, command: str, arguments: dict[str, Any]) -> object:
        if command == self.refuses:
            raise Refused("no")
        if command == "object-add":
            assert (arguments["qom-type"], arguments["netdev"]) == ("filter-dump", "net1")
            self.path = Path(arguments["file"])
            self.path.write_bytes(pcap(FRAMES[0]))
        if command == "object-del":
            self.path.write_bytes(pcap(*FRAMES))
        return {}


@contextlib.contextmanager
def machine(tmp_path: Path, dump: Dump) -> Iterator[tuple[Machine, Monitor]]:
    with monitor(dump.answer) as heard:
        qmp = Qmp(heard.sock, name="main", on_event=lambda event: None, deadline=Deadline(10))
        try:
            yield cast(Machine, SimpleNamespace(monitor=qmp, directory=tmp_path, attributing=contextlib.nullcontext)), heard
        finally:
            qmp.close()


def test_what_passes_is_there_in_the_block_and_all_of_it_after(tmp_path: Path) -> None:
    with machine(tmp_path, Dump()) as (running, heard):
        with captured(running, "net1", Deadline(30)) as capture:
            assert [each["payload_bytes"] for each in capture.packets()] == [10]
        assert [(each["at_s"], each["protocol"], each["payload_bytes"]) for each in capture.packets()] == [
            (0.0, "tcp", 10),
            (0.25, "tcp", 3),
        ]
        assert [capture.count(content) for content in (b"marker", b"two", b"three")] == [1, 1, 0]
        (added, first), (removed, second) = heard.heard[1:]
        assert (added, removed) == ("object-add", "object-del")
        assert first["id"] == second["id"]
        assert list(tmp_path.iterdir()) == []


def test_a_block_that_fails_leaves_no_filter_and_no_file(tmp_path: Path) -> None:
    dump = Dump()
    with machine(tmp_path, dump) as (running, heard):
        with pytest.raises(ZeroDivisionError), captured(running, "net1", Deadline(30)):
            raise ZeroDivisionError
        assert heard.commands[-1] == "object-del"
        dump.refuses = "object-del"
        with pytest.raises(ZeroDivisionError), captured(running, "net1", Deadline(30)):
            raise ZeroDivisionError
        assert list(tmp_path.iterdir()) == []
        dump.refuses = "object-add"
        with pytest.raises(QmpError), captured(running, "net1", Deadline(30)):
            pytest.fail("the block was entered")


def test_too_much_is_an_error_and_not_a_full_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packets, "LIMIT_BYTES", 150)
    with machine(tmp_path, Dump()) as (running, _):
        with pytest.raises(ScriptError, match="of packets were captured"), captured(running, "net1", Deadline(30)) as capture:
            assert len(capture.packets()) == 1
        assert list(tmp_path.iterdir()) == []
