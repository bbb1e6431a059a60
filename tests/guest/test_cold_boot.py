"""A disk that is frozen, and boots from it that are timed by what the guest says on its second serial port."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.guest.conftest import World, world_of
from vmlab.bench import FrozenDisk
from vmlab.errors import BootTimeout, GuestPanicked, SshError
from vmlab.image.image import Image

pytestmark = [pytest.mark.guest, pytest.mark.xdist_group("cold-boot")]

# A PID 1 that says what the kernel was told and whether the last boot left something.
HELLO = r"""#!/bin/sh
read -r cmdline </proc/cmdline
read -r clock _ </proc/uptime
echo "hello $clock $cmdline" >/dev/ttyS1
[ ! -e /left ] || echo "left" >/dev/ttyS1
echo something >/left
sync
echo "over" >/dev/ttyS1
exec sleep 1000
"""


@pytest.fixture(scope="module")
def frozen(debian13: Image, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[World, FrozenDisk]]:
    with world_of(debian13, tmp_path_factory.mktemp("logs")) as world:
        guest = world.bench.guest(cloud_init={"write_files": [{"path": "/from-the-run", "content": "yes"}]})
        assert guest.read_text("/from-the-run") == "yes"
        guest.run("cat >/hello && chmod 755 /hello", input=HELLO)
        disk = guest.freeze()
        with pytest.raises(SshError):
            guest.run("true")
        yield world, disk


def test_a_boot_is_timed_and_leaves_nothing(frozen: tuple[World, FrozenDisk]) -> None:
    world, disk = frozen
    before = disk.digest()
    for word in ("first", "second"):
        boot = world.bench.cold_boot(disk, init="systemd", kernel_args=f"init=/hello {word}", cpus=1, until="over")
        said = {line["text"].split()[0]: line for line in boot["port"]}
        assert set(said) == {"hello", "over"}, "nothing of a boot is there in the next"
        words = said["hello"]["text"].split()
        assert words[-1] == word
        up = next(line["at_s"] for line in boot["console"] if line["text"].startswith("vmlab-initrd: up"))
        assert 0 < float(words[1]) < said["hello"]["at_s"], "the guest's clock starts after QEMU"
        assert up < said["hello"]["at_s"] <= said["over"]["at_s"] <= boot["noise"]["wall_s"]
        assert boot["noise"]["qemu_cpu_s"] > 0
        assert boot["broken"] == []
        assert "-smp" in boot["argv"]
        assert boot["argv"][boot["argv"].index("-smp") + 1] == "1"
    assert disk.digest() == before
    assert not Path(world.work.path, "main-again").exists()


def test_a_line_that_never_comes_ends_in_time_with_the_guests_last_words(frozen: tuple[World, FrozenDisk]) -> None:
    world, disk = frozen
    began = time.monotonic()
    with pytest.raises(BootTimeout, match="never said") as caught:
        world.bench.cold_boot(disk, init="systemd", kernel_args="init=/hello", until="never said", time_limit_s=20)
    assert time.monotonic() - began < 30
    assert "vmlab-initrd: up" in caught.value.detail


def test_a_guest_that_dies_is_not_waited_for(frozen: tuple[World, FrozenDisk]) -> None:
    world, disk = frozen
    with pytest.raises(GuestPanicked):
        world.bench.cold_boot(disk, init="systemd", kernel_args="init=/bin/false", until="over")


def test_the_report_says_how_the_guest_ended(frozen: tuple[World, FrozenDisk]) -> None:
    world, _ = frozen
    assert world.guest.machine.ended_how == "switched off"


def test_any_end_will_do_when_it_is_said_so(frozen: tuple[World, FrozenDisk]) -> None:
    world, disk = frozen
    boot = world.bench.cold_boot(disk, init="systemd", kernel_args="init=/bin/false", until="over", any_end=True)
    assert boot["ended"] == "panicked"
    assert boot["end"]["monitor"]["event"] == "GUEST_PANICKED"
    assert "Attempted to kill init" in boot["end"]["console"]
    boot = world.bench.cold_boot(disk, init="systemd", kernel_args="init=/hello", until="never said", time_limit_s=20, any_end=True)
    assert (boot["ended"], boot["end"]["status"]) == ("still runs", "running")
