"""The verdict on recorded worlds, and on records that were tampered with, cut off, or never were records.

kvm_records/ holds what the probe printed: under kvm_amd in a guest of QEMU's TCG (npt=1 and npt=0), under kvm_intel in Bochs (ept=1 and
ept=0), and on a machine whose /dev/kvm is software.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from vmlab.host.kvm import measurements
from vmlab.host.probe_view import render
from vmlab.probes import kvm
from vmlab.probes.kvm import EXPECTED, Judgement, failure, read
from vmlab.probes.kvm_record import SCHEMA_PATH, schema_text

RECORDS = Path(__file__).with_name("kvm_records")
Record = dict[str, Any]


def load(name: str) -> Record:
    record: Record = json.loads((RECORDS / f"{name}.json").read_text())
    return record


def judge(record: Record) -> Judgement:
    """As the runner does with what a probe printed."""
    return kvm.judge(read(record))


NESTED = [path.stem for path in sorted(RECORDS.glob("npt-*.json")) + sorted(RECORDS.glob("ept-*.json"))]
SHADOW = [path.stem for path in sorted(RECORDS.glob("shadow-*.json"))]


def counts(found: Judgement) -> dict[str, float | None]:
    return {f"{row.phase} {row.counter}": row.measured for row in found.rows}


@pytest.mark.parametrize("name", NESTED)
def test_nested_paging(name: str) -> None:
    found = judge(load(name))
    assert found.kind == "nested", found.sentence
    assert counts(found) == {f"{row.phase} {row.counter}": row.nested for row in EXPECTED}
    assert found.usable
    assert not found.contradiction


@pytest.mark.parametrize("name", SHADOW)
def test_shadow_paging(name: str) -> None:
    found = judge(load(name))
    assert found.kind == "shadow", found.sentence
    assert counts(found) == {f"{row.phase} {row.counter}": row.shadow for row in EXPECTED}
    assert found.usable
    assert not found.contradiction


def test_there_are_records() -> None:
    assert NESTED
    assert SHADOW


def test_software() -> None:
    found = judge(load("software"))
    assert found.kind == "emulated"
    assert found.emulated_per_iteration == 2
    assert not found.usable
    assert "2.0 emulated instructions" in found.sentence


# --- each thing that speaks against it is seen --------------------------------------------------------------------------------------


def set_count(phase: str, counter: str, value: int) -> Callable[[Record], None]:
    def change(record: Record) -> None:
        record["phases"][phase]["counts"][counter] = value

    return change


def slow(record: Record) -> None:
    record["phases"]["compute"]["times_ns"] = [50_000_000] * 5


def wrong_result(record: Record) -> None:
    record["phases"]["remap"] |= {"correct": False, "problem": "r8 is 0x0 and must be 0x7"}


def no_counters(record: Record) -> None:
    record["has_counters"] = False
    for phase in record["phases"].values():
        phase["counts"] = {}


def unfinished(record: Record) -> None:
    record["error"] = {"step": "after remap", "errno": "", "text": "not done after 15 s"}
    for name in ("reload_cr3", "page_fault", "swap_data", "swap_table", "swap_walk"):
        del record["phases"][name]


def half(record: Record) -> None:
    del record["phases"]["swap_walk"]


def refused(record: Record) -> None:
    record["phases"] = {}
    record["error"] = {"step": "KVM_CREATE_VM", "errno": "EBUSY", "text": "Device or resource busy"}


@pytest.mark.parametrize(
    ("change", "kind", "usable", "words"),
    [
        (set_count("remap", "exits", 4001), "unknown", True, "fit neither nested nor shadow paging (remap 2 exits"),
        (set_count("reload_cr3", "exits", 2101), "unknown", True, "reload_cr3 "),
        (set_count("page_fault", "pf_guest", 2000), "unknown", True, "page_fault 1 pf_guest"),
        (set_count("swap_table", "pf_taken", 0), "unknown", True, "swap_table 0 pf_taken"),
        (set_count("swap_walk", "pf_taken", 128), "unknown", True, "swap_walk 4 pf_taken"),
        (set_count("touch_again", "pf_taken", 256), "unknown", True, "touch_again 1 pf_taken"),
        (set_count("compute", "insn_emulation", 2_000_000), "emulated", False, "2.0 emulated instructions"),
        (slow, "emulated", False, "takes 250 ns"),
        (wrong_result, "broken", False, "remap: r8 is 0x0 and must be 0x7"),
        (no_counters, "unknown", True, "Linux 5.14"),
        (unfinished, "unknown", False, "after remap failed: not done after 15 s"),
        (half, "unknown", False, "not measured: swap_walk"),
        (refused, "unknown", False, "KVM_CREATE_VM failed: EBUSY, Device or resource busy"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_speaks_against_nested_paging_is_seen(change: Callable[[Record], None], kind: str, usable: bool, words: str) -> None:
    record = load("npt-6.12")
    change(record)
    found = judge(record)
    assert (found.kind, found.usable) == (kind, usable), found.sentence
    assert words in found.sentence


def test_a_few_exits_of_the_hosts_own_work_change_nothing() -> None:
    record = load("npt-6.12")
    for phase in ("remap", "reload_cr3", "page_fault"):
        record["phases"][phase]["counts"]["exits"] += 90
    assert judge(record).kind == "nested"


def test_interrupts_are_nobodys_fault() -> None:
    record = load("npt-6.12")
    record["phases"]["remap"]["counts"] |= {"exits": 5001, "irq_exits": 5000}
    assert judge(record).kind == "nested"


def test_what_was_measured_before_a_hang_counts() -> None:
    record = load("software")
    unfinished(record)
    assert judge(record).kind == "emulated"


@pytest.mark.parametrize(
    ("name", "claim", "contradiction"),
    [
        ("npt-6.12", "npt=N", "the module says npt=N, and nested paging was measured"),
        ("shadow-svm-6.12", "npt=1", "the module says npt=1, and shadow paging was measured"),
        ("npt-6.12", "", ""),
        ("npt-6.12", "npt=maybe", ""),
        ("software", "ept=Y", ""),
    ],
)
def test_a_claim_that_the_counts_contradict(name: str, claim: str, contradiction: str) -> None:
    record = load(name)
    record["claim"]["nested_paging"] = claim
    found = judge(record)
    assert (found.claimed, found.contradiction) == (claim, contradiction)


# --- records that are none --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "record",
    [
        {},
        {"claim": {}, "phases": []},
        {"claim": 1, "phases": {}},
        {"claim": {}, "phases": {}},
        {"claim": {}, "phases": {"compute": 7}},
        failure("it hung").as_json(),
    ],
    ids=["empty", "list", "number", "no-phases", "phase-is-a-number", "failure"],
)
def test_what_is_no_record_is_unknown(record: Record) -> None:
    found = judge(record)
    assert (found.kind, found.usable, found.incomplete) == ("unknown", False, True)


GARBAGE = [None, True, -1, 0, 1 << 80, 0.5, float("nan"), "7", [], {}, [1], {"x": 1}]


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a record that something else could stand in."""
    if isinstance(value, dict):
        return [path, *(place for key, each in value.items() for place in places(each, (*path, key)))]
    if isinstance(value, list) and value:
        return [path, *places(value[0], (*path, 0))]
    return [path]


def test_garbage_anywhere_is_survived_and_never_makes_a_verdict_of_another_world() -> None:
    sound = load("npt-6.12")
    for place in places(sound)[1:]:
        for garbage in GARBAGE:
            record = copy.deepcopy(sound)
            inner = record
            for key in place[:-1]:
                inner = inner[key]
            inner[place[-1]] = garbage
            found = judge(record)
            assert found.kind != "shadow", (place, garbage)
            assert render(read(record), found).plain


# --- as a person sees it ------------------------------------------------------------------------------------------------------------


def test_the_table_shows_every_count_within_80_columns() -> None:
    record = load("shadow-svm-6.12")
    record["claim"]["nested_paging"] = "npt=1"
    lines = render(read(record), judge(record), 80).plain.splitlines()
    assert max(map(len, lines)) <= 80
    assert sum(line.startswith("  ") for line in lines) == len(EXPECTED) + 1
    assert ["maps", "another", "page,", "reads", "it", "2000", "exits", "2", "0", "2"] in [line.split() for line in lines]
    assert any(line.startswith("Shadow paging:") for line in lines)
    assert any(line.startswith("Contradiction: the module says npt=1") for line in lines)


def test_a_probe_that_did_not_run_has_a_sentence_and_no_table() -> None:
    record = failure("it hung")
    text = render(record, kvm.judge(record)).plain
    assert "it hung" in text
    assert "KVM's counter" not in text


# --- the schema -------------------------------------------------------------------------------------------------------------------------


def test_the_published_schema_is_that_of_the_models() -> None:
    assert SCHEMA_PATH.read_text(encoding="utf-8") == schema_text(), "run: python -m vmlab.probes.kvm_record"


@pytest.mark.parametrize("name", [*NESTED, *SHADOW, "software"])
def test_what_the_probe_printed_follows_it(name: str) -> None:
    schema = json.loads(SCHEMA_PATH.read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    for record in (load(name), read(load(name)).as_json(), failure("it hung").as_json()):
        jsonschema.validate(record, schema, cls=jsonschema.Draft202012Validator)


@pytest.mark.parametrize(
    ("change", "place"),
    [
        (lambda record: record["phases"]["remap"].update(n=0), "phases.remap.n"),
        (lambda record: record["phases"]["remap"].update(correct=1), "phases.remap.correct"),
        (lambda record: record["phases"]["remap"]["counts"].update(exits=True), "phases.remap.counts.exits"),
        (lambda record: record["phases"].update(more=record["phases"]["remap"]), "phases.more"),
        (lambda record: record["claim"].update(flags="vmx"), "claim.flags"),
        (lambda record: record.update(format=2), "format"),
        (lambda record: record.update(kind="nested"), "kind"),
        (lambda record: record.pop("error"), "error"),
    ],
)
def test_a_record_of_another_form_says_where(change: Callable[[Record], None], place: str) -> None:
    record = load("npt-6.12")
    change(record)
    found = read(record)
    assert found.error is not None
    assert found.error.text.startswith(f"the record is malformed: {place}")
    assert not found.phases
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(record, json.loads(SCHEMA_PATH.read_text()))


def test_how_often_the_probe_does_a_thing_is_in_its_record() -> None:
    """What a reader of the record relies on: that ``n`` is what the probe was written to do."""
    done = {name: phase["n"] for name, phase in load("npt-6.12")["phases"].items()}
    assert done["swap_walk"] == done["swap_data"] == measurements.SWAPS
    assert done["remap"] == measurements.LOOP_N
