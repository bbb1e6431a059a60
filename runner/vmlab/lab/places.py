"""Places in the evidence: ``accumulation.samples[-1].zombies`` leads from an observation's name to a value in it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import AfterValidator

_STEP = re.compile(r"(?:^|(?<!^)\.)([^.\[\]]+)|\[(-?\d{1,9}|\*)\]")

Step = str | int | None
"""A member's name, an index, or None for ``[*]``, which is any index."""

_ANY = "*"


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


def leads_somewhere(value: Any, kept: str) -> bool:
    """Whether there is anything at a place that may hold ``*`` and ``[*]``; a null counts, for it was recorded."""
    steps = steps_of(kept)
    return bool(steps) and _stands(value, steps)


def _stands(value: Any, steps: Sequence[Step]) -> bool:
    if not steps:
        return True
    first, rest = steps[0], steps[1:]
    if isinstance(first, str):
        members = [] if not isinstance(value, Mapping) else value.values() if first == _ANY else [value[first]] if first in value else []
        return any(_stands(each, rest) for each in members)
    if not isinstance(value, list):
        return False
    return any(_stands(each, rest) for each in (value if first is None else value[first:][:1]))


def covers(kept: str, place: str) -> bool:
    """Whether ``place`` is ``kept`` or lies below it. In ``kept``, ``*`` is any member and ``[*]`` any index; a name is only itself.

    An index that counts from the end covers no other: without the evidence nobody knows which it is.
    """
    pattern, steps = steps_of(kept), steps_of(place)
    if not pattern or not steps or len(steps) < len(pattern):
        return False
    return all(_fits(wanted, found) for wanted, found in zip(pattern, steps, strict=False))


def _fits(wanted: Step, found: Step) -> bool:
    if wanted is None:
        return not isinstance(found, str)
    return wanted == found or (wanted == _ANY and isinstance(found, str))


def _checked(place: str) -> str:
    steps = steps_of(place)
    if not steps or not isinstance(steps[0], str) or steps[0] == _ANY:
        raise ValueError("expected a place: an observation's name, then members and indices, such as growth.samples[*].count")
    return place


KeptPlace = Annotated[str, AfterValidator(_checked)]
"""A place that may hold ``*`` for any member and ``[*]`` for any index, and stands for all that lies below it."""
