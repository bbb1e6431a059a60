"""Garbage at every place of sound evidence that a check reads: the guest may print what it likes, and no check may break on it.

Each value in turn is taken away, made null, text, negative, huge, empty or of another kind; each list is cut, turned round, and has a
member twice; each two neighbours change places; and all values that are alike are made the same. What a check says to that is its own
affair; that it says something is what is looked for here. A check is judged only where it reads, which it was watched at, so that evidence
of thousands of values takes seconds.
"""

from __future__ import annotations

import itertools
import re
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vmlab.lab.checks import Check
from vmlab.lab.controls.world import World
from vmlab.lab.evidence import EvidenceProblem
from vmlab.lab.reads import Reads
from vmlab.lab.verdict import Verdict

GARBAGE: tuple[Any, ...] = (
    None,
    True,
    "",
    "garbage",
    "0x0",
    0,
    -1,
    -0.5,
    1e308,
    float("nan"),
    1 << 70,
    [],
    {},
    [None],
    {"garbage": None},
)
"""What is put in a value's place. (NaN is no JSON, but what reads evidence should not rely on who wrote it.)"""

_INDEX = re.compile(r"\[\d+\]")
_SHOWN = 20


@dataclass(frozen=True)
class Spot:
    """A value of the evidence by its place, and by what holds it."""

    place: str
    holder: Any
    key: Any

    @property
    def value(self) -> Any:
        """The value."""
        return self.holder[self.key]

    @property
    def around(self) -> str:
        """The place of what holds it."""
        return self.place.removesuffix(f"[{self.key}]") if isinstance(self.holder, list) else self.place.removesuffix(f".{self.key}")

    @property
    def likeness(self) -> tuple[str, ...]:
        """What is the same for values that are alike: the place but for its indices, the kind, and an object's members."""
        value = self.value
        members = tuple(map(str, value)) if isinstance(value, dict) else ()
        return (_INDEX.sub("[*]", self.place), type(value).__name__, *members)

    @property
    def family(self) -> tuple[str, str]:
        """What is the same for values of one meaning: the last step and the kind, wherever they are."""
        return (str(self.key) if isinstance(self.holder, dict) else "", type(self.value).__name__)


@dataclass
class Mutated:
    """What came of a check on mutated evidence."""

    check: str
    judged: int = 0
    broke: list[str] = field(default_factory=list)
    """Where it broke: the place, what was done there, and the exception."""

    def hold(self) -> None:
        """AssertionError when the check broke anywhere, or read nothing."""
        if self.broke:
            more = f"\n  and {len(self.broke) - _SHOWN} more" if len(self.broke) > _SHOWN else ""
            raise AssertionError(f"{self.check} breaks on garbage:\n  " + "\n  ".join(self.broke[:_SHOWN]) + more)
        if not self.judged:
            raise AssertionError(f"{self.check} reads nothing of the sound evidence, so that nothing of it could be garbage")


def mutate(check: Check, world: World, reads: Reads, alike: int) -> Mutated:
    """Judge a check in a world (which is used up) with garbage in turn at each place that it ``reads``.

    Of values that are alike so many are taken, the first and the last among them.
    """
    found = Mutated(check.id)
    roots = {"parameters": world.parameters, "run": world.run}
    spots = [*spots_of(world.observations), *(spot for name, root in roots.items() for spot in spots_of(root, f"{name}."))]
    read = [spot for spot in spots if spot.place in reads.places or spot.around in reads.members]
    for what in itertools.chain(*(_mutants(spot) for spot in _some(read, alike)), *map(_together, _families(read))):
        why = _broken_by(check, world)
        found.judged += 1
        if why:
            found.broke.append(f"{what}: {why}")
    return found


def spots_of(value: Any, prefix: str = "") -> Iterator[Spot]:
    """Every value within, in order, whatever holds others before these."""
    if isinstance(value, dict):
        for key in value:
            spot = Spot(f"{prefix}{key}", value, key)
            yield spot
            yield from spots_of(value[key], f"{spot.place}{'.' if isinstance(value[key], dict) else ''}")
    elif isinstance(value, list):
        for i, member in enumerate(value):
            yield Spot(f"{prefix}[{i}]", value, i)
            yield from spots_of(member, f"{prefix}[{i}]{'.' if isinstance(member, dict) else ''}")


def _some(spots: Sequence[Spot], alike: int) -> list[Spot]:
    """Of those that are alike the first ones and the last."""
    groups: dict[tuple[str, ...], list[Spot]] = {}
    for spot in spots:
        groups.setdefault(spot.likeness, []).append(spot)
    return [spot for group in groups.values() for spot in (group if len(group) <= alike else [*group[: alike - 1], group[-1]])]


def _families(spots: Sequence[Spot]) -> list[list[Spot]]:
    """The single values of one meaning, where there are several."""
    families: dict[tuple[str, str], list[Spot]] = {}
    for spot in spots:
        if not isinstance(spot.value, dict | list):
            families.setdefault(spot.family, []).append(spot)
    return [family for family in families.values() if len(family) > 1]


def _together(family: Sequence[Spot]) -> Iterator[str]:
    """Make all of a family the same in each way in turn; what was there is put back."""
    kept = [spot.value for spot in family]
    for garbage in GARBAGE:
        for spot in family:
            spot.holder[spot.key] = garbage
        yield f"{family[0].place} and {len(family) - 1} more = {garbage!r}"
    for spot, value in zip(family, kept, strict=True):
        spot.holder[spot.key] = value


def _mutants(spot: Spot) -> Iterator[str]:
    """Change a value in each way in turn, and tell the place and the way; what was there is put back before the next."""
    holder, key, value, place = spot.holder, spot.key, spot.value, spot.place
    for garbage in GARBAGE:
        if type(garbage) is not type(value) or garbage != value:
            holder[key] = garbage
            yield f"{place} = {garbage!r}"
    holder[key] = value
    yield from _removed(spot)
    if isinstance(holder, list):
        holder.insert(key, value)
        yield f"{place} twice"
        del holder[key]
    yield from _swapped(spot)
    if isinstance(value, list) and len(value) > 1:
        holder[key] = value[::-1]
        yield f"{place} turned round"
        holder[key] = value[: len(value) // 2]
        yield f"{place} cut in half"
        holder[key] = value


def _removed(spot: Spot) -> Iterator[str]:
    """Without it; the order of an object's members is kept."""
    kept = spot.holder.copy()
    del spot.holder[spot.key]
    yield f"{spot.place} deleted"
    spot.holder.clear()
    if isinstance(spot.holder, list):
        spot.holder.extend(kept)
    else:
        spot.holder.update(kept)


def _swapped(spot: Spot) -> Iterator[str]:
    """With the value of its neighbour, which gets this one."""
    holder, key = spot.holder, spot.key
    keys = list(range(len(holder))) if isinstance(holder, list) else list(holder)
    at = keys.index(key)
    if len(keys) > 1:
        other = keys[at + 1 if at + 1 < len(keys) else at - 1]
        holder[key], holder[other] = holder[other], holder[key]
        yield f"{spot.place} swapped with {str(other)[:60]}"
        holder[key], holder[other] = holder[other], holder[key]


def _broken_by(check: Check, world: World) -> str:
    """By what the check breaks in this world, with the line where; empty when it gives a verdict."""
    try:
        verdict = check.function(world.evidence)
    except EvidenceProblem:
        return ""
    except Exception as exc:  # noqa: BLE001  (Whatever it is, it is what is looked for.)
        frame = traceback.extract_tb(exc.__traceback__)[-1]
        return f"{type(exc).__name__}: {exc} ({Path(frame.filename).name}:{frame.lineno})"
    return "" if isinstance(verdict, Verdict) else "it returned no verdict"
