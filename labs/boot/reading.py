"""The boot lab's evidence, read: which boots there are of an arm, and what each said that it was."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from vmlab.lab import Evidence, EvidenceProblem, Record

from . import boots
from . import graph as graphs
from .boots import Boot
from .graph import Service

SEQUENTIAL, STARTPAR, LSB, NATIVE = "sysv-sequential", "sysv-startpar", "systemd-lsb", "systemd-native"
# What each arm must have been started with (beside what all have), and what must have been PID 1.
ARMS: Mapping[str, tuple[str, frozenset[str]]] = {
    SEQUENTIAL: ("/sbin/init", frozenset({"concurrency=none"})),
    STARTPAR: ("/sbin/init", frozenset()),
    LSB: ("/lib/systemd/systemd", frozenset({"bootlab.units=lsb"})),
    NATIVE: ("/lib/systemd/systemd", frozenset({"bootlab.units=native"})),
}
CONTROLS = ("chain", "burners")
"""The graphs in which parallel startup can gain nothing."""
TELLING = frozenset().union(*(words for _, words in ARMS.values()))
MAKEFILE = "Using makefile-style concurrent boot in runlevel"

TICK_S = 0.02
"""The guest's clock is read in hundredths of a second, before and after: two readings may be wrong by so much."""


STALLED = re.compile(r"rcu|soft lockup|blocked for more than|clocksource|watchdog|hrtimer: interrupt took|NMI", re.IGNORECASE)
"""What a kernel says of a machine that stands still. It may break a line of init's on the console in two."""


LONGEST_S = 1000.0
"""No service of a run takes longer: so long may none be that a prediction is made of."""


class LeftOut(Exception):
    """The run was asked not to boot what the check is about."""


def graph_of(evidence: Evidence, name: str = "services") -> list[Service]:
    """The services of a graph as they were described before the run."""
    plan = evidence["plan"]
    described = plan.record("graphs").record(name)
    plain: dict[str, Any] = {}
    for service in described.record("services"):
        each = described.record("services").record(service)
        kind = "sleep" if "sleep" in each else "burn"
        plain[service] = {kind: each.number(kind, minimum=0), "after": each.texts("after") if "after" in each else []}
    try:
        services = graphs.services({"services": plain}, plan.number("scale", minimum=0.01))
    except ValueError as exc:
        raise EvidenceProblem(f"{described.place}: {exc}") from exc
    if not services or max(each.cost_s for each in services) > LONGEST_S:
        raise EvidenceProblem(f"{described.place}: expected services, none of which takes longer than {LONGEST_S:.0f} s")
    return services


def cpus_of(evidence: Evidence, name: str = "services") -> int:
    """With how many processors a graph is booted."""
    return evidence["plan"].record("graphs").record(name).integer("cpus", minimum=1)


def plan_of(evidence: Evidence) -> Record:
    """What was going to be done. EvidenceProblem when that is not what the run was asked for."""
    plan, asked = evidence["plan"], evidence.parameters
    named = {name.strip() for name in asked.text("arms").split(",")}
    arms, often = set(ARMS), (asked.integer("repeats"), asked.integer("controls"))
    if asked.flag("quick"):
        arms, often = {SEQUENTIAL, NATIVE}, (3, 0)
    if "all" not in named:
        arms = named
    found = (plan.integer("repeats"), plan.integer("controls"))
    if set(plan.texts("arms", at_least=1)) != arms or found != often or plan.number("scale") != asked.number("scale"):
        raise EvidenceProblem(f"{plan.place}: expected the arms, repeats, controls and scale that the run was asked for")
    return plan


def records_of(evidence: Evidence, arm: str, graph: str = "services") -> list[Record]:
    """The measured boots of an arm. LeftOut when none was asked for; EvidenceProblem when there are not as many as were asked for."""
    plan = plan_of(evidence)
    main = graph == "services"
    many = plan.integer("repeats", minimum=1) if main else plan.integer("controls", minimum=0)
    if many == 0 or (main and arm not in plan.texts("arms", at_least=1)):
        raise LeftOut(f"the run left out {arm if main else 'the controls'} (ARMS=, QUICK=1 or CONTROLS=0)")
    source = evidence["boots" if main else "controls"]
    found = [each for each in source.records("boots", at_least=0) if each.text("arm") == arm and each.text("graph") == graph]
    if len(found) != many:
        raise EvidenceProblem(f"{source.place}.boots: expected {many} boots of {arm} with the graph {graph}, found {len(found)}")
    if sorted(each.integer("turn") for each in found) != list(range(1, many + 1)):
        raise EvidenceProblem(f"{source.place}.boots: expected one boot of {arm} with the graph {graph} in each of {many} turns")
    return found


def boots_of(evidence: Evidence, arm: str, graph: str = "services") -> list[Boot]:
    """The same, read. EvidenceProblem where one did not start exactly the services of its graph."""
    names = {each.name for each in graph_of(evidence, graph)}
    found: list[Boot] = [boots.read(each) for each in records_of(evidence, arm, graph)]
    for each in found:
        if set(each.begins) != names:
            raise EvidenceProblem(f"{each.place}: expected the services {', '.join(sorted(names))}, found {', '.join(sorted(each.begins))}")
    return found


def arms_of(evidence: Evidence) -> list[str]:
    """The arms of this run."""
    return [arm for arm in ARMS if arm in plan_of(evidence).texts("arms", at_least=1)]


def require_all_arms(evidence: Evidence, found: set[str]) -> None:
    """EvidenceProblem unless these are all the arms that were to be booted."""
    missing = [arm for arm in arms_of(evidence) if arm not in found]
    if missing:
        raise EvidenceProblem(f"expected a boot of each arm, found none of {', '.join(missing)}")


def is_sysv(arm: str) -> bool:
    """Whether an arm boots with SysV init. EvidenceProblem when there is no such arm."""
    if arm not in ARMS:
        raise EvidenceProblem(f"expected one of {', '.join(ARMS)}, found {arm}")
    return ARMS[arm][0] == "/sbin/init"


def measured_sysv(evidence: Evidence) -> list[Record]:
    """The measured boots with SysV init."""
    return [each for arm in arms_of(evidence) if is_sysv(arm) for each in records_of(evidence, arm)]


def all_boots(evidence: Evidence) -> list[tuple[str, Record]]:
    """Every boot of the run, those that do not count first, each with the name of the observation that has it."""
    return [(name, each) for name in ("warm_up", "boots", "controls") for each in evidence[name].records("boots", at_least=0)]


def contradictions(each: Record, arm: str, evidence: Evidence) -> list[str]:
    """What in a boot's own words speaks against its label."""
    init, words = ARMS[arm]
    graph, facts = each.text("graph"), each.record("facts")
    described = evidence["plan"].record("graphs").record(graph)
    pid1, given = facts.text("pid1"), set(facts.text("cmdline").split())
    runlevel = str(described.integer("runlevel"))
    wrong = [] if pid1.removeprefix("/usr") == init else [f"PID 1 is {pid1}"]
    # The default runlevel is not named: then it is /etc/inittab that says it.
    if given & TELLING != words or given & set("12345") != {runlevel} - {"2"} or f"init={init}" not in given:
        wrong.append(f"its command line is {facts.text('cmdline')!r}")
    if facts.text("cpus") != str(described.integer("cpus")):
        wrong.append(f"it has {facts.text('cpus')} processors")
    concurrent = f"{MAKEFILE} {runlevel}"
    if arm == STARTPAR and is_missing(each, concurrent):
        wrong.append("rc does not say that it starts services concurrently")
    if arm != STARTPAR and is_said(each, concurrent):
        wrong.append("rc says that it starts services concurrently")
    wrong += [f"a unit is from {origin}" for origin in sorted(origins(each, graph, evidence) - allowed_origins(arm))]
    return wrong


def is_said(each: Record, words: str) -> bool:
    """Whether a boot's console has these words."""
    return any(words in line.text("text") for line in each.records("console"))


def is_missing(each: Record, words: str) -> bool:
    """Whether a boot's console lacks these words. EvidenceProblem where the kernel of a machine that stood still may have broken them."""
    if is_said(each, words):
        return False
    stalled = [text for line in each.records("console") if STALLED.search(text := line.text("text"))]
    if stalled:
        raise EvidenceProblem(
            f"{each.place}.console: the kernel wrote of a machine that stood still between the lines of init: {stalled[0]}"
        )
    return True


def origins(each: Record, graph: str, evidence: Evidence) -> set[str]:
    """Where systemd has the units of the graph's services from; ``nowhere`` for one that it does not know, and under SysV for all."""
    units = {unit.text("Id"): unit for unit in each.records("units", at_least=0)}
    found = set()
    for service in graph_of(evidence, graph):
        unit = units.get(f"lab-{service.name}.service")
        source, file = (unit.text("SourcePath"), unit.text("FragmentPath")) if unit else ("", "nowhere")
        if unit and unit.text("ActiveState") != "active":
            found.add(f"{file}, and {unit.text('ActiveState')} when all should have been started")
        found.add("an LSB script" if source == f"/etc/init.d/lab-{service.name}" else file.rpartition("/")[0] or file)
    return found


def allowed_origins(arm: str) -> set[str]:
    """Where an arm's units come from."""
    return {LSB: {"an LSB script"}, NATIVE: {"/run/systemd/generator"}}.get(arm, {"nowhere"})


def too_early(each: Boot, graph: Sequence[Service]) -> list[str]:
    """Services that began before one that they depend on had ended, as ``shop before database``."""
    return [
        f"{service.name} before {name}"
        for service in graph
        for name in service.after
        if each.begins[service.name].guest_s < each.ends[name].guest_s - TICK_S
    ]


def too_short(each: Boot, graph: Sequence[Service]) -> list[str]:
    """Services that ended sooner than what they do takes, or burned less CPU time than they should."""
    short = []
    for service in graph:
        took = each.ends[service.name].guest_s - each.begins[service.name].guest_s
        spent = each.ends[service.name].cpu_s
        if took < service.cost_s - TICK_S or (service.kind == "burn" and spent < service.cost_s - TICK_S):
            short.append(service.name)
    return short
