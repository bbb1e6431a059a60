"""Machine code is the assembly beside it, and does what is said of it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest

from vmlab_guest import native
from vmlab_guest.child import Child
from vmlab_guest.native import Routine, Words
from vmlab_guest.wait import wait_until

RUNS = pytest.mark.skipif(not native.available(), reason="needs x86-64")
LISTED = re.compile(r"^\s+([0-9a-f]+):\t((?:[0-9a-f]{2} )+)\s*\t?(.*)$", re.MULTILINE)


def disassembled(code: bytes, scratch: Path) -> list[tuple[int, str, str]]:
    """Where each instruction is, its bytes, and its text as the assembler's own tool reads it."""
    (scratch / "code").write_bytes(code)
    command = ["objdump", "-D", "-b", "binary", "-m", "i386:x86-64", "-M", "intel", str(scratch / "code")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [(int(place, 16), code.replace(" ", ""), text) for place, code, text in LISTED.findall(done.stdout)]


def plain(text: str) -> str:
    """An instruction in one way of writing: no blanks, numbers in decimal, sizes only where they count."""
    text = re.sub(r"0x([0-9a-f]+)", lambda found: str(int(found[1], 16)), text.lower())
    return re.sub(r"\s+", "", text.replace("qword ptr ", ""))


def faults(lines: Sequence[native.Line], scratch: Path) -> list[str]:
    """Where the bytes are not the assembly beside them. A label stands for the place of its line."""
    found = disassembled(native.code_of(lines), scratch)
    labels = {text.partition(": ")[0]: place for (place, _, _), (_, text) in zip(found, lines, strict=False) if ": " in text}
    wrong = [] if len(found) == len(lines) else [f"{len(lines)} lines are {len(found)} instructions"]
    for (_, code, text), (ours, assembly) in zip(found, lines, strict=False):
        words = assembly.rpartition(": ")[2].split()
        if words[-1] in labels:
            words[-1] = str(labels[words[-1]])
        if code != ours or plain(text) != plain(" ".join(words)):
            wrong.append(f"{ours} is {text!r}, not {assembly!r}")
    return wrong


@pytest.mark.skipif(shutil.which("objdump") is None, reason="needs objdump")
@pytest.mark.parametrize("name", native.ROUTINES)
def test_the_bytes_are_the_assembly_beside_them(name: str, tmp_path: Path) -> None:
    assert not faults(native.ROUTINES[name], tmp_path)


@pytest.mark.skipif(shutil.which("objdump") is None, reason="needs objdump")
def test_control_other_bytes_are_seen(tmp_path: Path) -> None:
    assert faults([("48ffc1", "inc rax"), ("c3", "ret")], tmp_path)
    assert faults([("48ffc0", "inc rax"), ("75fc", "jne again"), ("c3", "again: ret")], tmp_path)
    assert faults([("48ffc0c3", "inc rax")], tmp_path)
    assert not faults([("48ffc0", "again: inc rax"), ("75fb", "jne again"), ("c3", "ret")], tmp_path)


@RUNS
@pytest.mark.parametrize("name", ["add", "add_apart", "add_in_one", "add_locked"])
def test_additions_alone_lose_nothing(name: str) -> None:
    words = Words(2)
    words[0], words[1] = 5, 99
    assert Routine(native.ROUTINES[name])(words.address(), 1000) == 1005
    assert (words[0], words[1]) == (1005, 99)


@RUNS
def test_two_that_add_with_a_lock_lose_nothing() -> None:
    words, add = Words(1), Routine(native.ADD_LOCKED)
    with Child(lambda: add(words.address(), 2_000_000)) as child:
        add(words.address(), 2_000_000)
        child.report()
    assert words[0] == 4_000_000


@RUNS
def test_a_loop_is_ended_by_a_word_in_memory() -> None:
    for name in ("spin", "hold"):
        words, routine = Words(2), Routine(native.ROUTINES[name])
        threading.Timer(0.05, words.__setitem__, (0, 1)).start()
        returned = routine(words.address(), 0xABC)
        assert returned > 1000 if name == "spin" else (returned, words[1]) == (0xABC, 0xABC)


@RUNS
def test_how_far_a_loop_has_come_is_seen_from_outside() -> None:
    words, store = Words(1), Routine(native.STORE)
    with Child(lambda: store(words.address(), 2_000_000_000)) as child:
        assert wait_until(lambda: 0 < words[0] < 2_000_000_000)
        before = words[0]
        assert wait_until(lambda: words[0] > before)
        assert child.pid
    assert store(words.address(), 77) == words[0] == 77


@RUNS
def test_system_calls_and_the_clock() -> None:
    assert Routine(native.GETPID)(0, 3) == os.getpid()
    assert Routine(native.YIELD)(0, 3) == 0
    clock = Routine(native.CLOCK)
    assert 0 < clock() < clock()


def test_elsewhere_it_is_an_error_that_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(machine="aarch64"))
    with pytest.raises(OSError, match="the machine is aarch64"):
        Routine(native.CLOCK)
