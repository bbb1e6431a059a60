"""A shell in a lab's guest, for looking around and for debugging a lab: the system's own ssh client in the user's terminal."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path
from typing import Literal

from vmlab import process
from vmlab.bench import GUEST_LAB_DIR, START_LIMIT_S, Bench, Notebook
from vmlab.deadline import Deadline
from vmlab.errors import UsageError
from vmlab.guest.clone.store import TemplateStore
from vmlab.guest.machine import Machine
from vmlab.guest.workdir import work_dir
from vmlab.host import accelerator, facts
from vmlab.host.capacity import Need, check_fits
from vmlab.image.store import ImageStore
from vmlab.lab.definition import Lab
from vmlab.run.lab import image_for, share_of, take_slot
from vmlab.run.live import View


def open_shell(
    lab: Lab,
    images: ImageStore,
    view: View,
    *,
    guest_name: str,
    wanted_accelerator: Literal["auto", "kvm", "tcg"],
    image: str | None,
    root: bool,
    cold: bool = False,
) -> int:
    """Start the guest, put the lab's scripts into it, and give the terminal to a shell there. Returns the shell's exit status."""
    requests = lab.definition.guests
    name = guest_name or next(iter(requests))
    if name not in requests:
        raise UsageError(f"the lab {lab.name} has no guest named {name!r}", hint=f"it has: {', '.join(requests)}")
    facts.require_qemu()
    process.require("ssh")
    chosen = accelerator.choose(wanted_accelerator)
    need = Need({name: share_of(requests[name])})
    check_fits(need, f"guest {name} of the lab {lab.name}")
    view.begin(f"{lab.definition.title}: guest {name}", [f"accelerator {chosen.sentence}"])
    notebook = Notebook()
    with contextlib.ExitStack() as stack:
        ready = image_for(lab, name, images, image, notebook, view)
        take_slot(stack, need, f"shell in {lab.name}", notebook, view)
        work = stack.enter_context(work_dir())
        bench = Bench(
            lab,
            parameters={},
            images={name: ready},
            accelerator=chosen.name,
            work=work,
            logs=work.path,
            deadline=Deadline(START_LIMIT_S),
            notebook=notebook,
            listener=view,
            recorded=lambda: None,
            stack=stack,
            templates=None if cold else TemplateStore(view.notice),
        )
        running = bench.guest(name).machine
        view.close()
        user = "root" if root else running.request.image.default_user
        print(f"{user}@{name}: the lab's scripts are in {GUEST_LAB_DIR}; the guest is gone when you leave (exit).", flush=True)
        return _ssh(running, user, work.path)


def _ssh(running: Machine, user: str, directory: Path) -> int:
    """Run the ssh client with the guest's own keys and nothing of the user's configuration."""
    identity = running.identity
    key = directory / "id_ed25519"
    key.touch(mode=0o600)
    key.write_text(identity.client.private)
    known = directory / "known_hosts"
    known.write_text(f"[127.0.0.1]:{running.port} {' '.join(identity.host.public.split()[:2])}\n")
    argv = [
        process.require("ssh"),
        *("-F", "none", "-i", str(key), "-p", str(running.port)),
        *("-o", f"UserKnownHostsFile={known}", "-o", "GlobalKnownHostsFile=/dev/null", "-o", "StrictHostKeyChecking=yes"),
        *("-o", "IdentitiesOnly=yes", "-o", "LogLevel=ERROR"),
        f"{user}@127.0.0.1",
    ]
    # The shell belongs to the user's terminal and its foreground process group, so it is not started through the gateway.
    return subprocess.call(argv, stdin=sys.stdin, stdout=sys.stdout, stderr=sys.stderr)
