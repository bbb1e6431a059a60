"""Whatever becomes of its output, a run ends in its report, with the exit code of its verdict, and blames nobody."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import pytest

from tests.stand_in.machine import StandIn
from tests.tinylab import write_lab

# For what a busy machine may take; what hangs takes longer.
PATIENCE_S = 100


def runs(machine: StandIn, words: list[str], out: int | IO[bytes] | None, **env: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        machine.argv("run", *words),
        cwd=machine.root,
        env={**machine.env, **env},
        stdin=subprocess.DEVNULL,
        stdout=out,
        stderr=subprocess.PIPE,
    )


def ended(process: subprocess.Popen[bytes]) -> str:
    """Standard error of a run that must end well."""
    _, said = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, said.decode()
    assert b"Traceback" not in said
    return said.decode()


def sound(machine: StandIn, *labs: str) -> None:
    for lab in labs:
        report = machine.report(lab)
        assert report["run"]["error"] is None
        assert [check["verdict"] for check in report["checks"]] == ["pass", "not-observable"]


@pytest.fixture
def labs(machine: StandIn) -> list[str]:
    write_lab(machine.labs, "aa")
    write_lab(machine.labs, "bb")
    return ["aa", "bb"]


FORMS = [["aa"], ["aa", "--quiet"], ["aa", "--json"], ["aa", "bb"], ["aa", "bb", "--quiet"], ["aa", "bb", "--json"]]


@pytest.mark.parametrize("words", FORMS, ids=" ".join)
def test_a_reader_that_has_gone_is_no_error(machine: StandIn, labs: list[str], words: list[str]) -> None:
    read, write = os.pipe()
    process = runs(machine, words, write)
    os.close(read)
    os.close(write)
    assert ended(process) == ""
    sound(machine, *(lab for lab in labs if lab in words))


@pytest.mark.parametrize("words", FORMS, ids=" ".join)
def test_a_full_disk_is_told_on_standard_error(machine: StandIn, labs: list[str], words: list[str]) -> None:
    with Path("/dev/full").open("wb") as full:
        said = ended(runs(machine, words, full))
    assert said.splitlines() == ["vmlab: standard output broke ([Errno 28] No space left on device); the run went on without it"]
    sound(machine, *(lab for lab in labs if lab in words))


@pytest.mark.parametrize("words", [["aa"], ["aa", "bb"]], ids=" ".join)
def test_a_reader_that_does_not_read_holds_nobody_up(machine: StandIn, labs: list[str], words: list[str]) -> None:
    read, write = os.pipe()
    fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 4096)
    os.set_blocking(write, False)
    with_room = os.write(write, bytes(1 << 16))
    os.set_blocking(write, True)
    assert with_room
    process = runs(machine, words, write)
    os.close(write)
    ended(process)
    os.close(read)
    sound(machine, *(lab for lab in labs if lab in words))


def test_without_a_standard_output_it_runs_too(machine: StandIn, labs: list[str]) -> None:
    command = ["sh", "-c", 'exec "$@" >&-', "sh", *machine.argv("run", *labs)]
    done = subprocess.run(command, cwd=machine.root, env=machine.env, capture_output=True, check=False, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stderr.decode()
    assert done.stderr == b""
    sound(machine, *labs)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_an_encoding_without_the_check_mark_gets_another(machine: StandIn, labs: list[str], encoding: str, tmp_path: Path) -> None:
    sign = "✓" if encoding == "utf-8" else "+"
    with (tmp_path / "said").open("wb") as said:
        assert ended(runs(machine, labs[:1], said, PYTHONIOENCODING=encoding)) == ""
    text = (tmp_path / "said").read_bytes().decode(encoding)
    assert f"{sign} pass            It is so." in text
    sound(machine, "aa")


@pytest.mark.parametrize("columns", ["1", "20", "500"])
def test_a_file_gets_no_colours_whatever_is_forced(machine: StandIn, labs: list[str], columns: str, tmp_path: Path) -> None:
    with (tmp_path / "said").open("wb") as said:
        assert ended(runs(machine, labs, said, FORCE_COLOR="1", COLUMNS=columns)) == ""
    assert b"\x1b" not in (tmp_path / "said").read_bytes()
    sound(machine, *labs)


@pytest.fixture
def waiting(machine: StandIn) -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
    """A run that has begun and waits for a file."""
    folder = write_lab(machine.labs, "aa", "wait")

    def start() -> subprocess.Popen[bytes]:
        # As nohup(1) does it. (A preexec_fn would not do: other threads of the tests run.)
        command = ["sh", "-c", 'trap "" HUP; exec "$@"', "sh", *machine.argv("run", "aa")]
        process = subprocess.Popen(command, cwd=machine.root, env=machine.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        end = time.monotonic() + PATIENCE_S
        while not list(folder.glob("began-*")) and time.monotonic() < end:
            time.sleep(0.02)
        return process

    yield start
    (folder / "go").touch()


def test_a_terminal_that_goes_does_not_end_what_nohup_started(machine: StandIn, waiting: Callable[[], subprocess.Popen[bytes]]) -> None:
    process = waiting()
    process.send_signal(signal.SIGHUP)
    time.sleep(0.3)
    assert process.poll() is None
    (machine.labs / "aa" / "go").touch()
    ended(process)
    sound(machine, "aa")
