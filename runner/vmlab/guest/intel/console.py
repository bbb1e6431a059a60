"""What the appliance says over its serial port: waited for, and read with care. (`vmlab.guest.inside.appliance` is the other side.)"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vmlab.errors import BootTimeout, GuestError, GuestExited, GuestPanicked
from vmlab.guest.console import LOG_LIMIT_BYTES, PANIC
from vmlab.guest.inside.appliance import MARK
from vmlab.guest.setting import Setting
from vmlab.host import probe

_POLL_S = 0.1
_TAIL_LINES = 40


@dataclass(frozen=True)
class Findings:
    """What one appliance found: the probe's record with the second set of page tables switched on, and switched off."""

    kernel: str
    module: str
    """``kvm_intel`` or ``kvm_amd``."""
    nested: probe.Record
    shadow: probe.Record


def wait(child: subprocess.Popen[bytes], setting: Setting, *, said: Callable[[], str]) -> str:
    """Wait until an appliance in the emulator ``child`` has said everything; returns what it said.

    ``said`` gives the emulator's own words. Raises GuestExited when the emulator ends first, GuestPanicked when the kernel does, and
    BootTimeout when the deadline passes.
    """
    steps, deadline, progress = 0, setting.deadline, setting.progress
    progress.waiting("the emulated machine's Linux")
    while True:
        ended = child.poll() is not None
        text = _read(setting.console_log)
        events = _events(text)
        if any(event.get("event") == "end" for event in events):
            return text
        if (panic := PANIC.search(text.encode())) is not None:
            raise GuestPanicked(f"the emulated machine's kernel panicked: {panic.group().decode(errors='replace')}", detail=_tail(text))
        if ended:
            words = said()
            cause = (words.splitlines() or [f"exit status {child.returncode}"])[-1]
            raise GuestExited(
                f"the emulator ended by itself: {cause}", hint="its own words are below", detail=f"{words}\n{_tail(text)}".strip()
            )
        if deadline.expired():
            far = "its Linux did not even start" if not events else f"it came as far as: {events[-1].get('event')}"
            raise BootTimeout(
                f"the emulated machine was not done after {deadline.budget_s:.0f} s; {far}",
                hint="is this machine very busy? try again",
                detail=_tail(text),
            )
        if len(events) != steps:
            steps = len(events)
            progress.waiting("the probe in the emulated machine")
        time.sleep(min(_POLL_S, deadline.left_s()))


def findings(text: str) -> Findings:
    """Read what an appliance said. GuestError when it failed, or when what it said is not what it should be."""
    events = _events(text)
    for event in events:
        if event.get("event") == "failed":
            raise GuestError(f"the probe did not run in the emulated machine: {str(event.get('why'))[:200]}", detail=_tail(text))
    up = next((event for event in events if event.get("event") == "up"), {})
    records = {event.get("value"): event for event in events if event.get("event") == "record" and isinstance(event.get("record"), dict)}
    if 0 not in records or 1 not in records:
        raise GuestError(
            "the emulated machine did not say what its probe found", hint="its console's last lines are below", detail=_tail(text)
        )
    return Findings(
        kernel=str(up.get("kernel", ""))[:100],
        module=str(records[1].get("module", ""))[:20],
        nested=records[1]["record"],
        shadow=records[0]["record"],
    )


def _events(text: str) -> list[dict[str, Any]]:
    """The appliance's lines as objects; lines of the kernel's, and one that is not complete yet, are passed over."""
    found = []
    for line in text.split("\n")[:-1]:
        if line.startswith(MARK):
            try:
                event = json.loads(line[len(MARK) :])
            except ValueError:
                continue
            if isinstance(event, dict):
                found.append(event)
    return found


def _read(console_log: Path) -> str:
    try:
        with console_log.open("rb") as file:
            return file.read(LOG_LIMIT_BYTES).decode(errors="replace").replace("\r\n", "\n")
    except FileNotFoundError:
        return ""


def _tail(text: str) -> str:
    return "\n".join(line[:300] for line in text.splitlines()[-_TAIL_LINES:])
