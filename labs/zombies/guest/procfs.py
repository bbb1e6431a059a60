"""What the scripts of this lab share: reading /proc, counting a parent's children from outside, and a cgroup of one's own.

Only the standard library, and few imports: under emulation every module costs milliseconds.
"""

# pathlib is slow to import under emulation, and would serve one-line reads of /proc only.
# ruff: noqa: PTH102, PTH106, PTH110, PTH116, PTH123, PTH208

from __future__ import annotations

import json
import mmap
import os
import sys
import time
from collections.abc import Callable, Mapping

EXIT_CODE = 7
"""Every child of this lab exits with 7, so that its raw status is 7 << 8 = 1792 and a SIGKILL (raw status 9) could not hide."""

# The 52 fields of /proc/PID/stat in their order, see proc_pid_stat(5). Field 52 is the exit status in the form of waitpid.
STAT_FIELDS = (  # noqa: SIM905  (fifty-two quoted words would fill a page.)
    "pid comm state ppid pgrp session tty_nr tpgid flags minflt cminflt majflt cmajflt utime stime cutime cstime priority nice"
    " num_threads itrealvalue starttime vsize rss rsslim startcode endcode startstack kstkesp kstkeip signal blocked sigignore"
    " sigcatch wchan nswap cnswap exit_signal processor rt_priority policy delayacct_blkio_ticks guest_time cguest_time"
    " start_data end_data start_brk arg_start arg_end env_start env_end exit_code"
).split()


def emit(value: Mapping[str, object]) -> None:
    """Print one observation as a line of JSON."""
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def read(path: str) -> bytes:
    """A whole small file of /proc, with two system calls less than open().read() needs."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, 1 << 16)
    finally:
        os.close(descriptor)


def number_in(path: str) -> int:
    """The number that a file of /proc or of a cgroup holds; "max" (no limit) is -1."""
    text = read(path).decode().strip()
    return -1 if text == "max" else int(text)


def stat(path: str) -> dict[str, int | str]:
    """The fields of a stat file by name. The command's name may hold spaces and brackets: it ends at the *last* bracket."""
    text = read(path).decode(errors="replace")
    start, end = text.index("("), text.rindex(")")
    values = [text[:start].strip(), text[start + 1 : end], *text[end + 2 :].split()]
    return {name: value if name in ("comm", "state") else int(value) for name, value in zip(STAT_FIELDS, values, strict=False)}


def stat_or_none(pid: int) -> dict[str, int | str] | None:
    """The stat fields of a process, None when there is none of that number."""
    try:
        return stat(f"/proc/{pid}/stat")
    except (FileNotFoundError, ProcessLookupError):
        return None


def children_of(parent: int) -> tuple[set[int], set[int]]:
    """The zombies among a process's children, and its other children: every /proc/PID/stat is read, nothing is assumed.

    /proc lists processes in the order of their numbers, so a scan that takes a while sees every child that existed when it began.
    """
    zombies: set[int] = set()
    living: set[int] = set()
    wanted = str(parent).encode()
    for name in os.listdir("/proc"):
        if not name[0].isdigit():
            continue
        try:
            text = read(f"/proc/{name}/stat")
        except (FileNotFoundError, ProcessLookupError):
            continue
        state, ppid, _ = text[text.rindex(b")") + 2 :].split(b" ", 2)
        if ppid == wanted:
            (zombies if state == b"Z" else living).add(int(name))
    return zombies, living


def tasks() -> tuple[list[tuple[int, int]], set[int]]:
    """Every process with its real uid, and every number in use: processes, threads, and the process groups and sessions they are in."""
    processes: list[tuple[int, int]] = []
    numbers: set[int] = set()
    for name in os.listdir("/proc"):
        if not name[0].isdigit():
            continue
        try:
            processes.append((int(name), os.stat(f"/proc/{name}").st_uid))
            fields = stat(f"/proc/{name}/stat")
            numbers.update(int(thread) for thread in os.listdir(f"/proc/{name}/task"))
        except (FileNotFoundError, ProcessLookupError):
            continue
        numbers.update((int(fields["pid"]), int(fields["pgrp"]), int(fields["session"])))
    return processes, numbers


def threads_in_kernel() -> int:
    """All tasks the kernel counts against threads-max, zombies too: the number after the slash in /proc/loadavg."""
    return int(read("/proc/loadavg").split()[3].split(b"/")[1])


class Counters:
    """Numbers that a parent keeps in a page it shares with the observer, so that reporting costs it no system call.

    The parent raises `announced` before a fork and `forked` after it. Whenever the observer looks, the number of children that were
    ever made lies between the two.
    """

    NAMES = ("announced", "forked", "reaped", "done")

    def __init__(self) -> None:
        # A number of the machine's own format is stored at once. (struct.pack_into would clear it first, and write byte by byte: another
        # process would now and then read 0, or half of a number.)
        self._numbers = memoryview(mmap.mmap(-1, mmap.PAGESIZE)).cast("q")

    def __getitem__(self, name: str) -> int:
        return self._numbers[self.NAMES.index(name)]

    def add(self, name: str, amount: int = 1) -> None:
        """Raise a counter; only the parent does."""
        self._numbers[self.NAMES.index(name)] = self[name] + amount


def wait_until(holds: Callable[[], bool], *, limit_s: float = 20.0, every_s: float = 0.02) -> bool:
    """Look until something holds; whether it did in time. A fixed pause is too short on one machine and too long on another."""
    ends = time.monotonic() + limit_s
    while not (held := holds()) and time.monotonic() < ends:
        time.sleep(every_s)
    return held


def exit_at_once_in_a_child() -> int:
    """Fork a child that exits at once with EXIT_CODE; its process id."""
    pid = os.fork()
    if pid == 0:
        os._exit(EXIT_CODE)
    return pid


def child_running(work: Callable[[], None]) -> int:
    """Fork a child that does this work and exits, whatever happens: it must never run on into what its parent does next."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        work()
        status = 0
    except BaseException:  # noqa: BLE001  (It is printed; and nothing may pass this line.)
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        os._exit(status)


class Cgroup:
    """A control group of this lab's own, so that what is exhausted in it is not the session that the lab runs over.

    A service of systemd has a TasksMax, 15 % of what the system allows: an ssh.service in a small guest would run out of tasks
    long before an experiment is done. Cgroup v2 where there is one, else the pids controller of v1 (the files have the same names).
    """

    def __init__(self, label: str) -> None:
        root = "/sys/fs/cgroup" if os.path.exists("/sys/fs/cgroup/cgroup.controllers") else "/sys/fs/cgroup/pids"
        self.name = f"/vmlab-{label}-{os.getpid()}"
        self.path = root + self.name

    def __enter__(self) -> Cgroup:
        os.mkdir(self.path)
        return self

    def __exit__(self, *_: object) -> None:
        # A zombie holds its place until it is reaped, perhaps by PID 1, and a group that is not empty cannot be removed.
        wait_until(lambda: self.look()["usage"] == 0)
        os.rmdir(self.path)

    def limit(self, tasks_allowed: int) -> None:
        """Set pids.max."""
        self._write("pids.max", tasks_allowed)

    def enter(self) -> None:
        """Move the calling process into the group; its children are born there."""
        self._write("cgroup.procs", os.getpid())

    def look(self) -> dict[str, int]:
        """The group's limit (-1: none), its usage, and how often a fork was refused because of it."""
        events = dict(line.split() for line in read(f"{self.path}/pids.events").decode().splitlines())
        return {
            "limit": number_in(f"{self.path}/pids.max"),
            "usage": number_in(f"{self.path}/pids.current"),
            "refusals": int(events["max"]),
        }

    def _write(self, name: str, value: int) -> None:
        with open(f"{self.path}/{name}", "w") as file:
            file.write(str(value))
