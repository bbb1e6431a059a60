"""Bochs: an emulator of an Intel PC, VMX and EPT included, which QEMU cannot emulate. It interprets: slow, and true to the manuals.

Used for one thing, to run an appliance (runner/vmlab/guest/intel/appliance.py) on an emulated Intel processor. https://bochs.sourceforge.io
"""

from __future__ import annotations

import contextlib
import os
import pty
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from vmlab import process
from vmlab.deadline import Deadline
from vmlab.errors import HostError
from vmlab.guest.intel.console import wait
from vmlab.guest.setting import Setting
from vmlab.packages import which

PROGRAM = "bochs"
INSTALL = "sudo apt-get install bochs bochs-term bochsbios"

CPU_MODEL = "corei7_skylake_x"
"""Has VMX with EPT, and is known to Bochs since 2.6.10 (`bochs --help cpu` lists them)."""
MEMORY_MIB = 512

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


def config(bochs: Bochs, disk: Path, directory: Path, console_log: Path) -> str:
    """The text of bochsrc (bochsrc(5)): one Intel processor, the disk, a serial port into a file, no network."""
    return "\n".join(
        (
            "config_interface: textconfig",
            # A screen on a terminal, which we read and throw away. (The `rfb` screen would open a port to the network.)
            "display_library: term",
            "plugin_ctrl: unmapped=1, biosdev=1, speaker=0, extfpuirq=1, parallel=0, serial=1, iodebug=0",
            f"memory: guest={MEMORY_MIB}, host={MEMORY_MIB}",
            f"romimage: file={_word(bochs.bios)}",
            f"vgaromimage: file={_word(bochs.vga_bios)}",
            # Linux reads registers of performance counters that the model does not have. `ips` makes the machine's own clock: so many
            # instructions are a second to it.
            f"cpu: model={CPU_MODEL}, count=1, ips=50000000, reset_on_triple_fault=0, ignore_bad_msrs=1",
            "clock: sync=none, time0=utc",
            "pci: enabled=1, chipset=i440fx",
            "vga: extension=vbe, update_freq=1",
            "ata0: enabled=1, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14",
            # The disk itself is only read: what is written goes into a file beside, and away.
            f"ata0-master: type=disk, mode=volatile, path={_word(disk)}, journal={_word(directory / 'disk.redolog')}, cylinders=0",
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


def run(bochs: Bochs, disk: Path, setting: Setting) -> str:
    """Boot an appliance's disk and wait until it has said everything; returns that. Bochs never outlives this call.

    Raises GuestExited, GuestPanicked or BootTimeout (see `appliance_console.wait`).
    """
    directory, console_log = setting.work.path / "bochs", setting.console_log
    directory.mkdir(mode=0o700, exist_ok=True)
    console_log.unlink(missing_ok=True)
    (directory / "bochsrc").write_text(config(bochs, disk, directory, console_log))
    (directory / "commands").write_text("continue\n")
    debugger = ["-rc", str(directory / "commands")] if bochs.has_debugger else []
    with _screen() as (screen, shown):
        child = process.spawn(
            [PROGRAM, "-q", *debugger, "-f", str(directory / "bochsrc")],
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
