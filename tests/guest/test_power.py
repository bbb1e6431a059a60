"""Real guests that are expected to end, are paused, are reset, and lose their power."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import BOOT_S
from tests.stage import stage
from vmlab.bench import GUEST_LAB_DIR, Bench, Guest, GuestEnded, GuestPanicked
from vmlab.errors import UsageError
from vmlab.guest.clone.store import TemplateStore
from vmlab.image.image import Image
from vmlab.lab.collection import read_lab
from vmlab.progress import Progress

pytestmark = [pytest.mark.guest, pytest.mark.timeout(900)]

LAB = read_lab(Path(__file__).with_name("lab_of_power"))
MARKER = "a marker of 16 B"


@pytest.fixture
def bench(debian13: Image, tmp_path: Path) -> Iterator[Bench]:
    with stage(tmp_path, dict.fromkeys(LAB.definition.guests, debian13), limit_s=2 * BOOT_S) as here:
        yield Bench(LAB, dataclasses.replace(here, templates=TemplateStore(Progress())), {})


def left_of(guest: Guest, frames: list[int]) -> int:
    """How many of these page frames still hold the marker, as seen from outside."""
    whole = (MARKER.encode() * 4096)[:4096]
    return sum(guest.memory.physical(frame * 4096, 4096) == whole for frame in frames)


def frames_of(guest: Guest) -> list[int]:
    """Leave a process behind whose memory holds the marker; the page frames of that."""
    guest.put_scripts()
    guest.run(f"cd {GUEST_LAB_DIR}; (sleep 9999 | python3 markers.py '{MARKER}' >/run/frames) >/dev/null 2>&1 </dev/null &")
    guest.run("until [ -s /run/frames ]; do sleep 0.1; done")
    frames: list[int] = json.loads(guest.read_text("/run/frames"))["frames"]
    assert left_of(guest, frames) == 64
    return frames


def ends(guest: Guest, command: str, limit_s: float = 60) -> dict[str, Any]:
    with guest.expected_to_end(time_limit_s=limit_s) as end:
        guest.run(command)
    return end.record()


def test_a_panic_that_is_expected_is_evidence_and_each_source_stands_for_itself(bench: Bench) -> None:
    guest = bench.guest()
    assert guest.outside()["panicked"] is False
    seen = ends(guest, "echo c >/proc/sysrq-trigger")
    assert seen["ended"] == "panicked"
    assert seen["monitor"]["event"] == "GUEST_PANICKED"
    assert seen["console"].startswith("Kernel panic - not syncing: sysrq triggered crash")
    assert seen["console_end"] is True
    assert seen["answers_ssh"] is False
    assert (seen["status"], seen["qemu_exit_status"], seen["shutdown_reason"]) == ("running", None, None)
    assert [cpu["level"] for cpu in seen["cpus"]] == [0]
    assert 0 <= seen["at_s"] <= seen["waited_s"]
    assert seen["cpu_s_after"] > seen["cpu_s_before"]
    # What is left of it can be looked at, and nothing more be asked of it.
    outside = guest.outside()
    assert outside["panicked"] is True
    assert len(outside["vcpu_cpu_s"]) == 1
    assert guest.wait_for_console("end Kernel panic", 1) is not None
    began = time.monotonic()
    assert guest.wait_for_console("what nobody says", 30) is None
    assert time.monotonic() - began < 10
    with pytest.raises(GuestEnded, match="panicked, as was expected"):
        guest.run("true")
    bench.wait(0.1, "nothing")


def test_a_panic_before_the_block_is_an_error(bench: Bench) -> None:
    guest = bench.guest()
    guest.run("(sleep 0.2; echo c >/proc/sysrq-trigger) >/dev/null 2>&1 </dev/null &")
    with pytest.raises(GuestPanicked):
        bench.wait(30, "the panic")
    assert guest.outside()["panicked"] is True
    with pytest.raises(GuestPanicked), guest.expected_to_end():
        pytest.fail("it had ended before")


@pytest.mark.parametrize(
    ("command", "ended", "reason"),
    [
        ("echo b >/proc/sysrq-trigger", "reset", "guest-reset"),
        ("echo o >/proc/sysrq-trigger; sleep 60", "switched off", "guest-shutdown"),
        ("echo 'Kernel panic - not syncing: said so' >/dev/console; echo b >/proc/sysrq-trigger", "reset", "guest-reset"),
    ],
    ids=["reset", "off", "words-and-reset"],
)
def test_other_ends_are_told_apart(bench: Bench, command: str, ended: str, reason: str) -> None:
    seen = ends(bench.guest(), command)
    assert (seen["ended"], seen["shutdown_reason"], seen["monitor"]) == (ended, reason, None)
    assert (seen["qemu_exit_status"], seen["status"], seen["cpus"], seen["answers_ssh"]) == (0, None, None, False)
    with pytest.raises(GuestEnded):
        bench.guest().outside()


def test_a_guest_that_goes_on_is_an_answer_and_can_be_asked_more(bench: Bench) -> None:
    guest = bench.guest()
    seen = ends(guest, "echo 'Kernel panic - not syncing: said so' >/dev/console", limit_s=1)
    assert seen["ended"] == "still runs"
    assert seen["answers_ssh"] is True
    assert (seen["monitor"], seen["at_s"], seen["status"]) == (None, None, "running")
    assert guest.run("echo still here").stdout == "still here\n"


def test_a_clone_that_loses_its_power_forgets_its_memory_and_boots_from_its_disk(bench: Bench) -> None:
    guest = bench.guest()
    assert guest.part().start == "clone"
    guest.run("echo kept >/root/kept && sync && echo lost >/root/lost")
    frames = frames_of(guest)
    guest.reset()
    assert left_of(guest, frames) == 64
    with pytest.raises(UsageError, match="a clone that was reset cannot boot"):
        guest.wait_until_ready()
    guest.power_cycle()
    assert left_of(guest, frames) == 0
    guest.wait_until_ready(time_limit_s=BOOT_S)
    assert guest.run("cat /root/kept").stdout == "kept\n"
    assert guest.run("cat /root/lost", check=False).stdout == "", "it was in the guest's page cache alone"
    assert guest.script("markers.py", MARKER).record["frames"], "the lab's scripts are there again"
    assert [part.what for part in guest.history(0)] == ["reset", "its power was cut", "switched on again", "booted again"]


def test_a_reset_keeps_the_memory_and_the_boot_after_it_writes_it_over(bench: Bench) -> None:
    guest = bench.guest("booted")
    with guest.pause():
        assert guest.outside()["status"] == "paused"
        with guest.memory.frozen():
            pass
        assert guest.outside()["status"] == "paused"
    assert guest.outside()["status"] == "running"
    frames = frames_of(guest)
    guest.reset()
    assert left_of(guest, frames) == 64
    guest.wait_until_ready(time_limit_s=BOOT_S)
    # (What a boot does not need it does not write over: 0 to 2 of 64 were seen to be left.)
    assert left_of(guest, frames) < 16
    empty = guest.run("find /etc/ssh /root/.ssh /var/lib/cloud/instance/sem -type f -size 0").stdout
    assert empty == "", "files that cloud-init wrote, and that had lost their content"
    guest.cut_power()
    with pytest.raises(GuestEnded, match="its power was cut"):
        guest.run("true")
    with pytest.raises(GuestEnded, match="its power was cut"):
        guest.memory  # noqa: B018


def test_noise_is_what_others_did_while_the_guest_ran(bench: Bench) -> None:
    guest = bench.guest()
    with bench.noise() as noise:
        guest.run("i=0; while [ $i -lt 20000 ]; do i=$((i + 1)); done")
    seen = noise.record()
    assert seen["qemu_cpu_s"] > 0.05
    assert 0 <= seen["others_share"] <= 1
