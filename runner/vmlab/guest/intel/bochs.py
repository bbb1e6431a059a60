"""Bochs: an emulator of an Intel PC, VMX and EPT included, which QEMU cannot emulate. It interprets: slow, and true to the manuals.

It runs an appliance (runner/vmlab/guest/intel/appliance.py), which is small, as a guest with an Intel processor. https://bochs.sourceforge.io
"""

from __future__ import annotations

import contextlib
import os
import pty
import re
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from vmlab import process
from vmlab.deadline import Deadline
from vmlab.errors import HostError
from vmlab.guest.intel.appliance import Appliance, Job
from vmlab.guest.intel.console import Said, read, wait
from vmlab.guest.setting import Setting
from vmlab.packages import which

PROGRAM = "bochs"
INSTALL = "sudo apt-get install bochs bochs-term bochsbios"

CPU_MODEL = "corei7_skylake_x"
"""Has VMX with EPT, and is known to Bochs since 2.6.10 (`bochs --help cpu` lists them)."""

# Firmware for the PC and for its screen, where Debian's packages put them: Bochs's own first, then SeaBIOS, which QEMU brings along.
_BIOS = ("/usr/share/bochs/BIOS-bochs-latest", "/usr/share/seabios/bios.bin")
_VGA_BIOS = ("/usr/share/bochs/VGABIOS-lgpl-latest", "/usr/share/vgabios/vgabios.bin", "/usr/share/seabios/vgabios-stdvga.bin")

_SCREEN_KEPT = 1 << 14
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x09\x0b-\x1f]")
_PANIC = re.compile(r">>PANIC<< (.*)")


@dataclass(frozen=True)
class Bochs:
    """The Bochs of this machine."""

    version: str
    has_debugger: bool
    """Whether it was built with its debugger (Debian's is), which then waits for a command before the machine starts."""
    bios: Path
    vga_bios: Path


def find() -> Bochs:
    """The Bochs of this machine. HostError with the command that installs it when it is missing, incomplete or too old."""
    if which(PROGRAM) is None:
        raise HostError("Bochs, which emulates an Intel processor with EPT, is not installed", hint=INSTALL)
    deadline = Deadline(20)
    # It says most of it on standard error, with status 1.
    help_, models = (process.run([PROGRAM, "--help", *topic], deadline=deadline, check=False) for topic in ((), ("cpu",)))
    printed = (help_.stdout + help_.stderr).decode(errors="replace")
    version = re.search(r"Bochs x86 Emulator (\S+)", printed)
    if CPU_MODEL not in (models.stdout + models.stderr).decode(errors="replace"):
        raise HostError(
            f"this Bochs ({version.group(1) if version else 'of unknown version'}) has no processor {CPU_MODEL} to emulate",
            hint="Debian 12 and later have a newer Bochs",
        )
    return Bochs(
        version=version.group(1) if version else "",
        has_debugger="-rc filename" in printed,
        bios=_first(_BIOS, "a BIOS for Bochs"),
        vga_bios=_first(_VGA_BIOS, "a VGA BIOS for Bochs"),
    )


def _first(candidates: tuple[str, ...], what: str) -> Path:
    for name in candidates:
        if Path(name).is_file():
            return Path(name)
    raise HostError(f"{what} is not installed", hint=INSTALL)


@dataclass(frozen=True)
class EmulatedPc:
    """A machine with an Intel processor: what emulates it, and how much of one it is."""

    bochs: Bochs
    appliance: Appliance
    memory_mib: int

    @property
    def in_words(self) -> str:
        """How it runs guests of its own."""
        return f"Intel VMX with EPT: hardware walk emulated by Bochs {self.bochs.version}"

    def run(self, job: Job, setting: Setting) -> tuple[Said, list[str]]:
        """Boot it to this job and wait until that has ended; returns what it said, and Bochs's command. Bochs never outlives this call.

        Raises what `vmlab.guest.intel.console.wait` does, and GuestError when the job could not be run.
        """
        with tempfile.TemporaryDirectory(dir=setting.work.path, prefix="bochs-") as scratch:
            directory = Path(scratch)
            disk = self.appliance.disk(job, directory, setting.deadline)
            (directory / "bochsrc").write_text(config(self.bochs, self.memory_mib, disk, setting.console_log))
            return read(_emulate(self.bochs, directory, setting)), argv(self.bochs, directory)


def argv(bochs: Bochs, directory: Path) -> list[str]:
    """The command that boots what the files of this directory describe."""
    # A debugger waits for a command before the machine starts.
    debugger = ["-rc", str(directory / "commands")] if bochs.has_debugger else []
    return [PROGRAM, "-q", *debugger, "-f", str(directory / "bochsrc")]


def config(bochs: Bochs, memory_mib: int, disk: Path, console_log: Path) -> str:
    """The text of bochsrc (bochsrc(5)): one Intel processor, the disk, a serial port into a file, no network."""
    directory = disk.parent
    return "\n".join(
        (
            "config_interface: textconfig",
            # A screen on a terminal, which we read and throw away. (The `rfb` screen would open a port to the network.)
            "display_library: term",
            "plugin_ctrl: unmapped=1, biosdev=1, speaker=0, extfpuirq=1, parallel=0, serial=1, iodebug=0",
            f"memory: guest={memory_mib}, host={memory_mib}",
            f"romimage: file={_word(bochs.bios)}",
            f"vgaromimage: file={_word(bochs.vga_bios)}",
            # Linux reads registers of performance counters that the model does not have. `ips` makes the machine's own clock: so many
            # instructions are a second to it.
            f"cpu: model={CPU_MODEL}, count=1, ips=50000000, reset_on_triple_fault=0, ignore_bad_msrs=1",
            "clock: sync=none, time0=utc",
            "pci: enabled=1, chipset=i440fx",
            "vga: extension=vbe, update_freq=1",
            "ata0: enabled=1, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14",
            f"ata0-master: type=disk, mode=flat, path={_word(disk)}, cylinders=0",
            "boot: disk",
            f"com1: enabled=1, mode=file, dev={_word(console_log)}",
            f"log: {_word(directory / 'bochs.log')}",
            "panic: action=fatal",
            "error: action=ignore",
            "info: action=ignore",
            "debug: action=ignore",
            "",
        )
    )


def _emulate(bochs: Bochs, directory: Path, setting: Setting) -> str:
    """Run it until it has said everything; returns that."""
    setting.console_log.unlink(missing_ok=True)
    (directory / "commands").write_text("continue\n")
    with _screen() as (screen, shown):
        child = process.spawn(
            argv(bochs, directory),
            stdin=screen,
            stdout=screen,
            stderr=screen,
            cwd=directory,
            env={"TERM": "vt100"},
            pass_fds=[setting.work.guests_fd],
        )
        try:
            return wait(child, setting, said=lambda: _words(directory / "bochs.log", shown()))
        finally:
            process.stop(child, grace_s=0)


@contextlib.contextmanager
def _screen() -> Iterator[tuple[int, Callable[[], str]]]:
    """A terminal for a program that wants one: its descriptor, and a function that gives the last that was written to it."""
    ours, theirs = pty.openpty()
    kept = bytearray()

    def drain() -> None:
        # Reading fails with EIO once nobody has the other end any more (pty(7)).
        with contextlib.suppress(OSError):
            while data := os.read(ours, 1 << 16):
                kept.extend(data)
                del kept[:-_SCREEN_KEPT]

    reader = threading.Thread(target=drain, name="vmlab-bochs-screen", daemon=True)
    reader.start()
    try:
        yield theirs, lambda: bytes(kept).decode(errors="replace")
    finally:
        os.close(theirs)
        reader.join(5)
        os.close(ours)


def _words(log: Path, screen: str) -> str:
    """Why Bochs ended, in its own words: the panic in its log, else what it printed last."""
    with contextlib.suppress(OSError):
        panics = _PANIC.findall(log.read_text(errors="replace"))
        if panics:
            return str(panics[-1]).strip()
    lines = [line.strip() for line in _CONTROL.sub(" ", screen).splitlines()]
    return "\n".join(line for line in lines if line.strip("= "))


def _word(path: Path) -> str:
    """A path as bochsrc takes it. HostError for one that cannot be written there: in quotes neither quotes nor variables are escaped."""
    if re.search(r'["$\n]', str(path)):
        raise HostError(
            f"Bochs cannot be given the path {path}", hint="set VMLAB_CACHE to a directory without quotes and dollar signs in its name"
        )
    return f'"{path}"'
