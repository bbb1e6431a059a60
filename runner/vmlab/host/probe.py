"""The KVM probe as the runner uses it: run in a process of its own under a time limit, its record read with care, and remembered.

The measurements themselves are `vmlab.host.kvm`, which imports nothing of ours, so that the same files run inside a guest.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vmlab import process
from vmlab.deadline import Deadline
from vmlab.errors import RunError
from vmlab.host.kvm.judge import judge
from vmlab.paths import cache_dir

PACKAGE = Path(__file__).with_name("kvm")

LIMIT_S = 15
"""How long the probe gives itself; a KVM of hardware needs less than a second, one of software one or two."""
PATIENCE_S = LIMIT_S + 4.0
"""How long we wait for it, should it hang where no signal reaches it."""
RECORD_LIMIT_BYTES = 1 << 20

Record = dict[str, Any]


def run_probe(device: str = "/dev/kvm", *, limit_s: int = LIMIT_S, patience_s: float = PATIENCE_S) -> Record:
    """Run the probe now. Never raises: a probe that hangs, crashes or prints garbage gives a record whose ``error`` says so."""
    argv = [sys.executable, "-m", "vmlab.host.kvm", "--device", device, "--limit", str(limit_s)]
    try:
        # From the directory that holds the package, so that the child finds it however this process was started.
        printed = process.run(argv, deadline=Deadline(patience_s), cwd=PACKAGE.parents[2]).stdout
    except RunError as exc:
        return failure(exc.message)
    return parse(printed)


def parse(printed: bytes) -> Record:
    """The record that a probe printed; a failure's when it is not one JSON object. (`judge` looks at what is in it.)"""
    if len(printed) > RECORD_LIMIT_BYTES:
        return failure(f"it printed {len(printed)} bytes")
    try:
        record = json.loads(printed)
    except (ValueError, RecursionError):
        return failure("what it printed is not JSON")
    return record if isinstance(record, dict) else failure("what it printed is not an object")


def judged(record: Record) -> Record:
    """The record with what it amounts to beside it, under ``judged``: the fields of `vmlab.host.kvm.judge.Judgement`."""
    return {**record, "judged": asdict(judge(record))}


def failure(why: str) -> Record:
    """A record that says why there is none."""
    return {"format": 1, "claim": {}, "phases": {}, "error": {"step": "the probe", "errno": "", "text": why}}


def probe_once_a_boot(cache: Path | None = None) -> Record:
    """The record from the last time that this kernel was asked since it started with these modules, or else a new one.

    Only a record without an error is remembered: what went wrong may be over the next time.
    """
    place = (cache or cache_dir()) / "kvm-probe.json"
    key = _key()
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        kept = json.loads(place.read_text())
        if kept["key"] == key and isinstance(kept["record"], dict):
            return dict(kept["record"])
    record = run_probe()
    if record.get("error") is None:
        with contextlib.suppress(OSError):
            _write(place, json.dumps({"key": key, "record": record}))
    return record


def files() -> dict[str, Path]:
    """The probe's files by their names in a directory ``kvm``, for a copy elsewhere."""
    return {path.name: path for path in sorted(PACKAGE.glob("*.py"))}


def _key(root: Path = Path("/")) -> str:
    """What the answer depends on: this boot of this kernel, KVM's modules and their parameters, and the probe itself."""
    told = [*(root / "sys/module").glob("kvm*/parameters/*"), root / "proc/sys/kernel/random/boot_id", root / "proc/version"]
    seen = hashlib.sha256()
    for path in [*sorted(told), *files().values()]:
        with contextlib.suppress(OSError):
            seen.update(f"{path}\n".encode() + path.read_bytes() + b"\0")
    return seen.hexdigest()


def _write(place: Path, text: str) -> None:
    """Replace a file in one step: another runner may read it at this moment."""
    with tempfile.NamedTemporaryFile("w", dir=place.parent, delete=False) as draft:
        draft.write(text)
    Path(draft.name).replace(place)
