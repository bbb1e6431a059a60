"""The attempts of a measurement that was repeated for its noise (`bench.quietest`), as a check reads them."""

from __future__ import annotations

from dataclasses import dataclass

from vmlab.lab.evidence import EvidenceProblem, Record


@dataclass(frozen=True)
class Attempt:
    """One attempt: its noise, whether it is the quietest, which is the one that counts, and what was measured in it."""

    noise: float
    is_quietest: bool
    measured: Record


def attempts_of(record: Record) -> list[Attempt]:
    """The attempts, in order; ``measured`` of the quietest is the record itself.

    EvidenceProblem unless exactly one of them is called the quietest, and none has less noise.
    """
    rows = record.records("attempts")
    found = []
    for row in rows:
        is_quietest = row.flag("quietest")
        found.append(Attempt(row.number("noise", minimum=0), is_quietest, record if is_quietest else row.record("measured")))
    quietest = [each for each in found if each.is_quietest]
    if len(quietest) != 1 or min(each.noise for each in found) < quietest[0].noise:
        raise EvidenceProblem(f"{record.place}.attempts: expected one that is the quietest")
    return found


def noise_of(record: Record) -> float:
    """The noise of the attempt that counts, which is the least of all."""
    return next(each.noise for each in attempts_of(record) if each.is_quietest)
