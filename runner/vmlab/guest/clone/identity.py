"""The host's side of runner/vmlab/guest/inside/standby.py: what is left waiting in a guest before it is saved, and what a clone is told.

A clone is a copy: of its random generator, its clock, its names, its keys. All but the keys are made its own through a serial port before
anything else happens in it. The same exchange shows that the clone lives.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vmlab.deadline import Deadline
from vmlab.errors import TemplateError
from vmlab.guest import qemu
from vmlab.guest.seed import new_hostname
from vmlab.guest.ssh import Connection
from vmlab.guest.watchdog import receive

INSIDE = Path(__file__).parents[1] / "inside" / "standby.py"
_GUEST_PATH = "/run/vmlab/standby.py"
_LINE_LIMIT_BYTES = 4096

# Long enough for sixteen clones that are started at once on two cores; a clone that hangs is found out after this.
ANSWER_LIMIT_S = 30.0


class Newborn:
    """A guest in which the program waits, while it becomes the one of this name: `quicken`, then (when it may be logged in to) `settle`.

    Its clock was set ahead by ``clock_set_by_s`` and is wrong by ``clock_error_s`` at most. What answers wrongly, too late or not at all
    raises TemplateError.
    """

    def __init__(self, sock: socket.socket, hostname: str, deadline: Deadline, now_ns: Callable[[], int] = time.time_ns) -> None:
        self.hostname = hostname
        self.machine_id = secrets.token_hex(16)
        self.clock_set_by_s = 0.0
        self.clock_error_s = 0.0
        self._line = _Line(sock, deadline.within(ANSWER_LIMIT_S))
        self._now_ns = now_ns

    def quicken(self) -> None:
        """Give it random numbers of its own and the host's time. That it answers shows that it lives."""
        self._line.say({"random": secrets.token_hex(64), "hostname": self.hostname, "machine_id": self.machine_id})
        self.expect("renewed")
        clock = self.expect("clock")["clock"]
        try:
            self.clock_set_by_s, self.clock_error_s = float(clock["set_by_s"]), float(clock["error_s"])
        except (KeyError, TypeError, ValueError) as exc:
            raise TemplateError(f"the clone said what it should not: {str(clock)[:200]}") from exc

    def settle(self) -> None:
        """Wait until it bears its own names."""
        self.expect("done")

    def expect(self, what: str, *, noisy: bool = False) -> dict[str, Any]:
        """Hear the message that has this member, answering questions for the time on the way. ``noisy``: others may have spoken before."""
        answer = self._line.hear(noisy=noisy)
        while "time" in answer:
            self._line.say({"time_ns": self._now_ns()})
            answer = self._line.hear()
        if what not in answer:
            raise TemplateError(f"the guest said {str(answer)[:200]} where {what!r} was to come")
        return answer


def arm(connection: Connection, identity: socket.socket, deadline: Deadline) -> None:
    """Leave the program waiting in the guest. TemplateError when that cannot be: no Python, no such port."""
    connection.execute("mkdir -p /run/vmlab", deadline=deadline)
    connection.put(INSIDE, _GUEST_PATH, deadline=deadline)
    _empty(identity, deadline)
    command = f"python3 {_GUEST_PATH} {qemu.IDENTITY_DEVICE} && rm {_GUEST_PATH}"
    started = connection.execute(command, deadline=deadline)
    if started.status != 0:
        last = (started.stderr.strip().splitlines() or [f"exit status {started.status}"])[-1]
        raise TemplateError(f"the guest cannot be prepared for cloning: {last[:300]}", detail=started.stderr)
    rehearsal = Newborn(identity, new_hostname("template"), deadline)
    rehearsal.expect("waiting", noisy=True)
    rehearsal.quicken()
    rehearsal.settle()
    rehearsal.expect("rehearsed")


def _empty(sock: socket.socket, deadline: Deadline) -> None:
    """Throw away what came over the port before anybody spoke to us there: UEFI firmware writes its messages to every serial port."""
    sock.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while sock.recv(1 << 16):
            if deadline.expired():
                raise TemplateError("the guest's port is never quiet")


class _Reader:
    """Reads from a socket up to a deadline, and remembers all of it."""

    def __init__(self, sock: socket.socket, deadline: Deadline) -> None:
        self._sock = sock
        self._deadline = deadline
        self._position = 0
        self.all = bytearray()

    def exactly(self, size: int) -> bytes:
        """The next ``size`` bytes."""
        if size > 1 << 18:
            raise TemplateError("the guest's sshd begins with a packet that is too long")
        while len(self.all) < self._position + size:
            self._more()
        self._position += size
        return bytes(self.all[self._position - size : self._position])

    def until(self, end: bytes) -> bytes:
        """The next bytes up to and with ``end``."""
        while (found := self.all.find(end, self._position)) < 0:
            if len(self.all) - self._position > _LINE_LIMIT_BYTES:
                raise TemplateError("the guest printed a line without an end")
            self._more()
        return self.exactly(found + len(end) - self._position)

    def _more(self) -> None:
        try:
            data = receive(self._sock, 1 << 16, self._deadline)
        except TimeoutError as exc:
            raise TemplateError(f"the guest did not answer within {self._deadline.budget_s:.0f} s") from exc
        except OSError as exc:
            raise TemplateError(f"the guest's port was lost: {exc.strerror}") from exc
        if not data:
            raise TemplateError("the guest's port was closed")
        self.all += data


class _Line:
    """JSON lines over a socket, up to a deadline."""

    def __init__(self, sock: socket.socket, deadline: Deadline) -> None:
        self._sock = sock
        self._deadline = deadline
        self._reader = _Reader(sock, deadline)

    def say(self, message: dict[str, Any]) -> None:
        _send(self._sock, json.dumps(message).encode() + b"\n", self._deadline)

    def hear(self, *, noisy: bool = False) -> dict[str, Any]:
        line = self._reader.until(b"\n")
        if noisy:
            # The last bytes of firmware's messages may have stayed in the port until it was opened.
            line = line[max(0, line.find(b"{")) :]
        try:
            message = json.loads(line)
        except ValueError:
            message = None
        if not isinstance(message, dict):
            raise TemplateError(f"the guest said what is not a JSON object: {line[:80]!r}")
        return message


def _send(sock: socket.socket, data: bytes, deadline: Deadline) -> None:
    sock.settimeout(max(0.01, min(deadline.left_s(), 1e6)))
    try:
        sock.sendall(data)
    except OSError as exc:
        raise TemplateError(f"the guest's port takes nothing: {exc}") from exc
