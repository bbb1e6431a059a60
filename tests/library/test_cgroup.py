"""Control groups, where this machine has any that can be made: the guest test has cgroup v2 with all its controllers."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from vmlab_guest import cgroup
from vmlab_guest.cgroup import Cgroup
from vmlab_guest.child import Child, exit_at_once

CAN = os.geteuid() == 0 and os.access(f"{cgroup.hierarchy()}/cgroup.procs", os.W_OK)
NEEDED = pytest.mark.skipif(not CAN, reason="needs root and a writable cgroup with the pids controller")


@NEEDED
def test_a_group_has_its_members_and_its_limit() -> None:
    with Cgroup("test") as group:
        assert group.name == f"/vmlab-test-{os.getpid()}"

        def work() -> str | None:
            group.enter()
            try:
                os.waitpid(exit_at_once(), 0)
            except BlockingIOError:
                return "EAGAIN"
            return None

        assert (group.procs(), group.number("pids.max"), group.number("pids.current")) == ([], -1, 0)
        group.set("pids.max", 1)
        with Child(work) as child:
            assert child.report() == "EAGAIN"
        assert group.events("pids.events")["max"] >= 1
        group.set("pids.max", "max")
        with Child(work) as child:
            assert child.report() is None
    assert not Path(group.path).exists()


@NEEDED
def test_whoever_is_in_it_can_be_killed() -> None:
    with Cgroup("kill") as group, Child(signal.pause) as child:
        group.enter(child.pid)
        assert group.procs() == [child.pid]
        assert cgroup.current("pids", child.pid) == group.name
        killer = Child(group.kill)
        with killer:
            assert child.reap()["killed_by"] == "SIGKILL"
            assert killer.reap()["exited"] == 0


@NEEDED
def test_a_group_that_is_in_use_is_not_removed_and_that_is_told() -> None:
    with Cgroup("busy") as group, Child(signal.pause) as child:
        group.enter(child.pid)
        with pytest.raises(OSError, match="busy"):
            group.remove(limit_s=0.05)
        child.__exit__()
        child._reading = os.open(os.devnull, os.O_RDONLY)  # (The block closes it again.)


@NEEDED
def test_a_group_within_another() -> None:
    with Cgroup("outer") as outer, Cgroup("inner", below=outer.name) as inner:
        assert inner.name.startswith(f"{outer.name}/vmlab-inner-")
        assert cgroup.up_to_root(inner.name) == [inner.name, outer.name]


def test_the_groups_above_one() -> None:
    assert cgroup.up_to_root("/") == []
    assert cgroup.up_to_root("/a.slice/b.service") == ["/a.slice/b.service", "/a.slice"]


@pytest.fixture
def unified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tree that looks like cgroup v2, to see what is written where."""
    monkeypatch.setattr(cgroup, "V2", str(tmp_path))
    (tmp_path / "cgroup.controllers").write_text("cpu memory pids\n")
    (tmp_path / "cgroup.subtree_control").write_text("memory pids\n")
    return tmp_path


def test_controllers_are_handed_on_from_the_root_down(unified: Path) -> None:
    (unified / "outer").mkdir()
    (unified / "outer" / "cgroup.subtree_control").write_text("\n")
    with Cgroup("burn", "cpu", below="/outer") as group:
        assert (unified / "cgroup.subtree_control").read_text() == "+cpu"
        assert (unified / "outer" / "cgroup.subtree_control").read_text() == "+cpu"
        for name, text in (("cpu.stat", "usage_usec 5\nnr_throttled 2\n"), ("cgroup.procs", ""), ("cpu.max", "max 100000\n")):
            Path(group.path, name).write_text(text)
        assert group.events("cpu.stat") == {"usage_usec": 5, "nr_throttled": 2}
        group.set("cpu.max", "20000 100000")
        assert Path(group.path, "cpu.max").read_text() == "20000 100000"
        for file in Path(group.path).iterdir():
            file.unlink()
        Path(group.path, "cgroup.procs").touch()
        group._is_empty = _and_emptied(group)  # type: ignore[method-assign]


def _and_emptied(group: Cgroup) -> Callable[[], bool]:
    """A directory of the kernel's can be removed with its files; ours cannot."""

    def is_empty() -> bool:
        Path(group.path, "cgroup.procs").unlink()
        return True

    return is_empty


def test_what_is_handed_on_already_is_not_written_again(unified: Path) -> None:
    cgroup.enable("", "pids", "memory")
    assert (unified / "cgroup.subtree_control").read_text() == "memory pids\n"
