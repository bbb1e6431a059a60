"""Plots from data that nobody vouches for."""

from __future__ import annotations

import re
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from vmlab.lab.pictures import Plot
from vmlab.report.plots import draw, drawings

KINDS = ["line", "points", "bars"]


def plot(kind: str = "line", *, series: int = 1, unit: str = "") -> Plot:
    return Plot.model_validate(
        {
            "id": "p",
            "title": "A $title_ & <more>",
            "kind": kind,
            "x": {"label": "X"},
            "y": {"label": "Y", "unit": unit},
            "series": [{"name": f"series {i}", "rows": f"o.rows{i}", "x": "x", "y": "y"} for i in range(series)],
            "shows": "It grows.",
        }
    )


def evidence(*rows: Any) -> dict[str, Any]:
    return {"o": {f"rows{i}": each for i, each in enumerate(rows)}}


LINE = [{"x": x, "y": x * 1.5} for x in range(10)]


@pytest.mark.parametrize("kind", KINDS)
def test_pictures_are_whole_and_follow_the_page(kind: str) -> None:
    drawing = draw(plot(kind, series=6), evidence(*[LINE] * 6), "plot-7")
    root = ET.fromstring(drawing.svg)

    assert root.get("role") == "img"
    assert root.findtext("title") == "A $title_ & <more>"
    assert "series 5: 10 points, X from 0 to 9, Y from 0 to 13.5, median 6.75, last 13.5." in (root.findtext("desc") or "")
    assert (root.findtext("desc") or "").endswith("It grows.")
    assert all((element.get("id") or "plot-7-").startswith("plot-7-") for element in root.iter())
    assert not re.search(r"#0[12]0[0-9]{3}", drawing.svg), "a colour that follows no theme"
    assert set(re.findall(r"var\((--[a-z0-9-]+)\)", drawing.svg)) >= {"--plot-1", "--plot-5", "--muted", "--line"}
    assert root.find(".//style") is None
    assert "font-family" not in drawing.svg
    assert "series 0" in "".join(root.itertext()), "the legend names the series"


def test_pictures_are_the_same_every_time_whatever_was_drawn_before() -> None:
    first = draw(plot(), evidence(LINE), "plot-1")
    draw(plot("bars", series=2), evidence(LINE, LINE), "plot-2")

    assert draw(plot(), evidence(LINE), "plot-1") == first


def test_bytes_are_shown_in_the_unit_that_is_short() -> None:
    drawing = draw(plot(unit="bytes"), evidence([{"x": x, "y": x * (20 << 20)} for x in range(5)]), "p")

    assert "Y (MiB)" in drawing.svg
    assert "last 80 MiB" in drawing.description


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "observations",
    [
        {},
        {"o": None},
        {"o": []},
        evidence({}),
        evidence("text"),
        evidence([]),
        evidence([None, 1, "x", [], {}, {"x": 1}, {"x": [], "y": 2}]),
    ],
)
def test_missing_and_malformed_data_become_a_note(kind: str, observations: dict[str, Any]) -> None:
    drawing = draw(plot(kind), observations, "p")

    assert drawing.svg == ""
    assert drawing.note.startswith("No data")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "rows",
    [
        [{"x": 0, "y": 0}],
        [{"x": 1, "y": 5}] * 7,
        [{"x": -3, "y": -5}, {"x": 4, "y": 5}],
        [{"x": 1e300, "y": 1e308}, {"x": -1e300, "y": -1e308}],
        [{"x": 10**400, "y": 1}, {"x": 1, "y": float("inf")}, {"x": 2, "y": float("nan")}, {"x": 3, "y": True}, {"x": 4, "y": 1}],
        [{"x": "<script>$\x00\u202e" * 40, "y": 1}, {"x": "", "y": 2}, {"x": 3, "y": 3}, {"x": True, "y": 3}],
        [{"x": f"category {i}", "y": i} for i in range(3000)],
        [{"x": i, "y": (i * 7919) % 1000} for i in range(20_000)],
        [{"x": i % 3, "y": (i * 7919) % 1000} for i in range(20_000)],
        [{"x": 1e-300, "y": 1e-300}, {"x": 2e-300, "y": 3e-300}],
        [*[{"x": i, "y": i} for i in range(20)], {"x": "stray", "y": 1}],
        [{"x": "漢字", "y": 1}, {"x": "🎈", "y": 2}],
    ],
)
def test_odd_data_never_raises_and_stays_small(kind: str, rows: list[dict[str, Any]]) -> None:
    drawing = draw(plot(kind), evidence(rows), "p")

    assert drawing.svg or drawing.note
    if drawing.svg:
        ET.fromstring(drawing.svg)
    assert len(drawing.svg) < 400_000


def test_a_spike_in_many_points_is_kept() -> None:
    rows = [{"x": i, "y": 1} for i in range(100_000)]
    rows[54_321]["y"] = 999

    flat = draw(plot(), evidence([{"x": i, "y": 1} for i in range(100_000)]), "p")
    spiky = draw(plot(), evidence(rows), "p")

    assert "1,000" in spiky.svg
    assert "1,000" not in re.sub(r"\d\d,000", "", flat.svg).replace("100,000", "")
    assert len(spiky.svg) < 100_000


def test_rows_that_cannot_be_drawn_are_counted() -> None:
    drawing = draw(plot(series=2), evidence([*LINE, None, {"x": 1}]), "p")

    assert drawing.svg
    assert drawing.notes == ["series 0: 2 rows without usable numbers left out", "series 1: no rows at o.rows1"]


def test_a_stray_word_does_not_turn_a_scale_into_names() -> None:
    drawing = draw(plot(), evidence([*LINE, {"x": "stray", "y": 1}]), "p")

    assert "stray" not in drawing.svg
    assert drawing.notes == ["series 0: 1 row without usable numbers left out"]


def test_a_failure_to_draw_is_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_args: Any) -> str:
        raise RuntimeError("no picture today")

    monkeypatch.setattr("vmlab.report.plots._svg", broken)

    (drawing,) = drawings([plot()], evidence(LINE))
    assert drawing.note == "The data is there but cannot be drawn; see the table."


def test_the_settings_of_matplotlib_are_left_as_they_were() -> None:
    mpl = pytest.importorskip("matplotlib")
    mpl.rcParams["font.size"] = 23.0
    try:
        one = draw(plot(), evidence(LINE), "p").svg
        assert mpl.rcParams["font.size"] == 23.0
    finally:
        mpl.rcdefaults()
    assert draw(plot(), evidence(LINE), "p").svg == one


def gantt(names: int = 2) -> Plot:
    return Plot.model_validate(
        {
            "id": "p",
            "title": "When each ran",
            "kind": "gantt",
            "x": {"label": "time", "unit": "s"},
            "y": {"label": "service"},
            "series": [{"name": f"way {i}", "rows": f"o.rows{i}", "x": "b", "end": "e", "y": "s"} for i in range(names)],
            "shows": "A staircase.",
        }
    )


STAIRS = [{"s": "first", "b": 0, "e": 1}, {"s": "second", "b": 1, "e": 2.5}]
TOGETHER = [{"s": "second", "b": 0, "e": 1.5}, {"s": "first", "b": 0, "e": 1}]


def test_a_gantt_chart_has_a_panel_a_series_and_tells_it_in_words() -> None:
    drawing = draw(gantt(), evidence(STAIRS, TOGETHER), "plot-1")
    root = ET.fromstring(drawing.svg)
    text = "".join(root.itertext())
    assert text.count("second") >= 2, "each panel names its lanes"
    assert "way 0" in text
    assert "way 1" in text
    assert root.findtext("desc") == (
        "Gantt chart: service by time (s). way 0: 2 bars, from 0 s to 2.5 s, at most 1 at once. "
        "way 1: 2 bars, from 0 s to 1.5 s, at most 2 at once. A staircase."
    )
    assert not re.search(r"#0[12]0[0-9]{3}", drawing.svg), "a colour that follows no theme"
    assert drawing.series[0].rows == [("first", 0.0), ("second", 1.0)]
    assert drawing.series[0].ends == [1.0, 2.5]


def test_a_gantt_chart_is_as_tall_as_its_lanes_need() -> None:
    many = [{"s": f"s{i}", "b": 0, "e": 1} for i in range(30)]
    low, high = (ET.fromstring(draw(gantt(1), evidence(rows), "p").svg).get("viewBox") for rows in (STAIRS, many))
    assert low is not None
    assert high is not None
    assert float(high.split()[3]) > float(low.split()[3]) + 300


@pytest.mark.parametrize(
    "row", [{"s": "x", "b": 2, "e": 1}, {"s": "x", "b": "now", "e": 1}, {"s": None, "b": 0, "e": 1}, {"s": "x", "b": 0}, 7, None]
)
def test_bars_that_are_none_are_left_out_and_counted(row: Any) -> None:
    drawing = draw(gantt(1), evidence([*STAIRS, row]), "p")
    assert drawing.series[0].left_out == 1
    assert drawing.notes == ["way 0: 1 row without usable numbers left out"]
    assert draw(gantt(1), evidence([row]), "p").svg == ""


def test_a_series_without_bars_has_no_panel() -> None:
    drawing = draw(gantt(), evidence(STAIRS, []), "p")
    assert drawing.svg
    assert drawing.notes == ["way 1: no rows at o.rows1"]
