"""Many labs through the command line: what is shown and written, what is tried again, and how it stops.

The labs here take slots, and most start no guest.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.stand_in.machine import Done, StandIn
from tests.tinylab import write_lab
from vmlab.report import batch
from vmlab.report.batch import Batch, LabRow

pytestmark = pytest.mark.timeout(200)


class Place(StandIn):
    """The command line for many labs: a process of its own each time, because their processes are forked from one that it starts."""

    def argv(self, *words: str) -> list[str]:
        return super().argv("run", *words)

    def run(self, *words: str) -> Done:
        process = self.start(*words)
        out, err = process.communicate(timeout=150)
        return Done(process.returncode, out, err)

    def start(self, *words: str) -> subprocess.Popen[str]:
        """A session of its own, so that a signal can go to all of it."""
        argv, out = self.argv(*words), subprocess.PIPE
        return subprocess.Popen(
            argv, cwd=self.root, env=self.env, stdout=out, stderr=out, stdin=subprocess.DEVNULL, text=True, start_new_session=True
        )

    @property
    def index(self) -> Batch:
        return batch.load(self.reports)

    def row(self, job: str) -> LabRow:
        return next(row for row in self.index.rows if row.job == job)

    def verdicts(self) -> dict[str, str | None]:
        return {row.job: row.verdict for row in self.index.rows}

    def report(self, job: str) -> Any:
        return json.loads((self.reports / self.row(job).report / "report.json").read_text())


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def until(true: Callable[[], bool], limit_s: float = 60) -> None:
    end = time.monotonic() + limit_s
    while not true():
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.02)


def test_each_lab_has_a_report_and_the_index_leads_to_it_failures_first(place: Place) -> None:
    for name, does in (("aa", "pass"), ("bb", "fail"), ("cc", "break"), ("dd", "die")):
        write_lab(place.labs, name, does)
    done = place.run("aa", "bb", "cc", "dd", "aa")
    assert done.returncode == 3
    assert "Traceback" not in done.stderr
    assert place.verdicts() == {"aa": "pass", "bb": "fail", "cc": "error", "dd": "error", "aa-2": "pass"}
    assert [row.job for row in place.index.by_urgency()] == ["cc", "dd", "bb", "aa", "aa-2"]
    trouble = place.row("dd").trouble
    assert trouble is not None
    assert "signal 9" in trouble.message
    page = (place.reports / "index.html").read_text()
    assert page.index(">cc</a>") < page.index(">bb</a>") < page.index(">aa</a>")
    for row in place.index.rows:
        if row.report:
            assert f'href="{row.report}/report.html"' in page
            assert (place.reports / row.report / "report.html").is_file()
    assert "It was &lt;not&gt; so." in page
    assert "✗ fail            It is so." in done.stdout
    assert "Of 5 labs, 2 could not be run, 1 fails" in done.stdout


def test_only_errors_are_tried_again(place: Place) -> None:
    for name, does in (("bb", "fail"), ("cc", "break once"), ("dd", "break")):
        write_lab(place.labs, name, does)
    done = place.run("bb", "cc", "dd", "--retry-errors", "2")
    assert done.returncode == 3
    assert place.verdicts() == {"bb": "fail", "cc": "pass", "dd": "error"}
    assert [len(place.row(job).earlier) for job in ("bb", "cc", "dd")] == [0, 1, 2]
    assert done.stdout.count("it is run again") == 3
    assert "after 2 errors" in (place.reports / "index.html").read_text()


def test_a_mistake_in_a_request_is_answered_before_anything_starts(place: Place) -> None:
    write_lab(place.labs, "aa")
    write_lab(place.labs, "huge", memory_mib=8_000_000)
    done = place.run("aa", "huge")
    assert done.returncode == 2
    assert done.stderr.startswith("vmlab: the lab huge can never fit: 7812.5 GiB for guest main + 1 x 300 MiB for QEMU")
    assert not place.reports.exists()
    assert place.run("aa", "aa", "-j", "none").returncode == 2
    assert place.run("aa", "aa", "--param", "answers=3").returncode == 2


def test_fail_fast_starts_nothing_more_and_resume_runs_only_what_is_left(place: Place) -> None:
    for name, does in (("aa", "pass"), ("bb", "fail"), ("cc", "break once"), ("dd", "pass")):
        write_lab(place.labs, name, does)
    assert place.run("aa", "bb", "cc", "dd", "-j", "1", "--fail-fast").returncode == 1
    assert place.verdicts() == {"aa": "pass", "bb": "fail", "cc": None, "dd": None}
    first = {row.job: row.report for row in place.index.rows}

    done = place.run("aa", "bb", "cc", "dd", "-j", "1", "--resume")
    assert done.returncode == 3
    assert place.verdicts() == {"aa": "pass", "bb": "fail", "cc": "error", "dd": "pass"}
    assert [place.row(job).report for job in ("aa", "bb")] == [first["aa"], first["bb"]]
    assert "kept: aa: pass" in done.stdout

    # An error is no result, and a lab that was changed is another lab.
    (place.labs / "aa" / "README.md").write_text("changed")
    assert place.run("aa", "bb", "cc", "dd", "--resume", "--json").returncode == 1
    assert place.verdicts()["cc"] == "pass"
    assert place.row("aa").report != first["aa"]
    assert place.row("bb").report == first["bb"]


def test_nothing_to_resume_is_said_so(place: Place) -> None:
    write_lab(place.labs, "aa")
    done = place.run("aa", "--resume")
    assert (done.returncode, done.stdout) == (2, "")
    assert "there is no index.json" in done.stderr


@pytest.mark.slow
def test_json_is_all_that_is_printed(place: Place) -> None:
    write_lab(place.labs, "aa")
    done = place.run("aa", "aa", "--json")
    assert [report["lab"]["name"] for report in json.loads(done.stdout)] == ["aa", "aa"]


@pytest.mark.slow
def test_shards_are_run_apart_and_joined(place: Place) -> None:
    for name, does in (("aa", "pass"), ("bb", "fail"), ("cc", "pass")):
        write_lab(place.labs, name, does)
    first, second, joined = (place.reports.with_name(name) for name in ("first", "second", "joined"))
    for number, (place.reports, code) in enumerate(((first, 0), (second, 1)), 1):
        assert place.run("aa", "bb", "cc", "--shard", f"{number}/2").returncode == code
    place.reports = joined
    argv = [sys.executable, "-m", "vmlab", "merge", str(first), str(second), "--into", str(joined)]
    done = subprocess.run(argv, cwd=place.root, env=place.env, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert list(place.verdicts().items()) == [("aa", "pass"), ("bb", "fail"), ("cc", "pass")]
    assert done.stdout.splitlines()[0].startswith("bb: fail")
    assert {path.name for path in joined.iterdir()} == {"aa", "bb", "cc", "index.html", "index.json", "junit.xml", "summary.md"}
    assert all((joined / row.report / "report.html").is_file() for row in place.index.rows)


def test_a_shard_without_labs_is_no_failure_and_one_out_of_range_is_a_mistake(place: Place) -> None:
    write_lab(place.labs, "aa")
    assert place.run("aa", "--shard", "2/2").returncode == 0
    assert place.index.rows == []
    for wrong in ("3/2", "0/2", "1-2", "1/0"):
        done = place.run("aa", "--shard", wrong)
        assert done.returncode == 2
        assert "--shard" in done.stderr
        assert "Traceback" not in done.stderr


def waiting_labs(place: Place, *names: str) -> list[Path]:
    return [write_lab(place.labs, name, "wait") for name in names]


def has_begun(folder: Path) -> bool:
    return any(folder.glob("began-*"))


def test_the_first_interrupt_lets_what_has_begun_finish(place: Place) -> None:
    aa, bb = waiting_labs(place, "aa", "bb")
    run = place.start("aa", "bb", "-j", "1")
    until(lambda: has_begun(aa))
    os.killpg(run.pid, signal.SIGINT)  # As a terminal does: to all processes at once.
    time.sleep(0.5)
    (aa / "go").touch()
    out, err = run.communicate(timeout=60)
    assert run.returncode == 130, err
    assert "Ctrl-C again stops them at once" in out
    assert place.verdicts() == {"aa": "pass", "bb": None}
    assert place.index.interrupted
    assert not has_begun(bb)
    assert "Traceback" not in err


@pytest.mark.slow
def test_those_that_wait_for_a_slot_are_not_begun(place: Place) -> None:
    aa = write_lab(place.labs, "aa", "wait", exclusive=True)
    bb = write_lab(place.labs, "bb", "wait")
    first = place.start("aa", "--quiet")
    until(lambda: has_begun(aa))
    place.reports = place.reports.with_name("other")
    second = place.start("bb", "bb")
    assert second.stdout is not None
    for line in second.stdout:
        if "bb-2: waiting for a slot: " in line:
            break
    second.send_signal(signal.SIGINT)
    assert second.wait(30) == 130
    assert place.verdicts() == {"bb": None, "bb-2": None}
    assert not has_begun(bb)
    (aa / "go").touch()
    assert first.wait(30) == 0


@pytest.mark.parametrize("numbers", [(signal.SIGINT, signal.SIGINT), (signal.SIGTERM,)])
def test_the_second_interrupt_stops_at_once_and_leaves_nothing(place: Place, numbers: tuple[signal.Signals, ...]) -> None:
    aa, bb = waiting_labs(place, "aa", "bb")
    run = place.start("aa", "bb", "-j", "2")
    until(lambda: has_begun(aa) and has_begun(bb))
    children = psutil.Process(run.pid).children(recursive=True)
    began = time.monotonic()
    for number in numbers:
        run.send_signal(number)
        time.sleep(0.4)
    _, err = run.communicate(timeout=30)
    assert time.monotonic() - began < 15
    assert run.returncode == 130
    assert "Traceback" not in err
    assert psutil.wait_procs(children, timeout=5)[1] == []
    assert place.verdicts() == {"aa": None, "bb": None}
    assert place.index.interrupted
    assert list(place.reports.rglob("report.json")) == []
    assert list((place.reports.parent / "slots").iterdir()) == []


@pytest.mark.slow
def test_a_killed_run_takes_its_guests_along_and_can_be_taken_up_again(place: Place) -> None:
    write_lab(place.labs, "aa")
    (bb,) = waiting_labs(place, "bb")
    run = place.start("aa", "bb", "-j", "1")
    until(lambda: has_begun(bb))
    children = psutil.Process(run.pid).children(recursive=True)
    run.kill()
    run.communicate(timeout=30)
    assert psutil.wait_procs(children, timeout=20)[1] == []
    assert place.verdicts() == {"aa": "pass", "bb": None}
    (bb / "go").touch()
    assert place.run("aa", "bb", "--resume").returncode == 0
    assert place.verdicts() == {"aa": "pass", "bb": "pass"}


@pytest.mark.slow
def test_labs_with_guests_share_the_machine_and_an_exclusive_one_has_it_alone(place: Place) -> None:
    write_lab(place.labs, "aa", "guest")
    write_lab(place.labs, "bb", "guest")
    write_lab(place.labs, "cc", "guest", exclusive=True)
    done = place.run("aa", "bb", "cc", "aa", "-j", "4")
    assert done.returncode == 0, done.stdout + done.stderr
    slots = {job: place.report(job)["run"]["slot"] for job in ("aa", "bb", "cc", "aa-2")}
    assert slots["cc"]["exclusive"]
    for job, slot in slots.items():
        assert slot["asked_s"] <= slot["from_s"] < slot["until_s"]
        if job != "cc":
            assert slot["until_s"] <= slots["cc"]["from_s"] or slot["from_s"] >= slots["cc"]["until_s"], "somebody ran beside it"
    assert len({slot["boot_id"] for slot in slots.values()}) == 1
    assert all(row.runner_cpu_s > 0 for row in place.index.rows)


def test_a_terminal_shows_a_table(place: Place) -> None:
    write_lab(place.labs, "aa")
    write_lab(place.labs, "bb", "fail")
    status, text = place.on_terminal("aa", "bb")
    assert status == 1
    assert "✓ pass" in text
    assert text.index("starting") < text.rindex("✗ fail")
    assert "Of 2 labs, 1 fails" in text
    assert "\x1b[?25h" in text, "the cursor was given back"
