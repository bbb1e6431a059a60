"""The judge: five verdicts, dependencies, and never a pass without evidence."""

from __future__ import annotations

import random
from types import ModuleType
from typing import Any

import pytest

from vmlab.lab import Evidence, Verdict, check, failed, inconclusive, judge, not_observable, passed
from vmlab.lab.checks import Check, Judgement, Missing, checks_of, settled
from vmlab.lab.verdict import VerdictKind


@check(points=2, claim="A")
def grows(evidence: Evidence) -> Verdict:
    """What is seen grows.

    This paragraph is no part of the title.
    """
    rows = evidence["growth"].records("rows", at_least=3)
    counts = [row.integer("count", minimum=0) for row in rows]
    rates = evidence["growth"].numbers("rates", at_least=2)
    if evidence["growth"].text("unit") != "KiB" or not evidence["growth"].flag("sound"):
        return inconclusive("The unit is another one.")
    if counts == sorted(counts) and counts[0] < counts[-1] and min(rates) > 0:
        return passed("It grows.", measured=f"{counts}")
    return failed("It does not grow.", measured=f"{counts}")


SOUND = {"growth": {"rows": [{"count": 1}, {"count": 2}, {"count": 3}], "rates": [0.5, 1], "unit": "KiB", "sound": True}}


def made(name: str, verdict: Verdict | Exception, *, after: tuple[str, ...] = (), points: float = 1) -> Check:
    def function(_evidence: Evidence) -> Verdict:
        if isinstance(verdict, Exception):
            raise verdict
        return verdict

    return Check(name, name, points, "A", after, function)


def kinds(judgements: list[Judgement]) -> list[str]:
    return [str(each.verdict.kind) for each in judgements]


DECLARED: Check = grows.__vmlab_check__  # type: ignore[attr-defined]
YES, NO = passed("yes", measured="1"), failed("no")


def test_a_check_knows_its_points_claim_and_title() -> None:
    assert (DECLARED.id, DECLARED.title, DECLARED.points, DECLARED.claim) == ("grows", "What is seen grows.", 2.0, "A")
    assert grows(Evidence(SOUND)).kind is VerdictKind.PASS  # (A decorated check can still be called.)


def test_a_check_without_words_for_the_student_is_refused() -> None:
    with pytest.raises(TypeError, match="docstring"):

        @check(points=1, claim="A")
        def silent(evidence: Evidence) -> Verdict:
            return YES


def test_sound_evidence_passes_and_earns_the_points() -> None:
    [judgement] = judge([DECLARED], Evidence(SOUND))
    assert judgement.verdict.kind is VerdictKind.PASS
    assert judgement.points == 2


@pytest.mark.parametrize("verdict", [NO, inconclusive("?"), not_observable("not here")])
def test_every_other_verdict_earns_nothing(verdict: Verdict) -> None:
    assert [each.points for each in judge([made("a", verdict)], Evidence({}))] == [0]


def test_missing_evidence_is_inconclusive() -> None:
    [judgement] = judge([DECLARED], Evidence({}))
    assert judgement.verdict.kind is VerdictKind.INCONCLUSIVE
    assert "no observation named 'growth'" in judgement.verdict.rationale


def test_evidence_missing_because_the_run_broke_is_our_error() -> None:
    [judgement] = judge([DECLARED], Evidence({}), Missing(broken_by="the guest's kernel panicked"))
    assert judgement.verdict.kind is VerdictKind.ERROR
    assert "the guest's kernel panicked" in judgement.verdict.rationale


def test_what_an_image_cannot_show_is_not_observable_and_what_was_observed_counts() -> None:
    why = "the image x has no strace, which the lab needs"
    [judgement] = judge([DECLARED], Evidence({}), Missing(unsuitable=why))
    assert judgement.verdict.kind is VerdictKind.NOT_OBSERVABLE
    assert why in judgement.verdict.rationale
    [judgement] = judge([made("a", NO)], Evidence({}), Missing(unsuitable=why))
    assert judgement.verdict.kind is VerdictKind.FAIL


def test_what_was_observed_before_the_run_broke_still_counts() -> None:
    assert kinds(judge([DECLARED], Evidence(SOUND), Missing(broken_by="lost the connection"))) == ["pass"]


def test_malformed_evidence_is_inconclusive_even_if_the_run_broke_later() -> None:
    assert kinds(judge([DECLARED], Evidence({"growth": {"rows": []}}), Missing(broken_by="lost the connection"))) == ["inconclusive"]


def test_while_a_run_lasts_only_what_is_decided_is_told() -> None:
    needs = made("b", YES, after=("grows",))
    assert settled([DECLARED, needs], Evidence({})) == []
    assert kinds(settled([DECLARED, needs], Evidence(SOUND))) == ["pass", "pass"]
    assert kinds(settled([made("a", NO), DECLARED, needs], Evidence({}))) == ["fail"]
    assert kinds(settled([DECLARED], Evidence({"growth": {"rows": 1}}))) == ["inconclusive"]


def test_a_bug_in_a_check_is_an_error_never_a_failure() -> None:
    [judgement] = judge([made("a", ZeroDivisionError("division by zero"))], Evidence({}))
    assert judgement.verdict.kind is VerdictKind.ERROR
    assert "ZeroDivisionError: division by zero" in judgement.verdict.rationale
    assert "author" in judgement.verdict.hint


@pytest.mark.parametrize("nothing", [None, True, "pass", 1, VerdictKind.PASS])
def test_a_check_that_returns_no_verdict_is_an_error(nothing: Any) -> None:
    assert kinds(judge([made("a", nothing)], Evidence({}))) == ["error"]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (YES, "pass"),
        (NO, "inconclusive"),
        (inconclusive("?"), "inconclusive"),
        (not_observable("not here"), "not-observable"),
        (RuntimeError("bug"), "error"),
    ],
)
def test_what_rests_on_a_check_that_did_not_pass_is_not_asked(first: Any, second: str) -> None:
    judgements = judge([made("a", first), made("b", YES, after=("a",)), made("c", YES, after=("b",))], Evidence({}))
    assert kinds(judgements)[1:] == [second, second]
    if first is not YES:
        assert "rests on the check a" in judgements[1].verdict.rationale


def test_one_failed_dependency_among_several_is_enough() -> None:
    assert kinds(judge([made("a", YES), made("b", NO), made("c", YES, after=("a", "b"))], Evidence({}))) == ["pass", "fail", "inconclusive"]


def module(**members: Any) -> ModuleType:
    made_up = ModuleType("made_up")
    vars(made_up).update(members)
    return made_up


def test_checks_come_in_the_order_of_the_text() -> None:
    @check(points=1, claim="A", after="grows")
    def later(evidence: Evidence) -> Verdict:
        """Later."""
        return YES

    assert [each.id for each in checks_of(module(grows=grows, later=later, other=42))] == ["grows", "later"]
    with pytest.raises(ValueError, match="later comes after 'grows', which does not stand before it"):
        checks_of(module(later=later, grows=grows))


def garbage(chance: random.Random, depth: int = 0) -> Any:
    """Any JSON value, with the names that the check reads made likely."""
    scalars = [None, True, False, 0, -1, 3, 10**400, 1.5, float("nan"), float("inf"), "", "KiB", "\x00\ud800", "x" * 300]
    if depth > 4 or chance.random() < 0.3:
        return chance.choice(scalars)
    if chance.random() < 0.4:
        return [garbage(chance, depth + 1) for _ in range(chance.randrange(5))]
    names = ["growth", "rows", "count", "rates", "unit", "sound", "other"]
    return {name: garbage(chance, depth + 1) for name in chance.sample(names, chance.randrange(len(names)))}


@pytest.mark.parametrize("seed", range(20))
def test_garbage_never_passes_and_never_breaks_the_judge(seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(300):
        observations = garbage(chance)
        if isinstance(observations, dict):
            [judgement] = judge([DECLARED], Evidence(observations))
            assert judgement.verdict.kind in (VerdictKind.INCONCLUSIVE, VerdictKind.FAIL), observations


@pytest.mark.parametrize("seed", range(20))
def test_sound_evidence_with_one_value_spoilt_never_passes(seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(100):
        spoilt: dict[str, Any] = {**SOUND["growth"], "rows": [dict(row) for row in SOUND["growth"]["rows"]], "rates": [0.5, 1]}  # type: ignore[attr-defined]
        spoil: Any = chance.choice([None, "1", [], {}, float("nan"), [None], "\ud800", -7])
        match chance.randrange(4):
            case 0:
                spoilt[chance.choice(list(spoilt))] = spoil
            case 1:
                chance.choice(spoilt["rows"])["count"] = spoil
            case 2:
                del spoilt[chance.choice(list(spoilt))]
            case _:
                spoilt["rows"] = spoilt["rows"][: chance.randrange(3)]
        assert kinds(judge([DECLARED], Evidence({"growth": spoilt}))) != ["pass"], spoilt


def test_every_verdict_has_a_sign_and_a_meaning() -> None:
    assert len({kind.sign for kind in VerdictKind}) == len({kind.meaning for kind in VerdictKind}) == 5


def test_a_judgement_knows_what_its_check_looked_at() -> None:
    rests = made("b", YES, after=("grows",))
    [grown, blocked] = judge([DECLARED, rests], Evidence({"growth": {"rows": [{"n": 1}]}}))
    assert grown.reads.rests_on()
    assert all(place.startswith("growth") for place in grown.reads.rests_on())
    assert blocked.verdict.kind is VerdictKind.INCONCLUSIVE
    assert blocked.reads.rests_on() == [], "it was not asked"


def test_a_check_that_needs_a_guest_which_is_not_there_yet_is_not_settled() -> None:
    @check(points=1, claim="C")
    def old_kernel(evidence: Evidence) -> Verdict:
        """A check by the kernel."""
        kernel = evidence.run.kernel
        return not_observable("too old") if kernel.startswith("5.") else passed("fine", measured=kernel)

    declared: Check = old_kernel.__vmlab_check__  # type: ignore[attr-defined]
    started = {"accelerator": "tcg", "guests": {"main": {"accelerator": "tcg", "kernel": "5.15.0", "image": "x"}}}
    assert settled([declared], Evidence({}, run={"accelerator": "tcg", "guests": {}})) == []
    assert kinds(settled([declared], Evidence({}, run=started))) == ["not-observable"]
    assert kinds(judge([declared], Evidence({}))) == ["inconclusive"]
