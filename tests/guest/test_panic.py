"""A panic of a real kernel, with pvpanic and without, and real guests that only say so."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import BOOT_S
from tests.stage import Heard, setting
from vmlab.deadline import Deadline
from vmlab.errors import GuestPanicked
from vmlab.guest import boot as starting
from vmlab.guest.machine import BootRequest, Machine
from vmlab.guest.workdir import work_dir
from vmlab.image.image import Image
from vmlab.progress import Kind, Listener, Progress

pytestmark = [pytest.mark.guest, pytest.mark.xdist_group("panic")]

WORDS = "Kernel panic - not syncing: just words"
WITHOUT_PVPANIC = "module_blacklist=pvpanic,pvpanic_mmio,pvpanic_pci"
CRASH = "sync; (sleep 0.2; echo c >/proc/sysrq-trigger) >/dev/null 2>&1 </dev/null &"


@contextlib.contextmanager
def running(image: Image, log: Path, *, kernel_args: str = "", cpus: int = 2, heard: Listener = lambda _event: None) -> Iterator[Machine]:
    request = BootRequest("main", image, "tcg", memory_mib=512, cpus=cpus, kernel_args=kernel_args)
    with (
        work_dir() as work,
        starting.boot(request, setting(work, log, limit_s=BOOT_S, progress=Progress(heard))) as machine,
    ):
        yield machine


def say(machine: Machine, command: str) -> str:
    with machine.attributing():
        return machine.ssh.execute(command, deadline=Deadline(120)).stdout


def say_it(machine: Machine, command: str) -> None:
    """Run a command that prints the words; wait until they stand no longer unanswered, and see that the guest lives."""
    before, end = machine.panic_signs.words_at, time.monotonic() + 60
    say(machine, command)
    while (machine.panic_signs.doubtful or machine.panic_signs.words_at == before) and time.monotonic() < end:
        machine.check_alive()
        time.sleep(0.1)
    machine.check_alive()
    signs = machine.panic_signs
    assert signs.words_at > before
    assert not signs.doubtful
    assert not signs.panicked


def crash(machine: Machine, within_s: float) -> GuestPanicked:
    """Let the kernel panic; the death, which must be known so many seconds after its last words."""
    say(machine, CRASH)
    with pytest.raises(GuestPanicked) as caught:
        end = time.monotonic() + 60
        while time.monotonic() < end:
            machine.check_alive()
            time.sleep(0.05)
    assert time.monotonic() - machine.panic_signs.words_at < within_s
    return caught.value


@pytest.fixture(scope="module")
def healthy(debian13: Image, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A guest whose kernel has no driver for pvpanic: here looks alone decide."""
    with running(debian13, tmp_path_factory.mktemp("logs") / "console.log", kernel_args=WITHOUT_PVPANIC) as machine:
        assert "pvpanic" not in say(machine, "ls /sys/bus/pci/drivers; lsmod")
        # By this lock, which it has inherited, a later run would know it if it outlived this one.
        assert str(machine.directory.parent / "guests.lock") in [str(path.readlink()) for path in Path(f"/proc/{machine.pid}/fd").iterdir()]
        yield machine


@pytest.mark.parametrize("where", ["/dev/kmsg", "/dev/console", "/dev/ttyS0"])
def test_who_prints_that_the_kernel_panicked_is_not_believed(where: str, healthy: Machine) -> None:
    say_it(healthy, f"echo '<0>{WORDS}' >{where}" if where == "/dev/kmsg" else f"echo '{WORDS}' >{where}")
    assert healthy.panic_signs.words == WORDS
    assert say(healthy, "echo still here") == "still here\n"


def test_nor_is_one_that_says_so_for_ever_or_is_merely_busy(healthy: Machine) -> None:
    """Both processors at full load for 20 s, half of it in the kernel, and the words with each line that comes."""
    busy = "timeout 20 dd if=/dev/zero of=/dev/null bs=256M & timeout 20 sh -c 'while :; do :; done' & "
    began = time.monotonic()
    say_it(healthy, busy + f"(while sleep 0.5; do echo '{WORDS}'; done) >/dev/ttyS0 & talker=$!; wait %1 %2; kill $talker")
    assert time.monotonic() - began > 15
    assert say(healthy, "echo still here") == "still here\n"


def test_a_real_panic_is_found_without_pvpanic_within_seconds(healthy: Machine) -> None:
    """(The last of those that use this guest.)"""
    death = crash(healthy, within_s=40)
    assert "sysrq triggered crash" in death.message
    assert "just words" not in death.message
    signs = healthy.panic_signs
    assert not signs.told_at
    assert signs.lifeless_at


def test_a_panic_that_pvpanic_tells_ends_the_guest_at_once(debian13: Image, tmp_path: Path) -> None:
    heard = Heard()
    with running(debian13, tmp_path / "console.log", cpus=1, heard=heard) as machine:
        say_it(machine, f"echo '{WORDS}' >/dev/console")
        # Whoever watches the run is told once.
        assert [WORDS in text for text in heard.texts(Kind.NOTICE)] == [True]
        death = crash(machine, within_s=3)
        assert "sysrq triggered crash" in death.message
        assert "just words" not in death.message
        assert machine.panic_signs.told_at
        assert not machine.panic_signs.lifeless_at


def test_a_panic_while_it_boots_is_found_without_pvpanic(debian13: Image, tmp_path: Path) -> None:
    """As one before the driver is there: nobody is logged in, and no sshd greets."""
    with (
        pytest.raises(GuestPanicked, match="Attempted to kill init"),
        running(debian13, tmp_path / "console.log", kernel_args=f"{WITHOUT_PVPANIC} init=/bin/false"),
    ):
        pass
    assert time.time() - (tmp_path / "console.log").stat().st_mtime < 15
