"""A student's program: whether it can be started, starting it, watching it from outside, and what became of it.

It runs as a user of its own, with limits, in a world of its own (`vmlab_guest.sandbox`), below a keeper (`vmlab_guest.keeper`). What a
lab concludes rests on what its script, which is root's and outside, has seen; what the program printed is text and nothing else.
"""

import _signal  # type: ignore[import-not-found]  # (What the module signal is made of: that takes 36 ms.)
import errno
import fcntl
import marshal
import os
import sys
import time
import zlib

from vmlab_guest.cgroup import Cgroup
from vmlab_guest.child import ending, signal_name
from vmlab_guest.keeper import END, ERR, OUT, Ends, Keeper, Log, started
from vmlab_guest.proc import GONE, SIGKILL, read_once, threads
from vmlab_guest.sandbox import SUPPORT, Limits, Order, World, require_cgroups
from vmlab_guest.wait import wait_to_read, wait_until

TYPE_CHECKING = False  # (mypy takes it for true; the real one is in typing, which takes 18 ms.)
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any, Self

ATTEMPT = f"{os.path.dirname(os.path.dirname(os.path.abspath(__file__)))}/attempt"
"""Where the host puts a student's files: ``files/``, and ``attempt.json``, which says what they are."""

MESSAGE_BYTES = 4096
"""How much of standard error a record keeps, the end of it; and of a compiler's words, the beginning."""

LANGUAGES = {".py": "python", ".sh": "sh", ".c": "c"}
"""The languages, by the ends of the files' names."""

# A compiler is somebody else's program that reads whatever a student wrote: it gets limits of its own. The output is the program.
_BUILD_LIMITS = {"time_s": 10, "memory_mib": 128, "output_kib": 4096, "processes": 8}
_TCC = "/usr/bin/tcc"
# How long a program's beginning and end may take in a guest that is busy with others.
_LIMIT_S = 20.0

# Python writes to a pipe in blocks. On a terminal it writes line by line, and so it does here: a moment is known for each line, and what a
# program has printed is not lost when it is killed. (`python -u` writes each word by itself, and the words of two processes mix.)
# Python imports this file, if there is one, at its start (the module site); what the program starts gets nothing of it.
_PYTHON = b"""import os, sys
sys.path.remove(os.environ.pop("PYTHONPATH"))
sys.stdout.reconfigure(line_buffering=True)
"""
# The same for C, where the program's main is called by this one. (tcc has no constructors; LD_PRELOAD would reach the program's children.)
_MAIN = b"""#undef main
#include <stdio.h>
extern int students_main(int, char **, char **);
int main(int argc, char **argv, char **environment) {
    setvbuf(stdout, 0, _IOLBF, BUFSIZ);
    return students_main(argc, argv, environment);
}
"""
# Python's own words about a file that it cannot compile, without the lines about us.
_COMPILE = """import sys
name = sys.argv[1]
try:
    compile(open(name, "rb").read(), name, "exec", dont_inherit=True)
except BaseException as error:
    sys.excepthook(type(error), error.with_traceback(None), None)
    sys.exit(1)
"""


class Program:
    """What a student handed in: `build` it, then start it as often as wanted. OSError and ValueError for an attempt that is none."""

    def __init__(self, folder: str = "") -> None:
        import json  # noqa: PLC0415  (62 ms, once a script.)

        folder = folder or ATTEMPT
        with open(f"{folder}/attempt.json", encoding="utf-8") as file:
            attempt = json.load(file)
        self.folder = folder
        self.task = str(attempt["task"])
        self.name = str(attempt["program"])
        self.as_root = bool(attempt["as_root"])
        self.limits = Limits(attempt["limits"])
        self.files = dict(_files(f"{folder}/files"))
        self.stem, suffix = os.path.splitext(self.name)
        if suffix not in LANGUAGES or self.name not in self.files:
            raise ValueError(f"{self.name} is no program that was handed in; there are {sorted(self.files)}")
        self.language = LANGUAGES[suffix]

    def build(self) -> "dict[str, object]":
        """Whether it can be started, and what the compiler says: ``language``, ``built``, ``messages``, ``missing`` ("" or "tcc").

        Python and sh read it to its end and start nothing. C is compiled and linked by tcc, all of it as the program will run: as its user,
        in a world of its own.
        """
        # In an emulated guest, tcc takes 0.10 s for a small program and gcc 0.75 s; gcc makes the image's disk 166 MB larger (70 MB of
        # download), tcc with the headers 25 MB (7 MB). Linked once, the program starts in 0.04 s; `tcc -run` would compile it at each start
        # (0.09 s), and the compiler would be part of what is measured.
        said: dict[str, object] = {"language": self.language, "built": False, "messages": "", "missing": ""}
        if self.language == "c" and not os.path.exists(_TCC):
            return {**said, "missing": "tcc"}
        if words := self._unreadable():
            return {**said, "messages": words}
        with Running(self._compilation()) as run:
            run.wait(_LIMIT_S)
        record = run.record()
        words = run.stderr()[:MESSAGE_BYTES].decode(errors="backslashreplace").replace("students_main", "main")
        if record["how"] != "exited":
            words += f"\nIt could not be compiled within the limits: {record['how']}.\n"
        built = record["how"] == "exited" and record["status"] == 0
        if built and self.language == "c":
            self._keep(run.stdout())
        return {**said, "built": built, "messages": words}

    def _compilation(self) -> Order:
        name = self.name
        command = {
            "python": [sys.executable, "-I", "-S", "-c", _COMPILE, name],
            "sh": ["/bin/sh", "-n", name],
            "c": ["/bin/sh", "-c", '"$@" -o /tmp/program && exec cat /tmp/program', "sh", _TCC, "-Wall", "-Dmain=students_main", name],
        }[self.language]
        if self.language == "c":
            command += [f"{SUPPORT}/main.c", "-lpthread", "-lm"]
        order = Order(command, self.files, Limits(_BUILD_LIMITS))
        order.support["main.c"] = _MAIN
        return order

    def _unreadable(self) -> str:
        """What is wrong with the source as a file, which no compiler says in words that help."""
        source = self.files[self.name]
        if b"\0" in source:
            return f"{self.name}:{source[: source.index(0)].count(10) + 1}: error: there is a NUL byte: is this a text file?\n"
        if self.language == "sh" and b"\r\n" in source:
            return f"{self.name}:1: error: the lines end in CR LF, as on Windows; sh takes the CR for a part of the last word\n"
        if self.language == "sh" and source.startswith(b"\xef\xbb\xbf"):
            return f"{self.name}:1: error: the file begins with a byte order mark, which sh takes for a part of the first word\n"
        return ""

    def _built_path(self) -> str:
        """Where the compiled program lies, by what it was made from."""
        return f"{self.folder}/built-{zlib.crc32(marshal.dumps(sorted(self.files.items()))):08x}"

    def _keep(self, program: bytes) -> None:
        with open(self._built_path(), "wb", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
            file.write(program)

    def _built(self) -> bytes:
        if not os.path.exists(self._built_path()):
            said = self.build()
            if not said["built"]:
                raise OSError(errno.ENOEXEC, f"{self.name} cannot be compiled: {said['messages'] or 'there is no tcc'}")
        with open(self._built_path(), "rb") as file:
            return file.read()

    def running(
        self,
        *arguments: object,
        stdin: bytes | None = b"",
        environment: "Mapping[str, str] | None" = None,
        given: "Mapping[str, str] | None" = None,
        subreaper: bool = False,
    ) -> "Running":
        """It runs for the block: ``with program.running("7", stdin=b"...") as run:``, and all of it is gone afterwards.

        ``stdin`` is its whole input; None keeps it open for `Running.write`. ``given`` are files and directories of the guest, by the names
        under which it finds them in its home, for reading (as far as everybody may read them). A ``subreaper`` adopts the orphans below it.
        """
        words = [str(each) for each in arguments]
        files = self.files
        if self.language == "c":
            files = {**files, self.stem: self._built()}
        command = {
            "python": [sys.executable, self.name],
            "sh": ["/bin/sh", self.name],
            "c": [f"./{self.stem}"],
        }[self.language]
        order = Order([*command, *words], files, self.limits, as_root=self.as_root)
        order.environment.update(environment or {})
        if self.language == "python":
            order.support["sitecustomize.py"] = _PYTHON
            order.environment.update(PYTHONPATH=SUPPORT, PYTHONDONTWRITEBYTECODE="1")
        order.given.update(given or {})
        order.subreaper = subreaper
        order.stdin = stdin
        return Running(order)


def build() -> "dict[str, object]":
    """Whether the student's program can be started at all, see `Program.build`."""
    return Program().build()


class Running:
    """A program that runs for the block. ``pid`` is its process id as the script sees it, ``started_s`` when it began (time.monotonic)."""

    _count = 0

    def __init__(self, order: Order) -> None:
        Running._count += 1
        self._label = f"student{Running._count}"
        self._order = order
        self._sent: list[str] = []
        self._keeper = 0
        self._printed = {OUT: bytearray(), ERR: bytearray()}
        self._lines: list[tuple[float, str]] = []
        self._begun, self._begun_s = b"", 0.0
        self._end_told: dict[str, Any] | None = None

    # Its beginning and its end.

    def __enter__(self) -> "Self":
        require_cgroups()
        self._world = World(self._order, self._label)
        self._group = Cgroup(self._label, "pids", "memory", "cpu")
        self._group.__enter__()
        self._log, self._ends = Log(), Ends()
        try:
            self._order.limits.impose(self._group)
            self._put_in(self._order.stdin)
            directory = os.open(self._group.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            self._keeper = started(Keeper(self._world, directory, self._ends, self._log), apart=not self._order.as_root)
            os.close(directory)
            self._log.close_bell()
            self._ends.close("stdin_reads", "stdout_reads", "stdout_writes", "stderr_reads", "stderr_writes")
            self._ends.close("status_writes", "gate_reads", "control_reads")
            self._open_the_gate()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def _put_in(self, whole: bytes | None) -> None:
        """Fill the pipe that is its input, so that nobody has to wait for it; None leaves the input open."""
        os.set_blocking(self._ends.stdin_writes, False)
        if whole is not None:
            if len(whole) > fcntl.fcntl(self._ends.stdin_writes, fcntl.F_GETPIPE_SZ):
                fcntl.fcntl(self._ends.stdin_writes, fcntl.F_SETPIPE_SZ, len(whole))
            os.write(self._ends.stdin_writes, whole)
            self.close_input()

    def _open_the_gate(self) -> None:
        status = self._ends.status_reads
        if not wait_to_read(status, _LIMIT_S) or os.read(status, 5) != b"ready":
            words = self.stderr().decode(errors="backslashreplace")
            raise ChildProcessError(errno.ECHILD, f"no place for the program could be made: {words or 'see standard error'}")
        # (Nobody else is in the group yet. It waits before the gate, so its number is still its own when this is opened.)
        (self.pid,) = self._group.procs()
        self._pidfd = os.pidfd_open(self.pid)
        now = time.monotonic_ns()
        self.started_s = now / 1e9
        os.write(self._ends.control_writes, now.to_bytes(8, "little"))
        os.write(self._ends.gate_writes, b"!")
        self._ends.close("gate_writes")
        if not wait_to_read(status, _LIMIT_S):
            raise TimeoutError(errno.ETIMEDOUT, f"{self._order.argv[0]} was not started in time")
        if refused := os.read(status, 16):
            raise OSError(int(refused), f"{self._order.argv[0]}: {os.strerror(int(refused))}")

    def _end(self) -> None:
        """Kill all of it, and wait until it is gone: TimeoutError when something of it is not, after 20 s."""
        self._ends.close_all()
        try:
            if self._keeper:
                # It kills the program when it sees our end closed, tells of it, and goes; it is killed itself when it does not.
                goes = self._keeper_goes(_LIMIT_S / 4)
                if not goes:
                    self._group.set("cgroup.kill", 1)
                    os.kill(self._keeper, SIGKILL)
                if not goes and not self._keeper_goes(_LIMIT_S):
                    raise TimeoutError(errno.ETIMEDOUT, f"what process {self._keeper} kept cannot be ended")
                self._keeper = 0
                self._hear()
        finally:
            self._log.close()
            if "_pidfd" in vars(self):
                os.close(vars(self).pop("_pidfd"))
            self._world.remove()
            self._group.remove()

    def _keeper_goes(self, limit_s: float) -> bool:
        ends = time.monotonic() + limit_s
        while self._log.wait(max(0.0, ends - time.monotonic())) and time.monotonic() < ends:
            pass
        return wait_until(lambda: os.waitpid(self._keeper, os.WNOHANG)[0] != 0, limit_s=max(0.0, ends - time.monotonic()), every_s=0.002)

    # While it runs.

    @property
    def lines(self) -> list[tuple[float, str]]:
        """The lines that it printed until now, each with the moment at which its end came (time.monotonic, seconds).

        What has no line end counts as a line when the program has ended. C and Python print line by line here, as on a terminal.
        """
        self._hear()
        return list(self._lines)

    def wait_for_lines(self, count: int, limit_s: float = _LIMIT_S) -> bool:
        """Wait until it has printed so many lines; whether it has, before it ended or the time was over."""
        return self._wait(lambda: len(self._lines) >= count, limit_s) and len(self._lines) >= count

    def write(self, content: bytes, limit_s: float = _LIMIT_S) -> None:
        """Give it input. BrokenPipeError when it has closed that, TimeoutError when it does not read."""
        ends = time.monotonic() + limit_s
        while content:
            try:
                content = content[os.write(self._ends.stdin_writes, content) :]
            except BlockingIOError:
                if time.monotonic() >= ends:
                    raise TimeoutError(errno.ETIMEDOUT, f"process {self.pid} does not read its input") from None
                time.sleep(0.005)

    def close_input(self) -> None:
        """Its input has come to its end."""
        self._ends.close("stdin_writes")

    def signal(self, number: int) -> None:
        """Send it a signal. ProcessLookupError when it has ended: its number may be another's by now, and that one gets none."""
        _signal.pidfd_send_signal(self._pidfd, number)
        self._sent.append(signal_name(number))

    def members(self) -> list[int]:
        """All its processes, zombies too, as the script sees them: what its keeper has for children, and so on down.

        One that is handed from a parent to another at the very moment can be missed.
        """
        found: list[int] = []
        parents = [self._keeper]
        for parent in parents:
            try:
                of_each = [read_once(f"/proc/{parent}/task/{thread}/children").split() for thread in threads(parent)]
            except GONE:
                continue
            new = [int(child) for children in of_each for child in children]
            found += new
            parents += new
        return sorted(found)

    def wait(self, limit_s: float = _LIMIT_S) -> bool:
        """Wait until it has ended; whether it has. (What it started may live on, until the block's end.)"""
        return self._wait(lambda: False, limit_s)

    def _wait(self, holds: "Callable[[], bool]", limit_s: float) -> bool:
        """Wait until something holds, or its end; whether the time was long enough for either."""
        ends = time.monotonic() + limit_s
        while True:
            self._hear()
            if holds() or self._end_told is not None:
                return True
            left_s = ends - time.monotonic()
            if left_s <= 0:
                return False
            if not self._log.wait(left_s):
                self._hear()
                if self._end_told is None:
                    raise ChildProcessError(errno.ECHILD, f"the keeper of process {self.pid} is gone; standard error says why")

    def _hear(self) -> None:
        """Take what the keeper has told since the last time."""
        for at_ns, kind, content in self._log.read():
            if kind == END:
                self._end_told = marshal.loads(content)
            elif self._end_told is None:
                self._printed[kind] += content
            if kind == OUT:
                *whole, self._begun = (self._begun + content).split(b"\n")
                self._lines += [(at_ns / 1e9, line.decode(errors="backslashreplace")) for line in whole]
                self._begun_s = at_ns / 1e9
            if kind == END and self._begun:
                self._lines.append((self._begun_s, self._begun.decode(errors="backslashreplace")))
                self._begun = b""

    # What became of it.

    def stdout(self) -> bytes:
        """What it has printed, as bytes; until its end, when that has come."""
        self._hear()
        return bytes(self._printed[OUT])

    def stderr(self) -> bytes:
        """What it has written to standard error."""
        self._hear()
        return bytes(self._printed[ERR])

    def record(self) -> "dict[str, object]":
        """How it ended and what it took, for the experiment; waits for its end, in the block, as long as its time limit.

        ``how`` is "exited", "killed" (by the ``signal``), "time limit", "output limit", or "ended by the lab" (the block was left);
        ``state`` is the state that it was in when it was ended, a letter of proc_pid_stat(5); ``sent`` are the script's own signals,
        ``limits`` those of attempt.json.
        """
        if self._keeper and self._end_told is None:
            self.wait(self._order.limits.time_s + _LIMIT_S)
        self._hear()
        end = self._end_told
        if end is None:
            raise ChildProcessError(errno.ECHILD, "the program's keeper did not say how it ended")
        how = ending(end["status"])
        by_us = end["limit"] and (how["killed_by"] == "SIGKILL" or end["limit"] == "output limit")
        return {
            "how": end["limit"] if by_us else "killed" if how["killed_by"] else "exited",
            "status": how["exited"],
            "signal": how["killed_by"],
            "wall_s": round(end["wall_s"], 4),
            "cpu_s": round(end["cpu_s"], 4),
            "stdout": self.stdout().decode(errors="backslashreplace"),
            "stderr": self.stderr()[-MESSAGE_BYTES:].decode(errors="backslashreplace"),
            **{name: end[name] for name in ("stdout_bytes", "refused_forks", "oom_kills", "left_behind", "disk_full", "state")},
            "sent": self._sent,
            "limits": self._order.limits.told,
        }


def _files(folder: str) -> "Iterator[tuple[str, bytes]]":
    """Every file below a folder, by its name from there."""
    for directory, _, names in os.walk(folder):
        for name in names:
            path = f"{directory}/{name}"
            with open(path, "rb") as file:
                yield os.path.relpath(path, folder), file.read()
