"""The sound evidence that all tests of this lab start from: a real run on a machine without KVM, by root, and what stands in for KVM."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from vmlab.lab.controls import Sound, World

SOUND = Sound.of(__file__)
"""One run of the lab with the emulated AMD host."""

CHAIN = [name for name, check in SOUND.checks.items() if check.claim not in ("M8", "M13")]
"""The checks that follow one byte, down to the host's frame and back."""

QUIET, HOST = 0.01, {"cpus": 4}


def chased(ratio: float = 2.0, own: float = 1.8, *, wobble: float = 0.02) -> dict[str, Any]:
    """A chase in a guest of a machine with KVM, as it would be recorded."""

    def run(factor: float) -> dict[str, Any]:
        samples = [1 + wobble * ((7 * i) % 11 - 5) / 5 for i in range(31)]
        times = {"small": [20 * factor * s for s in samples], "large": [20 * s for s in samples[::-1]], "compute": [0.3] * 31}
        large = {"small": 0, "large": 64 << 20}
        return {"mapped_pages": 16384, "pages": 16384, "steps": 200000, "right": True, "large_bytes": large, "ns_per_step": times}

    guest = run(ratio) | {"attempts": [{"noise": QUIET, "quietest": True, "host": HOST}]}
    return {"guest": guest, "native": run(own), "backed": {"resident_bytes": 300 << 20, "huge_bytes": 280 << 20}}


def with_kvm(world_of: str) -> Callable[[World], None]:
    """A machine with KVM: what was counted in one of the emulated host's worlds stands for it."""

    def change(world: World) -> None:
        counted = world[world_of]
        world.run["accelerator"] = "kvm"
        world["own_probe"] = counted["probe"]
        world["own_counters"] = {"loops": counted["nested"]["loops"]}
        world["chase"] = chased()

    return change


KVM = SOUND.changed(with_kvm("emulated_nested"))
"""The same on a machine with KVM and nested paging."""
