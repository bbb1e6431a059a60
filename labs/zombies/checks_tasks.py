"""The tests of the student's own work: pure functions over what the guest's side has seen of it."""

from __future__ import annotations

from collections import Counter

from vmlab.lab import Evidence, Record, Verdict, failed, inconclusive, passed, task_test, trouble

MOST_S = 0.05
"""How long a child may stay a zombie."""
LOOKS = 10
"""So many looks, 5 ms apart, is that long: fewer are a pause of the whole guest, not of the supervisor."""
ENDED_BY_THE_LAB = "ended by the lab"
IDLE_SHARE = 0.05
"""What a supervisor may take of a CPU while nothing happens."""


@task_test(task="reaper", points=2)
def each_status_is_printed_once(evidence: Evidence) -> Verdict:
    """Six commands end, the first of them last, and two by a signal.

    The lines that the program printed are compared with what the commands were told to do.
    """
    return _lines(evidence["reaper_mixed"])


@task_test(task="reaper", points=1, after="each_status_is_printed_once")
def nobody_waits_for_the_slowest(evidence: Evidence) -> Verdict:
    """While the first command still runs, those that have ended are reaped.

    A child counts as a zombie for as long as the program could have reaped it: time in which others had the CPU is not counted.
    """
    return _zombies(evidence["reaper_mixed"])


@task_test(task="reaper", points=2)
def forty_end_at_once(evidence: Evidence) -> Verdict:
    """Forty commands end in the same millisecond, each by one of four signals.

    SIGCHLD does not queue: whoever waits once for each signal misses most of them. Lines and zombies are both looked at.
    """
    run = evidence["reaper_burst"]
    if not run.flag("running"):
        return _bad(run) or failed(
            "The forty commands never ran at the same time.",
            measured=f"{len(run.numbers('statuses', at_least=0))} of 40 were found running",
            hint="start each command as soon as its line is read, without waiting for those before it",
        )
    lines = _lines(run)
    return lines if lines.kind != "pass" else _zombies(run)


@task_test(task="reaper", points=1)
def a_stopped_command_has_not_ended(evidence: Evidence) -> Verdict:
    """A command is stopped and continues.

    It must be there, stopped, when it is looked for, with no line about it; and its status comes once, when it has ended.
    """
    run = evidence["reaper_stopped"]
    bad = _bad(run)
    if bad is not None:
        return bad
    early = [line.text("text") for line in run.records("early", at_least=0) if line.text("text").startswith("1 ")]
    if early:
        return failed(
            "A line was printed about a command that was only stopped.",
            expected="no line for command 1 before it ends",
            measured=early[0],
            hint="waitpid tells of stopped children only with WUNTRACED; if you use it, look at WIFSTOPPED",
        )
    if run.text("state") != "T":
        return failed(
            "The command could not be found stopped.", measured=f"state {run.text('state') or 'none'}", hint="start each command at once"
        )
    return _lines(run)


@task_test(task="reaper", points=1)
def orphans_are_reaped_too(evidence: Evidence) -> Verdict:
    """A command leaves a process behind, which the program adopts.

    No line is printed for it, and it does not stay a zombie.
    """
    run = evidence["reaper_stopped"]
    bad = _bad(run)
    if bad is not None:
        return bad
    if run.integer("left", minimum=0) > 0:
        return failed(
            "A process that the program adopted is still its child.",
            expected="no child left",
            measured=f"{run.integer('left')} left",
            hint="wait for any child (waitpid with -1), not only for those that you started",
        )
    extra = len(run.records("lines", at_least=0)) - len(run.numbers("statuses"))
    if extra > 0:
        return failed(
            "A line was printed for a process that was no command.",
            measured=f"{extra} lines more than commands",
            hint="print a line only for a process id that you started",
        )
    return _zombies(run)


@task_test(task="reaper", points=1)
def it_sleeps_while_nothing_happens(evidence: Evidence) -> Verdict:
    """Forty commands sleep, and so does the supervisor."""
    run = evidence["reaper_burst"]
    idle = run.record("idle")
    for_s, cpu_s = idle.number("for_s", minimum=0.1), idle.number("cpu_s", minimum=0)
    measured = f"{1000 * cpu_s:.0f} ms of CPU time in {1000 * for_s:.0f} ms"
    if not run.flag("running"):
        return _bad(run) or inconclusive("The commands did not run, so there was nothing to wait for.", measured=measured)
    if cpu_s > IDLE_SHARE * for_s:
        return failed(
            "The program is busy while nothing happens.",
            expected=f"less than {IDLE_SHARE:.0%} of a CPU",
            measured=measured,
            hint="sleep until a signal or a line comes (a blocking read, poll, sigwait): do not ask again and again",
        )
    return passed("It slept.", expected=f"less than {IDLE_SHARE:.0%} of a CPU", measured=measured)


@task_test(task="reaper", points=1)
def no_file_stays_open(evidence: Evidence) -> Verdict:
    """After forty commands the program has no more files open than after the first."""
    run = evidence["reaper_burst"]
    counts = run.record("descriptors")
    before, after = counts.integer("before", minimum=0), counts.integer("after", minimum=0)
    if before == 0 or after == 0 or not run.flag("running"):
        return _bad(run) or inconclusive("The forty commands did not run, or the program had ended before its files were counted.")
    measured = f"{before} before, {after} after"
    if after > before:
        return failed(
            "Files stay open.",
            expected="no more than before",
            measured=measured,
            hint="close what you open for a command when it has ended",
        )
    return passed("Nothing stays open.", expected="no more than before", measured=measured)


@task_test(task="reaper", points=1)
def it_ends_with_the_right_status(evidence: Evidence) -> Verdict:
    """The program ends when its input has, with 1 if a command failed and with 0 if none did."""
    for name, wanted in (("reaper_mixed", 1), ("reaper_stopped", 0)):
        program = evidence[name].record("program")
        if program.text("how") == ENDED_BY_THE_LAB:
            return failed(
                "The program did not end.",
                expected="its end, once its input is closed and every command has ended",
                measured="it still ran 3 s later",
                hint="count the commands that still run; with none left and no more input, end",
            )
        bad = _bad(evidence[name])
        if bad is not None:
            return bad
        if program.integer("status") != wanted:
            what = "a command failed" if wanted else "every command ended with 0"
            return failed(
                f"The exit status is wrong where {what}.",
                expected=str(wanted),
                measured=str(program.integer("status")),
                hint="end with 0 when every status was 0, else with 1; end only when the input is closed and every command has ended",
            )
    return passed("It ended as it should.", expected="1, then 0", measured="1, then 0")


def _bad(run: Record) -> Verdict | None:
    """The verdict on a program that ran into a limit or was killed; None when it ended by itself, or the lab ended it at the end."""
    program = run.record("program")
    return None if program.text("how") == ENDED_BY_THE_LAB else trouble(program)


def _lines(run: Record) -> Verdict:
    """Whether the lines are those that should be there, in any order."""
    bad = _bad(run)
    if bad is not None:
        return bad
    wanted = [f"{number} {int(status)}" for number, status in enumerate(run.numbers("statuses"), 1)]
    found = [line.text("text") for line in run.records("lines", at_least=0)]
    count = f"{len(found)} lines, {len(set(found) & set(wanted))} of {len(wanted)} right"
    double = next((line for line, times in Counter(found).items() if times > 1), None)
    missing = next((line for line in wanted if line not in found), None)
    strange = next((line for line in found if line not in wanted), None)
    if double is not None:
        return failed(
            "A line was printed twice.",
            measured=f"{double!r}; {count}",
            hint="reap a child once: a process id that was waited for is nobody's",
        )
    other = {line.split(" ")[0]: line for line in found if line not in wanted}
    wrong = next((line for line in wanted if line not in found and line.split(" ")[0] in other), None)
    if wrong is not None:
        return failed(
            "A status is wrong.",
            expected=wrong,
            measured=f"{other[wrong.split(' ')[0]]}; {count}",
            hint="WIFEXITED tells whether there is an exit status (WEXITSTATUS); of a signal it is 128 + WTERMSIG",
        )
    if missing is not None:
        return failed(
            "A command ended, and no line says so.",
            expected=missing,
            measured=count,
            hint="after each SIGCHLD wait again (WNOHANG) until there is no more: one signal may stand for many children",
        )
    if strange is not None:
        return failed(
            "There is a line that nobody asked for.", measured=f"{strange[:80]!r}; {count}", hint="print NUMBER STATUS, and nothing else"
        )
    return passed("Every command's status was printed once.", expected=f"{len(wanted)} lines", measured=count)


def _zombies(run: Record) -> Verdict:
    """Whether a child stayed a zombie though the program could have reaped it."""
    zombies = run.record("zombies")
    looks = zombies.integer("looks", minimum=0)
    expected = f"none for longer than {1000 * MOST_S:.0f} ms"
    if looks < 2 * LOOKS:
        return _bad(run) or inconclusive(f"It was looked at {looks} times only.", hint="try it again on a quieter machine")
    for each in zombies.records("longest", at_least=0):
        held_s = each.number("age_s", minimum=0) - each.number("waited_s", minimum=0)
        if each.integer("looks", minimum=0) > LOOKS and held_s > MOST_S:
            return failed(
                "A child stayed a zombie.",
                expected=expected,
                measured=f"{1000 * held_s:.0f} ms, seen at {each.integer('looks')} looks",
                hint="reap each child when SIGCHLD comes, whichever it is: waitpid(-1, ..., WNOHANG), until it says that there is none",
            )
    held = [each.number("age_s") - each.number("waited_s") for each in zombies.records("longest", at_least=0)]
    return passed("No child stayed a zombie.", expected=expected, measured=f"{1000 * max(held, default=0.0):.0f} ms at most, {looks} looks")


# --- leak -------------------------------------------------------------------------------------------------------------------------

MOST_NOW = 2
"""A job that has just ended may be a zombie at one look: how many of them at a look are no leak."""


@task_test(task="leak", points=2)
def the_zombies_are_gone(evidence: Evidence) -> Verdict:
    """The service's zombies are counted for 1.5 s after the fix.

    One job that has just ended may be seen; more than that at every look is a leak. Before the fix there must have been zombies.
    """
    service = _service_runs(evidence, "leak_after")
    if service is not None:
        return service
    before, after = _counted(evidence["leak_before"]), _counted(evidence["leak_after"])
    if min(before) < 3:
        return inconclusive("There were no zombies before the fix.", measured=f"{min(before)}", hint="try it again")
    measured = f"{before[-1]} before, {after[0]} to {after[-1]} after"
    if min(after) <= 1 and after[-1] <= MOST_NOW:
        return passed("They are gone.", expected="none that stays", measured=measured)
    hint = (
        "new ones no longer come, but who waits for the old ones?"
        if max(after) - min(after) <= 1
        else "only a wait of their parent removes zombies"
    )
    return failed("There are still zombies.", expected="none that stays", measured=measured, hint=hint)


@task_test(task="leak", points=2, after="the_zombies_are_gone")
def the_printers_are_the_same_processes(evidence: Evidence) -> Verdict:
    """The three printers are looked for after the fix: the same numbers, started at the same time."""
    before, after = evidence["leak_before"], evidence["leak_after"]
    printers = set(before.texts("printers", at_least=1))
    if len(printers) != 3:
        return inconclusive("The three printers could not be told apart before the fix.", measured=str(len(printers)))
    if before.text("boot_id") != after.text("boot_id"):
        return failed("The machine was booted again.", hint="mend the running system")
    kept = printers & set(after.texts("printers"))
    measured = f"{len(kept)} of 3"
    if len(kept) < 3:
        return failed(
            "A printer is gone.",
            expected="3 of 3",
            measured=measured,
            hint="a restart of the service ends its processes: does the unit have another way to make it read its program again?",
        )
    return passed("All three still run.", expected="3 of 3", measured=measured)


@task_test(task="leak", points=1, after="the_zombies_are_gone")
def jobs_are_still_done(evidence: Evidence) -> Verdict:
    """The jobs that the service does in 1.5 s are counted, before the fix and after it."""
    service = _service_runs(evidence, "leak_after")
    if service is not None:
        return service
    before, after = evidence["leak_before"].integer("jobs"), evidence["leak_after"].integer("jobs")
    measured = f"{before} before, {after} after"
    if before < 2:
        return inconclusive("The service did hardly any jobs before the fix.", measured=measured, hint="try it again on a quieter machine")
    if after == 0:
        return failed(
            "The service does no jobs any more.", measured=measured, hint="a fix that stops the work is no fix: wait for the jobs instead"
        )
    return passed("It goes on with its jobs.", measured=measured)


@task_test(task="leak", points=1)
def the_leak_does_not_come_back(evidence: Evidence) -> Verdict:
    """The service is started anew, as the next boot does it, and its zombies are counted again."""
    service = _service_runs(evidence, "leak_again")
    if service is not None:
        return service
    again = _counted(evidence["leak_again"])
    measured = f"{again[0]} to {again[-1]}, {evidence['leak_again'].integer('jobs')} jobs done"
    if evidence["leak_again"].integer("jobs") == 0:
        return failed("After a start the service does no jobs.", measured=measured, hint="it must work after the next boot, too")
    if again[-1] > MOST_NOW:
        return failed(
            "After a start it leaks again.", expected="none that stays", measured=measured, hint="mend the program, not only the process"
        )
    return passed("It does not leak after a start either.", expected="none that stays", measured=measured)


def _service_runs(evidence: Evidence, name: str) -> Verdict | None:
    """The verdict on a service that does not run; None when it runs."""
    bad = trouble(evidence["leak_fix"])
    if bad is not None:
        return bad
    state = evidence[name].text("state")
    if state != "active" or not evidence[name].text("main"):
        return failed(
            "The service does not run.", expected="active", measured=state or "unknown", hint="a fix that ends the service is no fix"
        )
    return None


def _counted(look: Record) -> list[int]:
    """The zombies at each look, the fewest first."""
    return sorted(int(count) for count in look.numbers("zombies", at_least=10))
