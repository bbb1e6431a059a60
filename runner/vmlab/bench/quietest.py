"""A measurement that noise can spoil, repeated until it was quiet: all attempts are kept, and the quietest is the one that counts."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

from vmlab.bench.noise import NoiseMeter
from vmlab.errors import UsageError

QUIET = 0.1
"""The noise from which on an attempt counts as disturbed: the share of the host's CPU time that others had."""

Measure = Callable[[], Mapping[str, Any]]
NoiseOf = Callable[[Mapping[str, Any]], float]


def attempt(measure: Measure, noise: NoiseOf | None, meter: Callable[[], AbstractContextManager[NoiseMeter]]) -> dict[str, Any]:
    """One attempt: its ``noise``, what the ``host`` did meanwhile, and what was ``measured``.

    UsageError when ``measure`` gives no object, or ``noise`` no number that is 0 or more.
    """
    with meter() as metered:
        measured = measure()
    if not isinstance(measured, Mapping):
        raise UsageError(f"what was measured is no object but {measured!r}"[:200], hint="quietest() takes a function that returns a record")
    host = metered.record()
    level = host["others_share"] if noise is None else noise(measured)
    if isinstance(level, bool) or not isinstance(level, int | float) or not math.isfinite(level) or level < 0:
        raise UsageError(f"a measure of noise gave {level!r}", hint="it must give a number: 0 where it was quiet, more where it was not")
    return {"noise": level, "host": host, "measured": dict(measured)}


def chosen(attempts: list[dict[str, Any]]) -> dict[str, Any]:
    """The quietest attempt's record, and ``attempts``: the noise of each, and what was measured in those that do not count.

    UsageError when what was measured has a member of that name already.
    """
    best = min(attempts, key=lambda each: float(each["noise"]))
    record: dict[str, Any] = best["measured"]
    if "attempts" in record:
        raise UsageError("what was measured has a member 'attempts' already", hint="give it another name: quietest() puts its own there")
    kept = [
        {"noise": each["noise"], "quietest": each is best, "host": each["host"]} | ({} if each is best else {"measured": each["measured"]})
        for each in attempts
    ]
    return {**record, "attempts": kept}
