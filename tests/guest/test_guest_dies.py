"""A guest that panics, ends, or hangs while it boots: each a distinct error, soon after it happened, and nothing is left."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.conftest import BOOT_S, ROOT
from tests.stage import setting
from vmlab.errors import BootTimeout, GuestExited, GuestPanicked, RunError
from vmlab.guest import boot as starting
from vmlab.guest.machine import BootRequest
from vmlab.guest.workdir import sweep, work_dir
from vmlab.image.image import Image
from vmlab.progress import Event, Kind, Progress

pytestmark = [pytest.mark.guest, pytest.mark.xdist_group("dies")]


def boot(
    image: Image, log: Path, *, init: str = "/lib/systemd/systemd", limit_s: float = BOOT_S, waiting: Callable[[str], None] = print
) -> None:

    def waits(event: Event) -> None:
        if event.kind is Kind.WAITING:
            waiting(event.text)

    request = BootRequest("main", dataclasses.replace(image, inits={"systemd": init}), "tcg", memory_mib=256, cpus=1)
    with work_dir() as work, starting.boot(request, setting(work, log, limit_s=limit_s, progress=Progress(waits))):
        pass


def new_guests(before: set[int]) -> list[psutil.Process]:
    """The guests of this process that were not there before; another test's may be."""
    children = psutil.Process().children()
    return [each for each in children if each.status() != psutil.STATUS_ZOMBIE and "vmlab" in each.name() and each.pid not in before]


@pytest.fixture
def before() -> set[int]:
    return {each.pid for each in new_guests(set())}


def test_a_panic_is_told_within_two_seconds_with_the_consoles_words(debian13: Image, tmp_path: Path, before: set[int]) -> None:
    log = tmp_path / "console.log"
    with pytest.raises(GuestPanicked) as caught:
        boot(debian13, log, init="/bin/false")
    # The console's last words were written when the kernel panicked.
    assert time.time() - log.stat().st_mtime < 2
    assert "Attempted to kill init" in caught.value.message
    assert "panic+0x" in caught.value.detail
    assert new_guests(before) == []


def test_an_early_end_of_qemu_is_told_within_two_seconds(debian13: Image, tmp_path: Path, before: set[int]) -> None:
    killed_at = 0.0

    def kill_it(step: str) -> None:
        nonlocal killed_at
        if step == "sshd":
            (guest,) = new_guests(before)
            guest.kill()
            killed_at = time.monotonic()

    with pytest.raises(GuestExited):
        boot(debian13, tmp_path / "console.log", waiting=kill_it)
    assert time.monotonic() - killed_at < 2
    assert new_guests(before) == []


def test_a_qemu_that_refuses_its_command_says_why(debian13: Image, tmp_path: Path) -> None:
    (tmp_path / "not-a-kernel").write_bytes(b"x" * 5000)
    with pytest.raises(RunError) as caught:
        boot(dataclasses.replace(debian13, kernel=tmp_path / "not-a-kernel"), tmp_path / "console.log")
    assert "qemu" in (caught.value.message + caught.value.detail).lower()


def test_a_hang_is_told_at_the_deadline_with_its_step(debian13: Image, tmp_path: Path, before: set[int]) -> None:
    hung = 0.0

    def note(step: str) -> None:
        nonlocal hung
        hung = time.monotonic()

    # A PID 1 that lives and does nothing: the kernel is up and sshd never comes.
    began = time.monotonic()
    with pytest.raises(BootTimeout) as caught:
        boot(debian13, tmp_path / "console.log", init="/bin/cat", limit_s=40, waiting=note)
    assert time.monotonic() - began < 42
    assert "hung at the step" in caught.value.message
    assert caught.value.hint
    assert new_guests(before) == []


def test_nothing_outlives_a_runner_that_is_killed(debian13: Image, tmp_path: Path) -> None:
    program = (
        "import sys\nfrom pathlib import Path\nfrom vmlab.deadline import Deadline\nfrom vmlab.guest.boot import boot\n"
        "from vmlab.guest.machine import BootRequest\n"
        "from vmlab.image.store import ImageStore\nfrom vmlab.guest.workdir import work_dir\n"
        "from vmlab.guest.setting import Setting\nfrom vmlab.progress import Progress\n"
        "image = ImageStore().find('debian-13')\n"
        "with work_dir() as work:\n"
        "    progress = Progress(lambda event: print(event.text, work.path, flush=True))\n"
        "    with boot(BootRequest('main', image, 'tcg', memory_mib=256), Setting(work, Path(sys.argv[1]), Deadline(300), progress)):\n"
        "        pass\n"
    )
    runner = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "console.log")],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "VMLAB_CACHE": os.environ.get("VMLAB_CACHE", "")},
    )
    assert runner.stdout is not None
    for line in runner.stdout:
        step, directory = line.split()
        if step == "sshd":
            break
    (guest,) = [child for child in psutil.Process(runner.pid).children() if "vmlab" in child.name()]
    runner.send_signal(signal.SIGKILL)
    runner.wait()
    assert psutil.wait_procs([guest], timeout=2)[1] == []
    assert Path(directory).exists()
    assert Path(directory) in sweep()
    assert not Path(directory).exists()
