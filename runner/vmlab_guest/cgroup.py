"""Control groups: one of a script's own, with its limits, events and members, and gone when the block is left.

That of the SSH session that a script runs in is a service's: it has limits (TasksMax, 15 % of what the system allows), and no controllers
for groups below it, because a group with processes of its own may hand on none (cgroups(7), "no internal processes"; the root may). So a
group is made below the root, unless another is named. Cgroup v2 where it has the controller; else that controller's hierarchy of v1,
whose pids.* files have the same names.
"""

import errno
import os

from vmlab_guest.proc import SIGKILL, number_in, read, read_once, write
from vmlab_guest.wait import wait_until

TYPE_CHECKING = False  # (mypy takes it for true; the real one is in typing, which takes 18 ms.)
if TYPE_CHECKING:
    from typing import Self

V2 = "/sys/fs/cgroup"


def is_v2() -> bool:
    """Whether the system has cgroup v2 in the usual place, and so alone."""
    return os.path.exists(f"{V2}/cgroup.controllers")


def hierarchy(controller: str = "pids") -> str:
    """The directory under which a controller's groups lie."""
    return V2 if is_v2() else f"{V2}/{controller}"


def current(controller: str = "pids", pid: int | str = "self") -> str:
    """The group that a process is in, as a path from the hierarchy's root, such as "/system.slice/ssh.service"."""
    for line in read(f"/proc/{pid}/cgroup").decode().splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(",") or (is_v2() and not controllers):
            return path
    raise OSError(errno.ENOENT, f"process {pid} is in no group of the controller {controller}")


def up_to_root(path: str) -> list[str]:
    """A group and each above it but the root, the innermost first."""
    parts = path.strip("/").split("/") if path.strip("/") else []
    return ["/" + "/".join(parts[:count]) for count in range(len(parts), 0, -1)]


class Cgroup:
    """A group for the block: ``with Cgroup("burn", "cpu", "memory") as group:`` makes it with these controllers.

    ``below`` is the group that it is made in, as a path from the root; `current` names the caller's own. ``name`` is its path from the
    root, ``path`` its directory.
    """

    def __init__(self, label: str, *controllers: str, below: str = "") -> None:
        self.controllers = controllers or ("pids",)
        self.name = f"{below.rstrip('/')}/vmlab-{label}-{os.getpid()}"
        self._root = hierarchy(self.controllers[0])
        self.path = self._root + self.name

    def __enter__(self) -> "Self":
        if is_v2():
            for above in reversed([*up_to_root(self.name)[1:], ""]):
                enable(above, *self.controllers)
        os.mkdir(self.path)
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    def enter(self, pid: int = 0) -> None:
        """Move a process (by default the caller) into the group, with all its threads; its later children are born there."""
        write(f"{self.path}/cgroup.procs", pid)

    def set(self, file: str, value: object) -> None:
        """Write a limit: ``set("pids.max", 100)``, ``set("cpu.max", "20000 100000")``, ``set("memory.max", 32 << 20)``."""
        write(f"{self.path}/{file}", value)

    def number(self, file: str) -> int:
        """The number in a file, such as pids.current; -1 for "max"."""
        return number_in(f"{self.path}/{file}")

    def events(self, file: str) -> dict[str, int]:
        """A file of names and numbers: pids.events, memory.events, cpu.stat (times in microseconds), cgroup.events, memory.stat."""
        return {name: int(value) for name, value in (line.split() for line in read(f"{self.path}/{file}").decode().splitlines())}

    def procs(self) -> list[int]:
        """The processes in it, without zombies (v2), in the order of their numbers."""
        return sorted(int(line) for line in read(f"{self.path}/cgroup.procs").split())

    def kill(self) -> None:
        """SIGKILL to all in it, until none is left: by cgroup.kill, or one by one where the kernel has none (it came with 5.14)."""
        if os.path.exists(f"{self.path}/cgroup.kill"):
            write(f"{self.path}/cgroup.kill", 1)

        def none_is_left() -> bool:
            left = self.procs()
            for pid in left:
                try:
                    os.kill(pid, SIGKILL)
                except ProcessLookupError:
                    continue
            return not left

        wait_until(none_is_left, every_s=0.005)

    def remove(self, limit_s: float = 20.0) -> None:
        """Remove it once it is empty. OSError EBUSY when something in it lives on.

        A zombie keeps its place in pids.current until it is reaped, perhaps by PID 1: that is waited for too, so that the next group
        begins at 0.
        """
        wait_until(self._is_empty, limit_s=limit_s)
        os.rmdir(self.path)

    def _is_empty(self) -> bool:
        if os.path.exists(f"{self.path}/pids.current"):
            return self.number("pids.current") == 0
        return not self.procs()


def enable(group: str, *controllers: str) -> None:
    """Have a group (a path; "" is the root) hand on controllers to those below it. OSError EBUSY when it has processes itself."""
    control = f"{V2}{group}/cgroup.subtree_control"
    there = read_once(control).decode().split()
    for each in controllers:
        if each not in there:
            write(control, f"+{each}")
