"""The engine's probes as the runner uses them: run in a process of their own under a time limit, their records read with care.

A probe is a package that imports nothing of ours, so that the same files run inside a guest (`vmlab.host.kvm`). The form of its records,
and what these amount to, is in `vmlab.probes`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vmlab import process
from vmlab.deadline import Deadline
from vmlab.errors import RunError, UsageError
from vmlab.paths import cache_dir
from vmlab.probes import kvm
from vmlab.probes.kvm import KvmRecord
from vmlab.suggest import nearest

LIMIT_S = 15
"""How long the probe gives itself; a KVM of hardware needs less than a second, one of software one or two."""
PATIENCE_S = LIMIT_S + 4.0
"""How long we wait for it, should it hang where no signal reaches it."""


@dataclass(frozen=True)
class Probe:
    """A probe of the engine's: ``python3 -m NAME`` prints its record, in a directory that holds its package."""

    name: str
    package: Path
    here: Callable[[], dict[str, Any]]
    """Runs it on this machine and gives its record, ``judged``."""
    read: Callable[[bytes], dict[str, Any]]
    """The same of what it printed elsewhere."""

    def files(self) -> dict[str, Path]:
        """Its files by their names below that directory, for a copy elsewhere."""
        return {f"{self.name}/{path.name}": path for path in sorted(self.package.glob("*.py"))}

    def argv(self, limit_s: float) -> list[str]:
        """The command that runs it in a guest within ``limit_s``. Its own limit ends first, so that it can say how far it came."""
        return ["python3", "-m", self.name, "--limit", str(max(1, int(limit_s * 0.8)))]


KVM = Probe(
    "kvm",
    Path(__file__).with_name("kvm"),
    here=lambda: kvm.judged(run_probe()),
    read=lambda printed: kvm.judged(kvm.parse(printed)),
)
PROBES: Mapping[str, Probe] = {KVM.name: KVM}


def named(name: str) -> Probe:
    """The probe of this name. UsageError when there is none."""
    if name not in PROBES:
        raise UsageError(f"there is no probe named {name[:40]!r}{nearest(name, PROBES)}", hint=f"there is: {', '.join(PROBES)}")
    return PROBES[name]


def run_probe(device: str = "/dev/kvm", *, limit_s: int = LIMIT_S, patience_s: float = PATIENCE_S) -> KvmRecord:
    """Run the KVM probe now. Never raises: one that hangs, crashes or prints garbage gives a record whose ``error`` says so."""
    argv = [sys.executable, "-m", "vmlab.host.kvm", "--device", device, "--limit", str(limit_s)]
    try:
        # From the directory that holds the package, so that the child finds it however this process was started.
        printed = process.run(argv, deadline=Deadline(patience_s), cwd=KVM.package.parents[2]).stdout
    except RunError as exc:
        return kvm.failure(exc.message)
    return kvm.parse(printed)


def probe_once_a_boot(cache: Path | None = None) -> KvmRecord:
    """The KVM probe's record from the last time that this kernel was asked since it started with these modules, or else a new one.

    Only a record without an error is remembered: what went wrong may be over the next time.
    """
    place = (cache or cache_dir()) / "kvm-probe.json"
    key = _key()
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        kept = json.loads(place.read_text())
        record = kvm.read(kept["record"])
        if kept["key"] == key and record.error is None:
            return record
    record = run_probe()
    if record.error is None:
        with contextlib.suppress(OSError):
            _write(place, json.dumps({"key": key, "record": record.as_json()}))
    return record


def _key(root: Path = Path("/")) -> str:
    """What the answer depends on: this boot of this kernel, KVM's modules and their parameters, and the probe itself."""
    told = [*(root / "sys/module").glob("kvm*/parameters/*"), root / "proc/sys/kernel/random/boot_id", root / "proc/version"]
    seen = hashlib.sha256()
    for path in [*sorted(told), *KVM.files().values()]:
        with contextlib.suppress(OSError):
            seen.update(f"{path}\n".encode() + path.read_bytes() + b"\0")
    return seen.hexdigest()


def _write(place: Path, text: str) -> None:
    """Replace a file in one step: another runner may read it at this moment."""
    with tempfile.NamedTemporaryFile("w", dir=place.parent, delete=False) as draft:
        draft.write(text)
    Path(draft.name).replace(place)
