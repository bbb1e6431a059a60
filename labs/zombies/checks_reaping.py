"""Who gets rid of zombies: their parent, whoever inherits them, or the end of their PID namespace."""

from __future__ import annotations

from vmlab.lab import Evidence, Verdict, check, failed, inconclusive, passed

from . import reading


@check(points=1, claim="Z8")
def killing_the_parent_clears_its_zombies(evidence: Evidence) -> Verdict:
    """When the parent is killed, PID 1 adopts its children and reaps the zombies among them at once.

    That PID 1 *waited* for them, and they did not merely vanish, shows in its accounts: whoever waits for a child takes over the child's
    count of page faults. PID 1's sum must have risen by at least those of the zombies.
    """
    seen = evidence["orphans"]
    zombies, left = seen.integer("zombies_before"), seen.integer("left")
    if not seen.flag("parent_killed") or zombies != evidence.parameters.integer("orphans"):
        return failed(
            "No parent of so many zombies was killed.", expected=f"{evidence.parameters.integer('orphans')}", measured=f"{zombies}"
        )
    looks = seen.records("looks")
    reading.increasing(looks, "elapsed_s")
    if left or looks[-1].integer("left") != left:
        return failed("Zombies were left after their parent was killed.", expected="0 left", measured=f"{left} of {zombies} left")
    after, patience = seen.number("clear_after_s", minimum=0), evidence.parameters.number("patience_s")
    init = seen.record("init")
    owed = init.integer("faults_of_the_zombies", minimum=zombies)
    taken = init.integer("faults_of_reaped_children_after") - init.integer("faults_of_reaped_children_before")
    orphan = seen.records("living_child")[0]
    measured = (
        f"{zombies} zombies gone after {after:.3f} s; the faults of {init.text('name')}'s reaped children rose by {taken:,}, "
        f"the zombies had {owed:,}; the living child's parent is {orphan.integer('ppid')}"
    )
    # "At once" is set against "never": in the other experiment zombies are watched to stay for as long as this.
    expected = f"gone within {patience:g} s, at least {owed:,} faults, parent 1"
    if orphan.integer("ppid") != 1 or seen.integer("new_parent") != 1:
        return failed(
            "The orphan was adopted by another process than PID 1.", expected=expected, measured=measured, hint="is there a subreaper?"
        )
    if taken < owed:
        return failed(
            "PID 1 did not take over the zombies' page faults, so it did not wait for them.", expected=expected, measured=measured
        )
    if after > patience or seen.integer("living_child_left") != 0:
        return failed("It took PID 1 too long.", expected=expected, measured=measured)
    return passed("PID 1 reaped what it inherited.", expected=expected, measured=measured)


@check(points=1, claim="Z8")
def a_pid_1_that_does_not_reap_keeps_them(evidence: Evidence) -> Verdict:
    """With a PID 1 that does not reap, the orphans it adopted stay zombies for as long as one looks.

    In a PID namespace its first process is PID 1. It adopted these orphans while they lived; then they exited.
    """
    patience, adopted = evidence.parameters.number("patience_s"), evidence.parameters.integer("adopted")
    told = []
    for name in ("never", "abandoned"):
        world = evidence["namespaces"].record(name)
        samples = world.records("samples", at_least=3)
        reading.increasing(samples, "elapsed_s")
        inside, orphans = world.integer("pid_inside"), world.integer("adopted_alive")
        if inside != 1 or orphans != adopted:
            return inconclusive(
                f"In the world {name!r} it was not PID 1 that adopted the orphans.", measured=f"PID {inside}, {orphans} orphans"
            )
        # The parent that left them behind is a zombie too: nobody waited for it either.
        expected_zombies = adopted + world.integer("zombies_before", minimum=0)
        last, at_end = samples[-1], world.integer("zombies_at_end")
        told.append(f"{name}: {last.integer('zombies')} zombies after {last.number('elapsed_s'):.1f} s")
        if last.number("elapsed_s") < patience:
            return inconclusive("They were not watched for as long as was asked for.", expected=f"{patience:g} s", measured=told[-1])
        lost = [s for s in samples if s.integer("zombies") + s.integer("living") != expected_zombies]
        if lost or last.integer("zombies") != expected_zombies or at_end != expected_zombies:
            return failed("Zombies went although nobody reaped.", expected=f"{expected_zombies} zombies in each count", measured=told[-1])
    return passed(
        f"None went in {patience:g} s, and none would later.", expected=f"{adopted + 1} zombies throughout", measured="; ".join(told)
    )


@check(points=1, claim="Z8", after="a_pid_1_that_does_not_reap_keeps_them")
def reaping_or_the_end_of_pid_1_clears_them(evidence: Evidence) -> Verdict:
    """Those zombies go when their PID 1 begins to wait, or when it is killed; with a PID 1 that waits all the time there are none.

    The first is the control of the check before: the same PID 1, the same zombies, and nothing changed but the call to wait.
    """
    worlds, patience = evidence["namespaces"], evidence.parameters.number("patience_s")
    never, abandoned, reaps = (worlds.record(name) for name in ("never", "abandoned", "reaps"))
    last = reaps.records("samples", at_least=3)[-1]
    measured = (
        f"told to wait: {never.integer('left')} of {never.integer('zombies_at_end')} left after {never.number('clear_after_s'):.3f} s; "
        f"killed: {abandoned.integer('left')} of {abandoned.integer('zombies_at_end')} after {abandoned.number('clear_after_s'):.3f} s; "
        f"waiting all the time: {last.integer('zombies')} of {reaps.integer('adopted_alive')} orphans are zombies"
    )
    expected = "0 left in all three"
    if reaps.integer("adopted_alive") != evidence.parameters.integer("adopted") or reaps.integer("pid_inside") != 1:
        return inconclusive("The PID 1 that reaps had not adopted the orphans.", expected=expected, measured=measured)
    if never.text("ended_by") != "reaping" or not never.flag("init_alive") or abandoned.text("ended_by") != "kill":
        return inconclusive("The worlds did not end in the ways that are compared.", expected=expected, measured=measured)
    if (
        last.integer("zombies") + last.integer("living")
        or never.integer("left")
        or abandoned.integer("left")
        or abandoned.flag("init_alive")
    ):
        return failed("Something was left.", expected=expected, measured=measured)
    if max(never.number("clear_after_s", minimum=0), abandoned.number("clear_after_s", minimum=0)) > patience:
        return inconclusive("They went, but not sooner than they had stayed.", expected=expected, measured=measured)
    return passed("Waiting is what clears zombies; the end of a namespace is a wait by the kernel.", expected=expected, measured=measured)
