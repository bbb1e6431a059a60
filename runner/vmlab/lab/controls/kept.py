"""``sound.json``: what is kept of a run whose evidence is sound, small enough for a repository, and the same for the same report.

It holds the observations, a line each, the parameters and what is known of the run. What stands a second time anywhere (the same units in
each of twelve boots) is kept once: ``{"same as": [...]}`` stands for the value that these steps lead to, which is an earlier one.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vmlab.errors import UsageError
from vmlab.yamlfile import shown

NAME = "sound.json"
_FORMAT = 1
_SAME = "same as"
_WORTH = 120
"""Characters from which on a value is not written twice."""
_HINT = "vmlab record LAB writes it anew from a run"


@dataclass(frozen=True)
class Kept:
    """What is kept of a run."""

    observations: dict[str, Any]
    parameters: dict[str, Any]
    run: dict[str, Any]


def text_of(found: Kept) -> str:
    """What the file holds, observations in the order in which they were recorded."""
    first: dict[str, list[str | int]] = {}
    lines = [f"  {json.dumps(name)}: {_compact(_once(data, [name], first))}" for name, data in found.observations.items()]
    head = f'"format": {_FORMAT},\n"parameters": {_compact(found.parameters)},\n"run": {_compact(found.run)},'
    return f'{{\n{head}\n"observations": {{\n' + ",\n".join(lines) + "\n}\n}\n"


def read(path: Path, lab: str) -> Kept:
    """What a file holds; UsageError when there is none, or what it is not."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as exc:
        raise UsageError(f"{shown(path)} does not exist", hint=f"vmlab record {lab} runs the lab and writes it") from exc
    except (OSError, ValueError, RecursionError) as exc:
        raise UsageError(f"{shown(path)} cannot be read: {exc}", hint=_HINT) from exc
    named = ("observations", "parameters", "run")
    if not isinstance(value, dict) or value.get("format") != _FORMAT or not all(isinstance(value.get(name), dict) for name in named):
        raise UsageError(f"{shown(path)} is no sound set of format {_FORMAT}", hint=_HINT)
    try:
        return Kept(_whole(value["observations"], value["observations"]), value["parameters"], value["run"])
    except (LookupError, TypeError, RecursionError) as exc:
        raise UsageError(f"{shown(path)}: what stands for another value ({_SAME!r}) leads nowhere: {exc}", hint=_HINT) from exc


def _compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _once(value: Any, way: list[str | int], first: dict[str, list[str | int]]) -> Any:
    """The value with what stood before replaced by the way to it."""
    if not isinstance(value, dict | list):
        return value
    text = _compact(value)
    if len(text) >= _WORTH:
        if text in first:
            return {_SAME: first[text]}
        first[text] = way
    if isinstance(value, dict):
        return {key: _once(member, [*way, key], first) for key, member in value.items()}
    return [_once(member, [*way, i], first) for i, member in enumerate(value)]


def _whole(value: Any, observations: Mapping[str, Any]) -> Any:
    """The value with what stands elsewhere put in its place."""
    if isinstance(value, dict) and list(value) == [_SAME]:
        found: Any = observations
        for step in value[_SAME]:
            found = found[step]
        return copy.deepcopy(_whole(found, observations))
    if isinstance(value, dict):
        return {key: _whole(member, observations) for key, member in value.items()}
    return [_whole(member, observations) for member in value] if isinstance(value, list) else value
