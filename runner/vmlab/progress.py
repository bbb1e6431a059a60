"""What goes on, told once as a stream of events: whoever tells it knows no screen, and whoever shows it asks nothing back.

A run has one `Progress`. What does the work tells it of phases, waits and notices; the notebook, a terminal's view, the pipe to another
process or a Dask topic subscribe. A listener that breaks (a closed pipe, a full disk, an encoding without a check mark) is dropped and
never changes what it listened to; one that may block goes behind a `Relay`, so that a paused terminal does not stop a measurement.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

log = logging.getLogger(__name__)

# What a relay holds for a listener that does not keep up. A run tells some hundred events, so that only a screen that stands still comes
# to this; what is then told is lost to it.
_HELD = 100_000

# How long a screen that stands still (a terminal paused by Ctrl-S, a pager that does not read) is waited for at the end.
DRAIN_LIMIT_S = 5.0


class Kind(StrEnum):
    """What an event is about. Of one lab's run, in the order in which they come; then those of a run of many."""

    BEGIN = "begin"
    """It starts: ``text`` is its title, ``value`` a list of lines that say on what; of many labs, ``value`` is a row for each."""
    SLOT = "slot"
    """It has its slot, and begins to start guests."""
    PHASE = "phase"
    """A phase begins, named by ``text``. They nest."""
    PHASE_END = "phase-end"
    """The innermost phase, named by ``text``, has ended; ``value`` is whether an error ended it."""
    WAITING = "waiting"
    """What is waited for within the phase; an empty ``text``: for nothing in particular."""
    NOTICE = "notice"
    """Something worth a line of its own, such as that an image is being built."""
    RECORDED = "recorded"
    """The observation named by ``text`` was written down."""
    VERDICT = "verdict"
    """A check is settled; ``value`` is its part of the report."""
    END = "end"
    """It is over: ``value`` is its report (of many: the index) and ``text`` where that is."""

    LAB_BEGIN = "lab-begin"
    """The lab ``job`` was handed to a worker, for the ``value``-th time."""
    LAB_AGAIN = "lab-again"
    """It ended in an error and is run again; ``value`` is its row in the index."""
    LAB_END = "lab-end"
    """It is done, or was stopped before it began; ``value`` is its row in the index."""


@dataclass(frozen=True)
class Event:
    """Something that happened. Every text may come from a guest, so none may be taken for markup or be trusted to be printable."""

    kind: Kind
    text: str = ""
    value: Any = None
    job: str = ""
    """Which lab it is about, in a run of many."""


Listener = Callable[[Event], None]


def notices(say: Callable[[str], None]) -> Listener:
    """A listener that hands on what is worth a line, and nothing else."""

    def listen(event: Event) -> None:
        if event.kind is Kind.NOTICE:
            say(event.text)

    return listen


class Progress:
    """Where the work tells what goes on. Safe to tell from any thread; events reach every listener in the same order."""

    def __init__(self, *listeners: Listener) -> None:
        self._listeners = list(listeners)
        self._lock = threading.RLock()
        self._titles: list[str] = []

    def subscribe(self, listener: Listener) -> None:
        """From now on ``listener`` is called with every event, on the thread that tells it, one at a time."""
        with self._lock:
            self._listeners.append(listener)

    def unsubscribe(self, listener: Listener) -> None:
        """From now on ``listener`` is not called any more; it may have been dropped already."""
        with self._lock:
            if listener in self._listeners:
                self._listeners.remove(listener)

    def tell(self, event: Event) -> None:
        """Hand an event to every listener. One that raises is dropped; KeyboardInterrupt passes."""
        with self._lock:
            for listener in tuple(self._listeners):
                try:
                    listener(event)
                except Exception as exc:
                    # Whatever a screen may raise: it is lost, and the run is not.
                    self._listeners.remove(listener)
                    log.warning(
                        "who listened to the run is lost: %s: %s", type(exc).__name__, exc, exc_info=log.isEnabledFor(logging.DEBUG)
                    )

    def begin(self, title: str, lines: list[str]) -> None:
        """It starts; ``lines`` say on what."""
        self.tell(Event(Kind.BEGIN, title, lines))

    def slot(self) -> None:
        """It has its slot, and begins."""
        self.tell(Event(Kind.SLOT))

    @contextlib.contextmanager
    def phase(self, title: str) -> Iterator[None]:
        """Name what is done in the block."""
        self.tell(Event(Kind.PHASE, title))
        try:
            yield
        except BaseException:
            self.tell(Event(Kind.PHASE_END, title, value=True))
            raise
        self.tell(Event(Kind.PHASE_END, title, value=False))

    def waiting(self, what: str) -> None:
        """Say what is waited for within the phase; empty for nothing in particular."""
        self.tell(Event(Kind.WAITING, what))

    def notice(self, line: str) -> None:
        """Say something that is worth a line."""
        self.tell(Event(Kind.NOTICE, line))

    def recorded(self, name: str) -> None:
        """An observation was written down."""
        self.tell(Event(Kind.RECORDED, name))

    def verdict(self, check: Any) -> None:
        """A check is settled."""
        self.tell(Event(Kind.VERDICT, value=check))

    def end(self, document: Any, where: str) -> None:
        """It is over; ``where`` is the place of its report or index."""
        self.tell(Event(Kind.END, where, document))


_RELAY = "vmlab-relay"


class Relay:
    """Calls a listener on a thread of its own, so that one that blocks holds nobody up. What it raises ends it, quietly."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._held: queue.Queue[Event | None] = queue.Queue(_HELD)
        self._thread = threading.Thread(target=self._run, name=_RELAY, daemon=True)
        self._thread.start()
        self.broken: Exception | None = None
        """What the listener raised."""

    @property
    def is_stuck(self) -> bool:
        """Whether it still waits for its listener; after `close`: whether that will perhaps never come back."""
        return self._thread.is_alive()

    def __call__(self, event: Event) -> None:
        """Hold an event for the listener."""
        if self.broken is None:
            with contextlib.suppress(queue.Full):
                self._held.put_nowait(event)

    def _run(self) -> None:
        while (event := self._held.get()) is not None:
            try:
                self._listener(event)
            except Exception as exc:  # noqa: BLE001  (Whatever a screen may raise, see `Progress.tell`.)
                self.broken = exc
                log.debug("who listened to the run is lost: %s: %s", type(exc).__name__, exc)
                return

    def close(self, limit_s: float = DRAIN_LIMIT_S) -> None:
        """Let the listener have what is held for it, as long as it takes any of it within ``limit_s``."""
        with contextlib.suppress(queue.Full):
            self._held.put_nowait(None)
        held, since = self._held.qsize(), time.monotonic()
        while self._thread.is_alive() and time.monotonic() - since < limit_s:
            self._thread.join(0.05)
            if self._held.qsize() != held:
                held, since = self._held.qsize(), time.monotonic()


def has_stuck_relay() -> bool:
    """Whether a relay that was closed still waits for its listener, which will perhaps never come back."""
    return any(thread.name == _RELAY and thread.is_alive() for thread in threading.enumerate())
