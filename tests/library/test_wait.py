"""Waiting has a limit, and looks once more when that is over."""

from __future__ import annotations

import os
import signal
import time

import pytest

from vmlab_guest import wait
from vmlab_guest.child import Child, running


def test_what_holds_at_once_is_not_waited_for() -> None:
    began = time.monotonic()
    assert wait.wait_until(lambda: True)
    assert wait.wait_until(lambda: True, limit_s=0)
    assert time.monotonic() - began < 0.5


def test_what_never_holds_is_waited_for_so_long() -> None:
    began = time.monotonic()
    assert not wait.wait_until(lambda: False, limit_s=0.2, every_s=0.05)
    assert 0.2 <= time.monotonic() - began < 2


def test_there_is_a_look_after_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a process that was not let run for longer than its limit: the clock jumps while it sleeps."""
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(time, "sleep", lambda _: now.__setitem__(0, now[0] + 100))
    assert wait.wait_until(lambda: now[0] > 50, limit_s=1)


def test_what_was_seen_last_is_told() -> None:
    seen = iter(range(100))
    assert wait.look_until(lambda: next(seen), lambda each: each >= 3, every_s=0) == 3
    assert wait.look_until(lambda: "starting", lambda each: each == "running", limit_s=0.05) == "starting"


def test_a_state_is_waited_for() -> None:
    with Child(signal.pause) as child:
        assert wait.wait_for_state(child.pid, "S") == "S"
        os.kill(child.pid, signal.SIGSTOP)
        assert wait.wait_for_state(child.pid, "T") == "T"
        assert wait.wait_for_state(child.pid, "SZ", limit_s=0.1) == "T"
    gone = running(lambda: None)
    os.waitpid(gone, 0)
    began = time.monotonic()
    assert wait.wait_for_state(gone, "Z") == ""
    assert time.monotonic() - began < 1


def test_a_pipe_is_waited_for() -> None:
    reading, writing = os.pipe()
    try:
        assert not wait.wait_to_read(reading, 0.05)
        os.write(writing, b"x")
        assert wait.wait_to_read(reading, 5)
        os.read(reading, 1)
    finally:
        os.close(writing)
    assert wait.wait_to_read(reading, 5)  # (Its end is something to read, too.)
    os.close(reading)
