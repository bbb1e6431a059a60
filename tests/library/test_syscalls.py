"""System calls by name, each by its effect and by its error."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import platform
import re
import shutil
import signal
import subprocess
import tempfile
import threading
from pathlib import Path

import pytest

from vmlab_guest import native, proc, syscalls
from vmlab_guest.child import Child
from vmlab_guest.pages import address_of
from vmlab_guest.syscalls import CLONE_FILES, CLONE_VM, REGISTERS, Traced, clone, kcmp, same, same_file
from vmlab_guest.wait import wait_for_state, wait_until

X86 = pytest.mark.skipif(platform.machine() != "x86_64", reason="needs x86-64")


def test_a_call_by_its_name_and_its_error() -> None:
    assert syscalls.syscall("getpid") == os.getpid()
    assert syscalls.gettid() == threading.get_native_id()
    with pytest.raises(ProcessLookupError, match="tgkill"):
        syscalls.syscall("tgkill", 1 << 22, 1 << 22, 0)
    with pytest.raises(OSError, match="not known here") as caught:
        syscalls.syscall("no such call")
    assert caught.value.errno == errno.ENOSYS


@pytest.mark.skipif(shutil.which("gcc") is None, reason="needs a compiler and the kernel's headers")
def test_the_numbers_are_those_of_the_kernels_headers() -> None:
    command = ["gcc", "-E", "-dM", "-include", "sys/syscall.h", "-x", "c", os.devnull]
    text = subprocess.run(command, capture_output=True, text=True, check=False)
    if text.returncode:
        pytest.skip("needs the kernel's headers")
    told = dict(line.split()[1:3] for line in text.stdout.splitlines() if line.startswith("#define __NR_") and len(line.split()) == 3)
    ours = {name: number for name, number in syscalls.NUMBERS.items() if f"__NR_{name}" in told}
    assert len(ours) > 20
    assert {name: int(told[f"__NR_{name}"]) for name in ours} == ours


GENERIC = Path("/usr/include/asm-generic/unistd.h")


@pytest.mark.skipif(not GENERIC.exists(), reason="needs the kernel's headers")
def test_the_numbers_of_other_machines_are_those_of_the_generic_table() -> None:
    told = dict(re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)\b", GENERIC.read_text()))
    ours = {name: number for name, number in {**syscalls._SHARED, **syscalls._GENERIC}.items() if name in told}
    assert len(ours) > 20
    assert {name: int(told[name]) for name in ours} == ours


def reap(pid: int) -> int:
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    syscalls.forget(pid)
    return status


def test_children_that_differ_in_their_flags_alone() -> None:
    """One writes into a buffer: with CLONE_VM it is ours, without it the child's own."""
    for flags, seen in ((0, b""), (CLONE_VM, b"Linux")):
        buffer = mmap.mmap(-1, 4096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        reap(clone(flags, "uname", address_of(buffer)))
        assert buffer[:5].rstrip(b"\0") == seen
    pid = clone(0, "getpid")
    assert reap(pid) == pid & 0xFF  # (What it returns is its exit status.)


def test_what_two_tasks_share() -> None:
    try:
        kcmp(os.getpid(), os.getpid(), "VM")
    except OSError as exc:
        pytest.skip(f"no kcmp here: {exc}")
    read_end, write_end = os.pipe()
    pids = []
    # (pause(2) of the C library, so that they stay; the second shares the table of descriptors.)
    for flags in (0, CLONE_FILES):
        pids.append(clone(flags, "pause"))
    try:
        assert [same(os.getpid(), pid, "FILES") for pid in pids] == [False, True]
        assert not any(same(os.getpid(), pid, "VM") for pid in pids)
        assert same_file(os.getpid(), read_end, pids[0], read_end)
        assert not same_file(os.getpid(), read_end, pids[0], write_end)
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
            reap(pid)
        os.close(read_end)
        os.close(write_end)


def test_a_subreaper_and_a_refusal() -> None:
    def look() -> list[bool]:
        before = syscalls.is_subreaper()
        syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 1)
        return [before, syscalls.is_subreaper()]

    with Child(look) as child:
        assert child.report() == [False, True]
    with pytest.raises(OSError, match="prctl") as caught:
        syscalls.prctl(-1)
    assert caught.value.errno == errno.EINVAL


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_a_name_of_its_own() -> None:
    def work() -> list[bool]:
        import socket

        before = socket.gethostname()
        syscalls.unshare(syscalls.CLONE_NEWUTS)
        socket.sethostname("elsewhere")
        inside = socket.gethostname()
        outer = os.open(f"/proc/{os.getppid()}/ns/uts", os.O_RDONLY)
        syscalls.setns(outer, syscalls.CLONE_NEWUTS)
        return [inside == "elsewhere", socket.gethostname() == before]

    with Child(work) as child:
        assert child.report() == [True, True]
    with pytest.raises(OSError, match="setns"):
        syscalls.setns(-1)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_a_mount_and_its_end() -> None:
    def work() -> list[bool]:
        syscalls.unshare(syscalls.CLONE_NEWNS)
        syscalls.mount("none", "/", flags=syscalls.MS_REC | syscalls.MS_PRIVATE)
        with tempfile.TemporaryDirectory() as place:
            syscalls.mount("tmpfs", place, "tmpfs", syscalls.MS_NODEV, "size=64k")
            there = Path(place).is_mount()
            syscalls.umount(place)
            return [there, not Path(place).is_mount()]

    with Child(work) as child:
        assert child.report() == [True, True]
    with pytest.raises(OSError, match="mount /no/such"):
        syscalls.mount("none", "/no/such/place", "tmpfs")
    with pytest.raises(OSError, match="umount /no/such"):
        syscalls.umount("/no/such/place", lazily=True)


@X86
def test_a_task_is_traced_step_by_step() -> None:
    hold = native.Routine(native.HOLD)
    marker = 0x1111222233334444
    words = native.Words(2)
    with Child(lambda: hold(words.address(), marker)) as child:
        assert wait_until(lambda: words[1] == marker)
        with Traced(child.pid) as traced:
            traced.stop()
            found = syscalls.registers(child.pid)
            assert set(found) == set(REGISTERS)
            assert hold.holds(found["rip"])
            assert found["rbx"] == marker
            places = set()
            for _ in range(9):
                traced.step()
                places.add(syscalls.registers(child.pid)["rip"] - hold.address)
            assert places <= {4, 8, 12} and len(places) == 3
            syscalls.set_registers(child.pid, {"rbx": 7})
            traced.go_on()
            assert wait_until(lambda: words[1] == 7)
        words[0] = 1
        assert child.report() == 7
    assert not hold.holds(hold.address + hold.size)


def test_a_task_that_is_not_there_is_not_traced() -> None:
    with Child(lambda: None) as child:
        child.reap()
        with pytest.raises(OSError, match="ptrace"), Traced(child.pid):
            pass


def test_a_traced_task_that_ends_is_told() -> None:
    with Child(signal.pause) as child:
        wait_for_state(child.pid, "S")
        with pytest.raises(ChildProcessError, match="has ended"), Traced(child.pid) as traced:
            os.kill(child.pid, signal.SIGKILL)
            traced.stop()
        child._ending = {}  # (It was reaped by waiting for its stop.)


def test_how_a_task_is_scheduled() -> None:
    def work() -> list[object]:
        os.nice(3)
        before = syscalls.sched_getattr()
        syscalls.sched_setattr(0, policy=os.SCHED_BATCH)
        after = syscalls.sched_getattr()
        return [before["policy"], before["nice"], after["policy"], after["nice"], os.sched_getscheduler(0)]

    with Child(work) as child:
        assert child.report() == [os.SCHED_OTHER, 3, os.SCHED_BATCH, 3, os.SCHED_BATCH]
    with pytest.raises(OSError, match="sched_setattr"):
        syscalls.sched_setattr(0, policy=99)


def test_a_grace_period_or_none() -> None:
    assert isinstance(syscalls.wait_for_grace_period(), bool)


def test_a_thread_ends_alone() -> None:
    def work() -> None:
        reading, writing = os.pipe()
        threading.Thread(target=lambda: (os.read(reading, 1), os._exit(7))).start()
        threading.Timer(0.3, os.write, (writing, b"x")).start()
        syscalls.exit_thread()

    with Child(work) as child:
        assert wait_for_state(child.pid, "Z") == "Z"  # The leader's state; other threads live on.
        assert int(proc.stat(child.pid)["num_threads"]) > 1
        assert child.reap()["exited"] == 7


@X86
def test_the_thread_pointer_is_what_the_registers_say() -> None:
    def work() -> int:
        pointer = syscalls.thread_pointer()
        signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)
        return pointer

    with Child(work) as child:
        wait_for_state(child.pid, "T")
        with Traced(child.pid) as traced:
            traced.stop()
            seen = syscalls.registers(child.pid)["fs_base"]
        os.kill(child.pid, signal.SIGCONT)
        assert child.report() == seen


def test_cachestat_or_its_absence(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(bytes(40_960))
    with file.open("rb") as opened:
        try:
            seen = syscalls.cachestat(opened.fileno())
        except OSError as exc:
            assert exc.errno in (errno.ENOSYS, errno.EPERM, errno.EOPNOTSUPP)
            pytest.skip(f"no cachestat here: {exc}")
    assert set(seen) == {"cache", "dirty", "writeback", "evicted", "recently_evicted"}
    assert seen["cache"] == 10


def test_the_errors_name_is_pythons_own() -> None:
    ctypes.set_errno(errno.EACCES)
    assert isinstance(syscalls.failed("x"), PermissionError)
