"""Plots of the evidence as inline SVG that follows the page's colours, with a text alternative and their numbers as a table.

What is drawn comes from a guest, so nothing here trusts it: rows that are not numbers are left out and counted, and a plot that
cannot be drawn becomes a note instead of a picture, never an exception.
"""

from __future__ import annotations

import io
import itertools
import logging
import statistics
import threading
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from vmlab.lab.pictures import Axis, Plot, Series
from vmlab.lab.places import look_up
from vmlab.report import gantt
from vmlab.report.predictions import as_number
from vmlab.report.svg import GRID, INK, SERIES, SURFACE, for_the_page
from vmlab.report.text import clip, counted, number, plain, size

log = logging.getLogger(__name__)

_DRAWN = 1500  # points a series: more cannot be told apart at this size, and a page should stay light
_CATEGORIES = 24
_LABEL = 60
_TICK = 26
_LEGEND_COLUMNS = 4
_WIDTH, _HEIGHT = 720, 320  # CSS pixels
_MANY_BYTES = 4 << 20
_PX = 72  # matplotlib's SVG has 72 units an inch, so that a font of 13 is 13 pixels

_MARKERS = ("o", "s", "^", "D", "v")
_DASHES = ("solid", (0, (5, 2)), (0, (1.5, 1.5)), (0, (7, 2, 1.5, 2)), (0, (3, 3)))
_HATCHES = ("", "////", "....", "xxxx", "----")

# matplotlib's settings belong to the process; one thread draws at a time.
_drawing = threading.Lock()


@dataclass(frozen=True)
class SeriesData:
    """The rows of one series that can be drawn, and how many cannot.

    In a Gantt chart a row is a lane and the moment at which a bar begins; ``ends`` holds the moment at which it ends.
    """

    name: str
    rows: list[tuple[float | str, float]]
    left_out: int = 0
    place: str = ""
    ends: list[float] = field(default_factory=list)

    @property
    def ys(self) -> list[float]:
        """The values."""
        return [y for _, y in self.rows]


@dataclass(frozen=True)
class Drawing:
    """A plot ready for the page. ``svg`` is empty when there is nothing to draw; then ``note`` says why."""

    id: str
    plot: Plot
    series: list[SeriesData]
    svg: str = ""
    description: str = ""
    note: str = ""
    notes: list[str] = field(default_factory=list)


def drawings(plots: Sequence[Plot], observations: Mapping[str, Any]) -> list[Drawing]:
    """Every plot of a lab, drawn from its observations."""
    return [draw(plot, observations, f"plot-{index}") for index, plot in enumerate(plots, 1)]


def draw(plot: Plot, observations: Mapping[str, Any], id_: str) -> Drawing:
    """One plot. ``id_`` begins every id inside it, so that several fit in one page."""
    data = [_read(series, observations) for series in plot.series]
    usable = [each for each in data if each.rows]
    notes = [f"{each.name}: {_trouble(each)}" for each in data if not each.rows or each.left_out]
    if not usable:
        return Drawing(id_, plot, data, note="No data: the run recorded nothing that this plot could show.", notes=notes)
    description = _describe(plot, usable)
    try:
        svg = _svg(plot, usable, id_, description)
    except Exception:  # (Guests write what they like; a picture that fails must not cost the report.)
        log.exception("plot %s could not be drawn", plot.id)
        return Drawing(id_, plot, data, note="The data is there but cannot be drawn; see the table.", notes=notes)
    return Drawing(id_, plot, data, svg=svg, description=description, notes=notes)


def unit_label(axis: Axis) -> str:
    """``Unreclaimable slab (MiB)``: an axis in words."""
    return f"{axis.label} ({axis.unit})" if axis.unit else axis.label


def _read(series: Series, observations: Mapping[str, Any]) -> SeriesData:
    rows = look_up(observations, series.rows)
    if not isinstance(rows, list):
        return SeriesData(plain(series.name), [], place=series.rows)
    if series.end:
        return _read_bars(series, rows)
    pairs = [(_x(look_up(row, series.x)), as_number(look_up(row, series.y))) for row in rows]
    kept = [(x, y) for x, y in pairs if x is not None and y is not None]
    words = sum(isinstance(x, str) for x, _ in kept)
    if 0 < words < len(kept) / 2:
        # A stray word among numbers must not turn a scale into a list of names.
        kept = [(x, y) for x, y in kept if not isinstance(x, str)]
    return SeriesData(plain(series.name), kept, len(pairs) - len(kept), series.rows)


def _read_bars(series: Series, rows: list[Any]) -> SeriesData:
    found = [(_x(look_up(row, series.y)), as_number(look_up(row, series.x)), as_number(look_up(row, series.end))) for row in rows]
    kept = [
        (str(lane), start, end) for lane, start, end in found if lane is not None and start is not None and end is not None and end >= start
    ]
    bars: list[tuple[float | str, float]] = [(lane, start) for lane, start, _ in kept]
    return SeriesData(plain(series.name), bars, len(found) - len(kept), series.rows, [end for _, _, end in kept])


def _x(value: Any) -> float | str | None:
    if isinstance(value, str):
        return clip_label(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return as_number(value)


def clip_label(text: str, limit: int = _LABEL) -> str:
    """A text of the guest short enough for an axis."""
    text = " ".join(plain(text).split())
    return text if len(text) <= limit else text[: limit - 1] + "\N{HORIZONTAL ELLIPSIS}"


def _trouble(data: SeriesData) -> str:
    if data.left_out:
        return f"{counted(data.left_out, 'row')} without usable numbers left out"
    return f"no rows at {clip(plain(data.place), _LABEL)}"


def _value(value: float | str, axis: Axis) -> str:
    if isinstance(value, str):
        return value
    if _is_bytes(axis) and abs(value) >= _MANY_BYTES:
        return size(value)
    return f"{number(value)} {axis.unit}".strip()


def _is_bytes(axis: Axis) -> bool:
    return axis.unit in ("B", "bytes", "byte")


def _describe(plot: Plot, usable: Sequence[SeriesData]) -> str:
    """The picture in words: what each series holds, its range, its last value, and what a reader should see."""
    if plot.kind == "gantt":
        told = [f"{data.name}: {gantt.told(data.ys, data.ends, lambda value: _value(value, plot.x))}." for data in usable]
        return plain(" ".join([f"Gantt chart: {plot.y.label} by {unit_label(plot.x)}.", *told, plot.shows]))
    kind = {"line": "Line plot", "points": "Point plot", "bars": "Bar chart"}[plot.kind]
    parts = [f"{kind} of {unit_label(plot.y)} by {unit_label(plot.x)}."]
    for data in usable:
        ys = data.ys
        text = f"{data.name}: {counted(len(ys), 'point')}"
        xs = [x for x, _ in data.rows if not isinstance(x, str)]
        if len(xs) == len(ys) > 1:
            text += f", {plot.x.label} from {_value(min(xs), plot.x)} to {_value(max(xs), plot.x)}"
        text += f", {plot.y.label} from {_value(min(ys), plot.y)} to {_value(max(ys), plot.y)}"
        if len(ys) > 1:
            text += f", median {_value(statistics.median(ys), plot.y)}, last {_value(ys[-1], plot.y)}"
        parts.append(text + ".")
    return plain(" ".join([*parts, plot.shows]))


def _svg(plot: Plot, usable: Sequence[SeriesData], id_: str, description: str) -> str:
    """The picture as SVG source, recoloured and with ids of its own."""
    # matplotlib is heavy, so only a report that has plots pays for it.
    import matplotlib as mpl  # noqa: PLC0415
    from matplotlib.backends.backend_svg import FigureCanvasSVG  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    with _drawing, mpl.rc_context(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mpl.rcdefaults()
        mpl.rcParams.update(_settings(id_))
        panels = [gantt.Panel(data.name, [(str(lane), start) for lane, start in data.rows], data.ends) for data in usable if data.ends]
        height = gantt.height(panels) if panels else _HEIGHT
        figure = Figure(figsize=(_WIDTH / _PX, height / _PX), dpi=_PX, layout="constrained")
        canvas: Any = FigureCanvasSVG(figure)
        if panels:
            gantt.draw(figure, panels, _axis_label(plot.x, plot.x.unit), _tick)
        else:
            _Picture(figure.add_subplot(), plot, usable).draw()
        buffer = io.BytesIO()
        canvas.print_svg(buffer, metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return for_the_page(buffer.getvalue(), id_, plain(plot.title), description)


def _settings(salt: str) -> Any:
    """Of matplotlib's settings, those that differ from its defaults; the user's own matplotlibrc must not show."""
    return {
        "svg.fonttype": "none",
        "svg.hashsalt": salt,
        "text.parse_math": False,
        "font.size": 13,
        "axes.edgecolor": INK,
        "axes.labelcolor": INK,
        "axes.facecolor": "none",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.spines.left": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "figure.facecolor": "none",
        "grid.color": GRID,
        "grid.linewidth": 1,
        "hatch.linewidth": 1.2,
        "text.color": INK,
        "xtick.color": INK,
        "ytick.color": INK,
        "xtick.major.size": 0,
        "ytick.major.size": 0,
        "legend.frameon": False,
    }


class _Picture:
    """One plot on matplotlib's axes."""

    def __init__(self, axes: Any, plot: Plot, usable: Sequence[SeriesData]) -> None:
        self.axes = axes
        self.plot = plot
        self.usable = usable
        self.y_scale, self.y_unit = _scale(plot.y, [y for data in usable for y in data.ys])
        xs = [x for data in usable for x, _ in data.rows]
        self.categories = _categories(plot, xs)
        self.x_scale, self.x_unit = _scale(plot.x, [x for x in xs if not isinstance(x, str)] if self.categories is None else [])

    def draw(self) -> None:
        """Everything: marks, axes, legend."""
        {"line": self._line, "points": self._points, "bars": self._bars}[self.plot.kind]()
        self._decorate()

    def _xy(self, data: SeriesData) -> tuple[list[float], list[float]]:
        places = {} if self.categories is None else {x: float(i) for i, x in enumerate(self.categories)}
        pairs = [
            (places[x] if self.categories is not None else float(x) / self.x_scale, y / self.y_scale)
            for x, y in data.rows
            if self.categories is None or x in places
        ]
        return [x for x, _ in pairs], [y for _, y in pairs]

    def _line(self) -> None:
        for index, data in enumerate(self.usable):
            xs, ys = _thin(*self._xy(data))
            self.axes.plot(xs, ys, label=data.name, linestyle=_dash(index), linewidth=2, **_marks(index, 6 if len(xs) <= 60 else 0))

    def _points(self) -> None:
        """A cloud, or, where few places on x repeat, the spread at each place with a bar at its median."""
        for index, data in enumerate(self.usable):
            xs, ys = self._xy(data)
            groups = _grouped(xs, ys)
            if (self.categories is None and len(groups) > 12) or len(groups) == len(xs) > 12:
                xs, ys = _thin(xs, ys)
                self.axes.plot(xs, ys, linestyle="none", label=data.name, **_marks(index, 6))
                continue
            step = _gap(sorted({x for each in self.usable for x in self._xy(each)[0]}))
            room = 0.7 * step / len(self.usable)
            shift = (index - (len(self.usable) - 1) / 2) * room
            spread = [(x + shift + room * 0.6 * _jitter(i, len(values)), y) for x, values in groups.items() for i, y in enumerate(values)]
            xs, ys = _thin([x for x, _ in spread], [y for _, y in spread])
            self.axes.plot(xs, ys, linestyle="none", label=data.name, **_marks(index, 6))
            for x, values in groups.items():
                if len(values) > 2:
                    middle = statistics.median(values)
                    self.axes.plot([x + shift - room * 0.45, x + shift + room * 0.45], [middle, middle], color=_color(index), linewidth=3)
        if self.categories is not None:
            self.axes.set_xlim(-0.6, len(self.categories) - 0.4)

    def _bars(self) -> None:
        """A bar at each place, its height the median there; a line from least to greatest where there are several values."""
        width = 0.76 / len(self.usable)
        for index, data in enumerate(self.usable):
            groups = _grouped(*self._xy(data))
            xs = [x + (index - (len(self.usable) - 1) / 2) * width for x in groups]
            heights = [statistics.median(values) for values in groups.values()]
            # The colour of the outline is the colour of the hatch, so a hatched bar is an outlined one without a fill.
            hatch = _HATCHES[index % len(_HATCHES)]
            look = {"facecolor": "none", "hatch": hatch} if hatch else {"facecolor": _color(index)}
            self.axes.bar(xs, heights, width * 0.9, label=data.name, edgecolor=_color(index), linewidth=1.5, **look)
            for x, values in zip(xs, groups.values(), strict=True):
                if len(values) > 1:
                    self.axes.plot([x, x], [min(values), max(values)], color=INK, linewidth=1.5, solid_capstyle="butt")

    def _decorate(self) -> None:
        axes = self.axes
        axes.set_xlabel(_axis_label(self.plot.x, self.x_unit))
        # The label of y stands above the axis, to be read without turning the head.
        legend_rows = -(-len(self.usable) // _LEGEND_COLUMNS) if len(self.usable) > 1 else 0
        axes.set_title(_axis_label(self.plot.y, self.y_unit), loc="left", fontsize=13, color=INK, pad=12 + 20 * legend_rows)
        if self.categories is not None:
            axes.set_xticks(range(len(self.categories)), [clip_label(number(each), _TICK) for each in self.categories])
            axes.grid(visible=False, axis="x")
            if sum(len(number(each)) for each in self.categories) > 90:
                axes.tick_params(axis="x", labelrotation=30)
        else:
            axes.xaxis.set_major_formatter(_tick)
        axes.yaxis.set_major_formatter(_tick)
        values = [y / self.y_scale for data in self.usable for y in data.ys]
        # (What stands side by side is compared by its height.)
        if min(values) >= 0 and (self.plot.kind == "bars" or self.categories is not None or min(values) <= max(values) / 2):
            # Some room above, so that no mark is cut in half.
            axes.set_ylim(0, max(values) * 1.07 or 1)
        if len(self.usable) > 1:
            axes.legend(
                loc="lower left",
                bbox_to_anchor=(0, 1),
                ncols=min(len(self.usable), _LEGEND_COLUMNS),
                borderaxespad=0.5,
                borderpad=0,
                handlelength=2.4,
            )


def _color(index: int) -> str:
    return SERIES[index % len(SERIES)]


def _dash(index: int) -> Any:
    return _DASHES[index % len(_DASHES)]


def _marks(index: int, points: int) -> dict[str, Any]:
    """Marker and colour of a series; with no marker for long lines, where they would hide the line."""
    look: dict[str, Any] = {"color": _color(index), "markeredgecolor": SURFACE, "markeredgewidth": 0.8}
    return look | ({"marker": _MARKERS[index % len(_MARKERS)], "markersize": points} if points else {})


def _axis_label(axis: Axis, unit: str) -> str:
    return clip_label(axis.label) + (f" ({clip_label(unit)})" if unit else "")


def _scale(axis: Axis, values: Sequence[float]) -> tuple[float, str]:
    """Many bytes are drawn in the unit in which they are short to read; few as bytes, as the texts beside the picture have them."""
    largest = max((abs(value) for value in values), default=0.0)
    if _is_bytes(axis) and largest >= _MANY_BYTES:
        for power, unit in ((3, "GiB"), (2, "MiB")):
            if largest >= 4 * 1024**power:
                return float(1024**power), unit
    return 1.0, axis.unit


def _categories(plot: Plot, xs: Sequence[float | str]) -> list[float | str] | None:
    """The places on x as words, in the order in which they came; None where x is a scale of numbers."""
    if plot.kind != "bars" and not any(isinstance(x, str) for x in xs):
        return None
    return list(dict.fromkeys(xs))[:_CATEGORIES]


def _grouped(xs: Sequence[float], ys: Sequence[float]) -> dict[float, list[float]]:
    groups: dict[float, list[float]] = {}
    for x, y in zip(xs, ys, strict=True):
        groups.setdefault(x, []).append(y)
    return groups


def _gap(places: Sequence[float]) -> float:
    """The least distance between neighbours."""
    return min((b - a for a, b in itertools.pairwise(places)), default=1.0)


def _jitter(index: int, count: int) -> float:
    """A place between -0.5 and 0.5 that spreads neighbours in time apart, the same for the same data."""
    return 0.0 if count == 1 else (index * 0.618034) % 1.0 - 0.5


def _thin(xs: list[float], ys: list[float]) -> tuple[list[float], list[float]]:
    """At most so many points as can be told apart: of each stretch the least and the greatest, so that no spike is lost."""
    if len(xs) <= _DRAWN:
        return xs, ys
    stretch = -(-2 * len(xs) // _DRAWN)
    kept: list[int] = []
    for start in range(0, len(xs), stretch):
        part = range(start, min(start + stretch, len(xs)))
        kept += sorted({min(part, key=ys.__getitem__), max(part, key=ys.__getitem__)})
    return [xs[i] for i in kept], [ys[i] for i in kept]


def _tick(value: float, _position: int) -> str:
    return number(round(value, 12))
