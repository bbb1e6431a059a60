"""What else this machine did while something was measured in guests, as evidence."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

from vmlab.errors import ScriptError
from vmlab.host.noise import Meter, Noise


class NoiseMeter:
    """The meter of one block (`Bench.noise`). ``pids`` are those of the guests' QEMUs that run when it begins."""

    def __init__(self, pids: Iterable[int]) -> None:
        self._meter = Meter(pids)
        self._noise: Noise | None = None

    def stop(self, pids: Iterable[int]) -> None:
        """The block is over; ``pids`` are those of the QEMUs that run then."""
        self._noise = self._meter.stop(*pids)

    def record(self) -> dict[str, Any]:
        """What the host did in the block, and ``others_share``, what part of its CPU time others had: `vmlab.host.noise.Noise`.

        ScriptError while the block is not left.
        """
        if self._noise is None:
            raise ScriptError("the noise was asked for before it was measured", hint="call record() after the `with` block")
        return dataclasses.asdict(self._noise) | {"others_share": self._noise.others_share}
