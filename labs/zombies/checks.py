"""What the evidence of the zombies lab shows of one zombie, one small question a function.

`checks_parents.py` judges how many there are, `checks_cost.py` what they cost, `checks_limits.py` and `checks_exhaustion.py` what stops
them, `checks_reaping.py` who gets rid of them.

A guest belongs to its student, who may forge what it prints. So wherever two observations are bound by arithmetic (children made and
children found, a limit and what was used of it, memory and the sizes of what lies in it) the checks hold them against each other.

And a guest may stand still for a moment, because the machine below has other work. Where that can show in what was observed, the check
looks for the stall first, and decides nothing when it finds one.
"""

from __future__ import annotations

from vmlab.lab import Evidence, EvidenceProblem, Record, Verdict, check, failed, inconclusive, not_observable, passed

from . import reading

SIGKILL = 9

LOOKS = 100
"""So often, a hundredth of a second apart, a process was looked at before it counts as one that does not become what it should."""


@check(points=1, claim="Z1")
def an_unwaited_child_is_a_zombie(evidence: Evidence) -> Verdict:
    """A child that has exited and was not waited for is a zombie: the same process as before, in state Z, until it is reaped.

    Before its exit the child waits on a pipe (state S). After it, /proc still knows the number, the parent and the moment it was started;
    field 52 holds the exit status, 7 in the second byte: 7 x 256 = 1792. Only after the parent's wait is the number unknown, to /proc and
    to kill.
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
    measured = (
        f"state {alive.text('state')} before the exit, {state} after it with exit status {code}; "
        f"after the wait: {'still there' if reaped.flag('exists') else 'no such process'}"
    )
    expected = f"state S, then Z with exit status {reading.RAW_STATUS}, then no such process"
    if alive.text("state") != "S" or zombie.integer("pid") != child.integer("pid") or zombie.integer("ppid") != child.integer("parent"):
        return inconclusive("The process looked at is not the child that waited on the pipe.", expected=expected, measured=measured)
    if state != "Z" or code != reading.RAW_STATUS or not same:
        return failed(
            "After its exit the child was not the zombie it should be.",
            expected=expected,
            measured=measured,
            hint="compare anatomy.child.alive.stat and anatomy.child.zombie.stat: is it the same process, and what ended it?",
        )
    unknown = all(each.text("errno") in ("ENOENT", "ESRCH") for each in files_of(reaped))
    if reaped.flag("exists") or not unknown or reading.text_or_none(child, "kill_after_reaping") != "ESRCH":
        return failed(
            "The zombie was still there after its parent had waited for it.",
            expected=expected,
            measured=measured,
            hint="look at anatomy.child.reaped: after the wait, no file of /proc/PID and no kill may find the number",
        )
    return passed(
        f"Process {zombie.integer('pid')} was the same one in both states, and the wait ended it.", expected=expected, measured=measured
    )


@check(points=1, claim="Z1", after="an_unwaited_child_is_a_zombie")
def its_status_can_be_read_without_reaping(evidence: Evidence) -> Verdict:
    """The exit status can be read while the zombie stays: waitid with WNOWAIT. Only a wait without it takes the zombie away.

    The status is read twice that way, with a SIGKILL in between that the kernel accepts, then by waitpid, and once more after that.
    """
    child = evidence["anatomy"].record("child")
    looks = [child.record("peek"), child.record("peek_again")]
    said = [f"{look.text('code')} with {look.integer('status')}" for look in looks]
    between = stat_of(child, "after_sigkill").text("state")
    reaping, afterwards = child.record("reaping"), child.record("peek_after_reaping")
    nothing_left = reading.text_or_none(reaping)
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
    refused = [reading.text_or_none(each) for each in (*looks, child.record("kill"))]
    killed = child.record("kill").integer("signal") == SIGKILL and not any(refused)
    if not killed or reaping.integer("pid") != child.integer("pid"):
        return inconclusive(
            "Not all was done to this child that was to be done: two looks, a signal in between, and the wait.",
            expected=expected,
            measured=measured,
        )
    if said == ["exited with 7"] * 2 and between == "Z" and raw == reading.RAW_STATUS and afterwards.text("errno") == "ECHILD":
        return passed("Reading left the zombie in place, waiting removed it.", expected=expected, measured=measured)
    return failed(
        "The status could not be read twice, or was not that of this child.",
        expected=expected,
        measured=measured,
        hint="compare peek, peek_again and reaping in anatomy.child: which of them says something else?",
    )


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
        error = reading.text_or_none(child.record("zombie").record("files").record(name))
        kept += [] if error == "ENOENT" else [f"{name} ({error or 'leads somewhere'})"]
    measured = (
        f"before: {before.integer('rss')} pages resident; after: {', '.join(kept) or 'nothing left'}; "
        f"uid {' '.join(new.text('Uid').split())}"
    )
    expected = "no pages, no Vm lines, no maps, no files; the same uid"
    if kept or new.text("Uid") != old.text("Uid"):
        return failed(
            "The zombie still had something that a dead process gives back, or had another owner.",
            expected=expected,
            measured=measured,
            hint="compare anatomy.child.alive and anatomy.child.zombie: each file of /proc/PID is in both",
        )
    return passed("All memory and all files of the process were given back at death.", expected=expected, measured=measured)


@check(points=1, claim="Z3", after="an_unwaited_child_is_a_zombie")
def a_zombie_is_shown_as_Z(evidence: Evidence) -> Verdict:  # noqa: N802  (Z is the state's name.)
    """It is shown as Z: in /proc/PID/stat, as "Z (zombie)" in /proc/PID/status, and by ps as "<defunct>" where ps is installed."""
    child = evidence["anatomy"].record("child")
    state, line = stat_of(child, "zombie").text("state"), child.record("zombie").record("status").text("State")
    ps = None if child.is_null("ps") else child.record("ps").text("line")
    measured = f"stat {state}; status {line}; ps: {'not installed' if ps is None else ps}"
    expected = "stat Z; status Z (zombie); ps: Z and <defunct>"
    if state == "Z" and line == "Z (zombie)" and (ps is None or (ps.startswith("Z") and "<defunct>" in ps)):
        return passed("The two files of /proc and ps, which reads them, agree.", expected=expected, measured=measured)
    return failed(
        "It was not shown as a zombie.",
        expected=expected,
        measured=measured,
        hint="which of the three shows something else? If it is ps: is it the system's own (`type ps` in `make shell LAB=zombies`)?",
    )


@check(points=1, claim="Z3")
def not_every_Z_is_a_zombie(evidence: Evidence) -> Verdict:  # noqa: N802
    """Not everything shown as Z is a zombie: a process whose first thread has ended shows Z while another of its threads runs.

    What tells them apart: its other thread is alive, and the kernel has nothing to hand to a wait yet.
    """
    leader = evidence["anatomy"].record("leader")
    if not leader.flag("observable"):
        return not_observable(leader.text("why"))
    threads = {each.integer("tid"): each.text("state") for each in leader.records("threads")}
    first, living = threads.get(leader.integer("pid")), [state for state in threads.values() if state in ("S", "R", "D")]
    reapable, last, looks = leader.flag("reapable"), leader.integer("raw_status_at_last"), leader.integer("looks")
    measured = (
        f"process {leader.text('state')}, its first thread {first}, all of its threads {', '.join(threads.values())}; "
        f"to be reaped: {'yes' if reapable else 'no'}; exit status at last {last}"
    )
    expected = f"process Z, first thread Z, another one alive; to be reaped: no; exit status at last {reading.RAW_STATUS}"
    if leader.integer("num_threads") != len(threads):
        return inconclusive("The kernel counts other threads than were found.", expected=expected, measured=measured)
    if leader.text("state") != "Z" and looks < LOOKS:
        return inconclusive("The guest stood still before the first thread had ended.", expected=expected, measured=measured)
    if leader.text("state") == "Z" and first == "Z" and living and not reapable and last == reading.RAW_STATUS:
        return passed("It showed Z, ran on, and ended later with its own status.", expected=expected, measured=measured)
    return failed(
        "No process was seen that shows Z and is alive.",
        expected=expected,
        measured=measured,
        hint="did the first thread end alone (the system call exit), or did it end all of them (exit_group)? See anatomy.leader.threads",
    )


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
