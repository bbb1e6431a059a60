"""The five verdicts: what each means stands in `VerdictKind`, and no other module decides it again."""

from __future__ import annotations

import ast
import pickle
from itertools import permutations
from pathlib import Path

import pytest

import vmlab
from vmlab.errors import EXIT_COULD_NOT_RUN, EXIT_FAIL, EXIT_PASS
from vmlab.lab.verdict import VerdictKind

PACKAGE = Path(vmlab.__file__).resolve().parent
HOME = PACKAGE / "lab" / "verdict.py"

PASS, FAIL, NOT_OBSERVABLE, INCONCLUSIVE, ERROR = VerdictKind


@pytest.mark.parametrize(
    ("kind", "word", "exit_code", "needs_attention", "counts", "earns", "inherited"),
    [
        (PASS, "Pass", EXIT_PASS, False, True, True, None),
        (FAIL, "Fail", EXIT_FAIL, True, True, False, INCONCLUSIVE),
        (NOT_OBSERVABLE, "Not observable", EXIT_PASS, False, False, False, NOT_OBSERVABLE),
        (INCONCLUSIVE, "Inconclusive", EXIT_FAIL, True, True, False, INCONCLUSIVE),
        (ERROR, "Error", EXIT_COULD_NOT_RUN, True, True, False, ERROR),
    ],
)
def test_what_each_means(
    kind: VerdictKind, word: str, exit_code: int, needs_attention: bool, counts: bool, earns: bool, inherited: VerdictKind | None
) -> None:
    assert (kind.word, kind.exit_code, kind.needs_attention) == (word, exit_code, needs_attention)
    assert (kind.counts, kind.earns, kind.inherited) == (counts, earns, inherited)


def test_signs_differ_in_any_encoding() -> None:
    assert len({kind.sign for kind in VerdictKind}) == len(VerdictKind)


def test_the_order() -> None:
    assert VerdictKind.by_urgency() == [ERROR, FAIL, INCONCLUSIVE, PASS, NOT_OBSERVABLE]
    assert len({kind.urgency for kind in VerdictKind}) == len(VerdictKind)


def test_the_worst_of_several_whatever_their_order() -> None:
    order = VerdictKind.by_urgency()
    for kinds in (kinds for size in range(1, 6) for kinds in permutations(VerdictKind, size)):
        assert VerdictKind.worst(kinds) is min(kinds, key=order.index)
    assert VerdictKind.worst([]) is NOT_OBSERVABLE


def test_a_kind_is_its_word_wherever_it_is_kept() -> None:
    for kind in VerdictKind:
        assert VerdictKind(str(kind)) is VerdictKind(kind.value) is pickle.loads(pickle.dumps(kind)) is kind
        assert f"{kind}" == kind == kind.value
    with pytest.raises(ValueError, match="is not a valid VerdictKind"):
        VerdictKind("passed")


def is_kind(node: ast.AST | None) -> bool:
    return isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "VerdictKind" and node.attr.isupper()


def is_number(node: ast.AST) -> bool:
    """Whether it is a number, a truth value or one of the exit codes of errors.py."""
    return isinstance(getattr(node, "value", None), int) or getattr(node, "id", "").startswith("EXIT_")


def decides(node: ast.AST) -> bool:
    """Whether code sorts, weighs or groups kinds of verdict by itself. (A mapping to words, colours or classes is a rendering.)"""
    match node:
        case ast.Tuple() | ast.List() | ast.Set():
            return any(map(is_kind, node.elts))
        case ast.Dict():
            return any(map(is_kind, node.keys)) and all(map(is_number, node.values))
        case ast.BoolOp():
            compared = [each for each in node.values if isinstance(each, ast.Compare) and any(map(is_kind, each.comparators))]
            return len(compared) > 1
        case ast.IfExp(test=ast.Compare() as test):
            return any(map(is_kind, test.comparators)) and any(map(is_kind, (node.body, node.orelse)))
    return False


def found(code: str) -> list[int]:
    return [getattr(node, "lineno", 0) for node in ast.walk(ast.parse(code)) if decides(node)]


@pytest.mark.parametrize(
    "code",
    [
        "kind in (VerdictKind.FAIL, VerdictKind.INCONCLUSIVE)",
        "row.verdict in (None, VerdictKind.ERROR)",
        "ORDER = [VerdictKind.ERROR, None]",
        "kinds & {VerdictKind.PASS}",
        "kind is VerdictKind.FAIL or kind is VerdictKind.ERROR",
        "kind is not VerdictKind.PASS and kind != VerdictKind.NOT_OBSERVABLE",
        "CODES = {VerdictKind.PASS: EXIT_PASS, VerdictKind.FAIL: EXIT_FAIL}",
        "ORDER = {VerdictKind.PASS: 1, VerdictKind.FAIL: 0}",
        "given = kind if kind is VerdictKind.ERROR else VerdictKind.INCONCLUSIVE",
    ],
)
def test_control_a_decision_elsewhere_is_seen(code: str) -> None:
    assert found(code)


@pytest.mark.parametrize(
    "code",
    [
        "kind is VerdictKind.PASS",
        "Verdict(VerdictKind.FAIL, 'why')",
        "STYLES = {VerdictKind.PASS: 'green', VerdictKind.FAIL: 'red'}",
        "kind is VerdictKind.ERROR and row.exit_code() != EXIT_USAGE",
        "PASS if ok else FAIL",
    ],
)
def test_control_what_decides_nothing_is_allowed(code: str) -> None:
    assert not found(code)


def test_no_other_module_decides_what_a_verdict_means() -> None:
    wrong = [f"{path}:{line}" for path in PACKAGE.rglob("*.py") if path != HOME for line in found(path.read_text())]
    assert not wrong, "ask VerdictKind (lab/verdict.py) instead"


def test_no_template_does_either() -> None:
    pages = sorted((PACKAGE / "report" / "pages").glob("*.j2"))
    assert pages
    for page in pages:
        text = page.read_text()
        assert not [kind.value for kind in VerdictKind if f'== "{kind.value}"' in text or f"== '{kind.value}'" in text], page
