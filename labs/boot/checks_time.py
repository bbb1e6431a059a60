"""In which order the services ran, how long they took, and whether that is what the graph predicts.

A time is judged by its confidence interval: inside a bound as a whole, it passes; beyond it as a whole, it fails; across it, nothing is
decided. A failure on a machine that was busy with other things is no failure either.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from vmlab.lab import (
    Evidence,
    EvidenceProblem,
    Interval,
    Verdict,
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

NEAR = 0.2
"""How far from its prediction a time may be. The prediction counts what the services do, not what it costs to start them; that comes on
top, and is up to a tenth of a second a service where the processor is emulated."""
NOTHING = 0.15
"""What counts as nothing gained: two arms differ by what starting the services costs, in either direction."""
NOISY = 0.1
"""The share of the host's CPU time from which on a measurement counts as disturbed."""
FEWEST = 3
"""So many boots make an interval."""
START_S = 0.2
"""What starting a service may cost on a slow machine. Where it costs less than this and the services still take too long for the
prediction, they are too short for this machine, and no wrong is done by anyone."""


def judged(
    found: Interval, low: float, high: float, measured: Sequence[Boot], *, unit: str, said: Mapping[str, str], slow: bool = False
) -> Verdict:
    """The verdict on an interval: ``said`` has what is ``true`` when it passes, what is ``false`` when it fails, and what was ``seen``.

    ``slow``: the services are too short for this machine, so that beyond the bound decides nothing.
    """
    share = boots.disturbed(measured)
    expected = f"{low:.2f} to {high:.2f} {unit}".strip() if low > float("-inf") else f"at most {high:.2f} {unit}".strip()
    seen = f"{found} {unit}, with the bootstrap's 95 % interval; {said['seen']}; others had {share:.0%} of the host's CPUs"
    where = found.against(low, high)
    if where == "inside":
        noisy = " (A noisy run: this machine was busy with other things.)" if share > NOISY else ""
        return passed(said["true"] + noisy, expected=expected, measured=seen)
    if where == "across":
        return inconclusive(
            "The interval lies across a bound, so nothing is decided.",
            expected=expected,
            measured=seen,
            hint="measure more often: REPEATS=10, on a machine that does nothing else",
        )
    if share > NOISY:
        return inconclusive(
            "It is beyond the bound, but this machine was busy with other things meanwhile.",
            expected=expected,
            measured=seen,
            hint="run it again while the machine does nothing else",
        )
    if slow:
        return inconclusive(
            "It is beyond the bound, because the services are too short for what it costs to start one here.",
            expected=expected,
            measured=seen,
            hint="make them longer: SCALE=3",
        )
    return failed(said["false"], expected=expected, measured=seen, hint="the Gantt chart shows which service began late")


def undisturbed(found: Sequence[Boot]) -> Sequence[Boot]:
    """The boots during which this machine did nothing else, if they are enough for an interval; else all of them."""
    quiet = [each for each in found if each.strangers <= NOISY]
    return quiet if len(quiet) >= FEWEST else found


@check(points=1, claim="S5", after="each_arm_is_what_it_says")
def truly_sequential_is_one_at_a_time(evidence: Evidence) -> Verdict:
    """Started one after another, no two services overlap. Debian's SysV init does that only when the kernel's command line says
    concurrency=none.

    By the guest's clock and by the host's, in every boot of the arm and in its controls.
    """
    try:
        found = reading.boots_of(evidence, reading.SEQUENTIAL)
    except reading.LeftOut as why:
        return not_observable(f"{why}.")
    overlaps = []
    for each in found:
        ordered = sorted((mark.guest_s, each.ends[name].guest_s, name) for name, mark in each.begins.items())
        overlaps += [f"{b[2]} in {a[2]}" for a, b in pairwise(ordered) if b[0] < a[1] - reading.TICK_S]
        arrived = sorted((mark.host_s, each.ends[name].host_s, name) for name, mark in each.begins.items())
        overlaps += [f"{b[2]} in {a[2]}" for a, b in pairwise(arrived) if b[0] < a[1]]
        overlaps += [f"{name} took no time" for name in reading.too_short(each, reading.graph_of(evidence))]
    measured = f"{len(overlaps)} overlaps in {len(found)} boots of {len(found[0].begins)} services" + (
        f": {overlaps[0]}" if overlaps else ""
    )
    if overlaps:
        return failed("Services of the sequential arm ran at the same time, or did nothing.", expected="0 overlaps", measured=measured)
    return passed("Each service began when the one before had ended.", expected="0 overlaps", measured=measured)


@check(points=1, claim="S5", after="each_arm_is_what_it_says")
def debian_starts_in_parallel_by_default(evidence: Evidence) -> Verdict:
    """Debian's SysV init does not start services one after another: its rc script hands them to startpar, which runs several at a time.

    Never more than startpar allows itself, though: 4 for each processor, less one for itself.
    """
    try:
        found = reading.boots_of(evidence, reading.STARTPAR)
    except reading.LeftOut as why:
        return not_observable(f"{why}.")
    sysv, cpus = evidence["sysv"], reading.cpus_of(evidence)
    missing = [name for name in sysv.record("depend_bytes") if sysv.record("depend_bytes").integer(name) == 0]
    limit = graphs.PER_CPU * cpus - graphs.ITSELF
    most = [each.at_once for each in found]
    roots = sum(not each.after for each in reading.graph_of(evidence))
    measured = f"at most {min(most)} to {max(most)} at once in {len(found)} boots; {sysv.text('startpar_call')}"
    expected = f"2 to {limit} at once, where {roots} need not wait for another; startpar -p {graphs.PER_CPU}"
    if f"-p {graphs.PER_CPU} " not in sysv.text("startpar_call") or missing or sysv.flag("legacy_bootordering"):
        return failed("The files are not those of a concurrent boot.", expected=expected, measured=f"{measured}; missing {missing}")
    if min(most) >= 2 and max(most) <= limit:
        return passed("Several at once, and never more than its limit.", expected=expected, measured=measured)
    return failed("The services were started one by one, or more at once than startpar's limit.", expected=expected, measured=measured)


@check(points=2, claim="D1", after="each_arm_is_what_it_says")
def dependencies_are_kept(evidence: Evidence) -> Verdict:
    """In parallel does not mean in any order: in every arm each service began only after those that it depends on had ended, and under
    systemd the independent ones did not wait for each other.
    """
    counted, early, idle = 0, list[str](), list[str]()
    at_once: dict[str, int] = {}
    try:
        boots_by_arm = {arm: reading.boots_of(evidence, arm) for arm in reading.arms_of(evidence)}
    except reading.LeftOut as why:
        return not_observable(f"{why}.")
    graph = reading.graph_of(evidence)
    for arm, found in boots_by_arm.items():
        for each in found:
            early += [f"{what} ({arm})" for what in reading.too_early(each, graph)]
            counted += sum(len(service.after) for service in graph)
            idle += [f"{name} ({arm})" for name in reading.too_short(each, graph)]
            at_once[arm] = min(at_once.get(arm, each.at_once), each.at_once)
    if counted == 0:
        return inconclusive("The graph has no dependencies, so none could be broken.")
    measured = f"{counted - len(early)} of {counted} dependencies kept; at once at least: "
    measured += ", ".join(f"{arm} {count}" for arm, count in at_once.items())
    expected = "all kept; more than one at once under systemd"
    if early or idle:
        return failed(f"A service did not wait, or did nothing: {(early + idle)[0]}.", expected=expected, measured=measured)
    if any(count < 2 for arm, count in at_once.items() if arm in (reading.LSB, reading.NATIVE)):
        return failed("systemd started the services one by one.", expected=expected, measured=measured)
    return passed("No service began too early.", expected=expected, measured=measured)


def near_prediction(evidence: Evidence, arm: str, why: str) -> Verdict:
    """Whether the services of an arm took as long as the graph predicts, and that this was written down before."""
    try:
        found = undisturbed(reading.boots_of(evidence, arm))
    except reading.LeftOut as out:
        return not_observable(f"{out}.")
    graph, cpus = reading.graph_of(evidence), reading.cpus_of(evidence)
    predicted = graphs.PREDICT[arm](graph, cpus)
    written = evidence["plan"].record("predicted_s").record("services").number(arm)
    if abs(written - predicted) > 0.01:
        return failed(
            "The prediction that was written down is not what the graph gives.", expected=f"{predicted} s", measured=f"{written} s"
        )
    own, host = [[each.services_s for each in found], [each.services_by_host_s for each in found]]
    apart = max(abs(a - b) for a, b in zip(own, host, strict=True))
    if apart > max(0.1 * predicted, 0.3):
        return inconclusive(f"The guest's clock and the host's differ by {apart:.2f} s over the services, so neither can be believed.")
    took = median_interval(own)
    says = f"predicted {predicted:.2f} s, so starting {len(graph)} services cost {took.middle - predicted:.2f} s"
    said = {"true": f"As the graph predicts: {why}.", "false": f"Not what the graph predicts ({why}).", "seen": says}
    slow = 0 < took.middle - predicted < START_S * len(graph)
    return judged(took, (1 - NEAR) * predicted, (1 + NEAR) * predicted, found, unit="s", said=said, slow=slow)


@check(points=2, claim="S6", after="truly_sequential_is_one_at_a_time")
def sequential_time_adds_up(evidence: Evidence) -> Verdict:
    """Started one after another, the services take the sum of their costs, within a fifth, as predicted before the run."""
    return near_prediction(evidence, reading.SEQUENTIAL, "the sum of all costs")


@check(points=2, claim="D1", after="dependencies_are_kept")
def systemd_takes_the_critical_path(evidence: Evidence) -> Verdict:
    """Started by their dependencies, the services take as long as their longest chain, within a fifth, as predicted before the run."""
    return near_prediction(evidence, reading.NATIVE, "the critical path, or the CPU time shared out if that is more")


def gained(evidence: Evidence, graph: str, arm: str = reading.NATIVE) -> tuple[Interval, list[Boot], float]:
    """How many times as long the sequential arm takes as another; the boots that this rests on, and what the graph predicts."""
    slow, quick = (undisturbed(reading.boots_of(evidence, each, graph)) for each in (reading.SEQUENTIAL, arm))
    services, cpus = reading.graph_of(evidence, graph), reading.cpus_of(evidence, graph)
    alone, together = graphs.sequential_s(services), graphs.PREDICT[arm](services, cpus)
    if together <= 0:
        raise EvidenceProblem(f"plan.graphs.{graph}: expected services that take time")
    predicted = alone / together
    return ratio_interval([each.services_s for each in slow], [each.services_s for each in quick]), [*slow, *quick], predicted


@check(points=1, claim="D2", after=["sequential_time_adds_up", "dependencies_are_kept"])
def parallel_is_quicker_by_the_graph(evidence: Evidence) -> Verdict:
    """How much quicker parallel startup is, the graph decides: the sum of the costs divided by the longest chain, within a fifth.

    The whole boot gains less, because firmware, kernel and early user space are the same for all.
    """
    try:
        found, measured_boots, predicted = gained(evidence, "services")
    except reading.LeftOut as why:
        return not_observable(f"{why}.")
    whole = ratio_interval(*([each.whole_s for each in measured_boots if each.arm == arm] for arm in (reading.SEQUENTIAL, reading.NATIVE)))
    said = {
        "true": "The services gain what the graph allows.",
        "false": "The services do not gain what the graph allows.",
        "seen": f"the whole boot {whole}, predicted for the services {predicted:.2f}",
    }
    return judged(found, (1 - NEAR) * predicted, (1 + NEAR) * predicted, measured_boots, unit="times", said=said)


def gains_nothing(evidence: Evidence, graph: str, why: str) -> Verdict:
    """Whether the parallel arm is no quicker than the sequential one with a graph in which it cannot be."""
    try:
        found, measured_boots, predicted = gained(evidence, graph)
        wrong = [
            what
            for each in reading.records_of(evidence, reading.NATIVE, graph)
            for what in reading.contradictions(each, reading.NATIVE, evidence)
        ]
    except reading.LeftOut as out:
        return not_observable(f"{out}.")
    if wrong or abs(predicted - 1) > 0.01:
        return inconclusive(f"This is no control: {wrong[0] if wrong else f'the graph predicts a gain of {predicted:.2f}'}.")
    services = reading.graph_of(evidence, graph)
    if any(reading.too_short(each, services) for each in measured_boots):
        return failed("A service of the control did less than it should.", expected="all of its cost", measured="less")
    early = [what for each in measured_boots for what in reading.too_early(each, services)]
    if early:
        # (By the order, which no noise on the host can change, where the time would need a quiet machine to decide.)
        return failed("A service did not wait for the one before, and so it gained.", expected="each in its turn", measured=early[0])
    work = {
        arm: sum(mark.work for each in measured_boots if each.arm == arm for mark in each.ends.values())
        for arm in (reading.SEQUENTIAL, reading.NATIVE)
    }
    seen = f"{why}; rounds computed {work[reading.SEQUENTIAL]} and {work[reading.NATIVE]}" if any(work.values()) else why
    said = {"true": "Nothing gained, as it must be.", "false": "It gained, where nothing can be gained.", "seen": seen}
    return judged(found, float("-inf"), 1 + NOTHING, measured_boots, unit="times", said=said)


@check(points=1, claim="D2", after="each_arm_is_what_it_says")
def control_one_cpu_gains_nothing(evidence: Evidence) -> Verdict:
    """Where the processor is the bottleneck, parallel startup gains nothing: three services that compute, on one virtual CPU."""
    return gains_nothing(evidence, "burners", "one processor has to do it all")


@check(points=1, claim="D2", after="each_arm_is_what_it_says")
def control_a_chain_gains_nothing(evidence: Evidence) -> Verdict:
    """Where each service needs the one before, parallel startup gains nothing either: a graph that is one chain."""
    return gains_nothing(evidence, "chain", "each waits for the one before")
