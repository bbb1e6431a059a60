#!/usr/bin/python3 -SE
"""The first process of the appliance (runner/vmlab/guest/intel/appliance.py): measures both modes of KVM and says what it found.

It is the only program of a small Linux that runs where nothing else does, and is read by the runner over the serial console: JSON
objects, each on a line of its own behind `MARK`; anything else there is the kernel's.

    {"event": "up", ...}      it runs
    {"event": "record", ...}  the KVM probe's record with the module loaded in one mode
    {"event": "failed", ...}  why there is no such record
    {"event": "end"}          there is nothing more to come
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

MARK = "@vmlab "

# Where the appliance's maker puts them: modules in the order they load, each as "NUMBER-name.ko", those of a vendor in its own folder.
MODULES = Path("/modules")

# The processor's flag, the module that drives it, its parameter for the second set of page tables.
VENDORS = {"vmx": ("kvm_intel", "ept"), "svm": ("kvm_amd", "npt")}

# Numbers of system calls for which Python has no function (arch/x86/entry/syscalls/syscall_64.tbl), and SYSLOG_ACTION_CONSOLE_LEVEL.
SYS_FINIT_MODULE, SYS_DELETE_MODULE, SYS_SYSLOG, CONSOLE_LEVEL = 313, 176, 103, 8

LIMIT_S = 240
"""How long one probe may take: the processor here is emulated, and its clock need not be the host's."""

libc = ctypes.CDLL(None, use_errno=True)


def say(event: str, **facts: Any) -> None:
    """One line to the runner."""
    sys.stdout.write(f"\n{MARK}{json.dumps({'event': event, **facts})}\n")
    sys.stdout.flush()


def _checked(result: int, what: str) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")


def mount(kind: str, target: str) -> None:
    """Mount one of the kernel's own file systems."""
    Path(target).mkdir(exist_ok=True)
    _checked(libc.mount(kind.encode(), target.encode(), kind.encode(), 0, None), f"mount {target}")


def load(module: Path, parameters: str = "") -> None:
    """Load a module from its file."""
    with module.open("rb") as file:
        _checked(libc.syscall(SYS_FINIT_MODULE, file.fileno(), parameters.encode(), 0), f"load {module.name}")


def unload(name: str) -> None:
    """Remove a module, which a moment after its last use may still be busy."""
    for _ in range(100):
        if libc.syscall(SYS_DELETE_MODULE, name.encode(), os.O_NONBLOCK) == 0:
            return
        time.sleep(0.05)
    _checked(-1, f"unload {name}")


def processor() -> str:
    """The flag by which this processor can run guests; OSError when it cannot."""
    flags = Path("/proc/cpuinfo").read_text().split()
    for flag in VENDORS:
        if flag in flags:
            return flag
    raise OSError(0, "the processor has neither vmx nor svm")


def measure() -> None:
    """Load the driver with the second set of page tables, and without; one record each."""
    probe = importlib.import_module("kvm.__main__")
    name, parameter = VENDORS[processor()]
    *needed, driver = sorted((MODULES / name).glob("*.ko"))
    for module in needed:
        load(module)
    for value in (1, 0):
        load(driver, f"{parameter}={value}")
        say("record", module=name, parameter=parameter, value=value, record=probe.probe(limit_s=LIMIT_S))
        unload(name)


def main() -> None:
    """Everything, and then nothing more: the runner ends the emulator."""
    for kind, target in (("devtmpfs", "/dev"), ("proc", "/proc"), ("sysfs", "/sys")):
        mount(kind, target)
    # What the kernel still has to say must not fall into our lines.
    libc.syscall(SYS_SYSLOG, CONSOLE_LEVEL, None, 1)
    say("up", kernel=os.uname().release, python=sys.version.split()[0])
    try:
        measure()
    except OSError as exc:
        say("failed", why=str(exc))
    say("end")
    while True:
        time.sleep(3600)


if __name__ == "__main__":
    main()
