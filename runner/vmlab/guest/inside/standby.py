#!/usr/bin/env python3
"""Waits in a guest that is about to be saved, and gives each clone of it an identity of its own before anybody else may use it.

Started by the runner (runner/vmlab/guest/clone/identity.py has the other side), which it talks to over a serial port. It says that it
waits; it is then sent one JSON line with random bytes, a host name and a machine id, sets the random generator, the clock and the names,
and says what it did. That happens once before the guest is saved and once in the clone; then it ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import socket
import struct
import sys
import time
import tty
from pathlib import Path
from typing import Any

# From include/uapi/linux/random.h: add bytes and credit them; use what was added at once. Between them they make the kernel forget
# the generator's state that all clones of a template share. (The second has been there since Linux 4.17.)
RNDADDENTROPY = 0x40085203
RNDRESEEDCRNG = 0x5207

# Asking the time again is only worth it while the answer takes long: half of that is what the clock may be wrong by.
GOOD_ROUND_TRIP_NS = 20_000_000
# On a crowded host no answer may be that quick; then this will do, or what there was when the patience is over.
FAIR_ROUND_TRIP_NS = 80_000_000
FAIR_AFTER_QUESTIONS = 20
PATIENCE_NS = 8_000_000_000
# How far the clock may be from what it was set to.
LATE_NS = 5_000_000


class Port:
    """A serial port, spoken to in JSON lines."""

    def __init__(self, device: str) -> None:
        self.fd = os.open(device, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
        # Nothing is to be echoed, translated or taken for a key that interrupts.
        tty.setraw(self.fd)
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
    """Detach, wait, be born again."""
    port = Port(sys.argv[1])
    detach()
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


def detach() -> None:
    """Leave the session that started this: it ends before the guest is saved."""
    if os.fork():
        os._exit(0)
    os.setsid()
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)


def renew_random(seed: bytes) -> None:
    """Make the kernel's random numbers other ones than in the template's other clones."""
    with open("/dev/urandom", "wb") as urandom:  # noqa: PTH123  (a device, to be controlled)
        fcntl.ioctl(urandom, RNDADDENTROPY, struct.pack("ii", 8 * len(seed), len(seed)) + seed)
        fcntl.ioctl(urandom, RNDRESEEDCRNG)


def set_clock(port: Port) -> dict[str, Any]:
    """Set the clock by the host's: the answer that came quickest is the most exact one (Cristian's algorithm)."""
    best_trip, best_offset, questions = 1 << 62, 0, 0
    end = time.monotonic_ns() + PATIENCE_NS
    while best_trip > (GOOD_ROUND_TRIP_NS if questions < FAIR_AFTER_QUESTIONS else FAIR_ROUND_TRIP_NS) and time.monotonic_ns() < end:
        asked = time.monotonic_ns()
        port.say({"time": questions})
        host = int(port.hear()["time_ns"])
        trip = time.monotonic_ns() - asked
        questions += 1
        if trip < best_trip:
            best_trip, best_offset = trip, host - (asked + trip // 2)
    set_by_ns = best_offset - (time.time_ns() - time.monotonic_ns())
    late = 1 << 62
    while abs(late) > LATE_NS and time.monotonic_ns() < end:
        time.clock_settime_ns(time.CLOCK_REALTIME, time.monotonic_ns() + best_offset)
        # Between the two calls this processor may have stood still (the host had others to run): then the clock is late.
        late = best_offset - (time.time_ns() - time.monotonic_ns())
    return {"set_by_s": set_by_ns / 1e9, "error_s": (best_trip / 2 + abs(late)) / 1e9, "questions": questions}


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
