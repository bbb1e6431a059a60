"""What a run has written down so far, and who is told of it."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from vmlab.errors import ScriptError, UsageError
from vmlab.lab.evidence import canonical, digest
from vmlab.report.model import GuestPart, ObservationPart, PhasePart

# An observation is read by people and hashed; more than this is a raw log, which belongs in a file.
OBSERVATION_LIMIT_BYTES = 8 << 20


class Listener(Protocol):
    """Who is told what the bench is doing (the live view)."""

    def phase(self, title: str) -> None:
        """A phase begins, or (with the outer title) is gone back to."""

    def waiting(self, what: str) -> None:
        """What is being waited for within the phase; empty for nothing in particular."""


@dataclass
class Notebook:
    """What a run has written down so far; it outlives an experiment that broke."""

    started: float = field(default_factory=time.monotonic)
    observations: list[ObservationPart] = field(default_factory=list)
    phases: list[PhasePart] = field(default_factory=list)
    guests: list[GuestPart] = field(default_factory=list)
    current: list[str] = field(default_factory=list)
    broke_in: str = ""
    unsuitable: str = ""
    """Why nothing could be shown with this image; empty when it could."""

    def now_s(self) -> float:
        """Seconds since the run's start."""
        return round(time.monotonic() - self.started, 3)

    def data(self) -> dict[str, Any]:
        """The observations by name."""
        return {each.name: each.data for each in self.observations}

    @contextlib.contextmanager
    def phase(self, title: str, listener: Listener) -> Iterator[None]:
        """Time a stretch of the run; the innermost one that an error passes through is where the run broke."""
        start, depth = self.now_s(), len(self.current)
        self.current.append(title)
        listener.phase(title)
        try:
            yield
        except BaseException:
            self.broke_in = self.broke_in or title
            raise
        finally:
            self.current.pop()
            self.phases.append(PhasePart(name=title, start_s=start, end_s=self.now_s(), depth=depth))
            listener.waiting("")
            if self.current:
                listener.phase(self.current[-1])

    def record(self, name: str, data: Mapping[str, Any]) -> None:
        """Write down one observation under a name that is used once. ScriptError when it is not JSON or too large."""
        if any(each.name == name for each in self.observations):
            raise UsageError(f"the experiment recorded {name!r} twice", hint="give each observation a name of its own")
        try:
            encoded = canonical(dict(data))
        except (TypeError, ValueError, RecursionError) as exc:
            raise ScriptError(f"the observation {name} is not plain JSON: {exc}") from exc
        if len(encoded) > OBSERVATION_LIMIT_BYTES:
            raise ScriptError(f"the observation {name} has {len(encoded)} bytes; {OBSERVATION_LIMIT_BYTES} are allowed")
        # What is kept is what was hashed: a later change of the caller's object must not reach the evidence.
        kept = json.loads(encoded)
        self.observations.append(ObservationPart(name=name, at_s=self.now_s(), sha256=digest(kept), data=kept))
