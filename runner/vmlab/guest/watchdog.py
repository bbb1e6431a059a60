"""An end for waits that have none.

paramiko waits for some answers without a limit, and where it has one, it begins again with each byte that comes.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

from vmlab.deadline import Deadline

# How long what was closed may take to wake who waits.
MERCY_S = 0.3


def nothing() -> None:
    """For a block whose own loop looks at its deadline: only what does not come back from a call is to be ended."""


@contextlib.contextmanager
def watched(deadline: Deadline, close: Callable[[], None], cut: Callable[[], None]) -> Iterator[None]:
    """Run a block that must not outlast the deadline.

    At the deadline ``close`` is to end its waits. Where that does not help, ``cut`` follows a moment later: a connection that takes no
    more bytes blocks whoever speaks over it, also who wants to say that a channel is closed.
    """
    done = threading.Event()

    def watch() -> None:
        if done.wait(min(deadline.left_s(), threading.TIMEOUT_MAX)):
            return
        threading.Thread(target=close, name="vmlab-close", daemon=True).start()
        if not done.wait(MERCY_S):
            cut()

    threading.Thread(target=watch, name="vmlab-watchdog", daemon=True).start()
    try:
        yield
    finally:
        done.set()


def receive(sock: socket.socket, size: int, deadline: Deadline) -> bytes:
    """What has come over a socket, ``size`` bytes at most; TimeoutError at the deadline, also for a peer that never lets us wait long."""
    if deadline.expired():
        raise TimeoutError
    sock.settimeout(max(0.01, min(deadline.left_s(), 1e6)))
    return sock.recv(size)
