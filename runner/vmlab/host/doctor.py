"""``vmlab doctor``: what this machine is and can, what is missing, and the one command that installs all of it.

`examine` gathers, `diagnose` judges (a pure function, so that every sentence has a test), `render` makes it readable.
"""

from __future__ import annotations

import json
import shlex
import textwrap
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vmlab.errors import EXIT_COULD_NOT_RUN, EXIT_PASS, HostError
from vmlab.host import facts as host
from vmlab.host import probe_view
from vmlab.host.accelerator import QEMU, Accelerator, choose
from vmlab.host.facts import GIB, MIB, HostFacts, in_words
from vmlab.host.view import HostView
from vmlab.probes.kvm import Judgement, KvmRecord, judge

if TYPE_CHECKING:
    from rich.text import Text

# A lab's image (0.4 GiB as a tree, a tar and a disk while it is built) and the memory of one saved guest fit into the first number.
DISK_NEEDED = 3 * GIB
DISK_COMFORTABLE = 8 * GIB
# For one guest of 1 GiB with all that its slot takes (runner/vmlab/host/capacity.py), and the tenth that is left to the system.
MEMORY_NEEDED = GIB + 640 * MIB
MEMORY_COMFORTABLE = 3 * GIB


class Sign(StrEnum):
    """How a finding bears on running labs."""

    OK = "ok"
    WARNING = "warning"
    MISSING = "missing"


@dataclass(frozen=True)
class Finding:
    """One line of the diagnosis: what was looked at, what was found, and what helps."""

    subject: str
    sign: Sign
    found: str
    remedy: str = ""
    command: str = ""


@dataclass(frozen=True)
class Probed:
    """The KVM probe's own record, and what it amounts to."""

    record: KvmRecord
    judgement: Judgement


@dataclass(frozen=True)
class Diagnosis:
    """The whole of it: plain data, ready for JSON."""

    findings: tuple[Finding, ...]
    can_run: bool
    install: str
    """The one command that installs every missing package; empty when none is missing."""
    facts: HostFacts
    accelerator: Accelerator | None
    probe: Probed | None = None
    """What the KVM probe found, where it was asked for."""

    @property
    def exit_code(self) -> int:
        """0 when a lab can run here, 3 when not."""
        return EXIT_PASS if self.can_run else EXIT_COULD_NOT_RUN

    def as_json(self) -> dict[str, Any]:
        """The same as dictionaries, lists, text and numbers."""
        whole = asdict(self)
        return {**whole, "probe": {**whole["probe"], "record": self.probe.record.as_json()}} if self.probe else whole


def examine(view: HostView | None = None, cache: Path | None = None, *, probe: bool = False) -> Diagnosis:
    """Look at this machine and judge it, with ``probe`` by the KVM probe too. HostError only when not even the cache can be made."""
    view = view or HostView()
    facts = host.gather(view, cache)
    try:
        diagnosis = diagnose(facts, choose("auto", view), "")
    except HostError as exc:
        diagnosis = diagnose(facts, None, exc.message)
    if not probe:
        return diagnosis
    record = view.probe_now()
    return replace(diagnosis, probe=Probed(record, judge(record)))


def diagnose(facts: HostFacts, accelerator: Accelerator | None, accelerator_error: str = "") -> Diagnosis:
    """Judge what was gathered."""
    install = _install_command(facts)
    findings = (
        Finding("system", Sign.OK, f"{facts.os}, Linux {facts.kernel}, Python {facts.python_version}"),
        Finding("processor", Sign.OK, f"{facts.cpu_model}, {host.counted(facts.cpus, 'CPU')} usable, load {facts.load_1min:.1f}"),
        _memory(facts),
        _disk(facts),
        _qemu(facts),
        _accelerator(accelerator, accelerator_error),
        *_packages(facts, install),
        _building(facts),
    )
    can_run = all(finding.sign is not Sign.MISSING for finding in findings)
    return Diagnosis(findings, can_run, install, facts, accelerator)


_STYLES = {Sign.OK: "green", Sign.WARNING: "yellow", Sign.MISSING: "bold red"}
_SIGNS = {Sign.OK: "+", Sign.WARNING: "!", Sign.MISSING: "x"}
_INDENT = 24


def render(diagnosis: Diagnosis, width: int = 80) -> Text:
    """The diagnosis for people. ``.plain`` is the same without colour.

    A command stands on a line of its own and is never broken, so that it can be copied.
    """
    # rich costs 50 ms to import, and whoever only asks for JSON needs none of it.
    from rich.text import Text  # noqa: PLC0415

    text = Text()
    for finding in diagnosis.findings:
        text.append(f"{_SIGNS[finding.sign]} {finding.sign:<9}", style=_STYLES[finding.sign])
        text.append(f"{finding.subject:<{_INDENT - 11}}", style="bold")
        text.append(_wrapped(finding.found, width) + "\n")
        if finding.remedy:
            text.append(" " * _INDENT + _wrapped(f"-> {finding.remedy}{':' if finding.command else ''}", width) + "\n")
        if finding.command:
            text.append(f"{' ' * _INDENT}   {finding.command}\n", style="cyan")
    verdict = "Labs can run here." if diagnosis.can_run else "Labs cannot run here yet: see what is missing above."
    text.append("\n" + verdict, style=_STYLES[Sign.OK if diagnosis.can_run else Sign.MISSING])
    return text


def show(diagnosis: Diagnosis) -> None:
    """Print the diagnosis: coloured on a terminal, plain elsewhere, never wider than 100 columns."""
    from rich.console import Console  # noqa: PLC0415 (as slow to load as Text)

    console = Console(highlight=False)
    width = min(console.width, 100)
    console.print(render(diagnosis, width), soft_wrap=True)
    if diagnosis.probe is not None:
        console.print()
        console.print(probe_view.render(diagnosis.probe.record, diagnosis.probe.judgement, width), soft_wrap=True, end="")


def to_json(diagnosis: Diagnosis) -> str:
    """The diagnosis as one JSON document."""
    return json.dumps(diagnosis.as_json(), indent=2)


def _wrapped(words: str, width: int) -> str:
    return f"\n{' ' * _INDENT}".join(textwrap.wrap(words, width - _INDENT, break_long_words=False, break_on_hyphens=False))


def _memory(facts: HostFacts) -> Finding:
    found = f"{in_words(facts.memory_bytes)}, {in_words(facts.memory_available_bytes)} of it free"
    if facts.memory_bytes < MEMORY_NEEDED:
        return Finding("memory", Sign.MISSING, found, f"a lab with a guest of 1 GiB needs {in_words(MEMORY_NEEDED)}: use a larger machine")
    if facts.memory_available_bytes < MEMORY_COMFORTABLE:
        return Finding(
            "memory", Sign.WARNING, found, f"labs are at ease with {in_words(MEMORY_COMFORTABLE)} free: end what you do not need"
        )
    return Finding("memory", Sign.OK, found)


def _disk(facts: HostFacts) -> Finding:
    found = f"{in_words(facts.disk_free_bytes)} free in {facts.cache_dir}"
    remedy = "make room, or keep images elsewhere: VMLAB_CACHE=/some/where"
    if facts.disk_free_bytes < DISK_NEEDED:
        return Finding("disk", Sign.MISSING, found, f"an image and a saved guest need {in_words(DISK_NEEDED)}; {remedy}")
    if facts.disk_free_bytes < DISK_COMFORTABLE:
        return Finding("disk", Sign.WARNING, found, remedy)
    return Finding("disk", Sign.OK, found)


def _qemu(facts: HostFacts) -> Finding:
    if facts.qemu is None:
        absent = any(row.probe == QEMU for row in facts.missing)
        return Finding("qemu", Sign.MISSING, "not installed" if absent else "installed, but does not start")
    problem = host.too_old(facts.qemu)
    if problem:
        return Finding("qemu", Sign.MISSING, problem, "upgrade the system; Debian 12 and later have a newer QEMU")
    return Finding("qemu", Sign.OK, f"{facts.qemu.version} ({facts.qemu.path})")


def _accelerator(accelerator: Accelerator | None, error: str) -> Finding:
    if accelerator is None:
        return Finding("accelerator", Sign.MISSING, error, "use the distribution's QEMU", "sudo apt-get install qemu-system-x86")
    # TCG is slower, not broken: every lab runs under it, and says where it can then not observe something.
    sign = Sign.OK if accelerator.name == "kvm" else Sign.WARNING
    return Finding("accelerator", sign, accelerator.sentence, accelerator.remedy, accelerator.command)


def _packages(facts: HostFacts, install: str) -> list[Finding]:
    if not facts.missing:
        return [Finding("packages", Sign.OK, "all there")]
    rows = [Finding("package", Sign.MISSING, f"{row.package}: {row.purpose}") for row in facts.missing[:-1]]
    last = facts.missing[-1]
    return [*rows, Finding("package", Sign.MISSING, f"{last.package}: {last.purpose}", "one command installs all that is missing", install)]


def _building(facts: HostFacts) -> Finding:
    if facts.is_root:
        return Finding("image builds", Sign.OK, "as root")
    if not facts.unprivileged_builds:
        return Finding("image builds", Sign.OK, "without root, in a user namespace")
    # Only a warning: an image that is already built, or a downloaded one, runs all the same.
    remedy, command = "build images as root, or allow user namespaces to this container", ""
    if "has no line" in facts.unprivileged_builds:
        remedy, command = "give yourself a range", "sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 $USER"
    elif "newuidmap" in facts.unprivileged_builds:
        remedy = ""  # The missing packages above say it.
    elif "switched off" in facts.unprivileged_builds:
        remedy, command = "switch them on", "sudo sysctl -w kernel.unprivileged_userns_clone=1 user.max_user_namespaces=10000"
    return Finding("image builds", Sign.WARNING, f"not without root: {facts.unprivileged_builds}", remedy, command)


def _install_command(facts: HostFacts) -> str:
    packages = sorted({row.package for row in facts.missing})
    if not packages:
        return ""
    return f"{'' if facts.is_root else 'sudo '}apt-get install {shlex.join(packages)}"
