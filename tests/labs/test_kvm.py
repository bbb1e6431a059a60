"""The runner's own KVM path, on a machine that need not have KVM: vmlab runs inside a guest that can run guests.

That guest (L1) has an AMD processor that QEMU emulates. In it, vmlab is run as on any host: it decides by its own evidence that KVM can be
used, makes a template of a guest of its own (L2, under the kernel's kvm_amd), clones it, and runs labs in the clones.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import BOOT_S, ROOT
from tests.stage import setting
from vmlab.deadline import Deadline
from vmlab.guest import qemu
from vmlab.guest.boot import boot
from vmlab.guest.machine import BootRequest, Machine
from vmlab.guest.qemu import GuestSpec
from vmlab.guest.workdir import work_dir
from vmlab.image.image import Image
from vmlab.image.store import ImageStore
from vmlab.lab.verdict import VerdictKind
from vmlab.report import store
from vmlab.report.model import Report

# Its first guest takes minutes, and its first test waits for it.
pytestmark = [pytest.mark.guest, pytest.mark.kvm, pytest.mark.timeout(2400), pytest.mark.xdist_group("kvm")]

# Debian 13's.
PYTHON = "3.13"
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")

GIVEN, HOME = "/mnt/given", "/srv/vmlab"
# What was handed in cannot be written; over it lies a layer that can, for caches.
SETUP = f"""set -e
modprobe kvm_amd npt=1
modprobe overlay
mkdir -p {GIVEN} /mnt/top /mnt/work {HOME}
mount -o ro /dev/vdc {GIVEN}
mount -t overlay overlay -o lowerdir={GIVEN},upperdir=/mnt/top,workdir=/mnt/work {HOME}
"""
# A lab takes some minutes there: its guest's processor is emulated by an emulated processor's KVM.
LAB_S = 1500.0


@dataclass(frozen=True)
class Run:
    """One run of vmlab in L1: what it printed, and its report."""

    said: str
    status: int
    report: Report


class Host:
    """L1, with vmlab in it."""

    def __init__(self, machine: Machine, reports: Path) -> None:
        self._machine = machine
        self._reports = reports

    def vmlab(self, *words: str) -> tuple[int, str]:
        """Run vmlab there: its exit status, and what it printed."""
        given = f"PYTHONPATH={HOME}/code/runner:{HOME}/packages VMLAB_CACHE={HOME}/cache"
        there = f"cd {HOME}/code && {given} python3 -m vmlab {' '.join(words)} 2>&1"
        with self._machine.attributing():
            done = self._machine.ssh.execute(there, deadline=Deadline(LAB_S), output_limit_bytes=4 << 20)
        return done.status, done.stdout

    def run(self, name: str, *words: str) -> Run:
        """Run a lab there under KVM, and bring its report here."""
        status, said = self.vmlab("run", name, "--accel", "kvm", "--reports", f"/root/{name}", *words)
        assert status in (0, 1), said
        packed = self._reports / f"{name}.tar"
        with self._machine.attributing():
            self._machine.ssh.execute(f"tar -C /root -cf /root/{name}.tar {name}", deadline=Deadline(60))
            self._machine.ssh.get(f"/root/{name}.tar", packed, deadline=Deadline(60))
        subprocess.run(["tar", "-C", str(self._reports), "-xf", str(packed)], check=True)
        return Run(said, status, store.load(store.find_latest(self._reports / name, name)))


@pytest.fixture(scope="module")
def disk(debian13: Image, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What L1 is given, as a file system: this checkout, the packages that it needs, and the image that L2 boots."""
    tree = tmp_path_factory.mktemp("given")
    for part in ("runner", "labs", "images", "cloud-init"):
        shutil.copytree(ROOT / part, tree / "code" / part, ignore=shutil.ignore_patterns("__pycache__"))
    needed = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(tree / "packages"), "--no-compile"]
    pip += ["--python-version", PYTHON, "--only-binary=:all:", *(f"--platform={each}" for each in PLATFORMS)]
    subprocess.run([*pip, *needed], check=True)
    shutil.copytree(debian13.directory, tree / "cache" / "images" / debian13.directory.name)
    size = sum(path.stat().st_size + 4096 for path in tree.rglob("*"))
    made = tmp_path_factory.mktemp("disk") / "given.ext4"
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-m", "0", "-d", str(tree), str(made), f"{int(size * 1.2) >> 10}k"], check=True)
    shutil.rmtree(tree)
    return made


@pytest.fixture(scope="module")
def host(disk: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """L1: booted, its KVM loaded, vmlab's files in their place."""
    image = ImageStore().get("debian-13-kvm", Deadline(1800))
    command = qemu.argv

    def with_disk(spec: GuestSpec) -> list[str]:
        return [
            *command(spec),
            *("-drive", f"id=given,if=none,format=raw,readonly=on,file={disk}", "-device", "virtio-blk-pci,drive=given"),
        ]

    logs = tmp_path_factory.mktemp("l1")
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setattr(qemu, "argv", with_disk)
        request = BootRequest("l1", image, "tcg", memory_mib=6144, cpus=1, virtualisation="svm")
        work = stack.enter_context(work_dir())
        ready = boot(request, setting(work, logs / "console.log", limit_s=BOOT_S))
        machine = stack.enter_context(ready)
        done = machine.ssh.execute(SETUP, deadline=Deadline(120))
        assert done.status == 0, done.stderr
        yield Host(machine, logs)


@pytest.fixture(scope="module")
def first(host: Host) -> Run:
    """The zombies lab, for the first time on that host."""
    return host.run("zombies")


@pytest.fixture(scope="module")
def second(first: Run, host: Host) -> Run:
    """And for the second time."""
    return host.run("zombies")


def phases(run: Run) -> list[str]:
    return [phase.name for phase in run.report.phases]


def test_kvm_is_chosen_by_its_own_evidence(first: Run) -> None:
    accelerator = first.report.host.accelerator
    assert accelerator.name == "kvm"
    for evidence in ("processor has svm", "driven by kvm_amd", "npt="):
        assert evidence in accelerator.reason


@pytest.mark.parametrize("which", ["first", "second"])
def test_the_labs_guest_ran_under_kvm(which: str, request: pytest.FixtureRequest) -> None:
    run: Run = request.getfixturevalue(which)
    (guest,) = run.report.guests
    assert [guest.argv[guest.argv.index(option) + 1] for option in ("-accel", "-cpu")] == ["kvm", "host"]
    assert "Debian GNU/Linux 13" in guest.os
    assert (guest.start, guest.fallback, guest.ended) == ("clone", "", "quit")


def not_passed(run: Run) -> list[tuple[str, VerdictKind, str]]:
    return [(check.id, check.verdict, check.rationale) for check in run.report.checks if check.verdict is not VerdictKind.PASS]


def test_every_verdict_is_pass(first: Run, second: Run, host: Host) -> None:
    last = second
    if second.report.verdict() is VerdictKind.INCONCLUSIVE:
        # A busy machine made a measurement inconclusive, which is what that verdict is for.
        last = host.run("zombies")
    assert not_passed(last) == [], last.said
    assert last.status == 0
    for run in (first, second):
        assert {verdict for _, verdict, _ in not_passed(run)} <= {VerdictKind.INCONCLUSIVE}, run.said


def test_the_first_run_makes_a_template_and_the_second_clones_it(first: Run, second: Run) -> None:
    making = "Making a template of it, to clone from now on"
    assert making in phases(first)
    assert making not in phases(second)
    assert first.report.guests[0].template == second.report.guests[0].template != ""


def test_nested_paging_shows_in_the_labs_own_guest(host: Host) -> None:
    """The memory lab's check on KVM's counters, where KVM runs the lab's own guest."""
    # (L1 has 6 GiB because the lab's guests have 2.5 together.)
    run = host.run("memory", "--part", "counted", "--param", "host=none", "--image", "debian-13")
    verdicts = {check.id: check.verdict for check in run.report.checks}
    assert verdicts["own_guest_shows_nested_paging"] is VerdictKind.PASS, run.said
