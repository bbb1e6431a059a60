"""Slots: the right to run guests now, given to runs of all processes on this machine, first come first served.

One directory holds one file a run; whatever is not there does not run. The kernel's lock on that file (`vmlab.lease`) is the run's life: it
ends with the process that holds it, however that ends, and a file that nobody holds is rubbish. The lock on the directory itself is the
gate: it is held for the milliseconds in which a run looks at the others and goes from waiting to running, so that no two decide at once.

    000000042.waiting     the place in the queue; renamed when its turn has come
    000000041.running

The directory belongs to one user, or to all users of the machine where an administrator made one for them and set ``VMLAB_SLOTS``.
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import pwd
import re
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from vmlab import lease
from vmlab.deadline import Deadline
from vmlab.errors import HostError
from vmlab.host.capacity import Capacity, Need, capacity, check_fits
from vmlab.host.facts import counted, in_words
from vmlab.progress import Progress

VARIABLE = "VMLAB_SLOTS"

# How often a waiting run glances at the names in the directory, and how often it looks who is alive although no name changed: an owner
# that was killed leaves its name. The first in the queue looks more often, and the many behind it cost next to nothing.
_GLANCE_S = 0.1
_FIRST_LOOKS_S = 1.0
_OTHERS_LOOK_S = 10.0
# The gate is held for milliseconds; whoever holds it longer is stopped (SIGSTOP) or means harm.
_GATE_LIMIT_S = 60.0
_NAME = re.compile(r"(\d{9})\.(waiting|running)")


@dataclass(frozen=True)
class Place:
    """A run that has a slot or waits for one. Times are of CLOCK_MONOTONIC, which all processes of one boot share."""

    ticket: int
    running: bool
    what: str
    user: str
    pid: int
    memory_bytes: int
    cpus: int
    exclusive: bool
    since_s: float

    @property
    def who(self) -> str:
        """The run in a few words."""
        return f"{self.what} (pid {self.pid} of {self.user})"


@dataclass
class Slot:
    """The right to run, while it is held; for the report."""

    asked_s: float
    from_s: float
    until_s: float = math.inf


def obstacle(place: Place, others: Sequence[Place], whole: Capacity) -> str:
    """Why a run must wait, in words for ``waiting for ...``; empty when it may start. ``others`` are all that are alive, in any order.

    Strictly first come first served: nobody passes a run that waits longer, not even one that would fit. A run that is larger than the
    machine (a lab with three virtual CPUs on two) starts when it is alone.
    """
    before = [each for each in others if not each.running and each.ticket < place.ticket]
    running = [each for each in others if each.running]
    if before:
        return _turn(len(before))
    if not running:
        return ""
    alone = next((each for each in running if each.exclusive), None)
    if alone is not None:
        return f"{alone.who}, which has the machine for itself"
    names = ", ".join(each.who for each in running)
    if place.exclusive:
        return f"the machine for itself, {names} not done"
    return _shortage(place, running, names, whole)


def _shortage(place: Place, running: Sequence[Place], names: str, whole: Capacity) -> str:
    """What is too little for this run beside those that run; empty when nothing is."""
    cpus, memory = sum(each.cpus for each in running), sum(each.memory_bytes for each in running)
    if cpus + place.cpus > whole.cpus:
        return f"a CPU, {cpus} of {whole.cpus} taken by {names}"
    if memory + place.memory_bytes > whole.memory_bytes:
        return f"memory, {in_words(memory)} of {in_words(whole.memory_bytes)} taken by {names}"
    if place.memory_bytes > whole.free_bytes:
        return f"{in_words(place.memory_bytes)} of memory to be free on this machine"
    return ""


@dataclass(frozen=True)
class Standing:
    """One line of ``vmlab ps``: since when, in seconds, and what a waiting run waits for."""

    place: Place
    since_s: float
    waits_for: str


@dataclass(frozen=True)
class Overview:
    """All of ``vmlab ps``."""

    rows: list[Standing]
    whole: Capacity

    def taken(self) -> tuple[int, int]:
        """Memory in bytes and CPUs that those who run have taken."""
        running = [row.place for row in self.rows if row.place.running]
        return sum(each.memory_bytes for each in running), sum(each.cpus for each in running)


class Slots:
    """The slots of this machine. ``measure`` tells how much of it there is; tests put a smaller machine in its place."""

    def __init__(self, directory: Path | None = None, measure: Callable[[], Capacity] = capacity) -> None:
        self._directory = directory
        self._measure = measure

    @property
    def directory(self) -> Path:
        """Where the files are, made when there is none. HostError when it cannot be trusted or made."""
        return _usable_directory(self._directory)

    @contextlib.contextmanager
    def hold(self, need: Need, what: str, progress: Progress) -> Iterator[Slot]:
        """Wait for a slot and hold it. ``progress`` is told what for, each time that this changes.

        UsageError when it can never fit, HostError when the slots' directory cannot be used.
        """
        check_fits(need, what, self._measure())
        directory, asked = self.directory, time.monotonic()
        descriptor, path, mine = self._queue_up(directory, need, what)
        try:
            path = self._wait(directory, path, mine, progress)
            slot = Slot(asked, time.monotonic())
            try:
                yield slot
            finally:
                slot.until_s = time.monotonic()
        finally:
            with contextlib.suppress(OSError):
                path.unlink()
            os.close(descriptor)

    def places(self) -> list[Place]:
        """Every run that has a slot or waits for one, in the order in which they came. What dead runs left is removed."""
        directory = self.directory
        with _gate(directory):
            return _look(directory)

    def overview(self) -> Overview:
        """Who runs, who waits and why, and how much there is to give."""
        whole, found = self._measure(), self.places()
        rows = [
            Standing(each, round(time.monotonic() - each.since_s, 1), "" if each.running else obstacle(each, _but(found, each), whole))
            for each in found
        ]
        return Overview(rows, whole)

    def _queue_up(self, directory: Path, need: Need, what: str) -> tuple[int, Path, Place]:
        """A file of our own at the end of the queue, its lock held by the descriptor."""
        with _gate(directory):
            ticket = 1 + max((number for number, _, _ in _places(directory)), default=0)
            mine = Place(
                ticket=ticket,
                running=False,
                what=what,
                user=_user(),
                pid=os.getpid(),
                memory_bytes=need.memory_bytes,
                cpus=need.cpus,
                exclusive=need.exclusive,
                since_s=time.monotonic(),
            )
            path = directory / f"{ticket:09d}.waiting"
            with _explained(directory):
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
                # (All users of one directory must be able to read it, whatever the umask of this one is.)
                os.fchmod(descriptor, 0o644)
                lease.lock(descriptor)
                os.write(descriptor, json.dumps(asdict(mine)).encode())
        return descriptor, path, mine

    def _wait(self, directory: Path, path: Path, mine: Place, progress: Progress) -> Path:
        """Wait for our turn; the path of our file then."""
        told, why, seen, before, looked = "", "", -1, 0, -_OTHERS_LOOK_S
        while True:
            changed, now = directory.stat().st_mtime_ns, time.monotonic()
            before = _names_before(directory, mine.ticket) if changed != seen else before
            if (not before and changed != seen) or now - looked >= (_OTHERS_LOOK_S if before else _FIRST_LOOKS_S):
                looked = now
                with _gate(directory):
                    why = obstacle(mine, _but(_look(directory), mine), self._measure())
                    if not why:
                        with _explained(directory):
                            path = path.rename(path.with_suffix(".running"))
                        if told:
                            progress.waiting("")
                        return path
            elif before:
                why = _turn(before)
            seen = changed
            if why != told:
                told = why
                progress.waiting(f"a slot: {why}")
            time.sleep(_GLANCE_S)


def _but(places: Sequence[Place], mine: Place) -> list[Place]:
    return [each for each in places if each.ticket != mine.ticket]


def _turn(before: int) -> str:
    return f"its turn, {counted(before, 'run')} came first"


def _names_before(directory: Path, ticket: int) -> int:
    """How many files stand before ours in the queue, dead ones included."""
    return sum(number < ticket and not running for number, running, _ in _places(directory))


def _places(directory: Path) -> list[tuple[int, bool, Path]]:
    """(ticket, whether it runs, file) of each file that is one of ours by its name, in the order of the tickets."""
    matches = [(match, path) for path in directory.iterdir() if (match := _NAME.fullmatch(path.name))]
    return sorted((int(match[1]), match[2] == "running", path) for match, path in matches)


def _look(directory: Path) -> list[Place]:
    """Whoever is alive, in order; the caller holds the gate."""
    found = (_read(path, running=running) for _, running, path in _places(directory))
    return [place for place in found if place is not None]


def _read(path: Path, *, running: bool) -> Place | None:
    """The run that holds this file; None, and the file removed, when nobody does."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        # Its owner was done between our look at the directory and now.
        return None
    try:
        if not lease.lock(descriptor, shared=True):
            return Place(**{**json.loads(os.read(descriptor, 1 << 16)), "running": running})
    except (ValueError, TypeError) as exc:
        raise HostError(f"{path} is held by a process, but is not a slot of this vmlab", hint="have all users run the same vmlab") from exc
    finally:
        os.close(descriptor)
    with contextlib.suppress(OSError):  # (In a directory of all users only its owner may remove it. It does no harm.)
        path.unlink()
    return None


@contextlib.contextmanager
def _gate(directory: Path) -> Iterator[None]:
    """Hold the lock on the directory itself. HostError when somebody else does not let go of it."""
    with _explained(directory):
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if not lease.wait_for_lock(descriptor, Deadline(_GATE_LIMIT_S)):
            raise HostError(
                f"another process has held the lock on {directory} for {_GATE_LIMIT_S:.0f} s",
                hint=f"see who, and whether it is stopped: fuser -v {directory}",
            )
        yield
    finally:
        os.close(descriptor)


def _usable_directory(chosen: Path | None) -> Path:
    """The directory that was chosen, or set by VMLAB_SLOTS, or this user's own in /tmp.

    Not in the home directory, which several machines may share, and not in XDG_RUNTIME_DIR, which goes when the user logs out although
    a run in tmux goes on.
    """
    named = chosen or (Path(given) if (given := os.environ.get(VARIABLE)) else None)
    directory = named or Path(f"/tmp/vmlab-slots-{os.geteuid()}")  # noqa: S108  (whose it is is looked at below)
    with _explained(directory):
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        info = directory.lstat() if named is None else directory.stat()
    if named is None and (not stat.S_ISDIR(info.st_mode) or info.st_uid != os.geteuid() or info.st_mode & 0o022):
        raise HostError(f"{directory} is not a directory of yours alone", hint=f"name another one: {VARIABLE}=/some/where")
    return directory


@contextlib.contextmanager
def _explained(directory: Path) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        full = exc.errno in (errno.ENOSPC, errno.EDQUOT)
        raise HostError(
            f"cannot take a slot in {directory}: {exc.strerror}",
            hint="free some disk space" if full else f"name a directory that all your runs may write to: {VARIABLE}=/some/where",
        ) from exc


def _user() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return f"uid {os.geteuid()}"
