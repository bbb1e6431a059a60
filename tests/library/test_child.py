"""Children that run a function: they never run on, they are reaped, and they say what came of it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from typing import Any

import pytest

from tests.conftest import ROOT
from vmlab_guest import child, proc
from vmlab_guest.wait import wait_until

ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def status_of(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def program(text: str) -> subprocess.CompletedProcess[str]:
    environment = {"PYTHONPATH": str(ROOT / "runner"), "PATH": os.environ["PATH"]}
    return subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=60, env=environment, check=False)


@pytest.mark.parametrize(
    ("work", "status", "said"),
    [
        ("print('worked')", 0, ""),
        ("print('worked'); sys.exit(3)", 3, ""),
        ("print('worked'); sys.exit()", 0, ""),
        ("print('worked'); sys.exit('no memory')", 1, "no memory\n"),
        ("print('worked'); {}['x']", 1, "KeyError: 'x'"),
        ("print('worked'); raise KeyboardInterrupt", 1, "KeyboardInterrupt"),
    ],
)
def test_a_child_never_runs_on(work: str, status: int, said: str) -> None:
    lines = [
        "import os, sys",
        "from vmlab_guest.child import running",
        "print('before')",
        "def work():",
        f"    {work}",
        "pid = running(work)",
        "print('status', os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))",
    ]
    done = program("\n".join(lines))
    assert done.stdout == f"before\nworked\nstatus {status}\n"
    assert said in done.stderr


def test_a_child_that_exits_at_once() -> None:
    assert status_of(child.exit_at_once()) == 0
    assert status_of(child.exit_at_once(7)) == 7


def test_a_report_comes_back() -> None:
    value = {"pid": 7, "list": [1.5, None, "é", b"\0"], "large": "x" * 300_000}
    with child.Child(lambda: value) as one:
        assert one.report() == value
        assert one.reap()["exited"] == 0
    assert proc.stat_or_none(one.pid) is None


def test_a_child_that_breaks_is_told(capfd: pytest.CaptureFixture[str]) -> None:
    def break_down() -> None:
        raise LookupError("gone")

    with child.Child(break_down) as one, pytest.raises(ChildProcessError, match="without a report"):
        one.report()
    assert "LookupError: gone" in capfd.readouterr().err
    with child.Child(lambda: os.kill(os.getpid(), signal.SIGKILL)) as one, pytest.raises(ChildProcessError, match="SIGKILL"):
        one.report()
    with child.Child(object) as one, pytest.raises(ChildProcessError):  # (Nothing that could be handed on.)
        one.report()


def test_a_child_that_hangs_is_killed_and_reaped() -> None:
    with child.Child(signal.pause) as one:
        with pytest.raises(TimeoutError):
            one.report(limit_s=0.05)
        assert proc.stat_or_none(one.pid) is not None
    assert proc.stat_or_none(one.pid) is None
    assert one.reap()["killed_by"] == "SIGKILL"


def test_a_child_is_reaped_when_the_block_breaks() -> None:
    before = proc.descriptors()
    with pytest.raises(KeyError), child.Child(signal.pause) as one:
        raise KeyError
    assert proc.stat_or_none(one.pid) is None
    assert proc.descriptors() == before


def test_an_orphan_has_another_parent() -> None:
    reading, writing = os.pipe()

    def read_to_its_end() -> None:
        os.close(writing)
        os.read(reading, 1)

    pid = child.orphan(read_to_its_end)
    os.close(reading)
    fields = proc.stat(pid)
    assert fields["ppid"] != os.getpid()
    assert pid not in {each for group in proc.children_of(os.getpid()) for each in group}
    os.close(writing)
    # (Whoever adopted it may be slow to reap.)
    assert wait_until(lambda: (proc.stat_or_none(pid) or {"state": "Z"})["state"] == "Z")


@pytest.mark.parametrize(
    ("raw", "exited", "killed_by", "core"),
    [
        (0, 0, None, False),
        (7 << 8, 7, None, False),
        (9, None, "SIGKILL", False),
        (11 | 128, None, "SIGSEGV", True),
        (40, None, "40", False),
    ],
)
def test_an_ending_in_words(raw: int, exited: int | None, killed_by: str | None, core: bool) -> None:
    assert child.ending(raw) == {"raw": raw, "exited": exited, "killed_by": killed_by, "core": core}


def test_all_are_reaped_but_nobody_waits_for_ever() -> None:
    def reap() -> dict[str, Any]:
        pids = [child.exit_at_once(each) for each in (1, 2)]
        found = child.reap_all()
        sleeper = child.running(signal.pause)
        began = time.monotonic()
        left = child.reap_all(limit_s=0.1)
        os.kill(sleeper, signal.SIGKILL)
        return {"right": found == {pids[0]: 1 << 8, pids[1]: 2 << 8}, "left": left, "took": time.monotonic() - began}

    with child.Child(reap) as one:
        seen: Any = one.report()
    assert seen["right"]
    assert seen["left"] == {}
    assert 0.1 <= seen["took"] < 2


@ROOT_ONLY
def test_nobody_has_nothing() -> None:
    def look() -> dict[str, Any]:
        child.become_nobody()
        with contextlib.suppress(PermissionError):
            os.setuid(0)
            return {"broken": True}
        return {"ids": [*os.getresuid(), *os.getresgid()], "groups": os.getgroups(), "capabilities": proc.masks()["CapEff"]}

    with child.Child(look) as one:
        assert one.report() == {"ids": [child.NOBODY] * 6, "groups": [], "capabilities": "0x0000000000000000"}


def test_a_number_is_never_seen_half_written() -> None:
    counters = child.Counters("forked", "done")

    def add_for_a_second() -> None:
        end = time.monotonic() + 1
        while time.monotonic() < end:
            counters.add("forked")

    with child.Child(add_for_a_second):
        seen = [0]
        end = time.monotonic() + 0.9
        while time.monotonic() < end:
            seen.append(counters["forked"])
            if seen[-1] < seen[-2]:
                break
            del seen[:-1]
    assert seen == sorted(seen)
    assert seen[-1] > 0
    assert counters["done"] == 0


def test_there_is_room_for_many_counters() -> None:
    names = [f"n{number}" for number in range(2000)]
    counters = child.Counters(*names)
    counters.add(names[-1], 5)
    assert [counters[name] for name in (names[0], names[-1])] == [0, 5]
    with pytest.raises(KeyError):
        counters.add("no such counter")
