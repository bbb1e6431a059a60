"""The one gateway for child processes.

Standard input is closed unless it is given, the command is logged as a shell line, the child is always waited for, and every child
dies with this process: ``setpriv --pdeathsig KILL`` asks the kernel (prctl(2), PR_SET_PDEATHSIG) to kill it when its parent ends, even
when the parent was ended by SIGKILL. The kernel sends that signal when the *thread* that forked ends, so all children are forked by
one thread that lives as long as the process.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import shlex
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO

from vmlab.deadline import Deadline
from vmlab.errors import HostError, RunError
from vmlab.packages import package_of, which

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Completed:
    """What a finished command left: exit status and its two streams as bytes."""

    argv: tuple[str, ...]
    status: int
    stdout: bytes
    stderr: bytes


class CommandError(RunError):
    """A host command failed or ran out of time; ``detail`` holds the end of what it printed."""


@cache
def _forker() -> ThreadPoolExecutor:
    """The thread that forks every child and lives as long as the process (see the module's text)."""
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix="vmlab-forker")


def require(program: str) -> str:
    """The path of ``program``; HostError with the command that installs it when this machine has none."""
    path = which(program)
    if path is None:
        raise HostError(f"{program} is not installed", hint=f"sudo apt-get install {package_of(program)}")
    return path


def spawn(
    argv: Sequence[str],
    *,
    stdin: int | IO[bytes] = subprocess.DEVNULL,
    stdout: int | IO[bytes] = subprocess.DEVNULL,
    stderr: int | IO[bytes] = subprocess.DEVNULL,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    pass_fds: Sequence[int] = (),
    huge_pages: bool = True,
) -> subprocess.Popen[bytes]:
    """Start a child in its own process group that dies with this process, and return at once.

    ``env`` adds to the current environment. Without ``huge_pages`` the kernel gives the child pages of the base size only, even where
    transparent huge pages are on for all (prctl(2), PR_SET_THP_DISABLE). Raises HostError when the program is missing.
    """
    full = [require("setpriv"), "--pdeathsig", "KILL", "--", require(argv[0]), *argv[1:]]
    log.debug("run: %s", shlex.join(argv))

    def fork() -> subprocess.Popen[bytes]:
        with contextlib.nullcontext() if huge_pages else _without_huge_pages():
            return subprocess.Popen(
                full,
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                cwd=cwd,
                env={**os.environ, **env} if env else None,
                pass_fds=tuple(pass_fds),
                # A process group of its own keeps the terminal's Ctrl-C from reaching it: we end our children ourselves, in order.
                process_group=0,
            )

    return _forker().submit(fork).result()


@contextlib.contextmanager
def _without_huge_pages() -> Iterator[None]:
    """Children forked in this block inherit the wish for small pages, through their exec too; this process has it only meanwhile."""
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    set_thp_disable = 41  # PR_SET_THP_DISABLE, linux/prctl.h
    if prctl(set_thp_disable, 1, 0, 0, 0) != 0:
        raise HostError(f"huge pages cannot be switched off for a child: {os.strerror(ctypes.get_errno())}")
    try:
        yield
    finally:
        prctl(set_thp_disable, 0, 0, 0, 0)


def stop(child: subprocess.Popen[bytes], *, grace_s: float = 5.0) -> int:
    """End a child's process group: SIGTERM, then SIGKILL after ``grace_s``; always reaped. Returns its exit status."""
    for sig, patience_s in ((signal.SIGTERM, grace_s), (signal.SIGKILL, 30.0)):
        if child.poll() is not None:
            break
        try:
            os.killpg(child.pid, sig)
        except ProcessLookupError:
            break
        try:
            child.wait(patience_s)
        except subprocess.TimeoutExpired:
            continue
    return child.wait()


def run(
    argv: Sequence[str],
    *,
    deadline: Deadline,
    input: bytes | None = None,  # noqa: A002  (the name that subprocess.run taught everyone)
    stdout: IO[bytes] | None = None,
    stderr: IO[bytes] | None = None,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    check: bool = True,
) -> Completed:
    """Run a command to its end and return what it printed.

    A stream given as a file receives the output instead (a build log, say). Raises CommandError when it fails (unless ``check`` is
    false) or when the deadline passes, HostError when the program is missing. The child never outlives this call.
    """
    child = spawn(
        argv,
        stdin=subprocess.DEVNULL if input is None else subprocess.PIPE,
        stdout=stdout or subprocess.PIPE,
        stderr=stderr or subprocess.PIPE,
        cwd=cwd,
        env=env,
    )
    try:
        out, err = child.communicate(input, timeout=min(deadline.left_s(), 1e6))
    except subprocess.TimeoutExpired as exc:
        raise CommandError(
            f"{argv[0]} did not finish within {deadline.budget_s:.0f} s",
            hint="is the machine very busy? try again, or set a longer limit",
        ) from exc
    finally:
        stop(child)
    done = Completed(tuple(argv), child.returncode, out or b"", err or b"")
    if check and done.status != 0:
        tail = (done.stderr or done.stdout).decode(errors="replace")[-4000:]
        raise CommandError(f"{argv[0]} failed with exit status {done.status}: {_last_line(tail)}", detail=tail)
    return done


def _last_line(text: str) -> str:
    lines = [line for line in text.strip().splitlines() if line.strip()]
    return lines[-1].strip() if lines else "(it printed nothing)"
