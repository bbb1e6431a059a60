"""Who gets rid of zombies: their parent, whoever inherits them, or the end of their PID namespace."""

from __future__ import annotations

from vmlab.lab import Evidence, EvidenceProblem, Record, Verdict, check, failed, inconclusive, passed

from . import reading

LOOKS = 20
"""So often the zombies were looked at, for as long as the run's patience lasts, before they count as ones that nobody reaps."""


@check(points=1, claim="Z8")
def killing_the_parent_clears_its_zombies(evidence: Evidence) -> Verdict:  # noqa: PLR0911  (One for each way to fall short.)
    """When the parent is killed, PID 1 adopts its children and reaps the zombies among them.

    That PID 1 *waited* for them, and they did not merely vanish, shows in its accounts: whoever waits for a child takes over the child's
    count of page faults (cminflt in /proc/PID/stat). The zombies' counts are added up beforehand; PID 1's sum must have risen by that at
    least.
    """
    seen = evidence["orphans"]
    zombies, left = seen.integer("zombies_before"), seen.integer("left")
    asked, patience = evidence.parameters.integer("orphans"), evidence.parameters.number("patience_s")
    if zombies != asked or seen.integer("living_before") != 1:
        return inconclusive(
            "The family was not as it should be when the parent was to be killed.",
            expected=f"{asked} zombies and one living child",
            measured=f"{zombies} zombies, {seen.integer('living_before')} living",
        )
    if not seen.flag("parent_killed"):
        return failed(
            "Nobody killed the parent.",
            expected="a parent that was killed",
            measured=f"{left} of {zombies} zombies left",
            hint="orphans.py kills it, unless it is told --spare-the-parent",
        )
    looks = seen.records("looks")
    reading.increasing(looks, "elapsed_s")
    last = looks[-1]
    too_many = any(look.integer("with_parent_1") > look.integer("left") for look in looks)
    if seen.integer("looked") < len(looks) or left != last.integer("left") or too_many:
        raise EvidenceProblem(f"{seen.place}.left: what is left does not follow from the looks")
    if left:
        return left_behind(seen, patience)
    after = seen.number("clear_after_s", minimum=0)
    init = seen.record("init")
    owed = init.integer("faults_of_the_zombies", minimum=zombies)
    taken = init.integer("faults_of_reaped_children_after") - init.integer("faults_of_reaped_children_before")
    orphans = seen.records("living_child")
    parents, states = ({each.integer("ppid") for each in orphans}, {each.text("state") for each in orphans})
    measured = (
        f"{zombies} zombies gone after {after:.2f} s; the page faults of {init.text('name')}'s reaped children rose by {taken:,}, "
        f"the zombies had {owed:,}; the living child's parent is {', '.join(map(str, parents))}"
    )
    # "Soon" is set against "never": in the other experiment zombies are watched to stay for as long as this.
    expected = f"gone within {patience:g} s; at least {owed:,} page faults; parent 1"
    if parents != {1} or seen.integer("new_parent") != 1:
        return failed(
            "The orphan was adopted by another process than PID 1.",
            expected=expected,
            measured=measured,
            hint="is there a subreaper? It stands nearer than PID 1: see orphans.new_parent",
        )
    if not states <= {"S", "R", "D"}:
        return inconclusive("The child that should live on did not.", expected=expected, measured=measured)
    if taken < owed:
        return failed(
            "PID 1 did not take over the zombies' page faults, so it did not wait for them.",
            expected=expected,
            measured=measured,
            hint="who else may have reaped them? Compare the three numbers of faults in orphans.init",
        )
    if after > patience or seen.integer("living_child_left") != 0:
        return inconclusive(
            "They went, but not sooner than zombies were watched to stay elsewhere, or the last child was still to be reaped.",
            expected=expected,
            measured=measured,
        )
    return passed("PID 1 reaped what it inherited.", expected=expected, measured=measured)


@check(points=1, claim="Z8")
def a_pid_1_that_does_not_reap_keeps_them(evidence: Evidence) -> Verdict:
    """With a PID 1 that does not reap, the orphans it adopted stay zombies for as long as one looks.

    In a PID namespace its first process is PID 1. It adopted these orphans while they lived; then they exited. There are two such
    namespaces, which differ only in how they will end: `never` and `abandoned`. Their orphans' own parent exited before, and is a zombie
    too.
    """
    patience, adopted = evidence.parameters.number("patience_s"), evidence.parameters.integer("adopted")
    told = []
    for name in ("never", "abandoned"):
        world = evidence["namespaces"].record(name)
        samples = world.records("samples")
        reading.increasing(samples, "elapsed_s")
        inside, orphans = world.integer("pid_inside"), world.integer("adopted_alive")
        if inside != 1 or orphans != adopted:
            return inconclusive(
                f"In the namespace {name!r} it was not PID 1 that adopted the orphans, or not all.",
                measured=f"PID {inside}, {orphans} orphans",
            )
        # The parent that left them behind is a zombie too: nobody waited for it either.
        expected_zombies = adopted + 1
        last, at_end = samples[-1], world.integer("zombies_at_end")
        watched = watched_s(samples)
        told.append(f"{name}: {last.integer('zombies')} zombies after {watched:.1f} s")
        fewer = any(each.integer("zombies") + each.integer("living", minimum=0) != expected_zombies for each in samples)
        if fewer or world.integer("zombies_before") != 1:
            return failed(
                "Zombies went although nobody reaped.",
                expected=f"{expected_zombies} children in each count",
                measured=told[-1],
                hint=f"does this PID 1 wait after all? See from when on they were fewer in namespaces.{name}.samples",
            )
        if watched < patience:
            return inconclusive(
                "They were not watched for as long as was asked for, once all had exited.", expected=f"{patience:g} s", measured=told[-1]
            )
        if last.integer("zombies") != at_end:
            return failed(
                "Zombies went after the last count, although nobody reaped.",
                expected=f"{expected_zombies} zombies at the end",
                measured=f"{told[-1]}, {at_end} at the end",
                hint=f"compare zombies_at_end with the last of the samples in namespaces.{name}",
            )
    return passed(
        f"None went in {patience:g} s, and none would later.", expected=f"{adopted + 1} zombies throughout", measured="; ".join(told)
    )


@check(points=1, claim="Z8", after="a_pid_1_that_does_not_reap_keeps_them")
def reaping_or_the_end_of_pid_1_clears_them(evidence: Evidence) -> Verdict:  # noqa: PLR0911  (One for each way to fall short.)
    """Those zombies go when their PID 1 begins to wait, or when it is killed; with a PID 1 that waits all the time there are none.

    The first is the control of the check before: the same PID 1, the same zombies, and nothing changed but the call to wait. When a PID 1
    is killed, the kernel kills and reaps whatever is left in its namespace (zap_pid_ns_processes).
    """
    worlds, patience = evidence["namespaces"], evidence.parameters.number("patience_s")
    never, abandoned, reaps = (worlds.record(name) for name in ("never", "abandoned", "reaps"))
    samples = reaps.records("samples")
    reading.increasing(samples, "elapsed_s")
    orphans, zombies = reaps.integer("adopted_alive"), samples[-1].integer("zombies")
    measured = (
        f"told to wait: {never.integer('left')} of {never.integer('zombies_at_end')} left after {never.number('clear_after_s'):.2f} s; "
        f"killed: {abandoned.integer('left')} of {abandoned.integer('zombies_at_end')} after {abandoned.number('clear_after_s'):.2f} s; "
        f"waiting all the time: {zombies} of {orphans} orphans are zombies"
    )
    expected = "0 left in all three"
    if orphans != evidence.parameters.integer("adopted") or reaps.integer("pid_inside") != 1 or not reaps.flag("init_alive"):
        return inconclusive("The PID 1 that reaps had not adopted the orphans, or was gone.", expected=expected, measured=measured)
    if [each.text("ended_by") for each in (never, abandoned, reaps)] != ["reaping", "kill", "nothing"] or not never.flag("init_alive"):
        return inconclusive("The namespaces did not end in the ways that are compared.", expected=expected, measured=measured)
    if samples[-1].integer("living") or samples[-1].number("elapsed_s") < patience:
        return inconclusive("Orphans still lived when they were counted last.", expected=expected, measured=measured)
    # (In `reaps` what was there at the last count is looked at again; a PID 1 that reaps, and had no time to, gets on with it.)
    ends = [tuple(each.integer(key) for key in ("left", "zombies_at_end", "looks_at_end")) for each in (never, abandoned, reaps)]
    if any(0 < left == before and looks >= LOOKS for left, before, looks in ends):
        return failed(
            "Zombies stayed that should have gone.",
            expected=expected,
            measured=measured,
            hint="which of the three is it? Its PID 1 does not wait, or is not gone: see left and init_alive in namespaces",
        )
    if any(left for left, _, _ in ends) or zombies or abandoned.flag("init_alive"):
        return inconclusive(
            "Some had gone, and some had not yet: the guest was given too little time.", expected=expected, measured=measured
        )
    if max(never.number("clear_after_s", minimum=0), abandoned.number("clear_after_s", minimum=0)) > patience:
        return inconclusive("They went, but not sooner than they had stayed.", expected=expected, measured=measured)
    return passed("Waiting is what clears zombies; the end of a namespace is a wait by the kernel.", expected=expected, measured=measured)


# --- readers ----------------------------------------------------------------------------------------------------------------------


def left_behind(seen: Record, patience: float) -> Verdict:
    """Zombies of the killed parent are left: nobody reaps them, or whoever does was still at it."""
    zombies, left = seen.integer("zombies_before"), seen.integer("left")
    last, looked, parent = seen.records("looks")[-1], seen.integer("looked"), seen.integer("new_parent")
    measured = f"{left} of {zombies} left after {last.number('elapsed_s'):.1f} s; their parent is now process {parent}"
    if left < zombies or looked < LOOKS or last.number("elapsed_s") < patience:
        return inconclusive("PID 1 had reaped some and not yet all, or had no time to.", expected="0 left", measured=measured)
    return failed(
        "The zombies were left after their parent was killed, and none of them was reaped.",
        expected="0 left",
        measured=measured,
        hint="who adopted them? A subreaper stands nearer than PID 1: see orphans.new_parent and with_parent_1 in orphans.looks",
    )


def watched_s(samples: list[Record]) -> float:
    """For how long the zombies were watched: from the first count on after which none of the orphans lived."""
    dead = [each.number("elapsed_s") for each in samples if each.integer("living") == 0]
    return dead[-1] - dead[0] if dead else 0.0
