"""Checks: pure functions from evidence to a verdict, and the judge that runs them.

A lab's ``checks.py`` is written as::

    @check(points=2, claim="Z1")
    def an_unreaped_child_is_a_zombie(evidence: Evidence) -> Verdict:
        \"\"\"A child that exited and was not waited for is a zombie.\"\"\"
        ...

The judge never lets a bug of ours become a student's failure: an exception in a check is the verdict *error*, evidence that is
missing or malformed is *inconclusive*, and evidence that is missing because the run broke is *error*.
"""

from __future__ import annotations

import contextlib
import inspect
import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import ModuleType

from vmlab.lab.evidence import Evidence, EvidenceProblem, NotRecorded
from vmlab.lab.reads import Reads
from vmlab.lab.verdict import Verdict, VerdictKind, not_observable

log = logging.getLogger(__name__)

CheckFunction = Callable[[Evidence], Verdict]


@dataclass(frozen=True)
class Check:
    """A check as a lab declares it. ``after`` names checks that must pass first, or this one decides nothing."""

    id: str
    title: str
    points: float
    claim: str
    after: tuple[str, ...]
    function: CheckFunction
    method: str = ""


@dataclass(frozen=True)
class Judgement:
    """A check and the verdict that it reached."""

    check: Check
    verdict: Verdict
    reads: Reads = field(default_factory=Reads)
    """What it looked at of the evidence; nothing when it was not asked."""

    @property
    def points(self) -> float:
        """All points for a pass, none otherwise."""
        return self.check.points if self.verdict.kind.earns else 0.0


def check(*, points: float, claim: str, after: str | Sequence[str] = ()) -> Callable[[CheckFunction], CheckFunction]:
    """Declare a check: its points, the claim it tests, and the checks it depends on. The docstring is what a student reads.

    Its first paragraph is the check's title. Those after it, if there are any, are its method: how the evidence decides.
    """
    names = (after,) if isinstance(after, str) else tuple(after)

    def declare(function: CheckFunction) -> CheckFunction:
        title, method = described(function, "check")
        function.__vmlab_check__ = Check(function.__name__, title, float(points), claim, names, function, method)  # type: ignore[attr-defined]
        return function

    return declare


def described(function: CheckFunction, kind: str) -> tuple[str, str]:
    """The title and the method of a check (or test: ``kind``), which its docstring holds. TypeError where there is none."""
    text = inspect.getdoc(function)
    if not text:
        raise TypeError(f"the {kind} {function.__name__} needs a docstring: it is what the student reads")
    title, *method = (" ".join(paragraph.split()) for paragraph in re.split(r"\n\s*\n", text))
    return title, "\n\n".join(method)


def checks_of(module: ModuleType, above: Sequence[Check] = ()) -> list[Check]:
    """The checks that a module declares, in the order of its text; ``above`` are those of the files before it.

    One that it imports from such a file is not declared again.

    Raises ValueError when one depends on a check that does not stand before it, or has the name of one.
    """
    marked: list[Check] = [member.__vmlab_check__ for member in vars(module).values() if hasattr(member, "__vmlab_check__")]
    found = [each for each in dict.fromkeys(marked) if not any(each is other for other in above)]
    known = {each.id for each in above}
    for declared in found:
        if declared.id in known:
            raise ValueError(f"a check named {declared.id!r} stands in another file already")
        for name in declared.after:
            if name not in known:
                raise ValueError(f"check {declared.id} comes after {name!r}, which does not stand before it")
        known.add(declared.id)
    return found


@dataclass(frozen=True)
class Missing:
    """Why some of the evidence of a finished run may be missing."""

    broken_by: str = ""
    """The message of the error that ended the run early, if one did."""
    unsuitable: str = ""
    """Why the image could not show the rest, if it could not."""
    left_out: Sequence[str] = ()
    """The parts of the experiment that the run was asked to leave out."""


def judge(checks: Sequence[Check], evidence: Evidence, missing: Missing | None = None) -> list[Judgement]:
    """Every check's verdict on the evidence of a finished run, where what is not recorded never will be."""
    verdicts: dict[str, Verdict] = {}
    found = []
    for each in checks:
        seen = evidence.watched()
        verdicts[each.id] = _blocked(each, verdicts) or _ask(each, seen, missing or Missing())
        found.append(Judgement(each, verdicts[each.id], seen.reads))
    return found


def settled(checks: Sequence[Check], evidence: Evidence) -> list[Judgement]:
    """The verdicts that the evidence of an unfinished run decides already: those of checks that need nothing not yet recorded."""
    verdicts: dict[str, Verdict] = {}
    found = []
    for each in checks:
        if any(name not in verdicts for name in each.after):
            continue
        seen = evidence.watched()
        with contextlib.suppress(NotRecorded):
            verdicts[each.id] = _blocked(each, verdicts) or conclude(each, seen)
            found.append(Judgement(each, verdicts[each.id], seen.reads))
    return found


def _blocked(each: Check, verdicts: dict[str, Verdict]) -> Verdict | None:
    """The verdict of a check whose dependency did not pass: it takes over what the dependency could not decide."""
    for name in each.after:
        kind = verdicts[name].kind
        if kind.inherited is not None:
            why = f"It rests on the check {name}, whose verdict is {kind}: {verdicts[name].rationale}"
            return Verdict(kind.inherited, why, left_out=verdicts[name].left_out)
    return None


def _ask(each: Check, evidence: Evidence, missing: Missing) -> Verdict:
    """The verdict of a check that nothing stands before."""
    try:
        return conclude(each, evidence)
    except NotRecorded as problem:
        if missing.unsuitable:
            return not_observable(
                f"This guest cannot show it: {missing.unsuitable}.", hint="choose another image with --image, or another machine"
            )
        if missing.broken_by:
            return Verdict(VerdictKind.ERROR, f"The run broke before this could be observed: {missing.broken_by}")
        if missing.left_out:
            why = f"The run left out parts of the experiment ({', '.join(missing.left_out)}), and {problem}."
            return Verdict(VerdictKind.INCONCLUSIVE, why, hint="run the whole lab: without --part", left_out=True)
        return Verdict(VerdictKind.INCONCLUSIVE, f"The evidence does not decide this: {problem}.")


def conclude(each: Check, evidence: Evidence) -> Verdict:
    """Call the check, whatever those that it comes after conclude. Lets NotRecorded pass; any other trouble becomes a verdict."""
    try:
        verdict = each.function(evidence)
    except NotRecorded:
        raise
    except EvidenceProblem as problem:
        return Verdict(VerdictKind.INCONCLUSIVE, f"The evidence does not decide this: {problem}.")
    except Exception as exc:
        # A bug in a check is its author's, and must not read as the student's failure.
        log.exception("check %s broke", each.id)
        return Verdict(VerdictKind.ERROR, f"The check itself broke: {type(exc).__name__}: {exc}", hint="tell the lab's author")
    if not isinstance(verdict, Verdict):
        return Verdict(VerdictKind.ERROR, "The check returned no verdict.", hint="tell the lab's author")
    return verdict
