#!/usr/bin/env python3
"""How many processes this system allows, by each of the limits that a fork has to pass, and how much room each has left.

And whether a thread takes a number from the same range as a process: a thread is started, and a process after it.
"""

# pathlib is slow to import under emulation, and would serve one-line reads of /proc only.
# ruff: noqa: PTH110, PTH112, PTH113, PTH123, PTH208

from __future__ import annotations

import argparse
import os
import resource
import threading

from vmlab_guest.cgroup import current, hierarchy, up_to_root
from vmlab_guest.child import exit_at_once
from vmlab_guest.proc import meminfo, number_in, read, read_once, tasks, tasks_in_kernel
from vmlab_guest.say import say
from vmlab_guest.wait import wait_until

RESERVED = 300  # Once the numbers have come round, the kernel starts again at 300 (RESERVED_PIDS in kernel/pid.c).


def main() -> None:
    """Read, and name the tightest."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--loose", action="store_true", help="control: raise every limit but pid_max far above it")
    parser.add_argument("--reuse", action="store_true", help="control: give the thread's number to the next process")
    options = parser.parse_args()
    if options.loose:
        loosen()
    processes, numbers = tasks()
    pid_max = number_in("/proc/sys/kernel/pid_max")
    threads_max = number_in("/proc/sys/kernel/threads-max")
    limits = [
        {"name": "pid_max", "limit": pid_max, "usage": RESERVED + sum(1 for number in numbers if RESERVED <= number < pid_max)},
        {"name": "threads_max", "limit": threads_max, "usage": tasks_in_kernel()},
        *cgroup_limits(),
        rlimit(len([uid for _, uid in processes if uid == os.getuid()])),
    ]
    binding = [each for each in limits if each["limit"] != -1 and not each.get("exempt")]
    tightest = min(binding, key=lambda each: int(str(each["limit"])) - int(str(each["usage"])))
    say(
        {
            "limits": limits,
            "tightest": tightest["name"],
            "room": int(str(tightest["limit"])) - int(str(tightest["usage"])),
            "cgroup": current("pids"),
            "cpus_possible": possible_cpus(),
            "memory_kib": meminfo()["MemTotal"],
            "pid_max_set_by": who_set_pid_max(),
            "numbers": a_thread_takes_a_number(reuse=options.reuse),
        }
    )


def loosen() -> None:
    """Leave pid_max, at the kernel's own default, as the only limit that is anywhere near."""
    pid_max = max(32768, 1024 * possible_cpus())
    for path, value in (("/proc/sys/kernel/pid_max", pid_max), ("/proc/sys/kernel/threads-max", 4 * pid_max)):
        write(path, str(value))
    for each in cgroup_limits():
        if each["limit"] != -1:
            write(f"{hierarchy('pids')}{each['cgroup']}/pids.max", "max")


def write(path: str, value: str) -> None:
    """A text into a file of /proc or of a control group."""
    with open(path, "w") as file:
        file.write(value)


def cgroup_limits() -> list[dict[str, object]]:
    """pids.max of the control group that this script runs in, and of each group above it; one without the controller has no limit."""
    found: list[dict[str, object]] = []
    for group in up_to_root(current("pids")):
        directory = hierarchy("pids") + group
        counted = os.path.exists(f"{directory}/pids.max")
        limit, usage = (number_in(f"{directory}/pids.max"), number_in(f"{directory}/pids.current")) if counted else (-1, 0)
        found.append({"name": "pids_max", "cgroup": group, "limit": limit, "usage": usage})
    return found


def rlimit(usage: int) -> dict[str, object]:
    """RLIMIT_NPROC of this process; the superuser is exempt."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    return {"name": "nproc", "limit": -1 if soft == resource.RLIM_INFINITY else soft, "usage": usage, "exempt": os.getuid() == 0}


def possible_cpus() -> int:
    """How many CPUs the kernel made room for at boot, which is what its default pid_max goes by."""
    text = read_once("/sys/devices/system/cpu/possible").decode().strip()
    return int(text.replace(",", "-").split("-")[-1]) + 1


def who_set_pid_max() -> str | None:
    """The sysctl file that sets pid_max, if one does."""
    for directory in ("/etc/sysctl.d", "/run/sysctl.d", "/usr/lib/sysctl.d", "/lib/sysctl.d"):
        if not os.path.isdir(directory):
            continue
        for name in sorted(os.listdir(directory)):
            path = f"{directory}/{name}"
            if os.path.isfile(path) and any(line.startswith(b"kernel.pid_max") for line in read(path).splitlines()):
                return path
    return None


def a_thread_takes_a_number(*, reuse: bool) -> dict[str, object]:
    """The numbers of this process, of a thread of it, and of a process started while the thread lived."""
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    before = tasks_in_kernel()
    thread.start()
    during = tasks_in_kernel()
    # (A thread has a directory in /proc by its number too, though a listing of /proc does not show it.)
    directory = os.path.exists(f"/proc/{thread.native_id}/stat")
    stop.set()
    thread.join()
    if reuse:
        # (Python's thread has ended a moment before the kernel's has, which holds the number.)
        wait_until(lambda: not os.path.exists(f"/proc/{thread.native_id}"))
        write("/proc/sys/kernel/ns_last_pid", str((thread.native_id or 0) - 1))
    child = exit_at_once()
    os.waitpid(child, 0)
    return {
        "process": os.getpid(),
        "thread": thread.native_id,
        "next_process": child,
        "thread_has_proc_directory": directory,
        "tasks_before": before,
        "tasks_with_thread": during,
    }


if __name__ == "__main__":
    main()
