"""A guest's end that an experiment expects, as evidence: the sources apart, so that a check can hold one against the other.

A kernel that panics tells pvpanic, and QEMU's monitor tells us. It writes to the console, as anybody in the guest can. It answers nobody
any more over SSH, and its processors stay in the kernel. `vmlab.guest.panic` says which of these decides.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

from vmlab.deadline import Deadline
from vmlab.errors import GuestEnded, GuestExited, GuestPanicked, RunError, ScriptError, SshError
from vmlab.guest import panic
from vmlab.guest.console import END_OF_PANIC
from vmlab.guest.machine import Machine
from vmlab.guest.qmp import QmpError
from vmlab.guest.ssh import wait_for_banner

# How often one looks whether it has ended, and how long SSH may keep silent before that is taken for no answer.
LOOK_S = 0.05
SSH_PATIENCE_S = 2.0
# QEMU's last event and its end are told by two threads, of which either may be the first.
TOGETHER_S = 0.3
_MONITOR_S = 10.0

PANICKED = "panicked"
SWITCHED_OFF = "switched off"
STILL_RUNS = "still runs"

_HOW = {"guest-reset": "reset", "guest-shutdown": SWITCHED_OFF}
"""What the guest did by QEMU's word (the reason of its SHUTDOWN event). By ``-no-reboot`` a reset ends QEMU too."""


class ExpectedEnd:
    """How a guest ended while its end was expected. It says so once the block is left in which it was (`expected`)."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._began = time.monotonic()
        self._cpu_before_s = machine.cpu_s()
        self._record: dict[str, Any] | None = None

    def record(self) -> dict[str, Any]:
        """What is known of the end, as plain data (labs/README.md describes each member). ScriptError while the block is not left.

        ``ended`` is ``panicked``, ``reset``, ``switched off``, ``qemu ended`` or ``still runs``.
        """
        if self._record is None:
            raise ScriptError(
                "the guest's end was asked for before it was waited for", hint="call record() after the `with` block that expects the end"
            )
        return self._record

    def is_known(self) -> bool:
        """Whether the guest has ended in any way."""
        return self._machine.fate.death is not None or self._machine.qemu_status() is not None

    def wait(self, deadline: Deadline) -> None:
        """Wait until it has ended, or the deadline passes: then it still runs, which is as good an answer."""
        while not (self.is_known() or deadline.expired()):
            time.sleep(min(LOOK_S, deadline.left_s()))
        if self.is_known():
            time.sleep(TOGETHER_S)
            self._machine.fate.wait_for_last_words()
        self._record = self._look()

    def _look(self) -> dict[str, Any]:
        machine, status = self._machine, self._machine.qemu_status()
        told = machine.fate.told(self._began)
        reasons = [str(each.data.get("reason", "")) for each in told if each.event == "SHUTDOWN"]
        panics = [each for each in told if each.event == "GUEST_PANICKED"]
        lines = machine.console.lines()
        new = [line for line in lines if line.at >= self._began]
        words = "\n".join(line.text for line in new)
        return {
            "ended": self._how(status, reasons, panicked=bool(panics)),
            "at_s": round(machine.fate.died_at - self._began, 3) if machine.fate.died_at else None,
            "waited_s": round(time.monotonic() - self._began, 3),
            "monitor": {"event": panics[0].event, "info": panics[0].data, "at_s": round(panics[0].at - self._began, 3)} if panics else None,
            "shutdown_reason": reasons[0] if reasons else None,
            "console": panic.reason_in(words) or None,
            "console_end": END_OF_PANIC in words,
            "answers_ssh": wait_for_banner(machine.port, Deadline(SSH_PATIENCE_S)) if status is None else False,
            "qemu_exit_status": status,
            "status": self._asked("query-status"),
            "cpus": self._cpus(),
            "cpu_s_before": round(self._cpu_before_s, 2),
            "cpu_s_after": self._cpu_s(),
        }

    def _how(self, status: int | None, reasons: list[str], *, panicked: bool) -> str:
        # Words on the console before QEMU's end do not count here: what they are worth, a check can judge.
        if panicked or self._machine.panic_signs.lifeless_at:
            return PANICKED
        if status is None:
            # (A death that is neither panic nor exit is ours: a full disk. It is raised, not recorded.)
            return STILL_RUNS
        return next((_HOW[reason] for reason in reasons if reason in _HOW), "qemu ended")

    def _asked(self, command: str) -> str | None:
        with contextlib.suppress(QmpError):
            return str(self._machine.monitor.execute(command, Deadline(_MONITOR_S)).get("status"))
        return None

    def _cpus(self) -> list[dict[str, Any]] | None:
        """What each processor is at, by its registers; None when QEMU is gone."""
        with contextlib.suppress(QmpError):
            return [{"level": cpu.level, "halted": cpu.halted, "interruptible": cpu.interruptible} for cpu in self._machine.cpus()]
        return None

    def _cpu_s(self) -> float | None:
        with contextlib.suppress(GuestExited):
            return round(self._machine.cpu_s(), 2)
        return None


@contextlib.contextmanager
def expected(machine: Machine, deadline: Deadline) -> Iterator[ExpectedEnd]:
    """Expect the guest's end until the deadline; what the block loses by it (connection, conversation) is no error.

    After the block a guest that has ended is known to have ended: whoever asks it for more gets GuestEnded. Raises what the guest died of
    before, and HostError when it dies of our machine's fault.
    """
    machine.check_alive()
    end = ExpectedEnd(machine)
    try:
        yield end
    except (GuestPanicked, GuestExited, GuestEnded, SshError, ScriptError) as exc:
        if not _of_the_end(exc, end):
            raise
    end.wait(deadline)
    death = machine.fate.death
    if death is not None and not isinstance(death, GuestPanicked | GuestExited):
        machine.check_alive()
    ended = end.record()["ended"]
    if ended != STILL_RUNS:
        machine.fate.is_over(f"{ended}, as was expected")
        machine.hang_up()


def _of_the_end(exc: RunError, end: ExpectedEnd) -> bool:
    """Whether what went wrong in the block is the end itself, or came of it; a connection may be lost before its cause is known."""
    if isinstance(exc, GuestPanicked | GuestExited | SshError):
        return True
    patience = Deadline(TOGETHER_S * 5)
    while not (end.is_known() or patience.expired()):
        time.sleep(LOOK_S)
    return end.is_known()
