"""Places in the evidence: ``accumulation.samples[-1].zombies`` leads from an observation's name to a value in it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

_STEP = re.compile(r"(?:^|(?<!^)\.)([^.\[\]]+)|\[(-?\d{1,9}|\*)\]")

Step = str | int | None
"""A member's name, an index, or None for ``[*]``, which is any index."""


def steps_of(place: str) -> list[Step]:
    """The steps that a place is made of; empty where it is none."""
    end, steps = 0, list[Step]()
    for step in _STEP.finditer(place):
        if step.start() != end:
            return []
        end = step.end()
        key, index = step.groups()
        steps.append(key if key is not None else None if index == "*" else int(index))
    return steps if end == len(place) else []


def written(steps: Sequence[Step]) -> str:
    """The place that is made of these steps."""
    words = [f".{step}" if isinstance(step, str) else "[*]" if step is None else f"[{step}]" for step in steps]
    return "".join(words).removeprefix(".")


def look_up(value: Any, place: str) -> Any:
    """The value at a place, or None when there is nothing, be it for a typing error or for evidence that was never recorded."""
    steps = steps_of(place)
    for step in steps:
        if isinstance(step, str):
            value = value.get(step) if isinstance(value, Mapping) else None
        elif isinstance(value, list) and step is not None and -len(value) <= step < len(value):
            value = value[step]
        else:
            return None
    return value if steps else None
