"""How many zombies a parent has: one that never waits, one that reaps, and one that ignores SIGCHLD, all under the same load."""

from __future__ import annotations

from collections.abc import Sequence

from vmlab.lab import Evidence, EvidenceProblem, Record, Verdict, check, failed, inconclusive, passed

from . import reading, stalls
from .stalls import Look

FEW = "Too few looks fell into the time of forking: the guest stood still, or the forks were over too soon."
MORE = "end what else runs on this machine, or ask for more children, more --param samples and a lower --param rate"


@check(points=1, claim="Z5")
def zombies_accumulate_one_a_fork(evidence: Evidence) -> Verdict:  # noqa: PLR0911  (One for each way to fall short.)
    """A parent that never waits gathers zombies: one for each fork, whenever one looks.

    Another process counts them. It notes how many children the parent had made before each count and after it: the number found must lie
    between. A child that still lives at that moment is counted as such; in the end none lives, and all are zombies.
    """
    seen = evidence["accumulation"]
    forked = seen.integer("forked")
    expected = f"{forked} zombies in the end, and as many children as forks at {stalls.LOOKS} looks before that"
    if unlike := otherwise(seen, evidence.parameters.integer("zombies"), evidence.parameters.number("rate")):
        return inconclusive(unlike)
    samples = seen.records("samples")
    looks = reading.looks_of(samples)
    if seen.text("parent") != "never":
        return failed(
            "The parent that was watched is of another kind, not one that never waits.",
            expected="a parent that never waits",
            measured=f"a parent of the kind: {seen.text('parent')}",
            hint="accumulate.py is told by --parent what to be",
        )
    last = looks[-1]
    reading.agree(seen, peak=max(look.zombies for look in looks), at_end=last.zombies)
    for sample in samples:
        look = reading.look_of(sample)
        if not look.before <= look.zombies + look.living <= look.after:
            return failed(
                f"After {sample.number('elapsed_s'):.2f} s there were not as many children as forks.",
                expected=f"{look.before} to {look.after} children, zombies and living ones together",
                measured=f"{look.zombies} zombies and {look.living} living",
                hint="does this parent wait, or ignore SIGCHLD? The samples of accumulation show from when on",
            )
        reading.agree(sample, reaped_before=0, reaped_after=0)
    measured = f"{last.zombies} zombies and {last.living} living children from {forked} forks; {told(seen, looks)}"
    if last.living:
        return inconclusive("Some children had not exited when the parent was looked at last.", expected=expected, measured=measured)
    if last.zombies != forked:
        return failed(
            "In the end there were not as many zombies as forks.",
            expected=expected,
            measured=measured,
            hint="the last look came when the parent had made all of its children: see the end of accumulation.samples",
        )
    if stalls.shortness(looks, forked):
        return inconclusive(
            FEW,
            expected=expected,
            measured=measured,
            hint=MORE,
        )
    return passed("Each fork added a zombie, and none went.", expected=expected, measured=measured)


@check(points=1, claim="Z5", after="zombies_accumulate_one_a_fork")
def sigkill_removes_none(evidence: Evidence) -> Verdict:
    """SIGKILL removes no zombie: kill reports success for each, and afterwards every one is there with the exit status it had.

    The proof is the end: when the parent reaps at last, each child is a zombie at the moment of its wait, and is handed over as exited
    with 7, none as killed by signal 9.
    """
    seen = evidence["accumulation"]
    zombies, kill, reaped = seen.integer("forked"), seen.record("sigkill"), seen.record("after_reaping")
    sent, accepted, left, same = (kill.integer(name) for name in ("sent_to", "accepted", "left", "same_process"))
    as_made, otherwise_ended = reading.handed_over(reaped)
    one = stat_after_sigkill(evidence)
    measured = (
        f"{accepted} of {sent} signals accepted, {left} zombies left, {same} of them unchanged; "
        f"handed over as exited with 7: {as_made}, in another way: {otherwise_ended}"
    )
    expected = f"{zombies} accepted, {zombies} left and unchanged; exited with 7: {zombies}, in another way: 0"
    if not sent or sent != zombies or accepted != sent:
        return inconclusive("Not every zombie was sent a signal that the kernel accepted.", expected=expected, measured=measured)
    if kill.number("left_percent") != round(100 * left / sent, 1):
        return inconclusive("The share of those left does not follow from their number.", expected=expected, measured=measured)
    gone = reaped.integer("zombies_met") != zombies or reaped.integer("found") != 0 or reaped.flag("kernel_says_children_left")
    if left != zombies or same != zombies or as_made != zombies or otherwise_ended or gone:
        return failed(
            "The zombies were not the same after SIGKILL, or not all of them were there to be reaped.",
            expected=expected,
            measured=measured,
            hint="who waited for them in between? Only a wait takes a zombie away: see accumulation.sigkill and accumulation.after_reaping",
        )
    if one.text("state") != "Z" or one.integer("exit_code") != reading.RAW_STATUS:
        return failed(
            "The single zombie was changed by SIGKILL.",
            expected=expected,
            measured=measured,
            hint="look at anatomy.child.after_sigkill.stat: its state and its exit_code should be those of before",
        )
    return passed("A dead process cannot be killed; only its parent's wait removes it.", expected=expected, measured=measured)


@check(points=1, claim="Z4", after="zombies_accumulate_one_a_fork")
def a_parent_that_reaps_has_none_left(evidence: Evidence) -> Verdict:  # noqa: PLR0911  (One for each way to fall short.)
    """A parent that reaps has none left, under the same load: each child is a zombie only from its exit to the wait that follows at once.

    The same observer counts, with the same method that found every zombie of the other parent: so a zero means that there were none at
    that moment. That each child *was* a zombie shows the parent's own look at it, just before its wait. A machine that stands still lets
    some gather; the parent notes how late it came for a fork, and where it was late, zombies that gathered decide nothing.
    """
    seen, other = evidence["reaping"], evidence["accumulation"]
    forked, samples = seen.integer("forked"), seen.records("samples")
    looks, at_last = reading.looks_of(samples), seen.record("after_reaping")
    if seen.text("parent") != "reap" or otherwise(seen, other.integer("forked"), other.number("rate")):
        return inconclusive(
            "The two parents did not have the same load.", measured=f"{forked} forks by a parent of kind {seen.text('parent')}"
        )
    for sample in samples:
        look = reading.look_of(sample)
        most = look.after - sample.integer("reaped_before", minimum=0)
        # (One less: a child is gone a moment before the parent counts it as reaped.)
        least = look.before - sample.integer("reaped_after") - 1
        if not least <= look.zombies + look.living <= most:
            raise EvidenceProblem(f"{sample.place}: expected {max(0, least)} to {most} children, as made and not yet reaped")
    peak, last = max(look.zombies for look in looks), looks[-1]
    reading.agree(seen, peak=peak, at_end=last.zombies)
    as_made, otherwise_ended = reading.handed_over(at_last)
    measured = (
        f"at most {peak} at a time, {last.zombies} in the end; {as_made} of {forked} reaped, {at_last.integer('zombies_met')} of them seen "
        f"as zombies just before; the parent that never waits had {other.integer('peak')}; {told(seen, looks)}"
    )
    allowed = stalls.allowed(forked)
    expected = f"at most {allowed} at a time, 0 in the end; all {forked} seen as zombies, and reaped"
    # (With all reaped, the bounds above leave no room for a zombie in the last look.)
    if samples[-1].integer("reaped_before") != forked or as_made != forked or otherwise_ended:
        return failed(
            "The parent had not reaped all of its children when it was done.",
            expected=expected,
            measured=measured,
            hint="does it wait at each SIGCHLD until there is nothing more to wait for? One signal may stand for several children",
        )
    if at_last.integer("zombies_met") != forked or at_last.flag("kernel_says_children_left") or at_last.integer("found"):
        return failed(
            "Not every child was a zombie before it was reaped, or some were left after all.",
            expected=expected,
            measured=measured,
            hint="the parent looks at /proc/PID/stat between waitid with WNOWAIT and waitpid: see reaping.after_reaping",
        )
    if peak > allowed:
        if late(seen) > stalls.QUIET:
            return inconclusive("Zombies gathered while the guest stood still.", expected=expected, measured=measured)
        return failed(
            "Zombies gathered although the parent reaps, and nothing held it up.",
            expected=expected,
            measured=measured,
            hint="how long after SIGCHLD does it wait? Compare zombies, forked_before and reaped_before in reaping.samples",
        )
    if stalls.shortness(looks, forked):
        return inconclusive(FEW, expected=expected, measured=measured, hint=MORE)
    return passed("Zombies are transient where the parent waits.", expected=expected, measured=measured)


@check(points=1, claim="Z1", after="zombies_accumulate_one_a_fork")
def a_parent_that_ignores_sigchld_has_no_zombies(evidence: Evidence) -> Verdict:
    """A parent that ignores SIGCHLD has no zombies, though it never waits either: the kernel reaps for it.

    It is also the control of this lab's instrument: one that reports zombies here reports them anywhere. (Inside the kernel such a child
    is a zombie for some microseconds, too. The guest has one processor, so that nobody can look meanwhile; with several, a look may meet
    one.)
    """
    seen = evidence["ignored"]
    forked, samples = seen.integer("forked"), seen.records("samples")
    looks, at_last = reading.looks_of(samples), seen.record("after_reaping")
    asked = evidence.parameters
    if seen.text("parent") != "ignore" or otherwise(seen, asked.integer("ignored"), asked.number("rate")):
        return inconclusive("The parent that was watched is not the one that ignores SIGCHLD, or not with the load asked for.")
    for sample in samples:
        look = reading.look_of(sample)
        if look.zombies + look.living > look.after:
            raise EvidenceProblem(f"{sample.place}: expected at most {look.after} children, as many as were made")
    most, last = max(look.zombies for look in looks), looks[-1]
    reading.agree(seen, peak=most, at_end=last.zombies)
    left = at_last.flag("kernel_says_children_left")
    counted = [sample.integer(name) for sample in samples for name in ("reaped_before", "reaped_after")]
    waited = any([*reading.handed_over(at_last), at_last.integer("zombies_met"), *counted])
    measured = f"at most {most} zombies over {forked} forks; a wait at the end: {'children' if left else 'ECHILD'}; {told(seen, looks)}"
    expected = "0 zombies; a wait finds no child"
    if last.living:
        return inconclusive("Some children had not exited when the parent was looked at last.", expected=expected, measured=measured)
    met = [look for look in looks if look.zombies]
    by_chance = seen.integer("cpus", minimum=1) > 1 and most == 1 and len(met) * 10 <= len(looks) and not last.zombies
    if (met and not by_chance) or left or waited or at_last.integer("found"):
        return failed(
            "There were zombies, or somebody waited.",
            expected=expected,
            measured=measured,
            hint="does this parent ignore SIGCHLD? SigIgn in its /proc/PID/status says it; see ignored.samples and ignored.after_reaping",
        )
    if stalls.shortness(looks, forked):
        return inconclusive(FEW, expected=expected, measured=measured, hint=MORE)
    return passed("Without a parent that might ask, the kernel keeps no zombie.", expected=expected, measured=measured)


# --- readers ----------------------------------------------------------------------------------------------------------------------


def otherwise(seen: Record, forks: int, rate: float) -> str:
    """In what a parent's load differs from the one asked for; empty where it does not."""
    if seen.integer("forked") == forks and seen.number("rate") == rate:
        return ""
    return f"The parent made {seen.integer('forked')} children at {seen.number('rate'):g} a second; {forks} at {rate:g} were asked for."


def late(seen: Record) -> float:
    """How late the parent came for a fork at most, as a share of the time in which it forked."""
    return stalls.held_up(seen.number("late_s"), seen.number("forking_s"))


def told(seen: Record, looks: Sequence[Look]) -> str:
    """How many looks there were, and how steadily the guest ran meanwhile, for a reader."""
    forked = seen.integer("forked")
    return (
        f"{len([look for look in looks if look.is_sharp(forked)])} looks while it forked; living children at a look: at most "
        f"{max(look.living for look in looks)}; late for a fork by at most {100 * late(seen):.0f} % of the time"
    )


def stat_after_sigkill(evidence: Evidence) -> Record:
    """The stat fields of the single zombie after it was sent SIGKILL."""
    return evidence["anatomy"].record("child").record("after_sigkill").record("stat")
