"""What a script prints is what json would print, and is printed whole or not at all."""

from __future__ import annotations

import io
import json
import math
import random
import sys
from typing import Any

import pytest

from vmlab_guest import say as module
from vmlab_guest.say import encoded, hear, orders, say

SEED = 13


def anything(chance: random.Random, depth: int = 0) -> Any:
    """Any value that JSON has, with every kind of text and number."""
    kinds = ["text", "whole", "real", "constant"] + ["list", "tuple", "dict"] * (depth < 4)
    match chance.choice(kinds):
        case "text":
            return "".join(chr(chance.choice([chance.randrange(128), chance.randrange(0x110000)])) for _ in range(chance.randrange(8)))
        case "whole":
            return chance.choice([0, -1, 1 << 64, chance.randrange(-(1 << 70), 1 << 70)])
        case "real":
            return chance.choice([0.0, -0.0, 1e308, 5e-324, 0.1, chance.uniform(-1e6, 1e6), float(chance.randrange(1 << 60))])
        case "constant":
            return chance.choice([None, True, False])
        case "list":
            return [anything(chance, depth + 1) for _ in range(chance.randrange(4))]
        case "tuple":
            return tuple(anything(chance, depth + 1) for _ in range(chance.randrange(4)))
    keys = ["", "a", "é", "\ud800", '"\\\n', 3, -1.5, True, None]
    return {chance.choice(keys): anything(chance, depth + 1) for _ in range(chance.randrange(4))}


@pytest.mark.parametrize("compiled", [True, False])
def test_it_is_what_json_prints(compiled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not compiled:
        monkeypatch.setattr(module, "make_encoder", None)
    chance = random.Random(SEED)
    for _ in range(3000):
        value = anything(chance)
        text = encoded(value)
        assert text == json.dumps(value)
        assert "\n" not in text
        text.encode("ascii")


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, [math.nan], {"x": {1, 2}}, b"x", object(), {(1, 2): 3}, 1j])
def test_what_json_has_not_is_refused(bad: Any, compiled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not compiled:
        monkeypatch.setattr(module, "make_encoder", None)
    with pytest.raises((TypeError, ValueError)):
        encoded(bad)


def test_what_holds_itself_is_refused() -> None:
    knot: list[Any] = []
    knot.append({"again": knot})
    with pytest.raises(ValueError, match="Circular"):
        encoded(knot)
    shared = [1]
    assert encoded([shared, shared]) == "[[1], [1]]"


def test_a_line_is_printed_at_once_and_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    printed = io.StringIO()
    monkeypatch.setattr(sys, "stdout", printed)
    say({"pid": 7}, event="ready")
    say()
    say(record=1)
    with pytest.raises(TypeError):
        say(good=1, bad={1})
    assert printed.getvalue() == '{"pid": 7, "event": "ready"}\n{}\n{"record": 1}\n'


def test_what_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO('{"touch": 3}\n{}\n{"again": true}'))
    assert hear() == {"touch": 3}
    assert list(orders()) == [{}, {"again": True}]
    assert hear() is None
    monkeypatch.setattr(sys, "stdin", io.StringIO("[1]\n"))
    with pytest.raises(TypeError, match=r"heard '\[1\]"):
        hear()
