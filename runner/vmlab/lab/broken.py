"""What ``lab.yaml`` says of how its checks are refuted: worlds in which a claim is false (`vmlab.lab.worlds` reads them)."""

from __future__ import annotations

from pydantic import Field

from vmlab.lab.strict import Id, Strict, Text

SOUND = "sound"
"""The name of the world that nothing is changed in. No control is called so."""

MOST_CONTROLS = 52
"""A matrix names each world by one letter."""


class Control(Strict):
    """A broken world: a real guest in which a claim is false, and the checks that must see it."""

    breaks: Text = Field(description="one sentence: what is false in this world")
    set: dict[Id, int | float | str | bool] = Field(min_length=1, description="the parameters that break it, by name")
    fails: list[str] = Field(min_length=1, description="ids of the checks that must fail in it; all others must not")
    inconclusive: list[str] = Field(
        default_factory=list, description="ids of the checks that must be inconclusive in it, beside those that rest on one that fails"
    )
    parts: list[str] = Field(default_factory=list, description="the parts of the experiment that it needs; empty: all of it")
