"""The worlds in which one of the lab's claims is false, for its controls: other guests, other scripts, another question of the host's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

# The marker again, right behind the marker (guest/marker.py, AGAIN_AT).
SECOND_COPY_BYTES = 64


@dataclass(frozen=True)
class World:
    """What is another in it."""

    guests: Mapping[str, str] = field(default_factory=dict)
    """Which guest of lab.yaml stands in for ``main`` or for ``other``."""
    marker: tuple[str, ...] = ()
    """Arguments more for the script that keeps the marker; with ``large`` those for its large page alone."""
    large: tuple[str, ...] = ()
    touch: tuple[str, ...] = ()
    """Arguments more for the script that touches memory."""
    asks: Literal["rightly", "another_process", "another_qemu", "another_page", "second_copy", "after_copying"] = "rightly"
    """What the host does otherwise than it should while it follows the marker."""
    nested: bool = True
    """With which setting KVM's module is loaded where nested paging should be on, and where it should be off."""
    shadow: bool = False
    traces_the_other: bool = False
    """Whether the faults are traced with the module loaded the other way."""
    keep: tuple[str, ...] = ()
    """Arguments more for the script that reads one word over and over; with ``chase`` for the one that chases pointers."""
    chase: tuple[str, ...] = ()
    another_machine: bool = False
    """Whether it is the emulated host whose KVM is asked, in the place of this machine's own."""
    decodes: bool = False
    """Whether KVM decodes the instructions of the probe's guest, because that guest asks for it."""


WORLDS: dict[str, World] = {
    "sound": World(),
    "above_zero": World(guests={"other": "above_zero"}),
    "another_process": World(asks="another_process"),
    "five_levels_in_both": World(guests={"other": "twin"}),
    "gigantic_page": World(guests={"main": "gigantic"}, large=("--gigantic",)),
    "frames_at_once": World(marker=("--populate",)),
    "stored_elsewhere": World(marker=("--elsewhere",)),
    "another_qemu": World(asks="another_qemu"),
    "stored_over": World(marker=("--store-over",)),
    "page_of_zeros": World(touch=("--read",)),
    "another_page": World(asks="another_page"),
    "copied": World(asks="after_copying"),
    "two_copies": World(marker=("--twice",), asks="second_copy"),
    "flushed": World(keep=("--flush-always",)),
    "few_pages": World(chase=("--few",)),
    "shadow_twice": World(nested=False),
    "nested_twice": World(shadow=True),
    "traces_swapped": World(traces_the_other=True),
    "decoded": World(another_machine=True, decodes=True),
    "another_machine": World(another_machine=True, nested=False),
}
"""By the value of the parameter ``world``."""
