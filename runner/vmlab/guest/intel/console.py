"""What the appliance says over its serial port: waited for, and read with care. (`vmlab.guest.inside.appliance` is the other side.)"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vmlab.errors import BootTimeout, GuestError, GuestExited, GuestPanicked, ScriptError
from vmlab.guest.console import LOG_LIMIT_BYTES, PANIC
from vmlab.guest.inside.appliance import MARK
from vmlab.guest.setting import Setting

_POLL_S = 0.1
_TAIL_LINES = 40


@dataclass(frozen=True)
class Said:
    """What one boot of an appliance said: of itself, and what its job printed and ended with."""

    kernel: str
    boot_id: str
    status: int
    """The job's exit status, negative for a signal that ended it."""
    stdout: str
    stderr: str


def wait(child: subprocess.Popen[bytes], setting: Setting, *, said: Callable[[], str]) -> str:
    """Wait until an appliance in the emulator ``child`` has said everything; returns what it said.

    ``said`` gives the emulator's own words. Raises GuestExited when the emulator ends first, GuestPanicked when the kernel does,
    BootTimeout when the deadline passes, and ScriptError when the job floods the console.
    """
    seen, text, events = -1, "", list[dict[str, Any]]()
    deadline, progress = setting.deadline, setting.progress
    progress.waiting("the emulated machine's Linux")
    while True:
        ended = child.poll() is not None
        size = _size(setting.console_log)
        if size != seen:
            seen, text = size, _text(setting.console_log)
            if not events and (events := _events(text)):
                progress.waiting("the script in the emulated machine")
            events = _events(text)
        if any(event.get("event") == "end" for event in events):
            progress.waiting("")
            return text
        if size > LOG_LIMIT_BYTES:
            raise ScriptError(
                f"the emulated machine printed more than {LOG_LIMIT_BYTES >> 20} MiB", hint="let the script print less", detail=_tail(text)
            )
        # (A job may print whatever it likes.)
        kernels = "\n".join(line for line in text.splitlines() if not line.startswith(MARK))
        if (panic := PANIC.search(kernels.encode())) is not None:
            raise GuestPanicked(f"the emulated machine's kernel panicked: {panic.group().decode(errors='replace')}", detail=_tail(text))
        if ended:
            words = said()
            cause = (words.splitlines() or [f"exit status {child.returncode}"])[-1]
            raise GuestExited(
                f"the emulator ended by itself: {cause}", hint="its own words are below", detail=f"{words}\n{_tail(text)}".strip()
            )
        if deadline.expired():
            far = f"it came as far as: {events[-1].get('event')}" if events else "its Linux did not even start"
            raise BootTimeout(
                f"the emulated machine was not done after {deadline.budget_s:.0f} s; {far}",
                hint="is this machine very busy? try again",
                detail=_tail(text),
            )
        time.sleep(min(_POLL_S, deadline.left_s()))


def read(text: str) -> Said:
    """Read what an appliance said. GuestError when it could not run its job, or when what it said is not what it should be."""
    events = _events(text)
    failed = next((event for event in events if event.get("event") == "failed"), None)
    if failed is not None:
        raise GuestError(f"nothing could be run in the emulated machine: {str(failed.get('why'))[:200]}", detail=_tail(text))
    up, end = (next((event for event in events if event.get("event") == name), {}) for name in ("up", "end"))
    status = end.get("status")
    if not isinstance(status, int) or isinstance(status, bool):
        raise GuestError("the emulated machine did not say how its script ended", detail=_tail(text))
    out, err = (
        "".join(f"{event.get('text')}\n" for event in events if event.get("event") == name and isinstance(event.get("text"), str))
        for name in ("out", "err")
    )
    return Said(str(up.get("kernel", ""))[:100], str(up.get("boot_id", ""))[:100], status, out, err)


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


def _size(console_log: Path) -> int:
    try:
        return console_log.stat().st_size
    except FileNotFoundError:
        return 0


def _text(console_log: Path) -> str:
    try:
        with console_log.open("rb") as file:
            return file.read(LOG_LIMIT_BYTES).decode(errors="replace").replace("\r\n", "\n")
    except FileNotFoundError:
        return ""


def _tail(text: str) -> str:
    return "\n".join(line[:300] for line in text.splitlines()[-_TAIL_LINES:])
