"""A guest that Bochs emulates, as an experiment sees it: there is no way into it, and each script is a boot of its own."""

from __future__ import annotations

import contextlib
import shlex
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Unpack

from vmlab.bench.guest import GUEST_LAB_DIR, GUEST_PROBE_DIR, SCRIPT_OUTPUT_BYTES, Guest, Limits, ScriptResult, script_result
from vmlab.bench.session import Session
from vmlab.errors import ScriptError, UsageError
from vmlab.guest import start
from vmlab.guest.command import CommandResult
from vmlab.guest.intel import bochs
from vmlab.guest.intel.appliance import ApplianceStore, Job
from vmlab.guest.intel.bochs import EmulatedPc
from vmlab.guest.machine import BootRequest, Machine
from vmlab.host import probe
from vmlab.lab import library
from vmlab.lab.lab import Lab
from vmlab.report.model import GuestPart

# A boot takes a minute and a half on a quiet machine.
EMULATED_LIMIT_S = 600.0


class EmulatedGuest(Guest):
    """A guest that Bochs emulates. It can run the lab's Python scripts and the engine's probes; all else is refused with a UsageError."""

    def __init__(self, request: BootRequest, pc: EmulatedPc, lab: Lab, here: Session) -> None:
        super().__init__(request.name, None, lab, here.deadline)
        self._pc = pc
        self._here = here
        self._console_log = here.logs / f"console-{request.name}.log"
        self._part = GuestPart(
            name=request.name,
            image=request.image.name,
            image_sha256=request.image.digest,
            memory_bytes=request.memory_mib << 20,
            cpus=request.cpus,
            init="the script alone",
            accelerator=self.accelerator,
            virtualisation=pc.in_words,
            argv=[],
            os=f"a small Linux made of {request.image.name}",
            start="cold",
        )

    @property
    def accelerator(self) -> str:
        """What runs its instructions."""
        return f"Bochs {self._pc.bochs.version}"

    def check_alive(self) -> None:
        """Nothing of it runs between two scripts."""

    def script(
        self,
        name: str,
        *args: str | int | float,
        **limits: Unpack[Limits],
    ) -> ScriptResult:
        """Boot to one of the lab's guest scripts, in Python, and read its JSON lines; by default it may take `EMULATED_LIMIT_S`.

        Raises what it does in any guest, and what a boot does.
        """
        if limits.get("user"):
            raise UsageError(f"there is nobody but root in guest {self.name}, which Bochs emulates", hint="leave user out")
        words = self._words(name, args)
        if words[0] != "python3":
            raise UsageError(f"{name} cannot be run in guest {self.name}, which Bochs emulates", hint="there is no shell in it: use Python")
        given, most_bytes = limits.get("input"), limits.get("output_limit_bytes", SCRIPT_OUTPUT_BYTES)
        stdin = given.encode() if isinstance(given, str) else given or b""
        result = self._boot(name, Job(words, GUEST_LAB_DIR, self._files(), stdin), limits.get("time_limit_s", EMULATED_LIMIT_S))
        if len(result.stdout) > most_bytes:
            raise ScriptError(f"the guest script {name} printed more than {most_bytes} bytes")
        return script_result(name, result, hint=f"{self._console_log.name} has all that the emulated machine said")

    def probe(self, name: str, *, time_limit_s: float = EMULATED_LIMIT_S) -> dict[str, Any]:
        """Boot to one of the engine's probes: its record, ``judged``."""
        wanted = probe.named(name)
        result = self._boot(f"the {name} probe", Job(wanted.argv(time_limit_s), GUEST_PROBE_DIR, self._files()), time_limit_s)
        if result.status != 0:
            raise ScriptError(
                f"the {name} probe failed in guest {self.name} with exit status {result.status}", detail=result.stderr[-2000:]
            )
        return wanted.read(result.stdout.encode())

    def console(self) -> str:
        """What its serial console printed at its last boot."""
        return self._console_log.read_text(errors="replace") if self._console_log.exists() else ""

    def put_scripts(self) -> None:
        """They are there at each boot."""

    def part(self) -> GuestPart:
        """This guest for the report."""
        return self._part

    def _boot(self, what: str, job: Job, time_limit_s: float) -> CommandResult:
        here, began = self._here, time.monotonic()
        setting = here.setting(self._console_log.name, time_limit_s)
        with here.progress.phase(f"Booting guest {self.name}, emulated by Bochs, to {what}"):
            said, command = self._pc.run(job, setting)
        part = self._part
        part.argv, part.kernel, part.boot_id, part.ended = command, said.kernel, said.boot_id, "killed"
        return CommandResult(shlex.join(job.argv), said.status, said.stdout, said.stderr, time.monotonic() - began)

    def _files(self) -> Mapping[str, Path]:
        """The lab's scripts with the library, and the engine's probes, where they lie in every guest."""
        scripts = {f"{GUEST_LAB_DIR}/{name}": path for name, path in (self._scripts() | library.files()).items()}
        return scripts | {f"{GUEST_PROBE_DIR}/{name}": path for each in probe.PROBES.values() for name, path in each.files().items()}


def emulate(request: BootRequest, lab: Lab, here: Session) -> EmulatedGuest:
    """Make ready what Bochs will boot. The guest that packs it, where there is none yet, is this request's, and gone before the first boot.

    So it takes no more of the machine than the slot has for this guest. Raises HostError without Bochs, and what a guest's start raises.
    """
    emulator = bochs.find()
    with here.progress.phase(f"Preparing the small Linux of guest {request.name}"):
        made = ApplianceStore(here.progress).get(request.image, lambda: _packer(request, here), here.deadline)
    return EmulatedGuest(request, EmulatedPc(emulator, made, request.memory_mib), lab, here)


@contextlib.contextmanager
def _packer(request: BootRequest, here: Session) -> Iterator[Machine]:
    """An ordinary guest of this request, which no experiment has touched. (A template of it would be used once.)"""
    with contextlib.ExitStack() as stack:
        yield start.start(stack, request, here.setting(f"console-{request.name}-packer.log", start.START_LIMIT_S), None)
