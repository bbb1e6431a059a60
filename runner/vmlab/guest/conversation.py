"""A script in a guest that is talked to while it runs, in lines of JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from vmlab.deadline import Deadline
from vmlab.errors import ScriptError, SshError
from vmlab.guest.command import Command, short

_LINE_LIMIT_BYTES = 1 << 20
_NOT_ENDED = "it did not end within"


class Conversation:
    """A running script that speaks JSON lines. A context manager: a script that is left before it has ended is ended in the guest.

    All of it is over at the ``deadline``, whatever limits its parts are given.
    """

    def __init__(self, command: Command, deadline: Deadline, name: str = "") -> None:
        """``name`` is what messages call it instead of by its command: the script's file."""
        command.line = name or command.line
        self._command = command
        self._deadline = deadline
        self._last = b""

    def __enter__(self) -> Conversation:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, trace: object) -> None:
        self._command.__exit__(kind, exc, trace)

    def send(self, message: Mapping[str, Any], time_limit_s: float = 60.0) -> None:
        """Write one JSON line to the script's standard input. ScriptError when it has ended or takes nothing in time."""
        deadline = self._deadline.within(time_limit_s)
        if not self._command.send(json.dumps(message).encode() + b"\n", deadline):
            raise self._ended("it no longer reads its input", "the experiment says more to it (talk.send) than it reads, or it has crashed")

    def read(self, time_limit_s: float = 60.0) -> dict[str, Any]:
        """The next JSON object that the script prints. ScriptError when it ends, says nothing in time, or prints anything else."""
        record = self._next(self._deadline.within(time_limit_s))
        if record is None:
            raise self._ended(
                "it ended where another line was expected",
                "the experiment reads more lines of it than it prints, or it has crashed",
            )
        return record

    def __iter__(self) -> Iterator[dict[str, Any]]:
        while (record := self._next(self._deadline, _NOT_ENDED)) is not None:
            yield record

    def finish(self, time_limit_s: float = 60.0) -> None:
        """Close the script's input and wait for its end. ScriptError when it fails or takes longer."""
        deadline = self._deadline.within(time_limit_s)
        self._command.close_input(deadline)
        while self._next(deadline, _NOT_ENDED) is not None:
            pass
        if not self._command.has_exited(deadline.left_s()):
            raise self._out_of_time(_NOT_ENDED, deadline)
        status = self._command.status()
        if status != 0:
            raise self._ended(f"it failed with exit status {status}", "its standard error is below; any status but 0 means that it broke")

    def _next(self, deadline: Deadline, late: str = "") -> dict[str, Any] | None:
        """The next record, or None at the end of the script's output. ``late`` is what to call it when none came by the deadline."""
        pending = self._command.out
        if self._deadline.expired() or (late and deadline.expired()):
            # (Of one that talks without end, there is always another line.)
            raise self._out_of_time(_NOT_ENDED, deadline if late else self._deadline)
        while b"\n" not in pending:
            if len(pending) > _LINE_LIMIT_BYTES:
                raise self._ended(f"it printed a line longer than {_LINE_LIMIT_BYTES} bytes", "let it print less, or shorter lines")
            if self._command.has_no_more():
                if not self._command.is_connected():
                    raise self._command.lost()
                if pending.strip():
                    raise self._ended("its last line has no end", "it ended in the middle of a line: print whole lines, and flush them")
                return None
            if deadline.expired():
                raise self._out_of_time(late or ("it did not end its line within" if pending else "it printed nothing for"), deadline)
            self._command.wait(0.2, deadline)
            self._command.drain()
        end = pending.index(b"\n")
        self._last = bytes(pending[:end])
        del pending[: end + 1]
        return parse_line(self._last, self._command.line)

    def _out_of_time(self, what: str, deadline: Deadline) -> ScriptError:
        self._command.drain()
        return self._command.out_of_time(what, deadline, self._said())

    def _ended(self, what: str, hint: str) -> ScriptError | SshError:
        if not self._command.is_connected():
            return self._command.lost()
        self._command.drain()
        return ScriptError(f"{what}: {self._command.line}", hint=hint, detail=self._said().decode(errors="replace"))

    def _said(self) -> bytes:
        """The script's last words: the last line that was read of it, what it began after that, and its standard error."""
        lines = [b"its last line: " + self._last[:500]] if self._last else []
        lines += [b"and then, without an end: " + bytes(self._command.out[:500])] if self._command.out.strip() else []
        return b"\n".join([*lines, bytes(self._command.err[-1000:])])


def parse_line(line: bytes, command: str) -> dict[str, Any]:
    """One line of a guest script's output as a JSON object; ScriptError that shows the line when it is anything else."""
    try:
        value = json.loads(line, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as exc:
        raise ScriptError(
            f"it printed what is not JSON: {short(command)}",
            hint="a guest script prints one JSON object a line on standard output and everything else on standard error",
            detail=line[:500].decode(errors="replace"),
        ) from exc
    if not isinstance(value, dict):
        raise ScriptError(
            f"it printed JSON that is not an object: {short(command)}",
            hint="a guest script prints one JSON object a line",
            detail=line[:500].decode(errors="replace"),
        )
    return value


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
