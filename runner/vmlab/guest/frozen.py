"""A frozen disk: what a guest left that was shut down properly, and cold boots from it that are timed, not logged in to.

Each boot starts from a fresh overlay of the disk, which is never written again, and ends at once when the line that it waits for has
come: nothing that happens in it is kept. Nobody logs in, because that would cost the guest more than what is measured. It speaks by its
console and by its second serial port instead, and the host stamps each line as it comes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import re
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vmlab.deadline import Deadline
from vmlab.errors import BootTimeout, GuestError, GuestPanicked, ScriptError, SshError
from vmlab.guest import boot, qemu, seed
from vmlab.guest.console import Console, Line
from vmlab.guest.expected import PANICKED, SWITCHED_OFF, ExpectedEnd
from vmlab.guest.machine import BootRequest, Machine
from vmlab.guest.setting import Setting
from vmlab.host.noise import Meter, Noise
from vmlab.image.cache import sha256

log = logging.getLogger(__name__)

# (Debian's sysvinit has a `poweroff` of its own, which systemd does not hear.)
_POWER_OFF = "if [ -d /run/systemd/system ]; then systemctl poweroff; else /sbin/shutdown -h -P now; fi"

# A line of the second port that is wanted is noticed when it comes; that the guest has died, after this.
_LOOK_S = 0.1
_ATTEMPTS = 3

LINE = "line"
"""How a boot ended whose line came."""


@dataclass(frozen=True)
class FrozenDisk:
    """A disk and the seed that it was set up with. Both lie in the run's directory and are gone with it."""

    request: BootRequest
    disk: Path
    seed_iso: Path

    def digest(self) -> str:
        """SHA-256 of the file as it is now, in hex."""
        return sha256(self.disk)


@dataclass(frozen=True)
class ColdBoot:
    """One timed boot. The times of its lines are seconds after QEMU was executed."""

    argv: list[str]
    console: list[Line]
    port: list[Line]
    noise: Noise
    broken: list[str]
    """The consoles' last lines of the boots before it that the emulator broke."""
    ended: str = LINE
    """`LINE` when the line came that was waited for; else how the guest ended, as `vmlab.guest.expected` has it."""
    end: dict[str, Any] | None = None
    """What is known of that end, when any end was expected."""


@dataclass(frozen=True)
class Until:
    """When a timed boot is over: with a line of the second port that matches ``line``, None: when the guest has switched itself off.

    ``any_end``: however it ends before, and if it does not end at all, that is an answer too.
    """

    line: str | None
    any_end: bool = False


def freeze(machine: Machine, deadline: Deadline) -> FrozenDisk:
    """Let the guest's init stop everything and switch the guest off, and keep its disk. Raises what `wait_for_end` raises."""
    machine.may_end()
    with contextlib.suppress(SshError, ScriptError):
        # The connection may be cut before the command's status is sent: that is what the command is for.
        machine.ssh.execute(_POWER_OFF, deadline=deadline.within(20))
    wait_for_end(machine, deadline)
    return FrozenDisk(machine.request, machine.disk, machine.seed_iso)


def wait_for_end(machine: Machine, deadline: Deadline) -> None:
    """Wait until the guest has switched itself off. GuestError when it does not in time; else as `Machine.check_alive`."""
    while not machine.has_ended():
        if deadline.expired():
            raise GuestError(
                f"the guest did not switch itself off within {deadline.budget_s:.0f} s",
                hint="the console says what it still does",
                detail=machine.console.tail(),
            )
        time.sleep(min(_LOOK_S, deadline.left_s()))


def cold_boot(frozen: FrozenDisk, request: BootRequest, setting: Setting, until: Until) -> ColdBoot:
    """Boot until that is over.

    A kernel that the emulator broke (`boot.is_emulators_fault`) is booted again. Unless any end will do: BootTimeout when
    the line does not come, GuestPanicked and GuestExited when the guest dies first.
    """
    broken: list[str] = []
    while True:
        try:
            booted = dataclasses.replace(_boot_once(frozen, request, setting, until), broken=broken)
            said = "\n".join(line.text for line in booted.console)
            if booted.ended != PANICKED or not boot.is_emulators_fault(GuestPanicked(said), request.accelerator):
                return booted
            broken.append(said[-4000:])
            if len(broken) == _ATTEMPTS:
                return booted
        except GuestPanicked as death:
            broken.append(death.detail)
            if len(broken) == _ATTEMPTS or not boot.is_emulators_fault(death, request.accelerator):
                raise
            log.info("the emulator broke a kernel's start: booting again")


def _boot_once(frozen: FrozenDisk, request: BootRequest, setting: Setting, until: Until) -> ColdBoot:
    deadline, progress = setting.deadline, setting.progress

    def spec(directory: Path, wires: qemu.Wires) -> qemu.GuestSpec:
        boot.overlay(frozen.disk, directory / "disk.qcow2", deadline)
        shutil.copyfile(frozen.seed_iso, directory / "seed.iso")
        return boot.cold_spec(request, directory, wires)

    with contextlib.ExitStack() as stack:
        meter = Meter()
        machine = stack.enter_context(boot.launch(request, seed.Identity.new(request.name), setting, spec))
        port = Console(machine.sockets.identity, Path(os.devnull))
        stack.callback(port.close)
        progress.waiting("its end" if until.line is None else f"the line {until.line}")
        end: ExpectedEnd | None = None
        if until.any_end:
            end = _wait_for_any(machine, port, until.line, deadline)
        elif until.line is None:
            machine.may_end()
            wait_for_end(machine, deadline)
        else:
            _wait_for(machine, port, until.line, deadline)
        noise = meter.stop(machine.pid)
        machine.stop()
        booted = ColdBoot(machine.argv, _since(machine, machine.console.lines()), _since(machine, port.lines()), noise, broken=[])
        if end is not None:
            return dataclasses.replace(booted, ended=str(end.record()["ended"]), end=end.record())
        return booted if until.line is not None else dataclasses.replace(booted, ended=SWITCHED_OFF)


def _wait_for_any(machine: Machine, port: Console, line: str | None, deadline: Deadline) -> ExpectedEnd | None:
    """Wait for the line or any end; None when the line came."""
    end = ExpectedEnd(machine)
    while not (end.is_known() or deadline.expired()):
        if line is None:
            time.sleep(min(_LOOK_S, deadline.left_s()))
        elif port.wait_for(line, min(_LOOK_S, deadline.left_s())) is not None:
            return None
    if line is not None and port.wait_for(line, 0.0) is not None:
        return None
    end.wait(deadline)
    return end


def _wait_for(machine: Machine, port: Console, until: str, deadline: Deadline) -> None:
    while port.wait_for(until, min(_LOOK_S, deadline.left_s())) is None:
        machine.check_alive()
        if deadline.expired():
            said = "\n".join(line.text for line in port.lines()[-20:])
            raise BootTimeout(
                f"the line {until!r} did not come within {deadline.budget_s:.0f} s",
                hint="the guest's last words are below: those of its console, then those of its second serial port",
                detail=f"{machine.console.tail()}\n{said}",
            )


def _since(machine: Machine, lines: list[Line]) -> list[Line]:
    """The same lines with the time since QEMU was executed."""
    return [Line(round(line.at - machine.executed, 4), re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line.text)) for line in lines]
