"""Leases: one holder at a time, in whatever process; over when the last process that has one is; no two holders by way of a new file."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from vmlab import lease
from vmlab.deadline import Deadline

HOLDER = "import sys, time\nfrom pathlib import Path\nfrom vmlab import lease\nheld = lease.try_take(Path(sys.argv[1]))\n"


@pytest.fixture
def other(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lease on ``tmp_path/lock``."""
    command = [sys.executable, "-c", HOLDER + "print(held is not None, flush=True)\ntime.sleep(600)", str(tmp_path / "lock")]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "True\n"
    yield child
    child.kill()
    child.wait()
    child.stdout.close()


def test_one_holder_at_a_time_and_over_when_it_is_killed(other: subprocess.Popen[str], tmp_path: Path) -> None:
    assert lease.try_take(tmp_path / "lock") is None
    other.kill()
    other.wait()
    with lease.try_take(tmp_path / "lock") or pytest.fail("it ended with its holder"):
        assert lease.try_take(tmp_path / "lock") is None


def test_a_wait_ends_with_the_lease_or_the_deadline(other: subprocess.Popen[str], tmp_path: Path) -> None:
    began = time.monotonic()
    assert lease.take(tmp_path / "lock", Deadline(0.3)) is None
    assert 0.3 <= time.monotonic() - began < 0.8
    threading.Timer(0.3, other.kill).start()
    with lease.take(tmp_path / "lock", Deadline(20)) or pytest.fail("it ended with its holder"):
        pass


def test_a_program_does_not_inherit_it(tmp_path: Path) -> None:
    held = lease.try_take(tmp_path / "lock")
    assert held is not None
    child = subprocess.Popen(["sleep", "600"], close_fds=False)
    try:
        held.release()
        with lease.try_take(tmp_path / "lock") or pytest.fail("a program that was started meanwhile has it"):
            pass
    finally:
        child.kill()
        child.wait()


def test_an_ended_lease_leaves_no_file_and_may_be_released_again(tmp_path: Path) -> None:
    held = lease.try_take(tmp_path / "lock")
    assert held is not None
    held.end()
    held.release()
    assert list(tmp_path.iterdir()) == []


def test_a_lock_on_a_file_that_has_lost_its_name_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between our opening and our locking its holder ends it, and somebody else takes the lease on the new file of that name."""
    path, rivals = tmp_path / "lock", []
    held = lease.try_take(path)
    assert held is not None
    flock: Callable[[int, int], None] = fcntl.flock

    def late(descriptor: int, how: int) -> None:
        monkeypatch.setattr(fcntl, "flock", flock)
        held.end()
        rivals.append(lease.try_take(path))
        flock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", late)
    assert lease.try_take(path) is None
    assert rivals[0] is not None
    rivals[0].release()


def test_of_many_that_take_and_end_it_no_two_have_it_at_once(tmp_path: Path) -> None:
    inside, worst, lock = 0, 0, threading.Lock()

    def contend(_number: int) -> None:
        nonlocal inside, worst
        for _ in range(30):
            held = lease.take(tmp_path / "lock", Deadline(60))
            assert held is not None
            with lock:
                inside += 1
                worst = max(worst, inside)
            time.sleep(0)
            with lock:
                inside -= 1
            held.end()

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(contend, range(6)))
    assert worst == 1


@pytest.mark.parametrize(("code", "held"), [(errno.EAGAIN, True), (errno.EACCES, True), (errno.ENOLCK, False), (errno.EOPNOTSUPP, False)])
def test_a_file_system_without_locks_is_an_error_not_a_holder(
    code: int, held: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_descriptor: int, _how: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", refuse)
    before = len(list(Path("/proc/self/fd").iterdir()))
    if held:
        assert lease.try_take(tmp_path / "lock") is None
    else:
        with pytest.raises(OSError, match=os.strerror(code)):
            lease.try_take(tmp_path / "lock")
    assert len(list(Path("/proc/self/fd").iterdir())) == before
