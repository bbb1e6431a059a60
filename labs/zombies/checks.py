"""What the evidence of the zombies lab shows, one small question a function.

A guest belongs to its student, who may forge what it prints. So wherever two observations are bound by arithmetic (children made and
children found, a limit and what was used of it, memory and the sizes of what lies in it) the checks hold them against each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from statistics import median, quantiles

from runner.lab import Evidence, EvidenceProblem, Record, Verdict, check, failed, inconclusive, passed

RAW_STATUS = 7 << 8  # A child that called exit(7), in the form that waitpid and field 52 of /proc/PID/stat use.
WORLDS = ("pids_max", "nproc", "pid_max", "threads_max")


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
    expected = f"state S, then Z with exit status {RAW_STATUS}, then no such process"
    if alive.text("state") != "S" or zombie.integer("pid") != child.integer("pid") or zombie.integer("ppid") != child.integer("parent"):
        return inconclusive("The process looked at is not the child that waited on the pipe.", expected=expected, measured=measured)
    if state != "Z" or code != RAW_STATUS or not same:
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
    raw = reaping.integer("raw_status")
    measured = f"WNOWAIT: {said[0]}, then {said[1]}, state {between} in between; waitpid: {raw}; afterwards {afterwards.text('errno')}"
    expected = f"exited with 7 twice, state Z, waitpid {RAW_STATUS}, then ECHILD"
    if said == ["exited with 7"] * 2 and between == "Z" and raw == RAW_STATUS and afterwards.text("errno") == "ECHILD":
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
        kept += [] if "errno" in now and error_of(now) == "ENOENT" else [f"{name} ({error_of(now)})"]
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
    expected = f"process Z, first thread Z, another one alive; to be reaped: no; exit status at last {RAW_STATUS}"
    if leader.text("state") == "Z" and first == "Z" and living and not reapable and last == RAW_STATUS:
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
    increasing(samples, "elapsed_s")
    increasing(samples, "forked_before")
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
    expected = f"{zombies} accepted, {zombies} left and unchanged; statuses {{'{RAW_STATUS}': {zombies}}}"
    if sent != zombies or accepted != sent:
        return inconclusive("Not every zombie was sent a signal that the kernel accepted.", expected=expected, measured=measured)
    if left != zombies or same != zombies or handed_over != {str(RAW_STATUS): zombies}:
        return failed("SIGKILL changed something.", expected=expected, measured=measured)
    if one.text("state") != "Z" or one.integer("exit_code") != RAW_STATUS or reaped.integer("found") != 0:
        return failed("The single zombie was changed by SIGKILL, or some were left after reaping.", expected=expected, measured=measured)
    return passed("A dead process cannot be killed; only its parent's wait removes it.", expected=expected, measured=measured)


@check(points=1, claim="Z4", after="zombies_accumulate_one_a_fork")
def a_parent_that_reaps_has_none_left(evidence: Evidence) -> Verdict:
    """Under the same load a parent that reaps has a zombie now and then, and none at the end.

    The same observer counts, with the same method that found every zombie of the other parent: so a zero means that there were none.
    """
    seen, other = evidence["reaping"], evidence["accumulation"]
    forked, samples = seen.integer("forked", minimum=1), seen.records("samples", at_least=6)
    increasing(samples, "elapsed_s")
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
    reaped = statuses.integer(str(RAW_STATUS)) if str(RAW_STATUS) in statuses else 0
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
    increasing(samples, "elapsed_s")
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


# --- what they cost ---------------------------------------------------------------------------------------------------------------


@check(points=1, claim="Z2")
def a_zombie_costs_kernel_memory(evidence: Evidence) -> Verdict:  # noqa: PLR0911  (One for each way to fall short.)
    """A zombie costs kernel memory: about as much as the records of it that the kernel keeps, whose sizes are read from /proc/slabinfo.

    Two accounts must agree: how much SUnreclaim in /proc/meminfo rose a zombie, batch by batch, and the sum over the caches that gained
    an object a zombie, each object with its share of a slab.
    """
    cost = evidence["cost"]
    total, page = cost.integer("total", minimum=1), cost.integer("page_bytes", minimum=1)
    snapshots = cost.records("snapshots", at_least=6)
    if any(later.integer("count") <= earlier.integer("count") for earlier, later in pairwise(snapshots)):
        return inconclusive("The batches are not in order.")
    each = [
        (after.integer("SUnreclaim", minimum=1) - before.integer("SUnreclaim", minimum=1))
        * 1024
        / (after.integer("count") - before.integer("count"))
        for before, after in pairwise(snapshots)
    ]
    reported = [batch.number("bytes_each") for batch in cost.records("batches", at_least=5)]
    agree = len(reported) == len(each) and all(abs(a - b) < 1 for a, b in zip(reported, each, strict=False))
    if not agree or abs(median(reported) - cost.number("median_bytes")) > 1 or snapshots[-1].integer("count") != total:
        return inconclusive("The costs reported do not follow from the amounts of memory reported with them.")
    made = total + cost.integer("batch") + cost.record("living").integer("count")
    if cost.integer("reaped") != made:
        # Memory that is given back late could be taken for that of zombies; whoever was a zombie can still be waited for.
        return failed(
            "They were no zombies when they were weighed.",
            expected=f"{made} to be waited for afterwards, the warm-up and the living ones included",
            measured=f"{cost.integer('reaped')}",
        )
    middle, (low, _, high) = median(each), quantiles(each, n=4, method="inclusive")
    measured = (
        f"median {middle:,.0f} bytes a zombie over {len(each)} batches "
        f"(half of them {low:,.0f} to {high:,.0f}, all {min(each):,.0f} to {max(each):,.0f})"
    )
    # Each record of a zombie has a number of bytes; below one KiB there is no room for any task_struct that Linux ever had.
    if middle < 1024:
        return failed(
            "The zombies cost no kernel memory worth the name: were they zombies?", expected="some KiB a zombie", measured=measured
        )
    caches = {cache.text("name"): cache for cache in cost.records("caches", at_least=1)}
    if "task_struct" not in caches:
        return failed("The number of task_structs did not rise with the zombies.", expected="one task_struct a zombie", measured=measured)
    tasks = caches["task_struct"].integer("objects_gained") / total
    by_slabs = sum(share_of_slab(cache, page) * cache.integer("objects_gained") / total for cache in caches.values())
    names = ", ".join(f"{name} {cache.integer('object_bytes')}" for name, cache in list(caches.items())[:4])
    expected = f"{by_slabs:,.0f} bytes by the slabs that grew ({names})"
    # Slabs come whole and SLUB counts the objects of a CPU's current slabs as used: with some hundred zombies that is worth a tenth.
    if not 0.85 <= tasks <= 1.15:
        return inconclusive(
            f"There were {tasks:.2f} task_structs a zombie; something else came or went.", expected=expected, measured=measured
        )
    if high - low > middle / 4:
        return inconclusive(
            "The batches differ by more than a quarter: something else used the kernel's memory.", expected=expected, measured=measured
        )
    if not 0.8 <= middle / by_slabs <= 1.2:
        return inconclusive("The two accounts differ by more than a fifth.", expected=expected, measured=measured)
    return passed("Not nothing: the kernel keeps these records until the parent has waited.", expected=expected, measured=measured)


@check(points=1, claim="Z2", after="a_zombie_costs_kernel_memory")
def its_kernel_stack_is_freed_at_death(evidence: Evidence) -> Verdict:
    """The kernel stack is given back at death, not at the wait: living children raise KernelStack, zombies do not.

    So do page tables: the last that the kernel held for the process's memory.
    """
    cost = evidence["cost"]
    snapshots, living = cost.records("snapshots", at_least=6), cost.record("living")
    count, total = living.integer("count", minimum=1), cost.integer("total", minimum=1)
    before, alive, dead = (living.record(name) for name in ("before", "alive", "dead"))

    def stack(start: Record, end: Record, processes: int) -> float:
        return (end.integer("KernelStack", minimum=1) - start.integer("KernelStack", minimum=1)) * 1024 / processes

    of_living, of_dead, of_zombies = stack(before, alive, count), stack(before, dead, count), stack(snapshots[0], snapshots[-1], total)
    tables = [(end.integer("PageTables") - before.integer("PageTables")) * 1024 / count for end in (alive, dead)]
    measured = (
        f"kernel stack {of_living:,.0f} bytes a living child, {of_dead:,.0f} once it is dead, {of_zombies:,.0f} a zombie of the batches; "
        f"page tables {tables[0]:,.0f}, then {tables[1]:,.0f}"
    )
    expected = "at least a page for the living, less than an eighth of that for the dead"
    # A stack is one page at the very least (16 KiB on x86-64). Other processes that end meanwhile lower the figure of the zombies; to hide
    # stacks of so many zombies there would have to be as many of them.
    if of_living < 4096:
        return inconclusive("The living children raised KernelStack too little to compare with.", expected=expected, measured=measured)
    if max(of_dead, of_zombies) > of_living / 8:
        return failed("The dead still had kernel stacks.", expected=expected, measured=measured)
    return passed("A zombie never runs again, and has no stack to run on.", expected=expected, measured=measured)


# --- the limits -------------------------------------------------------------------------------------------------------------------


@check(points=1, claim="Z6")
def numbers_are_limited_and_threads_use_them(evidence: Evidence) -> Verdict:
    """The number of processes is limited by a range of numbers, pid_max, from which threads take theirs too.

    The kernel's own default is max(32768, 1024 for each CPU); 4194304 comes from a sysctl file of systemd.
    """
    limits = evidence["limits"]
    pid_max = limit_named(limits, "pid_max").integer("limit")
    default = max(32768, 1024 * limits.integer("cpus_possible", minimum=1))
    numbers = limits.record("numbers")
    process, thread, later = (numbers.integer(name, minimum=1) for name in ("process", "thread", "next_process"))
    tasks = numbers.integer("tasks_with_thread") - numbers.integer("tasks_before")
    measured = f"pid_max {pid_max:,}; process {process}, its thread {thread}, the next process {later}; {tasks:+d} task by the thread"
    expected = f"pid_max {default:,} or 4,194,304; three numbers; one task more"
    if pid_max not in (default, 4194304):
        return inconclusive("Somebody set pid_max to a value of their own.", expected=expected, measured=measured)
    if len({process, thread, later}) != 3 or not numbers.flag("thread_has_proc_directory"):
        return failed("The thread had no number of its own.", expected=expected, measured=measured)
    if tasks < 1:
        return inconclusive("Other tasks ended while the thread was started.", expected=expected, measured=measured)
    return passed("There is no table: a thread uses up a number as a process does.", expected=expected, measured=measured)


@check(points=1, claim="Z6")
def another_limit_is_reached_first(evidence: Evidence) -> Verdict:
    """On this system, left as it is, another limit than pid_max is reached first.

    A fork has to pass four: pids.max of its control groups, RLIMIT_NPROC of its user (not for the superuser), threads-max, pid_max. For
    each the room left is its limit less what is used.
    """
    limits = evidence["limits"]
    room: dict[str, int] = {}
    for each in limits.records("limits", at_least=3):
        limit, exempt = each.integer("limit"), "exempt" in each and each.flag("exempt")
        if limit >= 0 and not exempt:
            name = each.text("name")
            room[name] = min(room.get(name, limit), limit - each.integer("usage", minimum=0))
    if not {"pid_max", "threads_max"} <= set(room):
        return inconclusive("The limits of the whole system are not among those listed.", measured=", ".join(room))
    tightest = min(room, key=lambda name: room[name])
    measured = f"{tightest} with room for {room[tightest]:,}; " + ", ".join(
        f"{name} {left:,}" for name, left in room.items() if name != tightest
    )
    expected = "a limit that leaves less room than pid_max does"
    if limits.text("tightest") != tightest or limits.integer("room") != room[tightest]:
        return inconclusive("The limit reported as the tightest does not follow from those listed.", expected=expected, measured=measured)
    if tightest == "pid_max":
        return failed(
            "Here it would be pid_max itself.", expected=expected, measured=measured, hint="more memory raises threads-max above it"
        )
    return passed("The finite size is rarely the one that matters.", expected=expected, measured=measured)


@check(points=1, claim="Z7")
def enough_zombies_stop_fork_with_eagain(evidence: Evidence) -> Verdict:
    """Enough zombies make fork fail, with EAGAIN, whichever of the four limits it is.

    In each of four worlds one limit was low. Nothing but zombies took the room: as many were found as forks had worked.
    """
    told = []
    for name in WORLDS:
        world = world_named(evidence, name)
        forks, zombies = world.integer("forks", minimum=0), world.integer("zombies", minimum=0)
        if "errno" not in world or error_of(world) is None:
            return failed(
                f"In the world of {name} no fork was refused.",
                expected="EAGAIN",
                measured=f"{forks} forks, all of which worked",
                hint="is the limit lower than the number of forks attempted?",
            )
        told.append(f"{name}: {error_of(world)} after {forks} forks, {zombies} zombies")
        if error_of(world) != "EAGAIN":
            return failed(f"In the world of {name} fork failed in another way.", expected="EAGAIN", measured=told[-1])
        if world.integer("refused_again") != 3:
            return inconclusive(f"In the world of {name} the refusal did not last.", expected="refused three times more", measured=told[-1])
        if zombies != forks or not 0 < forks < world.integer("attempts") or world.integer("living") != 0:
            return failed(f"In the world of {name} it was not zombies that took the room.", expected="a zombie a fork", measured=told[-1])
    return passed("Zombies alone used up the room.", expected="EAGAIN, as many zombies as forks", measured="; ".join(told))


@check(points=1, claim="Z7", after="enough_zombies_stop_fork_with_eagain")
def the_limit_that_bound_is_named(evidence: Evidence) -> Verdict:
    """EAGAIN does not say which limit it was; the numbers do. In each world one limit is full, and only one.

    All four limits and what was used of them were read at the moment of refusal, in all four worlds. The superuser is exempt from
    RLIMIT_NPROC. A full pids.max also counts its refusals.
    """
    told = []
    for name in WORLDS:
        world = world_named(evidence, name)
        full = limits_reached(world)
        before, now = world.record("set_to").record(name), world.record("at_refusal").record(name)
        refusals = world.record("at_refusal").record("pids_max").integer("refusals") - world.record("set_to").record("pids_max").integer(
            "refusals"
        )
        told.append(
            f"{name}: {', '.join(full) or 'none'} full ({now.integer('usage')} of {now.integer('limit')}), {refusals} refusals by pids.max"
        )
        if full != [name]:
            verdict = inconclusive if len(full) > 1 else failed
            return verdict(
                f"In the world of {name} it was not that limit alone.", expected=f"{name} full, the others not", measured=told[-1]
            )
        if (refusals > 0) != (name == "pids_max"):
            return failed(
                f"In the world of {name} pids.max contradicts.", expected="refusals counted in its own world only", measured=told[-1]
            )
        # The forks that worked must be those for which there was room when the limit was set, but for what else came or went.
        room, forks = now.integer("limit") - before.integer("usage"), world.integer("forks")
        if abs(room - forks) > slack(name):
            return inconclusive(f"In the world of {name} there was room for {room}, but {forks} forks worked.", measured=told[-1])
    return passed("One full limit in each world, each time another.", expected="one full limit a world", measured="; ".join(told))


@check(points=1, claim="Z7", after="enough_zombies_stop_fork_with_eagain")
def the_kernel_says_so_on_the_console(evidence: Evidence) -> Verdict:
    """The kernel itself says that the pids controller refused a fork: the host reads the line from the guest's serial console.

    And the guest is none the worse for it, seen from outside: it runs on, without a panic.
    """
    seen = evidence["exhaustion"]
    group = world_named(evidence, "pids_max").text("cgroup")
    running = not seen.flag("guest_panicked") and seen.text("guest_status") == "running"
    if "console" not in seen:
        raise EvidenceProblem(f"{seen.place}.console is missing")
    line = seen.text("console") if error_of(seen, "console") is not None else None
    expected = f"fork rejected by pids controller in {group}"
    if line is None:
        return inconclusive("The console did not show the line; it may print errors only.", expected=expected, measured="no such line")
    if not line.rstrip().endswith(expected):
        return failed("The kernel's line is about another control group.", expected=expected, measured=line.strip()[-120:])
    if not running:
        return failed("The guest did not survive it.", expected="running", measured=seen.text("guest_status"))
    return passed("Two witnesses: the guest's counters, and the host at the serial line.", expected=expected, measured=line.strip()[-120:])


@check(points=1, claim="Z7", after="enough_zombies_stop_fork_with_eagain")
def forks_work_again_after_reaping(evidence: Evidence) -> Verdict:
    """After the zombies are reaped fork works again, under the same low limit."""
    told = []
    for name in WORLDS:
        world = world_named(evidence, name)
        recovery, forks = world.record("recovery"), world.integer("forks")
        statuses = recovery.record("statuses")
        reaped = statuses.integer(str(RAW_STATUS)) if str(RAW_STATUS) in statuses else 0
        still = world.record("after_reaping").record(name).integer("limit") == world.record("at_refusal").record(name).integer("limit")
        worked, asked = recovery.integer("worked"), recovery.integer("asked", minimum=1)
        told.append(f"{name}: {reaped} reaped, then {worked} of {asked} forks worked")
        if not still or not world.flag("restored"):
            return inconclusive(f"In the world of {name} the limit was changed before the second try, or not put back.", measured=told[-1])
        if reaped != forks or worked != asked:
            return failed(f"In the world of {name} not all was well again.", expected=f"{forks} reaped, {asked} forks", measured=told[-1])
    return passed("Reaping is the cure, and a complete one.", expected="all forks work", measured="; ".join(told))


# --- who clears them --------------------------------------------------------------------------------------------------------------


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
    increasing(looks, "elapsed_s")
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
        increasing(samples, "elapsed_s")
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
    return None if error_of(holder, key) is None else holder.record(key)


def error_of(holder: Record, key: str = "errno") -> str | None:
    """An error's name, or None where the script wrote null: no error."""
    try:
        return holder.text(key)
    except EvidenceProblem as problem:
        if "found null" in str(problem):
            return None
        if "found an object" in str(problem):
            return "an object"
        raise


def increasing(samples: Sequence[Record], key: str) -> None:
    """Samples are in order: a number that falls back shows that they were put together, not taken."""
    values = [sample.number(key) for sample in samples]
    for (earlier, later), sample in zip(pairwise(values), samples[1:], strict=True):
        if later < earlier:
            raise EvidenceProblem(f"{sample.place}.{key}: expected at least {earlier:g} as in the sample before, found {later:g}")


def line_through(xs: Sequence[float], ys: Sequence[float]) -> tuple[float, float]:
    """Slope of the least-squares line and R², the share of the variation that it explains (0 where nothing varies)."""
    mean_x, mean_y = sum(xs) / len(xs), sum(ys) / len(ys)
    xx = sum((x - mean_x) ** 2 for x in xs)
    xy = sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True))
    yy = sum((y - mean_y) ** 2 for y in ys)
    if xx == 0 or yy == 0:
        return 0.0, 0.0
    return xy / xx, xy * xy / (xx * yy)


def share_of_slab(cache: Record, page_bytes: int) -> float:
    """Bytes of memory for one object of a cache: its slab's pages divided by the objects in it, what does not fit included."""
    return cache.integer("pages_a_slab", minimum=1) * page_bytes / cache.integer("objects_a_slab", minimum=1)


def limit_named(limits: Record, name: str) -> Record:
    """One of the limits of the `limits` observation."""
    for each in limits.records("limits"):
        if each.text("name") == name:
            return each
    raise EvidenceProblem(f"{limits.place}.limits: expected one named {name}")


def world_named(evidence: Evidence, name: str) -> Record:
    """One of the four worlds of exhaustion."""
    return evidence["exhaustion"].record("worlds").record(name)


def limits_reached(world: Record) -> list[str]:
    """Which limits were full when fork was refused: usage against limit, for all that apply to the process that forked."""
    capabilities, found = world.record("capabilities"), []
    exempt = capabilities.integer("uid") == 0 or capabilities.flag("sys_resource") or capabilities.flag("sys_admin")
    for name in WORLDS:
        each = world.record("at_refusal").record(name)
        limit, usage = each.integer("limit"), each.integer("usage", minimum=0)
        if limit >= 0 and not (name == "nproc" and exempt) and usage >= limit - slack(name):
            found.append(name)
    return found


def slack(name: str) -> int:
    """How far usage may be from the limit and the limit still be called full.

    A control group and a user of the lab's own hold nothing but its processes. The whole system's tasks come and go: a few that ended
    between the refusal and the look.
    """
    return 0 if name in ("pids_max", "nproc") else 5
