"""How much a machine that stood still spoilt the count of a parent's zombies. The experiment repeats by it, and a check decides nothing.

No file of the lab judges here: these are sums over what one run of `accumulate.py` printed, which the experiment has as a plain object and
a check as a record of the evidence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

LOOKS = 5
"""So many looks have to fall into the time of forking: at five points of it the zombies are what they are said to be."""

QUIET = 0.05
"""A parent that was held up for a twentieth of the time in which it forked was held up; by less, it was on time."""


@dataclass(frozen=True)
class Look:
    """One count of a parent's children, and how many the parent had made before it and after it."""

    before: int
    after: int
    zombies: int
    living: int

    def is_sharp(self, forked: int) -> bool:
        """Whether it fell into the time of forking and tells of it: no more than a tenth of the children came, or lived, meanwhile.

        (Six of the fewest that the lab makes: a look takes a tenth of a second or so in an emulated guest.)
        """
        return 0 < self.before < forked and max(self.after - self.before, self.living) <= max(6, forked // 10)


def allowed(forked: int) -> int:
    """The most zombies at a time that a parent may have that reaps at once.

    Each lives for some milliseconds, until SIGCHLD has reached the parent: few looks meet one. A twentieth of what the other parent gathers
    is far from both.
    """
    return max(3, forked // 20)


def shortness(looks: Sequence[Look], forked: int) -> float:
    """By what part the sharp looks fall short of those that are needed: 0 when there are enough. (Two between the same forks are one.)"""
    return max(0.0, 1 - len({look.before for look in looks if look.is_sharp(forked)}) / LOOKS)


def held_up(late_s: float, forking_s: float) -> float:
    """The longest time that the parent came late for a fork, as a share of the time in which it forked."""
    return min(1.0, late_s / forking_s) if forking_s > 0 else 1.0


def noise_of(printed: Mapping[str, Any]) -> float:
    """The noise of one run of `accumulate.py`, from 0 to 1: too few looks, or zombies of a parent that was held up.

    (Zombies of one that was on time are no noise, whoever it is.)
    """
    looks = [Look(each["forked_before"], each["forked_after"], each["zombies"], each["living"]) for each in printed["samples"]]
    forked = int(printed["forked"])
    late = held_up(printed["late_s"], printed["forking_s"]) if printed["peak"] > allowed(forked) and printed["parent"] == "reap" else 0.0
    return max(shortness(looks, forked), late)
