"""What a run has written down so far."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from vmlab.errors import ScriptError, UsageError
from vmlab.lab.evidence import RESERVED, canonical, digest
from vmlab.progress import Event, Kind
from vmlab.report.model import GuestPart, ObservationPart, PhasePart

# An observation is read by people and hashed; more than this is a raw log, which belongs in a file.
OBSERVATION_LIMIT_BYTES = 8 << 20


@dataclass
class Notebook:
    """What a run has written down so far; it outlives an experiment that broke. As a listener, it times the phases."""

    started: float = field(default_factory=time.monotonic)
    observations: list[ObservationPart] = field(default_factory=list)
    phases: list[PhasePart] = field(default_factory=list)
    guests: list[GuestPart] = field(default_factory=list)
    broke_in: str = ""
    """The innermost phase that an error passed through: where the run broke."""
    unsuitable: str = ""
    """Why nothing could be shown with this image; empty when it could."""
    _open: list[tuple[str, float]] = field(default_factory=list)

    def now_s(self) -> float:
        """Seconds since the run's start."""
        return round(time.monotonic() - self.started, 3)

    def data(self) -> dict[str, Any]:
        """The observations by name."""
        return {each.name: each.data for each in self.observations}

    def __call__(self, event: Event) -> None:
        """Time a phase that begins or ends."""
        if event.kind is Kind.PHASE:
            self._open.append((event.text, self.now_s()))
        elif event.kind is Kind.PHASE_END:
            title, start_s = self._open.pop()
            self.phases.append(PhasePart(name=title, start_s=start_s, end_s=self.now_s(), depth=len(self._open)))
            if event.value:
                self.broke_in = self.broke_in or title

    def record(self, name: str, data: Mapping[str, Any]) -> None:
        """Write down one observation under a name that is used once. ScriptError when it is not JSON or too large."""
        if any(each.name == name for each in self.observations):
            raise UsageError(f"the experiment recorded {name!r} twice", hint="give each observation a name of its own")
        if name in RESERVED:
            raise UsageError(
                f"an observation cannot be called {name!r}: that is what a place in the run's own facts begins with",
                hint="give the observation another name",
            )
        try:
            encoded = canonical(dict(data))
        except (TypeError, ValueError, RecursionError) as exc:
            raise ScriptError(f"the observation {name} is not plain JSON: {exc}") from exc
        if len(encoded) > OBSERVATION_LIMIT_BYTES:
            raise ScriptError(f"the observation {name} has {len(encoded)} bytes; {OBSERVATION_LIMIT_BYTES} are allowed")
        # What is kept is what was hashed: a later change of the caller's object must not reach the evidence.
        kept = json.loads(encoded)
        self.observations.append(ObservationPart(name=name, at_s=self.now_s(), sha256=digest(kept), data=kept))
