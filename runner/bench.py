"""What an experiment may touch: guests, the look at them from outside, and the record of what was observed.

This is the only bridge between the machine wing (`runner.guest`, `runner.host`) and the evidence wing (`runner.lab`,
`runner.report`). labs/README.md describes it for authors.
"""

from __future__ import annotations

import contextlib
import json
import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from runner.deadline import Deadline
from runner.errors import ScriptError, UnsuitableImage, UsageError
from runner.guest import start
from runner.guest.image import Image
from runner.guest.machine import BootRequest, Machine
from runner.guest.ssh import CommandResult, Conversation, parse_line
from runner.guest.templates import TemplateStore
from runner.guest.workdir import WorkDir
from runner.host import facts
from runner.lab.definition import GuestRequest, Lab
from runner.lab.evidence import canonical, digest
from runner.report.model import CloudInitPart, GuestPart, ObservationPart, PhasePart, StepPart

# Where the lab's guest/ folder lies in a guest: memory, gone with it, and writable under every init.
GUEST_LAB_DIR = "/run/vmlab/lab"

# No guest of ours boots slower than this even on a loaded machine under emulation; a start that takes longer hangs.
START_LIMIT_S = 400.0

# An observation is read by people and hashed; more than this is a raw log, which belongs in a file.
OBSERVATION_LIMIT_BYTES = 8 << 20


class Listener(Protocol):
    """Who is told what the bench is doing (the live view)."""

    def phase(self, title: str) -> None:
        """A phase begins, or (with the outer title) is gone back to."""

    def waiting(self, what: str) -> None:
        """What is being waited for within the phase; empty for nothing in particular."""


@dataclass(frozen=True)
class ScriptResult:
    """What a guest script printed: its JSON objects in order, and what it wrote to standard error."""

    script: str
    records: list[dict[str, Any]]
    stderr: str
    duration_s: float

    @property
    def record(self) -> dict[str, Any]:
        """The only object; ScriptError when there are more."""
        if len(self.records) != 1:
            raise ScriptError(f"{self.script} printed {len(self.records)} objects where one was expected")
        return self.records[0]


class Guest:
    """A running guest, as an experiment sees it. Commands and scripts run as root."""

    def __init__(self, name: str, running: Machine, lab: Lab, deadline: Deadline) -> None:
        self.name = name
        self.machine = running
        self._lab = lab
        self._deadline = deadline
        self._scripts_are_there = False

    def run(
        self,
        command: str,
        *,
        input: str | bytes | None = None,  # noqa: A002  (the name that subprocess.run taught everyone)
        time_limit_s: float = 60.0,
        output_limit_bytes: int = 1 << 20,
        check: bool = True,
    ) -> CommandResult:
        """Run a shell line. ScriptError when it fails (unless ``check`` is false), takes too long or prints too much."""
        stdin = input.encode() if isinstance(input, str) else input or b""
        with self.machine.attributing():
            result = self.machine.ssh.execute(
                command, stdin=stdin, deadline=self._deadline.within(time_limit_s), output_limit_bytes=output_limit_bytes
            )
        if check and result.status != 0:
            raise ScriptError(
                f"it failed in guest {self.name} with exit status {result.status}: {command[:120]}", detail=result.stderr[-2000:]
            )
        return result

    def script(
        self,
        name: str,
        *args: str | int | float,
        input: str | bytes | None = None,  # noqa: A002
        time_limit_s: float = 60.0,
        output_limit_bytes: int = 4 << 20,
    ) -> ScriptResult:
        """Run one of the lab's guest scripts to its end and read its JSON lines.

        Raises ScriptError when it crashes, hangs, prints nothing, too much, or anything but JSON objects.
        """
        result = self.run(
            self._command(name, args),
            input=input,
            time_limit_s=time_limit_s,
            output_limit_bytes=output_limit_bytes,
            check=False,
        )
        if result.status != 0:
            raise ScriptError(
                f"the guest script {name} failed with exit status {result.status}",
                hint=f"try it by hand: vmlab shell {self._lab.name}, then run it in {GUEST_LAB_DIR}",
                detail=result.stderr[-2000:],
            )
        records = [parse_line(line.encode(), name) for line in result.stdout.splitlines() if line.strip()]
        if not records:
            raise ScriptError(f"the guest script {name} printed nothing", detail=result.stderr[-2000:])
        return ScriptResult(name, records, result.stderr, result.duration_s)

    @contextlib.contextmanager
    def start(self, name: str, *args: str | int | float) -> Iterator[Conversation]:
        """Start one of the lab's guest scripts and talk to it while it runs."""
        with self.machine.attributing(), self.machine.ssh.start(self._command(name, args), deadline=self._deadline) as conversation:
            yield conversation

    def put(self, local: Path, remote: str) -> None:
        """Copy a file into the guest."""
        with self.machine.attributing():
            self.machine.ssh.put(local, remote)

    def get(self, remote: str, local: Path) -> None:
        """Copy a file out of the guest (64 MiB at most)."""
        with self.machine.attributing():
            self.machine.ssh.get(remote, local)

    def read_text(self, path: str) -> str:
        """The text of a file in the guest, 1 MiB at most."""
        return self.run(f"cat -- {shlex.quote(path)}").stdout

    def outside(self) -> dict[str, Any]:
        """The host's look at this guest: ``status``, ``resident_bytes``, ``cpu_s``, ``panicked``."""
        return self.machine.outside(self._deadline.within(10))

    def console(self) -> str:
        """What the guest's serial console has printed, the last MiB of it."""
        return self.machine.console.text()

    def wait_for_console(self, pattern: str, time_limit_s: float = 10.0) -> str | None:
        """The first console line that matches the regular expression and came since the last call; None when none came in time."""
        return self.machine.console.wait_for(pattern, min(time_limit_s, self._deadline.left_s()))

    def _command(self, name: str, args: tuple[str | int | float, ...]) -> str:
        self.put_scripts()
        if name not in self._scripts():
            raise UsageError(f"the lab {self._lab.name} has no guest script named {name}", hint="scripts lie in the lab's guest/ folder")
        interpreter = {".py": "python3 -u ", ".sh": "sh "}.get(Path(name).suffix, "")
        words = " ".join(shlex.quote(str(word)) for word in (f"./{name}", *args))
        return f"cd {GUEST_LAB_DIR} && exec {interpreter}{words}"

    def put_scripts(self) -> None:
        """Copy the lab's guest/ folder into the guest, once."""
        if self._scripts_are_there:
            return
        with self.machine.attributing():
            self.machine.ssh.put_tree(self._scripts(), GUEST_LAB_DIR)
        self._scripts_are_there = True

    def _scripts(self) -> dict[str, Path]:
        home = self._lab.directory / "guest"
        return {path.relative_to(home).as_posix(): path for path in self._lab.guest_files()}

    def part(self) -> GuestPart:
        """This guest for the report."""
        request, system = self.machine.request, self.machine.system
        status = self.machine.cloud_init
        return GuestPart(
            name=self.name,
            image=request.image.name,
            image_sha256=request.image.digest,
            memory_bytes=request.memory_mib << 20,
            cpus=request.cpus,
            init=request.init,
            argv=self.machine.argv,
            kernel=system.kernel,
            os=system.os,
            boot_id=system.boot_id,
            start="clone" if self.machine.template else "cold",
            template=self.machine.template,
            fallback=self.machine.fallback,
            clock_error_s=self.machine.clock_error_s,
            steps=[StepPart(name=step.name, at_s=step.at_s) for step in self.machine.reached],
            cloud_init=CloudInitPart(status=status.status, exit_code=status.exit_code, detail=status.detail) if status else None,
        )


def boot_request(name: str, wanted: GuestRequest, image: Image, accelerator: Literal["kvm", "tcg"]) -> BootRequest:
    """What lab.yaml asks for, as the machine wing understands it."""
    return BootRequest(
        name=name,
        image=image,
        accelerator=accelerator,
        memory_mib=wanted.memory_mib,
        cpus=wanted.cpus,
        init=wanted.init,
        kernel_args=wanted.kernel_args,
        internet=wanted.internet,
        cloud_init=wanted.cloud_init,
        firmware=facts.uefi_firmware() if image.kernel is None and image.firmware == "uefi" else None,
    )


def _require(guest: Guest, needs: Sequence[str], image: Image) -> None:
    """UnsuitableImage unless the guest has all these programs."""
    if not needs:
        return
    looked = guest.machine.ssh.execute(
        f"for program in {' '.join(needs)}; do command -v $program >/dev/null || echo $program; done", deadline=Deadline(60)
    )
    missing = looked.stdout.split()
    if missing:
        raise UnsuitableImage(
            f"the image {image.name} has no {' and no '.join(missing)}, which the lab needs", hint="choose another image with --image"
        )


@dataclass
class Notebook:
    """What a run has written down so far; it outlives an experiment that broke."""

    started: float = field(default_factory=time.monotonic)
    observations: list[ObservationPart] = field(default_factory=list)
    phases: list[PhasePart] = field(default_factory=list)
    guests: list[GuestPart] = field(default_factory=list)
    current: list[str] = field(default_factory=list)
    broke_in: str = ""
    unsuitable: str = ""
    """Why nothing could be shown with this image; empty when it could."""

    def now_s(self) -> float:
        """Seconds since the run's start."""
        return round(time.monotonic() - self.started, 3)

    def data(self) -> dict[str, Any]:
        """The observations by name."""
        return {each.name: each.data for each in self.observations}

    @contextlib.contextmanager
    def phase(self, title: str, listener: Listener) -> Iterator[None]:
        """Time a stretch of the run; the innermost one that an error passes through is where the run broke."""
        start, depth = self.now_s(), len(self.current)
        self.current.append(title)
        listener.phase(title)
        try:
            yield
        except BaseException:
            self.broke_in = self.broke_in or title
            raise
        finally:
            self.current.pop()
            self.phases.append(PhasePart(name=title, start_s=start, end_s=self.now_s(), depth=depth))
            listener.waiting("")
            if self.current:
                listener.phase(self.current[-1])


class Bench:
    """What an experiment is given. The stack that it was made with ends its guests. Without ``templates`` every guest is booted."""

    def __init__(
        self,
        lab: Lab,
        *,
        parameters: Mapping[str, int | float | str | bool],
        images: Mapping[str, Image],
        accelerator: Literal["kvm", "tcg"],
        work: WorkDir,
        logs: Path,
        deadline: Deadline,
        notebook: Notebook,
        listener: Listener,
        recorded: Callable[[], None],
        stack: contextlib.ExitStack,
        templates: TemplateStore | None = None,
    ) -> None:
        self.parameters = parameters
        self._lab = lab
        self._images = images
        self._accelerator = accelerator
        self._work = work
        self._logs = logs
        self._deadline = deadline
        self._notebook = notebook
        self._listener = listener
        self._recorded = recorded
        self._stack = stack
        self._templates = templates
        self._guests: dict[str, Guest] = {}

    def guest(self, name: str = "main") -> Guest:
        """The guest that lab.yaml declares under this name: started at the first call, ended with the run."""
        if name not in self._guests:
            requests = self._lab.definition.guests
            if name not in requests:
                raise UsageError(f"lab.yaml of {self._lab.name} declares no guest named {name!r}", hint=f"it has: {', '.join(requests)}")
            self._guests[name] = self._start(name, requests[name])
        return self._guests[name]

    def _start(self, name: str, wanted: GuestRequest) -> Guest:
        templates = self._templates if wanted.start == "clone" else None
        with self.phase(f"{'Booting' if templates is None else 'Cloning'} guest {name}"):
            # Registered before the guest, so that it runs after the guest's end.
            self._stack.callback(self._note_end, name)
            running = start.start(
                self._stack,
                boot_request(name, wanted, self._images[name], self._accelerator),
                self._work,
                templates=templates,
                console_log=self._logs / ("console.log" if name == "main" else f"console-{name}.log"),
                deadline=self._deadline.within(START_LIMIT_S),
                waiting=self._listener.waiting,
                phase=self.phase,
            )
            guest = Guest(name, running, self._lab, self._deadline)
            self._notebook.guests.append(guest.part())
            _require(guest, wanted.needs, self._images[name])
            guest.put_scripts()
            self._listener.waiting("")
        return guest

    def _note_end(self, name: str) -> None:
        """Write down how a guest was ended (not one that never became ready: then the run's error says all)."""
        for part in self._notebook.guests:
            if part.name == name and name in self._guests:
                part.ended = self._guests[name].machine.ended_how

    def phase(self, title: str) -> contextlib.AbstractContextManager[None]:
        """Name what is going on: shown while it lasts, and timed in the report."""
        return self._notebook.phase(title, self._listener)

    def record(self, name: str, data: Mapping[str, Any]) -> None:
        """Write down one observation under a name that is used once. ScriptError when it is not JSON or too large."""
        if any(each.name == name for each in self._notebook.observations):
            raise UsageError(f"the experiment recorded {name!r} twice", hint="give each observation a name of its own")
        try:
            encoded = canonical(dict(data))
        except (TypeError, ValueError, RecursionError) as exc:
            raise ScriptError(f"the observation {name} is not plain JSON: {exc}") from exc
        if len(encoded) > OBSERVATION_LIMIT_BYTES:
            raise ScriptError(f"the observation {name} has {len(encoded)} bytes; {OBSERVATION_LIMIT_BYTES} are allowed")
        # What is kept is what was hashed: a later change of the caller's object must not reach the evidence.
        kept = json.loads(encoded)
        self._notebook.observations.append(ObservationPart(name=name, at_s=self._notebook.now_s(), sha256=digest(kept), data=kept))
        self._recorded()

    def wait(self, seconds: float, why: str) -> None:
        """Let time pass; the live view says why."""
        self._listener.waiting(why)
        end = self._deadline.within(seconds)
        while not end.expired():
            for guest in self._guests.values():
                guest.machine.check_alive()
            time.sleep(min(0.2, end.left_s()))
        self._listener.waiting("")
