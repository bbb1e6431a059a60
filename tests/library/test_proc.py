"""Reading /proc, of processes that this test makes for it."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from vmlab_guest import proc
from vmlab_guest.child import Child, running
from vmlab_guest.wait import wait_for_state, wait_until


@contextlib.contextmanager
def named(name: str) -> Iterator[int]:
    """A child with a name of its own that waits to be killed."""

    def be_called() -> None:
        ctypes.CDLL(None).prctl(15, name.encode(), 0, 0, 0)  # PR_SET_NAME
        signal.pause()

    with Child(be_called) as child:
        assert wait_until(lambda: Path(f"/proc/{child.pid}/comm").read_text() == name + "\n")
        yield child.pid


@pytest.mark.parametrize("name", ["a b", ") R 1 (", "x) Z 7 7", "(((", "é ü"])
def test_the_name_of_a_command_may_hold_blanks_and_brackets(name: str) -> None:
    with named(name) as pid:
        fields = proc.stat(pid)
        assert (fields["comm"], fields["pid"], fields["ppid"]) == (name, pid, os.getpid())
        assert len(fields) == 52
        assert pid in proc.children_of(os.getpid())[1]
        assert next(each for each in proc.scan() if each["pid"] == pid)["comm"] == name
        assert proc.status(pid)["Name"] == name


def test_what_is_gone_is_none_or_an_error_that_says_so() -> None:
    pid = running(lambda: None)
    os.waitpid(pid, 0)
    assert proc.stat_or_none(pid) is None
    assert proc.status_or_none(pid) is None
    assert proc.identity(pid) is None
    for look in (proc.stat, proc.status, proc.masks, proc.threads):
        with pytest.raises(proc.GONE):
            look(pid)


def test_zombies_and_living_children_are_told_apart() -> None:
    with Child(signal.pause) as living:
        zombie = running(lambda: None)
        wait_for_state(zombie, "Z")
        before = proc.identity(zombie)
        zombies, others = proc.children_of(os.getpid())
        assert zombie in zombies
        assert living.pid in others
        assert {zombie, living.pid, os.getpid()} <= set(proc.processes())
        assert before == proc.identity(zombie)
        assert proc.status_kib("VmRSS", zombie) == 0 < proc.status_kib("VmRSS")
        os.waitpid(zombie, 0)


def test_masks_are_text_that_a_check_reads() -> None:
    def mask_some() -> None:
        signal.signal(signal.SIGUSR1, lambda *_: None)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_SETMASK, {signal.SIGTERM})
        signal.pause()

    with Child(mask_some) as child:
        assert wait_until(lambda: proc.signals_in(proc.mask("SigBlk", child.pid)) == [signal.SIGTERM])
        os.kill(child.pid, signal.SIGTERM)
        assert wait_until(lambda: proc.mask("ShdPnd", child.pid) == 1 << signal.SIGTERM - 1)
        masks = proc.masks(child.pid)
        assert set(masks) == set(proc.MASKS)
        assert all(text.startswith("0x") and int(text, 16) >= 0 for text in masks.values())
        assert signal.SIGUSR1 in proc.signals_in(proc.mask("SigCgt", child.pid))
        assert signal.SIGHUP in proc.signals_in(proc.mask("SigIgn", child.pid))
    assert proc.bits(0b1011) == [0, 1, 3]
    assert proc.signals_in(1 << 8) == [signal.SIGKILL]
    assert proc.bits(0) == []


def test_threads_and_their_own_stat() -> None:
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    try:
        assert thread.native_id is not None
        assert thread.native_id in proc.threads()
        assert proc.threads() == sorted(proc.threads())
        assert proc.stat("self", thread.native_id)["pid"] == thread.native_id
        assert proc.status("self", thread.native_id)["Tgid"] == str(os.getpid())
        owners, numbers = proc.tasks()
        assert (os.getpid(), os.getuid()) in owners
        assert {os.getpid(), thread.native_id, os.getpgrp(), os.getsid(0)} <= numbers
        assert proc.tasks_in_kernel() >= len(owners)
    finally:
        stop.set()
        thread.join()


def test_descriptors_and_their_offsets(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 100)
    descriptor = os.open(tmp_path / "file", os.O_RDONLY)
    try:
        os.read(descriptor, 42)
        assert proc.descriptors()[descriptor] == str(tmp_path / "file")
        assert proc.descriptor_info(descriptor)["pos"] == "42"
        assert descriptor in proc.descriptors(os.getpid())
    finally:
        os.close(descriptor)
    assert descriptor not in proc.descriptors()


def test_a_file_of_any_length_is_read_whole(tmp_path: Path) -> None:
    (tmp_path / "long").write_bytes(bytes(200_000))
    assert len(proc.read(str(tmp_path / "long"))) == 200_000
    assert len(proc.read_once(str(tmp_path / "long"))) == 1 << 16
    # One read of /proc/self/maps gives a page of text at most; this process has more.
    assert len(proc.read("/proc/self/smaps")) > 1 << 16


def test_a_value_is_put_back_whatever_happens(tmp_path: Path) -> None:
    file = tmp_path / "limit"
    file.write_text("4711\n")
    with pytest.raises(KeyError), proc.written(str(file), 7):
        assert file.read_text() == "7"
        raise KeyError
    assert file.read_text() == "4711"
    assert proc.number_in(str(file)) == 4711
    file.write_text("max\n")
    assert proc.number_in(str(file)) == -1
    with pytest.raises(FileNotFoundError), proc.written(str(tmp_path / "none"), 1):
        pass
    assert not (tmp_path / "none").exists()


def test_the_systems_own_account() -> None:
    assert proc.meminfo()["MemTotal"] * 1024 == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert proc.cpuinfo("no such field") == ""
    assert proc.cpuinfo("processor") == "0"
    assert proc.pid_inside(os.getpid()) == os.getpid()
    assert proc.error_name(OSError(2, "x")) == "ENOENT"
    assert proc.error_name(OSError(99999, "x")) == "99999"
    used = resource.getrusage(resource.RUSAGE_SELF).ru_utime
    assert abs(int(proc.stat()["utime"]) / proc.TICKS_A_SECOND - used) < 0.5
