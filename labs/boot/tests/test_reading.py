"""The evidence, read: graphs, the plan, and which boots there are of an arm; what contradicts itself is no evidence."""

from __future__ import annotations

from typing import Any

import pytest

from vmlab.lab import Evidence, EvidenceProblem

from .. import reading
from ..boots import Boot, Mark
from ..graph import Service
from .recorded import LSB, NATIVE, SEQUENTIAL, STARTPAR

PLAN: dict[str, Any] = {
    "arms": [SEQUENTIAL],
    "repeats": 3,
    "controls": 0,
    "scale": 1.0,
    "graphs": {"services": {"cpus": 1, "runlevel": 2, "services": {"a": {"sleep": 0.0}, "b": {"burn": 1.5, "after": ["a"]}}}},
}
ASKED = {"arms": SEQUENTIAL, "repeats": 3, "controls": 0, "scale": 1.0, "quick": False}


def evidence(asked: Any = None, **plan: Any) -> Evidence:
    return Evidence({"plan": PLAN | plan, "boots": {"boots": []}}, ASKED | (asked or {}), {})


def graph(cpus: int = 1, **services: Any) -> dict[str, Any]:
    return {"graphs": {"services": {"cpus": cpus, "runlevel": 2, "services": services}}}


def test_a_graph_is_read_with_its_scale() -> None:
    assert reading.graph_of(evidence()) == [Service("a", "sleep", 0.0, ()), Service("b", "burn", 1.5, ("a",))]
    assert reading.graph_of(evidence(scale=0.01))[1].cost_s == 0.01
    assert reading.graph_of(evidence(**graph(a={"sleep": 1000.0}, b={"sleep": 1})))[0].cost_s == 1000
    assert reading.cpus_of(evidence()) == 1


@pytest.mark.parametrize(
    "plan",
    [
        graph(),
        graph(a={"sleep": -0.1}),
        graph(a={"burn": -0.1}),
        graph(a={"sleep": 1000.1}, b={"sleep": 1}),
        graph(a={"sleep": 1, "after": ["a"]}),
        graph(a={"sleep": 1, "after": ["none"]}),
        graph(a={}),
        {"scale": 0.009},
        {"scale": -1},
    ],
)
def test_a_graph_that_nobody_could_start_is_no_evidence(plan: Any) -> None:
    with pytest.raises(EvidenceProblem):
        reading.graph_of(evidence(**plan))


def test_no_graph_is_booted_without_a_processor() -> None:
    with pytest.raises(EvidenceProblem):
        reading.cpus_of(evidence(**graph(cpus=0, a={"sleep": 1})))


@pytest.mark.parametrize(
    ("asked", "plan"),
    [
        ({}, {}),
        ({"arms": f"{NATIVE}, {SEQUENTIAL}"}, {"arms": [SEQUENTIAL, NATIVE]}),
        ({"arms": "all"}, {"arms": [SEQUENTIAL, STARTPAR, LSB, NATIVE]}),
        ({"arms": f"{NATIVE},all"}, {"arms": [SEQUENTIAL, STARTPAR, LSB, NATIVE]}),
        ({"arms": "all", "quick": True, "repeats": 50, "controls": 9}, {"arms": [SEQUENTIAL, NATIVE]}),
        ({"quick": True, "repeats": 50, "controls": 9}, {}),
        ({"scale": 2}, {"scale": 2.0}),
    ],
)
def test_the_plan_is_what_was_asked_for(asked: Any, plan: Any) -> None:
    assert reading.plan_of(evidence(asked, **plan)).integer("repeats") == 3


@pytest.mark.parametrize(
    ("asked", "plan"),
    [
        ({"repeats": 4}, {}),
        ({"controls": 1}, {}),
        ({"scale": 2}, {}),
        ({"arms": "all"}, {}),
        ({"arms": NATIVE}, {}),
        ({"quick": True, "repeats": 4}, {"repeats": 4}),
        ({"quick": True, "repeats": 2}, {"repeats": 2}),
        ({"quick": True, "controls": 1}, {"controls": 1}),
        ({"quick": True, "arms": "all"}, {}),
        ({"arms": ""}, {"arms": []}),
    ],
)
def test_another_plan_is_no_evidence(asked: Any, plan: Any) -> None:
    with pytest.raises(EvidenceProblem):
        reading.plan_of(evidence(asked, **plan))


def test_what_a_run_left_out() -> None:
    with pytest.raises(reading.LeftOut, match=f"left out {NATIVE}"):
        reading.records_of(evidence(), NATIVE)
    with pytest.raises(reading.LeftOut, match="left out the controls"):
        reading.records_of(evidence(), SEQUENTIAL, "chain")
    with pytest.raises(EvidenceProblem, match="expected 3 boots"):
        reading.records_of(evidence(), SEQUENTIAL)
    with pytest.raises(EvidenceProblem):
        reading.records_of(evidence({"repeats": 0}, repeats=0), SEQUENTIAL)
    with pytest.raises(EvidenceProblem):
        reading.records_of(evidence({"controls": -1}, controls=-1), SEQUENTIAL, "chain")


def test_which_arms_are_sysv() -> None:
    assert [reading.is_sysv(arm) for arm in (SEQUENTIAL, STARTPAR, LSB, NATIVE)] == [True, True, False, False]
    with pytest.raises(EvidenceProblem):
        reading.is_sysv("upstart")


def ran(begin: float, end: float, cpu_s: float = 0.0, *, other_end: float = 0.0) -> Boot:
    ends = {"a": Mark(other_end, other_end), "b": Mark(end, end, cpu_s)}
    return Boot("boot", SEQUENTIAL, "services", {"a": Mark(0, 0), "b": Mark(begin, begin)}, ends, Mark(9, 9), 1.0, 0.0)


def test_what_began_too_early_and_what_did_too_little() -> None:
    services = [Service("a", "sleep", 0.0, ()), Service("b", "burn", 1.0, ("a",))]
    assert reading.too_early(ran(1.0, 2.0, other_end=1.019), services) == []
    assert reading.too_early(ran(1.0, 2.0, other_end=1.021), services) == ["b before a"]
    assert reading.too_short(ran(1.0, 1.981, 0.981), services) == []
    assert reading.too_short(ran(1.0, 1.979, 0.981), services) == ["b"]
    assert reading.too_short(ran(1.0, 1.981, 0.979), services) == ["b"]
    asleep = [Service("a", "sleep", 0.0, ()), Service("b", "sleep", 1.0, ())]
    assert reading.too_short(ran(1.0, 2.0, 0.0), asleep) == []
