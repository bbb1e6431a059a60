"""Whether a kernel has panicked: by evidence. A guest that lives is not taken for dead whatever it prints, and a dead one soon is."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence

import pytest

from vmlab.errors import GuestExited
from vmlab.guest import panic
from vmlab.guest.console import Line
from vmlab.guest.panic import Cpu, PanicWatch, cpus_of, reason_in

WORDS = "[   12.345678] Kernel panic - not syncing: just words"
USER = Cpu(level=3, halted=False, interruptible=True)
KERNEL = Cpu(level=0, halted=False, interruptible=True)
IDLE = Cpu(level=0, halted=True, interruptible=True)
STOPPED = Cpu(level=0, halted=True, interruptible=False)


class FakeGuest:
    """A guest that answers, or not, and whose processors are at what the test says."""

    def __init__(self) -> None:
        self.answers = False
        self.at: Callable[[], Sequence[Cpu]] = lambda: [KERNEL, STOPPED]
        self.cpu_share = 1.0
        self.looks = 0
        self.gone = False
        self.dead = threading.Event()
        self.mere_words: list[str] = []
        self.watch = PanicWatch(self, self.dead.set, self.mere_words.append)

    def answered_at(self, patience_s: float) -> float:
        asked_at = time.monotonic()
        if not self.answers:
            time.sleep(patience_s)
        return asked_at if self.answers else 0.0

    def cpus(self) -> Sequence[Cpu]:
        self.looks += 1
        if self.gone:
            raise GuestExited("QEMU's monitor is gone")
        return self.at()

    def cpu_s(self) -> float:
        return time.monotonic() * self.cpu_share

    def prints(self, text: str = WORDS) -> None:
        self.watch.hear(Line(time.monotonic(), text))

    def lives_on(self, seconds: float = 1.0) -> bool:
        return not self.dead.wait(seconds)


@pytest.fixture
def guest(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeGuest]:
    """A fake guest, watched ten times as fast as a real one."""
    for name in ("SETTLE_S", "LOOK_EVERY_S", "SPUN_CPU_S", "_FIRST_PAUSE_S", "_LONGEST_PAUSE_S"):
        monkeypatch.setattr(panic, name, getattr(panic, name) / 10)
    made = FakeGuest()
    yield made
    made.watch.close()


def settled(guest: FakeGuest) -> bool:
    end = time.monotonic() + 5
    while guest.watch.signs.doubtful and time.monotonic() < end:
        time.sleep(0.01)
    return not guest.watch.signs.doubtful


def test_pvpanics_word_decides_at_once_and_once(guest: FakeGuest) -> None:
    guest.answers = True
    guest.watch.tell()
    assert guest.dead.is_set()
    assert guest.watch.signs.told_at
    assert not guest.watch.signs.lifeless_at
    guest.dead.clear()
    guest.watch.tell()
    assert not guest.dead.is_set()


def test_a_silent_guest_whose_processors_are_all_in_the_kernel_is_dead(guest: FakeGuest) -> None:
    guest.prints()
    assert guest.dead.wait(2)
    signs = guest.watch.signs
    assert signs.words == "Kernel panic - not syncing: just words"
    assert signs.lifeless_at
    assert signs.panicked
    assert not signs.told_at


def test_so_is_one_whose_processors_have_all_stopped_although_they_use_no_time(guest: FakeGuest) -> None:
    guest.cpu_share = 0.0
    guest.at = lambda: [STOPPED, STOPPED]
    guest.prints()
    assert guest.dead.wait(2)


@pytest.mark.parametrize(
    ("answers", "cpus"), [(True, [KERNEL, STOPPED]), (False, [USER]), (False, [KERNEL, IDLE]), (False, [STOPPED, USER])]
)
def test_words_of_a_guest_that_shows_life_are_words(answers: bool, cpus: list[Cpu], guest: FakeGuest) -> None:
    guest.answers, guest.at = answers, lambda: cpus
    guest.prints()
    assert settled(guest)
    assert guest.lives_on()
    assert not guest.watch.signs.panicked
    # And nobody goes on looking.
    looks = guest.looks
    assert guest.lives_on(0.3)
    assert guest.looks == looks


def test_a_busy_guest_that_answers_late_and_is_seldom_in_user_mode_lives(guest: FakeGuest) -> None:
    """Nearly all looks find it in the kernel, at full load: the one that does not is enough."""
    guest.at = lambda: [USER if guest.looks % 7 == 0 else KERNEL]
    guest.prints()
    assert settled(guest)
    assert guest.lives_on(0.2)


def test_a_guest_that_is_not_let_run_is_not_dead(guest: FakeGuest) -> None:
    """On a crowded machine, or while QEMU has stopped it: nothing changes, and no time is used."""
    guest.cpu_share = 0.0
    guest.prints()
    assert guest.lives_on()
    guest.answers = True
    assert settled(guest)


def test_two_processors_that_spin_are_given_more_time(guest: FakeGuest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(panic, "SPUN_CPU_S", 0.7)
    guest.at = lambda: [KERNEL, KERNEL]
    guest.prints()
    assert guest.lives_on(1.2)
    assert guest.dead.wait(3)


def test_a_guest_that_cannot_be_asked_yet_is_not_dead(guest: FakeGuest) -> None:
    guest.at = list
    guest.prints()
    assert guest.lives_on()
    guest.at = lambda: [STOPPED]
    assert guest.dead.wait(2)


def test_life_in_the_first_moment_proves_nothing(guest: FakeGuest) -> None:
    """A kernel prints its first words before it stops the other processors, one of which may be about to answer."""
    guest.answers = True
    guest.prints()
    time.sleep(0.05)
    guest.answers = False
    assert guest.dead.wait(2)


def test_a_panic_after_mere_words_is_found_all_the_same(guest: FakeGuest) -> None:
    guest.answers = True
    guest.prints()
    assert settled(guest)
    guest.answers = False
    guest.prints("[  20.0] Kernel panic - not syncing: Fatal exception")
    assert guest.dead.wait(3)
    assert guest.watch.signs.words == "Kernel panic - not syncing: Fatal exception"
    assert guest.watch.signs.alive_at


def test_a_flood_of_words_is_no_flood_of_looks(guest: FakeGuest) -> None:
    guest.answers = True
    end = time.monotonic() + 3
    while time.monotonic() < end:
        guest.prints()
        time.sleep(0.001)
    assert not guest.dead.is_set()
    # (With pauses of 0.1, 0.2 and then 0.4 s, and 0.1 s before each, there are 7 looks in 3 s; without there would be 30.)
    assert 2 <= guest.looks <= 12
    assert guest.mere_words == ["Kernel panic - not syncing: just words"]


def test_whoever_looks_when_qemu_ends_leaves_that_to_others(guest: FakeGuest) -> None:
    guest.gone = True
    guest.prints()
    assert guest.lives_on(0.5)
    guest.watch.close()
    guest.watch.tell()
    guest.prints()
    assert not guest.dead.is_set()


def test_the_last_reason_counts_without_the_ends_brackets() -> None:
    real = "Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000100"
    text = f"{WORDS}\n[ 13.0] {real}\n[ 13.0] CPU: 0\n[ 13.1] ---[ end {real} ]---\n"
    assert reason_in(text) == real
    assert reason_in("[ 1.0] Attempted to kill init!\r\n") == "Attempted to kill init!"
    assert reason_in("all is well") == ""


def test_registers_are_read_as_qemu_prints_them() -> None:
    text = (
        "\r\nCPU#0\r\nRAX=0000000000000000 RBX=0 RCX=0 RDX=0\r\n"
        "RIP=ffffffff9e5c2b1f RFL=00000246 [---Z-P-] CPL=0 II=0 A20=1 SMM=0 HLT=1\r\nES =0000 0 ffffffff 00c00000\r\n"
        "\r\nCPU#1\r\nRIP=00007f2d3c1b2a10 RFL=00000202 [-------] CPL=3 II=0 A20=1 SMM=0 HLT=0\r\n"
        "\r\nCPU#2\r\nEIP=0000fff0 EFL=00000002 [-------] CPL=0 II=0 A20=1 SMM=0 HLT=1\r\n"
    )
    assert cpus_of(text) == [Cpu(0, True, True), Cpu(3, False, True), Cpu(0, True, False)]
    assert [(cpu.lives, cpu.stopped) for cpu in cpus_of(text)] == [(True, False), (True, False), (False, True)]
    assert cpus_of("unknown command: 'info registers'") == []
