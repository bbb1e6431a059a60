"""What several checks of the zombies lab need to read the evidence."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from vmlab.lab import EvidenceProblem, Record

RAW_STATUS = 7 << 8  # A child that called exit(7), in the form that waitpid and field 52 of /proc/PID/stat use.


def error_of(holder: Record, key: str = "errno") -> str | None:
    """An error's name, or None where the script wrote null: no error."""
    try:
        return holder.text(key)
    except EvidenceProblem as problem:
        if "found null" in str(problem):
            return None
        if "found an object" in str(problem):
            return "an object"
        raise


def increasing(samples: Sequence[Record], key: str) -> None:
    """Samples are in order: a number that falls back shows that they were put together, not taken."""
    values = [sample.number(key) for sample in samples]
    for (earlier, later), sample in zip(pairwise(values), samples[1:], strict=True):
        if later < earlier:
            raise EvidenceProblem(f"{sample.place}.{key}: expected at least {earlier:g} as in the sample before, found {later:g}")
