"""What ``lab.yaml`` says of pictures: plots of numbers and of address translations, as data. `vmlab.report` draws them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from vmlab.lab.strict import Id, Strict, Text


class Axis(Strict):
    """One axis of a plot."""

    label: str = Field(description="what is on the axis")
    unit: str = Field(default="", description="its unit")


class Series(Strict):
    """One line, cloud of points or row of bars: a list of objects in the evidence, and which members are x and y."""

    name: str = Field(description="its name in the legend")
    rows: str = Field(description="place of a list of objects in the evidence, e.g. accumulation.samples")
    x: str = Field(description="member of each object that is x")
    y: str = Field(description="member of each object that is y")
    end: str = Field(default="", description="in a Gantt chart, where x is a bar's begin and y its lane: member that is its end")


class Plot(Strict):
    """A picture of the evidence, as data: the report draws it and prints its numbers as a table."""

    id: Id = Field(description="its name in the report")
    title: str = Field(description="its heading")
    kind: Literal["line", "points", "bars", "gantt"] = Field(description="how it is drawn")
    x: Axis = Field(description="the horizontal axis")
    y: Axis = Field(description="the vertical axis")
    series: list[Series] = Field(min_length=1, description="what is drawn")
    shows: str = Field(description="what a reader should see in it; part of the text alternative")

    @model_validator(mode="after")
    def _consistent(self) -> Plot:
        if any(bool(series.end) is not (self.kind == "gantt") for series in self.series):
            raise ValueError("each series of a gantt names the member that is a bar's end, and no other plot's does")
        return self


class Stage(Strict):
    """One of the names that a byte goes by: an address, and what was read there."""

    name: Text = Field(description="whose address it is, e.g. host-virtual")
    address: str = Field(description="place of the address in the evidence, as hexadecimal text")
    holds: str = Field(description="place of the text that was read at this address")


class Translation(Strict):
    """A picture of an address translation: the page tables' entries by level, then the byte's further names."""

    id: Id = Field(description="its name in the report")
    title: str = Field(description="its heading")
    walk: str = Field(description="place of the translation in the evidence, in the form that labs/README.md tells")
    marker: str = Field(description="place of the text that should be read at each stage")
    stages: list[Stage] = Field(min_length=1, max_length=4, description="the names of the byte after its guest-virtual one, in order")
    shows: str = Field(description="what a reader should see in it; part of the text alternative")
