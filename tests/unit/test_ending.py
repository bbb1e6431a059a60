"""A command that is given up is ended, with all that it started and nothing else: on this machine's own processes, by its own kernel."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sshserver import Server
from vmlab.deadline import Deadline
from vmlab.errors import ScriptError, SshError
from vmlab.guest import ending
from vmlab.guest.inside import ending as inside
from vmlab.guest.ssh import Connection

pytestmark = pytest.mark.timeout(120)

# What is started here is known by this in its command line, which is also a time to sleep for: other tests start processes too.
TAG = f"1000.{secrets.randbelow(10**9):09}"

STUBBORN = f"trap '' TERM HUP INT; : {TAG}; while :; do sleep 0.2; done"
# Each would go on for ever.
CHILDREN = {
    "a shell's own loop": "(while :; do sleep 0.2; done)",
    "a child": f"sleep {TAG}",
    "one that ignores signals": f'sh -c "{STUBBORN}"',
    "one with a session of its own": f'setsid sh -c "{STUBBORN}"',
    "one whose parent is gone": f'sh -c "sh -c \\"{STUBBORN}\\" & sleep 0.1"',
    "one with another environment": f"env -i sleep {TAG}",
    "one with another environment whose parent is gone": f"setsid sh -c 'exec env -i sh -c \"sleep {TAG} & sleep {TAG} & wait\"'",
    "one that has stopped": f"sh -c 'kill -STOP $$; sleep {TAG}'",
}


def processes(tag: str = TAG) -> dict[int, bytes]:
    """What lives and was started here, by its command line."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if b") Z " not in (path / "stat").read_bytes() and tag.encode() in (line := (path / "cmdline").read_bytes()):
                found[int(path.name)] = line
    return found


@contextlib.contextmanager
def nothing_is_left() -> Iterator[None]:
    """All that a block starts is gone at its end, or soon."""
    yield
    end = Deadline(20)
    while left := processes():
        assert not end.expired(), left
        time.sleep(0.05)


@pytest.fixture
def connection() -> Iterator[Connection]:
    with Server() as server:
        made = server.login()
        yield made
        made.close()


@pytest.mark.parametrize("child", CHILDREN)
def test_a_command_at_its_limit_is_ended_with_all_that_it_started(connection: Connection, child: str) -> None:
    with nothing_is_left(), pytest.raises(ScriptError, match="longer than its 1 s"):
        connection.execute(f"{CHILDREN[child]} & {STUBBORN}", deadline=Deadline(0.7))


def test_the_next_command_meets_nothing_of_it(connection: Connection, tmp_path: Path) -> None:
    with pytest.raises(ScriptError, match="longer than its 1 s"):
        connection.execute(f"trap 'sleep 1; touch {tmp_path}/late' TERM; {STUBBORN}", deadline=Deadline(0.7))
    for _ in range(2):
        connection.execute("true", deadline=Deadline(20))
    assert processes() == {}


def test_a_conversation_that_is_left_is_ended(connection: Connection) -> None:
    with nothing_is_left(), connection.start(f"sleep 1000 & {STUBBORN}", deadline=Deadline(60)):
        pass
    with nothing_is_left(), pytest.raises(ZeroDivisionError), connection.start(STUBBORN, deadline=Deadline(60)):
        raise ZeroDivisionError
    with nothing_is_left(), pytest.raises(KeyboardInterrupt), connection.start(STUBBORN, deadline=Deadline(60)):
        raise KeyboardInterrupt
    with (
        nothing_is_left(),
        pytest.raises(ScriptError, match="not JSON"),
        connection.start(f"echo no; {STUBBORN}", deadline=Deadline(60)) as talk,
    ):
        talk.read()


def test_a_script_that_reads_its_input_may_end_in_its_own_way(connection: Connection, tmp_path: Path) -> None:
    script = f"trap 'exit' TERM; while read -r line; do :; done; touch {tmp_path}/tidy"
    with connection.start(script, deadline=Deadline(60)) as talk:
        talk.send({})
    assert (tmp_path / "tidy").exists()


def test_what_is_asked_to_end_may_tidy_up(connection: Connection, tmp_path: Path) -> None:
    with pytest.raises(ScriptError):
        connection.execute(f"trap 'touch {tmp_path}/tidy; exit' TERM; while :; do sleep 0.1; done", deadline=Deadline(0.7))
    connection.execute("true", deadline=Deadline(20))
    assert (tmp_path / "tidy").exists()


def test_a_command_whose_connection_was_lost_is_ended_over_another(tmp_path: Path) -> None:
    with Server() as server:
        connection = server.login()
        script = f"echo {{}}; {STUBBORN}"
        with nothing_is_left(), pytest.raises(SshError, match="lost"), connection.start(script, deadline=Deadline(60)) as talk:
            talk.read()
            server.cut()
            talk.read()
        connection.close()


def test_what_runs_in_a_guest_that_is_gone_is_not_asked_after(connection: Connection, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(SshError, match="lost"), connection.start(f"echo {{}}; {STUBBORN}", deadline=Deadline(60)) as talk:
        talk.read()
        connection.abort()
        talk.read()
    time.sleep(0.5)
    assert "could not be ended" not in caplog.text


@pytest.mark.parametrize("how", ["& echo", ">/dev/null 2>&1 & echo", "& exit 3 #"])
def test_what_is_left_running_on_purpose_stays(connection: Connection, how: str) -> None:
    left = TAG.replace("1000", "2000")
    connection.execute(f"sleep {left} {how}", deadline=Deadline(20))
    with connection.start(f"sleep {left} >/dev/null & echo {{}}", deadline=Deadline(20)) as talk:
        talk.read()
        talk.finish()
    with pytest.raises(ScriptError):
        connection.execute(STUBBORN, deadline=Deadline(0.5))
    connection.execute("true", deadline=Deadline(20))
    stayed = processes(left)
    for pid in stayed:
        os.kill(pid, signal.SIGKILL)
    assert list(stayed.values()) == [f"sleep\0{left}\0".encode()] * 2


def test_two_commands_at_once_are_told_apart(connection: Connection) -> None:
    with connection.start("while read -r line; do echo $line; done", deadline=Deadline(60)) as talk:
        with pytest.raises(ScriptError):
            connection.execute(STUBBORN, deadline=Deadline(0.5))
        talk.send({"still": "here"})
        assert talk.read() == {"still": "here"}
        talk.finish()


# The program itself.


def test_the_program_says_whether_anything_was_left() -> None:
    mark = ending.new_mark()
    victim = subprocess.Popen(["sleep", "1000"], env={**os.environ, ending.VARIABLE: mark})
    text = ending.program(mark)
    # As the guest runs it, by the shell line that the host sends.
    done = subprocess.run(["sh", "-c", ending.COMMAND], input=text, timeout=60, check=False)
    assert done.returncode == 0
    assert victim.wait(10) == -signal.SIGTERM
    assert subprocess.run(["sh", "-c", ending.COMMAND], input=text, timeout=60, check=False).returncode == 0


def test_what_cannot_be_ended_is_told() -> None:
    mark = ending.new_mark()
    victim = subprocess.Popen(
        [sys.executable, "-c", "import signal, time; signal.signal(15, 1); print(flush=True); time.sleep(99)"],
        env={**os.environ, ending.VARIABLE: mark},
        stdout=subprocess.PIPE,
    )
    assert victim.stdout is not None
    victim.stdout.readline()
    assert not inside.end(mark.encode(), mercy_s=10, limit_s=0.3)
    assert inside.end(mark.encode(), mercy_s=0, limit_s=20)
    assert victim.wait(10) == -signal.SIGKILL


def test_ids_that_are_used_again_belong_to_somebody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inside, "_read", lambda pid, name: b"")
    process = inside.Process
    known = {10: process(1, 10, 10, 500), 11: process(1, 11, 11, 500)}
    now = {
        10: process(1, 10, 10, 900),  # Another process by an old name,
        20: process(10, 10, 10, 901),  # and its child.
        21: process(1, 11, 11, 502),  # A member of what the dead one led.
        22: process(21, 5, 5, 503),
        23: process(1, 5, 5, 504),
    }
    assert set(inside.belonging(b"mark", now, known)) == {11, 21, 22}
