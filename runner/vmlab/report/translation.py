"""The picture of an address translation: the address split into its indices, every table entry that was read, every hop, with real values.

Drawn from evidence that a guest had a hand in: what is not as it should be becomes a note instead of a picture, never an exception.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any
from xml.etree import ElementTree as ET

from vmlab.lab.definition import Translation
from vmlab.report.predictions import look_up
from vmlab.report.text import clip, plain

# CSS pixels.
_WIDTH = 760
_BAR_TOP, _BAR_HEIGHT = 34, 42
_ROW = 34
_STAGE_HEIGHT = 78
_GAP = 44

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
            name=stage.name,
            address=_hexadecimal(look_up(observations, stage.address)),
            holds=_text(look_up(observations, stage.holds)),
            is_marker=isinstance(marker, str) and bool(marker) and look_up(observations, stage.holds) == marker,
        )
        for stage in definition.stages
    ]
    svg = _Canvas(id_, plain(definition.title), _describe(definition, virtual, steps, stages)).draw(virtual, page_bytes, steps, stages)
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


class _Canvas:
    """The SVG under construction. Colours are the page's variables, so that it follows light and dark."""

    def __init__(self, id_: str, title: str, description: str) -> None:
        self._root = ET.Element(
            "svg", {"class": "plot", "role": "img", "aria-labelledby": f"{id_}-title", "aria-describedby": f"{id_}-desc"}
        )
        ET.SubElement(self._root, "title", {"id": f"{id_}-title"}).text = title
        ET.SubElement(self._root, "desc", {"id": f"{id_}-desc"}).text = description

    def draw(self, virtual: int, page_bytes: int, steps: Sequence[Step], stages: Sequence[Stage]) -> str:
        """Everything, from top to bottom."""
        self._text(0, 16, "guest-virtual", muted=True)
        self._text(104, 16, f"{virtual:#x}", mono=True, bold=True)
        self._bar(virtual, page_bytes, steps)
        bottom = self._rows(_BAR_TOP + _BAR_HEIGHT + 38, steps)
        present = page_bytes != 0
        height = self._stages(bottom + 26, stages) if present and stages else bottom
        if not present:
            self._text(96, bottom + 12, "the last entry says: not present. An access here is a page fault.", muted=True)
            height = bottom + 20
        self._text(0, height + 18, _FLAG_NAMES, muted=True, size=11)
        # (A pixel on either side, for the outlines.)
        self._root.set("viewBox", f"-1 0 {_WIDTH + 2} {height + 26}")
        return ET.tostring(self._root, encoding="unicode")

    def _bar(self, virtual: int, page_bytes: int, steps: Sequence[Step]) -> None:
        """The address as its parts: what no level looks at, an index for each level, the offset in the page."""
        for x, width, colour, label, value, bits in _parts(virtual, page_bytes, steps):
            self._box(x, _BAR_TOP, width, _BAR_HEIGHT, colour)
            self._text(x + width / 2, _BAR_TOP + 18, value, mono=True, bold=True, middle=True)
            self._text(x + width / 2, _BAR_TOP + 34, label, muted=True, middle=True, size=11)
            self._text(x + width / 2, _BAR_TOP + _BAR_HEIGHT + 14, bits, muted=True, middle=True, size=11)

    def _rows(self, top: float, steps: Sequence[Step]) -> float:
        """One row a table; returns where the next thing may begin."""
        self._text(96, top + 4, f"CR3 points to the table at {steps[0].table:#x}", muted=True)
        y = top + 16
        for step in steps:
            colour = _colour(step.level)
            self._arrow(40, y - 4, y + 3)
            self._box(0, y + 4, 80, _ROW - 10, colour)
            self._text(40, y + 20, f"level {step.level}", middle=True, size=12)
            self._text(96, y + 20, f"[{step.table:#x} + 8 * {step.index}]", mono=True)
            self._text(340, y + 20, "=", muted=True)
            self._text(362, y + 20, f"{step.entry:#x}", mono=True, bold=True)
            self._text(556, y + 20, step.flags, muted=True, mono=True)
            y += _ROW
        return y

    def _stages(self, top: float, stages: Sequence[Stage]) -> float:
        """The byte's further names side by side; returns where they end."""
        width = (_WIDTH - _GAP * (len(stages) - 1)) / len(stages)
        self._arrow(40, top - 22, top - 4)
        for number, stage in enumerate(stages):
            x = number * (width + _GAP)
            if number:
                self._line(x - _GAP + 6, top + _STAGE_HEIGHT / 2, x - 10, top + _STAGE_HEIGHT / 2)
                self._head(x - 5, top + _STAGE_HEIGHT / 2, across=True)
            self._box(x, top, width, _STAGE_HEIGHT, "--accent" if stage.address is not None else "--muted", dashed=stage.address is None)
            self._text(x + 12, top + 22, stage.name, muted=True)
            self._text(x + 12, top + 44, "not shown here" if stage.address is None else f"{stage.address:#x}", mono=True, bold=True)
            self._text(x + 12, top + 64, ("✓ " if stage.is_marker else "") + stage.holding, size=12)
        return top + _STAGE_HEIGHT

    def _text(
        self,
        x: float,
        y: float,
        text: str,
        *,
        muted: bool = False,
        mono: bool = False,
        bold: bool = False,
        middle: bool = False,
        size: int = 13,
    ) -> None:
        style = f"font-size:{size}px;fill:var({'--muted' if muted else '--ink'})"
        style += ";font-family:var(--mono)" if mono else ""
        style += ";font-weight:640" if bold else ""
        place = {"x": f"{x:g}", "y": f"{y:g}", "style": style} | ({"text-anchor": "middle"} if middle else {})
        ET.SubElement(self._root, "text", place).text = clip(plain(text), 120)

    def _box(self, x: float, y: float, width: float, height: float, colour: str, *, dashed: bool = False) -> None:
        style = f"fill:var({colour});fill-opacity:.09;stroke:var({colour});stroke-width:1.4" + (";stroke-dasharray:5 4" if dashed else "")
        ET.SubElement(
            self._root, "rect", {"x": f"{x:g}", "y": f"{y:g}", "width": f"{width:g}", "height": f"{height:g}", "rx": "5", "style": style}
        )

    def _arrow(self, x: float, top: float, bottom: float) -> None:
        self._line(x, top, x, bottom - 4)
        self._head(x, bottom, across=False)

    def _line(self, x1: float, y1: float, x2: float, y2: float) -> None:
        ends = {"x1": f"{x1:g}", "y1": f"{y1:g}", "x2": f"{x2:g}", "y2": f"{y2:g}"}
        ET.SubElement(self._root, "line", ends | {"style": "stroke:var(--muted);stroke-width:1.4"})

    def _head(self, x: float, y: float, *, across: bool) -> None:
        """An arrow's head that ends at (x, y)."""
        points = [(x, y), (x - 8, y - 4), (x - 8, y + 4)] if across else [(x, y), (x - 4, y - 8), (x + 4, y - 8)]
        text = " ".join(f"{a:g},{b:g}" for a, b in points)
        ET.SubElement(self._root, "polygon", {"points": text, "style": "fill:var(--muted)"})


def _parts(virtual: int, page_bytes: int, steps: Sequence[Step]) -> Iterator[tuple[float, float, str, str, str, str]]:
    """(x, width, colour, label, value, bits) of each part of the address, highest bits first."""
    levels = steps[0].level
    # Of a translation that ended early no level below it is known: nine bits each all the same.
    last = steps[-1].level if page_bytes else 1
    offset_bits = _OFFSET_BITS + _INDEX_BITS * (last - 1)
    high = _OFFSET_BITS + _INDEX_BITS * levels
    sign, offset = 74, 150
    width = (_WIDTH - sign - offset) / (levels - last + 1)
    yield 0, sign - 6, "--muted", "sign", f"{virtual >> high:#x}", f"63:{high}"
    for number, level in enumerate(range(levels, last - 1, -1)):
        shift = _OFFSET_BITS + _INDEX_BITS * (level - 1)
        index = virtual >> shift & (1 << _INDEX_BITS) - 1
        x = sign + number * width
        yield x, width - 6, _colour(level), f"level {level}", str(index), f"{shift + _INDEX_BITS - 1}:{shift}"
    yield _WIDTH - offset, offset, "--muted", "offset", f"{virtual & (1 << offset_bits) - 1:#x}", f"{offset_bits - 1}:0"


def _colour(level: int) -> str:
    return f"--plot-{level}"
