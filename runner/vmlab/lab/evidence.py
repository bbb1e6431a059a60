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

from vmlab.lab.reads import Reads

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"


# One number, or groups of 32 bits as the kernel prints a set of CPUs (lib/bitmap, "%*pb").
_MASK = re.compile(r"(?:0x)?[0-9a-fA-F]{1,16}|[0-9a-f]{1,8}(?:,[0-9a-f]{8}){1,255}")


class EvidenceProblem(Exception):
    """The evidence lacks a value or holds one of the wrong kind; the text names the place and what was expected there."""


class NotRecorded(EvidenceProblem):
    """No observation of that name was recorded (yet)."""


class Record:
    """A JSON object from the evidence, with its place in it (``accumulation.samples[3]``) for messages."""

    def __init__(self, place: str, value: Any, reads: Reads | None = None) -> None:
        """``reads`` is told each place that is looked at."""
        if not isinstance(value, dict):
            raise EvidenceProblem(f"{place}: expected an object, found {_kind(value)}")
        self.place = place
        self._value: dict[str, Any] = value
        self._reads = reads or Reads()

    def __contains__(self, key: str) -> bool:
        self._reads.places[f"{self.place}.{key}"] = None
        return key in self._value

    def __iter__(self) -> Iterator[str]:
        self._reads.members.add(self.place)
        return iter(self._value)

    def _get(self, key: str) -> tuple[str, Any]:
        place = f"{self.place}.{key}"
        self._reads.places[place] = None
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

    def mask(self, key: str) -> int:
        """A set of bits in hexadecimal, with or without 0x: as /proc/PID/status prints SigCgt, CapEff and (with commas) Cpus_allowed."""
        place, value = self._get(key)
        if not isinstance(value, str) or not _MASK.fullmatch(value):
            raise EvidenceProblem(f"{place}: expected a mask in hexadecimal such as 0000000000004002, found {_kind(value)}")
        return int(value.replace(",", ""), 16)

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
        return Record(place, value, self._reads)

    def records(self, key: str, *, at_least: int = 1) -> list[Record]:
        """A list of objects with ``at_least`` members: an empty list is no evidence, so the default is one."""
        found = []
        for i, item in enumerate(self._list(key, at_least)):
            place = f"{self.place}.{key}[{i}]"
            self._reads.places[place] = None
            found.append(Record(place, item, self._reads))
        return found

    def numbers(self, key: str, *, at_least: int = 1) -> list[float]:
        """A list of finite numbers with ``at_least`` members."""
        holder = self._items(key, at_least)
        return [holder.number(name) for name in holder._value]

    def texts(self, key: str, *, at_least: int = 0) -> list[str]:
        """A list of strings with ``at_least`` members."""
        holder = self._items(key, at_least)
        return [holder.text(name) for name in holder._value]

    def _items(self, key: str, at_least: int) -> Record:
        """The members of a list as an object, so that the readers for single values serve them too."""
        return Record(self.place, {f"{key}[{i}]": item for i, item in enumerate(self._list(key, at_least))}, self._reads)

    def _list(self, key: str, at_least: int) -> list[Any]:
        place, value = self._get(key)
        if not isinstance(value, list):
            raise EvidenceProblem(f"{place}: expected a list, found {_kind(value)}")
        if len(value) < at_least:
            raise EvidenceProblem(f"{place}: expected at least {at_least} members, found {len(value)}")
        return value


class GuestFacts:
    """What is known of a guest beside what was observed in it."""

    def __init__(self, record: Record) -> None:
        self._record = record

    @property
    def accelerator(self) -> str:
        """What ran its instructions: ``kvm``, ``tcg``, or the emulator that lab.yaml asks for, with its version."""
        return self._known("accelerator")

    @property
    def kernel(self) -> str:
        """The release of its kernel, as ``uname -r`` says it."""
        return self._known("kernel")

    @property
    def image(self) -> str:
        """The name of the image that it was started from."""
        return self._known("image")

    def _known(self, key: str) -> str:
        text = self._record.text(key)
        if not text:
            raise NotRecorded(f"{self._record.place}.{key} is not known")
        return text


class RunFacts:
    """What is known of the run beside what was observed, from the report: a check says *not observable* by it.

    EvidenceProblem for what is not known, as in evidence that was made without a run.
    """

    def __init__(self, record: Record) -> None:
        self._record = record

    @property
    def accelerator(self) -> str:
        """What ran the guests: ``kvm`` or ``tcg`` (but for guests that are emulated in every run)."""
        return self._record.text("accelerator")

    @property
    def kernel(self) -> str:
        """The kernel of the guest ``main``, or of the first where none is called so."""
        return self._main.kernel

    @property
    def image(self) -> str:
        """The image of the same guest."""
        return self._main.image

    def guest(self, name: str) -> GuestFacts:
        """One guest of the run; NotRecorded when it was not started (yet)."""
        guests = self._record.record("guests")
        if name not in guests:
            raise NotRecorded(f"no guest named {name!r} was started")
        return GuestFacts(guests.record(name))

    @property
    def _main(self) -> GuestFacts:
        names = list(self._record.record("guests"))
        return self.guest("main" if "main" in names or not names else names[0])


RESERVED = ("parameters", "run")
"""What no observation may be called: places in the evidence begin with an observation's name, or with one of these."""


class Evidence:
    """The observations of one run, by name; what a check is given. ``evidence["anatomy"]`` is a `Record`.

    ``parameters`` are those of the run. ``run`` is what is known of it: ``{"accelerator": ..., "guests": {name: {"accelerator": ...,
    "kernel": ..., "image": ...}}}``.
    """

    def __init__(
        self, observations: Mapping[str, Any], parameters: Mapping[str, Any] | None = None, run: Mapping[str, Any] | None = None
    ) -> None:
        self._observations = observations
        self._parameters = dict(parameters or {})
        self._run = dict(run or {})
        self.reads = Reads()

    def watched(self) -> Evidence:
        """The same evidence, of which nothing was read yet."""
        return Evidence(self._observations, self._parameters, self._run)

    @property
    def parameters(self) -> Record:
        """What the experiment was asked to do (``evidence.parameters.integer("rounds")``)."""
        return Record("parameters", self._parameters, self.reads)

    @property
    def run(self) -> RunFacts:
        """What is known of the run beside what was observed (``evidence.run.accelerator``)."""
        return RunFacts(Record("run", self._run, self.reads))

    def __contains__(self, name: str) -> bool:
        self.reads.places[name] = None
        return name in self._observations

    def __getitem__(self, name: str) -> Record:
        self.reads.places[name] = None
        if name not in self._observations:
            raise NotRecorded(f"no observation named {name!r} was recorded")
        return Record(name, self._observations[name], self.reads)


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
