#!/usr/bin/env python3
"""Waits in a guest that is about to be saved, and gives each clone of it an identity of its own before anybody else may use it.

Started by the runner (runner/guest/standby.py has the other side). Two virtio-serial ports are used:

- on one, this program says that it waits; it is then sent one JSON line with random bytes, a host name and a machine id, sets the random
  generator, the clock and the names, and says what it did; that happens once before the guest is saved and once in the clone;
- on the other, an ``sshd -i`` of its own waits for the runner: its programs are loaded and linked before the guest is saved, which under
  emulation is half of what a login costs.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

# From include/uapi/linux/random.h: add bytes and credit them; use what was added at once. Between them they make the kernel forget
# the generator's state that all clones of a template share. (The second has been there since Linux 4.17.)
RNDADDENTROPY = 0x40085203
RNDRESEEDCRNG = 0x5207

SSHD = "/usr/sbin/sshd"  # It re-executes itself, and so insists on being called by its whole path.

# Asking the time again is only worth it while the answer takes long: half of that is what the clock may be wrong by.
GOOD_ROUND_TRIP_NS = 20_000_000
MOST_QUESTIONS = 10

PORTS_LIMIT_S = 10.0


class Port:
    """A virtio-serial port, spoken to in JSON lines."""

    def __init__(self, name: str) -> None:
        self.fd = os.open(device(name), os.O_RDWR | os.O_CLOEXEC)
        self._pending = b""

    def say(self, message: dict[str, Any]) -> None:
        """Send one line."""
        os.write(self.fd, json.dumps(message).encode() + b"\n")

    def hear(self) -> dict[str, Any]:
        """Wait for one line."""
        while b"\n" not in self._pending:
            data = os.read(self.fd, 4096)
            if not data:
                raise SystemExit("the host's end of the port is closed")
            self._pending += data
        line, _, self._pending = self._pending.partition(b"\n")
        message = json.loads(line)
        if not isinstance(message, dict):
            raise SystemExit(f"not an object: {line[:80]!r}")
        return message


def main() -> None:
    """Detach, start sshd, wait, be born again."""
    identity_port, ssh_port = sys.argv[1:3]
    port = Port(identity_port)
    detach()
    serve_ssh(device(ssh_port))
    # Twice: first as a rehearsal before the guest is saved, so that in a clone nothing has to be imported, compiled or read from the disk.
    for scene in ("waiting", "rehearsed"):
        port.say({scene: True})
        be_somebody(port)


def be_somebody(port: Port) -> None:
    """Hear who this guest is, and be it. The runner logs in as soon as the clock is right, and uses nothing before the end."""
    told = port.hear()
    renew_random(bytes.fromhex(told["random"]))
    port.say({"renewed": True})
    port.say({"clock": set_clock(port)})
    rename(socket.gethostname(), told["hostname"])
    write_machine_id(told["machine_id"])
    port.say({"done": True})


def device(name: str) -> str:
    """The device of a port. (The names in /dev/virtio-ports are udev's, which not every system runs.)"""
    ports = Path("/sys/class/virtio-ports")
    if not ports.is_dir():
        # Some kernels have the driver as a module, and not every system loads it by itself.
        subprocess.run(["modprobe", "virtio_console"], check=True)
    # The driver asks the host for each port's name, and the answers come after the ports.
    end = time.monotonic() + PORTS_LIMIT_S
    while time.monotonic() < end:
        for entry in ports.iterdir():
            with contextlib.suppress(FileNotFoundError):
                if (entry / "name").read_text().strip() == name:
                    return f"/dev/{entry.name}"
        time.sleep(0.05)
    raise SystemExit(f"there is no virtio-serial port {name}")


def detach() -> None:
    """Leave the session that started this: it ends before the guest is saved."""
    if os.fork():
        os._exit(0)
    os.setsid()
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)


def serve_ssh(path: str) -> None:
    """Start an sshd for the one connection that comes over the port."""
    # sshd hands its configuration to the program that it becomes through a child that it never waits for. Children of a process that
    # ignores SIGCHLD leave no zombie.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    if os.fork() == 0:
        os.setsid()
        line = os.open(path, os.O_RDWR)
        os.dup2(line, 0)
        os.dup2(line, 1)
        # The time to log in would begin now, and a clone may be made next month.
        os.execv(SSHD, [SSHD, "-i", "-o", "LoginGraceTime=0"])  # noqa: S606  (no shell is wanted)


def renew_random(seed: bytes) -> None:
    """Make the kernel's random numbers other ones than in the template's other clones."""
    with open("/dev/urandom", "wb") as urandom:  # noqa: PTH123  (a device, to be controlled)
        fcntl.ioctl(urandom, RNDADDENTROPY, struct.pack("ii", 8 * len(seed), len(seed)) + seed)
        fcntl.ioctl(urandom, RNDRESEEDCRNG)


def set_clock(port: Port) -> dict[str, Any]:
    """Set the clock by the host's: the answer that came quickest is the most exact one (Cristian's algorithm)."""
    best_trip, best_offset, questions = 1 << 62, 0, 0
    while questions < MOST_QUESTIONS and best_trip > GOOD_ROUND_TRIP_NS:
        asked = time.monotonic_ns()
        port.say({"time": questions})
        host = int(port.hear()["time_ns"])
        trip = time.monotonic_ns() - asked
        questions += 1
        if trip < best_trip:
            best_trip, best_offset = trip, host - (asked + trip // 2)
    before = time.time_ns()
    now = time.monotonic_ns() + best_offset
    time.clock_settime_ns(time.CLOCK_REALTIME, now)
    return {"set_by_s": (now - before) / 1e9, "error_s": best_trip / 2e9, "questions": questions}


def rename(old: str, new: str) -> None:
    """Be called ``new`` wherever this system was called ``old``."""
    socket.sethostname(new)
    whole_word = re.compile(rf"(?<![\w.-]){re.escape(old)}(?![\w.-])")
    for path in (Path("/etc/hostname"), Path("/etc/hosts")):
        with contextlib.suppress(FileNotFoundError):
            path.write_text(whole_word.sub(new, path.read_text()))


def write_machine_id(machine_id: str) -> None:
    """Both files of machine-id(5); the second is a link to the first on most systems."""
    for path in (Path("/etc/machine-id"), Path("/var/lib/dbus/machine-id")):
        if path.exists() and not path.is_symlink():
            path.write_text(machine_id + "\n")


if __name__ == "__main__":
    main()
