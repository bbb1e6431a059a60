"""A running guest, as an experiment sees it."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TypedDict, Unpack

from vmlab.bench.power import Supply
from vmlab.deadline import Deadline
from vmlab.errors import ScriptError, UsageError
from vmlab.guest import expected, frozen, power, qemu
from vmlab.guest.account import Account, account
from vmlab.guest.command import CommandResult, short
from vmlab.guest.conversation import Conversation, parse_line
from vmlab.guest.expected import ExpectedEnd
from vmlab.guest.look import outside
from vmlab.guest.look.disk import ROOT, DiskView
from vmlab.guest.look.memory import MemoryView
from vmlab.guest.look.packets import Capture, captured
from vmlab.guest.look.statistics import kvm_statistics
from vmlab.guest.machine import Machine
from vmlab.guest.qemu import Virtualisation
from vmlab.guest.start import START_LIMIT_S
from vmlab.host import probe
from vmlab.lab import library
from vmlab.lab.lab import Lab
from vmlab.report.model import CloudInitPart, GuestPart, HistoryPart, StepPart

# How often a wait for the console looks whether the guest still lives.
_SLICE_S = 0.25

# What a script may print unless more is asked for.
SCRIPT_OUTPUT_BYTES = 4 << 20

# Where the lab's guest/ folder lies in a guest, and the library beside it: memory, gone with it, and writable under every init.
GUEST_LAB_DIR = "/run/vmlab/lab"

_RUNS_GUESTS_BY: dict[Virtualisation, str] = {"none": "", "svm": "AMD SVM with nested paging: hardware walk emulated by QEMU TCG"}

# Where the packages of the engine's probes lie in a guest.
GUEST_PROBE_DIR = "/run/vmlab/probe"
# A guest that stops its services takes seconds; systemd itself gives one that hangs a minute and a half.
POWER_OFF_LIMIT_S = 120.0


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
            raise ScriptError(
                f"{scripts_name(self.script)} printed {len(self.records)} objects where one was expected",
                hint="let it print one object, or let the experiment take all of them: .records",
            )
        return self.records[0]


def scripts_name(name: str) -> str:
    """A guest script by its file, for messages: an author looks there."""
    return f"guest/{name}"


def script_result(name: str, result: CommandResult, *, hint: str) -> ScriptResult:
    """What a guest script printed. ScriptError when it failed (with the ``hint``), printed nothing, or anything but JSON objects."""
    called, said = scripts_name(name), result.stderr[-2000:]
    if result.status != 0:
        raise ScriptError(f"the guest script {called} failed with exit status {result.status}", hint=hint, detail=said)
    records = [parse_line(line.encode(), called) for line in result.stdout.splitlines() if line.strip()]
    if not records:
        wanted = "it must print at least one JSON object on standard output, a line each"
        raise ScriptError(f"the guest script {called} printed nothing", hint=wanted, detail=said)
    return ScriptResult(name, records, result.stderr, result.duration_s)


def probe_failed(name: str, guest: str, result: CommandResult) -> ScriptError:
    """That one of the engine's own probes did not end as it should, which no author can mend."""
    return ScriptError(
        f"the {name} probe failed in guest {guest} with exit status {result.status}",
        hint="this is a fault of vmlab's or of the guest; its last words are below",
        detail=result.stderr[-2000:],
    )


class Limits(TypedDict, total=False):
    """What a command or script is given, how much it may take, and as whom it runs: nothing, 60 s (in a guest that boots), and root.

    ``output_limit_bytes`` is 1 MiB for a command, and 4 MiB for a script.
    """

    input: str | bytes | None
    time_limit_s: float
    output_limit_bytes: int
    user: str


class Guest:
    """A running guest, as an experiment sees it. Commands and scripts run as root."""

    def __init__(self, name: str, running: Machine | None, lab: Lab, deadline: Deadline, supply: Supply | None = None) -> None:
        self.name = name
        self._supply = supply
        self._cursor = running.console.cursor() if running else None
        self._machine = running
        self._lab = lab
        self._deadline = deadline
        self._scripts_are_there = False
        self._accounts: dict[str, Account] = {}

    @property
    def machine(self) -> Machine:
        """The running guest. UsageError for one that Bochs emulates: it has no SSH and no monitor."""
        if self._machine is None:
            raise UsageError(
                f"guest {self.name} is emulated by Bochs, and there is no way into it",
                hint="what it can do is run the lab's scripts and the engine's probes: script() and probe(); and console()",
            )
        return self._machine

    @property
    def has_qemu(self) -> bool:
        """Whether a QEMU of ours runs it now."""
        return self._machine is not None and self._machine.qemu_status() is None

    @property
    def accelerator(self) -> str:
        """What runs its instructions: ``kvm``, ``tcg``, or the emulator that lab.yaml asks for, with its version."""
        return self.machine.request.accelerator

    def check_alive(self) -> None:
        """Raise what the guest died of, when it did; not for one whose end the experiment wanted."""
        if not self.machine.fate.over:
            self.machine.check_alive()

    def run(
        self,
        command: str,
        *,
        check: bool = True,
        **limits: Unpack[Limits],
    ) -> CommandResult:
        """Run a shell line. ScriptError when it fails (unless ``check`` is false), takes too long or prints too much."""
        given = limits.get("input")
        stdin = given.encode() if isinstance(given, str) else given or b""
        deadline = self._deadline.within(limits.get("time_limit_s", 60.0))
        with self.machine.attributing():
            result = self.machine.ssh.execute(
                self._as_user(command, limits.get("user", "")),
                stdin=stdin,
                deadline=deadline,
                output_limit_bytes=limits.get("output_limit_bytes", 1 << 20),
            )
        if check and result.status != 0:
            raise ScriptError(
                f"it failed in guest {self.name} with exit status {result.status}: {command[:120]}",
                hint="look at this command in experiment.py; its standard error is below, and check=False makes a failure data",
                detail=result.stderr[-2000:],
            )
        return result

    def script(
        self,
        name: str,
        *args: str | int | float,
        **limits: Unpack[Limits],
    ) -> ScriptResult:
        """Run one of the lab's guest scripts to its end and read its JSON lines.

        Raises ScriptError when it crashes, hangs, prints nothing, too much, or anything but JSON objects.
        """
        command = self._command(name, args)
        try:
            result = self.run(command, check=False, **(Limits(output_limit_bytes=SCRIPT_OUTPUT_BYTES) | limits))
        except ScriptError as exc:
            # (The file says more than the shell line that runs it.)
            what = exc.message.removesuffix(f": {short(command)}")
            raise ScriptError(f"{scripts_name(name)}: {what}", hint=exc.hint, detail=exc.detail) from exc
        return script_result(name, result, hint=f"try it by hand: vmlab shell {self._lab.name}, then run it in {GUEST_LAB_DIR}")

    @contextlib.contextmanager
    def start(self, name: str, *args: str | int | float, user: str = "") -> Iterator[Conversation]:
        """Start one of the lab's guest scripts, as root or another user, and talk to it while it runs."""
        with self.machine.attributing():
            command = self._as_user(self._command(name, args), user)
            with self.machine.ssh.start(command, deadline=self._deadline, name=scripts_name(name)) as conversation:
                yield conversation

    def probe(self, name: str, *, time_limit_s: float = 60.0) -> dict[str, Any]:
        """What one of the engine's probes finds in this guest: its record, validated and ``judged`` by the host.

        ``kvm`` tells what stands behind /dev/kvm. What fails in it (no device, no module) is the record's ``error``; so is what
        is wrong with a record that is none. UsageError when there is no such probe, ScriptError when it does not run.
        """
        wanted = probe.named(name)
        with self.machine.attributing():
            self.machine.ssh.put_tree(wanted.files(), GUEST_PROBE_DIR, deadline=self._deadline)
        command = f"cd {GUEST_PROBE_DIR} && exec {shlex.join(wanted.argv(time_limit_s))}"
        result = self.run(command, check=False, time_limit_s=time_limit_s)
        if result.status != 0:
            raise probe_failed(name, self.name, result)
        return wanted.read(result.stdout.encode())

    def put(self, local: Path, remote: str) -> None:
        """Copy a file into the guest."""
        with self.machine.attributing():
            self.machine.ssh.put(local, remote, deadline=self._deadline)

    def get(self, remote: str, local: Path) -> None:
        """Copy a file out of the guest (64 MiB at most)."""
        with self.machine.attributing():
            self.machine.ssh.get(remote, local, deadline=self._deadline)

    def write_text(self, path: str, text: str, mode: int = 0o644) -> None:
        """Write a file in the guest, whole or not at all; it is root's. A file that was there is replaced, not changed."""
        if not PurePosixPath(path).is_absolute() or not PurePosixPath(path).name or path.endswith("/") or "\0" in path:
            raise UsageError(f"{path!r} names no file in the guest", hint="give its whole path, from / on")
        if not 0 <= mode <= 0o7777:
            raise UsageError(f"{mode:o} is no file's mode", hint="for example 0o644, which all may read")
        try:
            content = text.encode()
        except UnicodeEncodeError as exc:
            raise UsageError(f"the text for {path} has a half of a character in it (a lone surrogate), which is no UTF-8") from exc
        with self.machine.attributing():
            self.machine.ssh.write(content, path, mode=mode, deadline=self._deadline)

    def read_text(self, path: str) -> str:
        """The text of a file in the guest, 1 MiB at most. ScriptError when it cannot be read."""
        result = self.run(f"cat -- {shlex.quote(path)}", check=False)
        if result.status != 0:
            raise ScriptError(
                f"{path} cannot be read in guest {self.name}: {result.stderr.strip().rpartition(': ')[2]}",
                hint="look at the path in experiment.py, and at what should have written the file",
            )
        return result.stdout

    def outside(self) -> dict[str, Any]:
        """The host's look at this guest: ``status``, ``resident_bytes``, ``cpu_s``, ``vcpu_cpu_s``, ``panicked``."""
        return outside.outside(self._powered(), self._deadline.within(10))

    @property
    def memory(self) -> MemoryView:
        """The look from outside at this guest's memory."""
        return MemoryView(self._powered(), self.machine.directory, self._deadline)

    def disk(self, name: str = ROOT) -> DiskView:
        """The look from outside at one of its disks: the root disk, or one that lab.yaml gives it (``disks``)."""
        return DiskView(self.machine, name, self._deadline)

    def address(self, network: str) -> str:
        """Its IPv4 address on one of its networks, the same in each run."""
        return self.machine.request.links[self._link(network)].address

    def packets(self, network: str = "") -> contextlib.AbstractContextManager[Capture]:
        """A block in which what passes its network interface is kept: the one by which the runner reaches it, or that to a ``network``."""
        interface = qemu.network_interface(self._link(network) + 1) if network else qemu.INTERFACE
        return captured(self.machine, interface, self._deadline)

    def _link(self, network: str) -> int:
        names = [each.network for each in self.machine.request.links]
        if network not in names:
            raise UsageError(
                f"guest {self.name} is on no network named {network!r}",
                hint=f"it is on: {', '.join(names) or 'none'}; lab.yaml says which (guests.{self.name}.networks)",
            )
        return names.index(network)

    def _as_user(self, command: str, user: str) -> str:
        """The same shell line for another user than root. ScriptError when the guest has no such user."""
        if not user:
            return command
        if user not in self._accounts:
            self._accounts[user] = account(self.machine.ssh, user, self._deadline)
        return self._accounts[user].running(command)

    def kvm_statistics(self) -> dict[str, int]:
        """What KVM has counted for this guest since its start, by the kernel's names; empty when KVM does not run it."""
        return kvm_statistics(self._powered(), self._deadline.within(30))

    def console(self) -> str:
        """What the guest's serial console has printed, the last MiB of it."""
        return self.machine.console.text()

    def wait_for_console(self, pattern: str, time_limit_s: float = 10.0) -> str | None:
        """The first console line that matches the regular expression and came since the last match; None when none came in time.

        A guest that has ended prints nothing more: then nobody waits for the rest of the time.
        """
        machine, limit = self.machine, self._deadline.within(time_limit_s)
        cursor = self._cursor or machine.console.cursor()
        while True:
            # (Asked before the look: what a guest prints with its last breath is still read.)
            dead = machine.fate.death is not None or bool(machine.fate.over)
            if dead:
                machine.fate.wait_for_last_words()
            line = cursor.wait_for(pattern, 0.0 if dead else min(_SLICE_S, limit.left_s()))
            if line is not None or dead or limit.expired():
                return line

    # Its end, its reset, its power.

    @contextlib.contextmanager
    def expected_to_end(self, time_limit_s: float = 60.0) -> Iterator[ExpectedEnd]:
        """A block in which this guest may panic, reset, switch itself off, or take QEMU along; leaving it waits for that.

        `ExpectedEnd.record` has what was seen. A guest that still runs at the limit is an answer too, and goes on. One that has ended
        can still be looked at as far as there is something to see (its console; its memory, when its kernel panicked).
        """
        with expected.expected(self.machine, self._deadline.within(time_limit_s)) as end:
            yield end
        ended = str(end.record()["ended"])
        if ended != expected.STILL_RUNS:
            self._note(f"{ended}, as was expected")

    def pause(self) -> contextlib.AbstractContextManager[None]:
        """A block for whose length the guest's processors are stopped."""
        return power.paused(self._powered(), self._deadline)

    def reset(self) -> None:
        """Press the reset button: its memory stays, and it is stopped before its first instruction.

        `go_on` lets it run, `wait_until_ready` boots it and logs in.
        """
        power.reset(self._powered(), self._deadline)
        self._forget()
        self._note("reset")

    def go_on(self) -> None:
        """Let a guest that was reset or switched on again run."""
        power.go_on(self._powered(), self._deadline)

    def wait_until_ready(self, time_limit_s: float = START_LIMIT_S) -> None:
        """Let a guest that was reset or switched on again boot, and log in to it.

        Raises what a boot does; UsageError for a clone that was reset, whose QEMU has no kernel to give it.
        """
        self._powered()
        self._supplied().boot(self.machine, self._deadline.within(time_limit_s).left_s())
        self.put_scripts()

    def cut_power(self) -> None:
        """Take its power away at once. Its memory is gone, and so is what its kernel had not yet given to a disk."""
        self.machine.cut()
        self._forget()
        self._note("its power was cut")

    def power_cycle(self) -> None:
        """Take its power away, unless it has none, and give it back: the same disks, empty memory, stopped before its first instruction."""
        if self.machine.qemu_status() is None:
            self.cut_power()
        self._machine = self._supplied().cycle(self.machine, START_LIMIT_S)
        self._cursor = self._machine.console.cursor()

    def _supplied(self) -> Supply:
        if self._supply is None:
            raise UsageError(f"guest {self.name} cannot be switched on again")
        return self._supply

    def _note(self, what: str) -> None:
        if self._supply is not None:
            self._supply.note(what)

    def _forget(self) -> None:
        """What lay in its memory is gone, or will be: /run with the lab's scripts."""
        self._scripts_are_there = False
        self._accounts.clear()

    def _powered(self) -> Machine:
        """The machine, while there is a QEMU to look at; else raises how it ended."""
        if self.machine.qemu_status() is not None:
            self.machine.check_alive()
        return self.machine

    def history(self, began: float) -> list[HistoryPart]:
        """What became of it after it was ready, in seconds after a moment of the monotonic clock."""
        told = self._supply.history if self._supply else []
        return [HistoryPart(at_s=round(at - began, 3), what=what) for at, what in told]

    def freeze(self) -> frozen.FrozenDisk:
        """Shut the guest down properly and keep its disk for ``bench.cold_boot``. The guest can do nothing more."""
        return frozen.freeze(self.machine, self._deadline.within(POWER_OFF_LIMIT_S))

    def _command(self, name: str, args: tuple[str | int | float, ...]) -> str:
        self.put_scripts()
        # (A script finds the library beside it. The path is for what it starts elsewhere, and for scripts in folders of guest/.)
        return f"cd {GUEST_LAB_DIR} && export PYTHONPATH={GUEST_LAB_DIR} && exec {shlex.join(self._words(name, args))}"

    def _words(self, name: str, args: tuple[str | int | float, ...]) -> list[str]:
        """The command that runs one of the lab's guest scripts, in the directory that they lie in."""
        if name not in self._scripts():
            raise UsageError(f"the lab {self._lab.name} has no guest script named {name}", hint="scripts lie in the lab's guest/ folder")
        interpreter = {".py": ["python3", "-u"], ".sh": ["sh"]}.get(Path(name).suffix, [])
        return [*interpreter, f"./{name}", *map(str, args)]

    def put_scripts(self) -> None:
        """Copy the lab's guest/ folder into the guest, once, with the library; nothing when the folder is empty."""
        if self._scripts_are_there:
            return
        if scripts := self._scripts():
            with self.machine.attributing():
                self.machine.ssh.put_tree(scripts | library.files(), GUEST_LAB_DIR, deadline=self._deadline)
        self._scripts_are_there = True

    def _scripts(self) -> dict[str, Path]:
        home = self._lab.directory / "guest"
        return {path.relative_to(home).as_posix(): path for path in self._lab.guest_files()}

    def part(self) -> GuestPart:
        """This guest for the report."""
        request, birth = self.machine.request, self.machine.birth
        status = birth.cloud_init
        return GuestPart(
            name=self.name,
            image=request.image.name,
            image_sha256=request.image.digest,
            memory_bytes=request.memory_mib << 20,
            cpus=request.cpus,
            init=request.init,
            accelerator=self.accelerator,
            virtualisation=_RUNS_GUESTS_BY[request.virtualisation],
            argv=self.machine.argv,
            kernel=birth.system.kernel,
            os=birth.system.os,
            boot_id=birth.system.boot_id,
            start="clone" if birth.template else "cold",
            template=birth.template,
            fallback=birth.fallback,
            clock_error_s=birth.clock_error_s,
            steps=[StepPart(name=step.name, at_s=step.at_s) for step in self.machine.reached],
            cloud_init=CloudInitPart(status=status.status, exit_code=status.exit_code, detail=status.detail),
        )
