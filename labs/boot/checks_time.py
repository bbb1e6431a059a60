"""In which order the services ran, how long they took, and whether that is what the graph predicts.

A time is judged by its confidence interval: inside a bound as a whole, it passes; beyond it as a whole, it fails; across it, nothing is
decided. A failure on a machine that was busy with other things is no failure either.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from vmlab.lab import (
    Evidence,
    EvidenceProblem,
    Interval,
    Verdict,
    VerdictKind,
    check,
    failed,
    inconclusive,
    median_interval,
    not_observable,
    passed,
    ratio_interval,
)

from . import boots, reading
from . import graph as graphs
from .boots import Boot
from .graph import Service

NEAR = 0.2
"""How far from its prediction a time may be. The prediction counts what the services do, not what it costs to start them; that comes on
top, and is up to a tenth of a second a service where the processor is emulated."""
NOTHING = 0.15
"""What counts as nothing gained: two arms differ by what starting the services costs, in either direction."""
FEWEST = 3
"""So many boots make an interval."""
START_S = 0.2
"""What starting a service may cost on a slow machine. Where it costs less than this and the services still take too long for the
prediction, they are too short for this machine, and no wrong is done by anyone."""


@dataclass(frozen=True)
class Asked:
    """What an interval is held against, ``low`` to ``high`` in ``unit``, and what to say if it is so and if not."""

    low: float
    high: float
    unit: str
    true: str
    false: str

    def holds(self, value: float) -> bool:
        """Whether a value lies within the bounds."""
        return self.low <= value <= self.high

    @property
    def bounds(self) -> str:
        """In words."""
        least = f"{self.low:.2f} to" if self.low > float("-inf") else "at most"
        return f"{least} {self.high:.2f} {self.unit}"


@dataclass(frozen=True)
class Excuse:
    """Why a time beyond its bounds decides nothing, and what to do about it."""

    why: str
    hint: str


TOO_SHORT = Excuse("the services are too short for what it costs to start one here", "make them longer: SCALE=3")
STALLED = Excuse(
    "another service was slow in each boot, as on a machine that stands still now and then",
    "run it again while the machine does nothing else, and look whether it swaps",
)


def judged(found: Interval, asked: Asked, measured: Sequence[Boot], seen: str, excuse: Excuse | None) -> Verdict:
    """The verdict on an interval that these boots gave; ``seen`` is what else to tell. ``excuse`` holds for one beyond the bounds."""
    noise = boots.disturbed(measured)
    said = f"{found} {asked.unit}, with the bootstrap's 95 % interval; {seen}; disturbance of this machine {noise:.0%}"
    where = found.against(asked.low, asked.high)
    if where == "inside":
        noisy = " (A noisy run: this machine was busy with other things.)" if noise > boots.NOISY else ""
        return passed(asked.true + noisy, expected=asked.bounds, measured=said)
    if where == "across":
        excuse = Excuse("the interval lies across a bound", "measure more often: REPEATS=10, on a machine that does nothing else")
    elif noise > boots.NOISY:
        excuse = Excuse("this machine was busy with other things meanwhile", "run it again while the machine does nothing else")
    if excuse:
        return inconclusive(f"Nothing is decided: {excuse.why}.", expected=asked.bounds, measured=said, hint=excuse.hint)
    hint = "the Gantt chart shows which service began late, or ran for longer than graph.yaml says"
    return failed(asked.false, expected=asked.bounds, measured=said, hint=hint)


def waits_for(graph: Sequence[Service], arm: str, found: Sequence[Boot]) -> dict[str, Sequence[str]]:
    """What each service of an arm waits for, in an order that puts it behind that: what it depends on, or the one before it."""
    if arm != reading.SEQUENTIAL:
        return {each.name: each.after for each in graph}
    order = sorted(found[0].begins, key=lambda name: found[0].begins[name].guest_s)
    return {name: (before,) if before else () for before, name in pairwise(["", *order])}


@dataclass(frozen=True)
class Arm:
    """The boots of an arm with one graph that count, and what the graph predicts for them."""

    name: str
    graph: Sequence[Service]
    found: Sequence[Boot]
    predicted_s: float

    @property
    def took_s(self) -> list[float]:
        """How long the services took in each boot, by the guest's clock."""
        return [each.services_s for each in self.found]

    @property
    def steady_s(self) -> float:
        """How long they would have taken without what hit only some boots."""
        return boots.without_stalls_s(self.found, waits_for(self.graph, self.name, self.found))

    @property
    def is_slow(self) -> bool:
        """Whether they took longer than predicted, and no longer than a slow machine may take to start them."""
        return 0 <= median_interval(self.took_s).middle - self.predicted_s < START_S * len(self.graph)


def arm_of(evidence: Evidence, name: str, graph: str = "services") -> Arm:
    """The boots of an arm. LeftOut when there are none; EvidenceProblem when its clocks disagree, or its graph takes no time."""
    services = reading.graph_of(evidence, graph)
    predicted = graphs.PREDICT[name](services, reading.cpus_of(evidence, graph))
    if predicted <= 0:
        raise EvidenceProblem(f"plan.graphs.{graph}: expected services that take time")
    found = boots.undisturbed(reading.boots_of(evidence, name, graph), FEWEST)
    for each in found:
        apart = abs(each.services_s - each.services_by_host_s)
        if apart > max(0.1 * predicted, 0.3):
            raise EvidenceProblem(f"{each.place}: the guest's clock and the host's differ by {apart:.2f} s, so neither can be believed")
    return Arm(name, services, found, predicted)


def written_wrongly(evidence: Evidence, arm: Arm, graph: str = "services") -> Verdict | None:
    """A failure when what was written down before the run is not what the graph predicts."""
    written = evidence["plan"].record("predicted_s").record(graph).number(arm.name)
    if abs(written - arm.predicted_s) <= 0.01:
        return None
    return failed(
        "The prediction that was written down is not what the graph gives.",
        expected=f"{arm.predicted_s:.2f} s",
        measured=f"{written:.2f} s",
        hint="compare plan.predicted_s in the evidence with what plan.graphs gives by hand",
    )


@check(points=1, claim="S5", after="each_arm_is_what_it_says")
def truly_sequential_is_one_at_a_time(evidence: Evidence) -> Verdict:
    """Started one after another, no two services overlap. Debian's SysV init does that only when the kernel's command line says
    concurrency=none.

    By the guest's clock and by the host's, in every boot of the arm and in its controls. Each service must also have taken the time, or
    the CPU time, that the graph says: services that do nothing cannot overlap.
    """
    try:
        found = {"services": reading.boots_of(evidence, reading.SEQUENTIAL)}
    except reading.LeftOut as out:
        return not_observable(f"{out}.")
    if reading.plan_of(evidence).integer("controls") > 0:
        found |= {graph: reading.boots_of(evidence, reading.SEQUENTIAL, graph) for graph in reading.CONTROLS}
    overlaps = [what for those in found.values() for each in those for what in overlapping(each)]
    for graph, those in found.items():
        services = reading.graph_of(evidence, graph)
        overlaps += [f"{name} took no time" for each in those for name in reading.too_short(each, services)]
    main = found["services"]
    count = sum(len(those) for those in found.values())
    measured = f"{len(overlaps)} overlaps in {count} boots, {len(main)} of them with {len(main[0].begins)} services"
    measured += f": {overlaps[0]}" if overlaps else ""
    if overlaps:
        return failed(
            "Services of the sequential arm ran at the same time, or did nothing.",
            expected="0 overlaps",
            measured=measured,
            hint="look for bars above each other in the first panel of the Gantt chart: which script did not wait until its work was done?",
        )
    return passed("Each service began when the one before had ended.", expected="0 overlaps", measured=measured)


def overlapping(each: Boot) -> list[str]:
    """Services that began while another ran, by either clock, as ``mail in keys``."""
    ordered = sorted((mark.guest_s, each.ends[name].guest_s, name) for name, mark in each.begins.items())
    arrived = sorted((mark.host_s, each.ends[name].host_s, name) for name, mark in each.begins.items())
    found = [f"{b[2]} in {a[2]}" for a, b in pairwise(ordered) if b[0] < a[1] - reading.TICK_S]
    return found + [f"{b[2]} in {a[2]}" for a, b in pairwise(arrived) if b[0] < a[1]]


def one_by_one(found: Sequence[Boot]) -> Verdict | None:
    """What it means that in some of these boots no two services ran at the same time; None when in each they did.

    On a machine that is slow to start one, the one before may have ended by then.
    """
    alone = [each for each in found if each.at_once < 2]
    if not alone:
        return None
    measured = f"one at a time in {len(alone)} of {len(found)} boots"
    if all(each.noise > boots.NOISY for each in alone):
        hint = "run it again while the machine does nothing else"
        return inconclusive("No two services ran at once, on a machine that was busy with other things.", measured=measured, hint=hint)
    return failed(
        "The services were started one by one.",
        expected="at least 2 at once",
        measured=measured,
        hint="look at this arm in the Gantt chart, and at the files by which it knows what may run at the same time (sysv in the evidence)",
    )


@check(points=1, claim="S5", after="each_arm_is_what_it_says")
def debian_starts_in_parallel_by_default(evidence: Evidence) -> Verdict:
    """Debian's SysV init does not start services one after another: its rc script hands them to startpar, which runs several at a time.

    How many ran at the same moment is counted from the marks. It is never more than startpar allows itself: 4 for each processor, less one
    for itself. And the files must be those of a parallel boot: rc's call of startpar, and the three that hold the dependencies.
    """
    try:
        found = reading.boots_of(evidence, reading.STARTPAR)
    except reading.LeftOut as out:
        return not_observable(f"{out}.")
    sysv, cpus = evidence["sysv"], reading.cpus_of(evidence)
    depends = sysv.record("depend_bytes")
    missing = [name for name in depends if depends.integer(name, minimum=0) == 0]
    if not list(depends):
        raise EvidenceProblem("sysv.depend_bytes: expected the sizes of the files with the dependencies")
    limit = graphs.PER_CPU * cpus - graphs.ITSELF
    most = [each.at_once for each in found]
    roots = sum(not each.after for each in reading.graph_of(evidence))
    measured = f"at most {min(most)} to {max(most)} at once in {len(found)} boots; {sysv.text('startpar_call') or 'no call of startpar'}"
    expected = f"2 to {limit} at once, where {roots} need not wait for another; startpar -p {graphs.PER_CPU}"
    if f"-p {graphs.PER_CPU} " not in sysv.text("startpar_call") or missing or sysv.flag("legacy_bootordering"):
        legacy = "; there is a file .legacy-bootordering" if sysv.flag("legacy_bootordering") else ""
        return failed(
            "The files are not those of a concurrent boot.",
            expected=expected,
            measured=f"{measured}; missing: {', '.join(missing) or 'none'}{legacy}",
            hint="in the guest, look at /etc/init.d/rc and at the files .depend.* and .legacy-bootordering in /etc/init.d",
        )
    if max(most) > limit:
        hint = "count the bars above each other in the second panel of the Gantt chart, and look at startpar's -p"
        return failed("More services ran at once than startpar allows itself.", expected=expected, measured=measured, hint=hint)
    return one_by_one(found) or passed("Several at once, and never more than its limit.", expected=expected, measured=measured)


@check(points=1, claim="D1", after="each_arm_is_what_it_says")
def dependencies_are_kept(evidence: Evidence) -> Verdict:
    """In parallel does not mean in any order: in every arm each service began only after those that it depends on had ended, and under
    systemd the independent ones did not wait for each other.

    Read from the marks by the guest's clock, so that no delay on the host can put them in another order.
    """
    counted, early, idle = 0, list[str](), list[str]()
    boots_by_arm = {arm: reading.boots_of(evidence, arm) for arm in reading.arms_of(evidence)}
    graph = reading.graph_of(evidence)
    for arm, found in boots_by_arm.items():
        for each in found:
            early += [f"{what} ({arm})" for what in reading.too_early(each, graph)]
            counted += sum(len(service.after) for service in graph)
            idle += [f"{name} ({arm})" for name in reading.too_short(each, graph)]
    if counted == 0:
        return inconclusive("The graph has no dependencies, so none could be broken.")
    measured = f"{counted - len(early)} of {counted} dependencies kept; at once at least: "
    measured += ", ".join(f"{arm} {min(each.at_once for each in found)}" for arm, found in boots_by_arm.items())
    expected = "all kept; more than one at once under systemd"
    if early or idle:
        hint = "compare what the script or the unit of this service declares (Required-Start, After) with graph.yaml"
        why = f"A service did not wait, or did nothing: {(early + idle)[0]}."
        return failed(why, expected=expected, measured=measured, hint=hint)
    under_systemd = [each for arm, found in boots_by_arm.items() if not reading.is_sysv(arm) for each in found]
    return one_by_one(under_systemd) or passed("No service began too early.", expected=expected, measured=measured)


def near_prediction(evidence: Evidence, name: str, why: str) -> Verdict:
    """Whether the services of an arm took as long as the graph predicts, and that this was written down before."""
    try:
        arm = arm_of(evidence, name)
    except reading.LeftOut as out:
        return not_observable(f"{out}.")
    wrong = written_wrongly(evidence, arm)
    if wrong:
        return wrong
    low, high = (1 - NEAR) * arm.predicted_s, (1 + NEAR) * arm.predicted_s
    asked = Asked(low, high, "s", f"As the graph predicts: {why}.", f"Not what the graph predicts ({why}).")
    took = median_interval(arm.took_s)
    seen = f"predicted {arm.predicted_s:.2f} s, so starting {len(arm.graph)} services cost {took.middle - arm.predicted_s:.2f} s"
    excuse = TOO_SHORT if arm.is_slow else STALLED if asked.holds(arm.steady_s) else None
    return judged(took, asked, arm.found, seen, excuse)


@check(points=1, claim="S6", after="truly_sequential_is_one_at_a_time")
def sequential_time_adds_up(evidence: Evidence) -> Verdict:
    """Started one after another, the services take the sum of their costs, within a fifth, as predicted before the run.

    From the first service's begin to the last one's end, by the guest's clock; the host's clock must agree. What lies above the sum is what
    it costs to start thirteen services.
    """
    return near_prediction(evidence, reading.SEQUENTIAL, "the sum of all costs")


@check(points=2, claim="D1", after="dependencies_are_kept")
def systemd_takes_the_critical_path(evidence: Evidence) -> Verdict:
    """Started by their dependencies, the services take as long as their longest chain, within a fifth, as predicted before the run.

    Measured as in the sequential arm. Where the processors need longer for all that is to be computed, that is the prediction instead.
    """
    return near_prediction(evidence, reading.NATIVE, "the critical path, or the CPU time shared out if that is more")


@check(points=1, claim="D2", after=["debian_starts_in_parallel_by_default", "dependencies_are_kept"])
def others_start_in_parallel_as_quickly(evidence: Evidence) -> Verdict:
    """It is no merit of systemd's alone: SysV init with startpar, and systemd with SysV's scripts, also take what the graph predicts.

    Each within a fifth of its own prediction. That of startpar counts that it runs no more than seven services at once here.
    """
    verdicts = {
        reading.STARTPAR: near_prediction(evidence, reading.STARTPAR, "the critical path, as far as startpar's limit allows"),
        reading.LSB: near_prediction(evidence, reading.LSB, "the critical path"),
    }
    for kind in (VerdictKind.NOT_OBSERVABLE, VerdictKind.FAIL, VerdictKind.INCONCLUSIVE):
        for arm, verdict in verdicts.items():
            if verdict.kind is kind:
                return replace(verdict, rationale=f"{arm}: {verdict.rationale}")
    expected, measured = ("; ".join(f"{arm} {getattr(each, word)}" for arm, each in verdicts.items()) for word in ("expected", "measured"))
    return passed("Both gain what the graph allows.", expected=expected, measured=measured)


def gain_of(slow: Arm, quick: Arm, asked: Asked) -> tuple[Interval, Excuse | None]:
    """How many times as long one arm takes as another, and what excuses it if that is beyond the bounds."""
    found = ratio_interval(slow.took_s, quick.took_s)
    steady = slow.steady_s / quick.steady_s if quick.steady_s > 0 else 0.0
    excuse = TOO_SHORT if slow.is_slow and quick.is_slow else STALLED if asked.holds(steady) else None
    return found, excuse


@check(points=1, claim="D2", after=["sequential_time_adds_up", "dependencies_are_kept"])
def parallel_is_quicker_by_the_graph(evidence: Evidence) -> Verdict:
    """How much quicker parallel startup is, the graph decides: the sum of the costs divided by the longest chain, within a fifth.

    The whole boot gains less, because firmware, kernel and early user space are the same for all.
    """
    try:
        slow, quick = arm_of(evidence, reading.SEQUENTIAL), arm_of(evidence, reading.NATIVE)
    except reading.LeftOut as out:
        return not_observable(f"{out}.")
    predicted = slow.predicted_s / quick.predicted_s
    low, high = (1 - NEAR) * predicted, (1 + NEAR) * predicted
    asked = Asked(low, high, "times", "The services gain what the graph allows.", "The services do not gain what the graph allows.")
    whole = ratio_interval([each.whole_s for each in slow.found], [each.whole_s for each in quick.found])
    found, excuse = gain_of(slow, quick, asked)
    seen = f"the whole boot {whole} times, predicted for the services {predicted:.2f} times"
    return judged(found, asked, [*slow.found, *quick.found], seen, excuse)


def gains_nothing(evidence: Evidence, graph: str, why: str) -> Verdict:
    """Whether the parallel arm is no quicker than the sequential one with a graph in which it cannot be."""
    try:
        slow, quick = (arm_of(evidence, name, graph) for name in (reading.SEQUENTIAL, reading.NATIVE))
        wrong = [
            what
            for arm in (slow, quick)
            for each in reading.records_of(evidence, arm.name, graph)
            for what in reading.contradictions(each, arm.name, evidence)
        ]
    except reading.LeftOut as out:
        return not_observable(f"{out}.")
    predicted = slow.predicted_s / quick.predicted_s
    if wrong or abs(predicted - 1) > 0.01:
        return inconclusive(f"This is no control: {wrong[0] if wrong else f'the graph predicts a gain of {predicted:.2f}'}.")
    unwritten = written_wrongly(evidence, slow, graph) or written_wrongly(evidence, quick, graph)
    if unwritten:
        return unwritten
    # (All boots, not those alone whose times count: what a service did and when it began no noise on the host can change.)
    every = [each for arm in (slow, quick) for each in reading.boots_of(evidence, arm.name, graph)]
    services = slow.graph
    idle = [name for each in every for name in reading.too_short(each, services)]
    if idle:
        hint = "compare what this service spent (marks, cpu_s) with what graph.yaml asks of it"
        why = "A service of the control did less than it should."
        return failed(why, expected="all of its cost", measured=f"{idle[0]} did less", hint=hint)
    early = [what for each in every for what in reading.too_early(each, services)]
    if early:
        hint = "compare what this service declares (Required-Start, After) with graph.yaml"
        why = "A service did not wait for the one before, and so it gained."
        return failed(why, expected="each in its turn", measured=early[0], hint=hint)
    work = [sum(mark.work for each in arm.found for mark in each.ends.values()) for arm in (slow, quick)]
    seen = f"{why}; rounds computed {work[0]} and {work[1]}" if any(work) else why
    asked = Asked(float("-inf"), 1 + NOTHING, "times", "Nothing gained, as it must be.", "It gained, where nothing can be gained.")
    found, excuse = gain_of(slow, quick, asked)
    return judged(found, asked, [*slow.found, *quick.found], seen, excuse)


@check(points=1, claim="D2", after="each_arm_is_what_it_says")
def control_one_cpu_gains_nothing(evidence: Evidence) -> Verdict:
    """Where the processor is the bottleneck, parallel startup gains nothing: three services that compute, on one virtual CPU.

    How many times as long one after another takes as in parallel, from three boots of each. More than 1.15 times would be a gain; less than
    1 is none, only a service that costs more to start.
    """
    return gains_nothing(evidence, "burners", "one processor has to do it all")


@check(points=1, claim="D2", after="each_arm_is_what_it_says")
def control_a_chain_gains_nothing(evidence: Evidence) -> Verdict:
    """Where each service needs the one before, parallel startup gains nothing either: a graph that is one chain.

    Measured as with the services that compute. That each began when the one before had ended is held against the marks.
    """
    return gains_nothing(evidence, "chain", "each waits for the one before")
