"""What tests of several kinds share."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from vmlab.deadline import Deadline
from vmlab.image.image import Image
from vmlab.image.store import ImageStore

ROOT = Path(__file__).parents[1]

# A test machine may be busy with another guest, and every guest here is emulated.
BOOT_S = 400.0

Vmlab = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session", autouse=True)
def slots_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Each worker's runs share slots among themselves alone: a lab that wants the machine to itself must not keep another worker's test
    waiting beyond its time limit. (pytest-xdist's workers are as many as the machine bears.)"""
    os.environ["VMLAB_SLOTS"] = str(tmp_path_factory.mktemp("slots"))


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> None:
    """What a test starts can be interrupted, also where a shell in the background started the tests: it makes them ignore SIGINT, which
    every process inherits."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def debian13() -> Image:
    """The default image, from the user's own cache (built when it is not there, as for any user)."""
    return ImageStore().get("debian-13", Deadline(1800))


@pytest.fixture(scope="session")
def debian12() -> Image:
    """The older image."""
    return ImageStore().get("debian-12", Deadline(1800))


@pytest.fixture
def vmlab(tmp_path: Path) -> Vmlab:
    """The command line as a user runs it: ``vmlab("run", "x")`` in an empty directory."""

    def run(*words: str, timeout_s: float = 120, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "vmlab", *words],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200", **(env or {})},
            capture_output=True,
            text=True,
            timeout=timeout_s,
            stdin=subprocess.DEVNULL,
            check=False,
        )

    return run
