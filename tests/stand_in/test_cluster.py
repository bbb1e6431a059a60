"""A real Dask scheduler and two worker processes on the loopback address, each with slots of its own, as two machines would have."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.conftest import ROOT
from tests.stand_in.machine import StandIn
from tests.tinylab import write_lab
from vmlab.report import batch

pytestmark = pytest.mark.timeout(300)

# A worker whose vmlab calls itself another version.
STRANGER = "import sys, vmlab; vmlab.__version__ = '9.9'; from vmlab.many.cluster import serve; serve(sys.argv[1])"


class Cluster:
    """The processes, and the directory in which labs and reports are."""

    def __init__(self, machine: StandIn) -> None:
        self.machine = machine
        self.root = root = machine.root
        self.labs, self.reports = machine.labs, machine.reports
        self.env = {**machine.env, "VMLAB_TEST_PLACE": str(root)}
        self.started: list[subprocess.Popen[str]] = []
        self.workers: list[subprocess.Popen[str]] = []
        told = root / "scheduler.json"
        self._start(sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard",
                    "--scheduler-file", str(told))  # fmt: skip
        until(told.exists)
        until(lambda: bool(told.read_text().strip()))
        self.address = json.loads(told.read_text())["address"]

    def _start(self, *argv: str, **env: str) -> subprocess.Popen[str]:
        log = (self.root / f"log-{len(self.started)}").open("w")
        made = subprocess.Popen(argv, cwd=ROOT, env={**self.env, **env}, stdout=log, stderr=log, text=True, stdin=subprocess.DEVNULL)
        self.started.append(made)
        return made

    def add_worker(self, *, argv: tuple[str, ...] = ("-m", "vmlab", "worker")) -> subprocess.Popen[str]:
        slots = self.root / f"slots-{len(self.started)}"
        log = self.root / f"log-{len(self.started)}"
        made = self._start(sys.executable, *argv, self.address, VMLAB_SLOTS=str(slots))
        until(lambda: " offers " in log.read_text())
        self.workers.append(made)
        return made

    def run(self, *words: str, scheduler: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.argv(*words, scheduler=scheduler), check=False, cwd=ROOT, env=self.env, capture_output=True, text=True, timeout=200
        )

    def argv(self, *words: str, scheduler: str = "") -> list[str]:
        return self.machine.argv("run", "--scheduler", scheduler or self.address, *words)

    def verdicts(self) -> dict[str, str | None]:
        return {row.job: row.verdict for row in batch.load(self.reports).rows}

    def close(self) -> None:
        for each in reversed(self.started):
            each.kill()
            each.wait()


def until(true: Callable[[], bool], limit_s: float = 60) -> None:
    end = time.monotonic() + limit_s
    while not true():
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.05)


@pytest.fixture
def cluster(machine: StandIn) -> Iterator[Cluster]:
    made = Cluster(machine)
    yield made
    made.close()


@pytest.mark.slow
def test_labs_run_on_workers_and_their_reports_come_back(cluster: Cluster) -> None:
    for name, does in (("aa", "pass"), ("bb", "fail"), ("cc", "break"), ("dd", "guest")):
        write_lab(cluster.labs, name, does)
    # One with more virtual CPUs than any worker has is as on one machine: it runs where it is alone.
    write_lab(cluster.labs, "ee", cpus=64)
    cluster.add_worker()
    cluster.add_worker()
    done = cluster.run("aa", "bb", "cc", "dd", "ee", "--retry-errors", "1", "--param", "answer=7")
    assert done.returncode == 3, done.stdout + done.stderr
    assert cluster.verdicts() == {"aa": "pass", "bb": "fail", "cc": "error", "dd": "pass", "ee": "pass"}
    index = batch.load(cluster.reports)
    assert {row.job: len(row.earlier) for row in index.rows} == {"aa": 0, "bb": 0, "cc": 1, "dd": 0, "ee": 0}
    for row in index.rows:
        assert {path.name for path in (cluster.reports / row.report).iterdir()} >= {"report.json", "report.html", "junit.xml"}
    report = json.loads((cluster.reports / index.rows[0].report / "report.json").read_text())
    assert report["run"]["parameters"] == {"answer": 7}
    assert (cluster.reports / index.rows[3].report / "console.log").is_file()
    assert "✗ fail" in done.stdout


@pytest.mark.slow
def test_the_labs_of_a_worker_that_is_killed_run_again_elsewhere(cluster: Cluster) -> None:
    write_lab(cluster.labs, "aa", "wait")
    victim = cluster.add_worker()
    run = subprocess.Popen(cluster.argv("aa"), cwd=ROOT, env=cluster.env, stdout=subprocess.PIPE, text=True)
    until(lambda: any(cluster.root.glob("began-*")))
    (began,) = cluster.root.glob("began-*")
    assert int(began.name.partition("-")[2]) == victim.pid
    cluster.add_worker()
    family = [psutil.Process(victim.pid), *psutil.Process(victim.pid).children(recursive=True)]
    victim.kill()
    victim.wait()
    until(lambda: len(list(cluster.root.glob("began-*"))) == 2)
    assert psutil.wait_procs(family, timeout=5)[1] == []
    (cluster.root / "go").touch()
    out, _ = run.communicate(timeout=100)
    assert run.returncode == 0, out
    assert cluster.verdicts() == {"aa": "pass"}


def refused(done: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    """Two lines in plain words: what is wrong, what to do."""
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    first, second = done.stderr.splitlines()
    for word in words:
        assert word in first + second


@pytest.mark.slow
def test_a_cluster_that_will_not_do_is_said_so_before_anything_runs(cluster: Cluster) -> None:
    write_lab(cluster.labs, "aa")
    refused(cluster.run("aa"), 3, "has no workers", f"vmlab worker {cluster.address}")
    cluster.add_worker()
    write_lab(cluster.labs, "huge", memory_mib=8_000_000)
    refused(cluster.run("huge"), 2, "huge can never fit: it takes 7812.5 GiB for guest main + 1 x 300 MiB", "no worker offers that")
    # (No worker here has KVM that is real, on most machines that run this test.)
    if not any(flag in Path("/proc/cpuinfo").read_text().split() for flag in ("vmx", "svm")):
        refused(cluster.run("aa", "--accel", "kvm"), 2, "under KVM, and no worker offers that")
    cluster.add_worker(argv=("-c", STRANGER))
    refused(cluster.run("aa"), 3, "is not the same vmlab as this: vmlab 9.9 there", "same version")
    assert not cluster.reports.exists()


@pytest.mark.slow
def test_a_file_that_a_worker_lacks_is_said_with_the_workers_name(cluster: Cluster) -> None:
    write_lab(cluster.labs, "aa")
    cluster.add_worker()
    done = cluster.run("aa", "--image", "/nowhere/image.qcow2")
    assert done.returncode in (2, 3)
    (row,) = batch.load(cluster.reports).rows
    assert row.trouble is not None
    assert row.trouble.message.startswith(f"on {os.uname().nodename}: ")
    assert "/nowhere/image.qcow2" in row.trouble.message


@pytest.mark.slow
@pytest.mark.parametrize(
    ("address", "code", "words"),
    [
        ("tcp://127.0.0.1:9", 3, ("no scheduler answers at tcp://127.0.0.1:9 within 10 s", "dask scheduler")),
        ("127.0.0.1", 2, ("'127.0.0.1' is not the address of a scheduler", "tcp://host:8786")),
        ("http://127.0.0.1:8786", 2, ("is not the address of a scheduler",)),
    ],
)
def test_a_scheduler_that_is_not_there_takes_bounded_time(tmp_path: Path, address: str, code: int, words: tuple[str, ...]) -> None:
    write_lab(tmp_path / "labs", "aa")
    for command in (["run", "aa", "--labs", str(tmp_path / "labs"), "--reports", str(tmp_path / "r"), "--scheduler"], ["worker"]):
        began = time.monotonic()
        argv = [sys.executable, "-m", "vmlab", *command, address]
        refused(subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False), code, *words)
        assert time.monotonic() - began < 40


def test_without_the_extra_it_says_how_to_install_it(tmp_path: Path) -> None:
    write_lab(tmp_path / "labs", "aa")
    code = "import sys; sys.modules['distributed'] = None; sys.argv[0] = 'vmlab'; from vmlab.cli.app import main; main()"
    argv = [sys.executable, "-c", code, "run", "aa", "--labs", str(tmp_path / "labs"), "--scheduler", "tcp://127.0.0.1:9"]
    refused(
        subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False),
        3,
        "Dask is not installed",
        "vmlab[cluster]",
    )
