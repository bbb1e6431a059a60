"""Reading evidence: every reader refuses what is missing or of another kind, and says where."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from vmlab.lab import Evidence, EvidenceProblem, Record
from vmlab.lab.evidence import NotRecorded, canonical, digest

WRONG: dict[str, list[Any]] = {
    "integer": [True, False, 1.0, 1.5, "1", None, [], {}, math.nan],
    "number": [True, "1", None, [], {}, math.nan, math.inf, -math.inf],
    "text": [1, True, None, [], {}],
    "flag": [0, 1, "true", None, [], {}],
    "record": [1, "x", None, [], True],
    "address": [{}, 1, None, "", "1f", "0x", "0X1F", "0x1F", "0x1g", "0x" + "1" * 17, "-0x1", ["0x1"]],
    "mask": [{}, 1, None, True, "", "0x", "x1f", "1g", "-1", " 1", "1\n", "1" * 17, "1_0", "0x1,2", "ff,ff", ",ffffffff", ["1f"]],
    "records": [{}, 1, "x", None, [], [1], [{}, None], True],
    "numbers": [{}, 1, "12", None, [], ["1"], [1, math.nan], [True]],
    "texts": [{}, 1, "abc", None, [1], ["a", None]],
}
RIGHT: dict[str, list[Any]] = {
    "integer": [0, -1, 10**30],
    "number": [0, -1.5, 10**15],
    "text": ["", "x"],
    "flag": [True, False],
    "address": ["0x0", "0x8000000004d8b867"],
    "mask": ["0", "0000000000014002", "0x14002", "1FF", "000001ffffffffff", "3,00000000"],
    "record": [{}],
    "records": [[{}], [{}, {"a": 1}]],
    "numbers": [[1], [1, 2.5]],
    "texts": [["a"], []],
}


def read(reader: str, value: Any) -> Any:
    return getattr(Evidence({"seen": {"it": value}})["seen"], reader)("it")


@pytest.mark.parametrize(("reader", "value"), [(reader, value) for reader, values in WRONG.items() for value in values])
def test_a_value_of_another_kind_is_refused_with_its_place(reader: str, value: Any) -> None:
    with pytest.raises(EvidenceProblem, match=r"^seen\.it"):
        read(reader, value)


@pytest.mark.parametrize(("reader", "value"), [(reader, value) for reader, values in RIGHT.items() for value in values])
def test_a_value_of_the_right_kind_is_read(reader: str, value: Any) -> None:
    got = read(reader, value)
    assert got is not None
    if reader in ("integer", "number", "text", "flag", "numbers", "texts"):
        assert got == value
    if reader == "address":
        assert hex(got) == value


@pytest.mark.parametrize(("text", "bits"), [("0000000000014002", 0x14002), ("0x14002", 0x14002), ("1,00000003", 0x100000003), ("0", 0)])
def test_a_mask_is_read_as_the_kernel_prints_it(text: str, bits: int) -> None:
    assert read("mask", text) == bits


@pytest.mark.parametrize("reader", list(WRONG))
def test_a_missing_value_is_named(reader: str) -> None:
    with pytest.raises(EvidenceProblem, match=r"^seen\.it is missing$"):
        getattr(Evidence({"seen": {}})["seen"], reader)("it")


def test_a_missing_observation_is_named() -> None:
    with pytest.raises(EvidenceProblem, match="no observation named 'memory'"):
        Evidence({})["memory"]


def test_an_observation_that_is_no_object_is_refused() -> None:
    with pytest.raises(EvidenceProblem, match="memory: expected an object, found a list"):
        Evidence({"memory": [1]})["memory"]


def test_an_empty_list_is_no_evidence_unless_the_check_says_so() -> None:
    seen = Evidence({"seen": {"rows": []}})["seen"]
    with pytest.raises(EvidenceProblem, match="expected at least 1 members, found 0"):
        seen.records("rows")
    assert seen.records("rows", at_least=0) == []


def test_the_place_of_a_nested_value_is_told() -> None:
    evidence = Evidence({"a": {"rows": [{"n": 1}, {"n": "2"}]}})
    with pytest.raises(EvidenceProblem, match=r"^a\.rows\[1\]\.n: expected a whole number, found the text '2'$"):
        [row.integer("n") for row in evidence["a"].records("rows")]


def test_null_is_something_that_was_written_down() -> None:
    seen = Evidence({"seen": {"it": None, "other": 0}})["seen"]
    assert seen.is_null("it")
    assert not seen.is_null("other")
    with pytest.raises(EvidenceProblem, match=r"seen\.more is missing"):
        seen.is_null("more")


def test_minimum() -> None:
    seen = Record("seen", {"n": -1, "x": -0.5})
    with pytest.raises(EvidenceProblem, match="at least 0, found the number -1"):
        seen.integer("n", minimum=0)
    with pytest.raises(EvidenceProblem, match=r"at least 0, found the number -0\.5"):
        seen.number("x", minimum=0)
    assert seen.integer("n", minimum=-1) == -1


def test_an_integer_too_large_for_a_float_is_an_evidence_problem_not_a_crash() -> None:
    with pytest.raises(EvidenceProblem):
        Record("seen", {"n": 10**400}).number("n")
    with pytest.raises(EvidenceProblem, match="absurd size"):
        Record("seen", {"n": -(10**5000)}).integer("n", minimum=0)


def test_parameters_are_read_like_evidence() -> None:
    assert Evidence({}, {"rounds": 5}).parameters.integer("rounds") == 5
    with pytest.raises(EvidenceProblem, match=r"parameters\.rounds is missing"):
        Evidence({}).parameters.integer("rounds")


def test_membership_and_iteration() -> None:
    evidence = Evidence({"seen": {"a": 1, "b": 2}})
    assert "seen" in evidence and "other" not in evidence
    assert "a" in evidence["seen"] and "c" not in evidence["seen"]
    assert list(evidence["seen"]) == ["a", "b"]


def test_a_long_text_is_cut_in_the_message() -> None:
    with pytest.raises(EvidenceProblem) as caught:
        Record("seen", {"n": "x" * 10_000}).integer("n")
    assert len(str(caught.value)) < 200


def test_digest_does_not_depend_on_the_order_of_keys_and_sees_every_change() -> None:
    assert digest({"a": 1, "b": [1, 2]}) == digest(json.loads('{"b": [1, 2], "a": 1}'))
    different = [{"a": 1}, {"a": 2}, {"a": "1"}, {"a": 1.5}, {"a": [1]}, {"a": None}, {"b": 1}, {"a": True}]
    assert len({digest(value) for value in different}) == len(different)


def test_canonical_form() -> None:
    assert canonical({"b": "é", "a": [1, 2.5, None, True]}) == '{"a":[1,2.5,null,true],"b":"é"}'.encode()
    with pytest.raises(ValueError, match="JSON compliant"):
        canonical({"a": math.nan})


# --- what is known of the run ---------------------------------------------------------------------------------------------------------

RUN = {
    "accelerator": "kvm",
    "guests": {
        "other": {"accelerator": "tcg", "kernel": "6.1.0", "image": "debian-12"},
        "main": {"accelerator": "kvm", "kernel": "6.12.9", "image": "debian-13"},
        "unseen": {"accelerator": "", "kernel": "", "image": "debian-13"},
    },
}


def test_the_run_says_what_ran_it() -> None:
    run = Evidence({}, run=RUN).run
    assert (run.accelerator, run.kernel, run.image) == ("kvm", "6.12.9", "debian-13")
    other = run.guest("other")
    assert (other.accelerator, other.kernel, other.image) == ("tcg", "6.1.0", "debian-12")


def test_the_first_guest_stands_for_the_run_where_none_is_called_main() -> None:
    run = {**RUN, "guests": {"client": RUN["guests"]["other"], "server": RUN["guests"]["main"]}}  # type: ignore[index]
    assert Evidence({}, run=run).run.kernel == "6.1.0"


@pytest.mark.parametrize("fact", ["accelerator", "kernel", "image"])
@pytest.mark.parametrize("run", [None, {}, {"accelerator": None, "guests": {}}, {"accelerator": 1, "guests": {"main": {}}}, {"guests": 3}])
def test_what_is_not_known_of_the_run_is_an_evidence_problem(run: Any, fact: str) -> None:
    with pytest.raises(EvidenceProblem):
        getattr(Evidence({}, run=run).run, fact)


@pytest.mark.parametrize("name", ["later", "unseen"])
def test_a_guest_that_was_not_started_yet_is_waited_for(name: str) -> None:
    """While a run goes on, a check that asks for it decides nothing yet."""
    with pytest.raises(NotRecorded):
        _ = Evidence({}, run=RUN).run.guest(name).kernel


# --- what was looked at --------------------------------------------------------------------------------------------------------------


def test_what_is_read_is_known() -> None:
    evidence = Evidence({"a": {"n": 1, "rows": [{"x": 1, "y": 2}, {"x": 3}], "t": ["u", "v"], "unread": 5}, "b": {}}, {"rounds": 3}, RUN)
    _ = evidence["a"].integer("n"), [row.integer("x") for row in evidence["a"].records("rows")], evidence["a"].texts("t")
    _ = "extra" in evidence["a"], "c" in evidence, evidence.parameters.integer("rounds"), evidence.run.guest("main").kernel
    assert list(evidence["b"]) == []
    assert set(evidence.reads.rests_on()) == {
        *("a.n", "a.rows[*].x", "a.t[*]", "a.extra", "b", "c"),
        *("parameters.rounds", "run.guests.main.kernel"),
    }
    assert evidence.reads.members == {"b"}
    assert evidence.watched().reads.rests_on() == []


def test_of_many_places_it_names_what_they_lie_in() -> None:
    evidence = Evidence({"a": {"n": 1, "deep": {f"key{i}": {"x": 1} for i in range(500)}}})
    _ = evidence["a"].integer("n"), [evidence["a"].record("deep").record(name).integer("x") for name in evidence["a"].record("deep")]
    assert evidence.reads.rests_on() == ["a.n", "a.deep"]
    wide = Evidence({f"seen{i}": {} for i in range(500)})
    assert ["seen3" in wide for _ in range(2)] == [True, True]
    assert len([name for name in (f"seen{i}" for i in range(500)) if name in wide]) == 500
    assert len(wide.reads.rests_on()) == 60


def test_a_key_of_the_guests_that_is_endless_is_cut() -> None:
    evidence = Evidence({"a": {"x" * 100_000: 1}})
    assert ["x" * 100_000 in evidence["a"]] == [True]
    assert [len(place) for place in evidence.reads.rests_on()] == [200]
