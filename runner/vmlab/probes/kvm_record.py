"""A record of the KVM probe: its schema (published as schema/kvm-1.json), and how one is read that may come from anywhere.

``python -m vmlab.probes.kvm_record`` writes the schema anew after a change of the models; a test fails until that is done.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

SCHEMA_PATH = Path(__file__).parent / "schema" / "kvm-1.json"

LIMIT_BYTES = 1 << 20
"""A record has some 5 KB; what is longer is none."""

Text = Annotated[str, Field(max_length=300)]
# (The kernel counts in 64 bits. Beyond half of that there is nothing but nonsense.)
Count = Annotated[int, Field(ge=0, lt=1 << 63)]
MeasurementName = Literal[
    "compute", "touch_fresh", "touch_again", "remap", "reload_cr3", "page_fault", "swap_data", "swap_table", "swap_walk"
]


class Part(BaseModel):
    """A part that is of the documented types, has all that it must have, and nothing else."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Claim(Part):
    """What the processor and the kernel say of virtualisation; what they do not tell is empty."""

    kernel: Text = ""
    boot_id: Text = Field(default="", description="tells one start of the machine from another")
    cpu_model: Text = ""
    flags: list[Text] = Field(default_factory=list, max_length=20, description="those of /proc/cpuinfo that concern virtualisation")
    module: Text = Field(default="", description="kvm_intel, kvm_amd, or empty")
    nested_paging: Text = Field(default="", description="the module's parameter: ept=Y, npt=1")
    other_modules: list[Text] = Field(default_factory=list, max_length=100, description="others with kvm in their name")


class Measurement(Part):
    """One measurement: ``n`` operations in ``runs`` calls of KVM_RUN, each of which ended with one exit of its own, by HLT."""

    n: int = Field(ge=1, lt=1 << 63)
    runs: int = Field(ge=1, lt=1 << 63)
    counts: dict[Text, Count] = Field(max_length=500, description="KVM's counters that moved, by KVM's names, over all runs")
    times_ns: list[Annotated[int, Field(ge=1, lt=1 << 63)]] = Field(min_length=1, max_length=10_000, description="of each run")
    correct: bool = Field(description="whether the guest computed what it must")
    problem: Text = Field(default="", description="the first thing that was not as it must be")

    def per_operation(self, counter: str) -> float:
        """How far a counter went for one operation, without what the host and the ends of the runs had to do with it.

        Taken off are the exits for interrupts of the host's, and the HLT that ends each run: one exit and one emulated instruction.
        """
        count = self.counts.get(counter, 0)
        if counter == "exits":
            count -= self.counts.get("irq_exits", 0) + self.runs
        elif counter == "insn_emulation":
            count -= self.runs
        return max(0.0, count / self.n)

    @property
    def ns_per_operation(self) -> float:
        """The fastest run; the others were disturbed."""
        return min(self.times_ns) * self.runs / self.n


class Failure(Part):
    """What went wrong: which step (a request of the kernel's, by name), its errno by name, and a text."""

    step: Text
    errno: Text = ""
    text: Text = ""

    def __str__(self) -> str:
        return f"{self.step} failed: {f'{self.errno}, ' if self.errno else ''}{self.text}"


class KvmRecord(Part):
    """What one run of the KVM probe found: claims, counts and times by phase, and what went wrong if something did."""

    format: Literal[1] = 1
    device: Text = ""
    claim: Claim
    api_version: int | None = Field(default=None, description="what KVM_GET_API_VERSION answers")
    has_counters: bool | None = Field(default=None, description="whether the kernel gives KVM's counters (KVM_GET_STATS_FD)")
    phases: dict[MeasurementName, Measurement]
    error: Failure | None
    wall_s: float | None = Field(default=None, ge=0, allow_inf_nan=False, description="how long it took")

    def as_json(self) -> dict[str, Any]:
        """The record as dictionaries, lists, text and numbers."""
        return self.model_dump(mode="json")


def failure(why: str) -> KvmRecord:
    """A record that says why there is none."""
    return KvmRecord(claim=Claim(), phases={}, error=Failure(step="the probe", text=why[:300]))


def read(value: object) -> KvmRecord:
    """The record that a JSON value is, wherever it comes from. What is none gives a failure's record, which says what is wrong with it."""
    if not isinstance(value, Mapping):
        return failure("what it printed is not an object")
    try:
        return KvmRecord.model_validate(value)
    except ValidationError as exc:
        first = exc.errors(include_url=False)[0]
        place = ".".join(str(part)[:40] for part in first["loc"])
        return failure(f"the record is malformed: {place}: {first['msg']}")


def parse(printed: bytes) -> KvmRecord:
    """The record that a probe printed; a failure's when it is not one JSON object, or one of another kind."""
    if len(printed) > LIMIT_BYTES:
        return failure(f"it printed {len(printed)} bytes")
    try:
        value = json.loads(printed)
    except (ValueError, RecursionError):
        return failure("what it printed is not JSON")
    return read(value)


def schema_text() -> str:
    """The schema of a record, format 1, as the file holds it."""
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": "urn:vmlab:probe:kvm:1"}
    made = {**head, **KvmRecord.model_json_schema(mode="serialization"), "title": "record of vmlab's KVM probe"}
    return json.dumps(made, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    SCHEMA_PATH.write_text(schema_text(), encoding="utf-8")
