#!/usr/bin/env python3
"""Runs a guest of its own under KVM and reads the kernel's counters around each loop of loops.py in it; prints one JSON object.

Which loops is read from standard input: a JSON list of what loops.py is asked. The guest is this system's own kernel with an initramfs
that is made here from this system's own files (busybox, Python, loops.py and what that imports), so that nothing needs to be handed in.
The counters are those of KVM_GET_STATS_FD (Documentation/virt/kvm/api.rst, section 4.133), which QEMU's ``query-stats`` reads from
version 7.1 on.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vmlab_guest.say import say
from vmlab_guest.syscalls import PR_SET_THP_DISABLE, prctl

HERE = Path(__file__).resolve().parent
BUSYBOX = Path("/bin/busybox")
MEMORY_MIB = 256
BOOT_LIMIT_S = 120.0
LOOP_LIMIT_S = 400.0

# The console of the guest goes to a file, what is said goes over the second port.
INIT = """#!/bin/busybox sh
/bin/busybox mount -t devtmpfs devtmpfs /dev
/bin/busybox mount -t proc proc /proc
/bin/busybox stty -F /dev/ttyS1 raw -echo
exec {python} -E -s -S /lab/loops.py </dev/ttyS1 >/dev/ttyS1
"""


def main() -> None:
    """Make the initramfs, boot, run the loops."""
    # QEMU inherits it, and its guest's memory is then backed page by page: with huge pages one fault would serve for 512.
    prctl(PR_SET_THP_DISABLE, 1)
    asked = json.load(sys.stdin)
    with tempfile.TemporaryDirectory(prefix="nested-") as scratch:
        began = time.monotonic()
        initramfs = make_initramfs(Path(scratch))
        made = time.monotonic()
        with running(Path(scratch), initramfs) as guest:
            guest.hear(BOOT_LIMIT_S)
            booted = time.monotonic()
            loops = {str(each["loop"]): guest.measure(each) for each in asked}
            version = guest.command("query-version")["qemu"]
    say(
        kernel=os.uname().release,
        qemu="{major}.{minor}.{micro}".format(**version),
        initramfs_s=round(made - began, 3),
        boot_s=round(booted - made, 3),
        loops=loops,
    )


# --- the guest's initramfs --------------------------------------------------------------------------------------------------------


def make_initramfs(scratch: Path) -> Path:
    """A cpio archive with busybox, this Python and what loops.py imports."""
    tree, archive = scratch / "tree", scratch / "initramfs"
    python = Path(sys.executable).resolve()
    for each in [BUSYBOX, python, *files_of_python(python)]:
        copy(each, tree)
    for each in [HERE / "loops.py", *(HERE / "vmlab_guest").rglob("*.py*")]:
        copy(each, tree, to=Path("lab", each.relative_to(HERE)))
    for name in ("dev", "proc"):
        (tree / name).mkdir()
    init = tree / "init"
    init.write_text(INIT.format(python=python))
    init.chmod(0o755)
    names = "\n".join(str(path.relative_to(tree)) for path in sorted(tree.rglob("*")))
    with archive.open("wb") as out:
        subprocess.run(
            [BUSYBOX, "cpio", "-o", "-H", "newc"], input=names.encode(), stdout=out, stderr=subprocess.DEVNULL, cwd=tree, check=True
        )
    return archive


def files_of_python(python: Path) -> set[Path]:
    """Every file that a Python needs to run loops.py: asked of one that has imported it, and of ldd, so that no list grows old."""
    ask = (
        "import sys; sys.path.insert(0, '.'); import loops, json\n"  # (json: for whoever reads a line, and not before.)
        "for module in list(sys.modules.values()):\n"
        "    print(getattr(module, '__file__', None) or '', getattr(module, '__cached__', None) or '', sep='\\n')\n"
    )
    modules = subprocess.run([python, "-I", "-S", "-c", ask], cwd=HERE, capture_output=True, text=True, check=True).stdout.split()
    programs = [str(python), *(name for name in modules if name.endswith(".so"))]
    linked = subprocess.run(["ldd", *programs], capture_output=True, text=True, check=True).stdout
    libraries = re.findall(r"(/\S+) \(0x", linked)
    landmark = os.__file__  # By which Python finds where its library is.
    found = {Path(name) for name in (landmark, *modules, *libraries)}
    return {path for path in found if path.exists() and HERE not in path.parents}


def copy(path: Path, tree: Path, to: Path | None = None) -> None:
    """A file to the same place below ``tree``, or ``to`` another, with its date: by it Python knows if its compiled form is old."""
    target = tree / (to or path.relative_to("/"))
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(path, target)


# --- the guest -------------------------------------------------------------------------------------------------------------------


class Guest:
    """A running guest: loops.py at the other end of a serial port, and QEMU's monitor."""

    def __init__(self, child: subprocess.Popen[bytes], serial: socket.socket, monitor: socket.socket, logs: list[Path]) -> None:
        self._child = child
        self._serial, self._lines = serial, serial.makefile("rb")
        self._monitor, self._replies = monitor, monitor.makefile("rb")
        self._logs = logs
        monitor.settimeout(30)
        self._replies.readline()  # The greeting.
        self.command("qmp_capabilities")

    def command(self, name: str, **arguments: object) -> Any:
        """What QEMU's monitor returns; passes over the events that come before the answer."""
        self._monitor.sendall(json.dumps({"execute": name, "arguments": arguments}).encode() + b"\n")
        while line := self._replies.readline():
            reply = json.loads(line)
            if "error" in reply:
                raise SystemExit(f"QEMU refused {name}: {reply['error']['desc']}")
            if "return" in reply:
                return reply["return"]
        raise self._lost("QEMU's monitor closed")

    def statistics(self) -> dict[str, int]:
        """Every counter that KVM keeps for this guest; those of its one CPU and those of the whole have different names."""
        counters: dict[str, int] = {}
        for target in ("vm", "vcpu"):
            for provider in self.command("query-stats", target=target):
                counters |= {each["name"]: int(each["value"]) for each in provider["stats"] if isinstance(each["value"], (int, bool))}
        if not counters:
            raise SystemExit("QEMU gives no counters: it is too old, or this is not KVM")
        return counters

    def measure(self, asked: dict[str, object]) -> dict[str, object]:
        """One loop's result, with the counters before and after it."""
        self.say(asked)
        self.hear(LOOP_LIMIT_S)
        before = self.statistics()
        self.say({"go": True})
        result = self.hear(LOOP_LIMIT_S)
        return {**result, "before": before, "after": self.statistics()}

    def say(self, message: dict[str, object]) -> None:
        """One line to loops.py."""
        self._serial.sendall(json.dumps(message).encode() + b"\n")

    def hear(self, limit_s: float) -> dict[str, Any]:
        """One line from loops.py."""
        self._serial.settimeout(limit_s)
        try:
            line = self._lines.readline()
        except TimeoutError:
            raise self._lost(f"the guest said nothing for {limit_s:.0f} s") from None
        if not line:
            raise self._lost("the guest ended")
        heard: dict[str, Any] = json.loads(line)
        return heard

    def _lost(self, what: str) -> SystemExit:
        self._child.kill()
        self._child.wait()
        return SystemExit("\n".join([what, *(log.read_text(errors="replace")[-2000:] for log in self._logs)]))


@contextmanager
def running(scratch: Path, initramfs: Path) -> Iterator[Guest]:
    """A guest under KVM with one CPU, ended when the block is left."""
    console, said = scratch / "console.log", scratch / "qemu.log"
    serial, monitor = socket.socketpair(), socket.socketpair()
    command = [
        "qemu-system-x86_64",
        *("-no-user-config", "-nodefaults", "-display", "none", "-no-reboot"),
        *("-accel", "kvm", "-cpu", "host", "-smp", "1", "-m", f"{MEMORY_MIB}M"),
        *("-kernel", f"/boot/vmlinuz-{os.uname().release}", "-initrd", str(initramfs)),
        *("-append", "console=ttyS0 quiet panic=-1 tsc=reliable mitigations=off transparent_hugepage=never"),
        *("-serial", f"file:{console}"),
        *("-chardev", f"socket,id=talk,fd={serial[1].fileno()}", "-serial", "chardev:talk"),
        *("-chardev", f"socket,id=monitor,fd={monitor[1].fileno()}", "-mon", "chardev=monitor,mode=control"),
    ]
    with said.open("wb") as out:
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, pass_fds=[serial[1].fileno(), monitor[1].fileno()]
        )
    for pair in (serial, monitor):
        pair[1].close()
    console.touch()
    try:
        yield Guest(child, serial[0], monitor[0], [said, console])
    finally:
        child.kill()
        child.wait()


if __name__ == "__main__":
    main()
