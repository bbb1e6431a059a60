"""Pages: where they lie, what is cached, what a mapping holds."""

from __future__ import annotations

import mmap
import os
import random
from pathlib import Path

import pytest

from vmlab_guest import pages, syscalls
from vmlab_guest.pages import EXCLUSIVE, FILE_OR_SHARED, FRAME, PAGE_BYTES, PRESENT, SOFT_DIRTY, SWAPPED, Memory, Pagemap

ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="frame numbers need root")


def test_a_page_has_an_entry_once_it_was_touched() -> None:
    memory = Memory(8 * PAGE_BYTES)
    with Pagemap() as pagemap:
        assert pagemap.frames(memory.address, 8) == [None] * 8
        assert pagemap.entry(memory.address) & PRESENT == 0
        memory.touch(2, 3)
        present = [bool(entry & PRESENT) for entry in pagemap.entries(memory.address, 8)]
        assert present == [False, False, True, True, True, False, False, False]
        memory.touch()
        assert all(entry & PRESENT for entry in pagemap.entries(memory.address, 8))
        with pytest.raises(OSError, match="the kernel tells nothing"):
            pagemap.entry(1 << 63)
    with pytest.raises(OSError, match="Bad file"):
        pagemap.entry(memory.address)


@ROOT
def test_frames_are_told_to_root() -> None:
    memory = Memory(64 * PAGE_BYTES)
    memory.touch()
    with Pagemap(os.getpid()) as pagemap:
        frames = pagemap.frames(memory.address, 64)
    assert None not in frames
    assert len(set(frames)) == 64
    assert sum(count for _, count in pages.runs([frame for frame in frames if frame])) == 64


def test_an_entry_in_words() -> None:
    assert pages.described(PRESENT | EXCLUSIVE | 42) == {
        "frame": 42,
        "present": True,
        "swapped": False,
        "file_or_shared": False,
        "exclusive": True,
        "soft_dirty": False,
    }
    assert pages.described(SWAPPED | FILE_OR_SHARED | SOFT_DIRTY | 42)["frame"] is None
    assert pages.frame(PRESENT | SOFT_DIRTY | FRAME) == FRAME


def test_neighbours_are_told_in_one() -> None:
    assert pages.runs([]) == []
    assert pages.runs([7, 8, 9, 3, 4, 9]) == [[7, 3], [3, 2], [9, 1]]
    frames = random.Random(1).sample(range(100), 60)
    assert [first + place for first, count in pages.runs(frames) for place in range(count)] == frames


@pytest.mark.parametrize("large", [False, True])
def test_memory_of_a_kind(large: bool) -> None:
    memory = Memory(2 * pages.LARGE_BYTES, large=large)
    assert memory.address % pages.LARGE_BYTES == 0
    assert len(memory.view) == 2 * pages.LARGE_BYTES
    assert memory.large_bytes() == 0
    memory.touch()
    # (Large pages are given where there are some to give.)
    assert memory.large_bytes() in ((0, pages.LARGE_BYTES, 2 * pages.LARGE_BYTES) if large else (0,))
    seen = pages.smaps(memory.address)
    assert seen["Rss"] >= 4096
    assert pages.smaps(memory.address + 2 * pages.LARGE_BYTES - 1) == seen
    assert pages.smaps(0) == {}
    memory.view[0:4] = b"here"
    with pytest.raises(IndexError):
        memory.touch(2 * pages.LARGE_BYTES // PAGE_BYTES, 1)


def test_the_mappings_of_a_process(tmp_path: Path) -> None:
    path = tmp_path / "a file"
    path.write_bytes(bytes(2 * PAGE_BYTES))
    with path.open("r+b") as file, mmap.mmap(file.fileno(), PAGE_BYTES, offset=PAGE_BYTES) as mapping:
        (found,) = [each for each in pages.maps() if each["name"] == str(path)]
        start = pages.address_of(mapping)
    assert (found["start"], found["end"], found["offset"], found["permissions"]) == (start, start + PAGE_BYTES, PAGE_BYTES, "rw-s")
    assert next(each for each in pages.maps() if each["name"] == "[stack]")


def test_faults_are_counted() -> None:
    memory = Memory(256 * PAGE_BYTES)
    before = pages.faults()
    memory.touch()
    assert 256 <= pages.faults()[0] - before[0] < 300


@pytest.mark.parametrize("told_by", ["cachestat", "mincore"])
def test_what_of_a_file_is_cached(told_by: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if told_by == "mincore":

        def refuse(*_: int) -> dict[str, int]:
            raise OSError(38, "cachestat")

        monkeypatch.setattr(syscalls, "cachestat", refuse)
    path = tmp_path / "file"
    path.write_bytes(bytes(10 * PAGE_BYTES + 1))
    os.sync()
    seen = pages.cached(str(path))
    assert (seen["pages"], seen["cache"]) == (11, 11)
    if told_by == "mincore":
        assert seen["dirty"] is None
    path.write_bytes(b"")
    assert pages.cached(str(path))["cache"] == 0
    with pytest.raises(FileNotFoundError):
        pages.cached(str(tmp_path / "none"))


def test_an_error_that_is_no_absence_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def break_down(*_: int) -> dict[str, int]:
        raise OSError(5, "cachestat")

    monkeypatch.setattr(syscalls, "cachestat", break_down)
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(OSError, match="cachestat"):
        pages.cached(str(tmp_path / "file"))


def test_what_of_a_mapping_is_resident() -> None:
    memory = mmap.mmap(-1, 4 * PAGE_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_NOHUGEPAGE)
    memory[PAGE_BYTES] = 1
    assert pages.resident(memory) == [False, True, False, False]
