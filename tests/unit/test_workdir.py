"""Working directories: private, removed at the end, and swept when their owner was killed; by the kernel's locks alone."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from vmlab.errors import HostError
from vmlab.guest import workdir
from vmlab.guest.workdir import WorkDir, sweep, work_dir

ROOT = Path(__file__).parents[2]
RUN = "import os, subprocess, sys, time\nfrom vmlab.guest.workdir import work_dir\nwith work_dir() as work:\n"
READY = "    print(work.path, flush=True)\n    time.sleep(600)\n"
# A guest that, against all arrangements, outlives its runner.
GUEST = "    guest = subprocess.Popen(['sleep', '600'], start_new_session=True, pass_fds=[work.guests_fd])\n    print(guest.pid)\n"


@pytest.fixture(autouse=True)
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VMLAB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "runs"


@dataclass
class Run:
    """A run in a process of its own, and what it printed."""

    process: subprocess.Popen[str]
    said: list[str]

    @property
    def path(self) -> Path:
        return Path(self.said[-1])

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


StartRun = Callable[..., Run]


@pytest.fixture
def start() -> Iterator[StartRun]:
    """Starts runs, and ends them and what they left."""
    begun: list[Run] = []

    def run(*, before: str = "", prefix: tuple[str, ...] = ()) -> Run:
        command = [*prefix, sys.executable, "-c", RUN + before + READY]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        begun.append(Run(process, []))
        assert process.stdout is not None
        for _ in range(before.count("print(") + 1):
            begun[-1].said.append(process.stdout.readline().strip())
        return begun[-1]

    yield run
    for each in begun:
        each.kill()
        for pid in each.said[:-1]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)


def is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_it_is_private_and_gone_at_the_end_even_after_an_error(runs: Path) -> None:
    with pytest.raises(RuntimeError), work_dir() as work:
        assert work.path.stat().st_mode & 0o777 == 0o700
        (work.path / "disk").write_text("x")
        raise RuntimeError
    assert list(runs.iterdir()) == []


def test_a_living_runs_directory_is_left_alone(start: StartRun) -> None:
    with work_dir() as work:
        assert sweep() == []
        assert work.path.exists()
    other = start()
    assert sweep() == []
    assert other.path.exists()


def test_whatever_the_clock_says(start: StartRun) -> None:
    """Neither the age of the files nor the time counts: a clock that was set, or a machine that slept, changes nothing."""
    run = start()
    for path in (run.path, run.path.with_name(run.path.name + ".lock"), *run.path.iterdir()):
        os.utime(path, (0, 0))
    assert sweep() == []
    run.kill()
    os.utime(run.path, (2**31, 2**31))
    assert sweep() == [run.path]


def test_in_another_pid_namespace_too(start: StartRun) -> None:
    isolated = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
    if subprocess.run([*isolated, "true"], check=False, capture_output=True).returncode != 0:
        pytest.skip("this user may not make PID namespaces")
    run = start(before="    print(os.getpid())\n", prefix=isolated)
    assert run.said.pop(0) == "1"
    assert sweep() == []
    assert run.path.exists()
    # And from in there out: a run out here is one whose process cannot be seen there.
    with work_dir() as ours:
        seen = subprocess.run(
            [*isolated, sys.executable, "-c", "from vmlab.guest.workdir import sweep\nprint(sweep())"],
            check=True,
            capture_output=True,
            text=True,
            cwd=ROOT,
        )
        assert seen.stdout == "[]\n"
        assert ours.path.exists()


def test_what_a_killed_runner_left_is_removed_and_its_guest_ended(start: StartRun, runs: Path) -> None:
    run = start(before=GUEST)
    run.kill()
    assert not is_gone(int(run.said[0]))
    assert sweep() == [run.path]
    assert list(runs.iterdir()) == []
    assert is_gone(int(run.said[0]))


def test_a_guest_of_a_living_run_is_not_ended(start: StartRun) -> None:
    run = start(before=GUEST)
    assert sweep() == []
    assert not is_gone(int(run.said[0]))


def test_who_merely_has_the_files_open_is_not_ended(start: StartRun) -> None:
    """A backup, an editor, a shell in the directory: none of them holds the lock that only guests inherit."""
    run = start()
    run.kill()
    with (run.path / "guests.lock").open() as opened:
        bystander = subprocess.Popen(["sleep", "600"], stdin=opened, cwd=run.path)
    try:
        assert sweep() == [run.path]
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_a_guest_that_cannot_be_seen_keeps_its_directory(start: StartRun, monkeypatch: pytest.MonkeyPatch) -> None:
    run = start(before=GUEST)
    run.kill()
    with monkeypatch.context() as patch:
        patch.setattr(workdir, "_holders", lambda _guests: [])
        patch.setattr(workdir, "_ENDING_LIMIT_S", 0.1)
        assert sweep() == []
    assert run.path.exists()
    assert not is_gone(int(run.said[0]))
    # It is not lost: once the guest has ended, the next sweep gets it.
    os.kill(int(run.said[0]), signal.SIGKILL)
    assert sweep() == [run.path]


def test_a_pid_that_is_another_process_by_now_is_spared(start: StartRun, monkeypatch: pytest.MonkeyPatch) -> None:
    run = start(before=GUEST)
    run.kill()
    bystander = subprocess.Popen(["sleep", "600"])
    try:
        monkeypatch.setattr(workdir, "_holders", lambda _guests: [bystander.pid, 2**22 - 1])
        monkeypatch.setattr(workdir, "_ENDING_LIMIT_S", 0.1)
        assert sweep() == []
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_a_fork_of_the_runner_that_lives_on_keeps_it(start: StartRun) -> None:
    fork = "    child = os.fork()\n    if child == 0:\n        os.setsid()\n        time.sleep(600)\n    print(child)\n"
    run = start(before=fork)
    run.kill()
    assert sweep() == []
    assert run.path.exists()
    os.kill(int(run.said[0]), signal.SIGKILL)
    end = time.monotonic() + 10
    while not sweep() and time.monotonic() < end:
        time.sleep(0.02)
    assert not run.path.exists()


def test_a_run_that_only_just_starts_is_not_swept(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sweep at each moment of a start: no directory goes, and none is given to two."""
    flock, stopped = fcntl.flock, threading.Event()

    def slow(descriptor: int, how: int) -> None:
        time.sleep(0.001)
        flock(descriptor, how)

    def sweeping() -> int:
        swept = 0
        while not stopped.is_set():
            swept += len(sweep())
        return swept

    monkeypatch.setattr(fcntl, "flock", slow)
    with ThreadPoolExecutor(3) as pool:
        sweeps = [pool.submit(sweeping) for _ in range(3)]
        for number in range(40):
            with work_dir() as work:
                (work.path / "mine").write_text(str(number))
                time.sleep(0.002)
                assert [path.name for path in sorted(work.path.iterdir())] == ["guests.lock", "mine"]
        stopped.set()
        assert [each.result() for each in sweeps] == [0, 0, 0]
    sweep()
    assert list(runs.iterdir()) == []


def test_two_sweeps_at_once_remove_each_directory_once(start: StartRun, runs: Path) -> None:
    left = [start() for _ in range(2)]
    for run in left:
        run.kill()
    with ThreadPoolExecutor(4) as pool:
        removed = [path for paths in pool.map(lambda _: sweep(), range(4)) for path in paths]
    sweep()
    assert sorted(removed) == sorted(run.path for run in left)
    assert list(runs.iterdir()) == []


@pytest.mark.parametrize("left", ["lock", "directory", "both"])
def test_what_a_run_left_that_was_killed_in_its_first_or_last_moment_goes(left: str, runs: Path) -> None:
    runs.mkdir(parents=True)
    if left != "directory":
        (runs / "live-x.lock").touch()
    if left != "lock":
        (runs / "live-x").mkdir()
    assert sweep() == ([] if left == "lock" else [runs / "live-x"])
    assert list(runs.iterdir()) == []


def test_what_is_not_ours_stays(runs: Path) -> None:
    (runs / "run-old").mkdir(parents=True)
    (runs / "notes.lock").touch()
    assert sweep() == []
    assert sorted(path.name for path in runs.iterdir()) == ["notes.lock", "run-old"]


def test_a_directory_that_cannot_be_removed_is_not_told_to_be(start: StartRun, monkeypatch: pytest.MonkeyPatch) -> None:
    run = start()
    run.kill()
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", lambda *_given, **_named: None)
        assert sweep() == []
    assert sweep() == [run.path]


@pytest.mark.parametrize("code", ["ENOSPC", "EROFS", "ENOLCK"])
@pytest.mark.parametrize("what", ["the lock file", "the directory", "the guests' file"])
def test_a_disk_that_is_full_or_read_only_is_told_and_nothing_stays(
    code: str, what: str, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = getattr(errno, code)

    def refuse(*_given: object, **_named: object) -> None:
        raise OSError(number, os.strerror(number))

    runs.mkdir(parents=True)
    with monkeypatch.context() as patch:
        if what == "the lock file":
            patch.setattr(os, "open", refuse)
        elif what == "the directory":
            made = Path.mkdir
            patch.setattr(Path, "mkdir", lambda path, **named: refuse() if path.name.startswith("live-") else made(path, **named))
        else:
            patch.setattr(WorkDir, "__init__", refuse)
        with pytest.raises(HostError, match="cannot make a working directory") as caught, work_dir():
            pass
    assert "VMLAB_CACHE" in caught.value.hint
    assert list(runs.iterdir()) == []
