"""Bochs: found or explained, configured without a way out, and ended; a shell script plays it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.stage import setting
from vmlab.deadline import Deadline
from vmlab.errors import BootTimeout, GuestExited, HostError
from vmlab.guest.intel import bochs
from vmlab.guest.intel.appliance import Appliance, Job
from vmlab.guest.intel.console import Said
from vmlab.guest.workdir import WorkDir, work_dir

HELP = 'case "$*" in *cpu*) echo corei7_skylake_x >&2 ;; *--help*) echo "Bochs x86 Emulator 2.7" >&2; echo "  -rc filename" >&2 ;; esac\n'


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory that comes first on PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setattr(bochs, "_BIOS", (str(tmp_path / "no-such-bios"), __file__))
    monkeypatch.setattr(bochs, "_VGA_BIOS", (__file__,))
    return folder


def play(programs: Path, script: str) -> None:
    program = programs / "bochs"
    program.write_text(f"#!/bin/sh\ncase $1 in --help) {HELP} exit 1 ;; esac\n{script}\n")
    program.chmod(0o755)


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WorkDir]:
    monkeypatch.setenv("VMLAB_CACHE", str(tmp_path / "cache"))
    with work_dir() as made:
        yield made


def test_it_is_found_with_what_it_needs(programs: Path) -> None:
    play(programs, "")
    assert bochs.find() == bochs.Bochs("2.7", True, Path(__file__), Path(__file__))


def test_without_it_the_command_that_installs_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bochs, "which", lambda _: None)
    with pytest.raises(HostError, match="is not installed") as caught:
        bochs.find()
    assert caught.value.hint.startswith("sudo apt-get install bochs ")
    assert caught.value.exit_code == 3


def test_without_firmware_too(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    play(programs, "")
    monkeypatch.setattr(bochs, "_BIOS", ("/nowhere/bios",))
    with pytest.raises(HostError, match="a BIOS for Bochs is not installed"):
        bochs.find()


def test_one_that_is_too_old_is_refused(programs: Path) -> None:
    (programs / "bochs").write_text("#!/bin/sh\necho 'Bochs x86 Emulator 2.4'\n")
    (programs / "bochs").chmod(0o755)
    with pytest.raises(HostError, match=r"this Bochs \(2.4\) has no processor corei7_skylake_x"):
        bochs.find()


def test_the_configuration_opens_no_port() -> None:
    found = bochs.Bochs("2.7", True, Path("/b"), Path("/v"))
    text = bochs.config(found, 768, Path("/place/disk.img"), Path("/logs/console.log"))
    assert "memory: guest=768, host=768" in text
    assert "display_library: term" in text
    assert 'mode=flat, path="/place/disk.img"' in text
    assert 'com1: enabled=1, mode=file, dev="/logs/console.log"' in text
    assert not any(word in text for word in ("rfb", "ne2k", "e1000", "socket"))
    with pytest.raises(HostError, match="cannot be given the path"):
        bochs.config(found, 768, Path("/ca$he/disk.img"), Path("/console.log"))


class NoAppliance(Appliance):
    """Bochs is played here, and boots nothing."""

    def disk(self, job: Job, scratch: Path, deadline: Deadline) -> Path:
        return scratch / "disk.img"


def run(work: WorkDir, tmp_path: Path, limit_s: float = 20) -> Said:
    pc = bochs.EmulatedPc(bochs.find(), NoAppliance(Path("/vmlinuz"), Path("/initrd")), 512)
    said, argv = pc.run(Job(["true"], "/"), setting(work, tmp_path / "console.log", limit_s=limit_s))
    assert argv[:2] == ["bochs", "-q"]
    return said


def test_it_is_ended_when_all_is_said(programs: Path, work: WorkDir, tmp_path: Path) -> None:
    """It floods its screen meanwhile, which somebody must read."""
    (tmp_path / "end").write_text('@vmlab {"event": "end", "status": 3}\n')
    play(
        programs,
        f"yes | head -c 300000; echo $$ >{tmp_path}/pid; cp {tmp_path}/end {tmp_path}/console.log; exec sleep 60",
    )
    assert run(work, tmp_path).status == 3
    pid = int((tmp_path / "pid").read_text())
    assert not Path(f"/proc/{pid}").exists()


def test_a_panic_of_its_own_is_told_in_its_words(programs: Path, work: WorkDir, tmp_path: Path) -> None:
    play(programs, "echo '00000000000p[HD    ] >>PANIC<< ata0-0: could not open hard drive image file' >bochs.log; exit 1")
    with pytest.raises(GuestExited, match="ata0-0: could not open hard drive image file"):
        run(work, tmp_path)


def test_what_it_printed_is_told_where_there_is_no_panic(programs: Path, work: WorkDir, tmp_path: Path) -> None:
    play(programs, "printf '\\033[H\\033[Jdisplay library term not available\\n'; sleep 0.3; exit 1")
    with pytest.raises(GuestExited, match="display library term not available"):
        run(work, tmp_path)


def test_one_that_hangs_is_ended_at_the_deadline(programs: Path, work: WorkDir, tmp_path: Path) -> None:
    play(programs, f"echo $$ >{tmp_path}/pid; trap '' TERM; sleep 60")
    began = time.monotonic()
    with pytest.raises(BootTimeout, match="not done after 1 s"):
        run(work, tmp_path, limit_s=1)
    assert time.monotonic() - began < 30
    assert not Path(f"/proc/{int((tmp_path / 'pid').read_text())}").exists()
