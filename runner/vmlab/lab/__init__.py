"""The evidence wing: what a lab is, what it observed, and what its checks conclude. Needs no QEMU.

A lab's ``checks.py`` and its tests import everything they need from here.
"""

from vmlab.lab.checks import Check, check, judge
from vmlab.lab.collection import read_lab
from vmlab.lab.definition import Lab
from vmlab.lab.evidence import Evidence, EvidenceProblem, Record
from vmlab.lab.statistics import Interval, median_interval, ratio_interval
from vmlab.lab.verdict import Verdict, VerdictKind, failed, inconclusive, not_observable, passed
from vmlab.probes import kvm

__all__ = [
    "Check",
    "Evidence",
    "EvidenceProblem",
    "Interval",
    "Lab",
    "Record",
    "Verdict",
    "VerdictKind",
    "check",
    "failed",
    "inconclusive",
    "judge",
    "kvm",
    "median_interval",
    "not_observable",
    "passed",
    "ratio_interval",
    "read_lab",
]
