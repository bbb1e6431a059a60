"""The report: one JSON document. Every other form is a pure rendering of it.

The published JSON Schema (``schema/report-1.json``) is made from these models; a test holds the two together. A new optional field
keeps the major version, anything else raises it.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from vmlab.lab.claim import Standing
from vmlab.lab.definition import Question
from vmlab.lab.glossary import Term
from vmlab.lab.kept import Kept
from vmlab.lab.pictures import Plot, Translation
from vmlab.lab.task import TaskKind
from vmlab.lab.verdict import VerdictKind


class Part(BaseModel):
    """A part of the report; unknown fields are refused, so that a typo cannot pass for data, and so are NaN and infinity."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class ClaimPart(Part):
    """A claim of the course page."""

    says: str
    correction: str = ""
    stands: Standing | None = Field(default=None, description="how the claim itself stands, whatever its checks came to; null: not said")


class LabPart(Part):
    """Which lab this is."""

    name: str
    title: str
    summary: str
    digest: str = Field(description="sha256 over the lab's files and the library's, so that a grader knows which version ran")
    guest_library: str = Field(
        default="", description="sha256 over the library beside its guest scripts (vmlab_guest); empty when there was none"
    )
    claims: dict[str, ClaimPart]
    questions: list[Question]
    plots: list[Plot]
    translations: list[Translation] = Field(default_factory=list)
    kept_for_the_reader: list[Kept] = Field(default_factory=list, description="evidence that no check reads, and why it is recorded")
    glossary: dict[str, Term] = Field(default_factory=dict, description="the lab's own terms; the runner has more")


class ErrorPart(Part):
    """An error that ended the run early."""

    kind: str
    message: str
    hint: str = ""
    detail: str = Field(default="", description="console tail or command output, cut to a few KiB")
    phase: str = Field(default="", description="what the run was doing")


class RunPart(Part):
    """When, how and with what outcome."""

    id: str
    started_at: str = Field(description="ISO 8601, UTC")
    duration_s: float
    command: str = Field(description="a shell line that repeats this run")
    parameters: dict[str, int | float | str | bool]
    student: str = ""
    runner_version: str
    runner_cpu_s: float = Field(description="CPU seconds of the runner itself, guests not counted")
    error: ErrorPart | None = None
    slot: SlotPart | None = Field(default=None, description="the right to run guests; null in reports of vmlab before it had slots")
    unsuitable: str = Field(default="", description="why the image could not show what the lab is about; empty when it could")
    parts: list[str] = Field(default_factory=list, description="the parts of the experiment that were run; empty where it has none")
    left_out: list[str] = Field(default_factory=list, description="the parts that the run was asked to leave out")

    @property
    def waited_s(self) -> float:
        """How long it waited for its slot, for others."""
        return max(0.0, self.slot.from_s - self.slot.asked_s) if self.slot else 0.0

    @property
    def took_s(self) -> float:
        """How long it took by itself."""
        return max(0.0, self.duration_s - self.waited_s)


class SlotPart(Part):
    """The right to run guests, as the run had it. Times are of the host's CLOCK_MONOTONIC, which all runs since one boot share."""

    boot_id: str = Field(description="which boot of the host (proc_sys_kernel(5), random/boot_id)")
    asked_s: float = Field(description="when the run began to wait for it")
    from_s: float = Field(description="when it was given; no guest started earlier")
    until_s: float = Field(description="when it was given back; every guest had ended")
    memory_bytes: int = Field(description="of all guests, of QEMU beside them and of the runner")
    cpus: int
    exclusive: bool


class AcceleratorPart(Part):
    """What ran the guest's instructions, and why that was chosen."""

    name: Literal["kvm", "tcg"]
    reason: str
    nested_paging_claimed: str = Field(default="", description="what KVM's module says: ept=Y, npt=1; empty when it says nothing")
    nested_paging_found: Literal["", "nested", "shadow", "emulated", "broken", "unknown"] = Field(
        default="", description="what the KVM probe measured; empty where it was not run"
    )


class HostPart(Part):
    """The machine that ran the guests."""

    os: str
    kernel: str
    cpu_model: str
    cpus: int
    memory_bytes: int
    qemu_version: str
    python_version: str
    load_1min: float
    accelerator: AcceleratorPart


class StepPart(Part):
    """One step of a guest's start: when it was done, in seconds after the work on the guest began."""

    name: str
    at_s: float


class CloudInitPart(Part):
    """How cloud-init ended: done, degraded (done with warnings) or error."""

    status: str
    exit_code: int
    detail: list[str] = Field(default_factory=list)


class HistoryPart(Part):
    """Something that became of a guest after it was ready: a reset, the loss of its power, an end that was expected."""

    at_s: float = Field(description="seconds after the run's start, host clock")
    what: str


class GuestPart(Part):
    """One guest of the run."""

    name: str
    task: str = Field(default="", description="the task that was tried in it; empty for those of the demonstration")
    image: str
    image_sha256: str
    memory_bytes: int
    cpus: int
    init: str
    accelerator: str = Field(default="", description="what ran its instructions: kvm, tcg, or an emulator with its version")
    virtualisation: str = Field(default="", description="by what it can run guests of its own, in words; empty when it cannot")
    argv: list[str]
    kernel: str = ""
    os: str = ""
    boot_id: str = ""
    start: Literal["clone", "cold"] = Field(default="cold", description="cloned from a template, or booted")
    template: str = Field(default="", description="the key of the template that it is a clone of")
    fallback: str = Field(default="", description="why it was booted although a clone would have done")
    clock_error_s: float | None = Field(default=None, description="how far a clone's clock may be from the host's")
    steps: list[StepPart] = Field(default_factory=list)
    cloud_init: CloudInitPart | None = None
    ended: str = Field(default="", description="how it was stopped: quit, terminated, killed, by itself, or as the experiment expected")
    history: list[HistoryPart] = Field(default_factory=list, description="what became of it after it was ready")


class PhasePart(Part):
    """A stretch of the run, in seconds after its start; phases may nest (depth)."""

    name: str
    start_s: float
    end_s: float
    depth: int = 0


class ObservationPart(Part):
    """What an experiment recorded under one name."""

    name: str
    at_s: float = Field(description="seconds after the run's start, host clock")
    sha256: str = Field(description="of the data's canonical form (sorted keys, no spaces)")
    data: dict[str, Any]


class AnswerPart(Part):
    """A prediction beside what was measured. ``right`` is null when that cannot be told."""

    question: str
    prediction: int | float | str
    answer: int | float | str | None = Field(default=None, description="the student's, given before the run")
    measured: int | float | str | None = None
    prediction_right: bool | None = None
    answer_right: bool | None = None


class CheckPart(Part):
    """A check and its verdict."""

    id: str
    title: str
    method: str = Field(default="", description="how the evidence decides, in paragraphs with an empty line between them")
    claim: str
    stands: Standing | None = Field(default=None, description="how the claim itself stands, apart from the verdict; null: not said")
    after: list[str] = Field(default_factory=list)
    points: float
    max_points: float
    verdict: VerdictKind
    rationale: str
    expected: str = ""
    measured: str = ""
    hint: str = ""
    rests_on: list[str] = Field(
        default_factory=list,
        description="places in the evidence that the check looked at, [*] for any index; parameters.NAME and run.NAME are the run's",
    )
    left_out: bool = Field(default=False, description="its evidence belongs to parts of the experiment that the run left out")


class FilePart(Part):
    """A file beside the report that belongs to its evidence."""

    path: str
    sha256: str
    size_bytes: int


class EvidencePart(Part):
    """What the verdicts rest on. ``sha256`` covers the names and digests of all observations, in order."""

    observations: list[ObservationPart]
    files: list[FilePart] = Field(default_factory=list)
    sha256: str


class StudentFilePart(Part):
    """A file that the student wrote, as it was tried: with it a grader can try it again."""

    name: str
    text: str
    sha256: str = Field(description="of the text in UTF-8")


class TaskPart(Part):
    """The student's own work on one task, and what its tests came to."""

    id: str
    title: str
    kind: TaskKind
    attempted: bool = Field(description="whether the files differ from the starter; otherwise there are no tests, and no points")
    program: str = Field(default="", description="the file that was run; empty where the task has none")
    files: list[StudentFilePart] = Field(default_factory=list)
    notes: list[str] = Field(default_factory=list, description="what was left out, or read otherwise than it stood there")
    error: ErrorPart | None = Field(default=None, description="what ended the try early, by a fault of the runner or the machine")
    unsuitable: str = Field(default="", description="why the image could not show it; empty when it could")
    tests: list[CheckPart] = Field(default_factory=list, description="each with the condition under which the files were tried")
    score: ScorePart


class TallyPart(Part):
    """How many predictions held, counted over all questions."""

    whose: Literal["student", "lab"] = Field(description="the student's; the lab's own where no student answered")
    held: int
    compared: int = Field(description="predictions that could be compared with what was measured")
    untold: int = Field(default=0, description="predictions that could not: free text, and what was not measured")
    unanswered: int = Field(default=0, description="questions that the student left out")


class ScorePart(Part):
    """Points earned and possible. Checks that are not observable here count in neither."""

    earned: float
    possible: float
    counts: dict[VerdictKind, int]


class Report(Part):
    """The whole document."""

    schema_version: Literal["1.0"] = "1.0"
    lab: LabPart
    run: RunPart
    host: HostPart
    guests: list[GuestPart]
    phases: list[PhasePart]
    evidence: EvidencePart
    answers: list[AnswerPart]
    checks: list[CheckPart] = Field(description="of the demonstration, which is the lab's own experiment")
    score: ScorePart = Field(description="of the demonstration alone; each task has its own")
    tasks: list[TaskPart] = Field(default_factory=list, description="the student's own work; empty where the lab asks for none")

    def verdict(self) -> VerdictKind:
        """The run in one word: its worst verdict."""
        if self.run.error is not None:
            return VerdictKind.ERROR
        if any(task.error for task in self.tasks):
            return VerdictKind.ERROR
        return VerdictKind.worst(each.verdict for each in (*self.checks, *self.tests()))

    def tests(self) -> list[CheckPart]:
        """The tests of all tasks, in their order."""
        return [test for task in self.tasks for test in task.tests]
