"""A shell in a lab's guest, for looking around and for debugging a lab: the system's own ssh client in the user's terminal."""

from __future__ import annotations

import contextlib
import dataclasses
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vmlab import process
from vmlab.bench import GUEST_LAB_DIR, START_LIMIT_S, Bench
from vmlab.deadline import Deadline
from vmlab.errors import UsageError
from vmlab.guest.machine import Machine
from vmlab.lab.lab import Lab
from vmlab.lab.work import task_of
from vmlab.progress import Progress
from vmlab.run.session import Choice, need_of, session


@dataclass(frozen=True)
class ShellGuest:
    """A guest that waits for a shell, with a private directory on this side for the client's files."""

    name: str
    machine: Machine
    directory: Path

    @property
    def user(self) -> str:
        """The ordinary user, who may become root."""
        return self.machine.request.image.default_user

    def shell(self, user: str) -> int:
        """Give the terminal to a shell in the guest; returns its exit status. Nothing of the user's own ssh configuration is read."""
        identity = self.machine.identity
        key = self.directory / "id_ed25519"
        key.touch(mode=0o600)
        key.write_text(identity.client.private)
        known = self.directory / "known_hosts"
        known.write_text(f"[127.0.0.1]:{self.machine.port} {' '.join(identity.host.public.split()[:2])}\n")
        argv = [
            process.require("ssh"),
            *("-F", "none", "-i", str(key), "-p", str(self.machine.port)),
            *("-o", f"UserKnownHostsFile={known}", "-o", "GlobalKnownHostsFile=/dev/null", "-o", "StrictHostKeyChecking=yes"),
            *("-o", "IdentitiesOnly=yes", "-o", "LogLevel=ERROR"),
            f"{user}@127.0.0.1",
        ]
        # The shell belongs to the user's terminal and its foreground process group, so it is not started through the gateway.
        return subprocess.call(argv, stdin=sys.stdin, stdout=sys.stdout, stderr=sys.stderr)


@contextlib.contextmanager
def shell_guest(lab: Lab, choice: Choice, progress: Progress, guest: str = "", task: str = "") -> Iterator[ShellGuest]:
    """A guest of the lab (by default its first) with the lab's scripts in it, or that of a ``task``, as it is when the task is tried.

    UsageError where there can be none.
    """
    wanted = task_of(lab, task) if task else None
    name = (wanted.guest if wanted else "") or guest or next(iter(lab.definition.guests))
    need = need_of(lab, name)
    if lab.definition.guests[name].emulator != "qemu":
        others = [other for other, each in lab.definition.guests.items() if each.emulator == "qemu"]
        raise UsageError(
            f"there is no shell in guest {name} of the lab {lab.name}: Bochs boots it for one script at a time, and nothing listens in it",
            hint=f"use --guest {' or '.join(others)}" if others else "run the lab instead",
        )
    process.require("ssh")
    with session(lab, choice, progress, need, "shell in") as here, here.guests:
        # (A shell lasts as long as its user likes; the limit is for the start.)
        bench = Bench(lab, dataclasses.replace(here, deadline=Deadline(START_LIMIT_S)), {})
        started = bench.guest(name)
        # Every login shell reads it (bash(1), "INVOCATION"), that of the batch `vmlab shell LAB <file` too. The guest is gone with it.
        if wanted and wanted.setup:
            with progress.phase(f"Setting up the task {task}"):
                started.script(wanted.setup)
        started.run(f"mkdir -p /etc/profile.d && echo 'export PYTHONPATH={GUEST_LAB_DIR}' >/etc/profile.d/vmlab.sh")
        yield ShellGuest(name, started.machine, here.work.path)
