"""What passed a guest's network interface, as QEMU saw it: a ``filter-dump`` on the other end of the interface's cable.

Nothing in the guest takes part, and nothing in it can tell. QEMU writes the file inside its sandbox, in the guest's own directory.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from vmlab.deadline import Deadline
from vmlab.errors import ScriptError
from vmlab.guest import frames
from vmlab.guest.machine import Machine
from vmlab.guest.qmp import QmpError

# More than a lab looks at, and less than a guest that sends without end would fill in a minute.
LIMIT_BYTES = 64 << 20
_PATIENCE_S = 30.0


class Frames(Protocol):
    """Where captured frames come from."""

    def __call__(self) -> Sequence[tuple[float, bytes, dict[str, Any]]]:
        """Each frame with its time in seconds, and what else is known of it."""


class Capture:
    """What has passed so far, inside its block; all of it, after that."""

    def __init__(self, frames_so_far: Frames) -> None:
        self._frames = frames_so_far

    def packets(self) -> list[dict[str, Any]]:
        """Each frame in plain data (`vmlab.guest.frames.summary`), with ``at_s``, the seconds since the first."""
        captured = self._frames()
        begin = captured[0][0] if captured else 0.0
        return [{"at_s": round(at - begin, 6), **more, **frames.summary(frame)} for at, frame, more in captured]

    def count(self, content: bytes) -> int:
        """In how many frames these bytes stand, all of them in one. ValueError when there are none to look for."""
        if not content:
            raise ValueError("there must be at least one byte to look for")
        return sum(content in frame for _, frame, _ in self._frames())


@contextlib.contextmanager
def captured(machine: Machine, netdev: str, deadline: Deadline) -> Iterator[Capture]:
    """What passes ``netdev`` while the block lasts. ScriptError when that is more than `LIMIT_BYTES`."""
    name = f"capture-{secrets.token_hex(4)}"
    path = machine.directory / f"{name}.pcap"
    kept: list[tuple[float, bytes, dict[str, Any]]] = []
    ended = False

    def so_far() -> Sequence[tuple[float, bytes, dict[str, Any]]]:
        return kept if ended else _read(path)

    filtering = {"qom-type": "filter-dump", "id": name, "netdev": netdev, "file": str(path)}
    with machine.attributing():
        machine.monitor.execute("object-add", deadline.within(_PATIENCE_S), **filtering)
    try:
        yield Capture(so_far)
    except BaseException:
        with contextlib.suppress(QmpError):
            machine.monitor.execute("object-del", deadline.within(_PATIENCE_S), id=name)
        path.unlink(missing_ok=True)
        raise
    with machine.attributing():
        machine.monitor.execute("object-del", deadline.within(_PATIENCE_S), id=name)
    try:
        kept += _read(path)
        ended = True
    finally:
        path.unlink(missing_ok=True)


def _read(path: Path) -> list[tuple[float, bytes, dict[str, Any]]]:
    with path.open("rb") as file:
        content = file.read(LIMIT_BYTES + 1)
    if len(content) > LIMIT_BYTES:
        raise ScriptError(
            f"more than {LIMIT_BYTES >> 20} MiB of packets were captured", hint="capture for a shorter time, or let the guest send less"
        )
    return [(at, frame, {}) for at, frame in frames.of_pcap(content)]
