"""The picture of an address translation: the address split into its indices, every table entry that was read, every hop, with real values.

Drawn from evidence that a guest had a hand in: what is not as it should be becomes a note instead of a picture, never an exception.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from vmlab.lab.pictures import Translation
from vmlab.lab.places import look_up
from vmlab.report.page import form
from vmlab.report.text import plain

_LEVELS = 5
_INDEX_BITS, _OFFSET_BITS = 9, 12

# The bits of an entry that say something here (Intel SDM volume 3A, 4.5); PS only where a page may be large.
_FLAGS = ((0, "P"), (1, "W"), (2, "U"), (5, "A"), (6, "D"), (7, "PS"), (63, "NX"))
_FLAG_NAMES = "P present, W writable, U for user mode, A accessed, D written to, PS a large page, NX not executable"


@dataclass(frozen=True)
class Step:
    """One look into one table."""

    level: int
    index: int
    entry_address: int
    entry: int

    @property
    def flags(self) -> str:
        """The entry's bits by their letters."""
        seen = [name for bit, name in _FLAGS if self.entry >> bit & 1 and (name != "PS" or self.level in (2, 3))]
        return " ".join(name for name in seen if name != "D" or self.level == 1 or "PS" in seen) or "not present"

    @property
    def table(self) -> int:
        """Where the table begins."""
        return self.entry_address - 8 * self.index


@dataclass(frozen=True)
class Stage:
    """A name of the byte: its address, and what was read there. None: not shown on this host."""

    name: str
    address: int | None
    holds: str | None
    is_marker: bool

    @property
    def holding(self) -> str:
        """What was read there, in words."""
        if self.is_marker:
            return "holds the marker"
        return "not read" if self.holds is None else "holds something else"


@dataclass(frozen=True)
class AddressPart:
    """Some bits of the address: the index that one level of tables is asked with, or what no table looks at (``level`` is None)."""

    label: str
    value: str
    bits: str
    level: int | None = None


@dataclass(frozen=True)
class Picture:
    """A translation ready for the page; ``svg`` is empty when there is nothing to draw, and ``note`` says why."""

    id: str
    definition: Translation
    svg: str = ""
    note: str = ""
    steps: Sequence[Step] = ()
    stages: Sequence[Stage] = ()


def draw(definition: Translation, observations: Mapping[str, Any], id_: str) -> Picture:
    """The picture of one translation. ``id_`` begins every id inside it."""
    walk = look_up(observations, definition.walk)
    steps = _steps(walk)
    virtual, page_bytes = (_hexadecimal(walk.get("virtual")), walk.get("page_bytes")) if isinstance(walk, dict) else (None, None)
    if not steps or virtual is None or page_bytes not in (0, 1 << 12, 1 << 21, 1 << 30):
        return Picture(id_, definition, note="No data: the run recorded no translation that could be drawn.")
    marker = look_up(observations, definition.marker)
    stages = [
        Stage(
            name=plain(stage.name),
            address=_hexadecimal(look_up(observations, stage.address)),
            holds=_text(look_up(observations, stage.holds)),
            is_marker=isinstance(marker, str) and bool(marker) and look_up(observations, stage.holds) == marker,
        )
        for stage in definition.stages
    ]
    svg = form("translation.svg.j2").render(
        id=id_,
        title=definition.title,
        description=_describe(definition, virtual, steps, stages),
        virtual=virtual,
        parts=list(_parts(virtual, page_bytes, steps)),
        steps=steps,
        present=page_bytes != 0,
        stages=stages,
        flag_names=_FLAG_NAMES,
    )
    return Picture(id_, definition, svg=svg, steps=steps, stages=stages)


def _steps(walk: Any) -> list[Step]:
    """The steps of a walk, or none when one of them is not what it should be."""
    rows = walk.get("steps") if isinstance(walk, dict) else None
    if not isinstance(rows, list) or not 0 < len(rows) <= _LEVELS:
        return []
    steps = [step for row in rows if isinstance(row, dict) and (step := _step(row)) is not None]
    in_order = all(below.level == above.level - 1 for above, below in pairwise(steps))
    return steps if len(steps) == len(rows) and in_order else []


def _step(row: Mapping[str, Any]) -> Step | None:
    level, index = _whole(row.get("level"), 1, _LEVELS), _whole(row.get("index"), 0, (1 << _INDEX_BITS) - 1)
    address, entry = _hexadecimal(row.get("entry_address")), _hexadecimal(row.get("entry"))
    return None if level is None or index is None or address is None or entry is None else Step(level, index, address, entry)


def _hexadecimal(value: Any) -> int | None:
    return int(value, 16) if isinstance(value, str) and re.fullmatch(r"0x[0-9a-f]{1,16}", value) else None


def _whole(value: Any, least: int, most: int) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and least <= value <= most else None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _describe(definition: Translation, virtual: int, steps: Sequence[Step], stages: Sequence[Stage]) -> str:
    """The picture in words."""
    parts = [f"Translation of the guest-virtual address {virtual:#x} by {steps[0].level} levels of page tables."]
    parts += [
        f"Level {step.level}, index {step.index}: the entry at {step.entry_address:#x} is {step.entry:#x} ({step.flags})." for step in steps
    ]
    parts += [f"{stage.name}: {_told(stage)}." for stage in stages]
    return plain(" ".join([*parts, definition.shows]))


def _told(stage: Stage) -> str:
    where = "not shown on this host" if stage.address is None else f"{stage.address:#x}"
    return f"{where}, {stage.holding}"


def _parts(virtual: int, page_bytes: int, steps: Sequence[Step]) -> Iterator[AddressPart]:
    """The address as its parts, highest bits first."""
    levels = steps[0].level
    # Of a translation that ended early no level below it is known: nine bits each all the same.
    last = steps[-1].level if page_bytes else 1
    offset_bits = _OFFSET_BITS + _INDEX_BITS * (last - 1)
    high = _OFFSET_BITS + _INDEX_BITS * levels
    yield AddressPart("sign", f"{virtual >> high:#x}", f"63:{high}")
    for level in range(levels, last - 1, -1):
        shift = _OFFSET_BITS + _INDEX_BITS * (level - 1)
        index = virtual >> shift & (1 << _INDEX_BITS) - 1
        yield AddressPart(f"level {level}", str(index), f"{shift + _INDEX_BITS - 1}:{shift}", level)
    yield AddressPart("offset", f"{virtual & (1 << offset_bits) - 1:#x}", f"{offset_bits - 1}:0")
