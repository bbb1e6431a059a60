"""How a run ended, as a sentence: one lab with its checks, or many labs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from vmlab.lab.verdict import VerdictKind
from vmlab.report.text import counted


@dataclass(frozen=True)
class Words:
    """What the verdicts are of, and how it is said of such a thing that it is an error, and that it is not observable."""

    noun: str
    broke: str
    unseen: str


def sentence(counts: Mapping[VerdictKind | None, int], words: Words) -> str:
    """The sentence. ``counts`` says how often there is each verdict; None counts what was not run."""
    said = {
        VerdictKind.ERROR: (words.broke, words.broke),
        VerdictKind.FAIL: ("fails", "fail"),
        VerdictKind.INCONCLUSIVE: ("is inconclusive", "are inconclusive"),
        None: ("was not run", "were not run"),
    }
    wanting = [*(kind for kind in VerdictKind.by_urgency() if kind.needs_attention), None]
    troubles = [f"{count} {said[kind][0 if count == 1 else 1]}" for kind in wanting if (count := counts.get(kind, 0))]
    total, unseen = sum(counts.values()), counts.get(VerdictKind.NOT_OBSERVABLE, 0)
    if troubles:
        return f"Of {counted(total, words.noun)}, {', '.join(troubles)}"
    if unseen == total:
        return "Nothing here can be observed on this host"
    passing = f"All {total - unseen} {words.noun}s pass" if total - unseen > 1 else f"The {words.noun} passes"
    return f"{passing}; {counted(unseen, f'more {words.noun}')} {words.unseen}" if unseen else passing
