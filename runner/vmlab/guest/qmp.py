"""QEMU's monitor (QMP), made synchronous: qemu.qmp runs on an event loop in a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from qemu.qmp import EventListener, QMPClient, QMPError

from vmlab.deadline import Deadline
from vmlab.errors import GuestError

T = TypeVar("T")


class QmpError(GuestError):
    """QEMU refused a command, or its monitor is gone."""


class Qmp:
    """A connection to one QEMU's monitor over a socket whose other end QEMU inherited.

    ``on_event`` is called with each event (a dict with ``event`` and ``data``) on the monitor's thread; it must not block.
    """

    def __init__(self, sock: socket.socket, *, name: str, on_event: Callable[[dict[str, Any]], None], deadline: Deadline) -> None:
        self._client = QMPClient(name)
        self._loop = asyncio.new_event_loop()
        self._connecting: asyncio.Task[None] | None = None
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"vmlab-qmp-{name}", daemon=True)
        self._thread.start()
        try:
            self._call(self._connect(sock, on_event), deadline)
        except BaseException:
            self.close()
            raise

    async def _connect(self, sock: socket.socket, on_event: Callable[[dict[str, Any]], None]) -> None:
        self._connecting = asyncio.current_task()
        listener = EventListener()
        self._client.register_listener(listener)
        await self._client.connect(sock)
        self._events = asyncio.ensure_future(self._pump(listener, on_event))

    @staticmethod
    async def _pump(listener: EventListener, on_event: Callable[[dict[str, Any]], None]) -> None:
        async for event in listener:
            on_event(dict(event))

    def execute(self, command: str, deadline: Deadline, **arguments: Any) -> Any:
        """Run one command and return its ``return`` value. Raises QmpError when QEMU refuses it, is gone or does not answer."""
        return self._call(self._client.execute(command, arguments or None), deadline)

    def send_descriptor(self, name: str, descriptor: int, deadline: Deadline) -> None:
        """Give QEMU a descriptor (SCM_RIGHTS) under a name that later commands use, as in ``fd:NAME``. Ours may be closed afterwards."""
        self._call(self._send_descriptor(descriptor), deadline)
        self.execute("getfd", deadline, fdname=name)

    async def _send_descriptor(self, descriptor: int) -> None:
        self._client.send_fd_scm(descriptor)

    def forwarded_ports(self, deadline: Deadline) -> dict[int, int]:
        """Which of the host's ports leads to which of the guest's, {guest's: host's}, as `info usernet` tells it.

        The only place where QEMU says which ports the kernel gave it is this table for humans, e.g.
        ``  TCP[HOST_FORWARD]  12       127.0.0.1 40123       10.0.2.15    22``.
        """
        table = self.execute("human-monitor-command", deadline, **{"command-line": "info usernet"})
        rows = re.findall(r"TCP\[HOST_FORWARD\]\s+\d+\s+127\.0\.0\.1\s+(\d+)\s+\S+\s+(\d+)\b", str(table))
        ports = {int(guest): int(host) for host, guest in rows}
        if 22 not in ports:
            raise QmpError("QEMU does not say which port it forwards to the guest's sshd", detail=str(table))
        return ports

    def _call(self, work: Coroutine[Any, Any, T], deadline: Deadline) -> T:
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(min(deadline.left_s(), 1e6))
        except TimeoutError as exc:
            future.cancel()
            raise QmpError("QEMU's monitor did not answer in time", hint="is the machine very busy? try again") from exc
        except (QMPError, OSError, EOFError, asyncio.CancelledError) as exc:
            raise QmpError(f"QEMU's monitor: {exc}") from exc

    def close(self) -> None:
        """Disconnect and end the thread; safe to call more than once."""
        if self._loop.is_closed():
            return
        future = asyncio.run_coroutine_threadsafe(self._disconnect(), self._loop)
        try:
            future.result(5)
        except TimeoutError:
            future.cancel()
        finally:
            # Whatever became of the farewell, the thread ends.
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(5)
        if not self._thread.is_alive():
            self._loop.close()

    async def _disconnect(self) -> None:
        # A connecting that was given up disconnects by itself, and the client bears only one disconnection at a time.
        if self._connecting is not None:
            await asyncio.wait([self._connecting])
        # The other end may be gone already, which is what a disconnect is for.
        with contextlib.suppress(QMPError, OSError, EOFError):
            await self._client.disconnect()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        # The loop stops after this, and a task that has not ended by then would complain when it is collected.
        if left:
            await asyncio.wait(left, timeout=2)
