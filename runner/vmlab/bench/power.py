"""What a guest of the bench needs to be switched on again: where it is started, and what its cables lead to."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from vmlab.bench.session import Session
from vmlab.guest import network, power
from vmlab.guest.machine import Machine
from vmlab.guest.network import Network
from vmlab.guest.setting import Setting


@dataclass
class Supply:
    """One guest's. ``log`` is the name of its console's log; that of each later start has a number in it."""

    here: Session
    networks: Mapping[str, Network]
    log: str
    starts: int = 1
    history: list[tuple[float, str]] = field(default_factory=list)
    """What became of the guest after it was ready, with the moment on the monotonic clock."""

    def note(self, what: str) -> None:
        """This has happened to it just now."""
        self.history.append((time.monotonic(), what))

    def setting(self, limit_s: float) -> Setting:
        """In what it is started next, ready within ``limit_s``."""
        stem, _, suffix = self.log.rpartition(".")
        name = self.log if self.starts == 1 else f"{stem}-{self.starts}.{suffix}"
        return dataclasses.replace(self.here.setting(name, limit_s), networks=self.networks)

    def cycle(self, machine: Machine, limit_s: float) -> Machine:
        """Switch a guest without power on again, stopped before its first instruction."""
        self.starts += 1
        again = self.here.guests.enter_context(power.started_again(machine, self.setting(limit_s)))
        self.here.progress.waiting("")
        self.note("switched on again")
        return again

    def boot(self, machine: Machine, limit_s: float) -> None:
        """Let it boot, and log in to it."""
        with self.here.progress.phase(f"Booting guest {machine.request.name} again"):
            setting = self.setting(limit_s)
            power.become_ready(machine, setting)
            network.connect(machine, self.networks, setting.deadline)
            self.here.progress.waiting("")
        self.note("booted again")
