"""One disk, many cold boots: the same services under two init systems, sequential and parallel; only the kernel's command line differs."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Literal

from vmlab.bench import Bench, FrozenDisk, Guest, UsageError, part
from vmlab.lab import EvidenceProblem, Record

from . import boots as reading
from . import graph as model
from .reading import CONTROLS
from .worlds import WORLDS, World

# An arm is an init system and what is added to the kernel's command line. These are all the differences between arms.
ARMS: dict[str, tuple[Literal["sysv", "systemd"], str]] = {
    "sysv-sequential": ("sysv", "concurrency=none"),
    "sysv-startpar": ("sysv", ""),
    "systemd-lsb": ("systemd", "bootlab.units=lsb"),
    "systemd-native": ("systemd", "bootlab.units=native"),
}
QUICK = ("sysv-sequential", "systemd-native")
# What each boot is given beside that: cloud-init has done its work on the first boot, and would cost each later one seconds of CPU time.
ALWAYS = "cloud-init=disabled"
THEN_OFF = "bootlab.then=poweroff"
HOME = "/usr/lib/bootlab"
# What a boot takes beside its services, and the first one with its installation, on a slow emulated machine: 8 s and 60 s were measured.
BOOT_S, FIRST_S = 12.0, 240.0
# A boot that takes longer than this beside its services does not come to an end.
BOOT_LIMIT_S = 240.0
# Console lines that tell what a boot was; of all others, so many of the first are kept.
TELLING = ("vmlab-initrd:", "INIT:", "concurrent boot")
OTHER_LINES = 40


@dataclass
class Plan:
    """What is going to be booted, and the boots so far that the report's pictures show."""

    graphs: Any
    arms: list[str]
    repeats: int
    controls: int
    scale: float
    world: World
    boots: list[dict[str, Any]] = field(default_factory=list)
    spare: int = 0
    """So many boots may still be made in the place of such as this machine disturbed."""

    def takes_s(self, graph: str, arm: str) -> float:
        """How long the services of a graph take in an arm, as the graph says."""
        described = self.graphs[graph]
        return float(model.PREDICT[arm](model.services(described, self.scale), described["cpus"]))

    def foreseen_s(self) -> float:
        """About how long the whole run takes."""
        first = sum(BOOT_S + self.takes_s("chain", arm) for arm in self.arms)
        turns = sum(BOOT_S + self.takes_s("services", arm) for arm in self.arms)
        controls = sum(BOOT_S + self.takes_s(graph, arm) for graph in CONTROLS for arm in QUICK)
        return FIRST_S + first + self.repeats * turns + self.controls * controls


@dataclass(frozen=True)
class Frozen:
    """The disk that all boots are from, and its digest before the first of them."""

    disk: FrozenDisk
    digest: str


# Nothing is judged here. What several parts need is made by the first of them: the plan, the guest, the frozen disk.


def planned(bench: Bench) -> Plan:
    """What this run is asked for. UsageError when that takes longer than a run may."""
    parameters = bench.parameters
    arms, repeats, controls = chosen(bench)
    scale, world = float(parameters["scale"]), WORLDS[str(parameters["world"])]
    plan = Plan(bench.data("graph.yaml"), arms, repeats, controls, scale, world, spare=repeats)
    limit_s = float(bench.data("lab.yaml")["time_limit_s"])
    if plan.foreseen_s() > limit_s:
        raise UsageError(
            f"so many boots would take about {plan.foreseen_s() / 60:.0f} minutes, and a run of this lab is ended after {limit_s / 60:.0f}",
            hint="ask for fewer REPEATS or CONTROLS, for fewer ARMS, or for a smaller SCALE",
        )
    return plan


def installed(bench: Bench) -> Guest:
    """The guest whose disk is booted later, with all services in it."""
    plan = bench.once(planned)
    guest = bench.guest(cloud_init=installation(bench, plan.graphs))
    if plan.world.before:
        guest.run(plan.world.before)
    return guest


def frozen(bench: Bench) -> Frozen:
    """Its disk; from now on the guest itself can do nothing more."""
    guest, world = bench.once(installed), bench.once(planned).world
    with bench.phase("shutting down and freezing the disk"):
        if world.after:
            guest.run(world.after)
        disk = guest.freeze()
        return Frozen(disk, disk.digest())


@part
def prediction(bench: Bench) -> None:
    """Predicting from the graph."""
    bench.record("plan", predicted(bench.once(planned)))


@part
def files(bench: Bench) -> None:
    """What SysV init will read."""
    bench.record("sysv", bench.once(installed).script("sysv.py").record)


@part
def page_unit(bench: Bench) -> None:
    """The unit file of the course page."""
    guest, world = bench.once(installed), bench.once(planned).world
    bench.record("page_unit", guest.script("page_unit.py", *world.page_unit, time_limit_s=900).record)


@part
def first_boots(bench: Bench) -> None:
    """First boots, not counted.

    What the host reads for the first time is in its memory afterwards. These boots also go on to the end, and switch themselves off.
    """
    bench.record("warm_up", {"boots": [boot(bench, "chain", arm, 0, off=True) for arm in bench.once(planned).arms]})


@part
def measured_boots(bench: Bench) -> None:
    """Measuring."""
    plan = bench.once(planned)
    boots = [measured(bench, "services", arm, turn) for turn in range(1, plan.repeats + 1) for arm in rotated(plan.arms, turn)]
    plan.boots += boots
    bench.record("boots", {"boots": boots})


@part
def control_boots(bench: Bench) -> None:
    """Controls: graphs in which parallel startup can gain nothing."""
    plan = bench.once(planned)
    turns = [(graph, turn) for turn in range(1, plan.controls + 1) for graph in CONTROLS]
    boots = [measured(bench, graph, arm, turn) for graph, turn in turns for arm in rotated(QUICK, turn)]
    plan.boots += boots
    bench.record("controls", {"boots": boots})


@part
def afterwards(bench: Bench) -> None:
    """The disk as it is now, and what the pictures show."""
    plan, disk = bench.once(planned), bench.once(frozen)
    bench.record("disk", {"sha256_before": disk.digest, "sha256_after": disk.disk.digest()})
    bench.record("charts", charts(plan.boots, plan.graphs, plan.scale))


def chosen(bench: Bench) -> tuple[list[str], int, int]:
    """The arms, how often each is measured, and how often each control."""
    quick, asked = bool(bench.parameters["quick"]), [name.strip() for name in str(bench.parameters["arms"]).split(",")]
    arms = list(QUICK if quick else ARMS) if "all" in asked else [name for name in ARMS if name in asked]
    return arms, 3 if quick else int(bench.parameters["repeats"]), 0 if quick else int(bench.parameters["controls"])


def predicted(plan: Plan) -> dict[str, Any]:
    """What is going to be done, and what the graphs say will come out."""
    takes = {"services": {arm: plan.takes_s("services", arm) for arm in plan.arms}}
    if plan.controls:
        takes |= {graph: {arm: plan.takes_s(graph, arm) for arm in QUICK} for graph in CONTROLS}
    asked = {"graphs": plan.graphs, "scale": plan.scale, "arms": plan.arms, "repeats": plan.repeats, "controls": plan.controls}
    return asked | {"predicted_s": takes}


def rotated(arms: Sequence[str], turn: int) -> list[str]:
    """The arms in another order each turn, so that none is always first or after the same other one."""
    start = turn % len(arms)
    return [*arms[start:], *arms[:start]]


def installation(bench: Bench, graphs: Any) -> dict[str, Any]:
    """The cloud-config that puts all services into both init systems on the first boot."""
    scripts = ("service.sh", "report.sh", "inittab.sh", "install.py")
    files = {f"{HOME}/{name}": bench.render(f"templates/{name}") for name in scripts}
    files["/etc/systemd/system-generators/bootlab"] = bench.render("templates/generator.sh")
    for graph, described in graphs.items():
        services = model.services(described, float(bench.parameters["scale"]))
        last = model.Service(f"ready-{graph}", "ready", 0.0, tuple(each.name for each in services))
        for each in [*services, last]:
            # A burner's cost is counted in the kernel's clock ticks, of which user space sees a hundred a second (time(7), USER_HZ).
            values = {"service": each, "graph": graph, "cost": round(each.cost_s * 100) if each.kind == "burn" else each.cost_s}
            after = [f"lab-{name}" for name in each.after]
            units = " ".join(f"{name}.service" for name in after)
            runlevel = described["runlevel"]
            files[f"/etc/init.d/lab-{each.name}"] = bench.render("templates/lsb.j2", **values, after=" ".join(after), runlevel=runlevel)
            files[f"{HOME}/native-{runlevel}/lab-{each.name}.service"] = bench.render("templates/unit.j2", **values, after=units)
    return {
        "write_files": [{"path": path, "content": text} for path, text in files.items()],
        "runcmd": [["python3", f"{HOME}/install.py"]],
    }


def measured(bench: Bench, graph: str, arm: str, turn: int) -> dict[str, Any]:
    """A boot that counts; where this machine disturbed it, it is made again, as long as the plan has boots to spare. All are kept."""
    plan = bench.once(planned)
    kept = bench.quietest(2 if plan.spare else 1, lambda: boot(bench, graph, arm, turn), noise=reading.noise_of)
    plan.spare -= len(kept["attempts"]) - 1
    return kept


def boot(bench: Bench, graph: str, arm: str, turn: int, *, off: bool = False) -> dict[str, Any]:
    """One cold boot of one arm, as it is kept: what was said on both ports, taken apart into words."""
    init, arm_args = ARMS[arm]
    plan, disk = bench.once(planned), bench.once(frozen).disk
    described = plan.graphs[graph]
    other_arm, other_cpus = plan.world.cpus
    cpus = other_cpus if off and arm == other_arm else described["cpus"]
    # Without a runlevel on the command line SysV init enters the one that /etc/inittab names, which is 2.
    runlevel = "" if described["runlevel"] == 2 else str(described["runlevel"])
    words = " ".join(word for word in (ALWAYS, runlevel, arm_args, THEN_OFF if off else "") if word)
    with bench.phase(f"{arm}, {graph}" + (f", turn {turn}" if turn else "")):
        limit_s = BOOT_LIMIT_S + 3 * plan.takes_s(graph, arm)
        until = None if off else "report ends"
        seen = bench.cold_boot(disk, init=init, kernel_args=words, cpus=cpus, until=until, time_limit_s=limit_s)
    marks, facts, units, rest = parse(seen["port"])
    kept = {"arm": arm, "graph": graph, "turn": turn, "marks": marks, "facts": facts, "units": units, "rest": rest}
    kept |= {"console": console(seen["console"]), "noise": seen["noise"], "argv": seen["argv"]}
    return kept | ({"broken": seen["broken"]} if seen["broken"] else {})


def console(lines: Sequence[Any]) -> list[Any]:
    """The lines of the console that are kept: all that tell what the boot was, however much the kernel said between them."""
    return [line for number, line in enumerate(lines) if number < OTHER_LINES or any(word in line["text"] for word in TELLING)]


def parse(lines: Sequence[Any]) -> tuple[list[dict[str, Any]], dict[str, str], list[dict[str, str]], list[str]]:
    """The lines of the port: marks, facts about the boot, systemd's units, and whatever is none of these (cut short)."""
    marks: list[dict[str, Any]] = []
    facts: dict[str, str] = {}
    units: list[dict[str, str]] = []
    rest: list[str] = []
    for line in lines:
        word, _, text = line["text"].partition(" ")
        mark = re.fullmatch(r"(\S+) (\d+\.\d+)(?: (\d+) (\d+))?", text.strip())
        if word in ("begin", "end", "stop", "inittab") and mark:
            name, clock, ticks, work = mark.groups()
            spent = {"cpu_s": int(ticks) / 100, "work": int(work)} if ticks else {}
            marks.append({"event": word, "service": name, "host_s": line["at_s"], "guest_s": float(clock), **spent})
        elif word == "fact":
            name, _, value = text.partition(" ")
            facts[name] = value
        elif word == "unit" and "=" in text:
            name, _, value = text.partition("=")
            if name == "Id" or not units or name in units[-1]:
                units.append({})
            units[-1][name] = value
        elif line["text"].strip() and not line["text"].startswith("report ends"):
            rest.append(line["text"][:200])
    return marks, facts, units, rest[:40]


def charts(kept: Sequence[Any], graphs: Any, scale: float) -> dict[str, Any]:
    """What the report's pictures and questions show; no check reads it. A boot that cannot be read is in no picture."""
    boots = []
    for number, each in enumerate(kept):
        with contextlib.suppress(EvidenceProblem):
            boots.append(reading.read(Record(f"boots[{number}]", each)))
    main = [each for each in boots if each.graph == "services"]
    arms = {arm: those for arm in ARMS if (those := [each for each in main if each.arm == arm])}
    services = model.services(graphs["services"], scale)
    typical = {arm: reading.in_the_middle(those) for arm, those in arms.items()}
    phases = {arm: each.phases() for arm, each in typical.items()}
    debians = [each.at_once for each in arms.get("sysv-startpar", [])]
    return {
        "gantt": {arm: bars(each) for arm, each in typical.items()},
        "predicted": [{"arm": arm, "seconds": model.PREDICT[arm](services, graphs["services"]["cpus"])} for arm in arms],
        "measured": [{"arm": arm, "seconds": each.services_s} for arm, those in arms.items() for each in those],
        "whole": [{"arm": arm, "seconds": each.whole_s} for arm, those in arms.items() for each in those],
        "phases": {name: [{"arm": arm, "seconds": took[name]} for arm, took in phases.items()] for name in reading.PHASES},
        "controls": [{"arm": f"{each.graph}, {each.arm}", "seconds": each.services_s} for each in boots if each not in main],
        "sequential_s": median_s(boots, "services", QUICK[0]),
        "native_s": median_s(boots, "services", QUICK[1]),
        "speedup": ratio(median_s(boots, "services", QUICK[0]), median_s(boots, "services", QUICK[1])),
        "one_cpu_speedup": ratio(median_s(boots, "burners", QUICK[0]), median_s(boots, "burners", QUICK[1])),
        "debians_way": ("several at a time" if min(debians) > 1 else "one after another") if debians else None,
    }


def median_s(boots: Sequence[Any], graph: str, arm: str) -> float | None:
    """How long the services took in the median."""
    took = [float(each.services_s) for each in boots if each.graph == graph and each.arm == arm]
    return round(median(took), 2) if took else None


def ratio(slow: float | None, quick: float | None) -> float | None:
    """How many times as long one takes as the other."""
    return round(slow / quick, 2) if slow and quick else None


def bars(boot_: Any) -> list[dict[str, Any]]:
    """One row a service, counted from the first one's begin."""
    return [
        {"service": name, "begin_s": round(mark.guest_s - boot_.first_s, 2), "end_s": round(boot_.ends[name].guest_s - boot_.first_s, 2)}
        for name, mark in boot_.begins.items()
    ]
