"""How a student's program conducted itself, for a lab's tests: what keeps one from being judged at all, in a student's words.

A record of it is what `vmlab_guest.student` makes in the guest: `Running.record`, and of the compiler `Program.build`.
"""

from __future__ import annotations

from vmlab.lab.evidence import EvidenceProblem, Record
from vmlab.lab.verdict import Verdict, failed, not_observable

_STATES = {
    "R": ("it was computing", "a loop whose end never comes? Print what it tests, or make it wait for what it waits for"),
    "S": ("it was waiting", "which call never returns: a wait for a child that lives, a read that nobody writes to, a sleep?"),
    "D": ("it was waiting in the kernel", "after vfork the parent waits until its child calls exec or _exit"),
    "T": ("it had been stopped by a signal, and nobody continued it", "which of its signals is SIGSTOP or SIGTSTP, and who gets it?"),
    "Z": ("its main thread had ended and others had not", "join the threads, or end the whole process by exit"),
}
_SIGNALS = {
    "SIGSEGV": "it used an address that is not its own: a pointer that was never set, freed memory, an index beyond the array's end?",
    "SIGBUS": "it used an address behind which there is nothing: a mapped file that is shorter than the mapping?",
    "SIGABRT": "the C library's or its own abort: a failed assertion, memory freed twice? Its standard error may say which",
    "SIGFPE": "a whole number was divided by zero",
    "SIGILL": "it ran what is no instruction: was a function pointer overwritten?",
    "SIGPIPE": "it wrote to a pipe that nobody reads any more",
    "SIGKILL": "nobody but itself and its children can send it this signal: which process id does it give to kill?",
}


def trouble(record: Record) -> Verdict | None:
    """The failed verdict for a program that ran into a limit or was killed by a signal that the lab did not send; else None.

    None means that it ended by itself, within its limits, or by the lab's own hand: then its test judges what it did.
    EvidenceProblem when the record is none.
    """
    how = record.text("how")
    if how not in ("exited", "killed", "time limit", "output limit", "ended by the lab"):
        raise EvidenceProblem(f"{record.place}.how: expected how a program ended, found {how[:40]!r}")
    found = _at_a_limit(record, how)
    if not found and how == "killed" and (signal := record.text("signal")) not in record.texts("sent"):
        found = (f"It was killed by the signal {signal}.", _SIGNALS.get(signal, "who sent it?"))
    if not found:
        return None
    return failed(found[0], expected="it ends by itself, within its limits", measured=_in_its_words(record), hint=found[1])


def _at_a_limit(record: Record, how: str) -> tuple[str, str] | None:
    """The limit that it ran into, and what to look for; the cause before what follows from it."""
    limits = record.record("limits")
    if record.integer("oom_kills", minimum=0):
        hint = "what grows with each round? What it writes to files counts too"
        return f"It needed more than its {limits.number('memory_mib'):g} MiB of memory, and the kernel ended it.", hint
    if refused := record.integer("refused_forks", minimum=0):
        hint = "does every child end, and is it waited for? Does a child run on into the code that forks?"
        return f"It wanted more than its {limits.integer('processes')} processes at a time: the kernel refused {refused}.", hint
    if how == "output limit":
        hint = "which loop prints, and when does it end?"
        return f"It printed more than its {limits.number('output_kib'):g} KiB, and was ended.", hint
    if record.flag("disk_full"):
        return "It filled all the space that it has for files.", "what does it write, and is it ever removed?"
    if how == "time limit":
        doing, hint = _STATES.get(record.text("state"), ("it had not ended", "what does it wait for, and who should bring that about?"))
        return f"Its time of {limits.number('time_s'):g} s was over: {doing}.", hint
    return None


def not_built(record: Record) -> Verdict | None:
    """The verdict for a program that could not be compiled: failed, with the compiler's words; None when it could.

    Not observable where the image has no compiler: that is not the student's fault.
    """
    if missing := record.text("missing"):
        return not_observable(
            f"The image has no {missing}, which programs in C need.", hint="take an image of vmlab's own, such as debian-13"
        )
    if record.flag("built"):
        return None
    words = record.text("messages").strip()
    return failed(
        "It could not be started, because it could not be compiled.",
        expected="a program without errors",
        measured=words or "the compiler failed and said nothing",
        hint="mend the first error first: others often follow from it",
    )


def _in_its_words(record: Record) -> str:
    """What it did until then: times, and the last thing that it said."""
    text = f"{record.number('wall_s', minimum=0):.2f} s, {record.number('cpu_s'):.2f} s of them computing"
    for stream in ("stderr", "stdout"):
        if words := record.text(stream).strip():
            return f"{text}; the last line of its {stream}: {words.splitlines()[-1][-200:]}"
    return f"{text}; it printed nothing"
