"""The private working directory of a run, and the removal of what dead runs left behind.

A runner that is killed by SIGKILL cannot clean up. Its guests die with it (see `vmlab.process`); its directory stays, and the next
run removes it: ``owner.json`` names the owner and the guests by pid *and* start time, because pids are used again.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from vmlab.errors import HostError
from vmlab.paths import runs_dir

log = logging.getLogger(__name__)

_OWNER = "owner.json"


class WorkDir:
    """A directory of mode 0700 that exists as long as its run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._processes = [_identify(os.getpid())]
        self._save()

    def add_process(self, pid: int) -> None:
        """Note a guest's process, so that a later run can end it if all else failed. One that has ended by now needs no note."""
        with self._lock, contextlib.suppress(psutil.NoSuchProcess):
            self._processes.append(_identify(pid))
            self._save()

    def _save(self) -> None:
        temporary = self.path / (_OWNER + ".new")
        temporary.write_text(json.dumps({"processes": self._processes}))
        temporary.replace(self.path / _OWNER)


@contextlib.contextmanager
def work_dir() -> Iterator[WorkDir]:
    """A fresh directory, removed at the end; what dead runs left is removed first. HostError when the disk is full."""
    sweep()
    try:
        path = Path(tempfile.mkdtemp(prefix="run-", dir=runs_dir()))
    except OSError as exc:
        raise HostError(f"cannot make a working directory in {runs_dir()}: {exc.strerror}", hint="free some disk space") from exc
    try:
        yield WorkDir(path)
    finally:
        shutil.rmtree(path, ignore_errors=True)


def sweep() -> list[Path]:
    """Remove the directories of runs whose owner is dead, ending guests that outlived it. Returns what was removed."""
    removed = []
    for path in runs_dir().glob("run-*"):
        processes = _read(path / _OWNER)
        if processes is None or (processes and _alive(processes[0]) is not None):
            continue
        for recorded in processes[1:]:
            guest = _alive(recorded)
            if guest is not None:
                log.warning("ending guest %d, which outlived its runner", guest.pid)
                guest.kill()
        shutil.rmtree(path, ignore_errors=True)
        removed.append(path)
    return removed


def _identify(pid: int) -> dict[str, float]:
    return {"pid": pid, "started": psutil.Process(pid).create_time()}


def _alive(recorded: dict[str, float]) -> psutil.Process | None:
    try:
        process = psutil.Process(int(recorded["pid"]))
        # The start time has the kernel's tick as its unit (10 ms), so equal up to that is equal.
        same = abs(process.create_time() - recorded["started"]) < 0.05
        return process if same and process.status() != psutil.STATUS_ZOMBIE else None
    except psutil.Error:
        return None


def _read(path: Path) -> list[dict[str, float]] | None:
    """The processes in an owner file; None when the directory is so young that its file is not written yet."""
    try:
        found = json.loads(path.read_text())["processes"]
    except FileNotFoundError:
        with contextlib.suppress(OSError):
            if time.time() - path.parent.stat().st_mtime > 60:
                return []
        return None
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return found if isinstance(found, list) else []
