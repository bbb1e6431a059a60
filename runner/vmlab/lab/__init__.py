"""The evidence wing: what a lab is, what it observed, and what its checks conclude. Needs no QEMU.

A lab's ``checks.py`` and its tests import everything they need from here.

collection  which labs there are
lab         a lab's folder: its definition, its files, its parts
definition  what lab.yaml says
claim       what it says of a claim of the course page
guests      what it says of a guest
hardware    what it says of drives, processors and networks
pictures    what it says of plots and translations
kept        what it says of evidence that is there for the reader
glossary    the terms that reports explain
broken      what it says of worlds in which a claim is false
strict      what the models of lab.yaml have in common
experiment  a lab's experiment, whole or in parts
task        what lab.yaml says of a student's work
conduct     a student's program that could not be judged, and why
task_tests  the tests of it
work        a student's folder, and what of it is handed to a run
worlds      the worlds that a lab is tried in, and what must come out
library     the files that lie beside its guest scripts
loading     a lab's own Python files, run
parameters  the parameters of a run
answers     a student's predictions
evidence    what was observed, read with types
reads       what of it a check looked at
checks      from evidence to verdicts
verdict     the five verdicts, and what each means for whoever handles it
attempts    a measurement that was repeated for its noise
statistics  medians and ratios with their intervals
places      places in the evidence
controls/   what a lab's tests need: sound evidence, ways to break it, garbage at every place
mistakes    mistakes in a lab's files that show without running it
wording     what an author should mend in a lab's texts
lint        the same, and all else that does not fit together
skeleton    a lab that works, for `vmlab new`
"""

from vmlab.lab.attempts import Attempt, attempts_of, noise_of
from vmlab.lab.checks import Check, check, judge
from vmlab.lab.collection import read_lab
from vmlab.lab.conduct import not_built, trouble
from vmlab.lab.evidence import Evidence, EvidenceProblem, Record
from vmlab.lab.lab import Lab
from vmlab.lab.statistics import Interval, median_interval, ratio_interval
from vmlab.lab.task_tests import task_test
from vmlab.lab.verdict import Verdict, VerdictKind, failed, inconclusive, not_observable, passed
from vmlab.probes import kvm

__all__ = [
    "Attempt",
    "Check",
    "Evidence",
    "EvidenceProblem",
    "Interval",
    "Lab",
    "Record",
    "Verdict",
    "VerdictKind",
    "attempts_of",
    "check",
    "failed",
    "inconclusive",
    "judge",
    "kvm",
    "median_interval",
    "noise_of",
    "not_built",
    "not_observable",
    "passed",
    "ratio_interval",
    "read_lab",
    "task_test",
    "trouble",
]
