"""The gateway for child processes: nothing outlives its owner, and every failure has words."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from vmlab import process
from vmlab.deadline import Deadline
from vmlab.errors import HostError

ROOT = Path(__file__).parents[2]


def gone(pid: int, within_s: float) -> bool:
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.02)
    return False


def test_output_and_status_come_back() -> None:
    done = process.run(["sh", "-c", "echo out; echo err >&2; cat"], deadline=Deadline(10), input=b"in")
    assert (done.status, done.stdout, done.stderr) == (0, b"out\nin", b"err\n")


def test_standard_input_is_closed_unless_given() -> None:
    assert process.run(["cat"], deadline=Deadline(10)).stdout == b""


def test_a_failure_says_what_the_program_said() -> None:
    with pytest.raises(process.CommandError) as caught:
        process.run(["sh", "-c", "echo first; echo the disk is on fire >&2; exit 3"], deadline=Deadline(10))
    assert "exit status 3" in caught.value.message
    assert "the disk is on fire" in caught.value.message


def test_a_missing_program_names_its_package() -> None:
    with pytest.raises(HostError) as caught:
        process.require("qemu-system-x86_64-of-the-future")
    assert "is not installed" in caught.value.message
    assert caught.value.hint


def test_a_child_that_takes_too_long_is_ended_with_its_children(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    with pytest.raises(process.CommandError, match="did not finish within"):
        process.run(["sh", "-c", f"sleep 600 & echo $! > {pid_file}; wait"], deadline=Deadline(0.5))
    assert gone(int(pid_file.read_text()), 5)


def test_a_child_dies_with_a_runner_that_is_killed(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    program = (
        "import time\nfrom pathlib import Path\nfrom vmlab import process\n"
        "child = process.spawn(['sleep', '600'])\n"
        f"Path({str(pid_file)!r}).write_text(str(child.pid))\ntime.sleep(600)\n"
    )
    owner = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT)
    end = time.monotonic() + 20
    while not (pid_file.exists() and pid_file.read_text()) and time.monotonic() < end:
        time.sleep(0.05)
    child = int(pid_file.read_text())
    assert psutil.pid_exists(child)
    os.kill(owner.pid, signal.SIGKILL)
    owner.wait()
    assert gone(child, 5)


def test_a_child_that_ignores_sigterm_is_killed() -> None:
    child = process.spawn(["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.05; done"], stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()
    assert process.stop(child, grace_s=0.3) == -signal.SIGKILL
