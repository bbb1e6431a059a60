"""Starts students' programs as it is told, one after the other, and says what became of each."""

import itertools
import json
import os
import shutil
import time
import traceback
from pathlib import Path
from typing import Any

from vmlab_guest import proc, sandbox
from vmlab_guest.say import orders, say
from vmlab_guest.student import Program, Running

FOLDER = Path("/root/attempt")


def handed_in(order: dict[str, Any]) -> Program:
    """What the host does: the student's file, and what it is."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    (FOLDER / "files").mkdir(0o700, parents=True)
    (FOLDER / "files" / order["program"]).write_bytes(order["source"].encode("latin-1"))
    limits = {"time_s": 20, "memory_mib": 64, "output_kib": 64, "processes": 32} | order.get("limits", {})
    attempt = {"task": "any", "program": order["program"], "as_root": order.get("as_root", False), "limits": limits}
    (FOLDER / "attempt.json").write_text(json.dumps(attempt))
    return Program(str(FOLDER))


def left_over() -> dict[str, Any]:
    """What a program must not leave in the guest: processes of its user, groups, mounts, directories; and what the script has open."""
    uid = sandbox.student_uid()
    mounts = Path("/proc/self/mounts").read_text().splitlines()
    return {
        "processes": [pid for pid, owner in proc.tasks()[0] if owner == uid],
        "groups": [str(path) for path in Path("/sys/fs/cgroup").glob("*student*")],
        "mounts": [line for line in mounts if " /mnt" in line or "student" in line],
        "directories": [str(path) for path in Path("/run").glob("*student*")],
        "children": sorted(set().union(*proc.children_of(os.getpid()))),
        "descriptors": len(proc.descriptors()),
    }


def looked_at(run: Running, order: dict[str, Any]) -> dict[str, Any]:
    """What is done with a program while it runs, and what is seen of it."""
    seen: dict[str, Any] = {}
    if lines := order.get("until_lines"):
        seen["lines_came"] = run.wait_for_lines(lines)
        time.sleep(0.1)
        seen["states"] = sorted(str(proc.stat(pid)["state"]) for pid in run.members())
        seen["uid"] = int(proc.status(run.pid)["Uid"].split()[0])
    for number in order.get("signals", []):
        run.signal(number)
    for text in order.get("writes", []):
        run.write(text.encode())
    if not order.get("leave_at_once"):
        seen["ended"] = run.wait(40)
    seen["lines"] = [[at_s - run.started_s, text] for at_s, text in run.lines]
    return seen


def answered(order: dict[str, Any]) -> dict[str, Any]:
    """One order: build, start, look, end."""
    program = handed_in(order)
    answer: dict[str, Any] = {"uid_of_student": sandbox.student_uid()}
    if order.get("build"):
        answer["build"] = program.build()
    if order.get("only_build"):
        return answer
    stdin = order.get("stdin", "")
    more: dict[str, Any] = {"given": order.get("given"), "environment": {"GREETING": "hi"}}
    moments = [time.monotonic()]
    with program.running(*order["arguments"], stdin=stdin if stdin is None else stdin.encode(), **more) as run:
        moments.append(time.monotonic())
        answer |= looked_at(run, order)
        moments.append(time.monotonic())
    moments.append(time.monotonic())
    took_s = [round(later - earlier, 4) for earlier, later in itertools.pairwise(moments)]
    return {**answer, "record": run.record(), "took_s": took_s}


def main() -> None:
    """Until there are no more orders."""
    for order in orders():
        try:
            answer = answered(order)
        except Exception:  # noqa: BLE001  (One test fails by it, not all of them.)
            answer = {"broke": traceback.format_exc()}
        say({**answer, "left_over": left_over()})


main()
