"""The memory lab in real guests, as a student runs it: the chain of addresses in one run, the emulated AMD host in another.

The lab's negative controls stand beside it, in labs/memory/tests/.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import pytest

from labs.memory.tests.sound import CHAIN
from tests.conftest import ROOT
from vmlab.deadline import Deadline
from vmlab.image.store import ImageStore
from vmlab.lab import kvm
from vmlab.report import store
from vmlab.report.model import Report

pytestmark = [pytest.mark.guest, pytest.mark.xdist_group("memory")]


def ran(host: str, reports: Path, *options: str) -> Report:
    """What ``make lab LAB=memory HOST=...`` leaves. (Exit status 1 is a check that the machine's noise left undecided, or a failure.)"""
    ImageStore().get("debian-13-kvm", Deadline(1800))
    argv = [sys.executable, "-m", "vmlab", "run", "memory", "--param", f"host={host}", "--reports", str(reports), *options]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return store.load(store.find_latest(reports, "memory"))


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """The lab without an emulated host. Its guests have just booted, and have used much of their memory for that."""
    return ran("none", tmp_path_factory.mktemp("memory"), "--cold")


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """The lab with the emulated AMD host."""
    return ran("npt", tmp_path_factory.mktemp("memory-npt"))


def world(report: Report, name: str) -> dict[str, Any]:
    return next(each.data for each in report.evidence.observations if each.name == name)


def each(world: dict[str, Any]) -> list[int]:
    """Faults for the whole walk, then exits for a remapping, a new CR3, a page fault: as whole numbers, which they are."""
    rows = {(row["phase"], row["counter"]): row["measured"] for row in world["probe"]["judged"]["rows"]}
    counts = [rows["swap_walk", "pf_taken"], *(rows[phase, "exits"] for phase in ("remap", "reload_cr3", "page_fault"))]
    assert counts == pytest.approx([round(count) for count in counts], abs=0.05)
    return [round(count) for count in counts]


def whole(paging: Literal["nested", "shadow"]) -> list[int]:
    """The same as they must be."""
    faults, exits = (kvm.expected(paging, counter) for counter in ("pf_taken", "exits"))
    return [faults["swap_walk"], *(exits[phase] for phase in ("remap", "reload_cr3", "page_fault"))]


NAMED, GROWS = ("the_hosts_tables_name_a_frame", "one_byte_has_four_names"), "memory_grows_as_it_is_touched"
# (What grows is another test's; the host's frames are shown to root alone.)
FOLLOWED = [name for name in CHAIN if name not in (*NAMED, GROWS)]


def test_one_byte_is_followed_down_and_back(chain: Report) -> None:
    verdicts = {check.id: str(check.verdict) for check in chain.checks}
    assert {name: verdicts[name] for name in FOLLOWED} == dict.fromkeys(FOLLOWED, "pass")
    # The host's frames are shown to root alone.
    last = "pass" if world(chain, "machine")["root"] else "not-observable"
    assert [verdicts[name] for name in NAMED] == [last] * 2


@pytest.mark.parametrize("start", ["chain", "report"])
def test_memory_grows_by_what_is_touched(start: str, request: pytest.FixtureRequest) -> None:
    """In a guest that has just booted as in a clone. How much others in it touch meanwhile is the machine's affair; the rest is not."""
    run: Report = request.getfixturevalue(start)
    growth = world(run, "growth")
    assert [sample["backed_after"] for sample in growth["samples"][1:]] == [512] * 8
    assert growth["samples"][-1]["unbacked_so_far"] >= 0.95 * 4096
    assert next(check.verdict for check in run.checks if check.id == "memory_grows_as_it_is_touched") in ("pass", "inconclusive")


def test_the_tables_are_not_read_at_each_access(chain: Report) -> None:
    (verdict,) = [check.verdict for check in chain.checks if check.id == "the_mmu_does_not_walk_each_time"]
    assert verdict in ("pass", "inconclusive")


def test_without_kvm_nothing_of_this_machine_is_claimed(chain: Report) -> None:
    if chain.host.accelerator.name == "kvm":
        pytest.skip("this machine has KVM")
    own = {check.id: str(check.verdict) for check in chain.checks if check.id.startswith("own_")}
    assert len(own) == 6
    assert set(own.values()) == {"not-observable"}


def test_every_check_on_the_emulated_host_passes(report: Report) -> None:
    emulated = [check for check in report.checks if check.id.startswith(("nested_", "shadow_"))]
    assert len(emulated) == 12
    assert {check.verdict for check in emulated} == {"pass"}
    assert all("emulated by QEMU TCG" in check.rationale for check in emulated)


def test_the_integers_of_both_worlds(report: Report) -> None:
    assert each(world(report, "emulated_nested")) == whole("nested")
    assert each(world(report, "emulated_shadow")) == whole("shadow")


def test_the_counters_of_a_whole_guest(report: Report) -> None:
    def rose(name: str, loop: str, counter: str) -> int:
        counted = world(report, name)["nested"]["loops"][loop]
        return int(counted["after"][counter] - counted["before"][counter])

    assert [rose("emulated_nested", "remap", counter) for counter in ("pf_taken", "pf_fixed", "pf_guest")] == pytest.approx(
        [0, 0, 0], abs=50
    )
    assert rose("emulated_nested", "touch", "pf_guest") == 0
    assert rose("emulated_shadow", "remap", "pf_fixed") > 32768
    assert rose("emulated_shadow", "touch", "pf_guest") == pytest.approx(4096, abs=50)


def test_the_report_says_that_the_walk_is_emulated(report: Report) -> None:
    (host,) = [guest for guest in report.guests if guest.name == "amd_host"]
    assert host.virtualisation == "AMD SVM with nested paging: hardware walk emulated by QEMU TCG"
    assert host.image == "debian-13-kvm"
    assert host.fallback == ""
    assert [guest.virtualisation for guest in report.guests if guest.name != "amd_host"] == ["", ""]


def test_the_console_of_the_host_is_kept(report: Report) -> None:
    assert "console-amd_host.log" in {Path(file.path).name for file in report.evidence.files}
