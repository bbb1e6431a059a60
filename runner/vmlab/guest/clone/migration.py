"""The state of a stopped guest, all but its memory, out of one QEMU and into another (QEMU's "migration", docs/devel/migration).

The memory is a file that both map (`vmlab.guest.qemu.RamFile`), which ``x-ignore-shared`` leaves out of the stream. What remains is half
a megabyte: CPUs, devices, the firmware's tables. The stream goes through a socket whose one end QEMU is given, which every version from
7.0 to 10 can do, in its sandbox too: ``exec:`` would need the right to start programs, ``file:`` a newer QEMU.
"""

from __future__ import annotations

import socket
import threading
from pathlib import Path

from vmlab.deadline import Deadline
from vmlab.errors import TemplateError
from vmlab.guest.machine import Machine
from vmlab.guest.qmp import QmpError
from vmlab.guest.watchdog import receive

_CAPABILITIES = [{"capability": name, "state": True} for name in ("x-ignore-shared", "events")]
_NO_LIMIT = 1 << 40  # bytes a second; QEMU's default is meant for a network that others use too

# Ours is half a megabyte; far more is not the state of a guest whose memory lies elsewhere.
_STATE_LIMIT_BYTES = 64 << 20


def save(machine: Machine, path: Path, deadline: Deadline) -> None:
    """Stop the guest for good and write its state to ``path``. TemplateError when QEMU cannot."""
    try:
        with machine.attributing():
            _save(machine, path, deadline)
    except QmpError as exc:
        # QEMU refuses a machine whose state it cannot write; the guest itself is sound, and can be used booted.
        raise TemplateError(f"the guest's state cannot be saved: {exc.message}") from exc


def _save(machine: Machine, path: Path, deadline: Deadline) -> None:
    qmp = machine.monitor
    qmp.execute("stop", deadline)
    qmp.execute("migrate-set-capabilities", deadline, capabilities=_CAPABILITIES)
    qmp.execute("migrate-set-parameters", deadline, **{"max-bandwidth": _NO_LIMIT})
    ours, theirs = socket.socketpair()
    with ours, path.open("wb") as file:
        with theirs:
            qmp.send_descriptor("state", theirs.fileno(), deadline)
        qmp.execute("migrate", deadline, uri="fd:state")
        written = 0
        while True:
            try:
                data = receive(ours, 1 << 20, deadline)
            except TimeoutError as exc:
                raise TemplateError("QEMU did not finish writing the guest's state in time") from exc
            if not data:
                break
            written += file.write(data)
            if written > _STATE_LIMIT_BYTES:
                raise TemplateError("the guest's state is too large: QEMU wrote its memory too")
    machine.wait_until_migrated(deadline)


def load(machine: Machine, path: Path, deadline: Deadline) -> None:
    """Give the state in ``path`` to a QEMU that waits for one, and let the guest run. TemplateError when QEMU refuses it."""
    state = path.read_bytes()
    with machine.attributing():
        qmp = machine.monitor
        qmp.execute("migrate-set-capabilities", deadline, capabilities=_CAPABILITIES)
        if machine.request.links:
            # QEMU would announce the guest on its networks (and have it announce itself), which is no traffic of the lab's.
            qmp.execute("migrate-set-parameters", deadline, **{"announce-rounds": 0})
        ours, theirs = socket.socketpair()
        with theirs:
            qmp.send_descriptor("state", theirs.fileno(), deadline)
        # A socket holds less than the state, so it is written while QEMU reads.
        writer = threading.Thread(target=_write, args=(ours, state), name="vmlab-state", daemon=True)
        writer.start()
        qmp.execute("migrate-incoming", deadline, uri="fd:state")
        machine.wait_until_migrated(deadline)
        writer.join(min(deadline.left_s(), threading.TIMEOUT_MAX))
        qmp.execute("cont", deadline)


def _write(sock: socket.socket, state: bytes) -> None:
    with sock:
        try:
            sock.sendall(state)
        except OSError:
            # QEMU refused the stream half-way; its own words come as the migration's failure.
            return
