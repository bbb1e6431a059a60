"""Waiting for a condition, with a limit: a fixed pause is too short on one machine and too long on another."""

import select
import time

from vmlab_guest.proc import stat_or_none

TYPE_CHECKING = False  # (mypy takes it for true; the real one is in typing, which takes 18 ms.)
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    Seen = TypeVar("Seen")


def look_until(look: "Callable[[], Seen]", holds: "Callable[[Seen], bool]", *, limit_s: float = 20.0, every_s: float = 0.02) -> "Seen":
    """Look until what is seen is as wanted; what was seen last, which is not as wanted when the time was over.

    There is one look at least, and one after the limit: whoever was not let run in time is not told that nothing came.
    """
    ends = time.monotonic() + limit_s
    while True:
        over = time.monotonic() >= ends
        seen = look()
        if holds(seen) or over:
            return seen
        time.sleep(min(every_s, max(0.0, ends - time.monotonic())))


def wait_until(holds: "Callable[[], bool]", *, limit_s: float = 20.0, every_s: float = 0.02) -> bool:
    """Look until something holds; whether it did in time."""
    return look_until(holds, bool, limit_s=limit_s, every_s=every_s)


def wait_for_state(pid: int, states: str, *, limit_s: float = 20.0) -> str:
    """Wait until a process is in one of the states (letters of proc_pid_stat(5): "R" runs, "S" sleeps, "T" stopped, "Z" zombie).

    The state that it was seen in last; empty when there is no such process: that is no reason to wait for ever.
    """

    def state() -> str:
        fields = stat_or_none(pid)
        return str(fields["state"]) if fields else ""

    return look_until(state, lambda seen: not seen or seen in states, limit_s=limit_s, every_s=0.01)


def wait_to_read(descriptor: int, limit_s: float = 20.0) -> bool:
    """Wait until a pipe or socket has something to read, or has come to its end; whether that was in time."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN | select.POLLHUP)
    return bool(poll.poll(max(0.0, limit_s) * 1000))
