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
from dataclasses import dataclass
from types import ModuleType

from vmlab.lab.evidence import Evidence, EvidenceProblem, NotRecorded
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
        text = inspect.getdoc(function)
        if not text:
            raise TypeError(f"the check {function.__name__} needs a docstring: it is what the student reads")
        title, *method = (" ".join(paragraph.split()) for paragraph in re.split(r"\n\s*\n", text))
        function.__vmlab_check__ = Check(  # type: ignore[attr-defined]
            function.__name__, title, float(points), claim, names, function, "\n\n".join(method)
        )
        return function

    return declare


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


def judge(checks: Sequence[Check], evidence: Evidence, *, broken_by: str = "", unsuitable: str = "") -> list[Judgement]:
    """Every check's verdict on the evidence.

    ``broken_by`` is the message of the error that ended the run early, if one did; ``unsuitable`` says why the guest could not show the
    rest, if it could not.
    """
    verdicts: dict[str, Verdict] = {}
    for each in checks:
        verdicts[each.id] = _blocked(each, verdicts) or _ask(each, evidence, broken_by, unsuitable)
    return [Judgement(each, verdicts[each.id]) for each in checks]


def settled(checks: Sequence[Check], evidence: Evidence) -> list[Judgement]:
    """The verdicts that the evidence of an unfinished run decides already: those of checks that need nothing not yet recorded."""
    verdicts: dict[str, Verdict] = {}
    for each in checks:
        if any(name not in verdicts for name in each.after):
            continue
        with contextlib.suppress(NotRecorded):
            verdicts[each.id] = _blocked(each, verdicts) or _conclude(each, evidence)
    return [Judgement(each, verdicts[each.id]) for each in checks if each.id in verdicts]


def _blocked(each: Check, verdicts: dict[str, Verdict]) -> Verdict | None:
    """The verdict of a check whose dependency did not pass: it takes over what the dependency could not decide."""
    for name in each.after:
        kind = verdicts[name].kind
        if kind.inherited is not None:
            return Verdict(kind.inherited, f"It rests on the check {name}, whose verdict is {kind}: {verdicts[name].rationale}")
    return None


def _ask(each: Check, evidence: Evidence, broken_by: str, unsuitable: str) -> Verdict:
    """The verdict on the evidence of a finished run, where what is not recorded never will be."""
    try:
        return _conclude(each, evidence)
    except NotRecorded as problem:
        if unsuitable:
            return not_observable(f"This guest cannot show it: {unsuitable}.", hint="choose another image with --image, or another machine")
        if broken_by:
            return Verdict(VerdictKind.ERROR, f"The run broke before this could be observed: {broken_by}")
        return Verdict(VerdictKind.INCONCLUSIVE, f"The evidence does not decide this: {problem}.")


def _conclude(each: Check, evidence: Evidence) -> Verdict:
    """Call the check. Lets NotRecorded pass; any other trouble becomes a verdict."""
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
