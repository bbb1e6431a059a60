"""What a lab asks of its guest's processor beyond the usual, and whether the accelerator has it."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Literal

from vmlab import process
from vmlab.deadline import Deadline
from vmlab.errors import UnsuitableProcessor
from vmlab.guest import qemu
from vmlab.host.view import HostView
from vmlab.process import CommandError

# Starting a QEMU that runs nothing takes 40 ms, and seconds on a crowded machine.
_ANSWER_LIMIT_S = 60.0
_FAREWELL = "".join(json.dumps({"execute": command}) for command in ("qmp_capabilities", "quit")).encode()


@dataclass(frozen=True)
class Processor:
    """Features that must be there (True) or must not (False); None: as the accelerator has them. ``physical_bits`` 0: its own number."""

    la57: bool | None = None
    pcid: bool | None = None
    physical_bits: int = 0

    def options(self, accelerator: Literal["kvm", "tcg"]) -> str:
        """What follows the model's name in QEMU's ``-cpu``."""
        words = [f"{'+' if wanted else '-'}{name}" for name, wanted in self._features().items()]
        if self.physical_bits:
            # The model `host` takes over the host's number, unless it is told not to.
            words += ["host-phys-bits=off"] if accelerator == "kvm" else []
            words += [f"phys-bits={self.physical_bits}"]
        return "".join(f",{word}" for word in words)

    def in_words(self) -> str:
        """What it asks for, as lab.yaml has it."""
        wanted = [f"{name}: {str(value).lower()}" for name, value in self._features().items()]
        return ", ".join([*wanted, *([f"physical_bits: {self.physical_bits}"] if self.physical_bits else [])])

    def _features(self) -> dict[str, bool]:
        return {name: value for name, value in (("la57", self.la57), ("pcid", self.pcid)) if value is not None}


ORDINARY = Processor()


def require(wanted: Processor, accelerator: Literal["kvm", "tcg"], deadline: Deadline, view: HostView | None = None) -> None:
    """UnsuitableProcessor when no such processor can be had here, so that nothing is left out without a word.

    QEMU itself is asked, by starting one that runs nothing: with ``enforce`` it ends where else it would warn and leave a feature out.
    """
    if wanted == ORDINARY:
        return
    why = _beyond_the_host(wanted, view or HostView()) if accelerator == "kvm" else ""
    if not why:
        model = qemu.MODELS[accelerator]
        argv = [
            *(qemu.PROGRAM, "-nodefaults", "-no-user-config", "-display", "none", "-machine", "q35", "-m", "16M", "-S"),
            *("-accel", accelerator, "-cpu", f"{model}{wanted.options(accelerator)},enforce", "-qmp", "stdio"),
        ]
        try:
            process.run(argv, deadline=deadline.within(_ANSWER_LIMIT_S), input=_FAREWELL)
        except CommandError as exc:
            why = _words(exc.detail) or exc.message
    if why:
        raise UnsuitableProcessor(
            f"the accelerator {accelerator} gives no processor with {wanted.in_words()}: {why}",
            hint="run it on another machine, or with another accelerator (--accel)",
        )


def _beyond_the_host(wanted: Processor, view: HostView) -> str:
    """Why KVM cannot give so many physical bits: QEMU only warns, and the guest would be told of addresses that do not exist."""
    found = re.match(r"(\d+) bits physical", view.cpuinfo("address sizes"))
    if found and wanted.physical_bits > int(found[1]):
        return f"this machine's own has {found[1]} physical bits"
    return ""


def _words(said: str) -> str:
    """The line of QEMU's that names what is missing: its warning, else its last."""
    lines = [line.partition(": ")[2] for line in said.splitlines() if line.startswith(qemu.PROGRAM)]
    return next((line.removeprefix("warning: ") for line in lines if line.startswith("warning: ")), lines[-1] if lines else "")
