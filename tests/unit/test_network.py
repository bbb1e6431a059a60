"""The switch between guests: who hears what, what is lost, delayed and dropped. A guest's QEMU is the other end of its socket."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from vmlab.errors import UsageError
from vmlab.guest import network
from vmlab.guest.network import Network, cable

EVERYBODY = b"\xff" * 6
MAC = {name: bytes([0x52, 0x54, 0, 0x77, 1, number]) for number, name in enumerate(("a", "b", "c"), 1)}


def frame(sender: str, to: bytes, payload: bytes, kind: bytes = b"\x08\x00") -> bytes:
    return to + MAC[sender] + kind + payload


class Wire:
    """A network with its guests' ends."""

    def __init__(self, network: Network, ends: dict[str, socket.socket]) -> None:
        self.network = network
        self.ends = ends

    def send(self, sender: str, payload: bytes, to: bytes = EVERYBODY, kind: bytes = b"\x08\x00") -> None:
        self.ends[sender].send(frame(sender, to, payload, kind))

    def heard(self, guest: str, wait_s: float = 0.3) -> list[bytes]:
        """The payloads that have come, until nothing more does."""
        payloads = []
        self.ends[guest].settimeout(wait_s)
        with contextlib.suppress(TimeoutError):
            while True:
                payloads.append(self.ends[guest].recv(1 << 17)[14:])
        return payloads


@contextlib.contextmanager
def wire(*guests: str, joined: bool = True, **losses: float) -> Iterator[Wire]:
    network = Network("wire", **losses)
    try:
        with contextlib.ExitStack() as stack:
            ends = {guest: stack.enter_context(network.plugged(guest)) for guest in guests}
            for guest in guests if joined else ():
                network.join(guest)
            yield Wire(network, ends)
    finally:
        network.close()


def test_a_frame_comes_to_all_others_and_not_back() -> None:
    with wire("a", "b", "c") as here:
        here.send("a", b"hello")
        assert [here.heard(guest) for guest in "abc"] == [[], [b"hello"], [b"hello"]]
        assert here.network.statistics() == {"sent": 1, "forwarded": 1, "lost": 0, "dropped": 0, "overflowed": 0}


def test_once_it_is_known_where_somebody_is_only_they_hear_what_is_for_them() -> None:
    with wire("a", "b", "c") as here:
        here.send("b", b"here I am")
        assert here.heard("a") == here.heard("c") == [b"here I am"]
        here.send("a", b"for b", to=MAC["b"])
        assert [here.heard("b"), here.heard("c")] == [[b"for b"], []]
        # What is for the sender itself goes nowhere.
        here.send("b", b"to myself", to=MAC["b"])
        assert [here.heard(guest, 0.1) for guest in "abc"] == [[], [], []]


def test_who_has_not_joined_is_neither_heard_nor_told() -> None:
    with wire("a", "b", joined=False) as here:
        here.send("a", b"DHCP")
        here.network.join("b")
        here.send("a", b"DHCP")
        assert here.heard("b") == []
        here.network.join("a")
        here.send("a", b"hello")
        assert here.heard("b") == [b"hello"]
        assert here.network.statistics()["sent"] == 1


def test_what_qemu_announces_and_what_is_no_frame_is_not_forwarded() -> None:
    with wire("a", "b") as here:
        here.send("a", b"announced", kind=b"\x80\x35")
        here.ends["a"].send(b"short")
        here.send("a", b"x" * 65000)
        assert here.heard("b") == [b"x" * 65000]


def test_what_is_lost_by_chance_is_the_same_in_each_run_and_about_as_much_as_was_asked_for() -> None:
    def run(percent: float) -> list[bytes]:
        with wire("a", "b", loss_percent=percent) as here:
            for number in range(200):
                here.send("a", b"%03d" % number)
                if number % 50 == 49:
                    time.sleep(0.05)
            heard = here.heard("b")
            found = here.network.statistics()
            assert found["lost"] + found["forwarded"] == found["sent"] == 200
            assert found["lost"] == 200 - len(heard)
            return heard

    first, second = run(30), run(30)
    assert first == second
    assert 100 < len(first) < 180
    assert len(run(0)) == 200
    assert run(100) == []


def test_a_loss_in_a_block_ends_with_it_also_when_the_block_fails() -> None:
    with wire("a", "b") as here:
        with pytest.raises(ZeroDivisionError), here.network.losing(100):
            here.send("a", b"lost")
            assert here.heard("b") == []
            with here.network.losing(0):
                here.send("a", b"inside")
                assert here.heard("b") == [b"inside"]
            here.send("a", b"lost again")
            assert here.heard("b") == []
            raise ZeroDivisionError
        here.send("a", b"after")
        assert here.heard("b") == [b"after"]


def test_a_frame_takes_as_long_as_it_was_told_to_and_none_overtakes_another() -> None:
    with wire("a", "b", delay_ms=100) as here:
        began = time.monotonic()
        here.send("a", b"slow")
        time.sleep(0.02)
        with here.network.delaying(0):
            here.send("a", b"quick")
            here.ends["b"].settimeout(5)
            assert here.ends["b"].recv(100)[14:] == b"slow"
            assert time.monotonic() - began >= 0.1
            assert here.ends["b"].recv(100)[14:] == b"quick"
            began = time.monotonic()
            here.send("a", b"at once")
            assert here.ends["b"].recv(100)[14:] == b"at once"
            assert time.monotonic() - began < 0.09


def test_exactly_the_named_frames_are_dropped() -> None:
    with wire("a", "b") as here:
        with here.network.dropping(2, 4, sender="a", containing=b"data") as dropped:
            for number in range(1, 6):
                here.send("b", b"data of b")
                here.send("a", b"something else")
                here.send("a", b"data %d" % number)
                # (One after the other, so that it is known which is which.)
                time.sleep(0.02)
            assert here.heard("b") == [
                payload
                for number in range(1, 6)
                for payload in (b"something else", b"data %d" % number)
                if payload not in (b"data 2", b"data 4")
            ]
            assert here.heard("a") == [b"data of b"] * 5
        assert [(each["nth"], each["sender"], each["source_mac"]) for each in dropped] == [
            (2, "a", "52:54:00:77:01:01"),
            (4, "a", "52:54:00:77:01:01"),
        ]
        here.send("a", b"data again")
        here.send("a", b"data again")
        assert len(here.heard("b")) == 2, "an order ends with its block"
        assert here.network.statistics()["dropped"] == 2


def test_a_frame_is_chosen_by_what_is_in_it_and_a_choice_that_breaks_is_the_labs_to_mend() -> None:
    with wire("a", "b") as here:
        with here.network.dropping(1, matching=lambda packet: packet["protocol"] == "arp") as dropped:
            here.send("a", b"x")
            here.send("a", b"who has", kind=b"\x08\x06")
            assert here.heard("b") == [b"x"]
        assert [each["protocol"] for each in dropped] == ["arp"]

        def broken(packet: dict[str, Any]) -> bool:
            return bool(packet["no such member"])

        with pytest.raises(KeyError, match="no such member"), here.network.dropping(1, matching=broken):
            here.send("a", b"y")
            assert here.heard("b") == [b"y"]


def test_a_capture_tells_what_became_of_each_frame() -> None:
    with wire("a", "b") as here:
        here.send("a", b"before")
        here.heard("b")
        with here.network.packets() as capture, here.network.dropping(2):
            for payload in (b"one", b"two", b"three"):
                here.send("a", payload)
            here.heard("b")
            assert capture.count(b"t") == 2
        here.send("a", b"after")
        here.heard("b")
        assert [(each["sender"], each["fate"]) for each in capture.packets()] == [("a", "forwarded"), ("a", "dropped"), ("a", "forwarded")]
        assert capture.packets()[0]["at_s"] == 0.0
        assert [capture.count(word) for word in (b"before", b"one", b"after")] == [0, 1, 0]
        with pytest.raises(ValueError, match="at least one byte"):
            capture.count(b"")


def test_a_guest_that_takes_nothing_costs_the_others_nothing_and_what_is_too_much_for_it_is_counted() -> None:
    with wire("a", "b", "c") as here:
        here.ends["c"].setblocking(False)
        for number in range(3000):
            here.send("a", b"%d" % number)
            if number % 100 == 99:
                time.sleep(0.01)
                assert here.heard("c", 0.0 + 0.02)
        assert here.network.statistics()["overflowed"] > 0
        # It hears what was kept for it, in order, once it listens again.
        heard = [int(payload) for payload in here.heard("b")]
        assert heard == list(range(len(heard)))
        assert len(heard) > 500
        assert here.network.statistics()["overflowed"] == 3000 - len(heard)


def test_a_guest_that_floods_costs_no_more_than_so_much(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "_ON_THE_WAY", 10)
    monkeypatch.setattr(network, "_ADDRESSES", 3)
    with wire("a", "b", delay_ms=300) as here:
        for number in range(30):
            here.ends["a"].send(EVERYBODY + bytes([2, 0, 0, 0, 0, number]) + b"\x08\x00%d" % number)
        assert here.heard("b", 0.6) == [b"%d" % number for number in range(10)]
        assert here.network.statistics()["overflowed"] == 20
        assert len(here.network._knows) <= 3


def test_a_guest_that_ends_is_pulled_out_and_may_come_again() -> None:
    network = Network("wire")
    try:
        with network.plugged("a") as a:
            network.join("a")
            with network.plugged("b") as b:
                network.join("b")
                b.send(frame("b", EVERYBODY, b"hello"))
                a.settimeout(5)
                assert a.recv(100)[14:] == b"hello"
            a.send(frame("a", MAC["b"], b"are you there?"))
            # (Its QEMU has closed its end, and ours is still open for a moment.)
            with network.plugged("b") as b:
                network.join("b")
                b.close()
                a.send(frame("a", EVERYBODY, b"and now?"))
                time.sleep(0.05)
            with network.plugged("b") as b:
                network.join("b")
                b.settimeout(5)
                a.send(frame("a", MAC["b"], b"welcome"))
                assert b.recv(100)[14:] == b"welcome"
    finally:
        network.close()


def test_nothing_of_it_is_left() -> None:
    before = set(threading.enumerate())
    network = Network("wire", delay_ms=10_000)
    assert {each.name for each in set(threading.enumerate()) - before} == {"vmlab-network-wire"}
    with network.plugged("a") as a, network.plugged("b"):
        network.join("a")
        network.join("b")
        a.send(frame("a", EVERYBODY, b"on its way"))
        time.sleep(0.05)
        began = time.monotonic()
        network.close()
        network.close()
        assert time.monotonic() - began < 1
    assert set(threading.enumerate()) - before == set()


def test_a_cable_that_leads_nowhere_is_one_all_the_same() -> None:
    network = Network("wire")
    try:
        with cable("other", "a", {"wire": network}) as loose, cable("wire", "a", {"wire": network}) as end:
            assert loose.type == end.type == socket.SOCK_DGRAM
            loose.send(frame("a", EVERYBODY, b"nobody hears this"))
        assert network.statistics()["sent"] == 0
    finally:
        network.close()


@pytest.mark.parametrize(
    ("what", "arguments", "says"),
    [
        ("losing", [-1], "cannot be lost"),
        ("losing", [101], "cannot be lost"),
        ("losing", [float("nan")], "cannot be lost"),
        ("delaying", [-1], "cannot take"),
        ("delaying", [60_001], "cannot take"),
        ("dropping", [], "which frame"),
        ("dropping", [0], "which frame"),
    ],
)
def test_what_cannot_be_is_refused(what: str, arguments: list[float], says: str) -> None:
    with wire("a") as here, pytest.raises(UsageError, match=says), getattr(here.network, what)(*arguments):
        pytest.fail("the block was entered")
