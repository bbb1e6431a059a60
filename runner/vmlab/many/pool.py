"""Jobs in processes of their own on this machine, and what they say while they run.

The processes are forked from one that has imported all that a run needs and has no threads (multiprocessing's forkserver), so that a
lab costs no second start of Python. Each hears of its parent's end, however that came, by the end of their pipe, and then ends its
guests as if it had been interrupted.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerProcess
from typing import NoReturn, Protocol

from vmlab.errors import EXIT_COULD_NOT_RUN
from vmlab.many.job import Result, perform
from vmlab.progress import Event, Kind, Progress, Relay
from vmlab.report.batch import Trouble
from vmlab.run.request import Job

# An interrupted run ends its guests within seconds; one that does not is ended with them.
_GRACE_S = 30.0


@dataclass(frozen=True)
class Said:
    """What a job says: that something happened in it, or (once, at its end) what came of it."""

    job: str
    what: Event | Result


class Workers(Protocol):
    """Where jobs run: processes here, or a cluster."""

    room: int
    """How many jobs to hand over at once."""

    def start(self, job: Job) -> None:
        """Begin a job."""

    def said(self, patience_s: float) -> Iterator[Said]:
        """What the jobs have said since the last call, after at most so many seconds."""

    def stop(self, job: str) -> None:
        """End a job at once; it says its result all the same, unless it never began."""

    def close(self) -> None:
        """End all that still run, and wait until nothing of them is left."""


class ProcessPool:
    """A process a job."""

    def __init__(self, room: int) -> None:
        self.room = room
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["vmlab.many.preload"])
        self._running: dict[str, tuple[ForkServerProcess, Connection]] = {}

    def start(self, job: Job) -> None:
        """Begin a job in a process of its own."""
        ours, theirs = self._context.Pipe()
        log_level = logging.getLogger().level
        process = self._context.Process(target=_child, args=(job, theirs, log_level), name=f"vmlab-{job.id}", daemon=True)
        process.start()
        theirs.close()
        self._running[job.id] = (process, ours)

    def said(self, patience_s: float) -> Iterator[Said]:
        """What the processes say. The end of one that said nothing about it is an error of the job."""
        pipes = {connection: name for name, (_, connection) in self._running.items()}
        for ready in wait(list(pipes), patience_s):
            assert isinstance(ready, Connection)
            job = pipes[ready]
            try:
                what = ready.recv()
            except (EOFError, OSError):
                what = Result(trouble=self._died(job))
            if isinstance(what, Result):
                self._forget(job)
            yield Said(job, what)

    def stop(self, job: str) -> None:
        """Interrupt the job; its process ends its guests first."""
        process, _ = self._running[job]
        process.terminate()

    def close(self) -> None:
        """Interrupt all, and wait."""
        for process, _ in self._running.values():
            process.terminate()
        for name in list(self._running):
            self._forget(name)

    def _forget(self, job: str) -> None:
        process, connection = self._running.pop(job)
        process.join(_GRACE_S)
        if process.is_alive():
            process.kill()
            process.join()
        connection.close()

    def _died(self, job: str) -> Trouble:
        process, _ = self._running[job]
        process.join(_GRACE_S)
        status = process.exitcode
        how = f"was ended by signal {-status}" if status is not None and status < 0 else f"ended with status {status}"
        return Trouble(
            kind="RunnerDied",
            message=f"the process that ran it {how}, without a word",
            hint="was the machine out of memory? `dmesg` would tell; try it alone: vmlab run LAB",
            exit_code=EXIT_COULD_NOT_RUN,
        )


class _Pipe:
    """Sends what happens in a job to the parent, from any thread, one at a time."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._lock = threading.Lock()

    def send(self, what: Event | Result) -> None:
        """Whoever does not listen any more hears nothing: that must not end the run."""
        with self._lock, contextlib.suppress(OSError):
            self._connection.send(what)

    def __call__(self, event: Event) -> None:
        """Send an event. How it began the parent knows, and of the end it is told by the result."""
        if event.kind not in (Kind.BEGIN, Kind.END):
            self.send(event)


def _child(job: Job, connection: Connection, log_level: int) -> None:
    """The life of a job's process."""
    # The terminal's Ctrl-C reaches all processes at once: what is to be done about it, the parent decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _interrupt)
    # What goes wrong is in the report, and standard error is where the parent draws its table.
    logging.basicConfig(level=log_level if log_level < logging.WARNING else logging.CRITICAL + 1)
    threading.Thread(target=_end_with, args=(connection,), daemon=True).start()
    pipe = _Pipe(connection)
    relay = Relay(pipe)
    with contextlib.suppress(KeyboardInterrupt):
        result = perform(job, Progress(relay))
        relay.close()
        pipe.send(result)


def _end_with(parent: Connection) -> None:
    """Interrupt this process when its parent has gone: the parent sends nothing, so that the only thing to read is the end."""
    with contextlib.suppress(EOFError, OSError):
        parent.recv()
    os.kill(os.getpid(), signal.SIGTERM)


def _interrupt(_number: int, _frame: object) -> NoReturn:
    raise KeyboardInterrupt
