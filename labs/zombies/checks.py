"""What the evidence of the zombies lab shows, one small question a function: what one zombie is, and how many there are.

`checks_cost.py` judges what they cost, `checks_limits.py` what stops them, `checks_reaping.py` who gets rid of them.

A guest belongs to its student, who may forge what it prints. So wherever two observations are bound by arithmetic (children made and
children found, a limit and what was used of it, memory and the sizes of what lies in it) the checks hold them against each other.
"""

from __future__ import annotations

from collections.abc import Sequence

from vmlab.lab import Evidence, EvidenceProblem, Record, Verdict, check, failed, inconclusive, passed

from . import reading

# --- one zombie -------------------------------------------------------------------------------------------------------------------


@check(points=1, claim="Z1")
def an_unwaited_child_is_a_zombie(evidence: Evidence) -> Verdict:
    """A child that has exited and was not waited for is a zombie: the same process as before, in state Z, until it is reaped.

    Before its exit the child waits on a pipe (state S). After it, /proc still knows the number, the parent and the moment it was started;
    field 52 holds the exit status. Only after the parent's wait is the number unknown.
    """
    child = evidence["anatomy"].record("child")
    alive, reaped = stat_of(child, "alive"), child.record("reaped")
    if not child.record("zombie").flag("exists"):
        return failed(
            "There was no process of that number any more after the child exited, though nobody had waited for it.",
            expected="state Z after the exit",
            measured="no such process",
            hint="does the parent ignore SIGCHLD? Then the kernel keeps no zombie for it",
        )
    zombie = stat_of(child, "zombie")
    state, code = zombie.text("state"), zombie.integer("exit_code")
    same = all(alive.integer(name) == zombie.integer(name) for name in ("pid", "ppid", "starttime"))
    measured = f"state {alive.text('state')} before the exit, {state} after it with exit status {code}; after the wait: {gone(reaped)}"
    expected = f"state S, then Z with exit status {reading.RAW_STATUS}, then no such process"
    if alive.text("state") != "S" or zombie.integer("pid") != child.integer("pid") or zombie.integer("ppid") != child.integer("parent"):
        return inconclusive("The process looked at is not the child that waited on the pipe.", expected=expected, measured=measured)
    if state != "Z" or code != reading.RAW_STATUS or not same:
        return failed("After its exit the child was not the zombie it should be.", expected=expected, measured=measured)
    if reaped.flag("exists") or not all(each.text("errno") in ("ENOENT", "ESRCH") for each in files_of(reaped)):
        return failed("The zombie was still there after its parent had waited for it.", expected=expected, measured=measured)
    return passed(
        f"Process {zombie.integer('pid')} was the same one in both states, and the wait ended it.", expected=expected, measured=measured
    )


@check(points=1, claim="Z1", after="an_unwaited_child_is_a_zombie")
def its_status_can_be_read_without_reaping(evidence: Evidence) -> Verdict:
    """The exit status can be read while the zombie stays: waitid with WNOWAIT. Only a wait without it takes the zombie away.

    The status is read twice that way, with a SIGKILL in between, then by waitpid, and once more after that.
    """
    child = evidence["anatomy"].record("child")
    looks = [child.record("peek"), child.record("peek_again")]
    said = [f"{look.text('code')} with {look.integer('status')}" for look in looks]
    between = stat_of(child, "after_sigkill").text("state")
    reaping, afterwards = child.record("reaping"), child.record("peek_after_reaping")
    nothing_left = reading.error_of(reaping)
    if nothing_left is not None:
        return failed(
            "Once the status had been read, there was nothing left to wait for.",
            expected=f"{' and '.join(said)}, then waitpid {reading.RAW_STATUS}",
            measured=f"{' and '.join(said)}, then waitpid {nothing_left}",
            hint="was it read with WNOWAIT both times?",
        )
    raw = reaping.integer("raw_status")
    measured = f"WNOWAIT: {said[0]}, then {said[1]}, state {between} in between; waitpid: {raw}; afterwards {afterwards.text('errno')}"
    expected = f"exited with 7 twice, state Z, waitpid {reading.RAW_STATUS}, then ECHILD"
    if said == ["exited with 7"] * 2 and between == "Z" and raw == reading.RAW_STATUS and afterwards.text("errno") == "ECHILD":
        return passed("Reading left the zombie in place, waiting removed it.", expected=expected, measured=measured)
    return failed("The status was not to be had twice, or not from the right child.", expected=expected, measured=measured)


@check(points=1, claim="Z2", after="an_unwaited_child_is_a_zombie")
def a_zombie_has_no_user_memory_and_no_files(evidence: Evidence) -> Verdict:
    """A zombie has no user memory and no open files: every file of /proc that would show them is empty, and was not before.

    `status` has lost its Vm lines, vsize and rss are 0, maps and fd are empty, the links exe, cwd and root lead nowhere. Its credentials
    are still there: a zombie belongs to somebody.
    """
    child = evidence["anatomy"].record("child")
    before, after = stat_of(child, "alive"), stat_of(child, "zombie")
    if before.integer("rss") <= 0 or before.integer("vsize") <= 0:
        return inconclusive(
            "The child had no memory while it lived, so that losing it shows nothing.", measured=f"rss {before.integer('rss')}"
        )
    kept = [f"{name} {after.integer(name)}" for name in ("vsize", "rss") if after.integer(name) != 0]
    old, new = child.record("alive").record("status"), child.record("zombie").record("status")
    if "VmRSS" not in old:
        return inconclusive("The child's status had no VmRSS line even while it lived.")
    kept += [name for name in new if name.startswith(("Vm", "Rss"))]
    kept += [f"FDSize {new.text('FDSize')}"] if new.text("FDSize") != "0" else []
    for name in ("maps", "smaps", "cmdline", "fd"):
        was, now = (child.record(state).record("files").record(name) for state in ("alive", "zombie"))
        if was.integer("size") <= 0:
            raise EvidenceProblem(f"{was.place}.size: expected more than nothing from a living process, found {was.integer('size')}")
        kept += [f"{name} with {now.integer('size')}"] if now.integer("size") else []
    for name in ("exe", "cwd", "root"):
        now = child.record("zombie").record("files").record(name)
        kept += [] if "errno" in now and reading.error_of(now) == "ENOENT" else [f"{name} ({reading.error_of(now)})"]
    left, uid = ", ".join(kept) or "nothing left", " ".join(new.text("Uid").split())
    measured = f"before: {before.integer('rss')} pages resident; after: {left}; uid {uid}"
    expected = "no pages, no Vm lines, no maps, no files; the same uid"
    if kept or new.text("Uid") != old.text("Uid"):
        return failed("The zombie still had something a dead process gives back.", expected=expected, measured=measured)
    return passed("Everything of the user's was given back at death.", expected=expected, measured=measured)


@check(points=1, claim="Z3", after="an_unwaited_child_is_a_zombie")
def a_zombie_is_shown_as_Z(evidence: Evidence) -> Verdict:  # noqa: N802  (Z is the state's name.)
    """It is shown as Z: in /proc/PID/stat, as "Z (zombie)" in /proc/PID/status, and by ps as "<defunct>" where ps is installed."""
    child = evidence["anatomy"].record("child")
    state, line = stat_of(child, "zombie").text("state"), child.record("zombie").record("status").text("State")
    if "ps" not in child:
        raise EvidenceProblem(f"{child.place}.ps is missing")
    ps = optional(child, "ps")
    shown = ps.text("line") if ps else "not installed"
    measured = f"stat {state}; status {line}; ps: {shown}"
    expected = "stat Z; status Z (zombie); ps: Z and <defunct>"
    if state == "Z" and line == "Z (zombie)" and (ps is None or (shown.startswith("Z") and "<defunct>" in shown)):
        return passed("All who show it call it by that letter.", expected=expected, measured=measured)
    return failed("It was not shown as a zombie.", expected=expected, measured=measured)


@check(points=1, claim="Z3")
def not_every_Z_is_a_zombie(evidence: Evidence) -> Verdict:  # noqa: N802
    """Not everything shown as Z is a zombie: a process whose first thread has ended shows Z while another of its threads runs.

    What tells them apart: its other thread is alive, and the kernel has nothing to hand to a wait yet.
    """
    leader = evidence["anatomy"].record("leader")
    if not leader.flag("observable"):
        return inconclusive(leader.text("why"))
    threads = {each.integer("tid"): each.text("state") for each in leader.records("threads")}
    first, others = threads.get(leader.integer("pid")), [state for tid, state in threads.items() if tid != leader.integer("pid")]
    living = [state for state in others if state in "SRD"]
    reapable, last = leader.flag("reapable"), leader.integer("raw_status_at_last")
    measured = (
        f"process {leader.text('state')}, first thread {first}, others {', '.join(others) or 'none'}; "
        f"to be reaped: {'yes' if reapable else 'no'}; exit status at last {last}"
    )
    expected = f"process Z, first thread Z, another one alive; to be reaped: no; exit status at last {reading.RAW_STATUS}"
    if leader.text("state") == "Z" and first == "Z" and living and not reapable and last == reading.RAW_STATUS:
        return passed("It showed Z, ran on, and ended later with its own status.", expected=expected, measured=measured)
    return failed("No process was seen that shows Z and is alive.", expected=expected, measured=measured)


# --- many zombies -----------------------------------------------------------------------------------------------------------------


@check(points=1, claim="Z5")
def zombies_accumulate_one_a_fork(evidence: Evidence) -> Verdict:  # noqa: PLR0911  (One for each way to fall short.)
    """A parent that never waits gathers zombies: exactly one a fork, and so in a straight line over time.

    Another process counts them. It notes how many children the parent had made before each count and after it: the number found must lie
    between. Over time the zombies grow as fast as the forks do: in a straight line if the machine forked at a steady pace.
    """
    seen = evidence["accumulation"]
    forked = seen.integer("forked", minimum=1)
    if forked != evidence.parameters.integer("zombies"):
        return inconclusive(f"The parent made {forked} children, {evidence.parameters.integer('zombies')} were asked for.")
    # Six: below that a line through a few points is straight by chance.
    samples = seen.records("samples", at_least=6)
    reading.increasing(samples, "elapsed_s")
    reading.increasing(samples, "forked_before")
    if seen.text("parent") != "never":
        return failed(f"The parent that was watched is of the kind {seen.text('parent')!r}, not one that never waits.")
    for sample in samples:
        low, high = sample.integer("forked_before"), sample.integer("forked_after")
        zombies, living = sample.integer("zombies", minimum=0), sample.integer("living", minimum=0)
        # (The last child made may still be on its way out, and on a loaded machine so may a few more.)
        if not low <= zombies + living <= high or living > 5:
            return failed(
                f"After {sample.number('elapsed_s'):.2f} s the zombies were not as many as the children.",
                expected=f"{low} to {high} children, all zombies but the last few",
                measured=f"{zombies} zombies and {living} living",
            )
    last = samples[-1].integer("zombies")
    if last != forked or seen.integer("peak") != last or seen.integer("at_end") != last:
        return failed("At the end the zombies were not as many as the forks.", expected=f"{forked} zombies", measured=f"{last} zombies")
    # While the parent forked; the last look comes after it had stopped.
    during = [sample for sample in samples if sample.integer("forked_before") < forked]
    times = [sample.number("elapsed_s", minimum=0) for sample in during]
    if len(during) < 5:
        return inconclusive(
            f"Only {len(during)} counts fell into the time of forking; a line needs 5.", hint="ask for more --param samples"
        )
    made, found = ([float(sample.integer(name)) for sample in during] for name in ("forked_before", "zombies"))
    pace, steady = line_through(times, made)
    slope, straight = line_through(times, found)
    ratio, _ = line_through(made, found)
    measured = (
        f"{last} zombies from {forked} forks, {ratio:.3f} a fork over {len(during)} counts; "
        f"{slope:.1f} a second (R² {straight:.3f}) where the forks were {pace:.1f} (R² {steady:.3f})"
    )
    # A count of zombies is a few forks younger than the count of forks before it; over a hundred forks that is some percent.
    expected = f"{forked} zombies; 0.9 to 1.1 a fork, and as straight over time as the forks"
    if not 0.9 <= ratio <= 1.1 or straight < steady - 0.02:
        return failed("The zombies did not grow with the forks.", expected=expected, measured=measured)
    # 0.98: what a stall of a tenth of the time leaves of a straight line. An emulated guest on a busy machine may do worse; then the line
    # bends, and the zombies bend with the forks.
    if steady < 0.98:
        return passed("One zombie a fork at each of the counts; the machine forked unsteadily.", expected=expected, measured=measured)
    return passed("One zombie a fork at each of the counts, and a straight line over time.", expected=expected, measured=measured)


@check(points=1, claim="Z5", after="zombies_accumulate_one_a_fork")
def sigkill_removes_none(evidence: Evidence) -> Verdict:
    """SIGKILL removes no zombie: kill reports success for each, and afterwards every one is there with the exit status it had.

    The proof is the end: when the parent reaps at last, each child is handed over as exited with 7, none as killed by signal 9.
    """
    seen = evidence["accumulation"]
    zombies, kill, reaped = seen.integer("forked"), seen.record("sigkill"), seen.record("after_reaping")
    sent, accepted, left, same = (kill.integer(name) for name in ("sent_to", "accepted", "left", "same_process"))
    statuses = reaped.record("statuses")
    handed_over = {status: statuses.integer(status) for status in statuses}
    one = stat_of(evidence["anatomy"].record("child"), "after_sigkill")
    measured = f"{accepted} of {sent} signals accepted, {left} zombies left, {same} of them unchanged; statuses {handed_over}"
    expected = f"{zombies} accepted, {zombies} left and unchanged; statuses {{'{reading.RAW_STATUS}': {zombies}}}"
    if sent != zombies or accepted != sent:
        return inconclusive("Not every zombie was sent a signal that the kernel accepted.", expected=expected, measured=measured)
    if left != zombies or same != zombies or handed_over != {str(reading.RAW_STATUS): zombies}:
        return failed("SIGKILL changed something.", expected=expected, measured=measured)
    if one.text("state") != "Z" or one.integer("exit_code") != reading.RAW_STATUS or reaped.integer("found") != 0:
        return failed("The single zombie was changed by SIGKILL, or some were left after reaping.", expected=expected, measured=measured)
    return passed("A dead process cannot be killed; only its parent's wait removes it.", expected=expected, measured=measured)


@check(points=1, claim="Z4", after="zombies_accumulate_one_a_fork")
def a_parent_that_reaps_has_none_left(evidence: Evidence) -> Verdict:
    """Under the same load a parent that reaps has a zombie now and then, and none at the end.

    The same observer counts, with the same method that found every zombie of the other parent: so a zero means that there were none.
    """
    seen, other = evidence["reaping"], evidence["accumulation"]
    forked, samples = seen.integer("forked", minimum=1), seen.records("samples", at_least=6)
    reading.increasing(samples, "elapsed_s")
    if seen.text("parent") != "reap" or forked != other.integer("forked") or seen.number("rate") != other.number("rate"):
        return inconclusive(
            "The two parents did not have the same load.", measured=f"{forked} forks by a parent of kind {seen.text('parent')}"
        )
    for sample in samples:
        most = sample.integer("forked_after") - sample.integer("reaped_before")
        if sample.integer("zombies", minimum=0) + sample.integer("living", minimum=0) > most:
            raise EvidenceProblem(f"{sample.place}: more children than the parent had made and not yet reaped ({most})")
    peak, at_end = max(sample.integer("zombies") for sample in samples), samples[-1].integer("zombies")
    statuses = seen.record("after_reaping").record("statuses")
    reaped = statuses.integer(str(reading.RAW_STATUS)) if str(reading.RAW_STATUS) in statuses else 0
    measured = f"peak {peak}, at the end {at_end}; {reaped} of {forked} reaped; the parent that never waits had {other.integer('peak')}"
    # A zombie here lives some milliseconds: at 100 forks a second, by Little's law, one in ten looks sees one. A stall of the machine lets
    # a few gather; a twentieth of what the other parent gathers is far from both.
    allowed = max(3, forked // 20)
    expected = f"a peak of {allowed} at most, 0 at the end"
    if reaped != forked:
        return failed("The parent did not reap all of its children.", expected=expected, measured=measured)
    if at_end != 0 or peak > allowed:
        return failed("Zombies gathered although the parent reaps.", expected=expected, measured=measured)
    return passed("Zombies are transient where the parent waits.", expected=expected, measured=measured)


@check(points=1, claim="Z1", after="zombies_accumulate_one_a_fork")
def a_parent_that_ignores_sigchld_has_no_zombies(evidence: Evidence) -> Verdict:
    """A parent that ignores SIGCHLD never has a zombie, though it never waits either: the kernel reaps for it.

    It is also the control of this lab's instrument: one that reports zombies here reports them anywhere.
    """
    seen = evidence["ignored"]
    forked, samples = seen.integer("forked", minimum=20), seen.records("samples", at_least=3)
    reading.increasing(samples, "elapsed_s")
    if seen.text("parent") != "ignore" or forked != evidence.parameters.integer("ignored"):
        return inconclusive("The parent that was watched is not the one that ignores SIGCHLD, or not with the load asked for.")
    most = max(sample.integer("zombies", minimum=0) for sample in samples)
    left = seen.record("after_reaping").flag("kernel_says_children_left")
    handed_over = list(seen.record("after_reaping").record("statuses"))
    reaped = max(sample.integer("reaped_after") for sample in samples)
    measured = f"at most {most} zombies in {len(samples)} counts over {forked} forks; a wait at the end: {'children' if left else 'ECHILD'}"
    expected = "0 zombies; a wait finds no child"
    if most or left or handed_over or reaped:
        return failed("There were zombies, or somebody waited.", expected=expected, measured=measured)
    return passed("No zombie without a parent that might ask.", expected=expected, measured=measured)


# --- readers ----------------------------------------------------------------------------------------------------------------------


def stat_of(child: Record, state: str) -> Record:
    """The stat fields of the child in a state."""
    return child.record(state).record("stat")


def files_of(portrait: Record) -> list[Record]:
    """All the files tried in /proc/PID; there are some forty of them, and fewer than twenty is not the directory."""
    files = portrait.record("files")
    found = [files.record(name) for name in files]
    if len(found) < 20:
        raise EvidenceProblem(f"{files.place}: expected the files of /proc/PID, found {len(found)}")
    return found


def gone(reaped: Record) -> str:
    """What was found after the wait."""
    return "still there" if reaped.flag("exists") else "no such process"


def optional(holder: Record, key: str) -> Record | None:
    """A nested object, or None where the script wrote null."""
    return None if reading.error_of(holder, key) is None else holder.record(key)


def line_through(xs: Sequence[float], ys: Sequence[float]) -> tuple[float, float]:
    """Slope of the least-squares line and R², the share of the variation that it explains (0 where nothing varies)."""
    mean_x, mean_y = sum(xs) / len(xs), sum(ys) / len(ys)
    xx = sum((x - mean_x) ** 2 for x in xs)
    xy = sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True))
    yy = sum((y - mean_y) ** 2 for y in ys)
    if xx == 0 or yy == 0:
        return 0.0, 0.0
    return xy / xx, xy * xy / (xx * yy)
