"""Gantt charts: what ran when. One panel a series, one lane a name, all panels over the same time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from vmlab.report.svg import INK, SERIES

_LANES = 40  # lanes a panel: more are no picture any more
_LANE, _HEAD, _FOOT = 15, 40, 44  # CSS pixels of a lane, of a panel's title, and of the axis below


@dataclass(frozen=True)
class Panel:
    """One series: its bars as (lane, start), and the end of each."""

    name: str
    bars: list[tuple[str, float]]
    ends: list[float]


def height(panels: Sequence[Panel]) -> int:
    """How tall the picture must be for every lane to be read, in CSS pixels."""
    return len(panels) * (_HEAD + _LANE * len(_lanes(panels))) + _FOOT


def at_once(starts: Sequence[float], ends: Sequence[float]) -> int:
    """How many bars there are at the same moment, at most. One that begins when another ends does not overlap it."""
    edges = sorted([(end, -1) for end in ends] + [(start, 1) for start in starts])
    now = most = 0
    for _, step in edges:
        now += step
        most = max(most, now)
    return most


def told(starts: Sequence[float], ends: Sequence[float], value: Callable[[float], str]) -> str:
    """A panel in words."""
    bars = "1 bar" if len(starts) == 1 else f"{len(starts)} bars"
    return f"{bars}, from {value(min(starts))} to {value(max(ends))}, at most {at_once(starts, ends)} at once"


def draw(figure: Any, panels: Sequence[Panel], label: str, tick: Callable[[float, int], str]) -> None:
    """Draw the panels below each other on matplotlib's figure."""
    lanes = _lanes(panels)
    places = {lane: row for row, lane in enumerate(lanes)}
    all_axes = figure.subplots(len(panels), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    for index, (axes, panel) in enumerate(zip(all_axes, panels, strict=True)):
        seen = [(places[lane], start, end) for (lane, start), end in zip(panel.bars, panel.ends, strict=True) if lane in places]
        colour = SERIES[index % len(SERIES)]
        rows, starts, ends = zip(*seen, strict=True)
        lengths = [end - start for start, end in zip(starts, ends, strict=True)]
        axes.barh(rows, lengths, left=starts, height=0.72, color=colour, edgecolor=colour, linewidth=1)
        axes.set_title(panel.name, loc="left", fontsize=13, fontweight="bold", color=INK, pad=8)
        axes.set_yticks(range(len(lanes)), lanes, fontsize=11)
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="x", labelbottom=index == len(panels) - 1)
        axes.xaxis.set_major_formatter(tick)
    all_axes[0].set_ylim(len(lanes) - 0.4, -0.6)
    least = min(start for panel in panels for _, start in panel.bars)
    if least >= 0:
        all_axes[0].set_xlim(left=0)
    all_axes[-1].set_xlabel(label)


def _lanes(panels: Sequence[Panel]) -> list[str]:
    """Every lane, in the order in which the first panel begins them."""
    ordered = [lane for panel in panels for lane, _ in sorted(panel.bars, key=lambda bar: bar[1])]
    return list(dict.fromkeys(ordered))[:_LANES]
