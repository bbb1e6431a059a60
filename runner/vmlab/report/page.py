"""How pages are made: one jinja2 environment, in which every text is made printable, cut to a length where asked, and escaped."""

from __future__ import annotations

import urllib.parse
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Any

from vmlab.report import text

if TYPE_CHECKING:
    from jinja2 import Environment, Template

_LINE, _WORDS, _LOG, _SOURCE = 300, 4_000, 12_000, 64 << 10


def _moment(stamp: str) -> str:
    """``23 November 2026, 20:15:00 UTC``; a stamp that is no date as it is."""
    try:
        when = datetime.fromisoformat(stamp)
    except ValueError:
        return stamp
    when = when.astimezone(UTC) if when.tzinfo else when
    return f"{when.day} {when:%B %Y, %H:%M:%S} UTC"


def _show(value: Any) -> Any:
    """What every expression of a page goes through before it is escaped: texts become printable."""
    return text.plain(value) if isinstance(value, str) and not hasattr(value, "__html__") else value


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined  # noqa: PLC0415 (only who renders a page pays for it)
    from markupsafe import Markup  # noqa: PLC0415

    environment = Environment(
        loader=PackageLoader("vmlab.report", "pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_show,
    )
    environment.filters |= {
        "line": lambda value: text.clip(str(value), _LINE),
        "words": lambda value: text.clip(str(value), _WORDS),
        "source": lambda value: text.clip(str(value), _SOURCE),
        "log": lambda value: text.clip_head(str(value), _LOG),
        "seconds": text.seconds,
        "size": text.size,
        "points": text.points,
        "number": text.number,
        "moment": _moment,
        "clip": text.clip,
        "hexadecimal": "{:#x}".format,
        "drawn": Markup,  # the SVG of vmlab.report.plots and .translation, whose texts are escaped there
        "counted": text.counted,
        "address": urllib.parse.quote,
    }
    environment.tests["plain_path"] = text.is_plain_path
    return environment


def form(name: str) -> Template:
    """A page of the folder pages/, to be filled in."""
    return _environment().get_template(name)
