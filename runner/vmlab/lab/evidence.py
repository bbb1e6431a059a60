"""Evidence: what an experiment observed, read with types so that a check never trusts a shape it did not look at.

The guest is the student's: what comes from it may be forged, cut off or garbage. A check reads evidence through `Record`, whose
readers raise `EvidenceProblem` on a missing or wrongly typed value; the judge turns that into an *inconclusive* verdict, so no
check can pass on data that is not there.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"


class EvidenceProblem(Exception):
    """The evidence lacks a value or holds one of the wrong kind; the text names the place and what was expected there."""


class NotRecorded(EvidenceProblem):
    """No observation of that name was recorded (yet)."""


class Record:
    """A JSON object from the evidence, with its place in it (``accumulation.samples[3]``) for messages."""

    def __init__(self, place: str, value: Any) -> None:
        if not isinstance(value, dict):
            raise EvidenceProblem(f"{place}: expected an object, found {_kind(value)}")
        self.place = place
        self._value: dict[str, Any] = value

    def __contains__(self, key: str) -> bool:
        return key in self._value

    def __iter__(self) -> Iterator[str]:
        return iter(self._value)

    def _get(self, key: str) -> tuple[str, Any]:
        place = f"{self.place}.{key}"
        if key not in self._value:
            raise EvidenceProblem(f"{place} is missing")
        return place, self._value[key]

    def integer(self, key: str, *, minimum: int | None = None) -> int:
        """A whole number (JSON ``true`` is not one), at least ``minimum``."""
        place, value = self._get(key)
        if not isinstance(value, int) or isinstance(value, bool):
            raise EvidenceProblem(f"{place}: expected a whole number, found {_kind(value)}")
        if minimum is not None and value < minimum:
            raise EvidenceProblem(f"{place}: expected at least {minimum}, found {_kind(value)}")
        return value

    def number(self, key: str, *, minimum: float | None = None) -> float:
        """A finite number, at least ``minimum``."""
        place, value = self._get(key)
        if not isinstance(value, int | float) or isinstance(value, bool) or not _finite(value):
            raise EvidenceProblem(f"{place}: expected a finite number, found {_kind(value)}")
        if minimum is not None and value < minimum:
            raise EvidenceProblem(f"{place}: expected at least {minimum}, found {_kind(value)}")
        return float(value)

    def text(self, key: str) -> str:
        """A string."""
        place, value = self._get(key)
        if not isinstance(value, str):
            raise EvidenceProblem(f"{place}: expected text, found {_kind(value)}")
        return value

    def address(self, key: str) -> int:
        """A number written in hexadecimal (``0x7f8b9d600340``), as addresses and page-table entries are; at most 64 bits."""
        place, value = self._get(key)
        if not isinstance(value, str) or not re.fullmatch(r"0x[0-9a-f]{1,16}", value):
            raise EvidenceProblem(f"{place}: expected a hexadecimal number such as 0x1f, found {_kind(value)}")
        return int(value, 16)

    def is_null(self, key: str) -> bool:
        """Whether there is null, which an experiment writes for what it looked for and did not find; something has to be there."""
        return self._get(key)[1] is None

    def flag(self, key: str) -> bool:
        """True or false."""
        place, value = self._get(key)
        if not isinstance(value, bool):
            raise EvidenceProblem(f"{place}: expected true or false, found {_kind(value)}")
        return value

    def record(self, key: str) -> Record:
        """A nested object."""
        place, value = self._get(key)
        return Record(place, value)

    def records(self, key: str, *, at_least: int = 1) -> list[Record]:
        """A list of objects with ``at_least`` members: an empty list is no evidence, so the default is one."""
        return [Record(f"{self.place}.{key}[{i}]", item) for i, item in enumerate(self._list(key, at_least))]

    def numbers(self, key: str, *, at_least: int = 1) -> list[float]:
        """A list of finite numbers with ``at_least`` members."""
        holder = Record(self.place, {f"{key}[{i}]": item for i, item in enumerate(self._list(key, at_least))})
        return [holder.number(name) for name in holder]

    def texts(self, key: str, *, at_least: int = 0) -> list[str]:
        """A list of strings with ``at_least`` members."""
        holder = Record(self.place, {f"{key}[{i}]": item for i, item in enumerate(self._list(key, at_least))})
        return [holder.text(name) for name in holder]

    def _list(self, key: str, at_least: int) -> list[Any]:
        place, value = self._get(key)
        if not isinstance(value, list):
            raise EvidenceProblem(f"{place}: expected a list, found {_kind(value)}")
        if len(value) < at_least:
            raise EvidenceProblem(f"{place}: expected at least {at_least} members, found {len(value)}")
        return value


class Evidence:
    """The observations of one run, by name; what a check is given. ``evidence["anatomy"]`` is a `Record`."""

    def __init__(self, observations: Mapping[str, Any], parameters: Mapping[str, Any] | None = None) -> None:
        self._observations = observations
        self.parameters = Record("parameters", dict(parameters or {}))
        """What the experiment was asked to do (``evidence.parameters.integer("rounds")``)."""

    def __contains__(self, name: str) -> bool:
        return name in self._observations

    def __getitem__(self, name: str) -> Record:
        if name not in self._observations:
            raise NotRecorded(f"no observation named {name!r} was recorded")
        return Record(name, self._observations[name])


def canonical(value: Any) -> bytes:
    """The one byte form of a JSON value that is hashed: sorted keys, no spaces, UTF-8, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def digest(value: Any) -> str:
    """SHA-256 of a JSON value's canonical form, in hex."""
    return hashlib.sha256(canonical(value)).hexdigest()


def _finite(value: int | float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # (JSON has integers that no float can hold.)
        return False


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return f"the number {value}" if not isinstance(value, int) or value.bit_length() < 128 else "a number of absurd size"
    if isinstance(value, str):
        return f"the text {value[:40]!r}"
    return "a list" if isinstance(value, list) else "an object"
