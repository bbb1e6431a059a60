"""What labs' tests are made of (vmlab.lab.controls): a lab of few checks, each with a bug of its own that the kit must find."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.tinylab import write_lab
from vmlab.errors import UsageError
from vmlab.lab import read_lab
from vmlab.lab.controls import (
    FAIL,
    PASS,
    Controls,
    Sound,
    World,
    add,
    changed,
    drop,
    put,
    take,
)
from vmlab.lab.controls.kept import Kept, read, text_of
from vmlab.lab.controls.thin import thinned
from vmlab.lab.skeleton import create

CHECKS = '''
from vmlab.lab import check, failed, inconclusive, not_observable, passed


@check(points=1, claim="X1")
def it_grows(evidence):
    """What is seen grows, by a tenth of the bound at most."""
    rows = evidence["seen"].records("rows", at_least=3)
    counts = [row.integer("count", minimum=0) for row in rows]
    if counts[-1] <= 100 and counts == sorted(set(counts)):
        return passed("It grows.", measured=str(counts))
    return failed("It does not.", measured=str(counts))


@check(points=1, claim="X1", after="it_grows")
def it_is_fair(evidence):
    """Divides by what may be nothing."""
    seen = evidence["seen"]
    share = seen.integer("one") / seen.integer("of")
    return passed("Half.", measured=str(share)) if share == 0.5 else failed("Not half.", measured=str(share))


@check(points=1, claim="X1")
def it_is_all_there(evidence):
    """Divides by what is nothing only where all are."""
    total = sum(evidence["parts"].record(name).number("took", minimum=0) for name in evidence["parts"])
    return passed("All.", measured=str(10 / total)) if total == 6 else failed("Not all.", measured=str(10 / total))


@check(points=1, claim="X1")
def it_believes(evidence):
    """Passes when nothing is there."""
    told = "lies" in evidence and evidence["lies"].is_null("it")
    return failed("No.", measured="it") if told else passed("Yes.", measured="nothing against it")
'''
OBSERVATIONS: dict[str, Any] = {
    "seen": {
        "rows": [{"count": n, "at": n / 10, "note": {"who": "cares", "when": [1, 2, 3]}} for n in (1, 5, 100)],
        "one": 1,
        "of": 2,
        "unread": "x",
    },
    "parts": {name: {"took": took} for name, took in (("a", 1), ("b", 2), ("c", 3))},
    "lies": {"it": 0},
}


@pytest.fixture
def sound(tmp_path: Path) -> Sound:
    folder = write_lab(tmp_path, "aa")
    (folder / "checks.py").write_text(CHECKS)
    return Sound(read_lab(folder), OBSERVATIONS, {"answer": 42}, {"accelerator": "tcg", "guests": {}})


# --- places and changes ------------------------------------------------------------------------------------------------------------------


def test_a_place_is_read_set_and_dropped(sound: Sound) -> None:
    world = sound.world()
    assert world["seen.rows[-1].count"] == 100
    assert world["parameters.answer"] == 42
    assert world["run.accelerator"] == "tcg"
    world["seen.rows[0].count"] = 3
    world["parameters.answer"] = 7
    del world["seen.rows[1]"]
    assert [row["count"] for row in world["seen"]["rows"]] == [3, 100]
    assert world.evidence.parameters.integer("answer") == 7
    assert "seen.rows[2]" not in world and "seen.rows[1]" in world
    assert sound.world()["seen.rows[0].count"] == 1, "what a test changes is its own"


@pytest.mark.parametrize(
    ("change", "place", "value"),
    [
        (put("seen.of", 4), "seen.of", 4),
        (put("seen.rows[*].count", 0), "seen.rows[2].count", 0),
        (add("seen.more", [1]), "seen.more", [1]),
        (add("seen.rows[3]", {"count": 101}), "seen.rows[3].count", 101),
        (take("seen.one", "seen.of"), "seen.one", 2),
        (changed("seen.rows[*].count", lambda count: count + 1), "seen.rows[1].count", 6),
        (drop("seen.rows[0].note"), "seen.rows[0]", {"count": 1, "at": 0.1}),
        (drop("seen.rows[*].note"), "seen.rows[2]", {"count": 100, "at": 10.0}),
        (drop("seen.rows[*]"), "seen.rows", []),
    ],
    ids=str,
)
def test_a_change_changes_what_it_names(sound: Sound, change: Any, place: str, value: Any) -> None:
    world = sound.world()
    change(world)
    assert world[place] == value


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (put("seen.fo", 1), "there is no 'fo'"),
        (put("sene.of", 1), "did you mean 'seen'"),
        (put("seen.rows[3].count", 1), r"\[3\] leads nowhere in a list of 3"),
        (put("seen.of.x", 1), "nothing that could hold x"),
        (put("seen.of[*]", 1), "is for the members of a list"),
        (put("", 1), "is no place"),
        (put("[0]", 1), "is no place"),
        (put("seen..of", 1), "is no place"),
        (put("parameters", 1), "names everything"),
        (add("seen.of", 1), "there is something already"),
        (add("seen.rows[7]", 1), "it is not the end of the list"),
        (drop("seen.nothing"), "there is no 'nothing'"),
        (take("seen.of", "seen.fo"), "there is no 'fo'"),
        (changed("seen.rows[*].cuont", str), "did you mean 'count'"),
    ],
    ids=str,
)
def test_a_change_that_changes_nothing_is_a_mistake(sound: Sound, change: Any, words: str) -> None:
    with pytest.raises(LookupError, match=words):
        change(sound.world())


# --- the table ------------------------------------------------------------------------------------------------------------------------


def test_controls_hold_and_prove(sound: Sound) -> None:
    controls = Controls(sound)
    controls.bound("it_grows", "seen.rows[-1].count", within=99, beyond=101)
    controls.fails("it_grows", put("seen.rows[*].count", 1), name="it stands still")
    controls.is_inconclusive("it_grows", drop("seen.rows[0].count"))

    @controls.control("it_is_fair")
    def a_third(world: World) -> None:
        world["seen"]["of"] = 3

    assert [str(each) for each in controls] == [
        "it_grows-just within: seen.rows[-1].count = 99",
        "it_grows-just beyond: seen.rows[-1].count = 101",
        "it_grows-it stands still",
        "it_grows-without seen.rows[0].count",
        "it_is_fair-a_third",
    ]
    for control in controls:
        control.hold()
    controls.prove("it_grows")
    controls.prove("it_is_fair")
    with pytest.raises(AssertionError, match="it_believes was never seen to fail"):
        controls.prove("it_believes")


def test_a_control_that_does_not_hold_says_what_came_out(sound: Sound) -> None:
    controls = Controls(sound)
    controls.fails("it_grows", put("seen.of", 3))
    with pytest.raises(AssertionError, match=r"it_grows must come out as fail where seen\.of = 3, and is pass: It grows\."):
        next(iter(controls)).hold()
    with pytest.raises(AssertionError, match="it_grows must come out as fail"):
        controls.prove("it_grows")


def test_a_control_that_changes_nothing_proves_nothing(sound: Sound) -> None:
    controls = Controls(sound)
    controls.passes("it_grows", put("seen.of", 2))
    with pytest.raises(AssertionError, match="this changes nothing in the evidence"):
        next(iter(controls)).hold()


def test_a_check_that_there_is_not_and_a_name_that_stands_twice_are_refused(sound: Sound) -> None:
    controls = Controls(sound)
    with pytest.raises(UsageError, match="no check named 'it_grosw'; did you mean 'it_grows'"):
        controls.fails("it_grosw", put("seen.of", 3))
    controls.fails("it_grows", put("seen.of", 3))
    with pytest.raises(UsageError, match="two controls named"):
        controls.is_inconclusive("it_grows", put("seen.of", 3))


def test_the_proof_holds_for_one_test_alone_and_for_several_processes(tmp_path: Path) -> None:
    """The table is the parametrisation and the proof: nothing has to have run before."""
    folder = create("page_touch", tmp_path)
    test = f"{folder}/tests/test_page_touch.py::test_each_check_was_seen_to_fail[touching_takes_frames]"
    base = [sys.executable, "-m", "pytest", "-q", "-c", str(ROOT / "pyproject.toml"), "--rootdir", str(tmp_path)]
    for words in ([test], ["-n", "2", str(folder / "tests")]):
        done = subprocess.run([*base, *words], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    text = (folder / "checks.py").read_text()
    (folder / "checks.py").write_text(text.replace("if abs(grown - touched) <= touched / 10:", "if True:"))
    done = subprocess.run([*base, test], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert "touching_takes_frames must come out as fail" in done.stdout


# --- sound, nothing, garbage --------------------------------------------------------------------------------------------------------------


def test_sound_evidence_is_sound_and_other_is_told(sound: Sound) -> None:
    sound.hold()
    with pytest.raises(AssertionError, match="it_grows: fail; it_is_fair: inconclusive"):
        sound.changed(put("seen.rows[0].count", 7)).hold()
    assert sound.verdicts(put("seen.of", 1)) == {"it_grows": PASS, "it_is_fair": FAIL, "it_is_all_there": PASS, "it_believes": PASS}
    assert sound.verdict("it_is_fair", put("seen.rows", [])).kind is PASS, "by itself it does not rest on the other"


def test_a_check_that_passes_on_nothing_is_found(sound: Sound) -> None:
    sound.hold_without_evidence("it_grows")
    with pytest.raises(AssertionError, match=r"it_believes must be inconclusive, and is not: no evidence at all; without lies"):
        sound.hold_without_evidence("it_believes")


def test_garbage_finds_what_a_check_breaks_on(sound: Sound) -> None:
    assert sound.mutate("it_grows").broke == []
    fair = sound.mutate("it_is_fair")
    assert any("seen.of = 0: ZeroDivisionError: division by zero (checks.py:" in each for each in fair.broke)
    assert fair.judged > 40
    with pytest.raises(AssertionError, match="it_is_fair breaks on garbage"):
        fair.hold()
    together = sound.mutate("it_is_all_there").broke
    assert len(together) == 2, "one alone does no harm"
    assert "parts = {}: ZeroDivisionError" in together[0]
    assert "parts.a.took and 2 more = 0: ZeroDivisionError" in together[1]


def test_garbage_leaves_the_evidence_as_it_was(sound: Sound) -> None:
    before = sound.world()
    for name in sound.names:
        sound.mutate(name)
    assert sound.world() == before
    assert list(sound.world()["seen"]) == list(OBSERVATIONS["seen"]), "members keep their order"


def test_every_place_that_is_read_is_turned_into_garbage_in_each_way(sound: Sound, monkeypatch: pytest.MonkeyPatch) -> None:
    from vmlab.lab.controls import mutation

    seen: list[str] = []

    def watched(check: Any, world: World) -> str:
        seen.append(json.dumps(world.observations, default=str))
        return ""

    monkeypatch.setattr(mutation, "_broken_by", watched)
    sound.mutate("it_grows")
    plain = json.dumps(OBSERVATIONS)
    assert plain not in seen, "each is another world"
    for part in (
        '"count": null',
        '"count": -1',
        '"count": "garbage"',
        '"count": 1e+308',
        f'"count": {1 << 70}',
        '"rows": []',
        '"rows": {}',
    ):
        assert any(part in world for world in seen), part
    worlds = [json.loads(world).get("seen") for world in seen]
    rows = [world.get("rows") for world in worlds if isinstance(world, dict)]
    counts = [[row.get("count") for row in each if isinstance(row, dict)] for each in rows if isinstance(each, list)]
    assert [1, 1, 5, 100] in counts, "twice"
    assert [5, 100] in counts, "deleted"
    assert [5, 1, 100] in counts, "swapped"
    assert [100, 5, 1] in counts, "turned round"
    assert [1] in counts, "cut in half"
    assert [-1, -1, -1] in counts, "all of them"


def test_a_check_is_judged_only_where_it_reads(sound: Sound) -> None:
    assert set(sound.reads("it_is_fair").places) == {"seen", "seen.one", "seen.of"}
    assert sound.unread() == ["seen.rows[*].at", "seen.rows[*].note", "seen.unread"]


def test_it_is_quick_where_there_is_much(sound: Sound) -> None:
    """Thousands of values of which a check reads a few, and a long list whose members are alike."""
    rows = [{"count": n, "at": n / 10} for n in range(101)]
    wide = sound.changed(
        put("seen.rows", rows),
        put("lies", {"it": 0, "much": {f"k{i}": {"x": i, "y": [i] * 5} for i in range(1000)}}),
    )
    began = time.monotonic()
    judged = sum(wide.mutate(name).judged for name in wide.names)
    assert 150 < judged < 1500
    assert time.monotonic() - began < 10


# --- sound.json ------------------------------------------------------------------------------------------------------------------------


def test_what_is_kept_is_read_back_as_it_was(tmp_path: Path) -> None:
    same = {"units": [{"id": f"unit-{i}", "state": "active"} for i in range(20)]}
    kept = Kept(
        {"boots": {"boots": [{"n": i, **json.loads(json.dumps(same))} for i in range(9)]}, "é": {"x": [1.5, None, True]}}, {"a": 1}, {}
    )
    text = text_of(kept)
    (tmp_path / "sound.json").write_text(text)
    assert read(tmp_path / "sound.json", "aa") == kept
    assert text == text_of(kept), "the same for the same run"
    assert len(text) < 2000, "what stands in each boot is kept once"
    assert [line for line in text.splitlines() if line.startswith("  ")][1].startswith('  "é": ') or '"\\u00e9"' in text


@pytest.mark.parametrize(
    "text",
    [
        *("", "[]", "{}", '{"format": 2}', "\ufffe"),
        '{"format": 1, "observations": [], "parameters": {}, "run": {}}',
        '{"format": 1, "observations": {"a": {"same as": ["b", 3]}}, "parameters": {}, "run": {}}',
        '{"format": 1, "observations": {"a": {"same as": ["a"]}}, "parameters": {}, "run": {}}',
        '{"format": 1, "observations": {"a": {"same as": 5}}, "parameters": {}, "run": {}}',
    ],
)
def test_a_file_that_is_no_sound_set_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "sound.json").write_text(text)
    with pytest.raises(UsageError) as caught:
        read(tmp_path / "sound.json", "aa")
    assert "sound.json" in caught.value.message
    assert "vmlab record aa" in caught.value.hint


def test_a_lab_without_a_sound_set_is_told_how_to_get_one(tmp_path: Path) -> None:
    folder = write_lab(tmp_path, "aa")
    with pytest.raises(UsageError, match=r"sound\.json does not exist") as caught:
        Sound.of(folder / "tests" / "test_x.py")
    assert "vmlab record aa" in caught.value.hint
    with pytest.raises(UsageError, match="lies in no lab's folder"):
        Sound.of(tmp_path / "test_x.py")


def test_long_lists_become_short_where_no_verdict_changes(sound: Sound) -> None:
    checks = list(sound.checks.values())
    noise = [{"at": i, "x": 1.0} for i in range(5000)]
    observations = {**OBSERVATIONS, "log": {"lines": noise}, "parts": {str(i): {"took": 6 / 400} for i in range(400)}}
    rows = [{"count": n} for n in range(101)] + [{"count": 100 + n} for n in range(900)]
    kept = thinned(Kept({**observations, "seen": {**OBSERVATIONS["seen"], "rows": rows[:101]}}, {}, {}), checks, ["log.lines[-1].at"])
    lines = kept.observations["log"]["lines"]
    assert (len(lines), lines[0], lines[-1]) == (60, noise[0], noise[-1])
    assert noise[4999]["at"] == 4999, "what was given is left alone"
    counted = thinned(Kept({"seen": {"rows": rows, "one": 1, "of": 2}}, {}, {}), checks, ["seen.rows[500].count"])
    assert len(counted.observations["seen"]["rows"]) == len(rows), "a question measures what stands there"


def test_the_labs_sound_sets_are_small() -> None:
    for path in ROOT.glob("labs/*/tests/sound.json"):
        assert path.stat().st_size < 200_000, path
