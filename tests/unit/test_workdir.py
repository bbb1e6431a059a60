"""Working directories: private, removed at the end, and swept when their owner was killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from vmlab.guest.workdir import sweep, work_dir

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VMLAB_CACHE", str(tmp_path / "cache"))


def test_it_is_private_and_gone_at_the_end_even_after_an_error() -> None:
    with pytest.raises(RuntimeError), work_dir() as work:
        assert work.path.stat().st_mode & 0o777 == 0o700
        (work.path / "disk").write_text("x")
        raise RuntimeError
    assert not work.path.exists()


def test_a_living_runs_directory_is_left_alone() -> None:
    with work_dir() as work:
        assert sweep() == []
        assert work.path.exists()


def test_what_a_killed_runner_left_is_removed_and_its_guest_ended(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    program = (
        "import subprocess, time\nfrom pathlib import Path\nfrom vmlab.guest.workdir import work_dir\n"
        "with work_dir() as work:\n"
        # A guest that, against all arrangements, outlives its runner.
        "    guest = subprocess.Popen(['sleep', '600'], start_new_session=True)\n"
        "    work.add_process(guest.pid)\n"
        f"    Path({str(ready)!r}).write_text(f'{{guest.pid}} {{work.path}}')\n"
        "    time.sleep(600)\n"
    )
    owner = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT)
    end = time.monotonic() + 20
    while not (ready.exists() and ready.read_text()) and time.monotonic() < end:
        time.sleep(0.05)
    pid, path = ready.read_text().split()
    os.kill(owner.pid, signal.SIGKILL)
    owner.wait()
    assert sweep() == [Path(path)]
    assert not Path(path).exists()
    try:
        psutil.Process(int(pid)).wait(5)
    except psutil.NoSuchProcess:
        return
    assert not psutil.pid_exists(int(pid))


def test_a_pid_that_was_used_again_is_not_killed(tmp_path: Path) -> None:
    bystander = subprocess.Popen(["sleep", "600"])
    try:
        left = tmp_path / "cache" / "runs" / "run-old"
        left.mkdir(parents=True)
        processes = [{"pid": 2**22 - 1, "started": 1.0}, {"pid": bystander.pid, "started": 1.0}]
        (left / "owner.json").write_text(json.dumps({"processes": processes}))
        assert sweep() == [left.resolve()]
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


@pytest.mark.parametrize("text", ["", "garbage", "[]", '{"processes": 3}', '{"processes": []}'])
def test_a_damaged_owner_file_does_not_stop_the_sweep(tmp_path: Path, text: str) -> None:
    left = tmp_path / "cache" / "runs" / "run-broken"
    left.mkdir(parents=True)
    (left / "owner.json").write_text(text)
    assert sweep() == [left.resolve()]
