"""A student's files in a guest: put where the lab's scripts find them, and looked at whether they can be started at all."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from vmlab.bench.guest import GUEST_LAB_DIR, Guest, script_result
from vmlab.lab.task import Task
from vmlab.lab.work import Attempt

# Where `vmlab_guest.student` looks for them. Root alone may read it: what a program gets of its own files are copies.
GUEST_ATTEMPT_DIR = f"{GUEST_LAB_DIR}/attempt"

# Compiling takes milliseconds (tcc) to a second (the guest's Python, emulated); a hostile source may make it last.
_BUILD_LIMIT_S = 60.0


def put(guest: Guest, attempt: Attempt, task: Task) -> None:
    """Write the student's files into the guest, with what the task allows them."""
    guest.run(f"install -d -m 700 {GUEST_ATTEMPT_DIR} {GUEST_ATTEMPT_DIR}/files")
    for name, text in attempt.files.items():
        guest.write_text(f"{GUEST_ATTEMPT_DIR}/files/{name}", text, mode=0o600)
    told = {"task": attempt.task, "program": attempt.program, "as_root": task.as_root, "limits": task.limits.model_dump()}
    guest.write_text(f"{GUEST_ATTEMPT_DIR}/attempt.json", json.dumps(told), mode=0o600)


def build(guest: Guest) -> dict[str, Any]:
    """Whether the program can be started: what the guest's interpreter or compiler says (`vmlab_guest.student.build`)."""
    script = "from vmlab_guest.say import say; from vmlab_guest.student import build; say(build())"
    result = guest.run(f'cd {GUEST_LAB_DIR} && python3 -c "{script}"', check=False, time_limit_s=_BUILD_LIMIT_S)
    return script_result(
        "vmlab_guest/student.py", result, hint="this is a fault of vmlab's or of the guest; its last words are below"
    ).record


def described(attempt: Attempt) -> dict[str, Any]:
    """The student's files by name, with their digests, for the evidence."""
    return {
        "program": attempt.program,
        "files": {name: hashlib.sha256(text.encode()).hexdigest() for name, text in attempt.files.items()},
    }
