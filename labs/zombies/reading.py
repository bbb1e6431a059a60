"""What several checks of the zombies lab need to read the evidence."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from vmlab.lab import EvidenceProblem, Record

from .stalls import Look

RAW_STATUS = 7 << 8  # A child that called exit(7), in the form that waitpid and field 52 of /proc/PID/stat use.


def text_or_none(holder: Record, key: str = "errno") -> str | None:
    """A text such as an error's name, or None where the script wrote null: there was none."""
    return None if holder.is_null(key) else holder.text(key)


def increasing(samples: Sequence[Record], key: str) -> None:
    """Samples are in order: a number that falls back shows that they were put together, not taken."""
    for earlier, later in pairwise(samples):
        if later.number(key) < earlier.number(key):
            raise EvidenceProblem(
                f"{later.place}.{key}: expected at least {earlier.number(key):g} as in the sample before, found {later.number(key):g}"
            )


def looks_of(samples: Sequence[Record]) -> list[Look]:
    """The counts of a parent's children, in order."""
    increasing(samples, "elapsed_s")
    increasing(samples, "forked_before")
    return [look_of(sample) for sample in samples]


def look_of(sample: Record) -> Look:
    """One count of a parent's children."""
    return Look(*(sample.integer(name) for name in ("forked_before", "forked_after", "zombies", "living")))


def handed_over(holder: Record) -> tuple[int, int]:
    """How many children a wait has handed over as exited with 7, and how many in any other way."""
    statuses = holder.record("statuses")
    counts = {status: statuses.integer(status, minimum=0) for status in statuses}
    as_made = counts.pop(str(RAW_STATUS), 0)
    return as_made, sum(counts.values())


def agree(holder: Record, **derived: int) -> None:
    """What a script derived from its own numbers is held against them: EvidenceProblem where it does not follow."""
    for name, value in derived.items():
        if holder.integer(name) != value:
            raise EvidenceProblem(f"{holder.place}.{name}: expected {value}, as follows from the rest, found {holder.integer(name)}")
