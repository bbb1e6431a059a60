"""What is said between the host and a clone that becomes somebody, from both sides, without a guest."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.sshserver import within
from vmlab.deadline import Deadline
from vmlab.errors import TemplateError
from vmlab.guest.clone import identity as standby
from vmlab.guest.clone.identity import Newborn
from vmlab.guest.inside import standby as inside
from vmlab.guest.seed import new_hostname


@pytest.fixture
def line() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


@contextlib.contextmanager
def guest(theirs: socket.socket, *answers: bytes) -> Iterator[list[dict[str, Any]]]:
    """A guest that waits for one line, says its answers, and hears what comes then."""
    heard: list[dict[str, Any]] = []

    def speak() -> None:
        with contextlib.suppress(OSError), theirs.makefile("rwb") as file:
            heard.append(json.loads(file.readline()))
            for answer in answers:
                file.write(answer)
                file.flush()
                if b'"time"' in answer:
                    heard.append(json.loads(file.readline()))

    thread = threading.Thread(target=speak)
    thread.start()
    yield heard
    thread.join(10)


def lines(*messages: dict[str, Any]) -> list[bytes]:
    return [json.dumps(message).encode() + b"\n" for message in messages]


GOOD = ({"renewed": True}, {"time": 0}, {"clock": {"set_by_s": 5.5, "error_s": 0.001}}, {"done": True})


def test_a_clone_is_told_who_it_is_and_what_time_it_is(line: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = line
    with guest(theirs, *lines(*GOOD)) as heard:
        newborn = Newborn(ours, "main-c0ffee", Deadline(5), now_ns=lambda: 42)
        newborn.quicken()
        newborn.settle()
    told, time_told = heard
    assert told["hostname"] == "main-c0ffee"
    assert told["machine_id"] == newborn.machine_id
    assert len(bytes.fromhex(told["machine_id"])) == 16
    assert len(bytes.fromhex(told["random"])) >= 32
    assert time_told == {"time_ns": 42}
    assert (newborn.clock_set_by_s, newborn.clock_error_s) == (5.5, 0.001)


def test_no_two_clones_are_told_the_same() -> None:
    tellings = []
    for _ in range(2):
        ours, theirs = socket.socketpair()
        with ours, theirs, guest(theirs, *lines(*GOOD)) as heard:
            Newborn(ours, new_hostname("main"), Deadline(5)).quicken()
        tellings.append(heard[0])
    assert all(tellings[0][key] != tellings[1][key] for key in ("random", "hostname", "machine_id"))


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ([b"what?\n"], "not a JSON object"),
        ([b"[1]\n"], "not a JSON object"),
        ([b"\xff\xfe\n"], "not a JSON object"),
        ([b"x" * 5000], "without an end"),
        (lines({"done": True}), "where 'renewed' was to come"),
        (lines({"renewed": True}, {"clock": {"set_by_s": "now"}}), "should not"),
        (lines({"renewed": True}, {"clock": None}), "should not"),
    ],
)
def test_a_clone_that_talks_nonsense_is_an_error(line: tuple[socket.socket, socket.socket], answers: list[bytes], message: str) -> None:
    ours, theirs = line
    with guest(theirs, *answers), pytest.raises(TemplateError, match=message):
        Newborn(ours, "main", Deadline(5)).quicken()


def test_a_clone_that_hangs_is_found_out(line: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standby, "ANSWER_LIMIT_S", 0.2)
    with pytest.raises(TemplateError, match="did not answer within 0 s"):
        Newborn(line[0], "main", Deadline(60)).quicken()


def test_a_clone_that_is_gone_is_found_out_at_once(line: tuple[socket.socket, socket.socket]) -> None:
    line[1].close()
    with pytest.raises(TemplateError, match="port"):
        Newborn(line[0], "main", Deadline(60)).quicken()


# The guest's own side.


class Host:
    """Tells the time, some of its answers late: it is ``ahead_s`` ahead of what this machine has."""

    def __init__(self, delays_s: list[float], ahead_s: float) -> None:
        self.delays_s, self.ahead_s, self.asked = delays_s, ahead_s, 0
        self._time_ns = time.time_ns

    def now_ns(self) -> int:
        return self._time_ns() + int(self.ahead_s * 1e9)

    def say(self, message: dict[str, Any]) -> None:
        assert "time" in message
        self.asked += 1

    def hear(self) -> dict[str, Any]:
        now = self.now_ns()
        time.sleep(self.delays_s[self.asked - 1])
        return {"time_ns": now}


class Clock:
    """A guest's clock, instead of this machine's own; its processor stands still for so long before each time that it is set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, stands_still_s: list[float]) -> None:
        self.stands_still_s, self.shift_ns, self.sets = stands_still_s, 0, 0
        self._time_ns = time.time_ns
        monkeypatch.setattr(time, "time_ns", self.now_ns)
        monkeypatch.setattr(time, "clock_settime_ns", self.set)

    def now_ns(self) -> int:
        return self._time_ns() + self.shift_ns

    def set(self, _clock: int, value: int) -> None:
        time.sleep(self.stands_still_s[self.sets] if self.sets < len(self.stands_still_s) else 0)
        self.sets += 1
        self.shift_ns = value - self._time_ns()


@pytest.mark.parametrize(("delays_s", "questions"), [([0.0], 1), ([0.3, 0.2, 0.0], 3), ([0.05] * 20, 20), ([0.12] * 22 + [0.0], 23)])
def test_the_clock_is_set_by_the_quickest_answer(delays_s: list[float], questions: int, monkeypatch: pytest.MonkeyPatch) -> None:
    host = Host(delays_s, ahead_s=1000.0)
    clock = Clock(monkeypatch, [])
    said = inside.set_clock(host)  # type: ignore[arg-type]
    assert host.asked == said["questions"] == questions
    assert abs(clock.now_ns() - host.now_ns()) / 1e9 <= said["error_s"] + 0.02
    assert said["error_s"] <= min(delays_s) / 2 + 0.02
    assert said["set_by_s"] == pytest.approx(1000.0, abs=0.1)


def test_a_clock_that_was_set_late_is_set_again(monkeypatch: pytest.MonkeyPatch) -> None:
    host = Host([0.0], ahead_s=1000.0)
    clock = Clock(monkeypatch, [0.2, 0.1])
    said = inside.set_clock(host)  # type: ignore[arg-type]
    assert clock.sets >= 3
    assert abs(clock.now_ns() - host.now_ns()) / 1e9 < 0.02
    assert said["error_s"] < 0.02


def moved(monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    """Let the script's absolute paths mean files below ``root``."""
    monkeypatch.setattr(inside, "Path", lambda name: root / str(name).lstrip("/"))


def test_the_old_name_is_replaced_where_it_stands_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moved(monkeypatch, tmp_path)
    named: list[str] = []
    monkeypatch.setattr(socket, "sethostname", named.append)
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/hosts").write_text("127.0.0.1 localhost\n127.0.1.1\tmain-1.example main-1\n10.0.0.1 main-10 not.main-1\n")
    inside.rename("main-1", "new-2")
    assert named == ["new-2"]
    assert (tmp_path / "etc/hosts").read_text() == "127.0.0.1 localhost\n127.0.1.1\tmain-1.example new-2\n10.0.0.1 main-10 not.main-1\n"
    assert not (tmp_path / "etc/hostname").exists()


def test_the_machine_id_is_written_where_it_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moved(monkeypatch, tmp_path)
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/machine-id").write_text("old\n")
    (tmp_path / "var/lib/dbus").mkdir(parents=True)
    (tmp_path / "var/lib/dbus/machine-id").symlink_to(tmp_path / "elsewhere")
    inside.write_machine_id("0" * 32)
    assert (tmp_path / "etc/machine-id").read_text() == "0" * 32 + "\n"
    assert not (tmp_path / "elsewhere").exists()


def test_random_bytes_are_credited_and_used_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[int, bytes]] = []
    monkeypatch.setattr(fcntl, "ioctl", lambda _file, request, data=b"": calls.append((request, data)))
    inside.renew_random(b"seedseed")
    assert calls == [(inside.RNDADDENTROPY, struct.pack("ii", 64, 8) + b"seedseed"), (inside.RNDRESEEDCRNG, b"")]


def test_a_port_speaks_lines_and_nothing_in_them_is_a_key() -> None:
    ours, terminal = os.openpty()
    port = inside.Port(os.ttyname(terminal))
    os.write(ours, b'{"a": 1}\n{"b"')
    assert port.hear() == {"a": 1}
    os.write(ours, b': "\\u0003"}\n[3]\n')
    assert port.hear() == {"b": "\x03"}
    with pytest.raises(SystemExit, match="not an object"):
        port.hear()
    port.say({"c": 3})
    # Neither echoed nor with a carriage return added.
    assert os.read(ours, 100) == b'{"c": 3}\n'
    for descriptor in (ours, terminal, port.fd):
        os.close(descriptor)


def test_what_firmware_wrote_to_the_port_is_thrown_away() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b"\x1b[2JBdsDxe: loading Boot0001" * 5000)
        standby._empty(ours, Deadline(5))
        # A last byte may come late.
        theirs.sendall(b'[{"waiting": true}\n')
        assert standby.Newborn(ours, "x", Deadline(5)).expect("waiting", noisy=True) == {"waiting": True}


@contextlib.contextmanager
def pouring(sock: socket.socket, data: bytes, every_s: float) -> Iterator[None]:
    """Write this again and again for the length of a block."""
    over = threading.Event()

    def pour() -> None:
        with contextlib.suppress(OSError):
            while not over.wait(every_s):
                sock.sendall(data)

    thread = threading.Thread(target=pour, daemon=True)
    thread.start()
    yield
    over.set()
    # (It may be in the midst of writing to a port that nobody reads any more.)
    sock.shutdown(socket.SHUT_RDWR)
    thread.join(20)


def test_a_guest_that_never_stops_talking_ends_no_wait() -> None:
    babbling = cast(socket.socket, SimpleNamespace(setblocking=lambda flag: None, recv=lambda size: b"."))
    with within(0.5, 1.0), pytest.raises(TemplateError, match="never quiet"):
        standby._empty(babbling, Deadline(0.5))
    ours, theirs = socket.socketpair()
    with ours, theirs, pouring(theirs, b".", 0.005), within(0.5, 1.0), pytest.raises(TemplateError, match="did not answer within"):
        standby.Newborn(ours, "x", Deadline(0.5)).expect("waiting")
    ours, theirs = socket.socketpair()
    with ours, theirs, pouring(theirs, b'{"time": 1}\n', 0.005), within(0.5, 1.0), pytest.raises(TemplateError, match=r"answer|takes"):
        standby.Newborn(ours, "x", Deadline(0.5)).expect("waiting")
