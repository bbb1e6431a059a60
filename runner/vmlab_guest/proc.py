"""Reading /proc: stat, status, masks, children, threads and every process; numbers in files, and files put back as they were.

A process that is gone raises FileNotFoundError or ProcessLookupError (`GONE`), as the kernel says it; what ends in ``_or_none`` gives None.
See proc(5), and proc_pid_stat(5), proc_pid_status(5) of newer manuals.
"""

import errno
import os

TYPE_CHECKING = False  # (mypy takes it for true; the real one is in typing, which takes 18 ms.)
if TYPE_CHECKING:
    from collections.abc import Iterator

GONE = (FileNotFoundError, ProcessLookupError)
"""What reading about a process raises when there is none of that number: at open, or at read when it goes in between."""

# The 52 fields of /proc/PID/stat in their order, see proc_pid_stat(5). Field 52 is the exit status in the form of waitpid.
STAT_FIELDS = (  # noqa: SIM905  (fifty-two quoted words would fill a page.)
    "pid comm state ppid pgrp session tty_nr tpgid flags minflt cminflt majflt cmajflt utime stime cutime cstime priority nice"
    " num_threads itrealvalue starttime vsize rss rsslim startcode endcode startstack kstkesp kstkeip signal blocked sigignore"
    " sigcatch wchan nswap cnswap exit_signal processor rt_priority policy delayacct_blkio_ticks guest_time cguest_time"
    " start_data end_data start_brk arg_start arg_end env_start env_end exit_code"
).split()

SIGKILL = 9
"""Of signal(7), the same everywhere. (The module signal makes enumerations, and takes 36 ms.)"""

MASKS = ("SigPnd", "ShdPnd", "SigBlk", "SigIgn", "SigCgt", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
"""The lines of /proc/PID/status that are masks: of signals (bit n - 1 is signal n), and of capabilities (capabilities(7))."""


# --- files ------------------------------------------------------------------------------------------------------------------------


def read(path: str) -> bytes:
    """A whole file, of any length: many files of /proc give no more than a page at a time."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts = []
        while part := os.read(descriptor, 1 << 16):
            parts.append(part)
        return b"".join(parts)
    finally:
        os.close(descriptor)


def read_once(path: str) -> bytes:
    """What one read of a file gives: all of a line such as /proc/PID/stat, with one system call less."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, 1 << 16)
    finally:
        os.close(descriptor)


def write(path: str, value: object) -> None:
    """Write one value into one file that exists, in a single write, as files of /proc, /sys and of control groups want it."""
    descriptor = os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)
    try:
        os.write(descriptor, str(value).encode())
    finally:
        os.close(descriptor)


def number_in(path: str) -> int:
    """The number that a file of /proc or of a control group holds; "max" (no limit) is -1."""
    text = read_once(path).decode().strip()
    return -1 if text == "max" else int(text)


class written:  # noqa: N801  (Used as a function is: `with written(path, value):`.)
    """A value in a file of /proc/sys or the like for the block, and what was there before afterwards, whatever happens."""

    def __init__(self, path: str, value: object) -> None:
        self.path = path
        self.value = value
        self.before = ""

    def __enter__(self) -> "written":
        self.before = read(self.path).decode().strip()
        write(self.path, self.value)
        return self

    def __exit__(self, *_: object) -> None:
        write(self.path, self.before)


# --- one process ------------------------------------------------------------------------------------------------------------------


def stat(pid: int | str = "self", thread: int | None = None) -> dict[str, int | str]:
    """The fields of /proc/PID/stat by name (of one of its threads, where that is given); times are in clock ticks, `TICKS_A_SECOND`.

    The command's name may hold blanks and brackets: it ends at the *last* bracket.
    """
    text = read_once(f"/proc/{pid}/stat" if thread is None else f"/proc/{pid}/task/{thread}/stat").decode(errors="replace")
    start, end = text.index("("), text.rindex(")")
    values = [text[:start].strip(), text[start + 1 : end], *text[end + 2 :].split()]
    return {name: value if name in ("comm", "state") else int(value) for name, value in zip(STAT_FIELDS, values, strict=False)}


def stat_or_none(pid: int | str) -> dict[str, int | str] | None:
    """The same; None when there is no process of that number."""
    try:
        return stat(pid)
    except GONE:
        return None


def identity(pid: int) -> tuple[int, int] | None:
    """What makes a process this one and no later one of the same number: the number, and when it started (in ticks since boot)."""
    fields = stat_or_none(pid)
    return None if fields is None else (pid, int(fields["starttime"]))


def status(pid: int | str = "self", thread: int | None = None) -> dict[str, str]:
    """The lines of /proc/PID/status by name, as text: "VmRSS" is "1234 kB"; masks have no 0x here, see `masks`."""
    text = read(f"/proc/{pid}/status" if thread is None else f"/proc/{pid}/task/{thread}/status").decode(errors="replace")
    return {name: value.strip() for name, _, value in (line.partition(":") for line in text.splitlines())}


def status_or_none(pid: int | str) -> dict[str, str] | None:
    """The same; None when there is no process of that number."""
    try:
        return status(pid)
    except GONE:
        return None


def status_kib(name: str, pid: int | str = "self") -> int:
    """A line of /proc/PID/status that is an amount of memory, such as VmRSS, in KiB. (A process without memory has no such line: 0.)"""
    return int(status(pid).get(name, "0").split()[0])


def masks(pid: int | str = "self", thread: int | None = None) -> dict[str, str]:
    """The masks of signals and of capabilities as text in hexadecimal *with* 0x in front, as a check's ``address(key)`` reads it."""
    lines = status(pid, thread)
    return {name: f"0x{lines[name]}" for name in MASKS if name in lines}


def mask(name: str, pid: int | str = "self", thread: int | None = None) -> int:
    """One of them as a number."""
    return int(masks(pid, thread)[name], 16)


def bits(mask: int) -> list[int]:
    """The numbers of the bits that are set, lowest first. (Of a mask of signals: one less than the signal's number.)"""
    return [bit for bit in range(mask.bit_length()) if mask >> bit & 1]


def signals_in(mask: int) -> list[int]:
    """The signals of a mask such as SigCgt."""
    return [bit + 1 for bit in bits(mask)]


def pid_inside(pid: int) -> int:
    """The number that a process has in its own, innermost PID namespace (NSpid in its status)."""
    return int(status(pid)["NSpid"].split()[-1])


def threads(pid: int | str = "self") -> list[int]:
    """The numbers of its threads, in their order. (A process whose threads have all ended still has its first.)"""
    return sorted(int(name) for name in os.listdir(f"/proc/{pid}/task"))


def descriptors(pid: int | str = "self") -> dict[int, str]:
    """Its open file descriptors, and what each leads to: a path, or such as "pipe:[4711]". (Of oneself: without the one that looks.)"""
    found = {}
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/{pid}/fd/{name}")
        except FileNotFoundError:
            continue
    return found


def descriptor_info(descriptor: int, pid: int | str = "self") -> dict[str, str]:
    """/proc/PID/fdinfo of a descriptor by name: "pos" (the offset, decimal), "flags" (octal), "ino" and more."""
    text = read(f"/proc/{pid}/fdinfo/{descriptor}").decode()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in text.splitlines())}


# --- all of them ------------------------------------------------------------------------------------------------------------------


def processes() -> "Iterator[int]":
    """Every process there is, zombies too, in the order of their numbers.

    A scan that takes a while sees every process that was there when it began and still is.
    """
    for name in os.listdir("/proc"):
        if name[0].isdigit():
            yield int(name)


def scan() -> "Iterator[dict[str, int | str]]":
    """The stat fields of every process; one that goes meanwhile is left out."""
    for pid in processes():
        if fields := stat_or_none(pid):
            yield fields


def children_of(parent: int) -> tuple[set[int], set[int]]:
    """The zombies among a process's children, and its other children: every /proc/PID/stat is read, nothing is assumed."""
    zombies: set[int] = set()
    living: set[int] = set()
    wanted = str(parent).encode()
    for pid in processes():
        try:
            text = read_once(f"/proc/{pid}/stat")
        except GONE:
            continue
        # (Not `stat`: a lab looks at thousands of them, and needs two fields of each.)
        state, ppid, _ = text[text.rindex(b")") + 2 :].split(b" ", 2)
        if ppid == wanted:
            (zombies if state == b"Z" else living).add(pid)
    return zombies, living


def tasks() -> tuple[list[tuple[int, int]], set[int]]:
    """Every process with its real uid, and every number in use: processes, threads, and the process groups and sessions they are in."""
    owners: list[tuple[int, int]] = []
    numbers: set[int] = set()
    for pid in processes():
        try:
            owners.append((pid, os.stat(f"/proc/{pid}").st_uid))
            fields = stat(pid)
            numbers.update(threads(pid))
        except GONE:
            continue
        numbers.update((pid, int(fields["pgrp"]), int(fields["session"])))
    return owners, numbers


def tasks_in_kernel() -> int:
    """All tasks that the kernel counts against threads-max, zombies too: the number after the slash in /proc/loadavg."""
    return int(read_once("/proc/loadavg").split()[3].split(b"/")[1])


# --- the system -------------------------------------------------------------------------------------------------------------------

TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")
"""The unit of utime, stime and starttime: 100 on Linux, whatever the kernel's own timer does."""


def meminfo() -> dict[str, int]:
    """/proc/meminfo by name: KiB (but for the lines HugePages_*, which are pages)."""
    rows = (line.split() for line in read("/proc/meminfo").decode().splitlines())
    return {row[0].rstrip(":"): int(row[1]) for row in rows}


def cpuinfo(field: str) -> str:
    """The first value of a field of /proc/cpuinfo, such as "flags" or "model name"; empty when there is none."""
    for line in read("/proc/cpuinfo").decode(errors="replace").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == field:
            return value.strip()
    return ""


def error_name(error: OSError) -> str:
    """The name of an error, such as ENOENT."""
    return errno.errorcode.get(error.errno or 0, str(error.errno))
