"""A private network between guests of one run: an Ethernet switch in this process, which may lose and delay frames.

Each guest's QEMU inherits one end of a pair of datagram sockets, a datagram a frame (``-netdev socket,fd=``, which every QEMU since 3.1
can); the other ends are held here. So no frame reaches the host's own network, and no other process can listen or send.

What a guest sends before it has joined (its boot, DHCP, what QEMU announces of a clone) is thrown away: the network sees what the lab does.
"""

from __future__ import annotations

import contextlib
import math
import random
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from vmlab.deadline import Deadline
from vmlab.errors import ScriptError, UsageError
from vmlab.guest import frames, link
from vmlab.guest.look.packets import LIMIT_BYTES, Capture
from vmlab.guest.machine import Machine

# The largest frame that QEMU sends (NET_BUFSIZE in its net/net.h).
_FRAME_BYTES = (4 << 10) + (64 << 10)
# How many frames wait for a guest that does not take them (it stands still, say) before more are dropped, as a switch drops them.
_BACKLOG = 1024
# How many may be on their way at once, and from how many addresses: more is a guest that floods.
_ON_THE_WAY = 1 << 14
_ADDRESSES = 1 << 10
# So many frames of one guest are taken in one go, so that one which sends without end does not keep the others waiting.
_TURN = 64


@dataclass
class Counters:
    """Frames. What guests sent after they had joined is forwarded, lost (by chance) or dropped (by order)."""

    sent: int = 0
    forwarded: int = 0
    lost: int = 0
    dropped: int = 0
    overflowed: int = 0
    """Copies that were not delivered, because a guest did not take so many."""


class _Port:
    """Where a guest is plugged in."""

    def __init__(self, guest: str, sock: socket.socket) -> None:
        self.guest = guest
        self.sock = sock
        self.is_open = False
        self.waiting: deque[bytes] = deque()

    def flush(self) -> None:
        """Hand over what waits, as far as the guest's QEMU takes it."""
        while self.waiting:
            try:
                self.sock.send(self.waiting[0])
            except BlockingIOError:
                return
            except OSError:
                # Its QEMU has ended.
                self.waiting.clear()
                return
            self.waiting.popleft()


@dataclass
class _Order:
    """Which frames to drop: the ``nth`` of those from ``sender`` in which ``containing`` stands and that are ``matching``."""

    nth: frozenset[int]
    sender: str
    containing: bytes
    matching: Callable[[dict[str, Any]], bool] | None
    seen: int = 0
    dropped: list[dict[str, Any]] = field(default_factory=list)
    fault: Exception | None = None

    def takes(self, sender: str, frame: bytes) -> bool:
        """Whether this frame is one of them. What the lab's function raises is kept for the end of its block."""
        if self.fault is not None or (self.sender and sender != self.sender) or self.containing not in frame:
            return False
        packet = {"sender": sender, **frames.summary(frame)}
        try:
            if self.matching is not None and not self.matching(packet):
                return False
        except Exception as exc:  # noqa: BLE001  (Whatever a lab's function raises is raised again where the lab can see it.)
            self.fault = exc
            return False
        self.seen += 1
        if self.seen not in self.nth:
            return False
        self.dropped.append({"nth": self.seen, **packet})
        return True


class _Listener:
    """What a capture has heard: each frame with its time, its sender and what became of it."""

    def __init__(self) -> None:
        self.heard: list[tuple[float, bytes, dict[str, Any]]] = []
        self._bytes = 0

    def hear(self, at: float, frame: bytes, sender: str, fate: str) -> None:
        """Keep a frame, as long as there is room."""
        self._bytes += len(frame)
        if not self.is_full():
            self.heard.append((at, frame, {"sender": sender, "fate": fate}))

    def is_full(self) -> bool:
        """Whether more came than is kept."""
        return self._bytes > LIMIT_BYTES


def cable(name: str, guest: str, networks: Mapping[str, Network]) -> contextlib.AbstractContextManager[socket.socket]:
    """The end of a guest's cable to the network of this name that its QEMU is to inherit; where there is no such network, a loose one."""
    return networks[name].plugged(guest) if name in networks else _loose_cable()


def connect(machine: Machine, networks: Mapping[str, Network], deadline: Deadline) -> None:
    """Set up a ready guest's interfaces, and let it take part in these networks. GuestError when it cannot be set up."""
    if networks:
        with machine.attributing():
            link.configure(machine.ssh, machine.request.links, deadline)
    for network in networks.values():
        network.join(machine.request.name)


@contextlib.contextmanager
def _loose_cable() -> Iterator[socket.socket]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with ours, theirs:
        yield theirs


class Network:
    """A network by its name in lab.yaml, with what it loses (of a hundred frames) and how long each takes through it.

    Which frames are lost is drawn from a generator that starts the same in each run: the same frames in the same order are lost again.
    `close` ends it. Its methods may be called from any thread.
    """

    def __init__(self, name: str, *, loss_percent: float = 0.0, delay_ms: float = 0.0) -> None:
        self.name = name
        self._loss_percent = loss_percent
        self._delay_s = delay_ms / 1000
        self._random = random.Random(name)  # noqa: S311  (Chance that can be repeated is what is wanted.)
        self._ports: list[_Port] = []
        self._knows: dict[bytes, _Port] = {}
        self._due: deque[tuple[float, _Port, bytes]] = deque()
        self._orders: list[_Order] = []
        self._listeners: list[_Listener] = []
        self._counters = Counters()
        self._lock = threading.Lock()
        self._closing = False
        # A byte in this pipe ends the thread's wait, because what it is to wait for has changed.
        self._woken, self._wake = socket.socketpair()
        self._woken.setblocking(False)
        self._wake.setblocking(False)
        self._thread = threading.Thread(target=self._run, name=f"vmlab-network-{name}", daemon=True)
        self._thread.start()

    # Guests.

    @contextlib.contextmanager
    def plugged(self, guest: str) -> Iterator[socket.socket]:
        """The end of a guest's cable that its QEMU is to inherit (and that is to be closed here then); pulled out with the block."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        ours.setblocking(False)
        port = _Port(guest, ours)
        with self._changing():
            self._ports.append(port)
        try:
            with theirs:
                yield theirs
        finally:
            with self._changing():
                self._ports.remove(port)
                self._knows = {mac: known for mac, known in self._knows.items() if known is not port}
                self._due = deque(each for each in self._due if each[1] is not port)
            ours.close()

    def join(self, guest: str) -> None:
        """From now on what the guest sends is forwarded, and it is sent what the others send."""
        with self._changing():
            for port in self._ports:
                port.is_open = port.is_open or port.guest == guest

    # What an experiment can do with it.

    @contextlib.contextmanager
    def losing(self, percent: float) -> Iterator[None]:
        """Lose so many of a hundred frames, by chance, while the block lasts."""
        if not 0 <= percent <= 100:
            raise UsageError(f"{percent} of a hundred frames cannot be lost", hint="name a number from 0 to 100")
        with self._lock:
            before, self._loss_percent = self._loss_percent, percent
        try:
            yield
        finally:
            with self._lock:
                self._loss_percent = before

    @contextlib.contextmanager
    def delaying(self, milliseconds: float) -> Iterator[None]:
        """Let each frame take so long through the network while the block lasts. None overtakes another."""
        if not (0 <= milliseconds <= 60_000):
            raise UsageError(f"a frame cannot take {milliseconds} ms", hint="name a number from 0 to 60000")
        with self._lock:
            before, self._delay_s = self._delay_s, milliseconds / 1000
        try:
            yield
        finally:
            with self._lock:
                self._delay_s = before

    @contextlib.contextmanager
    def dropping(
        self, *nth: int, sender: str = "", containing: bytes = b"", matching: Callable[[dict[str, Any]], bool] | None = None
    ) -> Iterator[list[dict[str, Any]]]:
        """Drop exactly the ``nth`` frame (1 is the first; several may be named) that is sent in the block; the list has those that were.

        Only frames from the guest ``sender`` are counted, in which ``containing`` stands, and of which ``matching`` says yes, who is shown
        them as `vmlab.guest.frames.summary` has them. What ``matching`` raises is raised at the end of the block.
        """
        if not nth or min(nth) < 1:
            raise UsageError("say which frame is to be dropped: dropping(1) is for the first")
        order = _Order(frozenset(nth), sender, containing, matching)
        with self._lock:
            self._orders.append(order)
        try:
            yield order.dropped
        finally:
            with self._lock:
                self._orders.remove(order)
        if order.fault is not None:
            raise order.fault

    @contextlib.contextmanager
    def packets(self) -> Iterator[Capture]:
        """What guests send over the network while the block lasts, with the ``sender`` and its ``fate``: forwarded, lost or dropped."""
        listener = _Listener()

        def so_far() -> Sequence[tuple[float, bytes, dict[str, Any]]]:
            with self._lock:
                if listener.is_full():
                    raise ScriptError(f"more than {LIMIT_BYTES >> 20} MiB of packets were captured", hint="capture for a shorter time")
                return list(listener.heard)

        with self._lock:
            self._listeners.append(listener)
        try:
            yield Capture(so_far)
        finally:
            with self._lock:
                self._listeners.remove(listener)

    def statistics(self) -> dict[str, int]:
        """How many frames since the run's start were ``sent``, ``forwarded``, ``lost``, ``dropped``, ``overflowed`` (see `Counters`)."""
        with self._lock:
            return asdict(self._counters)

    def close(self) -> None:
        """End it; safe to call more than once."""
        with self._changing():
            self._closing = True
        self._thread.join(5)
        self._wake.close()
        if not self._thread.is_alive():
            self._woken.close()

    # The thread.

    @contextlib.contextmanager
    def _changing(self) -> Iterator[None]:
        with self._lock:
            yield
            with contextlib.suppress(OSError):
                self._wake.send(b"x")

    def _run(self) -> None:
        while True:
            with self._lock:
                if self._closing:
                    return
                patience_s = self._deliver()
                ports = {port.sock.fileno(): port for port in self._ports}
                poll = select.poll()
                poll.register(self._woken, select.POLLIN)
                for descriptor, port in ports.items():
                    poll.register(descriptor, select.POLLIN | (select.POLLOUT if port.waiting else 0))
            ready = poll.poll(None if patience_s is None else math.ceil(patience_s * 1000))
            with contextlib.suppress(BlockingIOError):
                self._woken.recv(4096)
            with self._lock:
                for descriptor, _ in ready:
                    taken = ports.get(descriptor)
                    # (It may have been pulled out meanwhile.)
                    if taken is not None and taken in self._ports:
                        taken.flush()
                        self._take(taken)

    def _take(self, port: _Port) -> None:
        """What a guest has sent."""
        for _ in range(_TURN):
            try:
                frame = port.sock.recv(_FRAME_BYTES)
            except OSError:
                # There is no more, or its QEMU has ended.
                return
            if port.is_open and len(frame) >= 14 and frames.ethertype(frame) != frames.RARP:
                self._forward(port, frame)

    def _forward(self, port: _Port, frame: bytes) -> None:
        now, counters = time.monotonic(), self._counters
        counters.sent += 1
        if len(self._knows) >= _ADDRESSES:
            self._knows.clear()
        self._knows[frame[6:12]] = port
        # (Each order counts for itself, and so does chance: what one takes is seen by the others.)
        ordered = [order.takes(port.guest, frame) for order in self._orders]
        unlucky = self._loss_percent > 0 and self._random.random() * 100 < self._loss_percent
        fate = "dropped" if any(ordered) else "lost" if unlucky else "forwarded"
        setattr(counters, fate, getattr(counters, fate) + 1)
        for listener in self._listeners:
            listener.hear(now, frame, port.guest, fate)
        if fate == "forwarded":
            due = max(now + self._delay_s, self._due[-1][0] if self._due else 0.0)
            known = self._knows.get(frame[:6])
            others = [each for each in self._ports if each is not port and each.is_open]
            hearers = [each for each in (others if known is None else [known]) if each in others]
            if len(self._due) + len(hearers) > _ON_THE_WAY:
                counters.overflowed += len(hearers)
            else:
                self._due += [(due, each, frame) for each in hearers]

    def _deliver(self) -> float | None:
        """Hand over what is due. The seconds until more is; None when nothing is on its way."""
        now = time.monotonic()
        while self._due and self._due[0][0] <= now:
            _, port, frame = self._due.popleft()
            if len(port.waiting) >= _BACKLOG:
                self._counters.overflowed += 1
                continue
            port.waiting.append(frame)
            port.flush()
        return self._due[0][0] - now if self._due else None
