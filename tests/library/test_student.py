"""What of students' programs needs no guest: attempts as files, limits, what the keeper tells. (The rest: tests/guest/test_student.py.)"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from vmlab_guest import proc
from vmlab_guest.cgroup import Cgroup
from vmlab_guest.child import running
from vmlab_guest.keeper import END, OUT, Ends, Log, close_all_but
from vmlab_guest.sandbox import HOME, SUPPORT, Limits, Order, World
from vmlab_guest.student import Program

LIMITS = {"time_s": 10, "memory_mib": 64, "output_kib": 64, "processes": 16}


def hand_in(folder: Path, files: dict[str, bytes], **changed: Any) -> Path:
    for name, content in files.items():
        path = folder / "files" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    attempt = {"task": "t", "program": next(iter(files)), "as_root": False, "limits": LIMITS}
    (folder / "attempt.json").write_text(json.dumps(attempt | changed))
    return folder


def test_an_attempt_is_read(tmp_path: Path) -> None:
    program = Program(str(hand_in(tmp_path, {"reaper.c": b"int x;\n", "more/list.h": b"\xff"})))
    assert (program.task, program.name, program.stem, program.language, program.as_root) == ("t", "reaper.c", "reaper", "c", False)
    assert program.files == {"reaper.c": b"int x;\n", "more/list.h": b"\xff"}
    assert program.limits.told == LIMITS


@pytest.mark.parametrize(
    ("files", "changed"),
    [
        ({"reaper.rs": b""}, {}),
        ({"reaper.py": b""}, {"program": "other.py"}),
        ({"reaper": b""}, {}),
        ({"a.py": b""}, {"program": "../a.py"}),
    ],
)
def test_an_attempt_that_is_none(tmp_path: Path, files: dict[str, bytes], changed: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="no program that was handed in"):
        Program(str(hand_in(tmp_path, files, **changed)))
    with pytest.raises(FileNotFoundError):
        Program(str(tmp_path / "none"))


@pytest.mark.parametrize(
    ("name", "source", "words"),
    [
        ("a.py", b"x\n\ny\0", "a.py:3: error: there is a NUL byte: is this a text file?\n"),
        ("a.sh", b"x\r\n", "a.sh:1: error: the lines end in CR LF, as on Windows; sh takes the CR for a part of the last word\n"),
        ("a.sh", b"\xef\xbb\xbfx", "a.sh:1: error: the file begins with a byte order mark, which sh takes for a part of the first word\n"),
    ],
)
def test_a_source_that_is_no_text_starts_no_compiler(tmp_path: Path, name: str, source: bytes, words: str) -> None:
    built = Program(str(hand_in(tmp_path, {name: source}))).build()
    assert built == {"language": {"a.py": "python", "a.sh": "sh"}[name], "built": False, "messages": words, "missing": ""}


def test_no_compiler_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vmlab_guest.student._TCC", "/no/tcc")
    program = Program(str(hand_in(tmp_path, {"a.c": b""})))
    assert program.build() == {"language": "c", "built": False, "messages": "", "missing": "tcc"}
    with pytest.raises(OSError, match=r"a\.c cannot be compiled: there is no tcc"):
        program.running()


def test_limits_are_imposed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    group = Cgroup("x")
    group.path = str(tmp_path)
    written: dict[str, object] = {}
    monkeypatch.setattr(Cgroup, "set", lambda _, file, value: written.update({file: value}))
    Limits(LIMITS).impose(group)
    assert written == {"pids.max": 16, "memory.max": 64 << 20, "memory.oom.group": 1, "cpu.weight": 20}
    (tmp_path / "memory.swap.max").touch()
    Limits(LIMITS).impose(group)
    assert written["memory.swap.max"] == 0


def test_nothing_of_the_environment_is_inherited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "x")
    monkeypatch.setattr("vmlab_guest.sandbox.student_uid", lambda: 2000)
    order = Order(["x"], {}, Limits(LIMITS))
    order.environment.update(PYTHONPATH=SUPPORT, A="b")
    assert World(order, "n").variables() == {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "HOME": HOME,
        "USER": "student",
        "LOGNAME": "student",
        "LANG": "C.UTF-8",
        "PYTHONPATH": SUPPORT,
        "A": "b",
    }
    order.as_root = True
    variables = World(order, "n").variables()
    assert (variables["HOME"], variables["PYTHONPATH"]) == ("/root", f"/run/n-{os.getpid()}-support")


def test_what_the_keeper_tells_arrives_whole_and_once() -> None:
    log = Log()
    log.add(OUT, b"one")
    log.add(END, b"")
    assert [(kind, content) for _, kind, content in log.read()] == [(OUT, b"one"), (END, b"")]
    assert log.read() == []
    log.add(OUT, b"x" * 300000)
    os.truncate(log.memory, os.fstat(log.memory).st_size - 1)
    assert log.read() == []  # (Its last byte has not come yet.)
    os.write(os.open(f"/proc/self/fd/{log.memory}", os.O_WRONLY | os.O_APPEND), b"x")
    ((_, _, content),) = log.read()
    assert content == b"x" * 300000
    assert log.wait(0)
    assert log.wait(0)  # (Nothing has come since.)
    log.close_bell()
    assert not log.wait(5)
    log.close()
    assert log.read() == []


def test_a_bell_that_nobody_hears_holds_up_nobody() -> None:
    log = Log()
    for _ in range(100000):
        log.add(OUT, b"")
    assert len(log.read()) == 100000
    log.close()


def test_ends_are_closed_once() -> None:
    ends = Ends()
    every = ends.all()
    assert len(every) == 12
    ends.close("stdin_reads", "stdin_reads")
    assert len(ends.all()) == 11
    with pytest.raises(AttributeError):
        _ = ends.stdin_reads
    ends.close_all()
    assert ends.all() == []


def test_only_what_is_kept_stays_open() -> None:
    opened = [os.open("/dev/null", os.O_RDONLY) for _ in range(5)]

    def work() -> None:
        close_all_but([0, 1, 2, opened[1], opened[3]])
        raise SystemExit(sorted(proc.descriptors()) == [0, 1, 2, opened[1], opened[3]])

    assert os.waitstatus_to_exitcode(os.waitpid(running(work), 0)[1]) == 1
    for each in opened:
        os.close(each)
