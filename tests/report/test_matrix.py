"""The matrix of controls, made from reports: when it is green and when not, as a table, as JSON and as a page."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from vmlab.errors import UsageError
from vmlab.lab import Evidence, Verdict, passed
from vmlab.lab.checks import Check
from vmlab.lab.verdict import VerdictKind
from vmlab.lab.worlds import World
from vmlab.report import matrix, publish
from vmlab.report.batch import LabRow, Trouble
from vmlab.report.matrix import Matrix, Occasion, Outcome, Standing, Trial, matrix_of
from vmlab.report.matrix_page import matrix_html
from vmlab.report.model import CheckPart, ErrorPart, Report
from vmlab.report.schema import MATRIX_SCHEMA_PATH
from vmlab.report.table import LEGEND, matrix_lines

LETTERS = {
    "P": VerdictKind.PASS,
    "F": VerdictKind.FAIL,
    "I": VerdictKind.INCONCLUSIVE,
    "N": VerdictKind.NOT_OBSERVABLE,
    "E": VerdictKind.ERROR,
    ".": VerdictKind.INCONCLUSIVE,
}


def check(name: str, *after: str) -> Check:
    def function(_evidence: Evidence) -> Verdict:
        return passed("yes", measured="1")

    return Check(name, f"{name} is so.", 1, "Z1", after, function)


CHECKS = [check("grows"), check("rests", "grows"), check("apart")]
WORLDS = [
    World("sound"),
    World("still", "Nothing grows.", {"size": 0}, fails=["grows"]),
    World("loose", "It does not rest.", {"rest": False}, fails=["rests", "apart"], parts=["one"]),
]
GREEN = {"sound": "PPP", "still": "FIP", "loose": "PFF"}


def outcome(samples: Any, name: str, letters: str, **more: Any) -> Outcome:
    """The report of a world by the letters of its checks, on top of a report as runs write them."""
    base: Report = samples.passing()
    measured, rationale = more.get("measured", "3 of 4"), more.get("rationale", "Four were expected.")
    parts = [
        CheckPart(
            id=each.id,
            title=each.title,
            claim="Z1",
            points=0,
            max_points=1,
            verdict=LETTERS[letter],
            rationale=rationale,
            expected="4 of 4",
            measured=measured,
            left_out=letter == ".",
        )
        for each, letter in zip(CHECKS, letters, strict=True)
    ]
    run = base.run.model_copy(update={"error": more.get("error")})
    report = base.model_copy(update={"checks": parts, "run": run})
    row = LabRow(job=f"zoo/{name}", lab="zoo", title="Zoo", key="", verdict=report.verdict(), duration_s=2.5, report=f"{name}/2026")
    return Outcome(row.model_copy(update={"earlier": more.get("earlier", [])}), report)


def made(samples: Any, cells: Mapping[str, str], *, unrefuted: Mapping[str, str] | None = None, **outcomes: Outcome) -> Matrix:
    worlds = [world for world in WORLDS if world.name in cells or world.name in outcomes]
    not_run = [world.name for world in WORLDS if world not in worlds]
    trial = Trial("zoo", "A zoo", "ab" * 32, CHECKS, worlds, unrefuted or {}, not_run)
    found = {name: outcome(samples, name, letters) for name, letters in cells.items()} | outcomes
    return matrix_of(trial, found, Occasion("2026-11-25T08:00:00+00:00", "vmlab controls zoo", "0.1.0"))


def standings(found: Matrix) -> list[str]:
    return [each.standing.value for each in found.checks]


def test_green(samples: Any) -> None:
    found = made(samples, GREEN)
    assert (found.green, found.problems, found.exit_code()) == (True, [], 0)
    assert standings(found) == ["refuted"] * 3
    assert [each.refuted_in for each in found.checks] == [["still"], ["loose"], ["loose"]]
    assert found.duration_s == 7.5
    assert [world.letter for world in found.worlds] == ["-", "a", "b"]


NOT_GREEN = [
    ({"sound": "FIP"}, "world sound: grows must pass, but fails (measured: 3 of 4)"),
    ({"sound": "PPI"}, "world sound: apart must pass, but is inconclusive (measured: 3 of 4)"),
    ({"still": "FIF"}, "world still: apart must pass, but fails (measured: 3 of 4)"),
    ({"still": "PPP"}, "world still: grows must fail, but passes (measured: 3 of 4)"),
    ({"still": "III"}, "world still: grows must fail, but is inconclusive (measured: 3 of 4)"),
    ({"still": "NNP"}, "world still: grows must fail, but is not observable (measured: 3 of 4)"),
    ({"loose": "P.F"}, "world loose: rests must fail, but none of the parts that this world runs shows it (measured: 3 of 4)"),
]


@pytest.mark.parametrize(("cells", "problem"), NOT_GREEN)
def test_not_green_by_each_verdict_that_is_not_what_it_must_be(samples: Any, cells: dict[str, str], problem: str) -> None:
    found = made(samples, GREEN | cells)
    assert (found.green, found.exit_code()) == (False, 1)
    assert problem in found.problems


def test_a_check_that_was_not_seen_to_fail_is_unproved(samples: Any) -> None:
    found = made(samples, {"sound": "PPP", "still": "PIP", "loose": "PFF"})
    assert len(found.problems) == 1, "one fault is told once"
    assert standings(found) == ["unproved", "refuted", "refuted"]


def test_a_check_that_no_control_names(samples: Any) -> None:
    trial = Trial("zoo", "A zoo", "ab" * 32, CHECKS, WORLDS[:2], {}, [])
    outcomes = {name: outcome(samples, name, GREEN[name]) for name in ("sound", "still")}
    occasion = Occasion("2026-11-25T08:00:00+00:00", "vmlab controls zoo", "0.1.0")
    found = matrix_of(trial, outcomes, occasion)
    assert found.problems == [f"check {name}: no control refutes it, and `unrefuted` does not say why" for name in ("rests", "apart")]
    reasons = {"rests": "Everything rests.", "apart": "No guest can do that."}
    excused = matrix_of(Trial("zoo", "A zoo", "ab" * 32, CHECKS, WORLDS[:2], reasons, []), outcomes, occasion)
    assert excused.green
    assert standings(excused) == ["refuted", "unrefuted", "unrefuted"]
    assert "apart: no guest can refute it: No guest can do that." in matrix_lines(excused)


def test_what_this_host_cannot_show_is_allowed_and_shown(samples: Any) -> None:
    found = made(samples, {"sound": "PPN", "still": "FIN", "loose": "PFN"})
    assert found.green
    assert standings(found) == ["refuted", "refuted", "not-observable"]
    assert "apart: not observable on this host" in matrix_lines(found)


def test_a_world_whose_run_broke(samples: Any) -> None:
    broke = outcome(samples, "still", "EEE", error=ErrorPart(kind="GuestPanicked", message="the guest's kernel panicked"))
    trouble = Trouble(kind="HostError", message="the disk is full")
    none = Outcome(LabRow(job="zoo/loose", lab="zoo", title="Zoo", key="", verdict=VerdictKind.ERROR, trouble=trouble))
    found = made(samples, {"sound": "PPP"}, still=broke, loose=none)
    assert (found.green, found.exit_code()) == (False, 3)
    assert found.problems[:2] == [
        "world still: its run broke: the guest's kernel panicked",
        "world loose: its run broke: the disk is full",
    ]
    assert "2 runs broke" in matrix_lines(found)[-1]


def test_a_check_that_breaks_is_a_run_that_broke(samples: Any) -> None:
    found = made(samples, GREEN | {"still": "EEP"})
    assert found.exit_code() == 3
    assert "world still: its run broke: grows: Four were expected." in found.problems


def test_some_worlds_say_nothing_of_the_others(samples: Any) -> None:
    found = made(samples, {"still": "FIP"})
    assert found.green
    assert standings(found) == ["refuted", "unknown", "unknown"]
    assert found.not_run == ["sound", "loose"]
    assert "2 worlds not asked for" in matrix_lines(found)[-1]


def test_a_world_that_was_not_reached(samples: Any) -> None:
    late = Outcome(LabRow(job="zoo/loose", lab="zoo", title="Zoo", key=""))
    found = made(samples, {"sound": "PPP", "still": "FIP"}, loose=late)
    assert "world loose: it was not run" in found.problems
    assert found.exit_code() == 1
    assert matrix_html(found)


TABLE = """\
zoo: 3 checks in 3 worlds

                          -  a  b
grows                     P  F  P
rests                     P  I !P
apart                     P  P !.

P pass  F fail  I inconclusive  N not observable  E error  . left out  ! wrong
-  sound
a  still: Nothing grows.
b  loose: It does not rest.
"""


def test_the_table(samples: Any) -> None:
    found = made(samples, GREEN | {"loose": "PP."})
    lines = matrix_lines(found)
    assert "\n".join(lines).startswith(TABLE.rstrip("\n"))
    assert "! world loose: rests must fail, but passes (measured: 3 of 4)" in lines
    assert lines[-1].startswith("zoo: not green: 1 of 3 checks refuted in real guests; ")


def test_every_line_fits_in_80_columns_however_many_worlds_and_however_long_the_names(samples: Any) -> None:
    long = "a_check_whose_name_goes_on_" * 4
    found = made(samples, GREEN | {"still": "FIF"})
    worlds = [found.worlds[number % 3].model_copy(update={"name": f"world_{number}", "breaks": "word " * 60}) for number in range(53)]
    many = found.model_copy(update={"worlds": worlds, "checks": [each.model_copy(update={"id": long}) for each in found.checks]})
    lines = matrix_lines(many)
    assert max(map(len, lines)) <= 80
    assert len([line for line in lines if line.startswith(long[:20])]) > 3, "the table is cut into several"
    assert LEGEND in lines


HOSTILE = "\x1b[31m<script>alert(1)</script>\x00\u202e"


def test_what_comes_from_a_guest_is_neither_markup_nor_an_escape(samples: Any) -> None:
    found = made(samples, GREEN, still=outcome(samples, "still", "PPF", measured=HOSTILE, rationale=HOSTILE))
    page = matrix_html(found)
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "\x1b" not in page + "".join(matrix_lines(found))


def test_the_page_leads_to_the_reports_and_says_what_is_wrong(samples: Any) -> None:
    again = outcome(samples, "loose", "PFF", earlier=["loose/2025"])
    page = matrix_html(made(samples, {"sound": "PPP", "still": "FIF"}, loose=again))
    assert 'href="still/2026/report.html"' in page
    assert 'href="loose/2025/report.html"' in page
    assert "must pass, but fails" in page
    assert "Not green: 3 of 3 checks refuted" in page
    assert "must pass, but" not in matrix_html(made(samples, GREEN))


def test_every_cell_of_the_page_has_words_and_every_column_a_head(samples: Any) -> None:
    page = matrix_html(made(samples, GREEN | {"loose": "PF."}))
    table = page[page.index('<table class="matrix">') : page.index("</table>")]
    cells = re.findall(r'<td class="cell.*?</td>', table)
    assert len(cells) == 9
    assert all('<span class="hidden">' in cell for cell in cells)
    assert table.count('<th scope="col"') == 5
    assert table.count('<th scope="row">') == 3
    for world in ("sound", "still", "loose"):
        assert f'href="#world-{world}"' in table
        assert f'id="world-{world}"' in page


def test_the_document_follows_its_schema_and_can_be_read_again(samples: Any, tmp_path: Path) -> None:
    found = made(samples, GREEN)
    page = publish.save_matrix(found, tmp_path / "zoo")
    assert page.name == "controls.html"
    value = json.loads((tmp_path / "zoo" / "controls.json").read_text())
    schema = json.loads(MATRIX_SCHEMA_PATH.read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(value, schema, cls=jsonschema.Draft202012Validator)
    assert matrix.load(tmp_path / "zoo") == found
    value["checks"][0]["standing"] = "brilliant"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(value, schema)
    (tmp_path / "zoo" / "controls.json").write_text(json.dumps(value))
    with pytest.raises(UsageError, match="standing"):
        matrix.load(tmp_path / "zoo")
    with pytest.raises(UsageError, match=r"there is no controls\.json"):
        matrix.load(tmp_path)


def test_each_standing_has_words(samples: Any) -> None:
    found = made(samples, GREEN)
    for standing in Standing:
        assert matrix_html(found.model_copy(update={"checks": [found.checks[0].model_copy(update={"standing": standing})]}))
