"""What the KVM probe found, as a table for people (``vmlab doctor --probe``)."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from vmlab.probes.kvm import Judgement, KvmRecord, Row

if TYPE_CHECKING:
    from rich.text import Text

_STYLES = {"nested": "bold green", "shadow": "bold yellow", "emulated": "bold yellow", "broken": "bold red", "unknown": "bold yellow"}
_KEY = "Each line: how far one of KVM's counters went for each such operation, and what nested and shadow paging would give."
_HEADINGS = ("The guest ...", "times", "KVM's counter", "each", "nested", "shadow")
_LINE = "  {:<33}{:>8}  {:<14}{:>7}{:>7}{:>7}"


def render(record: KvmRecord, found: Judgement, width: int = 80) -> Text:
    """The table: each operation, how far a counter of KVM's went for one of them, and what nested and shadow paging would give.

    Then the verdict. ``.plain`` is the same without colour.
    """
    from rich.text import Text  # noqa: PLC0415  (costs 50 ms, and whoever only asks for JSON needs none of it)

    text = Text()
    text.append("The KVM probe", style="bold")
    text.append(f": a guest of a few instructions on /dev/kvm\nKVM's modules: {_claims(record)}\n\n")
    measured = [row for row in found.rows if row.measured is not None]
    if measured:
        text.append("\n".join(textwrap.wrap(_KEY, width)) + "\n\n")
        text.append(_LINE.format(*_HEADINGS) + "\n", style="bold")
    for row in measured:
        text.append(_cells(row))
        text.append(f"{row.nested:>7}", style="green" if row.fits_nested else "dim")
        text.append(f"{row.shadow:>7}\n", style="green" if row.fits_shadow else "dim")
    if measured:
        text.append("\n")
    if found.ns_per_iteration is not None:
        text.append(f"An iteration of two instructions takes {found.ns_per_iteration:g} ns.\n")
    for sentence, style in ((found.sentence, _STYLES[found.kind]), (_contradiction(found), "bold red")):
        if sentence:
            text.append("\n".join(textwrap.wrap(sentence, width)) + "\n", style=style)
    return text


def _claims(record: KvmRecord) -> str:
    """What the kernel says."""
    claim = record.claim
    return " ".join(word for word in (claim.module, claim.nested_paging, *claim.other_modules) if word) or "none"


def _contradiction(found: Judgement) -> str:
    return f"Contradiction: {found.contradiction}." if found.contradiction else ""


def _cells(row: Row) -> str:
    return _LINE.format(row.what, row.n, row.counter, f"{row.measured:.4g}", "", "").rstrip()
