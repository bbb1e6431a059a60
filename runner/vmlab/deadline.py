"""A point in time that is passed along, so that no layer restarts the clock of the layer above it."""

from __future__ import annotations

import time


class Deadline:
    """The moment by which something must be done, on the monotonic clock.

    Functions that wait take a Deadline instead of a number of seconds: nested waits then share one budget, and the time-out that
    the user set is the time-out that the user gets.
    """

    def __init__(self, seconds: float) -> None:
        """Start a budget of ``seconds`` now; ``math.inf`` is allowed and never expires."""
        self.budget_s = seconds
        self._end = time.monotonic() + seconds

    def left_s(self) -> float:
        """Seconds left, never negative."""
        return max(0.0, self._end - time.monotonic())

    def expired(self) -> bool:
        """Whether the moment has passed."""
        return time.monotonic() >= self._end

    def within(self, seconds: float) -> Deadline:
        """A deadline for a part: ``seconds`` from now, but never later than this one."""
        return Deadline(min(seconds, self.left_s()))
