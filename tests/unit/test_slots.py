"""Slots: who may start, in which order, and that nothing is ever given twice. Processes here are real; their guests are numbers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from tests.conftest import ROOT, Vmlab
from tests.stage import Heard
from tests.unit.conftest import World
from vmlab.errors import HostError, UsageError
from vmlab.host import slots
from vmlab.host.capacity import GUEST_OVERHEAD_BYTES, RUNNER_BYTES, Capacity, Need, Share, capacity, check_fits
from vmlab.host.facts import GIB, MIB
from vmlab.host.slots import Place, Slots, obstacle
from vmlab.progress import Kind, Progress

SMALL = Capacity(memory_bytes=4 * GIB, cpus=2, free_bytes=16 * GIB, total_bytes=4 * GIB + GIB // 2)
ONE = Need({"main": Share(GIB, 1)})

# Starts a process that asks for a slot and holds it.
Hold = Callable[..., "subprocess.Popen[str]"]


def silent(_: str) -> None:
    pass


def entry(ticket: int, *, running: bool = False, exclusive: bool = False, cpus: int = 1, gib: float = 1) -> Place:
    return Place(ticket, running, f"lab{ticket}", "student", 100 + ticket, int(gib * GIB), cpus, exclusive, 0.0)


# --- the rule ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mine", "others", "why"),
    [
        (entry(1), [], ""),
        (entry(2), [entry(1, running=True)], ""),
        (entry(3), [entry(1, running=True), entry(2, running=True)], "a CPU, 2 of 2 taken by lab1 (pid 101 of student), lab2"),
        (entry(2, gib=2), [entry(1, running=True, gib=2)], ""),
        (entry(2, gib=2.5), [entry(1, running=True, gib=2)], "memory, 2.0 GiB of 4.0 GiB taken by lab1"),
        (entry(3), [entry(2), entry(1, running=True)], "its turn, 1 run came first"),
        (entry(2), [entry(3)], ""),
        (entry(2, exclusive=True), [entry(1, running=True)], "the machine for itself, lab1"),
        (entry(2, exclusive=True), [], ""),
        (entry(2), [entry(1, running=True, exclusive=True)], "lab1 (pid 101 of student), which has the machine for itself"),
        (entry(3), [entry(2, exclusive=True), entry(1, running=True)], "its turn"),
        (entry(1, cpus=3), [], ""),
        (entry(2, cpus=2), [entry(1, running=True)], "a CPU, 1 of 2 taken"),
    ],
)
def test_who_must_wait_and_why(mine: Place, others: list[Place], why: str) -> None:
    told = obstacle(mine, others, SMALL)
    assert told.startswith(why)
    assert bool(told) == bool(why)


def test_a_run_beside_others_waits_until_its_memory_is_free_now_and_one_alone_does_not() -> None:
    crowded = replace(SMALL, free_bytes=GIB // 2)
    assert obstacle(entry(2), [entry(1, running=True)], crowded) == "1.0 GiB of memory to be free on this machine"
    assert obstacle(entry(2), [], crowded) == ""


def test_the_sum_of_what_a_run_needs() -> None:
    need = Need({"main": Share(GIB, 2), "other": Share(512 * MIB, 1)})
    assert need.memory_bytes == GIB + 512 * MIB + 2 * GUEST_OVERHEAD_BYTES + RUNNER_BYTES
    assert need.cpus == 3
    with pytest.raises(UsageError) as caught:
        check_fits(Need({"main": Share(4 * GIB, 1), "other": Share(512 * MIB, 1)}), "the lab big", SMALL)
    assert caught.value.message == (
        "the lab big can never fit: 4.0 GiB for guest main + 512 MiB for guest other + 2 x 300 MiB for QEMU + 128 MiB for the runner"
        " = 5.2 GiB of memory, but guests may take 4.0 GiB here (of 4.5 GiB)"
    )
    check_fits(Need({"a": Share(GIB, 2), "b": Share(MIB, 1)}), "three virtual CPUs on two", SMALL)


@pytest.mark.parametrize(
    ("files", "memory", "cpus"),
    [
        ({}, 15 * GIB, 8),
        ({"sys/fs/cgroup/user.slice/memory.max": str(4 * GIB), "sys/fs/cgroup/user.slice/cpu.max": "250000 100000"}, 4 * GIB * 9 // 10, 2),
    ],
)
def test_control_groups_bound_what_is_given(tmp_path: Path, files: dict[str, str], memory: int, cpus: int) -> None:
    found = capacity(World(tmp_path).put(files).view())
    assert abs(found.memory_bytes - memory) < MIB
    assert found.cpus == cpus


# --- processes --------------------------------------------------------------------------------------------------------------------

HOLDER = """
import sys, time
from pathlib import Path
from vmlab.host.capacity import Capacity, Need, Share
from vmlab.host.slots import Slots
from vmlab.progress import Progress

progress = Progress(lambda event: print("waits for", event.text.removeprefix("a slot: "), flush=True))
gib = 1 << 30
slots = Slots(Path(sys.argv[1]), lambda: Capacity(4 * gib, 2, 16 * gib, 5 * gib))
with slots.hold(Need({"main": Share(gib, 1)}, exclusive="exclusive" in sys.argv), "held", progress):
    print("runs", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def hold(tmp_path: Path) -> Iterator[Hold]:
    """Processes that hold a slot until they are killed."""
    started: list[subprocess.Popen[str]] = []

    def start(*words: str) -> subprocess.Popen[str]:
        argv = [sys.executable, "-c", HOLDER, str(tmp_path / "slots"), *words]
        process = subprocess.Popen(
            argv, cwd=ROOT, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT / "runner")}
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def says(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_a_killed_owner_frees_its_slot_and_leaves_nothing(hold: Hold, tmp_path: Path) -> None:
    first, second = hold(), hold()
    assert (says(first), says(second)) == ("runs", "runs")
    third = hold()
    assert says(third).startswith("waits for a CPU, 2 of 2 taken by held (pid ")
    began = time.monotonic()
    first.send_signal(signal.SIGKILL)
    assert says(third) == "waits for"
    assert says(third) == "runs"
    assert time.monotonic() - began < 10
    assert {each.pid for each in Slots(tmp_path / "slots").places()} == {second.pid, third.pid}
    assert len(list((tmp_path / "slots").iterdir())) == 2


def test_nobody_passes_one_who_waits_and_a_dead_one_in_the_queue_holds_nobody_up(hold: Hold, monkeypatch: pytest.MonkeyPatch) -> None:
    first = hold()
    assert says(first) == "runs"
    alone = hold("exclusive")
    assert says(alone).startswith("waits for the machine for itself, held (pid ")
    other = hold()
    assert says(other) == "waits for its turn, 1 run came first"
    alone.kill()
    assert says(other) == "waits for"
    assert says(other) == "runs"


def test_fifty_runs_at_once_never_exceed_the_machine_and_come_in_order(tmp_path: Path) -> None:
    """Asserted from what the runs themselves wrote down."""
    store = Slots(tmp_path / "slots", lambda: SMALL)
    held: list[tuple[float, float, Need]] = []
    asked: list[tuple[float, float]] = []
    lock = threading.Lock()

    def one(number: int) -> None:
        need = Need({"main": Share(GIB, 1)}, exclusive=number % 10 == 0)
        with store.hold(need, f"run{number}", Progress()) as slot:
            time.sleep(0.02)
        with lock:
            held.append((slot.from_s, slot.until_s, need))
            asked.append((slot.asked_s, slot.from_s))

    with ThreadPoolExecutor(50) as pool:
        list(pool.map(one, range(50)))
    assert len(held) == 50
    exceeded(held, SMALL)
    assert list((tmp_path / "slots").iterdir()) == []


def exceeded(held: list[tuple[float, float, Need]], whole: Capacity) -> None:
    """At each moment at which a run began: those that ran then, together."""
    for start, _, _ in held:
        then = [need for begin, end, need in held if begin <= start < end]
        assert sum(need.memory_bytes for need in then) <= whole.memory_bytes
        assert sum(need.cpus for need in then) <= whole.cpus
        assert len(then) == 1 or not any(need.exclusive for need in then)


def test_control_runs_that_exceed_the_machine_are_seen() -> None:
    with pytest.raises(AssertionError):
        exceeded([(0, 2, ONE), (1, 3, ONE), (1.5, 2, ONE)], SMALL)
    with pytest.raises(AssertionError):
        exceeded([(0, 2, replace(ONE, exclusive=True)), (1, 3, ONE)], SMALL)


def test_first_come_first_served(tmp_path: Path) -> None:
    store = Slots(tmp_path / "slots", lambda: replace(SMALL, cpus=1))
    order: list[int] = []
    threads = []

    def one(number: int) -> None:
        with store.hold(ONE, f"run{number}", Progress()):
            order.append(number)

    with store.hold(ONE, "first", Progress()):
        for number in range(8):
            threads.append(threading.Thread(target=one, args=(number,)))
            threads[-1].start()
            while len(store.places()) < number + 2:
                time.sleep(0.01)
    for thread in threads:
        thread.join(30)
    assert order == list(range(8))


# --- what can be wrong ------------------------------------------------------------------------------------------------------------


def test_what_can_never_fit_does_not_even_queue(tmp_path: Path) -> None:
    store = Slots(tmp_path / "slots", lambda: SMALL)
    with pytest.raises(UsageError, match="can never fit"), store.hold(Need({"main": Share(8 * GIB, 1)}), "huge", Progress()):
        pass
    assert not (tmp_path / "slots").exists()


def test_a_directory_that_may_not_be_written_is_one_line_and_a_hint(vmlab: Vmlab, tmp_path: Path) -> None:
    # (/proc takes no new files from anybody, root included.)
    done = vmlab("ps", env={slots.VARIABLE: "/proc/vmlab"})
    assert done.returncode == 3
    assert done.stderr.splitlines() == [
        "vmlab: cannot take a slot in /proc/vmlab: No such file or directory",
        "       name a directory that all your runs may write to: VMLAB_SLOTS=/some/where",
    ]
    with pytest.raises(HostError, match="cannot take a slot in /proc"), Slots(Path("/proc")).hold(ONE, "x", Progress()):
        pass


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")
def test_a_read_only_directory_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "ro").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "vmlab-test", str(tmp_path / "ro")], check=True)
    try:
        with pytest.raises(HostError, match="Read-only file system") as caught, Slots(tmp_path / "ro").hold(ONE, "x", Progress()):
            pass
        assert "VMLAB_SLOTS" in caught.value.hint
    finally:
        subprocess.run(["umount", str(tmp_path / "ro")], check=True)


def test_a_directory_of_somebody_else_in_tmp_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(slots.VARIABLE, raising=False)
    monkeypatch.setattr(slots, "Path", lambda name: tmp_path / "theirs")
    (tmp_path / "theirs").mkdir(mode=0o777)
    (tmp_path / "theirs").chmod(0o777)
    with pytest.raises(HostError, match="not a directory of yours alone"):
        Slots().places()


def test_rubbish_in_the_directory_harms_nobody(tmp_path: Path) -> None:
    home = tmp_path / "slots"
    home.mkdir()
    (home / "000000007.running").write_text("no JSON, and no owner")
    (home / "notes.txt").write_text("an administrator's")
    store = Slots(home, lambda: SMALL)
    with store.hold(ONE, "x", Progress()):
        assert [each.what for each in store.places()] == ["x"]
    assert [path.name for path in home.iterdir()] == ["notes.txt"]


def test_a_gate_that_somebody_keeps_shut_is_said_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slots, "_GATE_LIMIT_S", 0.1)
    home = tmp_path / "slots"
    home.mkdir()
    with slots._gate(home), pytest.raises(HostError, match="has held the lock") as caught:
        Slots(home).places()
    assert "fuser" in caught.value.hint


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be two users")
def test_users_share_a_directory_that_was_made_for_all(tmp_path: Path) -> None:
    home = Path("/tmp") / f"vmlab-test-{os.getpid()}"
    home.mkdir()
    home.chmod(0o1777)
    try:
        code = HOLDER.replace("time.sleep(60)", "time.sleep(float(sys.argv[2]))")
        argv = [sys.executable, "-c", "import os, sys; os.setgid(65534); os.setuid(65534); exec(sys.stdin.read())", str(home), "3"]
        # (The code is read before the rights are given up; `runner` is found by a path that all may read, or imported before.)
        preloaded = "import vmlab.host.slots\n"
        argv[2] = preloaded + argv[2]
        theirs = subprocess.Popen(argv, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert theirs.stdin is not None
        theirs.stdin.write(code)
        theirs.stdin.close()
        assert says(theirs) == "runs"
        store = Slots(home, lambda: replace(SMALL, cpus=1))
        heard = Heard()
        with store.hold(ONE, "ours", Progress(heard)):
            assert theirs.wait(10) == 0
        assert heard.texts(Kind.WAITING)[0].startswith("a slot: a CPU, 1 of 1 taken by held (pid ")
    finally:
        subprocess.run(["rm", "-rf", str(home)], check=True)


# --- vmlab ps ---------------------------------------------------------------------------------------------------------------------


def test_ps_shows_who_runs_who_waits_and_why(hold: Hold, vmlab: Vmlab, tmp_path: Path) -> None:
    first = hold()
    assert says(first) == "runs"
    second = hold("exclusive")
    says(second)
    env = {slots.VARIABLE: str(tmp_path / "slots")}
    told = vmlab("ps", env=env).stdout.splitlines()
    assert [line.split()[0] for line in told] == ["runs", "waits", "taken:"]
    assert f"pid {first.pid}" in told[0]
    assert f"alone; waits for the machine for itself, held (pid {first.pid}" in told[1]
    found = json.loads(vmlab("ps", "--json", env=env).stdout)
    assert [row["running"] for row in found["runs"]] == [True, False]
    assert found["taken"] == {"memory_bytes": ONE.memory_bytes, "cpus": 1}


def test_ps_of_a_quiet_machine(vmlab: Vmlab, tmp_path: Path) -> None:
    done = vmlab("ps", env={slots.VARIABLE: str(tmp_path / "slots")})
    assert done.stdout.splitlines()[0] == "nothing runs and nothing waits"
    assert done.returncode == 0
