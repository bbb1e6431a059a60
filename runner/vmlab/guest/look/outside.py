"""The host's look at a guest as a process: QEMU's word on its state, the kernel's on QEMU's memory and CPU time."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

import psutil

from vmlab.deadline import Deadline
from vmlab.errors import GuestError, GuestPanicked
from vmlab.guest.machine import Machine
from vmlab.guest.qmp import QmpError


def outside(machine: Machine, deadline: Deadline) -> dict[str, Any]:
    """``status`` (QEMU's word), ``resident_bytes``, ``cpu_s``, ``vcpu_cpu_s`` (one for each virtual CPU) and ``panicked``.

    A guest whose kernel has panicked can be looked at like any other, because QEMU goes on. Raises what ended the guest when QEMU is
    gone, GuestError when its process cannot be read.
    """
    try:
        status = machine.monitor.execute("query-status", deadline)
        threads = [int(each["thread-id"]) for each in machine.monitor.execute("query-cpus-fast", deadline)]
        resident = psutil.Process(machine.pid).memory_info().rss
    except (QmpError, psutil.Error) as exc:
        with machine.attributing():
            raise GuestError(f"QEMU cannot be looked at: {exc}") from exc
    return {
        "status": str(status.get("status", "")),
        "resident_bytes": int(resident),
        "cpu_s": round(machine.cpu_s(), 2),
        "vcpu_cpu_s": [round(_thread_cpu_s(machine.pid, thread), 2) for thread in threads],
        "panicked": isinstance(machine.fate.death, GuestPanicked) or bool(machine.panic_signs.told_at),
    }


def _thread_cpu_s(pid: int, thread: int) -> float:
    """CPU seconds of one thread: fields 14 and 15 of its stat, in ticks (proc_pid_stat(5)); 0 when it has ended.

    Under KVM and multi-threaded TCG each virtual CPU is a thread of QEMU's own (QEMU, docs/devel/multi-thread-tcg.rst).
    """
    with contextlib.suppress(OSError, ValueError, IndexError):
        fields = Path(f"/proc/{pid}/task/{thread}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return 0.0
