"""Child processes: one that runs a function and reports, an orphan, another user, how one ended, counters that both share."""

import errno
import marshal
import mmap
import os
import sys

from vmlab_guest.proc import SIGKILL
from vmlab_guest.wait import wait_to_read, wait_until

TYPE_CHECKING = False  # (mypy takes it for true; the real one is in typing, which takes 18 ms.)
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn, Self

NOBODY = 65534
"""The user and the group that own nothing, by the number that Debian gives them (and the kernel: overflowuid)."""


# --- forking ----------------------------------------------------------------------------------------------------------------------


def running(work: "Callable[[], object]") -> int:
    """Fork a child that does this work and exits, whatever happens: it must never run on into what its parent does next.

    Its process id. It exits with 0, with 1 when the work raised (the traceback is on standard error), or as SystemExit says.
    """
    sys.stdout.flush()  # (What is still in the buffer would be printed twice.)
    pid = os.fork()
    if pid == 0:
        _work_and_exit(work)
    return pid


def exit_at_once(status: int = 0) -> int:
    """Fork a child that exits at once with a status; its process id. (9 ms with the wait in an emulated guest, mostly Python's.)"""
    pid = os.fork()
    if pid == 0:
        os._exit(status)
    return pid


def orphan(work: "Callable[[], object]") -> int:
    """Start a process that does this work as `running` has it done, and whose parent has exited and been reaped: its process id.

    It has been adopted when this returns: by the nearest subreaper above (prctl(2), PR_SET_CHILD_SUBREAPER), else by its PID namespace's
    PID 1.
    """
    reading, writing = os.pipe()

    def be_the_parent() -> None:
        os.close(reading)
        os.write(writing, str(running(work)).encode())

    parent = running(be_the_parent)
    os.close(writing)
    try:
        os.waitpid(parent, 0)
        # (The orphan has the pipe's other end too, so there is no end of file to read to.)
        return int(os.read(reading, 32))
    finally:
        os.close(reading)


def _work_and_exit(work: "Callable[[], object]") -> "NoReturn":
    status = 1
    try:
        work()
        status = 0
    except SystemExit as exc:
        status = exc.code if isinstance(exc.code, int) else 0 if exc.code is None else 1
        if isinstance(exc.code, str):
            sys.stderr.write(exc.code + "\n")
    except BaseException:  # noqa: BLE001  (It is printed; and nothing may pass this line.)
        sys.excepthook(*sys.exc_info())
    finally:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(status & 0xFF)


class Child:
    """A child that does this work, for the block: killed and reaped when that is left, if it has not been reaped before.

    What the work returns is its report: numbers, text, bytes, None, and lists, tuples and dicts of these.
    """

    def __init__(self, work: "Callable[[], object]") -> None:
        self._work = work
        self._ending: dict[str, object] | None = None

    def __enter__(self) -> "Self":
        self._reading, writing = os.pipe()

        def work_and_report() -> None:
            os.close(self._reading)
            report = marshal.dumps(self._work())  # type: ignore[arg-type]  # (It says itself what it cannot take.)
            sent = 0
            while sent < len(report):
                sent += os.write(writing, report[sent:])

        self.pid = running(work_and_report)
        os.close(writing)
        return self

    def __exit__(self, *_: object) -> None:
        try:
            if self._ending is None:
                os.kill(self.pid, SIGKILL)  # (Harmless when it has exited: it is our own zombie then.)
                self.reap()
        finally:
            os.close(self._reading)

    def report(self, limit_s: float = 60.0) -> object:
        """What its work returned, plain data: TimeoutError when that is not in time, ChildProcessError if it ended without."""
        parts = []
        while True:
            if not wait_to_read(self._reading, limit_s):
                raise TimeoutError(errno.ETIMEDOUT, f"the child {self.pid} reported nothing in time")
            part = os.read(self._reading, 1 << 16)
            if not part:
                break
            parts.append(part)
        ending = self.reap()
        if not parts or ending["exited"] != 0:
            raise ChildProcessError(errno.ECHILD, f"the child {self.pid} ended without a report: {ending}")
        reported: object = marshal.loads(b"".join(parts))
        return reported

    def reap(self) -> dict[str, object]:
        """Wait for its end, and how it ended, as `ending` says it; the same again once it is reaped."""
        if self._ending is None:
            self._ending = ending(os.waitpid(self.pid, 0)[1])
        return self._ending


# --- how one ended ----------------------------------------------------------------------------------------------------------------


def ending(raw_status: int) -> dict[str, object]:
    """A status of waitpid in words: ``raw``, ``exited`` (the exit status or None), ``killed_by`` (the signal's name or None), ``core``."""
    killed = os.WIFSIGNALED(raw_status)
    return {
        "raw": raw_status,
        "exited": os.WEXITSTATUS(raw_status) if os.WIFEXITED(raw_status) else None,
        "killed_by": signal_name(os.WTERMSIG(raw_status)) if killed else None,
        "core": killed and os.WCOREDUMP(raw_status),
    }


def signal_name(number: int) -> str:
    """The name of a signal, such as SIGKILL; of a real-time signal its number as text."""
    import signal  # noqa: PLC0415  (36 ms, for those alone who ask for a name.)

    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)


def reap_all(limit_s: float = 20.0) -> dict[int, int]:
    """Reap every child of this process that ends within the limit, until it has none: raw statuses by process id."""
    statuses: dict[int, int] = {}

    def none_is_left() -> bool:
        try:
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return False
                statuses[pid] = status
        except ChildProcessError:
            return True

    wait_until(none_is_left, limit_s=limit_s, every_s=0.005)
    return statuses


# --- another user -----------------------------------------------------------------------------------------------------------------


def become(uid: int, gid: int | None = None) -> None:
    """Be another user for good, in all three of his identities and without further groups: the superuser's capabilities are gone.

    The order is the only one that works: groups while one may still change them. (os.setresuid of glibc changes every thread.)
    """
    gid = uid if gid is None else gid
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)


def become_nobody() -> None:
    """Be the user who owns nothing."""
    become(NOBODY)


# --- shared counters --------------------------------------------------------------------------------------------------------------


class Counters:
    """Whole numbers by name in a page that a process shares with the children that it forks, so that reporting costs no system call.

    Each is raised by one process alone: two that add to the same one lose some (that is a lab of its own).
    """

    def __init__(self, *names: str) -> None:
        self._places = {name: place for place, name in enumerate(names)}
        # A number of the machine's own format is stored at once. (struct.pack_into would clear it first, and write byte by byte: another
        # process would now and then read 0, or half of a number.)
        self._numbers = memoryview(mmap.mmap(-1, max(1, 8 * len(names)))).cast("q")

    def __getitem__(self, name: str) -> int:
        return self._numbers[self._places[name]]

    def add(self, name: str, amount: int = 1) -> None:
        """Raise a counter."""
        self._numbers[self._places[name]] = self[name] + amount
