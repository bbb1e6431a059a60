"""A stand-in for QEMU's end of its monitor (QMP), for tests of what talks to one. It runs no machine: a test says what it answers."""

from __future__ import annotations

import array
import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

GREETING = {"QMP": {"version": {"qemu": {"major": 7, "minor": 2, "micro": 22}, "package": ""}, "capabilities": []}}


class Refused(Exception):
    """Raised by an answer: QEMU says no, in these words."""


class Silence(Exception):
    """Raised by an answer: nothing is said."""


class Gone(Exception):
    """Raised by an answer: the connection is closed instead."""


Answer = Callable[[str, dict[str, Any]], object]


class Monitor:
    """Greets, and answers each command. ``sock`` is the client's end, unless its own is given; ``heard`` has (command, arguments)."""

    def __init__(self, answer: Answer = lambda command, arguments: {}, sock: socket.socket | None = None) -> None:
        self.sock, self._own = socket.socketpair() if sock is None else (sock, sock)
        self.heard: list[tuple[str, dict[str, Any]]] = []
        self.descriptors: list[int] = []
        self._answer = answer
        self._sending = threading.Lock()
        self._listens = threading.Event()
        self._thread = threading.Thread(target=self._speak, name="monitor", daemon=True)

    def start(self) -> None:
        """Greet, and answer from now on."""
        self._thread.start()

    @property
    def commands(self) -> list[str]:
        return [command for command, _ in self.heard]

    def tell(self, name: str, **data: Any) -> None:
        """An event, once the client can bear one: QEMU tells none before its capabilities are agreed on."""
        self._listens.wait(5)
        self._say({"event": name, "data": data, "timestamp": {"seconds": 1, "microseconds": 0}})

    def hang_up(self) -> None:
        with contextlib.suppress(OSError):
            self._own.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.hang_up()
        self._thread.join(5)
        self._own.close()
        self.sock.close()

    def _say(self, message: dict[str, Any]) -> None:
        with self._sending, contextlib.suppress(OSError):
            self._own.sendall(json.dumps(message).encode() + b"\r\n")

    def _questions(self) -> Iterator[dict[str, Any]]:
        """What the client sends: JSON objects, one after the other, with nothing between them that would tell where one ends."""
        rest = ""
        while True:
            try:
                # A descriptor comes beside the bytes (SCM_RIGHTS), as QEMU reads it.
                data, beside, _, _ = self._own.recvmsg(1 << 16, socket.CMSG_SPACE(4))
            except OSError:
                return
            for level, kind, payload in beside:
                if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                    self.descriptors += array.array("i", payload)
            if not data:
                return
            rest = (rest + data.decode()).lstrip()
            while rest:
                try:
                    question, end = json.JSONDecoder().raw_decode(rest)
                except ValueError:
                    break  # (Its rest is still to come.)
                rest = rest[end:].lstrip()
                yield question

    def _speak(self) -> None:
        self._say(GREETING)
        for asked in self._questions():
            command, arguments = asked["execute"], asked.get("arguments", {})
            # The client's first command has no id, and its answer may have none.
            named = {"id": asked["id"]} if "id" in asked else {}
            self.heard.append((command, arguments))
            try:
                value = {} if command == "qmp_capabilities" else self._answer(command, arguments)
            except Refused as exc:
                self._say({"error": {"class": "GenericError", "desc": str(exc)}, **named})
            except Silence:
                continue
            except Gone:
                self.hang_up()
                return
            else:
                self._say({"return": value, **named})
            if command == "qmp_capabilities":
                self._listens.set()


@contextlib.contextmanager
def monitor(answer: Answer = lambda command, arguments: {}) -> Iterator[Monitor]:
    stand_in = Monitor(answer)
    stand_in.start()
    try:
        yield stand_in
    finally:
        stand_in.close()
