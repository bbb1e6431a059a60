"""Little worlds: they begin, have members, and end in the only order that works."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from vmlab_guest import child, namespaces, proc, syscalls
from vmlab_guest.namespaces import PidNamespace
from vmlab_guest.wait import wait_for_state, wait_until


def can_make_one() -> bool:
    try:
        with PidNamespace(signal.pause):
            return True
    except OSError:
        return False


pytestmark = pytest.mark.skipif(os.geteuid() != 0 or not can_make_one(), reason="needs root, and a system that lets it make namespaces")


def test_a_world_has_a_pid_1_and_members() -> None:
    with PidNamespace(signal.pause) as world:
        member = world.enter(signal.pause)
        assert (proc.pid_inside(world.init), proc.pid_inside(member)) == (1, 2)
        assert world.members() == sorted([world.init, member])
        assert namespaces.identity(member) == world.identity != namespaces.identity()
        assert not world.is_over()
        # The member's parent is outside, as 0 shows inside; it is no child of PID 1.
        assert member not in {each for group in proc.children_of(world.init) for each in group}
    assert world.is_over()
    assert proc.stat_or_none(member) is None
    assert world.members() == []
    assert not [pid for pid in proc.children_of(os.getpid())[0] if pid == world.helper]


def test_a_world_without_an_end_ends_with_the_block() -> None:
    with pytest.raises(KeyError), PidNamespace(signal.pause) as world:
        raise KeyError
    assert world.is_over()


def test_a_pid_1_that_has_exited_is_over_too() -> None:
    with PidNamespace(lambda: None) as world:
        assert wait_until(world.is_over)
    assert world.end() == {"in_time": True, "members_killed": 0}


def test_a_second_end_says_nothing_new() -> None:
    with PidNamespace(signal.pause) as world:
        world.enter(signal.pause)
        assert world.end() == {"in_time": True, "members_killed": 1}
        assert world.end() == {"in_time": True, "members_killed": 0}


def test_the_trap_a_member_that_nobody_reaps_keeps_pid_1_from_ending() -> None:
    """What `end` is written for: the kernel fact, made by hand, and then undone."""
    with PidNamespace(signal.pause) as world:
        member = world.enter(signal.pause)
        keeper = world._keepers[member]
        os.kill(keeper, signal.SIGSTOP)  # A parent outside that does not reap.
        wait_for_state(keeper, "T")
        os.kill(world.init, signal.SIGKILL)
        assert wait_for_state(member, "Z") == "Z"  # The kernel has killed it with its PID 1 ...
        time.sleep(0.2)
        assert not world.is_over()  # ... which cannot end before it is reaped.
        os.kill(keeper, signal.SIGCONT)
        assert wait_until(world.is_over)


def test_an_end_that_cannot_be_is_told_and_not_waited_for_for_ever() -> None:
    with PidNamespace(signal.pause) as world:
        member = world.enter(signal.pause)
        keeper = world._keepers[member]
        os.kill(keeper, signal.SIGSTOP)
        threading.Timer(0.6, os.kill, (keeper, signal.SIGCONT)).start()
        began = time.monotonic()
        assert world.end(limit_s=0.1)["in_time"] is False
        assert time.monotonic() - began < 0.6
    # (The keeper and the helper are reaped by whoever is left.)
    for pid in (keeper, world.helper):
        os.waitpid(pid, 0)


def test_a_world_of_its_own_proc_and_name() -> None:
    reading, writing = os.pipe()
    before = Path("/proc/self/mounts").read_text()

    def look() -> None:
        os.write(writing, repr((os.getpid(), list(proc.processes()), proc.stat()["pid"])).encode())
        signal.pause()

    with PidNamespace(look, "mnt", "uts") as world:
        assert os.read(reading, 1000) == b"(1, [1], 1)"
        member = world.enter(lambda: os.write(writing, repr((os.getpid(), list(proc.processes()))).encode()))
        assert os.read(reading, 1000) == b"(2, [1, 2])"
        assert namespaces.identity(world.init, "uts") != namespaces.identity("self", "uts")
        assert namespaces.identity(world.init, "net") == namespaces.identity("self", "net")
        assert wait_until(lambda: proc.stat_or_none(member) is None)
    assert Path("/proc/self/mounts").read_text() == before
    os.close(reading)
    os.close(writing)


def test_a_world_does_not_hold_the_callers_pipes_open() -> None:
    reading, writing = os.pipe()

    def init() -> None:
        os.close(writing)
        signal.pause()

    def member() -> None:
        os.close(writing)
        signal.pause()

    with PidNamespace(init) as world:
        world.enter(member)
        os.close(writing)
        assert os.read(reading, 1) == b""
    os.close(reading)


def test_orphans_of_a_world_are_adopted_in_it() -> None:
    with PidNamespace(signal.pause) as world:
        world.enter(lambda: child.running(signal.pause))

        def adopted() -> set[int]:
            return proc.children_of(world.init)[1]

        assert wait_until(lambda: len(adopted()) == 1)
        (orphan,) = adopted()
        assert proc.pid_inside(orphan) == 3
    assert proc.stat_or_none(orphan) is None


def test_no_world_where_the_kernel_makes_none(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    def refuse(_: int) -> Any:
        raise PermissionError(1, "unshare")

    monkeypatch.setattr(syscalls, "unshare", refuse)
    with pytest.raises(ChildProcessError, match="no namespace could be made"), PidNamespace(signal.pause):
        pass
    assert "PermissionError" in capfd.readouterr().err


def test_what_is_not_there_has_no_namespace() -> None:
    pid = child.exit_at_once()
    os.waitpid(pid, 0)
    assert namespaces.identity(pid) is None
