"""The mutants of checks: that each kind of mistake is made, that words are left alone, and that the tests' eye is told from its absence."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.mutants.mutate import mutants
from vmlab.lab.skeleton import create

ROOT = Path(__file__).resolve().parents[2]
HEAD = "from vmlab.lab import Evidence, Verdict, check, failed, passed\n\n\ndef judged(evidence: Evidence) -> Verdict:\n"


def keys(body: str) -> list[str]:
    return [mutant.key.removeprefix("judged: ") for mutant in mutants(HEAD + body)]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("    return a < b\n", ["a < b -> a <= b", "a < b -> a >= b"]),
        ("    return a and b\n", ["a and b -> a or b", "a and b -> b", "a and b -> a"]),
        ("    return not a\n", ["not a -> a"]),
        ("    return a + b\n", ["a + b -> a - b"]),
        ("    return f(4)\n", ["4 -> 5", "4 -> 8", "4 -> 3"]),
        ("    return all(a)\n", ["all(a) -> any(a)"]),
        ("    return [x for x in a if x.b]\n", ["for x in a if x.b -> for x in a"]),
        ("    return a.integer('n', minimum=b)\n", ["minimum=b -> minimum=-1000000000"]),
        ("    raise a\n", ["raise a -> pass"]),
        ("    return True\n", ["True -> False"]),
    ],
)
def test_each_kind_of_mistake_is_made(body: str, expected: list[str]) -> None:
    assert sorted(keys(body)) == sorted(expected)


def test_words_for_a_reader_are_left_alone() -> None:
    body = '    """1 is a number."""\n    measured = f"{a + 1} of {2}"\n'
    body += '    return failed("3", expected=str(4 + b), measured=measured, hint="5")\n'
    assert keys(body) == [next(key for key in keys(body) if key.startswith("failed("))]


def test_a_verdict_is_swapped_for_its_opposite_even_where_the_file_does_not_know_that() -> None:
    text = "from __future__ import annotations\nfrom vmlab.lab import failed\n\n\ndef judged(evidence):\n    return failed('no')\n"
    (mutant,) = mutants(text)
    assert "passed('no', expected='', measured='mutant')" in mutant.text
    assert mutant.text.index("import annotations") < mutant.text.index("import passed")
    ast.parse(mutant.text)


def test_two_changes_of_one_kind_in_a_function_have_two_keys() -> None:
    found = keys("    return f(a < b) or g(a < b)\n")
    assert len(found) == len(set(found))


def run(lab: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.mutants", str(lab), "--jobs", "1", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


@pytest.mark.slow
def test_a_mutant_that_no_test_notices_is_shown_and_one_that_is_listed_is_not(tmp_path: Path) -> None:
    lab = create("mutated", tmp_path)
    (lab / "model.py").write_text('"""A module."""\n\n\ndef unused() -> int:\n    """Nobody asks."""\n    return 41\n')
    # (What the checks do not import does not judge.)
    assert run(lab, "--file", "model.py").returncode == 0
    with (lab / "checks.py").open("a") as checks:
        checks.write("\nfrom . import model  # noqa\n")
    found = run(lab, "--file", "model.py")
    assert found.returncode == 1
    assert "model.py:6: unused: 41 -> 42" in found.stdout
    assert "3 mutants, 0 noticed, 0 listed with a reason, 3 left over" in found.stdout
    listed = "".join(f"  'unused: 41 -> {other}': nobody asks\n" for other in (42, 82, 40))
    (lab / "tests" / "mutants.yaml").write_text(f"model.py:\n{listed}")
    assert run(lab, "--file", "model.py").returncode == 0
    (lab / "tests" / "mutants.yaml").write_text(f"model.py:\n{listed}  'unused: 7 -> 8': gone\n")
    found = run(lab, "--file", "model.py")
    assert found.returncode == 1
    assert "stale" in found.stdout


@pytest.mark.slow
def test_tests_that_fail_by_themselves_notice_nothing(tmp_path: Path) -> None:
    lab = create("broken", tmp_path)
    (lab / "tests" / "test_no.py").write_text("def test_no() -> None:\n    assert False\n")
    found = run(lab, "--sample", "1")
    assert found.returncode == 2
    assert "do not pass as they are" in found.stderr


def test_a_lab_that_is_not_there_is_named() -> None:
    found = run(Path("nowhere"))
    assert found.returncode == 2
    assert found.stderr.splitlines()[1].startswith("  labs: ")
