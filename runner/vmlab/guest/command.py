"""One command that runs in a guest, over a channel of its own."""

from __future__ import annotations

import contextlib
import select
import time
from dataclasses import dataclass
from typing import Protocol

import paramiko

from vmlab.deadline import Deadline
from vmlab.errors import ScriptError, SshError
from vmlab.guest.watchdog import nothing, watched

_STDERR_LIMIT_BYTES = 64 << 10

# So much is taken over in one go, before the deadline is looked at again: what prints without end must not keep us busy with reading.
_DRAIN_BYTES = 4 << 20

_SETTLE_S = 0.3

# How long an error waits for the end of its command: as a rule, that is all it takes.
_MOMENT_S = 0.25
# How long leaving a script waits for its end, on a crowded machine too; what comes next in this guest waits for the rest.
_LEAVING_S = 5.0

_NO_TIME_HINT = "give it more time (time_limit_s), or find out what it waits for: its last words are below, if it said any"


@dataclass(frozen=True)
class CommandResult:
    """What a command in the guest left."""

    command: str
    status: int
    stdout: str
    stderr: str
    duration_s: float


class Owner(Protocol):
    """The connection that a command runs over."""

    def alive(self) -> bool:
        """Whether it still carries anything."""

    def cut(self) -> None:
        """End every wait on it, and itself."""

    def give_up(self, command: Command, wait_s: float) -> None:
        """End a command in the guest with all that it started, waiting for that as long as told."""


class Command:
    """A command that runs in a guest. A context manager: what is left before it is over is ended in the guest, with all that it started.

    ``out`` and ``err`` hold what has arrived of its standard output and (the last of) its standard error.
    """

    def __init__(self, owner: Owner, channel: paramiko.Channel, line: str, *, mark: str, deadline: Deadline) -> None:
        self.line = short(line)
        self.mark = mark
        self.out = bytearray()
        self.err = bytearray()
        self._owner = owner
        self._channel = channel
        self._deadline = deadline

    def __enter__(self) -> Command:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        connected = self._owner.alive()
        if connected and (self.is_over() or (kind is None and self.has_exited())):
            self.close()
            return
        if not connected or (kind is not None and not issubclass(kind, Exception)):
            # Nobody wants to wait who was interrupted, nor for a guest that is to be reached anew.
            self._owner.give_up(self, 0)
        else:
            # An error comes at its time; a script that is left in peace may take its time to end.
            self._owner.give_up(self, max(_MOMENT_S, min(_LEAVING_S, self._deadline.left_s()) if kind is None else 0))

    def is_over(self) -> bool:
        """Whether it has ended and all that it printed has arrived."""
        return bool(self._channel.closed or (self._channel.eof_received and self.has_exited()))

    def has_exited(self, wait_s: float = 0.0) -> bool:
        """Whether it has told its exit status, or does so within this time."""
        return bool(self._channel.status_event.wait(wait_s))

    def is_readable(self) -> bool:
        """Whether anything has arrived that `drain` would take."""
        return bool(self._channel.recv_ready() or self._channel.recv_stderr_ready())

    def has_no_more(self) -> bool:
        """Whether its output has come to its end."""
        return bool(self._channel.eof_received or self._channel.closed) and not self.is_readable()

    def drain(self) -> None:
        """Take over what has arrived; standard error is kept up to a limit and the rest dropped."""
        end = len(self.out) + _DRAIN_BYTES
        while self._channel.recv_ready() and len(self.out) < end:
            self.out += self._channel.recv(1 << 16)
        dropped = 0
        while self._channel.recv_stderr_ready() and dropped < _DRAIN_BYTES:
            self.err += self._channel.recv_stderr(1 << 16)
            dropped += max(0, len(self.err) - _STDERR_LIMIT_BYTES)
            del self.err[: max(0, len(self.err) - _STDERR_LIMIT_BYTES)]

    def wait(self, seconds: float, deadline: Deadline) -> None:
        """Wait until there is anything to read, or ``seconds`` are over."""
        patience_s = min(seconds, deadline.left_s())
        if self._channel.eof_received and not self.is_readable():
            # The descriptor stays ready for ever after the end of output; what is still to come is the exit status.
            self.has_exited(patience_s)
            return
        # poll and not select: a run with many files open may have descriptors beyond select's 1024.
        poll = select.poll()
        poll.register(self._channel.fileno(), select.POLLIN)
        poll.poll(patience_s * 1000)

    def finish(self, stdin: bytes, output_limit_bytes: int) -> int:
        """Give it its input and take its output until it is over; returns its exit status. Raises what `Connection.execute` raises."""
        to_send = memoryview(stdin)
        with watched(self._deadline, nothing, self._owner.cut):
            if not stdin:
                self._end_input()
            while self.is_readable() or (self._owner.alive() and not self.is_over()):
                self.drain()
                if len(self.out) > output_limit_bytes:
                    raise ScriptError(
                        f"it printed more than {output_limit_bytes} bytes: {self.line}",
                        hint="print less, or allow more with output_limit_bytes",
                        detail=bytes(self.out[:500]).decode(errors="replace"),
                    )
                if self._deadline.expired():
                    raise self.out_of_time("it ran longer than its", self._deadline, bytes(self.err) or bytes(self.out))
                if to_send and self._channel.send_ready():
                    to_send = to_send[self._send(to_send) :]
                    if not to_send:
                        self._end_input()
                self.wait(0.02 if to_send else 0.2, self._deadline)
            return self.status()

    def send(self, data: bytes, deadline: Deadline) -> bool:
        """Write to its standard input; False when it does not read it any more. ScriptError when it takes it too slowly or not at all."""
        to_send = memoryview(data)
        with watched(deadline, nothing, self._owner.cut):
            while to_send and not self._channel.eof_sent and not self.is_over():
                self._channel.settimeout(max(0.001, min(deadline.left_s(), 1e6)))
                # Another byte of room now and then does not start the clock anew.
                with contextlib.suppress(TimeoutError):
                    to_send = to_send[self._send(to_send) :]
                if to_send and deadline.expired():
                    raise self.out_of_time("it did not take its input within", deadline, bytes(self.err))
        return not to_send

    def _send(self, data: memoryview) -> int:
        try:
            return self._channel.send(bytes(data[:32768]))
        except TimeoutError:
            raise
        except (OSError, EOFError) as exc:
            if self._owner.alive():
                # The command closed its standard input: what is left has no reader, as in a shell's pipe.
                return len(data)
            raise self.lost() from exc

    def close_input(self, deadline: Deadline) -> None:
        """Let it see the end of its standard input."""
        with watched(deadline, nothing, self._owner.cut):
            self._end_input()

    def _end_input(self) -> None:
        # It may be gone already, and so may the connection, which whoever reads will see.
        with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
            self._channel.shutdown_write()

    def close(self) -> None:
        """Hear no more of it, and end every wait on its channel."""
        close(self._channel)

    def status(self) -> int:
        """The exit status; -1 when a signal ended it. SshError when the connection was lost."""
        if not self.is_connected():
            raise self.lost()
        return self._channel.exit_status

    def is_connected(self) -> bool:
        """Whether its connection still stands. paramiko closes a channel in the same way for a lost one and for a signal that ended it."""
        if self._channel.closed and self._channel.exit_status < 0:
            # A lost connection closes its channels a moment before it counts as lost.
            end = Deadline(_SETTLE_S)
            while self._owner.alive() and not end.expired():
                time.sleep(0.02)
        return self._owner.alive()

    def lost(self) -> SshError:
        """That the connection was lost while it ran."""
        return SshError(f"the connection to the guest was lost during: {self.line}")

    def out_of_time(self, what: str, deadline: Deadline, last_words: bytes) -> ScriptError:
        """That it did not do something in time; ``what`` is followed by how long that was."""
        return ScriptError(
            f"{what} {deadline.budget_s:.0f} s: {self.line}", hint=_NO_TIME_HINT, detail=last_words[-2000:].decode(errors="replace")
        )


def close(channel: paramiko.Channel) -> None:
    """End every wait on a channel. The connection may be gone too, and then there is nobody to tell."""
    with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
        channel.close()


def short(command: str) -> str:
    """A command as it is shown in messages."""
    return command if len(command) <= 120 else command[:117] + "..."
