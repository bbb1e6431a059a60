"""A connection to a healthy server in this process: commands, conversations, files."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sshserver import Server, hanging_up
from vmlab.deadline import Deadline
from vmlab.errors import ScriptError, SshError, StrangerError
from vmlab.guest.seed import Identity
from vmlab.guest.ssh import Connection, wait_for_banner

# Echoes lines, and does what some of them say.
ECHO = """while read -r line; do case $line in *end*) exit 3 ;; *junk*) echo '[]' ;; *) echo '{"heard": '"$line"'}' ;; esac; done"""


def in_s(seconds: float = 20) -> Deadline:
    return Deadline(seconds)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server() as made:
        yield made


@pytest.fixture(scope="module")
def connection(server: Server) -> Iterator[Connection]:
    made = server.login()
    yield made
    made.close()


def test_a_command_gives_status_output_and_time(connection: Connection) -> None:
    result = connection.execute("echo out; echo err >&2; cat; exit 3", stdin=b"in", deadline=in_s())
    assert (result.status, result.stdout, result.stderr) == (3, "out\nin", "err\n")
    assert result.command == "echo out; echo err >&2; cat; exit 3"
    assert result.duration_s > 0
    assert connection.execute("cat", deadline=in_s()).stdout == ""
    assert connection.execute("kill -9 $$", deadline=in_s()).status == -1


def test_commands_of_any_length_and_output_of_any_size_pass(connection: Connection) -> None:
    said = connection.execute(f"echo {'x' * 20_000}; exit 3", deadline=in_s())
    assert (said.status, said.stdout) == (3, "x" * 20_000 + "\n")
    assert connection.execute("wc -c", stdin=bytes(1 << 20), deadline=in_s()).stdout.strip() == str(1 << 20)
    assert len(connection.execute("head -c 3000000 /dev/zero", deadline=in_s(), output_limit_bytes=4 << 20).stdout) == 3_000_000
    assert len(connection.execute("head -c 300000 /dev/zero >&2", deadline=in_s()).stderr) == 64 << 10


def test_input_that_nobody_reads_is_let_go(connection: Connection) -> None:
    assert connection.execute("exec <&-; echo done", stdin=bytes(1 << 20), deadline=in_s()).stdout == "done\n"


def test_a_command_that_prints_too_much_is_ended(connection: Connection) -> None:
    with pytest.raises(ScriptError, match="more than 1000 bytes") as caught:
        connection.execute("yes", deadline=in_s(), output_limit_bytes=1000)
    assert caught.value.detail.startswith("y\ny\n")


def test_a_command_that_leaves_a_child_holding_its_output_returns_at_once_and_the_child_stays(
    connection: Connection, tmp_path: Path
) -> None:
    result = connection.execute(f"(sleep 6; touch {tmp_path}/later) & echo now", deadline=in_s())
    assert result.stdout == "now\n"
    # (Far below what the child takes, and far above what a busy machine does.)
    assert result.duration_s < 5
    assert connection.execute(f"until [ -e {tmp_path}/later ]; do sleep 0.2; done; ls {tmp_path}", deadline=in_s()).stdout == "later\n"


def test_a_conversation(connection: Connection) -> None:
    with connection.start(ECHO, deadline=in_s()) as talk:
        talk.send({"n": 1})
        assert talk.read() == {"heard": {"n": 1}}
        for n in (2, 3):
            talk.send({"n": n})
        assert list(itertools.islice(talk, 2)) == [{"heard": {"n": 2}}, {"heard": {"n": 3}}]
        talk.finish()
        with pytest.raises(ScriptError, match="no longer reads its input"):
            talk.send({})
    with connection.start("""echo '{"n": 1}'; echo '{"n": 2}'""", deadline=in_s()) as talk:
        assert list(talk) == [{"n": 1}, {"n": 2}]


def test_a_conversation_that_ends_badly_says_so_and_what_was_said_last(connection: Connection) -> None:
    with connection.start(f"echo 'it hurts' >&2; {ECHO}", deadline=in_s()) as talk:
        talk.send({"n": 1})
        talk.read()
        talk.send({"end": True})
        with pytest.raises(ScriptError, match="ended where another line was expected") as caught:
            talk.read()
        assert '{"heard": {"n": 1}}' in caught.value.detail
        assert "it hurts" in caught.value.detail
        with pytest.raises(ScriptError, match="exit status 3"):
            talk.finish()
    with connection.start("printf '{'", deadline=in_s()) as talk, pytest.raises(ScriptError, match="its last line has no end"):
        talk.read()
    with connection.start("head -c 3000000 /dev/zero", deadline=in_s()) as talk, pytest.raises(ScriptError, match="a line longer than"):
        talk.read()
    with connection.start(ECHO, deadline=in_s()) as talk, pytest.raises(ScriptError, match="not an object"):
        talk.send({"junk": True})
        talk.read()


def test_files_go_in_and_out(connection: Connection, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(bytes(range(256)) * 1000)
    connection.put(tmp_path / "in", f"{tmp_path}/there", mode=0o600, deadline=in_s())
    assert (tmp_path / "there").stat().st_mode & 0o777 == 0o600
    connection.get(f"{tmp_path}/there", tmp_path / "out", deadline=in_s())
    assert (tmp_path / "out").read_bytes() == (tmp_path / "in").read_bytes()
    (tmp_path / "script").write_text("echo\n")
    (tmp_path / "script").chmod(0o755)
    connection.put_tree({"a/b/script": tmp_path / "script", "a/in": tmp_path / "in"}, f"{tmp_path}/tree/of", deadline=in_s())
    assert (tmp_path / "tree/of/a/b/script").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "tree/of/a/in").stat().st_size == 256_000


def test_files_that_cannot_be_copied_are_named(connection: Connection, tmp_path: Path) -> None:
    with pytest.raises(ScriptError, match=r"cannot copy /no/such/file from the guest: .*No such file"):
        connection.get("/no/such/file", tmp_path / "never", deadline=in_s())
    (tmp_path / "in").write_bytes(bytes(1 << 20))
    with pytest.raises(ScriptError, match="larger than 1000 bytes"):
        connection.get(f"{tmp_path}/in", tmp_path / "out", limit_bytes=1000, deadline=in_s())
    with pytest.raises(ScriptError, match=r"cannot copy in to /no/such/place"):
        connection.put(tmp_path / "in", "/no/such/place", deadline=in_s())


def test_who_lets_us_in_must_be_who_we_know_and_know_us(server: Server) -> None:
    stranger = Identity.new("stranger")
    ours = server.identity
    with pytest.raises(StrangerError, match="another host key"):
        Connection.connect(server.port, Identity("", "", ours.client, stranger.host), user="root", deadline=in_s())
    with pytest.raises(SshError, match="cannot log in"):
        Connection.connect(server.port, Identity("", "", stranger.client, ours.host), user="root", deadline=in_s())
    assert wait_for_banner(server.port, in_s())


@pytest.mark.parametrize("what", ["channel", "exec", "subsystem"])
def test_a_server_that_refuses_is_told_from_one_that_was_lost(what: str, tmp_path: Path) -> None:
    with Server(before=lambda _, asked: asked != what) as server:
        connection = server.login()
        with pytest.raises(SshError, match=r"cannot (start the command true|copy /x from the guest): ") as caught:
            if what == "subsystem":
                connection.get("/x", tmp_path / "x", deadline=in_s())
            connection.execute("true", deadline=in_s())
        assert "lost" not in caught.value.message
        assert connection.alive()
        connection.close()
        with pytest.raises(SshError, match="lost"):
            connection.execute("true", deadline=in_s())
        connection.abort()


def test_a_channel_that_is_closed_without_a_status_is_as_one_that_a_signal_ended() -> None:
    with Server(command=hanging_up) as server:
        connection = server.login()
        assert connection.execute("true", deadline=in_s()).status == -1
        connection.close()


def test_without_any_time_left_nothing_is_begun(connection: Connection, server: Server, tmp_path: Path) -> None:
    before = len(server.commands)
    with pytest.raises(ScriptError, match="no time is left to start the command true"):
        connection.execute("true", deadline=Deadline(0))
    with pytest.raises(ScriptError, match="no time is left to copy /x"):
        connection.get("/x", tmp_path / "x", deadline=Deadline(0))
    assert len(server.commands) == before
