"""What becomes of a guest: what QEMU tells of it, what it died of, and that it may end.

Several threads tell (QEMU's monitor, the one that waits for its process, the one that looks into a panic), and every wait asks.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from vmlab.deadline import Deadline
from vmlab.errors import GuestEnded, GuestPanicked, RunError
from vmlab.guest import panic
from vmlab.guest.console import END_OF_PANIC, Console

# How long after the first sign of a guest's death its console may still say why. A kernel that panics says when it has told all; it may
# tell most of it only after pvpanic was told, when the console was busy (Linux, kernel/panic.c: console_flush_on_panic).
LAST_WORDS_S = 0.3
PANIC_WORDS_S = 1.5

# What QEMU tells of a machine as a whole (docs: QMP reference, run-state). A guest can cause some of them without end.
_KEPT_EVENTS = 64
TOLD = ("GUEST_PANICKED", "SHUTDOWN", "RESET")


@dataclass(frozen=True)
class Told:
    """An event of QEMU's: its name, its data, and when it came on the monotonic clock."""

    event: str
    data: dict[str, Any]
    at: float


class Fate:
    """One guest's. ``wake`` is called once when it has died, so that whoever waits for it need not wait for a time-out."""

    def __init__(self, console: Console, wake: Callable[[], None]) -> None:
        self._console = console
        self._wake = wake
        self._lock = threading.Condition()
        self._events: deque[Told] = deque(maxlen=_KEPT_EVENTS)
        self._counts: dict[str, int] = {}
        self._death: RunError | None = None
        self._died_at = 0.0
        self._over = ""
        self._hint = ""
        self.stopping = False
        """We end it; whatever happens to it from now on is our doing."""
        self.may_end = False
        """It may switch itself off; that is not its death."""

    @property
    def death(self) -> RunError | None:
        """What ended it, though nobody wanted it to; None while nothing has."""
        return self._death

    @property
    def died_at(self) -> float:
        """When that became known, on the monotonic clock; 0 while nothing has."""
        return self._died_at

    def tell(self, event: str, data: dict[str, Any]) -> None:
        """QEMU has told this."""
        with self._lock:
            self._events.append(Told(event, data, time.monotonic()))
            self._counts[event] = self._counts.get(event, 0) + 1
            self._lock.notify_all()

    def told(self, since: float) -> list[Told]:
        """What QEMU has told since a moment of the monotonic clock."""
        with self._lock:
            return [each for each in self._events if each.at >= since]

    def count(self, event: str) -> int:
        """How often QEMU has told this."""
        with self._lock:
            return self._counts.get(event, 0)

    def wait_for(self, event: str, count: int, deadline: Deadline) -> bool:
        """Wait until QEMU has told this so often; False when it has not by the deadline, or the guest died first."""
        with self._lock:
            self._lock.wait_for(lambda: self._counts.get(event, 0) >= count or self._death is not None, min(deadline.left_s(), 1e6))
            return self._counts.get(event, 0) >= count

    def die(self, death: RunError) -> None:
        """It has died of this, unless it had died before or is being ended."""
        with self._lock:
            if self._death is not None or self.stopping:
                return
            self._death = death
            self._died_at = time.monotonic()
            self._lock.notify_all()
        self._wake()

    def is_over(self, why: str, hint: str = "the experiment wanted that, and can ask it for nothing more") -> None:
        """It has ended as the experiment wanted: from now on whoever asks it for anything is told so."""
        self._over, self._hint = why, hint

    @property
    def over(self) -> str:
        """How it ended when the experiment wanted it to; empty as long as it has not."""
        return self._over

    def check(self) -> None:
        """Raise what ended the guest (GuestPanicked, GuestExited, HostError, GuestEnded), if anything did, with the console's tail."""
        if self._over:
            raise GuestEnded(f"the guest has ended: {self._over}", hint=self._hint)
        death = self._death
        if death is None:
            return
        self.wait_for_last_words()
        tail = self._console.tail()
        if isinstance(death, GuestPanicked) and (reason := panic.reason_in(tail)):
            # (pvpanic may have told it first, and does not know why.)
            death.message = f"the guest's kernel panicked: {reason}"
        if tail and tail not in death.detail:
            death.detail = f"{death.detail}\n{tail}".strip()
        raise death

    def wait_for_last_words(self) -> None:
        """Let the console of one that died say what it still has to say."""
        if isinstance(self._death, GuestPanicked):
            self._console.wait_for(END_OF_PANIC, max(0.0, self._died_at + PANIC_WORDS_S - time.monotonic()))
        time.sleep(max(0.0, self._died_at + LAST_WORDS_S - time.monotonic()))
