"""How much this machine was disturbed while something was measured on it."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import psutil


@dataclass(frozen=True)
class Noise:
    """What the host did during a measurement. CPU times in seconds, over all of its CPUs."""

    wall_s: float
    cpus: int
    qemu_cpu_s: float
    """Of the QEMU that was measured."""
    others_cpu_s: float
    """Of every other process but this one."""
    steal_s: float
    """What a hypervisor below this host took away (0 where it does not tell)."""
    waited_s: float
    """How long QEMU's threads were ready to run and had no CPU (its own other threads may have had it); 0 once it has ended."""
    load_1min: float

    @property
    def others_share(self) -> float:
        """The share of the host's CPU time that neither the guests nor this process had: 0 on a quiet machine, 1 when others had all."""
        whole_s = self.wall_s * self.cpus
        return round(min(1.0, (self.others_cpu_s + self.steal_s) / whole_s), 4) if whole_s > 0 else 0.0


class Meter:
    """Begins when it is made; `stop` says what the host did since. ``pids`` are those of QEMUs that run already."""

    def __init__(self, pids: Iterable[int] = ()) -> None:
        self._wall = time.monotonic()
        self._busy_s, self._steal_s = _busy()
        self._own_s, self._children_s = _own()
        self._before = {pid: (_cpu_s(pid), _waited(pid)) for pid in pids}

    def stop(self, *pids: int) -> Noise:
        """What happened while the QEMUs with these process ids were measured, and those that ran when it began. They may have ended."""
        busy_s, steal_s = _busy()
        own_s, children_s = _own()
        # What children used is known once they have ended, and then it is theirs who waited for them.
        qemu_s, waited_s = children_s - self._children_s, 0.0
        for pid in {*pids, *self._before}:
            before_s, waited_before_s = self._before.get(pid, (0.0, 0.0))
            used_s = _cpu_s(pid)
            if pid in self._before or used_s:
                qemu_s += used_s - before_s
            waited_s += max(0.0, _waited(pid) - waited_before_s)
        others_s = busy_s - self._busy_s - qemu_s - (own_s - self._own_s)
        return Noise(
            wall_s=round(time.monotonic() - self._wall, 3),
            cpus=os.cpu_count() or 1,
            qemu_cpu_s=round(max(0.0, qemu_s), 2),
            # (The kernel counts each in ticks of its own, so that a quiet machine can come out below nothing.)
            others_cpu_s=round(max(0.0, others_s), 2),
            steal_s=round(steal_s - self._steal_s, 2),
            waited_s=round(waited_s, 3),
            load_1min=round(os.getloadavg()[0], 2),
        )


def _cpu_s(pid: int) -> float:
    """CPU seconds of a process; 0 when it has ended, for then they are its parent's, who waited for it."""
    with contextlib.suppress(psutil.Error):
        times = psutil.Process(pid).cpu_times()
        return float(times.user + times.system)
    return 0.0


def _busy() -> tuple[float, float]:
    """CPU seconds of all processes of this host since its start, and what was stolen from it (proc_stat(5))."""
    times = psutil.cpu_times()
    return times.user + times.nice + times.system + times.irq + times.softirq, times.steal


def _own() -> tuple[float, float]:
    """CPU seconds of this process, and of its children that have ended."""
    times = os.times()
    return times.user + times.system, times.children_user + times.children_system


def _waited(pid: int) -> float:
    """Seconds on a run queue, summed over the threads: the second number of schedstat, in ns (Documentation/scheduler/sched-stats.rst)."""
    total = 0
    for file in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            total += int(file.read_text().split()[1])
    return total / 1e9
