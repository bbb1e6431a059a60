#!/usr/bin/env python3
"""Ends a command in a guest that the host does not want any more, with everything that it started: TERM first, then KILL.

The runner (runner/vmlab/guest/ending.py) starts it with this text and the command's mark on its standard input. The mark is in the
command's environment, which whatever it starts inherits, also what left its process group or its session, or lost its parent. Linux shows
the environment of a program as it was executed (proc_pid_environ(5)), and a shell's own command line until then.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import NamedTuple

# How long a program may take to put things in order, and how long the kernel may take to end one that is killed.
MERCY_S = 0.5
LIMIT_S = 5.0
_LOOK_S = 0.02

PROC = Path("/proc")


class Process(NamedTuple):
    """Where a process stands among the others, and when it began (in the kernel's ticks): ids are used again."""

    parent: int
    group: int
    session: int
    began: int


def living() -> dict[int, Process]:
    """The processes that are not dead, by their ids."""
    found = {}
    for pid in [int(name) for name in os.listdir(PROC) if name.isdigit()]:  # noqa: PTH208  (A tenth of the time of pathlib's.)
        # A program's name may hold anything, parentheses and spaces too. What follows it is in proc_pid_stat(5).
        fields = _read(pid, "stat").rpartition(b")")[2].split()
        if fields and fields[0] not in (b"Z", b"X"):
            found[pid] = Process(*[int(fields[index]) for index in (1, 2, 3, 19)])
    return found


def belonging(mark: bytes, processes: dict[int, Process], known: dict[int, Process]) -> dict[int, Process]:
    """Which of the processes bear the mark, with those that belonged before (``known``), and those below them: children, and members of
    what they lead.

    The last two are for programs that were given another environment, as by sudo.
    """
    found = {pid: process for pid, process in known.items() if pid not in processes or processes[pid].began == process.began}
    others = {pid: process for pid, process in processes.items() if pid not in found and pid != os.getpid()}
    found.update({pid: process for pid, process in others.items() if mark in _read(pid, "environ") or mark in _read(pid, "cmdline")})
    while below := {pid: process for pid, process in others.items() if pid not in found and not found.keys().isdisjoint(process[:3])}:
        found.update(below)
    return found


def end(mark: bytes, mercy_s: float = MERCY_S, limit_s: float = LIMIT_S) -> bool:
    """End all that belong to the mark. False when some were left at the limit."""
    began = time.monotonic()
    known: dict[int, Process] = {}
    asked: set[int] = set()
    while True:
        processes = living()
        known = belonging(mark, processes, known)
        left = known.keys() & processes.keys()
        waited_s = time.monotonic() - began
        if not left or waited_s > limit_s:
            return not left
        for pid in left:
            if waited_s > mercy_s:
                _signal(pid, signal.SIGKILL)
            elif pid not in asked:
                _signal(pid, signal.SIGTERM)
        asked |= left
        time.sleep(_LOOK_S)


def _read(pid: int, name: str) -> bytes:
    try:
        return (PROC / str(pid) / name).read_bytes()
    except OSError:
        # It has ended meanwhile.
        return b""


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return
