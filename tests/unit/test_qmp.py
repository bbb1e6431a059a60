"""QEMU's monitor, talked to over a socket whose other end is a stand-in: what it answers, refuses, and leaves unsaid."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.stand_in.monitor import Answer, Gone, Monitor, Refused, Silence, monitor
from vmlab.deadline import Deadline
from vmlab.guest.qmp import Qmp, QmpError

USERNET = """\
Hub -1 (net0):
  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ
  TCP[ESTABLISHED]   19       127.0.0.1 40999       10.0.2.15    22     0     0
  TCP[HOST_FORWARD]  14       127.0.0.1 40124       10.0.2.15  2222     0     0
  TCP[HOST_FORWARD]  12       127.0.0.1 40123       10.0.2.15    22     0     0
"""


def ignore(_event: dict[str, Any]) -> None:
    """Nobody listens to events."""


@contextlib.contextmanager
def connected(answer: Answer) -> Iterator[tuple[Qmp, Monitor]]:
    with monitor(answer) as qemu:
        qmp = Qmp(qemu.sock, name="main", on_event=ignore, deadline=Deadline(10))
        try:
            yield qmp, qemu
        finally:
            qmp.close()


def test_a_command_goes_out_with_its_arguments_and_its_answer_comes_back() -> None:
    with connected(lambda command, arguments: {"status": "running"}) as (qmp, qemu):
        assert qmp.execute("query-status", Deadline(10), **{"cpu-index": 1}) == {"status": "running"}
        assert qemu.heard[-1] == ("query-status", {"cpu-index": 1})


def test_what_qemu_refuses_is_an_error_in_its_own_words() -> None:
    def refuse(command: str, arguments: dict[str, Any]) -> object:
        raise Refused("State blocked by non-migratable device")

    with connected(refuse) as (qmp, _), pytest.raises(QmpError, match="State blocked by non-migratable device"):
        qmp.execute("migrate", Deadline(10))


def test_a_monitor_that_falls_silent_is_waited_for_until_the_deadline_and_no_longer() -> None:
    def say_nothing(command: str, arguments: dict[str, Any]) -> object:
        raise Silence

    with connected(say_nothing) as (qmp, _):
        began = time.monotonic()
        with pytest.raises(QmpError, match="did not answer in time"):
            qmp.execute("query-status", Deadline(0.3))
        assert 0.25 < time.monotonic() - began < 0.8


def test_after_a_silence_the_next_answer_is_that_of_the_next_question() -> None:
    def forget_the_first(command: str, arguments: dict[str, Any]) -> object:
        if command == "first":
            raise Silence
        return command

    with connected(forget_the_first) as (qmp, _):
        with pytest.raises(QmpError):
            qmp.execute("first", Deadline(0.1))
        assert qmp.execute("second", Deadline(10)) == "second"


def test_a_monitor_that_goes_is_an_error_at_once() -> None:
    def go(command: str, arguments: dict[str, Any]) -> object:
        raise Gone

    with connected(go) as (qmp, _):
        began = time.monotonic()
        with pytest.raises(QmpError, match="QEMU's monitor"):
            qmp.execute("query-status", Deadline(30))
        with pytest.raises(QmpError, match="QEMU's monitor"):
            qmp.execute("query-status", Deadline(30))
        assert time.monotonic() - began < 5


def test_a_qemu_that_never_greets_ends_the_connection_at_the_deadline_and_leaves_no_thread() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        with pytest.raises(QmpError, match="did not answer in time"):
            Qmp(ours, name="mute", on_event=ignore, deadline=Deadline(0.3))
        assert not [each for each in threading.enumerate() if each.name == "vmlab-qmp-mute"]


def test_events_are_told_in_their_order_with_their_data() -> None:
    told: list[tuple[str, object]] = []
    both = threading.Event()

    def listen(event: dict[str, Any]) -> None:
        told.append((event["event"], event["data"]))
        if len(told) == 2:
            both.set()

    with monitor() as qemu:
        qmp = Qmp(qemu.sock, name="main", on_event=listen, deadline=Deadline(10))
        try:
            qemu.tell("MIGRATION", status="active")
            qemu.tell("GUEST_PANICKED", action="pause")
            assert both.wait(10)
        finally:
            qmp.close()
    assert told == [("MIGRATION", {"status": "active"}), ("GUEST_PANICKED", {"action": "pause"})]


def test_closing_twice_is_no_error_and_ends_the_thread() -> None:
    # (Another test of this process may have one of this name.)
    before = set(threading.enumerate())

    def ours() -> list[threading.Thread]:
        return [each for each in set(threading.enumerate()) - before if each.name == "vmlab-qmp-main"]

    with connected(lambda command, arguments: {}) as (qmp, _):
        assert len(ours()) == 1
        qmp.close()
        qmp.close()
        assert ours() == []


def test_a_descriptor_arrives_under_the_name_that_later_commands_use() -> None:
    ours, theirs = os.pipe()
    try:
        with connected(lambda command, arguments: {}) as (qmp, qemu):
            qmp.send_descriptor("state", theirs, Deadline(10))
            assert qemu.heard[-1] == ("getfd", {"fdname": "state"})
            [received] = qemu.descriptors
            os.write(received, b"through it")
            os.close(received)
        assert os.read(ours, 100) == b"through it"
    finally:
        os.close(ours)
        os.close(theirs)


def test_the_ports_are_those_that_lead_into_the_guest_not_those_of_open_connections() -> None:
    with connected(lambda command, arguments: USERNET) as (qmp, qemu):
        assert qmp.forwarded_ports(Deadline(10)) == {22: 40123, 2222: 40124}
        assert qemu.heard[-1] == ("human-monitor-command", {"command-line": "info usernet"})


def test_a_table_without_sshds_port_is_an_error_that_shows_the_table() -> None:
    with connected(lambda command, arguments: "unknown command\r\n") as (qmp, _):
        with pytest.raises(QmpError, match="which port") as caught:
            qmp.forwarded_ports(Deadline(10))
        assert "unknown command" in caught.value.detail
