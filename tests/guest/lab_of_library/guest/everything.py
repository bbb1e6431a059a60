"""Uses each module of the library once, as root, and says what came of it."""

# ruff: noqa: PTH108, PTH123

import os
import signal
import sys

from vmlab_guest import native, pages, syscalls, timing
from vmlab_guest.cgroup import Cgroup
from vmlab_guest.child import Child, become_nobody, exit_at_once, orphan
from vmlab_guest.namespaces import PidNamespace
from vmlab_guest.proc import masks, pid_inside, read, stat, threads, written
from vmlab_guest.say import say
from vmlab_guest.wait import wait_for_state, wait_until

FILE = "/root/cached"


def main() -> None:
    """Module by module."""
    say(
        python=sys.version.split()[0],
        proc=proc(),
        child=children(),
        namespaces=world(),
        cgroup=groups(),
        syscalls=calls(),
        pages=memory(),
        native=loops(),
        timing=times(),
    )


def proc() -> dict[str, object]:
    """This process."""
    with written("/proc/self/comm", "a (b) c"):
        fields = stat()
    return {"comm": fields["comm"], "ppid": fields["ppid"] == os.getppid(), "threads": threads(), "pid": os.getpid(), "masks": masks()}


def children() -> dict[str, object]:
    """One that reports, one that is orphaned, one that becomes nobody, one that is a zombie."""

    def who() -> dict[str, object]:
        become_nobody()
        return {"uid": os.getuid(), "capabilities": masks()["CapEff"]}

    with Child(who) as child:
        nobody = child.report()
    left = orphan(signal.pause)
    adopted_by = stat(left)["ppid"]
    os.kill(left, signal.SIGKILL)
    zombie = exit_at_once(7)
    state = wait_for_state(zombie, "Z")
    return {"nobody": nobody, "adopted_by": adopted_by, "state": state, "raw_status": os.waitpid(zombie, 0)[1]}


def world() -> dict[str, object]:
    """A world with a /proc of its own, and a member."""
    with PidNamespace(signal.pause, "mnt") as inside:
        member = inside.enter(signal.pause)
        wait_for_state(member, "S")
        numbers = [pid_inside(pid) for pid in inside.members()]
        return {"numbers": numbers, "end": inside.end(), "over": inside.is_over()}


def groups() -> dict[str, object]:
    """Three controllers, one of which the system does not hand on by itself; and a limit of each kind."""
    with Cgroup("everything", "cpu", "memory", "pids") as group:
        group.set("pids.max", 5)
        group.set("cpu.max", "20000 100000")
        group.set("memory.max", 32 << 20)

        def spin() -> None:
            group.enter()
            while True:
                pass

        with Child(spin):
            throttled = wait_until(lambda: group.events("cpu.stat")["nr_throttled"] >= 2)
            members = len(group.procs())
            group.kill()
        return {"throttled": throttled, "members": members, "left": group.procs(), "pids_max": group.number("pids.max")}


def calls() -> dict[str, object]:
    """Two tasks that share their descriptors, a subreaper, a registers' look, how one is scheduled."""
    shares = syscalls.clone(syscalls.CLONE_FILES, "pause")
    same = [syscalls.same(os.getpid(), shares, kind) for kind in ("FILES", "VM")]
    with syscalls.Traced(shares) as traced:
        traced.stop()
        registers = syscalls.registers(shares)
    os.kill(shares, signal.SIGKILL)
    os.waitpid(shares, 0)
    syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 1)
    return {
        "same": same,
        "rip": hex(registers["rip"]),
        "subreaper": syscalls.is_subreaper(),
        "policy": syscalls.sched_getattr()["policy"],
        "grace_period": syscalls.wait_for_grace_period(),
        "thread_pointer": hex(syscalls.thread_pointer()),
    }


def memory() -> dict[str, object]:
    """Frames of this process, and what of a file is cached before and after it is dropped."""
    some = pages.Memory(16 * pages.PAGE_BYTES)
    some.touch(0, 8)
    with pages.Pagemap() as pagemap:
        frames = pagemap.frames(some.address, 16)
    with open(FILE, "wb") as file:
        file.write(bytes(64 * pages.PAGE_BYTES))
    before = pages.cached(FILE)
    pages.drop_caches()
    after = pages.cached(FILE)
    os.unlink(FILE)
    return {
        "frames": sum(frame is not None for frame in frames),
        "hidden": 0 in frames,
        "before": before,
        "after": after,
        "smaps": pages.smaps(some.address)["Rss"],
    }


def loops() -> dict[str, object]:
    """A loop that a child runs and we end, and additions with a lock."""
    words, spin = native.Words(2), native.Routine(native.SPIN)
    with Child(lambda: spin(words.address())) as child:
        wait_for_state(child.pid, "R")
        words[0] = 1
        rounds = child.report()
    native.Routine(native.ADD_LOCKED)(words.address(1), 1000)
    return {"rounds": rounds, "sum": words[1], "getpid": native.Routine(native.GETPID)(0, 10) == os.getpid()}


def times() -> dict[str, object]:
    """Two arms by turns."""
    timing.pin()
    return {"samples": timing.by_turns({"read": lambda: read("/proc/self/stat"), "getpid": os.getpid}, 5)}


if __name__ == "__main__":
    main()
