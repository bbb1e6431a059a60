"""One byte under four names, and who translates them: the host looks at the guest's memory from outside at each stage."""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vmlab.bench import GUEST_PROBE_DIR, Bench, Guest, GuestError, HostError, part
from vmlab.lab import kvm

from . import growing as grow
from . import keeping
from .walk import FRAME, PAGE
from .worlds import SECOND_COPY_BYTES, WORLDS, World
from .writing import address, drawn, hexadecimal, page_of, told, walked
from .writing import text as text_of

# The processor that the marker's process binds itself to; everything else in the guest can have the other.
CPU = 0

# Others in the guest touch memory, too, and take the processor. Where they did much of it, it is looked at again, so often at most.
ATTEMPTS = 3

# What takes seconds takes minutes where the guest's processor is emulated on a machine that is busy with others.
LONG_S = 240.0
LOOPS_S = 600.0
# How long the probe may take there, before it says how far it came.
PROBE_S = 190


# The lab's own two guests first, then who walks the second set of page tables: on this machine, and on one that is emulated.


@part
def addresses(bench: Bench) -> None:
    """What this machine and the guests say of their addresses."""
    guests = {name: the(bench, name) for name in ("main", "other")}
    bench.record("machine", {"root": os.geteuid() == 0, "ram": ram()})
    bench.record("addresses", {name: guest.script("addresses.py").record for name, guest in guests.items()})


@part
def names(bench: Bench) -> None:
    """One byte under four names."""
    bench.record("chain_small", chain(bench, "main", "small"))
    bench.record("chain_large", chain(bench, "main", "large"))
    bench.record("chain_other", chain(bench, "other", "small"))


@part
def growing(bench: Bench) -> None:
    """Memory grows as it is touched."""
    pages, steps = int(bench.parameters["pages"]), int(bench.parameters["steps"])
    guest, arguments = the(bench, "main"), world_of(bench).touch
    measured = bench.quietest(ATTEMPTS, lambda: grow.growth(guest, arguments, pages, steps), noise=grow.others_moved)
    bench.record("growth", measured)


@part
def walking(bench: Bench) -> None:
    """Whether the tables are read for each access."""
    bench.record("kept", bench.quietest(ATTEMPTS, lambda: kept(bench), noise=keeping.disturbed))


@part
def misses(bench: Bench) -> None:
    """What a miss costs."""
    bench.record("chase", chase(bench))


@part
def counted(bench: Bench) -> None:
    """What KVM counts on this machine, for the probe and for loops in the lab's own guest."""
    if world_of(bench).another_machine:
        probe, counters = another_machine(bench)
    else:
        probe, counters = own_probe(bench), own_counters(bench, the(bench, "main"))
    bench.record("own_probe", probe)
    bench.record("own_counters", counters)


@part
def emulated(bench: Bench) -> None:
    """KVM on an emulated host, loaded twice: with nested paging and without, the same measurements each time."""
    skipped = why_not_emulated(bench)
    if skipped:
        for name in ("emulated_nested", "emulated_shadow"):
            bench.record(name, {"not_run": skipped})
    elif bench.parameters["host"] == "ept":
        emulated_intel_host(bench)
    else:
        emulated_amd_host(bench)


def world_of(bench: Bench) -> World:
    """The world that the run is in: the sound one, or one in which a claim is false."""
    return WORLDS[str(bench.parameters["world"])]


def the(bench: Bench, name: str) -> Guest:
    """The guest of that name, or the one that stands in for it in a broken world."""
    return bench.guest(world_of(bench).guests.get(name, name))


def ram() -> list[dict[str, str]]:
    """Where this machine has RAM, by /proc/iomem; nobody but root is told (all addresses are 0 then)."""
    rows = re.findall(r"(?m)^ *([0-9a-f]+)-([0-9a-f]+) : System RAM$", Path("/proc/iomem").read_text())
    return [{"start": hex(int(start, 16)), "end": hex(int(end, 16))} for start, end in rows if int(end, 16)]


# --- one byte under four names ----------------------------------------------------------------------------------------------------


def chain(bench: Bench, name: str, kind: str) -> dict[str, Any]:
    """A marker in the memory of a process of a guest, looked for at each stage; the other guest is where it must not be."""
    world, marker = world_of(bench), secrets.token_hex(32)
    strangers_name = "other" if name == "main" else "main"
    guest, stranger = the(bench, name), the(bench, strangers_name)
    view = guest.memory
    with ExitStack() as running:
        process = running.enter_context(
            guest.start("marker.py", marker, kind, CPU, *world.marker, *(world.large if kind == "large" else ()))
        )
        ready = process.read()
        seen: dict[str, Any] = {"guest": name, "kind": kind, "memory_bytes": view.memory_bytes, "marker": marker, "ready": ready}
        virtual, second, fs_base = (address(ready, each) for each in ("virtual", "second_virtual", "fs_base"))
        physical = (address(ready, "pagemap") & FRAME) * PAGE + virtual % PAGE
        with view.frozen_in(whose_tables(running, guest, world, fs_base)) as registers:
            # (Those that translation goes by; not the general ones.)
            by_name = {name: value for name, value in asdict(registers).items() if name != "general"}
            seen["registers"] = hexadecimal(by_name, but=("cpu", "cpl"))
            seen["levels"] = registers.levels
            seen["walk"] = walked(view.walk(registers, virtual))
            seen["second_before"] = walked(view.walk(registers, second))
            seen["monitor_physical"] = told(view.monitor_physical(registers, virtual))
            seen["physical_holds"] = text_of(view.physical(physical, len(marker)))
            seen["next_page_holds"] = text_of(view.physical(physical + PAGE, len(marker)))
            own = view.host_virtual(physical)
            # (In a broken world it is another QEMU that the host looks into, or another place or page in this one.)
            place = physical + (SECOND_COPY_BYTES if world.asks == "second_copy" else 0)
            looked_into = stranger.memory if world.asks == "another_qemu" else view
            host_virtual = own if (place, looked_into) == (physical, view) else looked_into.host_virtual(place)
            seen["host_virtual"] = told(host_virtual)
            if host_virtual is not None:
                table = address(seen["walk"]["steps"][-1], "entry_address")
                asked = (view.host_virtual(table) if world.asks == "another_page" else None) or host_virtual
                seen["host"] = in_the_host(looked_into, place, host_virtual, len(marker), asked)
                with copied(stranger.memory, physical, marker.encode()) if world.asks == "after_copying" else nullcontext():
                    there = in_the_stranger(stranger.memory, physical, host_virtual, len(marker))
                seen["stranger"] = {"guest": strangers_name, **there}
        seen["answer"] = answered(view, process, ready, own, fs_base)
    return seen


def whose_tables(running: ExitStack, guest: Guest, world: World, fs_base: int) -> int:
    """By which FS base the host knows the process whose tables it reads: the marker's own, but in a world where it meets another."""
    if world.asks != "another_process":
        return fs_base
    another = running.enter_context(guest.start("marker.py", secrets.token_hex(32), "small", CPU))
    return address(another.read(), "fs_base")


def in_the_host(view: Any, physical: int, host_virtual: int, size: int, asked: int) -> dict[str, Any]:
    """The two last stages: the byte as memory of QEMU's process, and the frame that this is in (whose page table entry is ``asked``)."""
    mapping = view.mapping(host_virtual)
    seen = {
        "holds": refusable(lambda: text_of(view.read(host_virtual, size))),
        "next_page_holds": refusable(lambda: text_of(view.read(host_virtual + PAGE, size))),
        "mapping": hexadecimal(asdict(mapping), but=("name", "resident_bytes", "own_bytes", "huge_bytes")) if mapping else None,
        "page": refusable(lambda: page_of(view, asked)),
    }
    frame = seen["page"].get("frame")
    if frame is not None:
        host_physical = int(frame, 16) * PAGE + host_virtual % PAGE
        seen["host_physical"] = hex(host_physical)
        seen["monitor_host_physical"] = told(view.monitor_host_physical(physical))
        seen["frame_holds"] = refusable(lambda: text_of(view.host_physical(host_physical, size)))
    return seen


def in_the_stranger(view: Any, physical: int, host_virtual: int, size: int) -> dict[str, Any]:
    """What another guest has at the same addresses."""
    own = view.host_virtual(physical)
    return {
        "physical_holds": text_of(view.physical(physical, size)),
        "host_virtual_of_physical": told(own),
        "holds": refusable(lambda: text_of(view.read(host_virtual, size))),
        "page_of_physical": refusable(lambda: page_of(view, own)) if own is not None else None,
    }


@contextmanager
def copied(view: Any, physical: int, content: bytes) -> Iterator[None]:
    """For the length of a block a guest that stands still has other bytes at an address, and then its own again."""
    with view.frozen():
        place = view.host_virtual(physical)
        kept = view.read(place, len(content))
        view.write(place, content)
        try:
            yield
        finally:
            view.write(place, kept)


def answered(view: Any, process: Any, ready: Mapping[str, Any], host_virtual: int | None, fs_base: int) -> dict[str, Any]:
    """The way back: the host stores into its own memory, the guest's process sees it. In between the process touches its second page."""
    if host_virtual is None:
        return {"refused": "QEMU names no address of its own for this page"}
    beside = host_virtual - address(ready, "virtual")
    seen: dict[str, Any] = {"sent": secrets.token_hex(8)}
    try:
        view.write(address(ready, "go") + beside, b"\1")
    except HostError as exc:
        return {"refused": exc.message}
    seen["touched"] = process.read()
    with view.frozen_in(fs_base) as registers:
        seen["second_after"] = walked(view.walk(registers, address(ready, "second_virtual")))
        # In one piece and while the processor stands still: the process looks at the first byte.
        view.write(address(ready, "answer") + beside, seen["sent"].encode())
    seen["answered"] = process.read()
    process.finish()
    return seen


# --- the TLB --------------------------------------------------------------------------------------------------------------------------


def kept(bench: Bench) -> dict[str, Any]:
    """Whether the page tables are read for each access: by the bit that this would leave behind."""
    guest = the(bench, "main")
    with guest.start("keep.py", CPU, *world_of(bench).keep) as process:
        try:
            return keeping.kept(guest.memory, process)
        except HostError as exc:
            return {"refused": exc.message}


def chase(bench: Bench) -> dict[str, Any]:
    """The same chase from pointer to pointer in the guest and on this machine itself; nothing where the processor is emulated."""
    if bench.accelerator != "kvm":
        return {"not_run": "its processor is emulated, and so are the costs of a translation"}
    words = [int(bench.parameters[name]) for name in ("chase_mib", "samples", "chase_steps")]
    guest, few = the(bench, "large"), world_of(bench).chase
    measured = bench.quietest(ATTEMPTS, lambda: guest.script("chase.py", *words, *few, time_limit_s=LONG_S).record)
    base = guest.memory.host_virtual(0)
    mapping = guest.memory.mapping(base) if base is not None else None
    backed = {name: getattr(mapping, name) for name in ("resident_bytes", "huge_bytes")} if mapping else {}
    return {"guest": measured, "backed": backed, "native": bench.here("chase.py", *words, time_limit_s=LONG_S)}


# --- KVM's counters around loops of the lab's own guest (check H) ---------------------------------------------------------------------


def own_probe(bench: Bench) -> dict[str, Any]:
    """What the probe of this machine's own /dev/kvm counts; nothing where KVM does not run the guests."""
    if bench.accelerator != "kvm":
        return {"not_run": "KVM runs no guest on this machine"}
    return bench.quietest(ATTEMPTS, lambda: bench.probe("kvm"), noise=unsettled, quiet_below=kvm.TOLERANCE)


def unsettled(probe: Mapping[str, Any]) -> float:
    """How far the probe's counts for one operation are from whole numbers, at most; 1 when it did not come to its end.

    What an operation costs is a whole number of exits or faults. What is over came of other work on that machine.
    """
    counts = [row["measured"] for row in probe["judged"]["rows"]]
    return 1.0 if None in counts else float(round(max(abs(count - round(count)) for count in counts), 4))


def own_counters(bench: Bench, guest: Guest) -> dict[str, Any]:
    """Each loop's result, with KVM's counters before and after it; why there are none, where there are none."""
    if bench.accelerator != "kvm":
        return {"not_run": f"this guest's processor is emulated ({bench.accelerator.upper()}), so that KVM counts nothing"}
    try:
        counters = guest.kvm_statistics()
    except GuestError as exc:
        return {"not_run": f"QEMU does not tell what KVM counts, which it does from version 7.1 on ({exc.message})"}
    if not counters:
        return {"not_run": "this machine's kernel does not tell what KVM counts, which it does from Linux 5.14 on"}
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


def another_machine(bench: Bench) -> tuple[dict[str, Any], dict[str, Any]]:
    """For a broken world: the same of the emulated host, in the place of this machine."""
    host = bench.guest("amd_host")
    load(host, world_of(bench).nested)
    return probed(bench, host), {"loops": loops_in_a_guest_of(bench, host)["loops"]}


def wanted_loops(bench: Bench) -> list[dict[str, Any]]:
    """What loops.py is asked for, by the lab's parameters."""
    pages, rounds, switches = (bench.parameters[name] for name in ("pages", "rounds", "switches"))
    return [
        {"loop": "idle"},
        {"loop": "touch", "pages": pages},
        {"loop": "remap", "pages": pages, "rounds": rounds},
        {"loop": "switch", "rounds": switches},
    ]


# --- the emulated host: nested paging, and shadow paging as its control -----------------------------------------------------------------


def emulated_intel_host(bench: Bench) -> None:
    """Bochs, whose emulated processor is Intel's. It is slow, so that it runs the probe and nothing else, both times in one boot."""
    host = bench.guest("intel_host")
    with bench.phase("an emulated Intel host, hardware walk emulated by Bochs: nested paging, then shadow page tables, the control"):
        settings = [f"ept={int(on)}" for _, on, _ in settings_of(bench)]
        worlds = host.script("both_worlds.py", GUEST_PROBE_DIR, "kvm_intel", *settings).records
    skipped = {"not_run": "Bochs, which is slow, runs the probe alone"}
    for name, world in zip(("emulated_nested", "emulated_shadow"), worlds, strict=True):
        probe = kvm.judged(kvm.read(world["probe"]))
        parts = {"emulator": host.accelerator, "module": world["module"], "probe": probe, "drawn": drawn(probe)}
        bench.record(name, {**parts, "faults": skipped, "nested": skipped})


def emulated_amd_host(bench: Bench) -> None:
    """One guest that can run guests, its AMD processor emulated by QEMU."""
    host = bench.guest("amd_host")
    for name, on, title in settings_of(bench):
        with bench.phase(f"an emulated AMD host, hardware walk emulated by QEMU TCG: {title}"):
            bench.record(name, emulated_world(bench, host, on))


def settings_of(bench: Bench) -> tuple[tuple[str, bool, str], tuple[str, bool, str]]:
    """The two settings of KVM's module: by which name each is recorded, whether nested paging is on, and its title."""
    world = world_of(bench)
    return ("emulated_nested", world.nested, "nested paging"), ("emulated_shadow", world.shadow, "shadow page tables, the control")


def why_not_emulated(bench: Bench) -> str:
    """Why the emulated host is left out of this run; empty when it is not."""
    wanted = bench.parameters["host"]
    if wanted == "auto" and bench.accelerator == "kvm":
        return "this machine has KVM, so that nothing needs to be emulated (HOST=npt runs it all the same)"
    return f"the run was asked for HOST={wanted}" if wanted == "none" else ""


def emulated_world(bench: Bench, host: Guest, on: bool) -> dict[str, Any]:
    """What the module says, what the probe of /dev/kvm counts, and what is counted around loops in a guest of this guest."""
    module = load(host, on)
    probe = bench.quietest(ATTEMPTS, lambda: probed(bench, host), noise=unsettled, quiet_below=kvm.TOLERANCE)
    # The probe again, once more measured, this time with the kernel's trace of the faults: as many as its last phase can have.
    reads = probe["phases"].get("swap_walk", {"n": 1})["n"]
    most = reads * kvm.expected("nested", "pf_taken")["swap_walk"]
    with loaded_the_other_way(host, on) if world_of(bench).traces_the_other else nullcontext():
        faults = host.script("walk_faults.py", GUEST_PROBE_DIR, most, PROBE_S, time_limit_s=LONG_S).record
    nested = loops_in_a_guest_of(bench, host)
    return {"emulator": "QEMU TCG", "module": module, "probe": probe, "drawn": drawn(probe), "faults": faults, "nested": nested}


def load(host: Guest, on: bool) -> dict[str, Any]:
    """Load KVM's module with nested paging or without; what it says of itself then."""
    return host.script("kvm_module.py", "kvm_amd", f"npt={int(on)}", time_limit_s=LONG_S).record


def probed(bench: Bench, host: Guest) -> dict[str, Any]:
    """What the probe of the emulated host's /dev/kvm counts; in a broken world that of a guest whose instructions KVM decodes."""
    probe = host.probe("kvm", time_limit_s=LONG_S)
    if not world_of(bench).decodes:
        return probe
    return kvm.judged(kvm.read(host.script("decoded.py", GUEST_PROBE_DIR, PROBE_S, time_limit_s=LONG_S).record))


def loops_in_a_guest_of(bench: Bench, host: Guest) -> dict[str, Any]:
    """What KVM counts around loops in a guest that the emulated host runs."""
    return host.script("nested.py", input=json.dumps(wanted_loops(bench)), time_limit_s=LOOPS_S).record


@contextmanager
def loaded_the_other_way(host: Guest, on: bool) -> Iterator[None]:
    """For the length of a block KVM's module is loaded with the setting that it should not have."""
    load(host, not on)
    yield
    load(host, on)


def refusable(look: Callable[[], Any]) -> Any:
    """What a look shows, or why the host's kernel does not allow it."""
    try:
        return look()
    except HostError as exc:
        return {"refused": exc.message}
