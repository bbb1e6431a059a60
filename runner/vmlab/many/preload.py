"""What the process does, once, that all jobs are forked from: importing it imports all that a run needs, and draws a first picture.

matplotlib looks for fonts and builds its tables when it first draws, and jinja compiles the page's form when it is first wanted, which
each job would do again otherwise. What is there by then is taken out of the garbage collector's sight, so that it does not go over it again
in every job (gc.freeze, made for this).
"""

from __future__ import annotations

import gc

import jinja2
import matplotlib.backends.backend_svg
import matplotlib.figure

from vmlab.lab.pictures import Axis, Plot, Series
from vmlab.many import pool
from vmlab.report import html, junit
from vmlab.report.page import form
from vmlab.report.plots import drawings

_FIRST = Plot(
    id="first",
    title="first",
    kind="line",
    x=Axis(label="x"),
    y=Axis(label="y"),
    series=[Series(name="a", rows="o.rows", x="x", y="y"), Series(name="b", rows="o.rows", x="x", y="y")],
    shows="Nothing.",
)

drawings([_FIRST], {"o": {"rows": [{"x": 0, "y": 0}, {"x": 1, "y": 1}, {"x": 2, "y": 2}]}})
form("report.html.j2")
gc.collect()
gc.freeze()

__all__ = ["html", "jinja2", "junit", "matplotlib", "pool"]
