"""Another process's memory, looked at on this machine: a child that keeps some and says where."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from vmlab.errors import HostError
from vmlab.host import pages
from vmlab.host.pages import HostPage, ProcessMemory

CHILD = """
import ctypes, mmap, sys
memory = mmap.mmap(-1, 8 * 4096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
memory.madvise(mmap.MADV_NOHUGEPAGE)
memory[0:6] = b"marker"
print(ctypes.addressof(ctypes.c_char.from_buffer(memory)), flush=True)
for line in sys.stdin:
    memory[4096 * int(line)] = 1
    print(memory[0:6].decode(), flush=True)
"""


@dataclass
class Child:
    process: subprocess.Popen[str]
    address: int

    @property
    def memory(self) -> ProcessMemory:
        return ProcessMemory(self.process.pid)

    def touch(self, page: int) -> str:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{page}\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()


@pytest.fixture
def child() -> Iterator[Child]:
    with subprocess.Popen([sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield Child(process, int(process.stdout.readline()))
        assert process.stdin is not None
        process.stdin.close()


def test_what_the_process_stored_is_read(child: Child) -> None:
    assert child.memory.read(child.address, 6) == b"marker"


def test_what_is_stored_reaches_the_process(child: Child) -> None:
    child.memory.write(child.address, b"MARKER")
    assert child.touch(1) == "MARKER"


def test_a_page_is_there_once_it_was_touched(child: Child) -> None:
    before = child.memory.pages(child.address, 8)
    assert [page.own for page in before] == [True] + [False] * 7
    assert [page.frame for page in before[1:]] == [None] * 7
    child.touch(5)
    assert [page.own for page in child.memory.pages(child.address, 8)] == [number in (0, 5) for number in range(8)]


def test_the_frame_is_shown_to_root_alone(child: Child) -> None:
    (page,) = child.memory.pages(child.address)
    assert (page.frame is not None) == (os.geteuid() == 0)


def test_a_frame_of_zero_is_a_hidden_one() -> None:
    assert HostPage(1 << 63).frame is None
    assert HostPage(1 << 63 | 5).frame == 5
    assert HostPage(1 << 62 | 5).frame is None, "swapped out: what looks like a frame is a place in swap"
    assert not HostPage(1 << 63 | 1 << 61 | 5).own


def test_the_mapping_grows_page_by_page(child: Child) -> None:
    before = child.memory.mapping(child.address)
    child.touch(3)
    after = child.memory.mapping(child.address + 4096)
    assert before is not None
    assert after is not None
    assert before.start <= child.address < before.end
    assert after.own_bytes == before.own_bytes + 4096
    assert after.resident_bytes == before.resident_bytes + 4096


def test_an_address_in_no_mapping(child: Child) -> None:
    assert child.memory.mapping(0x1000) is None
    for look in (lambda: child.memory.read(0x1000, 1), lambda: child.memory.write(0x1000, b"x")):
        with pytest.raises(HostError, match="Bad address"):
            look()


def test_a_process_that_is_gone(child: Child) -> None:
    memory, address = child.memory, child.address
    child.process.kill()
    child.process.wait()
    for look in (lambda: memory.read(address, 1), lambda: memory.pages(address), lambda: memory.mapping(address)):
        with pytest.raises(HostError, match="No such"):
            look()


def test_physical_memory_is_read_or_it_is_said_why_not(child: Child) -> None:
    (page,) = child.memory.pages(child.address)
    if page.frame is None:
        pytest.skip("frames are shown to root alone")
    try:
        content = pages.read_physical(page.frame * pages.PAGE_BYTES + child.address % pages.PAGE_BYTES, 6)
    except HostError as exc:
        assert "/proc/kcore" in exc.message
    else:
        assert content == b"marker"
