"""How much a function is told, and how much of it only passes through: what a call repeats at every storey belongs into one object.

The limits are those that hold now; they may fall, never rise.
"""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterator
from pathlib import Path

import pytest

import vmlab

PACKAGE = Path(vmlab.__file__).resolve().parent

PARAMETERS = 5
FUNCTIONS_WITH_MORE = 6
HANDED_ON = 3
FUNCTIONS_THAT_HAND_ON_MORE = 3

Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(code: str) -> Iterator[Function]:
    """Every function, methods and functions in functions too. (A command is told its options, so click's are functions like others.)"""
    return (node for node in ast.walk(ast.parse(code)) if isinstance(node, Function))


def parameters(function: Function) -> list[str]:
    """What it is told, without the object that a method belongs to."""
    told = function.args
    every = [*told.posonlyargs, *told.args, told.vararg, *told.kwonlyargs, told.kwarg]
    return [each.arg for each in every if each is not None and each.arg not in ("self", "cls")]


def handed_on(function: Function) -> list[str]:
    """The parameters that it only gives to other functions.

    A built-in function, and making what is returned (``return Verdict(kind, why)``), use what they are given.
    """
    above = {child: node for node in ast.walk(function) for child in ast.iter_child_nodes(node)}

    def passes_through(name: ast.Name) -> bool:
        argument: ast.AST = name
        while isinstance(above[argument], ast.keyword | ast.Starred):
            argument = above[argument]
        call = above[argument]
        if not isinstance(call, ast.Call) or call.func is argument:
            return False
        called = call.func.id if isinstance(call.func, ast.Name) else call.func.attr if isinstance(call.func, ast.Attribute) else ""
        returns_it = isinstance(above[call], ast.Return) and called.lstrip("_")[:1].isupper()
        return not returns_it and not (isinstance(call.func, ast.Name) and hasattr(builtins, called))

    read: dict[str, list[bool]] = {name: [] for name in parameters(function)}
    for node in (node for statement in function.body for node in ast.walk(statement)):
        if isinstance(node, ast.Name) and node.id in read:
            read[node.id].append(passes_through(node))
    return [name for name, passed in read.items() if passed and all(passed)]


def named(function: Function, path: Path) -> str:
    return f"{path.relative_to(PACKAGE).as_posix()}:{function.lineno} {function.name}"


def test_few_functions_have_many_parameters() -> None:
    every = [(path, function) for path in sorted(PACKAGE.rglob("*.py")) for function in functions(path.read_text())]
    found = [f"{named(function, path)}: {len(parameters(function))}" for path, function in every if len(parameters(function)) > PARAMETERS]
    assert len(found) <= FUNCTIONS_WITH_MORE, "\n".join(found)


def test_no_function_hands_on_much_that_it_does_not_use() -> None:
    every = [(path, function) for path in sorted(PACKAGE.rglob("*.py")) for function in functions(path.read_text())]
    passed = [(path, function, handed_on(function)) for path, function in every]
    found = [f"{named(function, path)}: {', '.join(names)}" for path, function, names in passed if len(names) > HANDED_ON]
    assert len(found) <= FUNCTIONS_THAT_HAND_ON_MORE, "\n".join(found)


def only(code: str) -> Function:
    function, *_ = functions(code)
    return function


@pytest.mark.parametrize(
    ("code", "names"),
    [
        ("def f(a, b): ...", ["a", "b"]),
        ("class A:\n    def f(self, a): ...", ["a"]),
        ("class A:\n    @classmethod\n    async def f(cls, a, /, b, *c, d, **e): ...", ["a", "b", "c", "d", "e"]),
        ("@click.command()\n@click.option('--x')\ndef f(x, y): ...", ["x", "y"]),
    ],
)
def test_control_every_kind_of_parameter_is_counted(code: str, names: list[str]) -> None:
    assert parameters(only(code)) == names


@pytest.mark.parametrize(
    ("body", "names"),
    [
        ("g(a, key=b)", ["a", "b"]),
        ("g(*a, **b)", ["a", "b"]),
        ("return self.g(a)(b)", ["a", "b"]),
        ("def inner():\n        g(a)\n    h(b)", ["a", "b"]),
        ("thing = Thing(a, b)\n    return thing", ["a", "b"]),
        ("return Thing(a, key=b)", []),
        ("return g(Thing(a), b)", ["a", "b"]),
        ("return len(a) + max(b)", []),
        ("g(a.name, b[0])", []),
        ("g(a)\n    if a:\n        return b", []),
        ("g(f'{a}', [b])", []),
        ("a(b)", ["b"]),
        ("pass", []),
    ],
)
def test_control_what_passes_through_is_told_from_what_is_used(body: str, names: list[str]) -> None:
    assert handed_on(only(f"def f(a, b):\n    {body}")) == names
