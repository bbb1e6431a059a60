"""A measurement that noise can spoil, repeated until it was quiet: on the bench, and as a check reads it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.stage import stage
from tests.tinylab import write_lab
from vmlab.bench import Bench
from vmlab.errors import UsageError
from vmlab.lab import Evidence, EvidenceProblem, attempts_of, noise_of, read_lab


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with stage(tmp_path) as here:
        yield Bench(read_lab(write_lab(tmp_path, "aa")), here, {})


class Measured:
    """A measurement that is disturbed by so much each time."""

    def __init__(self, *noises: float) -> None:
        self.noises = noises
        self.count = 0

    def __call__(self) -> dict[str, Any]:
        self.count += 1
        return {"n": self.count, "moved": self.noises[self.count - 1]}


def moved(record: Mapping[str, Any]) -> float:
    return float(record["moved"])


@pytest.mark.parametrize(
    ("noises", "made", "counts"),
    [
        ([0.0, 9, 9], 1, 1),
        ([0.1, 9, 9], 1, 1),
        ([0.5, 0.05, 9], 2, 2),
        ([0.5, 0.3, 0.4], 3, 2),
        ([0.3, 0.3, 0.3], 3, 1),
        ([0.9, 0.8, 0.2], 3, 3),
    ],
)
def test_it_stops_when_it_was_quiet_and_the_quietest_counts(bench: Bench, noises: list[float], made: int, counts: int) -> None:
    measure = Measured(*noises)
    found = bench.quietest(3, measure, noise=moved)
    assert (measure.count, found["n"]) == (made, counts)
    kept = found["attempts"]
    assert [each["noise"] for each in kept] == noises[:made]
    assert [each["quietest"] for each in kept] == [n == counts for n in range(1, made + 1)]
    assert [each["measured"]["n"] for each in kept if not each["quietest"]] == [n for n in range(1, made + 1) if n != counts]
    assert all(each["host"]["wall_s"] >= 0 for each in kept)
    bench.record("growth", found)
    json.dumps(found, allow_nan=False)


def test_how_quiet_is_quiet_is_the_labs_to_say(bench: Bench) -> None:
    assert len(bench.quietest(3, Measured(0.4, 0.0), noise=moved, quiet_below=0.5)["attempts"]) == 1
    assert len(bench.quietest(1, Measured(9.0), noise=moved)["attempts"]) == 1


def test_without_a_measure_of_its_own_it_is_what_others_had_of_the_host(bench: Bench) -> None:
    (only,) = bench.quietest(1, Measured(7.0))["attempts"]
    assert only["noise"] == only["host"]["others_share"]
    assert 0 <= only["noise"] <= 1


@pytest.mark.parametrize(
    ("measure", "noise", "words"),
    [
        (lambda: 5, None, "is no object but 5"),
        (lambda: None, None, "is no object but None"),
        (lambda: {"attempts": []}, lambda _: 0.0, "has a member 'attempts' already"),
        (dict, lambda _: None, "a measure of noise gave None"),
        (dict, lambda _: -0.1, "a measure of noise gave -0.1"),
        (dict, lambda _: float("nan"), "a measure of noise gave nan"),
        (dict, lambda _: True, "a measure of noise gave True"),
    ],
)
def test_what_cannot_be_judged_is_told_at_once(bench: Bench, measure: Any, noise: Any, words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        bench.quietest(3, measure, noise=noise)
    assert caught.value.hint != UsageError.default_hint


def test_no_attempt_is_none(bench: Bench) -> None:
    with pytest.raises(UsageError, match="cannot be attempted 0 times"):
        bench.quietest(0, Measured())


def test_what_breaks_breaks(bench: Bench) -> None:
    def breaks() -> dict[str, Any]:
        raise KeyError("x")

    with pytest.raises(KeyError):
        bench.quietest(3, breaks)


# --- as a check reads it ----------------------------------------------------------------------------------------------------------------


def test_a_check_reads_the_attempts_and_their_noise(bench: Bench) -> None:
    record = Evidence({"growth": bench.quietest(3, Measured(0.5, 0.2, 0.4), noise=moved)})["growth"]
    assert record.integer("n") == 2
    assert noise_of(record) == 0.2
    found = attempts_of(record)
    assert [(each.noise, each.is_quietest, each.measured.integer("n")) for each in found] == [
        (0.5, False, 1),
        (0.2, True, 2),
        (0.4, False, 3),
    ]


QUIET, LOUD = {"noise": 0.1, "quietest": True}, {"noise": 0.5, "quietest": False, "measured": {"n": 1}}


@pytest.mark.parametrize(
    "attempts",
    [
        None,
        [],
        [LOUD],
        [QUIET, QUIET],
        [QUIET, {**LOUD, "noise": 0.05}],
        [{"noise": -1, "quietest": True}],
        [{"noise": "0", "quietest": True}],
        [{"quietest": True}],
        [QUIET, {"noise": 0.5, "quietest": False}],
    ],
)
def test_attempts_that_contradict_themselves_decide_nothing(attempts: Any) -> None:
    with pytest.raises(EvidenceProblem):
        noise_of(Evidence({"growth": {"n": 1, "attempts": attempts}})["growth"])
    assert noise_of(Evidence({"growth": {"n": 1, "attempts": [LOUD, QUIET]}})["growth"]) == 0.1
