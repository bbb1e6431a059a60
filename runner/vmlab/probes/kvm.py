"""What stands behind /dev/kvm: what each kind of paging gives, by operation, and the verdict from a record of the KVM probe.

The expected counts are here and nowhere else. `judge` is a pure function and never raises.

What the counts mean. With **nested paging** the guest owns its page tables, so KVM never hears of a remapping, a new CR3 or a page fault
(0 exits), and the processor reads the guest's tables through a second set: each table page that the host swapped costs one fault of that
set, n of them and the data page n + 1 for a walk of n levels. (With an m-level second set a whole walk makes (n + 1)m + n references: 24
for 4 and 4; Bhargava et al., "Accelerating two-dimensional page walks for virtualized systems", ASPLOS 2008.) With **shadow paging** the
processor walks KVM's merged tables and never reads the guest's: swapping a table page costs nothing and the data page one fault, and in
return KVM must step in (at least one exit) whenever the guest changes what the merged tables were made from. With **emulation** the
counter of emulated instructions keeps pace with the guest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from vmlab.probes.kvm_record import KvmRecord, Measurement, MeasurementName, failure, parse, read

__all__ = [
    "EMULATED_AT_LEAST",
    "EXPECTED",
    "TOLERANCE",
    "Judgement",
    "Kind",
    "KvmRecord",
    "Measurement",
    "Row",
    "expected",
    "failure",
    "judge",
    "judged",
    "parse",
    "read",
]

Kind = Literal["nested", "shadow", "emulated", "broken", "unknown"]

EMULATED_AT_LEAST = 0.01
"""Emulated instructions an iteration of two instructions; hardware gives none (KVM emulates the final HLT alone, which is left out)."""
TOO_SLOW_NS = 200.0
"""Time an iteration. A processor needs a few nanoseconds, and one that QEMU or Bochs emulates well less than this too."""
TOLERANCE = 0.05
"""What may be missing or too much, an operation: other work of the host's makes a few exits that are nobody's fault."""


@dataclass(frozen=True)
class Row:
    """One expectation beside what was counted, both for one operation.

    ``shadow_is_least`` says that shadow paging needs at least one, and ``shadow`` is what Linux needs.
    """

    phase: MeasurementName
    what: str
    counter: str
    nested: int
    shadow: int
    shadow_is_least: bool = False
    n: int = 0
    measured: float | None = None

    @property
    def fits_nested(self) -> bool:
        """Whether the count is what nested paging gives."""
        return self.measured is not None and abs(self.measured - self.nested) <= TOLERANCE

    @property
    def fits_shadow(self) -> bool:
        """Whether the count is what shadow paging gives."""
        if self.measured is None:
            return False
        return self.measured >= 1 - TOLERANCE if self.shadow_is_least else abs(self.measured - self.shadow) <= TOLERANCE


EXPECTED = (
    Row("compute", "counts in a register", "insn_emulation", 0, 0),
    Row("touch_fresh", "writes a page that is new", "pf_taken", 1, 1),
    Row("touch_again", "writes it again", "pf_taken", 0, 0),
    Row("remap", "maps another page, reads it", "exits", 0, 2, shadow_is_least=True),
    Row("reload_cr3", "loads CR3", "exits", 0, 2, shadow_is_least=True),
    Row("page_fault", "handles a page fault", "exits", 0, 3, shadow_is_least=True),
    Row("page_fault", "  (faults that KVM injected)", "pf_guest", 0, 1),
    Row("swap_data", "reads a page the host swapped", "pf_taken", 1, 1),
    Row("swap_table", "reads, 1 table page swapped", "pf_taken", 1, 0),
    Row("swap_walk", "reads, 4 tables and page swapped", "pf_taken", 5, 1),
)
"""What each kind gives, by measurement and KVM's counter (`exits` without interrupts of the host's and without the HLT that ends a run)."""


def expected(paging: Literal["nested", "shadow"], counter: str) -> dict[str, int]:
    """How far a counter of KVM's goes for one operation with this kind of paging, by phase: ``expected("nested", "pf_taken")``."""
    return {row.phase: getattr(row, paging) for row in EXPECTED if row.counter == counter}


_PHASES = frozenset(row.phase for row in EXPECTED)


@dataclass(frozen=True)
class Judgement:
    """What was found, in one word and one sentence, why, and every count that it rests on."""

    kind: Kind
    sentence: str
    why: str
    rows: tuple[Row, ...]
    ns_per_iteration: float | None
    """The fastest run of the computing loop; None when it was not measured."""
    emulated_per_iteration: float | None
    claimed: str
    """What the kernel's module says: ``ept=Y``, ``npt=N``, or empty."""
    contradiction: str
    """How the finding contradicts the claim; empty when it does not."""
    incomplete: bool
    """Whether the probe could not finish, so that there is less than every count to go by."""

    @property
    def usable(self) -> bool:
        """Whether nothing speaks against booting a guest on it: a kernel without counters, or unusual ones, is no reason not to."""
        return self.kind in {"nested", "shadow"} or (self.kind == "unknown" and not self.incomplete)


def judge(record: KvmRecord) -> Judgement:
    """What the record shows."""
    error = str(record.error) if record.error else ""
    kind, why = _verdict(record.phases, error, has_counters=record.has_counters is True)
    return _judgement(kind, why, record.phases, record.claim.nested_paging)


def judged(record: KvmRecord) -> dict[str, Any]:
    """The record as an observation has it: with what it amounts to beside it, under ``judged``, the fields of `Judgement`."""
    return {**record.as_json(), "judged": asdict(judge(record))}


def _verdict(phases: Mapping[MeasurementName, Measurement], error: str, *, has_counters: bool) -> tuple[Kind, str]:
    """The kind and why. What was measured before an error still counts: software emulation is often too slow to come to an end."""
    rows = _rows(phases)
    return _without_hardware(phases) or _unfinished(rows, error, has_counters=has_counters) or _by_counts(rows)


def _without_hardware(phases: Mapping[MeasurementName, Measurement]) -> tuple[Kind, str] | None:
    """Wrong results, or right ones that no processor took part in."""
    wrong = [f"{name}: {phase.problem or 'not said to be correct'}" for name, phase in phases.items() if not phase.correct]
    if wrong:
        return "broken", "; ".join(wrong)
    compute = phases.get("compute")
    if compute is not None and compute.per_operation("insn_emulation") >= EMULATED_AT_LEAST:
        return "emulated", f"{compute.per_operation('insn_emulation'):.1f} emulated instructions in each iteration of two instructions"
    if compute is not None and compute.ns_per_operation >= TOO_SLOW_NS:
        return "emulated", f"an iteration of two instructions takes {compute.ns_per_operation:.0f} ns"
    return None


def _unfinished(rows: Sequence[Row], error: str, *, has_counters: bool) -> tuple[Kind, str] | None:
    """Why there is nothing to judge by, if so."""
    missing = dict.fromkeys(row.phase for row in rows if row.measured is None)
    if error or missing:
        return "unknown", error or f"not measured: {', '.join(missing)}"
    if not has_counters:
        return "unknown", "this kernel does not give its counters (KVM_GET_STATS_FD, Linux 5.14)"
    return None


def _by_counts(rows: Sequence[Row]) -> tuple[Kind, str]:
    if all(row.fits_nested for row in rows):
        return "nested", "no exit for what the guest does to its own tables, and each table page that the host swaps costs one fault"
    if all(row.fits_shadow for row in rows):
        return "shadow", "exits for what the guest does to its own tables, and table pages that the host swaps cost nothing"
    misfits = [f"{row.phase} {row.measured:g} {row.counter}" for row in rows if not (row.fits_nested and row.fits_shadow)]
    return "unknown", f"the counts fit neither nested nor shadow paging ({', '.join(misfits)})"


def _rows(phases: Mapping[MeasurementName, Measurement]) -> tuple[Row, ...]:
    made = []
    for row in EXPECTED:
        phase = phases.get(row.phase)
        made.append(row if phase is None else Row(**{**vars(row), "n": phase.n, "measured": round(phase.per_operation(row.counter), 4)}))
    return tuple(made)


_SENTENCES: Mapping[str, str] = {
    "nested": "Nested paging: the processor runs guest code and walks a second set of page tables by itself",
    "shadow": "Shadow paging: the processor runs guest code, but walks page tables that KVM merges for it",
    "emulated": "Emulation: software decodes each instruction of the guest",
    "broken": "Broken: the guest's own results are wrong",
    "unknown": "Unknown",
}


def _judgement(kind: Kind, why: str, phases: Mapping[MeasurementName, Measurement], claimed: str) -> Judgement:
    compute = phases.get("compute")
    return Judgement(
        kind=kind,
        sentence=f"{_SENTENCES[kind]}: {why}.",
        why=why,
        rows=_rows(phases),
        ns_per_iteration=round(compute.ns_per_operation, 1) if compute else None,
        emulated_per_iteration=round(compute.per_operation("insn_emulation"), 4) if compute else None,
        claimed=claimed,
        contradiction=_contradiction(kind, claimed),
        incomplete=len(phases) < len(_PHASES),
    )


def _contradiction(kind: Kind, claimed: str) -> str:
    says = {"Y": "nested", "1": "nested", "N": "shadow", "0": "shadow"}.get(claimed.partition("=")[2])
    if says is None or kind not in {"nested", "shadow"} or says == kind:
        return ""
    return f"the module says {claimed}, and {kind} paging was measured"
