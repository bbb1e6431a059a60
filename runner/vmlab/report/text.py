"""Text for people: what a guest printed made safe to show, and numbers with their units.

A guest's output may hold terminal escapes, NUL bytes, characters that reverse the reading direction, or megabytes of anything.
Renderings show it through `plain` and `clip`; escaping for HTML or XML is the page's business and comes after.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

# Escape sequences of terminals: CSI (colours, cursor), OSC (titles, links) and the two-character ones.
_TERMINAL = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[ -/]*[0-Z\\^_`a-z])")
# Controls but for tab and newline, lone surrogates, non-characters (all forbidden in XML 1.0 but for C1), and the bidirectional
# overrides that make a text read other than it is written.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*(?:/[A-Za-z0-9_][A-Za-z0-9._-]*)*")

_MINUTE = 60
_KIB = 1024


def plain(text: str) -> str:
    """The text without terminal escapes, with a visible sign in place of what cannot be shown."""
    text = _TERMINAL.sub("", text.replace("\r\n", "\n"))
    return _UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", text.replace("\r", "\n"))


def clip(text: str, limit: int) -> str:
    """The start of the text, with a note of what is left out; the JSON report always holds all of it."""
    if len(text) <= limit:
        return text
    return f"{text[:limit]}\N{HORIZONTAL ELLIPSIS} [{len(text) - limit:,} more characters are in report.json]"


def clip_head(text: str, limit: int) -> str:
    """The end of the text, for logs, whose last lines matter most."""
    if len(text) <= limit:
        return text
    return f"[{len(text) - limit:,} characters before this are in report.json] \N{HORIZONTAL ELLIPSIS}{text[-limit:]}"


def encodable(value: Any) -> Any:
    """A JSON value with lone surrogates replaced, which UTF-8 cannot hold, so that it can be hashed and written."""
    if isinstance(value, str):
        return _SURROGATE.sub("\N{REPLACEMENT CHARACTER}", value)
    if isinstance(value, Mapping):
        return {encodable(str(key)): encodable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [encodable(item) for item in value]
    return value


def is_plain_path(path: str) -> bool:
    """Whether a path names something below a directory and nothing else: relative, no ``..``, no hidden file, no odd character."""
    return _PLAIN_NAME.fullmatch(path) is not None and ".." not in path


def seconds(value: float) -> str:
    """A duration: ``0.84 s``, ``12.3 s``, ``2 min 05 s``."""
    if value >= 1e9:
        return f"{value:.3g} s"
    if value >= _MINUTE:
        whole = round(value)
        return f"{whole // _MINUTE:,} min {whole % _MINUTE:02d} s"
    return f"{value:.1f} s" if value >= 10 else f"{value:.2f} s"


def size(count: float) -> str:
    """A number of bytes in binary units: ``512 bytes``, ``20.5 MiB``."""
    if abs(count) >= 10**30:
        return "a huge number of bytes"
    if abs(count) < _KIB:
        return f"{count:,.0f} byte{'' if count == 1 else 's'}"
    value = float(count)
    for unit in ("KiB", "MiB", "GiB"):
        value /= _KIB
        if abs(value) < _KIB:
            return f"{value:,.4g} {unit}"
    return f"{value / _KIB:,.4g} TiB"


def number(value: float | str) -> str:
    """A number with thousands separated and no more digits than mean something; text as it is."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "yes" if value else "no"
    if abs(value) >= 1e15:
        return "a huge number" if isinstance(value, int) and abs(value) >= 10**300 else f"{value:.4g}"
    if value == int(value) or abs(value) >= 1e3:
        return f"{value:,.0f}"
    return f"{value:,.4g}"


def counted(count: int, noun: str, plural: str = "") -> str:
    """``1 check``, ``3 checks``."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def points(value: float) -> str:
    """Points as people write them: ``2``, ``1.5``."""
    return f"{value:.10g}"
