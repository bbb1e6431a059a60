"""`vmlab controls` and parts of an experiment through the command line, on guests that emulate nothing."""

from __future__ import annotations

import json
import signal
import subprocess
import textwrap
from pathlib import Path
from typing import Any

import pytest

from tests.stand_in.machine import Done, StandIn
from vmlab.report import matrix, store
from vmlab.report.matrix import Matrix

pytestmark = pytest.mark.timeout(200)

LAB = """\
title: A lab in two parts
summary: What it says may be false.
claims:
  A: {says: "It is so.", stands: holds}
guests:
  main: {memory_mib: 512, cpus: 1}
parameters:
  says: {type: text, default: hello, choices: [hello, nothing, noise, break], help: what is said}
  count: {type: integer, default: 3, minimum: 1, help: how many there are}
"""
CONTROLS = """\
controls:
  silence:
    breaks: Nobody says anything.
    set: {says: nothing}
    fails: [it_is_said]
    parts: [word]
  fewer:
    breaks: There are fewer than there should be.
    set: {count: 1}
    fails: [there_are_three]
"""
EXPERIMENT = '''\
from pathlib import Path

from vmlab.bench import Bench, part

HERE = Path(__file__).parent


@part
def word(bench: Bench) -> None:
    """Let the guest say a word."""
    says = str(bench.parameters["says"])
    if says == "break":
        raise RuntimeError("broken on purpose")
    heard = bench.guest().run(f"echo {says}").stdout.strip()
    if says == "noise" and not (HERE / "quiet").exists():
        (HERE / "quiet").touch()
        heard = "..."
    bench.record("word", {"heard": heard})


@part
def number(bench: Bench) -> None:
    """Count."""
    bench.record("number", {"count": bench.parameters["count"]})
'''
CHECKS = '''\
from vmlab.lab import check, failed, inconclusive, passed


@check(points=1, claim="A")
def it_is_said(evidence):
    """A word is said."""
    heard = evidence["word"].text("heard")
    if heard == "...":
        return inconclusive("It was too loud.", measured=heard)
    return passed("Yes.", measured=heard) if heard in ("hello", "noise") else failed("No.", expected="a word", measured=heard)


@check(points=1, claim="A", after="it_is_said")
def it_is_short(evidence):
    """The word is short."""
    heard = evidence["word"].text("heard")
    return passed("Yes.", measured=heard) if len(heard) < 9 else failed("No.", measured=heard)


@check(points=1, claim="A")
def there_are_three(evidence):
    """There are three."""
    count = evidence["number"].integer("count")
    return passed("Yes.", measured=str(count)) if count == 3 else failed("No.", expected="3", measured=str(count))
'''
REASON = "unrefuted:\n  it_is_short: No word that a guest of this lab says is long.\n"


class Place(StandIn):
    """A machine with one lab, and the command line that tries its controls."""

    def argv(self, command: str, *words: str) -> list[str]:
        if command != "controls":
            return super().argv(command, *words)
        where = ("--labs", str(self.labs), "--reports", str(self.reports), "--accel", "tcg", "--image", str(self.image))
        return [*super().argv(command), *where, *words]

    def lab(self, controls: str = CONTROLS + REASON, name: str = "talk") -> Path:
        folder = self.labs / name
        folder.mkdir(parents=True)
        for file, text in (("lab.yaml", LAB + controls), ("experiment.py", EXPERIMENT), ("checks.py", CHECKS)):
            (folder / file).write_text(text)
        return folder

    def controls(self, *words: str) -> Done:
        """The command in a process of its own: its runs are forked from one that it starts."""
        process = self.start("controls", *words)
        out, err = process.communicate(timeout=150)
        assert "Traceback" not in out + err
        return Done(process.returncode, out, err)

    def matrix(self, name: str = "talk") -> Matrix:
        return matrix.load(self.reports / "controls" / name)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def letters(found: Matrix) -> dict[str, list[str]]:
    return {world.name: ["left out" if cell.left_out else cell.verdict.value for cell in world.cells] for world in found.worlds}


def test_green(place: Place) -> None:
    place.lab()
    done = place.controls("talk", "-j", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    found = place.matrix()
    assert found.green
    assert letters(found) == {
        "sound": ["pass", "pass", "pass"],
        "silence": ["fail", "inconclusive", "left out"],
        "fewer": ["pass", "pass", "fail"],
    }
    for world in found.worlds:
        report = store.load(place.reports / "controls" / "talk" / world.report)
        assert report.lab.name == "talk"
        assert report.run.left_out == (["number"] if world.name == "silence" else [])
        assert (place.reports / "controls" / "talk" / world.report / "report.html").is_file()
    page = (place.reports / "controls" / "talk" / "controls.html").read_text()
    assert "Nobody says anything." in page
    table = done.stdout[done.stdout.index("talk: 3 checks in 3 worlds") :]
    assert "there_are_three           P  .  F" in table
    assert "talk: green: 2 of 3 checks refuted in real guests" in table
    assert max(len(line) for line in table.splitlines()[:-1]) <= 80
    assert "talk/silence: as it must be, in " in done.stdout
    assert not (place.reports / "controls" / "index.json").exists()


def test_json_is_all_that_is_printed(place: Place) -> None:
    place.lab()
    done = place.controls("talk", "--json", "--world", "fewer")
    assert done.returncode == 0, done.stderr
    (value,) = json.loads(done.stdout)
    assert (value["schema_version"], value["green"], value["not_run"]) == ("1.0", True, ["sound", "silence"])


def test_a_check_without_control_or_reason_is_said_before_and_after(place: Place) -> None:
    place.lab(CONTROLS)
    done = place.controls("talk", "--quiet")
    assert done.returncode == 1
    assert "! check it_is_short: no control refutes it, and `unrefuted` does not say why" in done.stdout
    assert done.stdout.splitlines()[0].startswith("talk/sound: as it must be")
    assert place.matrix().problems == ["check it_is_short: no control refutes it, and `unrefuted` does not say why"]
    loud = place.controls("talk")
    assert loud.stdout.index("talk: no control refutes it_is_short") < loud.stdout.index("talk/sound: starts")


NOT_GREEN = {
    "fails unnamed": (
        CONTROLS.replace("set: {says: nothing}", "set: {says: nothing, count: 2}").replace("    parts: [word]\n", "") + REASON,
        "! world silence: there_are_three must pass, but fails (measured: 2)",
    ),
    "named and does not fail": (
        CONTROLS.replace("fails: [there_are_three]", "fails: [there_are_three, it_is_said]") + REASON,
        "! world fewer: it_is_said must fail, but passes (measured: hello)",
    ),
    "named and left out": (
        CONTROLS + "    parts: [word]\n" + REASON,
        "! world fewer: there_are_three must fail, but none of the parts",
    ),
    "the sound world": (
        CONTROLS.replace("{count: 1}", "{count: 3}") + REASON,
        "! world sound: there_are_three must pass, but fails (measured: 4)",
    ),
}


@pytest.mark.parametrize(("controls", "says"), NOT_GREEN.values(), ids=list(NOT_GREEN))
def test_not_green(place: Place, controls: str, says: str) -> None:
    folder = place.lab(controls)
    if "sound" in says:
        (folder / "lab.yaml").write_text((folder / "lab.yaml").read_text().replace("default: 3, minimum", "default: 4, minimum"))
    done = place.controls("talk")
    assert done.returncode == 1, done.stdout + done.stderr
    assert says in done.stdout
    assert "talk: not green: " in done.stdout


def test_noise_is_run_once_more_and_both_runs_are_kept(place: Place) -> None:
    place.lab(
        CONTROLS + textwrap.indent("loud: {breaks: It is loud., set: {says: noise, count: 9}, fails: [there_are_three]}\n", "  ") + REASON
    )
    done = place.controls("talk", "--world", "loud")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "talk/loud: 2 not as they must be, in " in done.stdout
    assert "; it is run again" in done.stdout
    (world,) = place.matrix().worlds
    assert len(world.earlier) == 1
    assert world.earlier[0] != world.report
    before, after = (store.load(place.reports / "controls" / "talk" / each) for each in (*world.earlier, world.report))
    assert [before.checks[0].verdict, after.checks[0].verdict] == ["inconclusive", "pass"]


def test_noise_that_stays_is_held_against_the_lab_after_the_second_run(place: Place) -> None:
    folder = place.lab()
    text = (folder / "checks.py").read_text()
    (folder / "checks.py").write_text(text.replace('    heard = evidence["word"].text("heard")\n', '    heard = "..."\n', 1))
    done = place.controls("talk", "--world", "sound")
    assert done.returncode == 1
    assert done.stdout.count("talk/sound: starts") == 2
    assert "! world sound: it_is_said must pass, but is inconclusive (measured: ...)" in done.stdout


def test_a_run_that_breaks(place: Place) -> None:
    place.lab(CONTROLS + textwrap.indent("bad: {breaks: It breaks., set: {says: break}, fails: [it_is_short]}\n", "  "))
    done = place.controls("talk", "--retry-errors", "1")
    assert done.returncode == 3
    assert "world bad: its run broke: the experiment of talk broke: RuntimeError: broken on purpose" in " ".join(done.stdout.split())
    (bad,) = (world for world in place.matrix().worlds if world.name == "bad")
    assert len(bad.earlier) == 1


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["nobody"], "there is no lab named 'nobody'"),
        (["talk", "--world", "silent"], "there is no world named 'silent'; did you mean 'silence'?"),
        (["talk", "--param", "cuont=3"], "there is no parameter named 'cuont'"),
        (["talk", "-j", "none"], "expected a number"),
        ([], "Missing argument 'LAB...'"),
        (["plain"], "the lab plain has no controls"),
    ],
)
def test_a_mistake_is_answered_before_anything_starts(place: Place, words: list[str], says: str) -> None:
    place.lab()
    place.lab("", "plain")
    done = place.run("controls", *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert says in done.stderr
    assert not place.reports.exists()


def test_a_mistake_in_lab_yaml_has_its_file_and_line(place: Place) -> None:
    place.lab(CONTROLS.replace("count: 1", "count: 0"))
    done = place.run("controls", "talk")
    assert done.returncode == 2
    assert "talk/lab.yaml:18: controls.fewer.set.count: expected at least 1, found '0'" in done.stderr


def test_all_is_every_lab_that_has_controls(place: Place) -> None:
    place.lab()
    place.lab("", "plain")
    place.lab(name="other")
    done = place.controls("all", "--world", "fewer", "-q")
    # (Those that ship with vmlab have no such world, and are named first.)
    assert done.returncode == 2
    assert "there is no world named 'fewer'" in done.stderr
    done = place.controls("talk", "other", "talk", "--world", "fewer", "-q", "-j", "2")
    assert done.returncode == 0, done.stderr
    assert place.matrix("talk").green
    assert place.matrix("other").green


def test_an_interrupt_leaves_what_was_done(place: Place) -> None:
    place.lab()
    process = place.start("controls", "talk")
    assert process.stdout is not None
    for line in process.stdout:
        if "talk/silence: starts" in line:
            break
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, out + err
    found = place.matrix()
    assert "world fewer: it was not run" in found.problems
    assert [world.verdict for world in found.worlds][2] is None


def test_a_terminal_shows_a_row_a_world(place: Place) -> None:
    place.lab()
    status, text = place.on_terminal("controls", "talk")
    assert status == 0
    assert "talk/silence" in text
    assert "✓ pass" in text
    assert "✗ fail" not in text, "a world that is as it must be is no failure"


# --- parts of an experiment ---------------------------------------------------------------------------------------------------------


def test_a_run_of_some_parts_says_so_and_neither_passes_nor_breaks_what_is_left_out(place: Place) -> None:
    place.lab()
    done = place.run("run", "talk", "--part", "word")
    assert done.returncode == 1
    report: Any = place.report("talk")
    assert {check["id"]: check["verdict"] for check in report["checks"]} == {
        "it_is_said": "pass",
        "it_is_short": "pass",
        "there_are_three": "inconclusive",
    }
    assert [check["left_out"] for check in report["checks"]] == [False, False, True]
    assert (report["run"]["parts"], report["run"]["left_out"]) == (["word"], ["number"])
    assert "parts run: word; left out: number" in done.stdout
    page = (place.reports / "talk" / "latest" / "report.html").read_text()
    assert "Only a part of the experiment was run: <b>word</b>; left out: number." in page
    assert [phase["name"] for phase in report["phases"] if phase["depth"] == 0][-1] == "Let the guest say a word"
    again = place.run("check", str(place.reports / "talk" / "latest"), "--labs", str(place.labs))
    assert again.returncode == 0, "judged again, it is the same"


def test_both_parts_are_the_whole(place: Place) -> None:
    place.lab()
    assert place.run("run", "talk", "--part", "number", "--part", "word").returncode == 0
    assert place.report("talk")["run"]["left_out"] == []


def test_a_part_that_there_is_not(place: Place) -> None:
    place.lab()
    done = place.run("run", "talk", "--part", "wrod")
    assert done.returncode == 2
    assert "no part named 'wrod'; did you mean 'word'?" in done.stderr
    assert not place.reports.exists()


def test_nothing_of_it_is_left(place: Place) -> None:
    place.lab()
    assert place.controls("talk", "--world", "sound").returncode == 0
    left = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert str(place.root) not in left
    assert list((place.root / "slots").iterdir()) == []
