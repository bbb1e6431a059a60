"""When a guest is ready: an ordered list of steps, each with what to look at when it does not come true."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from vmlab.deadline import Deadline
from vmlab.errors import BootTimeout
from vmlab.progress import Progress

POLL_S = 0.1


@dataclass(frozen=True)
class Step:
    """One thing that must come true. ``probe`` is asked again until it says yes; it must return within a second or so."""

    name: str
    hint: str
    probe: Callable[[Deadline], bool]


@dataclass(frozen=True)
class Reached:
    """A step that came true, in seconds after the start of QEMU."""

    name: str
    at_s: float


class Waker(Protocol):
    """A guest that is to become ready. ``began`` is when the work on it began, on the monotonic clock."""

    began: float

    def check_alive(self) -> None:
        """Raise what ended the guest, if anything did."""

    def tail(self) -> str:
        """Its console's last lines."""


def wait(steps: Sequence[Step], guest: Waker, deadline: Deadline, progress: Progress) -> list[Reached]:
    """Go through the steps in order and return when each came true.

    The guest's death ends the wait at once. Raises BootTimeout, naming the step, at the deadline.
    """
    reached = []
    for step in steps:
        progress.waiting(step.name)
        while not step.probe(deadline):
            guest.check_alive()
            if deadline.expired():
                raise BootTimeout(
                    f"the guest hung at the step '{step.name}': nothing came within {deadline.budget_s:.0f} s",
                    hint=step.hint,
                    detail=guest.tail(),
                )
            time.sleep(min(POLL_S, deadline.left_s()))
        guest.check_alive()
        reached.append(Reached(step.name, round(time.monotonic() - guest.began, 3)))
    return reached


@dataclass(frozen=True)
class CloudInitStatus:
    """How cloud-init ended, in the terms of ``cloud-init status``: 0 done, 1 error, 2 degraded (done, with warnings)."""

    status: str
    exit_code: int
    detail: list[str] = field(default_factory=list)


def cloud_init_status(status: Any, result: Any) -> CloudInitStatus:
    """cloud-init's own verdict from its two files in /run/cloud-init, without starting its client (2 s of CPU under emulation).

    The rule is the one that ``cloud-init status`` documents: any stage's ``errors`` are fatal, ``recoverable_errors`` (from version
    23.4 on) of any level make the outcome degraded.
    """
    fatal: list[str] = []
    recoverable: list[str] = []
    stages = _member(status, "v1")
    for stage, entry in stages.items():
        if isinstance(entry, dict):
            fatal += [f"{stage}: {text}" for text in _list(entry.get("errors"))]
            for level, texts in _member(entry, "recoverable_errors").items():
                recoverable += [f"{stage}: {level}: {text}" for text in _list(texts)]
    fatal += [f"result: {text}" for text in _list(_member(result, "v1").get("errors")) if not any(str(text) in known for known in fatal)]
    if not stages:
        return CloudInitStatus("error", 1, ["status.json is malformed"])
    if fatal:
        return CloudInitStatus("error", 1, fatal)
    if recoverable:
        return CloudInitStatus("degraded", 2, recoverable)
    return CloudInitStatus("done", 0)


def parse_cloud_init(text: str) -> CloudInitStatus:
    """The status from the text of status.json and result.json, one after the other."""
    decoder = json.JSONDecoder()
    try:
        status, end = decoder.raw_decode(text.lstrip())
        result, _ = decoder.raw_decode(text.lstrip()[end:].lstrip())
    except ValueError:
        return CloudInitStatus("error", 1, [f"its status files are not JSON: {text[:200]!r}"])
    return cloud_init_status(status, result)


def _member(value: Any, key: str) -> dict[str, Any]:
    found = value.get(key) if isinstance(value, dict) else None
    return found if isinstance(found, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
