"""The process above a student's program: starts it, hears it, ends it at a limit, reaps what it leaves, and says what became of it.

It is the PID 1 of the program's PID namespace, so the program can neither signal nor look at it, and all of the program ends with it. The
lab's script hears of it through a file in memory, so that neither waits for the other: the limits hold however busy the script is.
"""

import _signal  # type: ignore[import-not-found]  # (What the module signal is made of: that takes 36 ms.)
import marshal
import os
import select
import time

from vmlab_guest import syscalls
from vmlab_guest.child import running
from vmlab_guest.proc import GONE, read_once
from vmlab_guest.sandbox import World
from vmlab_guest.wait import wait_to_read

TYPE_CHECKING = False  # (mypy takes it for true; the real one is in typing, which takes 18 ms.)
if TYPE_CHECKING:
    from collections.abc import Iterable

OUT, ERR, END = 1, 2, 3
"""What an entry of the log is: a piece of standard output, of standard error, or what became of the program."""

_HEADER = 16
_PIECE = 1 << 16
# What a program has killed without waiting for it is given so long to be gone before it counts as left behind.
_GRACE_S, _GLANCES = 0.1, 5


class Log:
    """What the program printed and when, and how it ended: written by the keeper, read by the lab's script, in a file in memory.

    Its length is bounded by what the program may print.
    """

    def __init__(self) -> None:
        self.memory = os.memfd_create("log")
        self.news, self.bell = os.pipe()
        os.set_blocking(self.news, False)
        os.set_blocking(self.bell, False)
        self._read_to = 0

    def close_bell(self) -> None:
        """Only the keeper rings: when it is gone, that is heard."""
        os.close(self.bell)
        self.bell = -1

    def close(self) -> None:
        """Give the descriptors back; what was read stays."""
        for descriptor in (self.memory, self.news, self.bell):
            if descriptor >= 0:
                os.close(descriptor)
        self.memory = self.news = self.bell = -1

    def add(self, kind: int, content: bytes) -> None:
        """Write an entry, and ring."""
        header = time.monotonic_ns().to_bytes(8, "little") + kind.to_bytes(4, "little") + len(content).to_bytes(4, "little")
        entry = header + content
        while entry:
            entry = entry[os.write(self.memory, entry) :]
        try:
            os.write(self.bell, b"!")
        except BlockingIOError:
            return  # (It has rung often enough.)

    def read(self) -> "list[tuple[int, int, bytes]]":
        """The entries that are new, each once: (moment by CLOCK_MONOTONIC in ns, kind, content). One that is not yet whole comes later."""
        entries = []
        while self.memory >= 0 and len(header := os.pread(self.memory, _HEADER, self._read_to)) == _HEADER:
            length = int.from_bytes(header[12:], "little")
            content = os.pread(self.memory, length, self._read_to + _HEADER)
            if len(content) < length:
                break
            entries.append((int.from_bytes(header[:8], "little"), int.from_bytes(header[8:12], "little"), content))
            self._read_to += _HEADER + length
        return entries

    def wait(self, limit_s: float) -> bool:
        """Wait for the bell; whether the keeper still lives."""
        if not wait_to_read(self.news, limit_s):
            return True
        try:
            return bool(os.read(self.news, 4096))
        except BlockingIOError:
            return True


class Ends:
    """The ends of the pipes between script, keeper and program, by name; each process closes those that are not its own."""

    def __init__(self) -> None:
        self._open: dict[str, int] = {}
        for name in ("stdin", "stdout", "stderr", "status", "gate", "control"):
            self._open[f"{name}_reads"], self._open[f"{name}_writes"] = os.pipe()

    def __getattr__(self, name: str) -> int:
        try:
            return self._open[name]
        except KeyError:
            raise AttributeError(name) from None

    def all(self) -> list[int]:
        """Those that are open."""
        return list(self._open.values())

    def close(self, *names: str) -> None:
        """Close these; those that are closed already are passed over."""
        for name in names:
            if name in self._open:
                os.close(self._open.pop(name))

    def close_all(self) -> None:
        """Close the rest."""
        self.close(*list(self._open))


def close_all_but(kept: "Iterable[int]") -> None:
    """Close every descriptor but these: whatever else the script had open is not the program's, nor keeps anybody waiting."""
    begin = 0
    for each in sorted({*kept}):
        if begin < each:
            os.closerange(begin, each)
        begin = each + 1
    os.closerange(begin, os.sysconf("SC_OPEN_MAX"))


class Keeper:
    """The work of the keeper: call it in a new process, the first of a new PID namespace (or, for a program of root's, of none).

    ``group`` is an open directory: that of the control group for the program, in which the keeper itself is not.
    """

    def __init__(self, world: World, group: int, ends: Ends, log: Log) -> None:
        self._world = world
        self._limits = world.order.limits
        self._group = group
        self._ends = ends
        self._log = log
        self._started_ns = 0
        self._cpu_before_us = 0
        self._limit = ""
        self._state = ""
        self._printed = {OUT: 0, ERR: 0}
        self._status: int | None = None
        self._told = False
        self._closing = False

    def __call__(self) -> None:
        """Start the program and stand above it until the script closes its end."""
        nothing = os.open("/dev/null", os.O_RDWR)
        os.dup2(nothing, 0)
        os.dup2(nothing, 1)
        close_all_but([0, 1, 2, self._group, self._log.memory, self._log.bell, *self._ends.all()])
        self._ends.close("stdin_writes", "status_reads", "gate_writes", "control_writes")
        try:
            self._world.make()
        except OSError as exc:
            self._log.add(ERR, str(exc).encode())
            raise
        self._bell, wakes = os.pipe()
        os.set_blocking(self._bell, False)
        os.set_blocking(wakes, False)
        _signal.signal(_signal.SIGCHLD, lambda *_: None)
        _signal.set_wakeup_fd(wakes, warn_on_full_buffer=False)
        self._program = running(self._be_the_program)
        self._ends.close("stdin_reads", "stdout_writes", "stderr_writes", "status_writes", "gate_reads")
        self._streams = {self._ends.stdout_reads: OUT, self._ends.stderr_reads: ERR}
        for stream in self._streams:
            os.set_blocking(stream, False)
        self._watch()

    def _be_the_program(self) -> None:
        ends = self._ends
        self._write("cgroup.procs", b"0")
        os.setsid()
        self._world.enter()
        for number in range(1, _signal.NSIG):
            if _signal.getsignal(number) not in (_signal.SIG_DFL, None):
                _signal.signal(number, _signal.SIG_DFL)
        _signal.pthread_sigmask(_signal.SIG_SETMASK, [])
        for target, end in enumerate((ends.stdin_reads, ends.stdout_writes, ends.stderr_writes)):
            os.dup2(end, target)
        # (Closed by a successful exec: that is how the script hears of it.)
        os.set_inheritable(ends.status_writes, False)
        close_all_but([0, 1, 2, ends.status_writes, ends.gate_reads])
        os.write(ends.status_writes, b"ready")
        if not os.read(ends.gate_reads, 1):
            os._exit(1)
        os.close(ends.gate_reads)
        order = self._world.order
        try:
            os.execve(order.argv[0], order.argv, self._world.variables())
        except OSError as exc:
            os.write(ends.status_writes, str(exc.errno).encode())
            os._exit(127)

    # What it does all the time.

    def _watch(self) -> None:
        poll = select.poll()
        control = self._ends.control_reads
        for descriptor in (self._bell, control, *self._streams):
            poll.register(descriptor, select.POLLIN)
        while not (self._closing and self._told and not self._members()):
            for descriptor, _ in poll.poll(self._patience_ms()):
                if descriptor == self._bell:
                    os.read(self._bell, 4096)
                elif descriptor == control:
                    if not self._hear():
                        poll.unregister(control)
                elif not self._drink(descriptor):
                    poll.unregister(descriptor)
            if self._left_s() <= 0:
                self._end_all("time limit")
            self._reap()
            if self._status is not None and not self._told:
                self._tell()

    def _left_s(self) -> float:
        if not self._started_ns or self._limit:
            return float("inf")
        return self._limits.time_s - (time.monotonic_ns() - self._started_ns) / 1e9

    def _patience_ms(self) -> float | None:
        if self._closing:
            return 5
        left_s = self._left_s()
        return None if left_s == float("inf") else max(0.0, left_s * 1000) + 1

    def _hear(self) -> bool:
        """The script says when it opened the gate, and later closes its end; false then."""
        word = os.read(self._ends.control_reads, 8)
        if word:
            self._cpu_before_us = self._numbers("cpu.stat").get("usage_usec", 0)
            self._started_ns = int.from_bytes(word, "little")
            return True
        self._closing = True
        self._end_all("ended by the lab")
        return False

    def _drink(self, stream: int) -> bool:
        """Take what there is of a stream; false when it has come to its end."""
        try:
            piece = os.read(stream, _PIECE)
        except BlockingIOError:
            return True
        kind = self._streams[stream]
        room = self._limits.output_bytes - sum(self._printed.values())
        self._printed[kind] += len(piece)
        if piece[:room] and room > 0:
            self._log.add(kind, piece[:room])
        if len(piece) > room:
            self._end_all("output limit")
        return bool(piece)

    def _reap(self) -> None:
        try:
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                if pid == self._program:
                    self._status = status
        except ChildProcessError:
            return

    # Its end.

    def _end_all(self, why: str) -> None:
        """Kill all of it at once, forks that are under way too (cgroup.kill came with Linux 5.14)."""
        if not self._limit:
            self._limit = why
            if self._status is None:
                self._state = self._letter()
        self._write("cgroup.kill", b"1")

    def _letter(self) -> str:
        """The state that the program is in, a letter of proc_pid_stat(5)."""
        try:
            text = read_once(f"{self._world.proc}/{self._program}/stat")
        except GONE:
            return ""
        return text[text.rindex(b")") + 2 :][:1].decode()

    def _tell(self) -> None:
        """Say how the program ended: once, and as it was at that moment."""
        at_ns = time.monotonic_ns()
        used = self._numbers("cpu.stat").get("usage_usec", 0) - self._cpu_before_us
        for stream in self._streams:
            printed = -1
            while printed != sum(self._printed.values()) <= self._limits.output_bytes:
                printed = sum(self._printed.values())
                self._drink(stream)
        left = [] if self._limit else self._left_behind()
        room = os.statvfs(self._world.disk)
        self._told = True
        self._log.add(
            END,
            marshal.dumps(
                {
                    "status": self._status,
                    "limit": self._limit,
                    "state": self._state,
                    "wall_s": (at_ns - self._started_ns) / 1e9 if self._started_ns else 0.0,
                    "cpu_s": used / 1e6,
                    "stdout_bytes": self._printed[OUT],
                    "refused_forks": self._numbers("pids.events").get("max", 0),
                    "oom_kills": self._numbers("memory.events").get("oom_kill", 0),
                    "left_behind": len(left),
                    "disk_full": room.f_bavail == 0 or room.f_favail == 0,
                }
            ),
        )

    def _left_behind(self) -> list[bytes]:
        for _ in range(_GLANCES):
            if not self._members():
                break
            time.sleep(_GRACE_S / _GLANCES)
            self._reap()
        return self._members()

    # The control group, by its open directory: the keeper's own root has no /sys.

    def _read(self, file: str) -> bytes:
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._group)
        try:
            return os.read(descriptor, _PIECE)
        finally:
            os.close(descriptor)

    def _write(self, file: str, content: bytes) -> None:
        descriptor = os.open(file, os.O_WRONLY | os.O_CLOEXEC, dir_fd=self._group)
        try:
            os.write(descriptor, content)
        finally:
            os.close(descriptor)

    def _members(self) -> list[bytes]:
        return self._read("cgroup.procs").split()

    def _numbers(self, file: str) -> dict[str, int]:
        return {name.decode(): int(value) for name, value in (line.split() for line in self._read(file).splitlines())}


def started(keeper: Keeper, *, apart: bool) -> int:
    """Start the keeper, ``apart``: as PID 1 of a new namespace; its process id as the caller sees it.

    unshare(2) moves the caller's *next children* alone, and joining the own namespace again undoes it, so that the keeper is a child of
    the caller like any other, and the caller's later children are where it is.
    """
    own = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if apart:
            syscalls.unshare(syscalls.CLONE_NEWPID)
        try:
            return running(keeper)
        finally:
            if apart:
                syscalls.setns(own, syscalls.CLONE_NEWPID)
    finally:
        os.close(own)
