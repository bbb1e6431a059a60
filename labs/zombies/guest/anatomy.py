#!/usr/bin/env python3
"""One child in three states: alive, a zombie, reaped. Every file of its /proc directory is tried in each state.

The child waits on a pipe, so that "alive" lasts as long as we look; then it exits with 7. Before it is reaped its status is read with
waitid(WNOWAIT), which leaves it a zombie, and it is sent SIGKILL, which the kernel accepts and which changes nothing.

A second process shows that Z is not always a zombie: its first thread ends while another thread lives on.
"""

# pathlib is slow to import under emulation, and would serve one-line reads of /proc only.
# ruff: noqa: PTH101, PTH112, PTH114, PTH115, PTH123, PTH208

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator

from vmlab_guest.proc import error_name, stat, stat_or_none, status_or_none, threads
from vmlab_guest.say import say
from vmlab_guest.syscalls import NUMBERS, exit_thread
from vmlab_guest.wait import look_until, wait_for_state

EXIT_CODE = 7  # So that its raw status is 7 << 8 = 1792, and a SIGKILL (raw status 9) could not hide.

SKIPPED = ("mem", "clear_refs", "pagemap", "kpagecgroup")  # Not text: the memory itself, a switch, and one entry for each page.
ENOUGH_BYTES = 1 << 18
SOMEBODY = 20_000  # A user that no process of the system is of.


def main() -> None:
    """One child's life, then the half-dead thread group."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--sigchld", choices=["default", "ignore"], default="default", help="control: ignored, there is no zombie")
    parser.add_argument("--second-look", choices=["leaves", "reaps"], default="leaves", help="control: the second look is a wait")
    parser.add_argument(
        "--last-act", choices=["exit", "setuid"], default="exit", help="control: the child becomes somebody else, and exits"
    )
    parser.add_argument("--ps", default="", help="control: what is in the place of ps prints this")
    parser.add_argument("--leader", choices=["exit", "exit_group"], default="exit", help="control: the first thread takes the others along")
    options = parser.parse_args()
    with another_ps(options.ps):
        say({"child": one_child(options), "leader": leader_that_ended_first(alone=options.leader == "exit")})


@contextlib.contextmanager
def another_ps(line: str) -> Iterator[None]:
    """Put a program that prints a line in the place of ps; an empty line leaves ps alone."""
    with tempfile.TemporaryDirectory() if line else contextlib.nullcontext() as directory:
        if directory:
            with open(f"{directory}/ps", "w") as file:
                file.write(f"#!/bin/sh\necho '{line}'\n")
            os.chmod(f"{directory}/ps", 0o755)
            os.environ["PATH"] = f"{directory}:{os.environ['PATH']}"
        yield


def one_child(options: argparse.Namespace) -> dict[str, object]:
    """The three states of one child, and what was done to it while it was a zombie."""
    if options.sigchld == "ignore":
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(writing)
        os.read(reading, 1)
        if options.last_act == "setuid":
            os.setuid(SOMEBODY)
        os._exit(EXIT_CODE)
    os.close(reading)
    wait_for_state(child, "S")
    alive = portrait(child)
    os.close(writing)
    without_reaping = peek(child)
    zombie = portrait(child)
    shown_by_ps = ps(child)

    kill_error = None
    try:
        os.kill(child, signal.SIGKILL)
    except OSError as exc:
        kill_error = error_name(exc)
    time.sleep(0.1)
    after_sigkill = portrait(child, files=False)
    second_look = peek(child, 0 if options.second_look == "reaps" else os.WNOWAIT)
    try:
        pid, raw_status = os.waitpid(child, 0)
        reaping: dict[str, object] = {"pid": pid, "raw_status": raw_status, "errno": None}
    except OSError as exc:
        reaping = {"pid": None, "raw_status": None, "errno": error_name(exc)}
    return {
        "pid": child,
        "parent": os.getpid(),
        "alive": alive,
        "peek": without_reaping,
        "zombie": zombie,
        "ps": shown_by_ps,
        "kill": {"signal": int(signal.SIGKILL), "errno": kill_error},
        "after_sigkill": after_sigkill,
        "peek_again": second_look,
        "reaping": reaping,
        "reaped": portrait(child),
        "peek_after_reaping": peek(child),
        "kill_after_reaping": kill_nothing(child),
    }


def portrait(pid: int, *, files: bool = True) -> dict[str, object]:
    """All that /proc says of a process at this moment."""
    fields = stat_or_none(pid)
    looked: dict[str, object] = {"exists": fields is not None, "stat": fields, "status": status_or_none(pid)}
    if files:
        looked["files"] = all_files(pid)
    return looked


# What /proc/PID holds, learnt from our own directory: a reaped process has none to list.
NAMES = sorted(name for name in os.listdir("/proc/self") if name not in SKIPPED)


def all_files(pid: int) -> dict[str, dict[str, object]]:
    """For each name in /proc/PID: how many bytes it gave (links: bytes of the target; directories: entries), or the error."""
    found = {}
    for name in NAMES:
        path = f"/proc/{pid}/{name}"
        mine = f"/proc/self/{name}"
        kind = "link" if os.path.islink(mine) else "directory" if os.path.isdir(mine) else "file"
        try:
            if kind == "link":
                size = len(os.readlink(path))
            elif kind == "directory":
                size = len(os.listdir(path))
            else:
                size = bytes_in(path)
            found[name] = {"kind": kind, "size": size, "errno": None}
        except OSError as exc:
            found[name] = {"kind": kind, "size": 0, "errno": error_name(exc)}
    return found


def bytes_in(path: str) -> int:
    """How many bytes a file of /proc gives; its size in a directory listing is always 0."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    total = 0
    try:
        while total < ENOUGH_BYTES and (chunk := os.read(descriptor, 1 << 16)):
            total += len(chunk)
    finally:
        os.close(descriptor)
    return total


def peek(pid: int, how: int = os.WNOWAIT) -> dict[str, object]:
    """The exit status, read by waitid without reaping."""
    try:
        result = os.waitid(os.P_PID, pid, os.WEXITED | how)
    except OSError as exc:
        return {"errno": error_name(exc), "code": None, "status": None}
    assert result is not None
    code = {os.CLD_EXITED: "exited", os.CLD_KILLED: "killed", os.CLD_DUMPED: "dumped"}.get(result.si_code, str(result.si_code))
    return {"errno": None, "code": code, "status": result.si_status}


def ps(pid: int) -> dict[str, object] | None:
    """The line of `ps`; None where that program is not installed."""
    if shutil.which("ps") is None:
        return None
    done = subprocess.run(["ps", "-o", "stat=,args=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return {"line": done.stdout.strip()}


def kill_nothing(pid: int) -> str | None:
    """The error of sending no signal at all: whether the kernel still knows the number."""
    try:
        os.kill(pid, 0)
    except OSError as exc:
        return error_name(exc)
    return None


def leader_that_ended_first(*, alone: bool) -> dict[str, object]:
    """A process whose first thread, the group's leader, has ended while another thread runs on.

    The leader ends by the system call exit, which ends one thread; that is what pthread_exit comes down to. (exit_group, which the C
    library's exit() uses, would end them all.)
    """
    if "exit" not in NUMBERS:
        return {"observable": False, "why": f"the number of the system call exit on {os.uname().machine} is not known to the library"}
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(writing)
        threading.Thread(target=lambda: (os.read(reading, 1), os._exit(EXIT_CODE))).start()
        if not alone:
            os._exit(0)
        exit_thread()
    os.close(reading)
    looks = 0

    def state() -> object:
        nonlocal looks
        looks += 1
        return stat(child)["state"]

    look_until(state, lambda seen: seen == "Z", every_s=0.01)
    leader = stat(child)
    states = {tid: stat(child, tid)["state"] for tid in threads(child)}
    shown = status_or_none(child)
    reapable = os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None
    os.close(writing)
    _, raw_status = os.waitpid(child, 0)
    return {
        "observable": True,
        "pid": child,
        "state": leader["state"],
        "num_threads": leader["num_threads"],
        "threads": [{"tid": tid, "state": state} for tid, state in states.items()],
        "status": shown,
        "looks": looks,
        "reapable": reapable,
        "raw_status_at_last": raw_status,
    }


if __name__ == "__main__":
    main()
