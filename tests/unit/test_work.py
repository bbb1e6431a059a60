"""A student's work folder: what `start` writes and keeps, what is read of it, and every file that cannot be taken answered in words."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from vmlab.errors import UsageError
from vmlab.lab.collection import read_lab
from vmlab.lab.lab import Lab
from vmlab.lab.work import FILE_LIMIT_BYTES, MOST_FILES, Attempt, attempts, start

LAB = """\
title: A lab
summary: It is tried.
claims:
  A: {says: "So.", stands: holds}
guests:
  main: {}
questions:
  - {id: many, ask: "How many?", kind: number, prediction: 3}
tasks:
  reaper: {title: Reap, kind: program, points: 4, program: [reaper.py, reaper.c]}
  units: {title: Units, kind: program, points: 2}
"""


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    folder = tmp_path / "tried"
    for name, text in {
        "lab.yaml": LAB,
        "tasks/reaper/task.md": "Write a supervisor.\n",
        "tasks/reaper/starter/reaper.py": "print('begin')\n",
        "tasks/reaper/starter/reaper.c": "int main(void) { return 0; }\n",
        "tasks/units/task.md": "Write units.\n",
        "tasks/units/starter/a@.service": "[Service]\n",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return read_lab(folder)


@pytest.fixture
def work(lab: Lab, tmp_path: Path) -> Path:
    start(lab, tmp_path / "work")
    return tmp_path / "work"


def reaper(lab: Lab, work: Path) -> Attempt:
    (found,) = attempts(lab, work, ["reaper"], required=True)
    return found


def test_start_writes_what_is_asked_the_starter_and_the_form(lab: Lab, tmp_path: Path) -> None:
    started = start(lab, tmp_path / "work")
    assert started.kept == []
    assert list(started.written) == ["tasks.md", "reaper/reaper.c", "reaper/reaper.py", "units/a@.service", "answers.yaml"]
    said = (tmp_path / "work/tasks.md").read_text()
    assert "Write a supervisor." in said
    assert "4 points" in said
    assert "make try LAB=tried TASK=reaper" in said


def test_a_second_start_writes_nothing_over_and_adds_what_is_missing(lab: Lab, work: Path) -> None:
    (work / "reaper/reaper.py").write_text("mine\n")
    (work / "reaper/reaper.c").unlink()
    started = start(lab, work)
    assert started.written == ["reaper/reaper.c"]
    assert "reaper/reaper.py" in started.kept
    assert (work / "reaper/reaper.py").read_text() == "mine\n"


def test_a_folder_that_cannot_be_written_is_answered(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot write"):
        start(lab, tmp_path / "file")


def test_a_lab_that_asks_for_nothing_says_so(lab: Lab, tmp_path: Path) -> None:
    (lab.directory / "lab.yaml").write_text(LAB[: LAB.index("questions:")])
    with pytest.raises(UsageError, match="asks for no work"):
        start(read_lab(lab.directory), tmp_path / "work")


def test_the_starter_as_it_is_is_no_attempt(lab: Lab, work: Path) -> None:
    assert [each.changed for each in attempts(lab, work)] == [False, False]
    # What an editor or another system leaves of it is still the starter.
    (work / "reaper/reaper.py").write_bytes(b"\xef\xbb\xbfprint('begin')\r\n")
    (work / "reaper/reaper.py~").write_text("old")
    (work / "reaper/.reaper.py.swp").write_bytes(b"\0\1")
    (work / "reaper/__pycache__").mkdir()
    found = reaper(lab, work)
    assert not found.changed
    assert len(found.notes) == 2, "the mark and the line ends are told"


def test_the_program_is_the_file_that_was_changed(lab: Lab, work: Path) -> None:
    assert reaper(lab, work).program == "reaper.py"
    (work / "reaper/reaper.c").write_text("int main(void) { return 1; }\n")
    found = reaper(lab, work)
    assert (found.program, found.changed) == ("reaper.c", True)
    (work / "reaper/reaper.py").unlink()
    assert reaper(lab, work).program == "reaper.c"


def test_another_file_beside_the_program_counts(lab: Lab, work: Path) -> None:
    (work / "reaper/help.py").write_text("X = 1\n")
    found = reaper(lab, work)
    assert found.changed
    assert found.files["help.py"] == "X = 1\n"


def test_two_programs_are_one_too_many(lab: Lab, work: Path) -> None:
    for name in ("reaper.py", "reaper.c"):
        (work / "reaper" / name).write_text("changed\n")
    with pytest.raises(UsageError, match=r"both reaper.py and reaper.c .* were changed"):
        reaper(lab, work)


def test_a_task_without_its_folder_is_left_out_of_a_run_and_missed_by_a_try(lab: Lab, work: Path) -> None:
    for path in (work / "units").iterdir():
        path.unlink()
    (work / "units").rmdir()
    assert [each.task for each in attempts(lab, work)] == ["reaper"]
    with pytest.raises(UsageError, match="no folder") as caught:
        attempts(lab, work, ["units"], required=True)
    assert "vmlab start tried" in caught.value.hint
    for required in (True, False):
        with pytest.raises(UsageError, match="no folder"):
            attempts(lab, work / "elsewhere", required=required)


def test_a_task_that_there_is_not_names_the_nearest(lab: Lab, work: Path) -> None:
    with pytest.raises(UsageError, match="no task named 'reeper'; did you mean 'reaper'"):
        attempts(lab, work, ["reeper"])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b" \n\n", "is empty"),
        (b"x" * (FILE_LIMIT_BYTES + 1), "larger than"),
        (b"\x7fELF\x02\x01\0\0", "reaper.py:1: it holds a NUL byte"),
        (b"print(1)\n\xff\xfe\n", "reaper.py:2: this is no text in UTF-8"),
        ("print(1)\n".encode("utf-16"), "is UTF-16"),
        (b"ok\n\0", "reaper.py:2: it holds a NUL byte"),
    ],
    ids=["empty", "blank", "huge", "binary", "latin", "utf-16", "nul"],
)
def test_a_file_that_cannot_be_taken_is_named(lab: Lab, work: Path, content: bytes, words: str) -> None:
    (work / "reaper/reaper.py").write_bytes(content)
    with pytest.raises(UsageError, match=words) as caught:
        reaper(lab, work)
    assert "reaper.py" in caught.value.message
    assert caught.value.hint


def test_a_missing_program_is_named(lab: Lab, work: Path) -> None:
    for name in ("reaper.py", "reaper.c"):
        (work / "reaper" / name).unlink()
    (work / "reaper/Reaper.py").write_text("x\n")
    with pytest.raises(UsageError, match=r"has no reaper\.py and no reaper\.c"):
        reaper(lab, work)


def test_all_files_together_have_a_limit(lab: Lab, work: Path) -> None:
    for number in range(5):
        (work / "reaper" / f"part{number}.py").write_text("#" * (FILE_LIMIT_BYTES - 1))
    with pytest.raises(UsageError, match="bytes together"):
        reaper(lab, work)


def test_many_files_are_too_many(lab: Lab, work: Path) -> None:
    for number in range(MOST_FILES):
        (work / "reaper" / f"part{number}.py").write_text("#")
    with pytest.raises(UsageError, match="files; 16 are allowed"):
        reaper(lab, work)


def test_no_link_is_followed(lab: Lab, work: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.py").write_text("secret\n")
    (work / "reaper/reaper.py").unlink()
    (work / "reaper/reaper.py").symlink_to(tmp_path / "secret.py")
    with pytest.raises(UsageError, match="is a link"):
        reaper(lab, work)


def test_a_pipe_is_no_file_and_nobody_waits_for_it(lab: Lab, work: Path) -> None:
    (work / "reaper/reaper.py").unlink()
    os.mkfifo(work / "reaper/reaper.py")
    with pytest.raises(UsageError, match="no ordinary file"):
        reaper(lab, work)


def test_a_strange_name_is_refused_and_a_folder_is_left_out(lab: Lab, work: Path) -> None:
    (work / "reaper/more").mkdir()
    assert any("more" in note for note in reaper(lab, work).notes)
    (work / "reaper/two words.py").write_text("x\n")
    with pytest.raises(UsageError, match="has a file named"):
        reaper(lab, work)


def test_control_a_change_of_any_kind_is_one(lab: Lab, work: Path) -> None:
    (work / "units/a@.service").write_text("[Service]\nType=oneshot\n")
    assert [each.changed for each in attempts(lab, work)] == [False, True]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ("program: [reaper.py, reaper.rb]", "reaper.rb ends in none of"),
        ("program: [reaper.py, reaper.py]", "named once"),
        ("program: [reaper.py], guest: other", "the task reaper is tried in the guest other"),
    ],
)
def test_mistakes_in_lab_yaml_are_named(lab: Lab, changed: str, words: str) -> None:
    (lab.directory / "lab.yaml").write_text(LAB.replace("program: [reaper.py, reaper.c]", changed))
    with pytest.raises(UsageError, match=words):
        read_lab(lab.directory)


def test_an_author_who_forgot_the_starter_is_told(lab: Lab, work: Path) -> None:
    for path in (lab.directory / "tasks/units/starter").iterdir():
        path.unlink()
    with pytest.raises(UsageError, match="holds no files"):
        attempts(lab, work)
