#!/usr/bin/env python3
"""The print shop as it is now: its main process, its printers, its zombies over a while, the jobs that it does meanwhile."""

from __future__ import annotations

import argparse
import subprocess
import time
from pathlib import Path

from vmlab_guest.proc import children_of, identity, read, stat_or_none
from vmlab_guest.say import say

LOOKS, EVERY_S = 30, 0.05
DONE = Path("/run/printshop/done")


def main() -> None:
    """Look; ``--restart``: after the service was restarted, as the next boot would start it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--restart", action="store_true")
    if parser.parse_args().restart:
        subprocess.run(["systemctl", "restart", "printshop.service"], check=False)
        time.sleep(1)
    shown = subprocess.run(
        ["systemctl", "show", "-p", "MainPID,ActiveState,NRestarts", "printshop.service"], check=True, capture_output=True, text=True
    ).stdout
    unit = dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)
    pid = int(unit.get("MainPID", "0"))
    printers = printers_of(pid)
    zombies, jobs_before = [], jobs()
    for _ in range(LOOKS):
        zombies.append(len(children_of(pid)[0]) if pid else 0)
        time.sleep(EVERY_S)
    say(
        pid=pid,
        state=unit.get("ActiveState", ""),
        main=identity_of(pid),
        printers=[identity_of(each) for each in printers],
        zombies=zombies,
        jobs=jobs() - jobs_before,
        for_s=LOOKS * EVERY_S,
        boot_id=read("/proc/sys/kernel/random/boot_id").decode().strip(),
    )


def printers_of(pid: int) -> list[int]:
    """The children of the service's main process that sleep on and on: those that are older than a second."""
    if not pid:
        return []
    old = []
    for each in children_of(pid)[1]:
        fields = stat_or_none(each)
        if fields is not None and age_s(int(fields["starttime"])) > 0.7:
            old.append(each)
    return sorted(old)


def age_s(start_ticks: int) -> float:
    """How long ago a process started whose start time is this (in ticks of 10 ms since boot)."""
    return float(read("/proc/uptime").split()[0]) - start_ticks / 100


def identity_of(pid: int) -> str:
    """A process, and no later one of the same number."""
    found = identity(pid) if pid else None
    return "" if found is None else f"{found[0]}@{found[1]}"


def jobs() -> int:
    """How many jobs were done so far."""
    return DONE.read_text().count("\n") if DONE.exists() else 0


if __name__ == "__main__":
    main()
