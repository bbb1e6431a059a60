"""Memory: follow an address through every translation, and find out who walks the second set of page tables."""

from __future__ import annotations

import json
from typing import Any

from runner.bench import Bench, Guest

LONG_S = 240.0


def experiment(bench: Bench) -> None:
    """The lab's own guest, then the emulated host."""
    guest = bench.guest()

    with bench.phase("loops in the lab's own guest, as KVM counts them"):
        bench.record("own_counters", own_counters(bench, guest))

    emulated_amd_host(bench)


# --- KVM's counters around loops of the lab's own guest (check H) ---------------------------------------------------------------------


def own_counters(bench: Bench, guest: Guest) -> dict[str, Any]:
    """Each loop's result, with KVM's counters before and after it; why there are none, where there are none."""
    if not guest.kvm_statistics():
        return {"not_run": f"this guest's processor is emulated ({bench.accelerator.upper()}), so that KVM counts nothing"}
    counted = {}
    with guest.start("loops.py") as loops:
        loops.read()
        for asked in wanted_loops(bench):
            loops.send(asked)
            loops.read(LONG_S)
            before = guest.kvm_statistics()
            loops.send({"go": True})
            result = loops.read(LONG_S)
            counted[asked["loop"]] = {**result, "before": before, "after": guest.kvm_statistics()}
    return {"loops": counted}


def wanted_loops(bench: Bench) -> list[dict[str, Any]]:
    """What loops.py is asked for, by the lab's parameters."""
    pages, rounds, switches = (bench.parameters[name] for name in ("pages", "rounds", "switches"))
    return [
        {"loop": "idle"},
        {"loop": "touch", "pages": pages},
        {"loop": "remap", "pages": pages, "rounds": rounds},
        {"loop": "switch", "rounds": switches},
    ]


# --- the emulated AMD host: nested paging, and shadow paging as its control -----------------------------------------------------------


def emulated_amd_host(bench: Bench) -> None:
    """One guest that can run guests, KVM in it loaded twice, with nested paging and without; the same measurements each time."""
    skipped = why_not_emulated(bench)
    if skipped:
        for name in ("emulated_npt", "emulated_shadow"):
            bench.record(name, {"not_run": skipped})
        return
    host = bench.guest("amd_host")
    for name, npt, title in (("emulated_npt", 1, "nested paging"), ("emulated_shadow", 0, "shadow page tables, the control")):
        with bench.phase(f"an emulated AMD host, hardware walk emulated by QEMU TCG: {title}"):
            bench.record(name, emulated_world(bench, host, npt))


def why_not_emulated(bench: Bench) -> str:
    """Why the emulated host is left out of this run; empty when it is not."""
    wanted = bench.parameters["host"]
    if wanted == "auto" and bench.accelerator == "kvm":
        return "this machine has KVM, so that nothing needs to be emulated (HOST=npt runs it all the same)"
    return "" if wanted in ("auto", "npt") else f"the run was asked for HOST={wanted}"


def emulated_world(bench: Bench, host: Guest, npt: int) -> dict[str, Any]:
    """What the module says, what the probe of /dev/kvm counts, and what is counted around loops in a guest of this guest."""
    module = host.script("kvm_module.py", npt).record
    probe = host.kvm_probe(time_limit_s=LONG_S)
    nested = host.script("nested.py", input=json.dumps(wanted_loops(bench)), time_limit_s=LONG_S).record
    return {"module": module, "probe": probe, "drawn": drawn(probe), "nested": nested}


def drawn(probe: dict[str, Any]) -> dict[str, Any]:
    """The probe's counts for one operation, as they are drawn. (The checks compute theirs from the raw counts.)"""
    rows = probe["judged"]["rows"]
    return {
        "exits": [row for row in rows if row["counter"] == "exits"],
        "faults": [row for row in rows if row["phase"].startswith("swap")],
    }
