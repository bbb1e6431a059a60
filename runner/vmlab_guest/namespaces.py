"""Namespaces: one with a PID 1 of its own, its members, and the order in which it can end.

The trap that everyone meets: a PID namespace ends with its PID 1, and that one's end *waits* for every other member to be reaped
(kernel/pid_namespace.c, zap_pid_ns_processes). A member that was put in from outside has its parent outside: killed, it stays a zombie
until that parent reaps it, and until then PID 1 hangs in its own exit, where SIGKILL no longer reaches it.
`PidNamespace.end` does it in the order that works.
"""

import os

from vmlab_guest import syscalls
from vmlab_guest.child import running
from vmlab_guest.proc import GONE, SIGKILL, processes, stat_or_none
from vmlab_guest.wait import wait_to_read, wait_until

TYPE_CHECKING = False  # (mypy takes it for true; the real one is in typing, which takes 18 ms.)
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

KINDS = {
    "cgroup": syscalls.CLONE_NEWCGROUP,
    "ipc": syscalls.CLONE_NEWIPC,
    "mnt": syscalls.CLONE_NEWNS,
    "net": syscalls.CLONE_NEWNET,
    "pid": syscalls.CLONE_NEWPID,
    "time": syscalls.CLONE_NEWTIME,
    "user": syscalls.CLONE_NEWUSER,
    "uts": syscalls.CLONE_NEWUTS,
}
"""The kinds of namespaces by their names in /proc/PID/ns, and the flag of each, see namespaces(7)."""


def identity(pid: int | str = "self", kind: str = "pid") -> str | None:
    """Which namespace of a kind a process is in, such as "pid:[4026531836]"; None where none is to be seen.

    That is: when there is no such process, when we may not trace it (ptrace(2)), and of a zombie, which has given back all but that of
    its number.
    """
    try:
        return os.readlink(f"/proc/{pid}/ns/{kind}")
    except (*GONE, PermissionError):
        return None


class PidNamespace:
    """A PID namespace whose PID 1 does ``init``, for the block. ``more`` are kinds of namespaces made with it, such as "mnt" and "uts".

    With "mnt" it has a /proc of its own. ``init`` is its PID 1 as the outside numbers it. What PID 1 does is up to the lab: wait, reap,
    ignore.
    """

    def __init__(self, init: "Callable[[], object]", *more: str) -> None:
        self._work = init
        self._kinds = ("pid", *more)
        self._keepers: dict[int, int] = {}
        self._ended = False

    def __enter__(self) -> "Self":
        reading, writing = os.pipe()

        def be_the_helper() -> None:
            # Only *children* made after unshare are in the new PID namespace, so a helper unshares and its child is PID 1 there.
            os.close(reading)
            syscalls.unshare(sum(KINDS[kind] for kind in self._kinds))
            init = running(lambda: self._be_pid_1(writing))
            os.write(writing, f"{init}\n".encode())
            _wait_for(init)

        self.helper = running(be_the_helper)
        os.close(writing)
        with open(reading, closefd=True) as pipe:
            # (PID 1 keeps no end of this pipe, so this ends also when the helper breaks.)
            line = pipe.readline()
        if not line:
            _, status = os.waitpid(self.helper, 0)
            raise ChildProcessError(10, f"no namespace could be made: the helper ended with {status}")  # ECHILD
        self.init = int(line)
        self.identity = identity(self.init)
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def _be_pid_1(self, writing: int) -> object:
        os.close(writing)
        if "mnt" in self._kinds:
            # Else a mount in here would be one of the outside too, where systemd has made the root shared (mount_namespaces(7)).
            syscalls.mount("none", "/", flags=syscalls.MS_REC | syscalls.MS_PRIVATE)
            syscalls.mount("proc", "/proc", "proc", syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC)
        return self._work()

    def enter(self, work: "Callable[[], object]") -> int:
        """Put a member into the world, from outside, that does this work: its process id outside.

        Its parent is a keeper outside, which does nothing but reap it; it ends as `vmlab_guest.child.running` says.
        """
        reading, writing = os.pipe()

        def be_the_keeper() -> None:
            os.close(reading)
            for kind in sorted(self._kinds, key=lambda kind: kind == "mnt"):  # (/proc is another one afterwards.)
                namespace = os.open(f"/proc/{self.init}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC)
                syscalls.setns(namespace, KINDS[kind])
                os.close(namespace)

            def be_the_member() -> None:
                os.close(writing)
                work()

            member = running(be_the_member)
            os.write(writing, f"{member}\n".encode())
            _wait_for(member)

        keeper = running(be_the_keeper)
        os.close(writing)
        try:
            line = os.read(reading, 32) if wait_to_read(reading) else b""
        finally:
            os.close(reading)
        if not line.strip():
            os.kill(keeper, SIGKILL)
            os.waitpid(keeper, 0)
            raise ChildProcessError(10, "no member could be put into the namespace")  # ECHILD
        member = int(line)
        self._keepers[member] = keeper
        return member

    def members(self) -> list[int]:
        """The processes in the world as the outside numbers them, zombies too, PID 1 among them. (Those of worlds within it are not.)"""
        return [pid for pid in processes() if self._has(pid)]

    def _has(self, pid: int) -> bool:
        return self.identity is not None and identity(pid) == self.identity

    def end(self, limit_s: float = 20.0) -> dict[str, object]:
        """Kill PID 1, and with it the namespace, and leave no zombie of ours; once is enough, a second time it says nothing new.

        First the members that were put in from outside are killed and reaped, then PID 1: see the module's text. ``in_time`` is whether
        all were gone within the limit; nothing here waits for ever.
        """
        if self._ended:
            return {"in_time": True, "members_killed": 0}
        # (One that its keeper has reaped is gone, and another process may have its number by now: its namespace tells.)
        killed = [member for member in self._keepers if self._has(member) and _kill(member)]
        reaped = [_reaped(keeper, limit_s) for keeper in self._keepers.values()]
        self._keepers.clear()
        if self._has(self.init):
            _kill(self.init)
        reaped.append(_reaped(self.helper, limit_s))
        self._ended = True
        return {"in_time": all(reaped), "members_killed": len(killed)}

    def is_over(self) -> bool:
        """Whether its PID 1 is gone: dead, and reaped by its helper."""
        return stat_or_none(self.init) is None


def _wait_for(child: int) -> None:
    """Do nothing more than reap a child. What the caller has open is closed: nobody waits for a pipe's end because of us."""
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    os.waitpid(child, 0)


def _kill(pid: int) -> bool:
    try:
        os.kill(pid, SIGKILL)
    except ProcessLookupError:
        return False
    return True


def _reaped(pid: int, limit_s: float) -> bool:
    """Whether a child of ours could be reaped within the limit."""
    return wait_until(lambda: os.waitpid(pid, os.WNOHANG)[0] == pid, limit_s=limit_s, every_s=0.002)
