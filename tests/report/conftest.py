"""Sample reports, judged from evidence as real ones are. Tests take the fixture ``samples`` and call its functions."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Mapping
from typing import Any

import pytest

from vmlab.lab import Evidence, Verdict, failed, inconclusive, not_observable, passed
from vmlab.lab.checks import Check, CheckFunction, check
from vmlab.lab.definition import LabDefinition
from vmlab.lab.verdict import VerdictKind
from vmlab.lab.worlds import World, expected
from vmlab.report.assemble import Recorded, judge_report, lab_part, observation
from vmlab.report.batch import LabRow, Trouble
from vmlab.report.matrix import Matrix, Occasion, Outcome, Trial, matrix_of
from vmlab.report.model import (
    AcceleratorPart,
    CloudInitPart,
    ErrorPart,
    FilePart,
    GuestPart,
    HostPart,
    ObservationPart,
    PhasePart,
    Report,
    RunPart,
    StepPart,
)

HOSTILE = (
    "<script>alert(1)</script>\"'><img src=x onerror=alert(2)> "
    + "\x1b[31mred\x1b[0m \x00\x08\x9b \u202e reversed ]]> & {{ 7*7 }} {% raw %} $x_$ \ufffe"
)

DEFINITION: dict[str, Any] = {
    "title": "Zombies: what is left of a process that nobody waits for",
    "summary": "A child that has exited stays in the process table until its parent asks how it ended. This lab makes some, weighs them, "
    "fills a limit with them, and watches who adopts the orphans.",
    "claims": {
        "Z1": {
            "says": "A terminated process that has not been waited for becomes a zombie.",
            "stands": "simplified",
            "correction": "Unless SIGCHLD is ignored or SA_NOCLDWAIT is set: then none is made.",
        },
        "Z2": {"says": "A zombie occupies no memory except its process descriptor.", "stands": "holds"},
        "Z3": {"says": "Zombies can exhaust the number of processes.", "stands": "holds"},
        "Z4": {"says": "Zombies can be removed with kill -9.", "stands": "wrong", "correction": "A dead process takes no signals."},
        "Z5": {
            "says": "Orphans are adopted by init.",
            "stands": "simplified",
            "correction": "By the nearest subreaper, where there is one; init comes last.",
        },
    },
    "guests": {"vm": {"images": ["debian-12"], "memory_mib": 512}},
    "parameters": {"zombies": {"type": "integer", "default": 4000, "help": "how many zombies to make", "minimum": 1}},
    "questions": [
        {
            "id": "errno",
            "ask": "Which errno does fork give when the limit is reached?",
            "kind": "choice",
            "prediction": "EAGAIN",
            "choices": ["EAGAIN", "ENOMEM", "EPERM"],
            "measured_by": "exhaustion.errno",
            "because": "RLIMIT_NPROC, pids.max and pid_max all answer so",
            "check": "forks_fail_when_zombies_fill_the_limit",
        },
        {
            "id": "bytes_each",
            "ask": "How many bytes of kernel memory does one zombie hold?",
            "kind": "number",
            "prediction": 10240,
            "unit": "bytes",
            "measured_by": "accumulation.bytes_each",
            "tolerance": 0.25,
            "because": "a task_struct and what hangs on it, rounded to slabs",
            "check": "a_zombie_holds_a_few_kib_of_slab",
        },
        {
            "id": "why",
            "ask": "Why does kill -9 not help?",
            "kind": "text",
            "prediction": "A dead process takes no signals.",
        },
    ],
    "kept_for_the_reader": [
        {"places": ["anatomy.status", "exhaustion.limits[*].after"], "because": "The whole of /proc/PID/status, to look at."},
        {"places": ["nowhere"], "because": "It is in no observation."},
    ],
    "glossary": {"descriptor": {"also": ["descriptors"], "means": "A number by which a program names a file to the kernel, not a zombie."}},
    "plots": [
        {
            "id": "slab",
            "title": "Kernel memory grows with every zombie",
            "kind": "line",
            "x": {"label": "Zombies"},
            "y": {"label": "Kernel memory", "unit": "bytes"},
            "series": [
                {"name": "unreclaimable slab", "rows": "accumulation.samples", "x": "zombies", "y": "slab"},
                {"name": "kernel stacks", "rows": "accumulation.samples", "x": "zombies", "y": "stacks"},
            ],
            "shows": "Slab grows in a straight line, about ten KiB a zombie; stacks stay flat, because a stack is freed at death.",
        },
        {
            "id": "reap",
            "title": "Reaping takes the same time whoever reaps",
            "kind": "points",
            "x": {"label": "Reaper"},
            "y": {"label": "Time to reap one child", "unit": "µs"},
            "series": [
                {"name": "idle guest", "rows": "reaping.idle", "x": "reaper", "y": "us"},
                {"name": "busy guest", "rows": "reaping.busy", "x": "reaper", "y": "us"},
            ],
            "shows": "The two clouds overlap at each reaper; the bars are medians.",
        },
        {
            "id": "limits",
            "title": "Forks until the limit",
            "kind": "bars",
            "x": {"label": "Limit"},
            "y": {"label": "Successful forks"},
            "series": [
                {"name": "before reaping", "rows": "exhaustion.limits", "x": "limit", "y": "forks"},
                {"name": "after reaping", "rows": "exhaustion.limits", "x": "limit", "y": "after"},
            ],
            "shows": "Each limit lets through exactly as many forks again once the zombies are reaped.",
        },
        {
            "id": "missing",
            "title": "Descriptor tables",
            "kind": "line",
            "x": {"label": "Time", "unit": "s"},
            "y": {"label": "Open descriptors"},
            "series": [{"name": "descriptors", "rows": "nowhere.samples", "x": "t", "y": "n"}],
            "shows": "Nothing was recorded for this one.",
        },
    ],
}


@check(points=2, claim="Z1")
def an_unreaped_child_is_a_zombie(evidence: Evidence) -> Verdict:
    """A child that exited and was not waited for is a zombie."""
    state = evidence["anatomy"].text("state")
    if state == "Z":
        return passed(
            "The child's state was Z as long as nobody waited for it, and it was gone at once afterwards.",
            expected="state Z",
            measured="state Z",
        )
    return failed("The child was not a zombie.", expected="state Z", measured=f"state {state}", hint="Does the parent ignore SIGCHLD?")


@check(points=3, claim="Z2", after="an_unreaped_child_is_a_zombie")
def a_zombie_holds_a_few_kib_of_slab(evidence: Evidence) -> Verdict:
    """A zombie holds a few KiB of kernel memory and none of its own.

    The slab memory that the kernel counts is read before
    and after the zombies are made.

    What else takes or frees memory meanwhile shows as a batch that stands apart.
    """
    each = evidence["accumulation"].integer("bytes_each", minimum=0)
    if 4096 <= each <= 20480:
        return passed("Slab grew in step with the zombies.", expected="4,096 to 20,480 bytes each", measured=f"{each:,} bytes each")
    return failed("Slab did not grow as it should.", expected="4,096 to 20,480 bytes each", measured=f"{each:,} bytes each")


@check(points=3, claim="Z3")
def forks_fail_when_zombies_fill_the_limit(evidence: Evidence) -> Verdict:
    """When zombies fill the limit, fork fails with EAGAIN."""
    name = evidence["exhaustion"].text("errno")
    if name == "EAGAIN":
        return passed("Fork failed with the errno of a full process table.", expected="EAGAIN", measured="EAGAIN")
    return failed(
        "Fork failed for another reason than a full process table.",
        expected="EAGAIN",
        measured=name,
        hint="Look at pids.events in the cgroup, and at dmesg.",
    )


@check(points=1, claim="Z4")
def kill_does_not_remove_a_zombie(evidence: Evidence) -> Verdict:
    """SIGKILL returns 0 and removes nothing."""
    if not evidence["kill"].flag("steady"):
        return inconclusive(
            "The start times before and after differ by less than the clock's tick.",
            expected="the same start time",
            measured="1 tick apart",
        )
    return passed("The zombie was still there.", measured="kill returned 0; same start time")


@check(points=2, claim="Z5")
def orphans_go_to_the_nearest_subreaper(evidence: Evidence) -> Verdict:
    """An orphan is adopted by the nearest subreaper, else by init."""
    if not evidence["adoption"].flag("subreaper"):
        return not_observable("The guest's kernel was built without PR_SET_CHILD_SUBREAPER.", hint="Use the image debian-12.")
    return passed("The subreaper became the parent.", measured="parent 412, the subreaper")


@check(points=1, claim="Z6")
def the_check_that_breaks(evidence: Evidence) -> Verdict:
    """This check has a bug."""
    raise ZeroDivisionError("division by zero")


def _checks() -> list[Check]:
    functions: list[CheckFunction] = [
        an_unreaped_child_is_a_zombie,
        a_zombie_holds_a_few_kib_of_slab,
        forks_fail_when_zombies_fill_the_limit,
        kill_does_not_remove_a_zombie,
        orphans_go_to_the_nearest_subreaper,
        the_check_that_breaks,
    ]
    return [each.__vmlab_check__ for each in functions]  # type: ignore[attr-defined]


class Samples:
    """Reports of every kind, and the parts they are made of."""

    hostile = HOSTILE

    def definition(self, **changes: Any) -> LabDefinition:
        return LabDefinition.model_validate(DEFINITION | changes)

    def checks(self) -> list[Check]:
        """Six checks; on `observations` they reach all five verdicts."""
        return _checks()

    def data(self) -> dict[str, dict[str, Any]]:
        draw = random.Random(7)
        reap = {
            arm: [
                {"reaper": reaper, "us": round(draw.gauss(base + extra, 2.5), 2)}
                for reaper, base in (("parent", 18), ("subreaper", 20), ("init", 24))
                for _ in range(20)
            ]
            for arm, extra in (("idle", 0), ("busy", 6))
        }
        samples = [
            {"zombies": n, "slab": 31_000_000 + n * 10_283 + draw.randrange(90_000), "stacks": 1_600_000 + draw.randrange(32_768)}
            for n in range(0, 4001, 250)
        ]
        return {
            "anatomy": {"state": "Z", "vsize": 0, "rss": 0, "exit_code": 1792, "kernel": "6.1.0-28-amd64"},
            "accumulation": {"bytes_each": 10_283, "samples": samples},
            "reaping": reap,
            "exhaustion": {
                "errno": "ENOMEM",
                "limits": [
                    {"limit": "RLIMIT_NPROC", "forks": 500, "after": 500},
                    {"limit": "pids.max", "forks": 1000, "after": 1000},
                    {"limit": "pid_max", "forks": 3804, "after": 3799},
                ],
            },
            "kill": {"steady": False},
            "adoption": {"subreaper": False},
        }

    def observations(self, data: Mapping[str, Any] | None = None) -> list[ObservationPart]:
        return [
            observation(name, each, at_s=1.5 + i * 2.25) for i, (name, each) in enumerate((self.data() if data is None else data).items())
        ]

    def run(self, **changes: Any) -> RunPart:
        usual: dict[str, Any] = {
            "id": "0190f7c2-5d1e-7a44-9b1f-2d7a7c9e4b10",
            "started_at": "2026-11-23T20:15:00+00:00",
            "duration_s": 21.37,
            "command": "vmlab run zombies --param zombies=4000 --accel kvm",
            "parameters": {"zombies": 4000},
            "student": "ada",
            "runner_version": "0.1.0",
            "runner_cpu_s": 0.93,
        }
        return RunPart(**usual | changes)

    def host(self, **changes: Any) -> HostPart:
        usual: dict[str, Any] = {
            "os": "Debian GNU/Linux 12 (bookworm)",
            "kernel": "6.1.0-28-amd64",
            "cpu_model": "AMD EPYC 7B13",
            "cpus": 8,
            "memory_bytes": 16 << 30,
            "qemu_version": "7.2.15",
            "python_version": "3.11.2",
            "load_1min": 0.42,
            "accelerator": AcceleratorPart(name="kvm", reason="/dev/kvm ran a test program in 4 ms"),
        }
        return HostPart(**usual | changes)

    def guests(self, **changes: Any) -> list[GuestPart]:
        usual: dict[str, Any] = {
            "name": "vm",
            "image": "debian-12",
            "image_sha256": "5e" * 32,
            "memory_bytes": 512 << 20,
            "cpus": 2,
            "init": "systemd",
            "argv": ["qemu-system-x86_64", "-machine", "q35,accel=kvm", "-m", "512", "-smp", "2", "-nographic"],
            "kernel": "6.1.0-28-cloud-amd64",
            "os": "Debian GNU/Linux 12 (bookworm)",
            "boot_id": "8d6a7d70-0f53-4e0a-b1dd-0f2d6f1f9f62",
            "steps": [
                StepPart(name="QEMU alive", at_s=0.11),
                StepPart(name="kernel up", at_s=0.94),
                StepPart(name="SSH banner", at_s=3.6),
                StepPart(name="login", at_s=3.82),
                StepPart(name="cloud-init done", at_s=5.4),
            ],
            "cloud_init": CloudInitPart(status="done", exit_code=0),
            "ended": "quit",
        }
        return [GuestPart(**usual | changes)]

    def phases(self) -> list[PhasePart]:
        return [
            PhasePart(name="boot guest vm", start_s=0.2, end_s=5.7),
            PhasePart(name="experiment", start_s=5.7, end_s=20.1),
            PhasePart(name="anatomy", start_s=5.8, end_s=7.1, depth=1),
            PhasePart(name="accumulation", start_s=7.1, end_s=13.6, depth=1),
            PhasePart(name="exhaustion", start_s=13.6, end_s=19.9, depth=1),
            PhasePart(name="stop guest vm", start_s=20.1, end_s=21.3),
        ]

    def report(self, data: Mapping[str, Any] | None = None, **changes: Any) -> Report:
        """A report with all five verdicts, unless its data is changed; ``changes`` are of what was recorded, or of what it is judged by."""
        lab = lab_part("zombies", changes.pop("definition", self.definition()), "ab" * 32)
        checks = changes.pop("checks", self.checks())
        answers = changes.pop("answers", {"errno": "ENOMEM", "bytes_each": 4096, "why": "It is dead already."})
        recorded = Recorded(self.run(), self.host(), self.guests(), self.phases(), self.observations(data))
        return judge_report(lab, checks, dataclasses.replace(recorded, **changes), answers)

    def passing(self) -> Report:
        data = self.data() | {"kill": {"steady": True}, "adoption": {"subreaper": True}}
        data["exhaustion"]["errno"] = "EAGAIN"
        return self.report(data, checks=self.checks()[:-1])

    def broken(self) -> Report:
        """A run whose guest panicked halfway."""
        error = ErrorPart(
            kind="GuestPanicked",
            message="the kernel of guest vm panicked",
            hint="look at the console below; run again with --keep to look around",
            detail="[    4.1] Run /sbin/init as init process\n"
            "[    4.2] Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000009\n",
            phase="accumulation",
        )
        return self.report({"anatomy": self.data()["anatomy"]}, run=self.run(error=error), phases=self.phases()[:4])

    def empty(self) -> Report:
        """A run that did not even start a guest, of a lab without anything."""
        definition = self.definition(claims={"Z1": DEFINITION["claims"]["Z1"]}, questions=[], plots=[])
        return self.report({}, definition=definition, checks=[], guests=[], phases=[], answers={}, run=self.run(parameters={}, student=""))

    def nasty(self) -> Report:
        """Hostile strings wherever a guest, a host or a student can put some."""
        bad = HOSTILE
        data = self.data() | {"anatomy": {"state": bad, bad: [bad], "big": "x" * 200_000}, bad: {"x": bad}}
        data["accumulation"]["samples"] += [{"zombies": bad, "slab": 1}, {"zombies": 10**400, "slab": 10**400}, bad, None, {"slab": {}}]
        data["reaping"]["idle"] += [{"reaper": bad * 10, "us": 1e308}]
        claims = {name: {"says": bad, "stands": "wrong", "correction": bad} for name in DEFINITION["claims"]}
        kept = [{"places": ["anatomy.<script>alert(1)</script>"], "because": bad}]
        glossary = {bad: {"means": bad}, "<b>": {"means": bad, "also": ["&"]}}
        return self.report(
            data,
            definition=self.definition(claims=claims, kept_for_the_reader=kept, glossary=glossary),
            guests=self.guests(name=bad, os=bad, kernel=bad, argv=[bad], cloud_init=CloudInitPart(status=bad, exit_code=2, detail=[bad])),
            host=self.host(cpu_model=bad),
            run=self.run(
                student=bad, command=bad, started_at=bad, error=ErrorPart(kind=bad, message=bad, hint=bad, detail=bad * 3000, phase=bad)
            ),
            files=[FilePart(path="javascript:alert(1)", sha256=bad, size_bytes=1), FilePart(path="../../x", sha256="", size_bytes=1)],
            answers={"errno": bad, "bytes_each": bad},
        )

    def matrix(self) -> Matrix:
        """Many worlds, of which each breaks one check; the third has noise, the fourth a check that does not fail, the fifth broke."""
        report = self.passing()
        checks = [each for each in self.checks() if each.id in {part.id for part in report.checks}]
        broken = [World(f"world_{n}", "It is false. " * 9, {"n": n}, fails=[checks[n % len(checks)].id]) for n in range(20)]
        outcomes = {}
        for number, world in enumerate([World("sound"), *broken]):
            parts = [
                each.model_copy(
                    update={"verdict": VerdictKind(kind), "measured": HOSTILE, "left_out": each.id not in world.fails and number > 9}
                )
                for each, kind in zip(report.checks, expected(world, checks).values(), strict=True)
            ]
            if number in (3, 4):
                parts[0] = parts[0].model_copy(update={"verdict": VerdictKind.INCONCLUSIVE if number == 3 else VerdictKind.PASS})
                parts[3] = parts[3].model_copy(update={"verdict": VerdictKind.PASS})
            row = LabRow(
                job=world.name, lab="zoo", title="", key="", verdict=report.verdict(), report=f"{world.name}/1", earlier=[world.name]
            )
            outcomes[world.name] = Outcome(row, report.model_copy(update={"checks": parts}))
        trouble = Trouble(kind="HostError", message=HOSTILE)
        outcomes["world_4"] = Outcome(LabRow(job="", lab="zoo", title="", key="", verdict=VerdictKind.ERROR, trouble=trouble))
        trial = Trial("zoo", DEFINITION["title"], "ab" * 32, checks, [World("sound"), *broken], {}, ["another"])
        return matrix_of(trial, outcomes, Occasion("2026-11-25T08:00:00+00:00", "vmlab controls zoo", "0.1.0"))


@pytest.fixture(scope="session")
def samples() -> Samples:
    return Samples()
