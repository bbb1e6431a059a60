"""The mutants of a file of checks: the same text with one small thing changed, as a tired author might have written it.

What only words a message is left alone (arguments of ``passed``, ``failed`` and their kind, docstrings, f-strings that go nowhere else),
because no test should stand in the way of a better sentence.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass

# What makes a verdict; its arguments are words for a reader.
VERDICTS = ("passed", "failed", "inconclusive", "not_observable")
# Names under which the labs keep such words before they hand them on.
WORDS = ("expected", "measured", "rationale", "why", "hint", "shown", "said")

_COMPARED: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
}
_CALCULATED: dict[type[ast.operator], tuple[type[ast.operator], ...]] = {
    ast.Add: (ast.Sub,),
    ast.Sub: (ast.Add,),
    ast.Mult: (ast.Div,),
    ast.Div: (ast.Mult,),
    ast.FloorDiv: (ast.Mult,),
    ast.Mod: (ast.Add,),
    ast.LShift: (ast.RShift,),
    ast.RShift: (ast.LShift,),
    ast.BitAnd: (ast.BitOr,),
    ast.BitOr: (ast.BitAnd,),
}
_CALLED = {"all": "any", "any": "all", "min": "max", "max": "min", "sorted": "list"}
_JUDGED = {"failed": "passed", "inconclusive": "passed", "not_observable": "passed", "passed": "failed"}


@dataclass(frozen=True)
class Mutant:
    """One mutant: the changed text, and what a reader needs to know of the change.

    ``key`` names it in a list of accepted mutants: function, what stood there, what stands there now, and the number of its kind.
    """

    key: str
    line: int
    text: str


@dataclass(frozen=True)
class _Site:
    """A node that can be changed: how to find it again in a copy of the tree, and what to put in its place."""

    number: int
    function: str
    line: int
    change: Callable[[ast.AST], ast.AST]


def mutants(text: str) -> list[Mutant]:
    """Every mutant of a file's text, in its order."""
    tree = ast.parse(text)
    nodes = list(ast.walk(tree))
    # A mutant may say `passed` in a file that never did; without the name it would break, and not be noticed by a test's eye.
    known = {alias.asname or alias.name for node in nodes if isinstance(node, ast.ImportFrom) for alias in node.names}
    unknown = [name for name in ("failed", "passed") if name not in known]
    places = {id(node): number for number, node in enumerate(nodes)}
    seen: dict[str, int] = {}
    found = []
    for site in sorted(_sites(tree, places), key=lambda each: each.line):
        before = _line(nodes[site.number])
        copied = ast.parse(text)
        node = list(ast.walk(copied))[site.number]
        changed = _Replace(node, site.change(copy.deepcopy(node))).visit(copied)
        after = _line(site.change(copy.deepcopy(node)))
        key = f"{site.function}: {before} -> {after}"
        seen[key] = seen.get(key, 0) + 1
        if seen[key] > 1:
            key += f" ({seen[key]})"
        if unknown:
            first = next((number for number, each in enumerate(copied.body) if isinstance(each, ast.Import | ast.ImportFrom)), 0)
            copied.body.insert(first + 1, ast.ImportFrom("vmlab.lab", [ast.alias(name) for name in unknown], 0))
        found.append(Mutant(key, site.line, ast.unparse(ast.fix_missing_locations(changed))))
    return found


class _Replace(ast.NodeTransformer):
    """Puts one node in another's place."""

    def __init__(self, old: ast.AST, new: ast.AST) -> None:
        self._old, self._new = old, new

    def visit(self, node: ast.AST) -> ast.AST:
        """The new node for the old one; every other is looked through."""
        return self._new if node is self._old else self.generic_visit(node)


def _line(node: ast.AST) -> str:
    whole = " ".join(ast.unparse(node).split())
    return whole if len(whole) <= 90 else f"{whole[:87]}..."


def _sites(tree: ast.Module, places: dict[int, int]) -> Iterator[_Site]:
    for function in tree.body:
        if isinstance(function, ast.FunctionDef | ast.ClassDef):
            for node in _judging(function):
                for change in _changes(node):
                    yield _Site(places[id(node)], function.name, getattr(node, "lineno", function.lineno), change)
        elif isinstance(function, ast.Assign | ast.AnnAssign) and function.value is not None:
            name = ast.unparse(function.targets[0] if isinstance(function, ast.Assign) else function.target)
            for node in ast.walk(function.value):
                if isinstance(node, ast.Constant) and _is_number(node):
                    for change in _changes(node):
                        yield _Site(places[id(node)], name, function.lineno, change)


def _judging(function: ast.FunctionDef | ast.ClassDef) -> Iterator[ast.AST]:
    """The nodes of a function that decide something: no annotations, no decorators, no docstrings, no words for a reader."""
    waiting: list[ast.AST] = list(function.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            continue
        if isinstance(node, ast.JoinedStr):
            continue
        if isinstance(node, ast.Assign) and all(isinstance(each, ast.Name) and each.id in WORDS for each in node.targets):
            continue
        yield node
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in VERDICTS:
            continue
        for name, value in ast.iter_fields(node):
            if name in ("annotation", "returns", "decorator_list", "type_params", "type_comment"):
                continue
            children = value if isinstance(value, list) else [value]
            waiting += [each for each in children if isinstance(each, ast.AST) and not isinstance(each, ast.arguments)]


def _is_number(node: ast.Constant) -> bool:
    return isinstance(node.value, int | float) and not isinstance(node.value, bool)


def _changes(node: ast.AST) -> Iterator[Callable[[ast.AST], ast.AST]]:
    """What may be put in a node's place; each takes a copy of the node, which it may change."""
    if isinstance(node, ast.Compare):
        for index, operator in enumerate(node.ops):
            for other in _COMPARED[type(operator)]:
                yield _with(lambda copied, index=index, other=other: copied.ops.__setitem__(index, other()))
    elif isinstance(node, ast.BoolOp):
        other_op = ast.Or if isinstance(node.op, ast.And) else ast.And
        yield _with(lambda copied: setattr(copied, "op", other_op()))
        for index in range(len(node.values)):
            yield lambda copied, index=index: _without(copied, index)  # type: ignore[misc]
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield lambda copied: copied.operand  # type: ignore[attr-defined]
    elif isinstance(node, ast.BinOp):
        if not (isinstance(node.left, ast.Constant) and isinstance(node.left.value, str)):
            for other_operator in _CALCULATED.get(type(node.op), ()):
                yield _with(lambda copied, other=other_operator: setattr(copied, "op", other()))
    elif isinstance(node, ast.Constant) and _is_number(node):
        value = node.value
        assert isinstance(value, int | float)
        for other_value in dict.fromkeys((value + 1, value * 2, value / 2 if isinstance(value, float) else value - 1)):
            if other_value != value:
                yield lambda copied, other=other_value: ast.Constant(other)  # type: ignore[misc]
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield lambda copied: ast.Constant(not copied.value)  # type: ignore[attr-defined]
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        for names in (_CALLED, _JUDGED):
            if node.func.id in names:
                other_name = names[node.func.id]
                yield _with(
                    lambda copied, other=other_name: setattr(copied, "func", ast.Name(other, ast.Load())), measured=names is _JUDGED
                )
    elif isinstance(node, ast.If):
        yield _with(lambda copied: setattr(copied, "test", ast.Constant(value=False)))
        yield _with(lambda copied: setattr(copied, "test", ast.Constant(value=True)))
    elif isinstance(node, ast.IfExp):
        yield lambda copied: copied.body  # type: ignore[attr-defined]
        yield lambda copied: copied.orelse  # type: ignore[attr-defined]
    elif isinstance(node, ast.comprehension) and node.ifs:
        yield _with(lambda copied: setattr(copied, "ifs", []))
    elif isinstance(node, ast.Raise):
        yield lambda copied: ast.Pass()
    elif isinstance(node, ast.keyword) and node.arg in ("minimum", "at_least"):
        yield lambda copied: ast.keyword(copied.arg, ast.Constant(-(10**9) if copied.arg == "minimum" else 0))  # type: ignore[attr-defined]


def _with(alter: Callable[..., object], *, measured: bool = False) -> Callable[[ast.AST], ast.AST]:
    def change(copied: ast.AST) -> ast.AST:
        alter(copied)
        if measured and isinstance(copied, ast.Call):
            # (`passed` and `failed` must be told what was measured, and `passed` takes no hint: else the mutant would break, and not be
            # noticed by a test's eye.)
            copied.keywords = [each for each in copied.keywords if each.arg != "hint"]
            given = {each.arg: each for each in copied.keywords}
            if "measured" not in given:
                given |= {name: ast.keyword(name, ast.Constant(text)) for name, text in (("expected", ""), ("measured", "mutant"))}
            copied.keywords = list(given.values())
        return copied

    return change


def _without(copied: ast.AST, index: int) -> ast.AST:
    assert isinstance(copied, ast.BoolOp)
    values = [each for number, each in enumerate(copied.values) if number != index]
    return values[0] if len(values) == 1 else ast.BoolOp(copied.op, values)
