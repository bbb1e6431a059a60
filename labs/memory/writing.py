"""Writing evidence down: addresses and entries as hexadecimal text, which people read and JSON keeps whole. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

# What is drawn of the probe's counts: the phases by names that are short enough for an axis.
DRAWN = (
    ("exits", "exits", {"remap": "maps another page", "reload_cr3": "loads CR3", "page_fault": "takes a page fault"}),
    ("faults", "pf_taken", {"swap_data": "the page", "swap_table": "one table", "swap_walk": "4 tables, the page"}),
)


def address(said: Mapping[str, Any], name: str) -> int:
    """An address that a guest script told."""
    return int(said[name], 16)


def told(value: int | None) -> str | None:
    """An address, or null where there is none."""
    return None if value is None else hex(value)


def text(content: bytes) -> str:
    """Whatever bytes were read, one character each."""
    return content.decode("latin-1")


def hexadecimal(values: Mapping[str, Any], *, but: tuple[str, ...]) -> dict[str, Any]:
    """Members as hexadecimal text, all but some."""
    return {name: value if name in but else hex(value) for name, value in values.items()}


def walked(walk: Any) -> dict[str, Any]:
    """A translation by hand."""
    steps = [hexadecimal(asdict(step), but=("level", "index")) for step in walk.steps]
    return {"virtual": hex(walk.virtual), "steps": steps, "physical": told(walk.physical), "page_bytes": walk.page_bytes}


def page_of(view: Any, host_virtual: int) -> dict[str, Any]:
    """What the host's page tables hold for one page of QEMU's."""
    (page,) = view.host_pages(host_virtual)
    return {"entry": hex(page.entry), "present": page.present, "own": page.own, "frame": told(page.frame)}


def drawn(probe: Mapping[str, Any]) -> dict[str, Any]:
    """The probe's counts for one operation, as they are drawn. (The checks compute theirs from the raw counts.)"""
    found = {(row["phase"], row["counter"]): row["measured"] for row in probe["judged"]["rows"]}
    return {kind: [{"what": what, "measured": found[phase, counter]} for phase, what in names.items()] for kind, counter, names in DRAWN}
