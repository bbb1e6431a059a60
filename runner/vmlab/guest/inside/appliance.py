#!/usr/bin/python3 -SE
"""The first process of the appliance (runner/vmlab/guest/intel/appliance.py): runs one program and says what that printed.

It is the init of a small Linux in which nothing else runs, and is read by the runner over the serial console: JSON objects, each on a
line of its own behind `MARK`; anything else there is the kernel's.

    {"event": "up", ...}              it runs
    {"event": "out", "text": ...}     a line of the program's standard output
    {"event": "err", "text": ...}     a line of its standard error
    {"event": "failed", "why": ...}   why the program could not be run
    {"event": "end", "status": ...}   its exit status, negative for a signal; there is nothing more to come
"""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import IO, Any

MARK = "@vmlab "

# What is to be run: {"argv": [...], "cwd": ...}; and what it reads on its standard input.
JOB, INPUT = Path("/run/vmlab/job.json"), Path("/run/vmlab/input")

# The number of a system call for which Python has no function (arch/x86/entry/syscalls/syscall_64.tbl), and SYSLOG_ACTION_CONSOLE_LEVEL.
SYS_SYSLOG, CONSOLE_LEVEL = 103, 8

ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LANG": "C.UTF-8"}

libc = ctypes.CDLL(None, use_errno=True)
one_at_a_time = threading.Lock()


def say(event: str, **facts: Any) -> None:
    """One line to the runner."""
    with one_at_a_time:
        sys.stdout.write(f"\n{MARK}{json.dumps({'event': event, **facts})}\n")
        sys.stdout.flush()


def mount(kind: str, target: str) -> None:
    """Mount one of the kernel's own file systems."""
    Path(target).mkdir(exist_ok=True)
    if libc.mount(kind.encode(), target.encode(), kind.encode(), 0, None) != 0:
        raise OSError(ctypes.get_errno(), f"mount {target}: {os.strerror(ctypes.get_errno())}")


def load_drivers() -> None:
    """Load what the processor's own name asks for, as udev does in a larger system: the driver of KVM."""
    alias = Path("/sys/devices/system/cpu/modalias").read_text().strip()
    subprocess.run(["modprobe", "-q", alias], env=ENVIRONMENT, check=False)


def hand_on(pipe: IO[str], event: str) -> None:
    """Say each line of a stream."""
    for line in pipe:
        say(event, text=line.rstrip("\n"))


def perform() -> int:
    """Run the program to its end."""
    job = json.loads(JOB.read_text())
    with (
        INPUT.open("rb") as given,
        subprocess.Popen(
            job["argv"],
            cwd=job["cwd"],
            env=ENVIRONMENT,
            stdin=given,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="replace",
        ) as child,
    ):
        assert child.stdout is not None and child.stderr is not None
        beside = threading.Thread(target=hand_on, args=(child.stderr, "err"))
        beside.start()
        hand_on(child.stdout, "out")
        beside.join()
    return child.returncode


def main() -> None:
    """Everything, and then nothing more: the runner ends the emulator."""
    status = -1
    try:
        for kind, target in (("devtmpfs", "/dev"), ("proc", "/proc"), ("sysfs", "/sys")):
            mount(kind, target)
        # What the kernel still has to say must not fall into our lines.
        libc.syscall(SYS_SYSLOG, CONSOLE_LEVEL, None, 1)
        boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        say("up", kernel=os.uname().release, boot_id=boot_id, python=sys.version.split()[0])
        load_drivers()
        status = perform()
    except Exception as exc:  # noqa: BLE001  (The first process must not end: the kernel would panic, and nobody would know why.)
        say("failed", why=f"{type(exc).__name__}: {exc}")
    say("end", status=status)
    while True:
        time.sleep(3600)


if __name__ == "__main__":
    main()
