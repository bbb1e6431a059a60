"""The bench: guests by name, phases, and the record of what was observed."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, Required, TypedDict, TypeVar, Unpack

import jinja2

from vmlab import process
from vmlab.bench import quietest as quiet
from vmlab.bench.emulated import emulate
from vmlab.bench.guest import Guest, scripts_name
from vmlab.bench.noise import NoiseMeter
from vmlab.bench.power import Supply
from vmlab.bench.request import boot_request
from vmlab.bench.session import Session
from vmlab.deadline import Deadline
from vmlab.errors import ScriptError, UnsuitableImage, UsageError
from vmlab.guest import frozen, network, processor, seed, start
from vmlab.guest.conversation import parse_line
from vmlab.guest.network import Network
from vmlab.host import probe
from vmlab.image.image import Image
from vmlab.lab.guests import GuestRequest
from vmlab.lab.lab import Lab
from vmlab.lab.work import Attempt
from vmlab.paths import guest_library
from vmlab.process import CommandError
from vmlab.yamlfile import load

Made = TypeVar("Made")


def _require(guest: Guest, needs: Sequence[str], image: Image, deadline: Deadline) -> None:
    """UnsuitableImage unless the guest has all these programs."""
    if not needs:
        return
    looked = guest.machine.ssh.execute(
        f"for program in {' '.join(needs)}; do command -v $program >/dev/null || echo $program; done", deadline=deadline.within(60)
    )
    missing = looked.stdout.split()
    if missing:
        raise UnsuitableImage(
            f"the image {image.name} has no {' and no '.join(missing)}, which the lab needs", hint="choose another image with --image"
        )


def _with_library() -> dict[str, str]:
    """Where a Python of this machine finds the library for guest scripts."""
    return {"PYTHONPATH": os.pathsep.join([str(guest_library().parent), *filter(None, [os.environ.get("PYTHONPATH")])])}


class Differs(TypedDict, total=False):
    """How a cold boot differs from the guest whose disk it boots: without kernel arguments unless some are given, with as many CPUs."""

    init: Required[Literal["systemd", "sysv"]]
    kernel_args: str
    cpus: int


class Bench:
    """What an experiment is given: a lab's guests on this machine, and the record of what it observes."""

    def __init__(self, lab: Lab, here: Session, parameters: Mapping[str, int | float | str | bool], attempt: Attempt | None = None) -> None:
        self.parameters = parameters
        self._attempt = attempt
        self._lab = lab
        self._here = here
        self._guests: dict[str, Guest] = {}
        self._made: dict[Callable[[Bench], Any], Any] = {}
        self._networks: dict[str, Network] = {}

    def once(self, make: Callable[[Bench], Made]) -> Made:
        """What a function of the experiment makes of this bench, made at the first call: for what several parts need, whichever are run."""
        if make not in self._made:
            self._made[make] = make(self)
        made: Made = self._made[make]
        return made

    @property
    def attempt(self) -> Attempt:
        """The student's files for the task that is tried. UsageError in an experiment, which has none."""
        if self._attempt is None:
            raise UsageError("an experiment has no student's files", hint="a function marked with @task in experiment_tasks.py has them")
        return self._attempt

    @property
    def _task(self) -> str:
        """The task that is tried; empty in an experiment."""
        return self._attempt.task if self._attempt else ""

    @property
    def accelerator(self) -> Literal["kvm", "tcg"]:
        """What runs the guests of this run (but for those that lab.yaml has emulated: ``virtualisation``, ``accelerator``)."""
        return self._here.accelerator.name

    def guest(self, name: str = "main", *, cloud_init: Mapping[str, Any] | None = None) -> Guest:
        """The guest that lab.yaml declares under this name: started at the first call, ended with the run.

        ``cloud_init`` is merged into what lab.yaml says of it, for what only the run knows; it counts at the first call.
        """
        if name not in self._guests:
            requests = self._lab.definition.guests
            if name not in requests:
                raise UsageError(f"lab.yaml of {self._lab.name} declares no guest named {name!r}", hint=f"it has: {', '.join(requests)}")
            wanted = requests[name]
            if name not in self._here.images:
                needed = " and ".join(f"{parameter}={'|'.join(values)}" for parameter, values in wanted.when.items())
                raise UsageError(f"guest {name} is for runs with {needed}", hint="see its `when` in lab.yaml")
            if cloud_init and wanted.emulator != "qemu":
                raise UsageError(f"guest {name} is emulated by Bochs, and there is no cloud-init in it", hint="leave cloud_init out")
            if cloud_init:
                wanted = wanted.model_copy(update={"cloud_init": seed.merge(wanted.cloud_init, cloud_init)})
            self._guests[name] = self._start(name, wanted) if wanted.emulator == "qemu" else self._emulate(name, wanted)
        return self._guests[name]

    def _start(self, name: str, wanted: GuestRequest) -> Guest:
        here = self._here
        templates = here.templates if wanted.start == "clone" else None
        with self.phase(f"{'Booting' if templates is None else 'Cloning'} guest {name}"):
            # Registered before the guest, so that it runs after the guest's end.
            here.guests.callback(self._note_end, name)
            request = boot_request(self._lab, name, wanted, here.images[name], self.accelerator)
            processor.require(request.processor, request.accelerator, here.deadline)
            networks = {each.network: self.network(each.network) for each in request.links}
            supply = Supply(here, networks, self._log_of(name))
            running = start.start(here.guests, request, supply.setting(start.START_LIMIT_S), templates)
            guest = Guest(name, running, self._lab, here.deadline, supply)
            here.notebook.guests.append(guest.part().model_copy(update={"task": self._task}))
            _require(guest, wanted.needs, here.images[name], here.deadline)
            guest.put_scripts()
            network.connect(guest.machine, networks, here.deadline)
            here.progress.waiting("")
        return guest

    def _log_of(self, guest: str) -> str:
        """The file that keeps a guest's console: one for each guest of the demonstration, and of each task."""
        of = [*([f"task-{self._task}"] if self._task else []), *([guest] if guest != "main" else [])]
        return f"{'-'.join(['console', *of])}.log"

    def network(self, name: str) -> Network:
        """The network between guests that lab.yaml declares under this name, with what it loses and delays."""
        if name not in self._networks:
            declared = self._lab.definition.networks
            if name not in declared:
                raise UsageError(
                    f"lab.yaml of {self._lab.name} declares no network named {name!r}", hint=f"it has: {', '.join(declared) or 'none'}"
                )
            wanted = declared[name]
            self._networks[name] = Network(name, loss_percent=wanted.loss_percent, delay_ms=wanted.delay_ms)
            # (It outlives the guests that are on it: the stack ends the youngest first.)
            self._here.guests.callback(self._networks[name].close)
        return self._networks[name]

    def _emulate(self, name: str, wanted: GuestRequest) -> Guest:
        here = self._here
        guest = emulate(boot_request(self._lab, name, wanted, here.images[name], self.accelerator), self._lab, here)
        here.notebook.guests.append(guest.part())
        return guest

    def cold_boot(
        self,
        disk: frozen.FrozenDisk,
        *,
        until: str | None = None,
        any_end: bool = False,
        time_limit_s: float = 180.0,
        **differs: Unpack[Differs],
    ) -> dict[str, Any]:
        """Boot from a fresh overlay of a frozen disk, time it, and throw it away; the machine is else the frozen guest's.

        It ends when a line of the guest's second serial port matches the regular expression ``until``; without one, when the guest
        has switched itself off. Returns ``console`` and ``port``, the lines of both ports as {"at_s", "text"} with the seconds since QEMU
        was executed; ``argv``; ``noise``, what else the host did (`vmlab.host.noise.Noise`); and ``broken``, the consoles' last lines
        of boots before it that the emulator broke: they were thrown away; and ``ended``, "line" or "switched off". Raises BootTimeout,
        GuestPanicked or GuestExited, which need not be caught.

        With ``any_end`` none of these is raised: ``ended`` may also be "panicked", "reset", "qemu ended" or "still runs" (at the time
        limit), and ``end`` is what `ExpectedEnd.record` has; None when the line came.
        """
        before, here = disk.request, self._here
        request = dataclasses.replace(
            before,
            name=f"{before.name}-again",
            init=differs["init"],
            kernel_args=differs.get("kernel_args", ""),
            cpus=differs.get("cpus", before.cpus),
        )
        # Its console is evidence by what is returned; no log is kept of it.
        setting = here.setting("", time_limit_s).with_log(here.work.path / f"{request.name}.console")
        found = frozen.cold_boot(disk, request, setting, frozen.Until(until, any_end))
        here.progress.waiting("")
        lines = {
            name: [{"at_s": line.at, "text": line.text} for line in said]
            for name, said in (("console", found.console), ("port", found.port))
        }
        said = {"ended": found.ended} | ({"end": found.end} if any_end else {})
        return {"argv": found.argv, **lines, "noise": dataclasses.asdict(found.noise), "broken": found.broken, **said}

    def data(self, name: str) -> Any:
        """What a YAML file of the lab's folder holds; UsageError with the line when it is no YAML of the kind that lab.yaml is."""
        return load(self._lab.directory / name).value

    def render(self, file: str, **values: Any) -> str:
        """A text file of the lab's folder with its jinja2 expressions filled in; a name that it uses and is not given is an error."""
        environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(self._lab.directory),
            undefined=jinja2.StrictUndefined,
            autoescape=False,  # noqa: S701  (What a lab renders are files for a guest, not pages.)
            keep_trailing_newline=True,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        try:
            return environment.get_template(file).render(values)
        except jinja2.TemplateError as exc:
            line = f":{exc.lineno}" if isinstance(exc, jinja2.TemplateSyntaxError) else ""
            raise UsageError(f"{self._lab.name}/{file}{line}: {type(exc).__name__}: {exc}") from exc

    def _note_end(self, name: str) -> None:
        """Write down how a guest was ended (not one that never became ready: then the run's error says all)."""
        for part in self._here.notebook.guests:
            if (part.name, part.task) == (name, self._task) and name in self._guests:
                part.ended = self._guests[name].machine.ended_how
                part.history = self._guests[name].history(self._here.notebook.started)

    def phase(self, title: str) -> contextlib.AbstractContextManager[None]:
        """Name what is going on: shown while it lasts, and timed in the report."""
        return self._here.progress.phase(title)

    def probe(self, name: str) -> dict[str, Any]:
        """What one of the engine's probes finds on this machine: its record, ``judged``. UsageError when there is no such probe.

        ``kvm`` tells what stands behind /dev/kvm; where it cannot run, the record's ``error`` says why.
        """
        return probe.named(name).here()

    def here(self, script: str, *args: str | int | float, time_limit_s: float = 60.0) -> dict[str, Any]:
        """Run one of the lab's guest scripts on this machine itself, to compare a guest with it, and read the one object it prints.

        It runs as the user who runs the lab. ScriptError when it fails, takes too long, or prints anything else.
        """
        path = self._lab.directory / "guest" / script
        words = [sys.executable, str(path), *map(str, args)]
        try:
            printed = process.run(words, deadline=self._here.deadline.within(time_limit_s), env=_with_library()).stdout
        except CommandError as exc:
            raise ScriptError(
                f"{scripts_name(script)} failed on this machine: {exc.message}",
                hint=f"try it by hand: python3 {path}; its last words are below",
                detail=exc.detail,
            ) from exc
        return parse_line(printed.strip(), scripts_name(script))

    def record(self, name: str, data: Mapping[str, Any]) -> None:
        """Write down one observation under a name that is used once. ScriptError when it is not JSON or too large."""
        self._here.notebook.record(name, data)
        self._here.progress.recorded(name)

    @contextlib.contextmanager
    def noise(self) -> Iterator[NoiseMeter]:
        """A block in which it is measured what else this machine does while the guests run; after it, `record()` tells."""
        meter = NoiseMeter(self._pids())
        try:
            yield meter
        finally:
            meter.stop(self._pids())

    def quietest(
        self, attempts: int, measure: quiet.Measure, *, noise: quiet.NoiseOf | None = None, quiet_below: float = quiet.QUIET
    ) -> dict[str, Any]:
        """Measure again, so many times at most, until an attempt was quiet; the record of the quietest.

        It has a member more, ``attempts``: the noise of each, and what was measured in those that do not count. Noise is the share of
        the host's CPU time that others had meanwhile, or what ``noise`` says of a record; up to ``quiet_below`` it is quiet.
        """
        if attempts < 1:
            raise UsageError(f"a measurement cannot be attempted {attempts} times", hint="quietest(3, ...) attempts it up to three times")
        made: list[dict[str, Any]] = []
        while not made or (made[-1]["noise"] > quiet_below and len(made) < attempts):
            if made:
                self._here.progress.notice(f"attempt {len(made)} was disturbed (noise {made[-1]['noise']:.2f}); measuring again")
            made.append(quiet.attempt(measure, noise, self.noise))
        return quiet.chosen(made)

    def _pids(self) -> list[int]:
        return [guest.machine.pid for guest in self._guests.values() if guest.has_qemu]

    def wait(self, seconds: float, why: str) -> None:
        """Let time pass, and end at once if a guest dies; the live view says why."""
        self._here.progress.waiting(why)
        end = self._here.deadline.within(seconds)
        while not end.expired():
            for guest in self._guests.values():
                guest.check_alive()
            time.sleep(min(0.2, end.left_s()))
        self._here.progress.waiting("")
