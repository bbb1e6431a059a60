"""A guest's serial port: read as it comes, each line stamped, kept in a file of bounded size, searched for what must end a wait at once."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

# A guest's root may write to its console without end; a log beyond this is cut, and says so.
LOG_LIMIT_BYTES = 16 << 20
_KEPT_TEXT = 1 << 20
_KEPT_LINES = 20_000
# A line without an end is not one; what is longer is kept in the text alone.
_LONGEST_LINE = 4096

# The kernel's own words, from kernel/panic.c and kernel/exit.c. (Anybody in the guest can write the same.)
PANIC = re.compile(rb"Kernel panic - not syncing: [^\r\n]*|Attempted to kill init![^\r\n]*")
END_OF_PANIC = "end Kernel panic"


@dataclass(frozen=True)
class Line:
    """A line and when its last byte came, on the host's monotonic clock."""

    at: float
    text: str


class Console:
    """Reads a guest's console (or another serial port of it) on a thread of its own.

    ``preface`` begins the log: what the guest printed before it was saved, when it is a clone. It is not searched.
    """

    def __init__(self, sock: socket.socket, log_file: Path, *, preface: bytes = b"") -> None:
        self._sock = sock
        self._on_panic: Callable[[Line], None] | None = None
        self._panics: list[Line] = []
        self._text = bytearray()
        self._lines: deque[Line] = deque(maxlen=_KEPT_LINES)
        self._unfinished = bytearray()
        self._dropped = 0
        self._own = Cursor(self)
        self._changed = threading.Condition()
        self._log = log_file.open("wb", buffering=0)
        self._log.write(preface)
        self._thread = threading.Thread(target=self._read, name="vmlab-console", daemon=True)
        self._thread.start()

    def _read(self) -> None:
        written = 0
        while True:
            try:
                data = self._sock.recv(65536)
            except OSError:
                data = b""
            at = time.monotonic()
            if not data:
                break
            room = LOG_LIMIT_BYTES - written
            if room > 0:
                written += len(data[:room])
                self._log.write(data[:room])
                if len(data) >= room:
                    self._log.write(b"\n[vmlab: the console's log was cut here: the guest wrote more than 16 MiB]\n")
            with self._changed:
                self._panics += [line for line in self._stamp(data, at) if PANIC.search(line.text.encode())]
                self._text += data
                excess = len(self._text) - _KEPT_TEXT
                if excess > 0:
                    del self._text[:excess]
                    self._dropped += excess
                self._changed.notify_all()
            self._tell_of_panics()
        with self._changed:
            self._changed.notify_all()

    def watch(self, on_panic: Callable[[Line], None]) -> None:
        """Have ``on_panic`` called with each line that says that the kernel panicked, those that came before included.

        Whether that is so is judged elsewhere (`vmlab.guest.panic`).
        """
        self._on_panic = on_panic
        self._tell_of_panics()

    def _tell_of_panics(self) -> None:
        if self._on_panic is not None:
            with self._changed:
                panics, self._panics = self._panics, []
            for line in panics:
                self._on_panic(line)

    def _stamp(self, data: bytes, at: float) -> list[Line]:
        """Keep the lines that end in ``data``, and return them."""
        *ended, rest = data.split(b"\n")
        lines = []
        for part in ended:
            self._unfinished += part
            lines.append(Line(at, self._unfinished[:_LONGEST_LINE].decode(errors="replace").strip("\r")))
            self._unfinished.clear()
        self._lines += lines
        if len(self._unfinished) <= _LONGEST_LINE:
            self._unfinished += rest
        return lines

    def lines(self) -> list[Line]:
        """The finished lines, each with the moment of its arrival; the last twenty thousand."""
        with self._changed:
            return list(self._lines)

    def text(self) -> str:
        """What the console has printed, the last MiB of it."""
        with self._changed:
            return self._text.decode(errors="replace").replace("\r\n", "\n")

    def tail(self, lines: int = 80) -> str:
        """The last lines, for an error's detail."""
        return "\n".join(line.rstrip() for line in self.text().splitlines()[-lines:])

    def wait_for(self, pattern: str, timeout_s: float) -> str | None:
        """The first line that matches ``pattern`` and was printed since the engine's last such call; None when none came in time.

        An experiment's calls have a `Cursor` of their own.
        """
        return self._own.wait_for(pattern, timeout_s)

    def cursor(self) -> Cursor:
        """A reader of its own, from the first line on."""
        return Cursor(self)

    def find(self, regex: re.Pattern[bytes], seen: int, timeout_s: float) -> tuple[str, int] | None:
        """The first match after the first ``seen`` bytes of all that was printed, and where it ends; None when none comes in time."""
        found: re.Match[bytes] | None = None

        def arrived() -> bool:
            nonlocal found
            found = regex.search(self._text, max(0, seen - self._dropped))
            return found is not None

        with self._changed:
            if not self._changed.wait_for(arrived, timeout_s) or found is None:
                return None
            return found.group().decode(errors="replace").strip(), self._dropped + found.end()

    def close(self) -> None:
        """End the reader once QEMU's end is closed, and the log file."""
        # The other end may have closed it already.
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        self._thread.join(5)
        self._sock.close()
        self._log.close()


class Cursor:
    """One reader's place in what a console prints: lines that another reader has found are still to be found by this one."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._seen = 0

    def wait_for(self, pattern: str, timeout_s: float) -> str | None:
        """The first line that matches ``pattern`` and was printed since this cursor's last match; None when none came in time."""
        found = self._console.find(re.compile(rb"[^\n]*(?:" + pattern.encode() + rb")[^\n]*\n"), self._seen, timeout_s)
        if found is None:
            return None
        line, self._seen = found
        return line
