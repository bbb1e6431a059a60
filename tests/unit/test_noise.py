"""What else a machine did during a measurement."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from vmlab.host.noise import Meter

BUSY = "import time\nend = time.process_time() + {}\nwhile time.process_time() < end: pass"


@pytest.fixture
def measured() -> Iterator[subprocess.Popen[bytes]]:
    """Stands for the QEMU that is measured: it uses half a second of CPU time, then waits."""
    code = BUSY.format(0.5) + "\nprint('done', flush=True)\ntime.sleep(60)"
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    yield child
    child.kill()
    child.wait()


def test_the_measured_process_is_not_a_stranger(measured: subprocess.Popen[bytes]) -> None:
    meter = Meter()
    assert measured.stdout is not None
    measured.stdout.readline()
    noise = meter.stop(measured.pid)
    assert 0.4 < noise.qemu_cpu_s < 3
    assert noise.wall_s > 0.3
    assert noise.cpus >= 1
    assert noise.waited_s >= 0


def test_another_process_is_one() -> None:
    meter = Meter()
    other = subprocess.Popen(["/bin/sh", "-c", f"exec {sys.executable} -c '{BUSY.format(1)}'"])
    deadline = time.monotonic() + 60
    while other.poll() is None and time.monotonic() < deadline:
        # (Not waited for, so that its CPU time is not yet counted as this process's children's.)
        time.sleep(0.05)
        if _cpu_s(other.pid) > 0.9:
            break
    noise = meter.stop(0)
    other.kill()
    other.wait()
    assert noise.others_cpu_s > 0.7


def test_one_that_has_ended_is_counted_by_who_waited_for_it() -> None:
    meter = Meter()
    child = subprocess.Popen([sys.executable, "-c", BUSY.format(0.5)])
    child.wait()
    assert meter.stop(child.pid).qemu_cpu_s > 0.4


def _cpu_s(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 1.0
    return (int(fields[11]) + int(fields[12])) / 100
