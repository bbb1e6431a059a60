"""Reset and power of a guest, as one may press its buttons: what is left of its memory and its disks is there to be looked at.

A reset leaves the memory as it was: the machine begins again, and what boots it writes over it. Without power the memory is gone, and
what the disks had been given stays. (Their files are opened with ``cache=unsafe``: what QEMU had got is in them, whether the guest had
asked for it to be made safe or not. What the guest still kept in its own page cache is lost, as in any machine.)
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path

from vmlab.deadline import Deadline
from vmlab.errors import GuestError, UsageError
from vmlab.guest import qemu
from vmlab.guest.boot import cold_spec, launch
from vmlab.guest.machine import Birth, Machine
from vmlab.guest.setting import Setting

# The monitor answers in milliseconds, and in seconds on a crowded machine.
_LIMIT_S = 30.0


def is_running(machine: Machine, deadline: Deadline) -> bool:
    """Whether the guest's processors run, by QEMU's word; they do not while it is paused, after a reset and after a power cycle."""
    return bool(machine.monitor.execute("query-status", deadline.within(_LIMIT_S)).get("running"))


@contextlib.contextmanager
def paused(machine: Machine, deadline: Deadline) -> Iterator[None]:
    """Stop the guest's processors for the length of a block, unless they are stopped already: then they stay so afterwards, too."""
    with machine.attributing():
        ran = is_running(machine, deadline)
        if ran:
            machine.monitor.execute("stop", deadline.within(_LIMIT_S))
    try:
        yield
    finally:
        if ran and machine.qemu_status() is None:
            with machine.attributing():
                machine.monitor.execute("cont", deadline.within(_LIMIT_S))


def reset(machine: Machine, deadline: Deadline) -> None:
    """Press the reset button, and leave the guest stopped before its first instruction. GuestError when QEMU does not reset it."""
    limit = deadline.within(_LIMIT_S)
    machine.hang_up()
    with machine.attributing():
        machine.monitor.execute("stop", limit)
        # By -no-reboot QEMU would end instead. It stays so until the guest has booted (`become_ready`): a firmware that finds memory in
        # which it ran before may reset the machine once more by itself (SeaBIOS, src/post.c: HaveRunPost, then tryReboot).
        machine.monitor.execute("set-action", limit, reboot="reset")
        before = machine.fate.count("RESET")
        machine.monitor.execute("system_reset", limit)
        if not machine.fate.wait_for("RESET", before + 1, limit):
            raise GuestError("QEMU did not reset the guest", hint="is the machine very busy? try again")


def go_on(machine: Machine, deadline: Deadline) -> None:
    """Let the guest's processors run."""
    with machine.attributing():
        machine.monitor.execute("cont", deadline.within(_LIMIT_S))


@contextlib.contextmanager
def started_again(machine: Machine, setting: Setting) -> Iterator[Machine]:
    """A new QEMU for a guest without power, over the same disks, stopped before its first instruction; ended when the block is left.

    Its memory is its own: that of a clone's template is what the clone had at first, and would outlive the loss of power.
    """

    def spec(directory: Path, wires: qemu.Wires) -> qemu.GuestSpec:
        boots = cold_spec(machine.request, directory, wires)
        return dataclasses.replace(boots, disk=machine.disk, seed=machine.seed_iso, paused=True)

    with launch(machine.request, machine.identity, setting, spec) as again:
        yield again


def become_ready(machine: Machine, setting: Setting) -> None:
    """Let a guest that was reset or started again boot, and log in to it. Raises what `Machine.wait_until_ready` raises.

    UsageError for a clone that was reset: its QEMU was given no kernel, because the kernel is in what it was cloned from.
    """
    if machine.is_clone:
        raise UsageError(
            "a clone that was reset cannot boot: its kernel came with its memory, and not from its disk",
            hint="say `start: cold` of this guest in lab.yaml, or power_cycle() it",
        )
    if not is_running(machine, setting.deadline):
        go_on(machine, setting.deadline)
    cloud_init = machine.wait_until_ready(setting.deadline, setting.progress)
    # From now on a reboot of the guest's own ends it again, where that can be seen.
    machine.monitor.execute("set-action", setting.deadline.within(_LIMIT_S), reboot="shutdown")
    system = machine.ask_system(setting.deadline)
    machine.be_born(Birth(system, cloud_init))
