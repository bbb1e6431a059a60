"""Every wait on a guest ends at its deadline, whatever its SSH server does: be silent, drip, take nothing, cut, send garbage."""

from __future__ import annotations

import contextlib
import itertools
import random
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import paramiko
import pytest

from tests.sshserver import Behaviour, Jam, Server, cutting, dripping, hanging_up, run, serve_files, silent, within
from vmlab.deadline import Deadline
from vmlab.errors import RunError, ScriptError, SshError
from vmlab.guest.conversation import Conversation
from vmlab.guest.seed import Identity
from vmlab.guest.ssh import Connection, Knocked, wait_for_banner

# A hang is told by this, not by the limits below: a wait that does not end at all.
pytestmark = pytest.mark.timeout(60)

# (In messages: 1 s.)
LIMIT_S = 0.6
# The error comes so long after the deadline at most.
LATE_S = LIMIT_S + 0.5


@contextlib.contextmanager
def connected(server: Server) -> Iterator[Connection]:
    with server:
        connection = server.login()
        try:
            yield connection
        finally:
            connection.close()


def sick(name: str) -> Callable[[Server, str], bool]:
    """A server that is asked for this one thing, and does not answer."""

    def before(server: Server, what: str) -> bool:
        if what == name:
            server.over.wait()
        return True

    return before


def garbage(server: Server, channel: paramiko.Channel) -> None:
    """Say what is no protocol at all."""
    with contextlib.suppress(OSError):
        channel.sendall(random.Random(1).randbytes(20_000))
        channel.sendall_stderr(random.Random(2).randbytes(20_000))
    server.over.wait()


# Logging in.


@contextlib.contextmanager
def speaking(speak: Callable[[socket.socket, threading.Event], None]) -> Iterator[int]:
    """A port where whoever connects is spoken to."""
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept() -> None:
            with contextlib.suppress(OSError):
                sock, _ = server.accept()
                with sock:
                    speak(sock, over)

        threading.Thread(target=accept, daemon=True).start()
        yield server.getsockname()[1]
        over.set()


def saying(*words: bytes, every_s: float = 0.05, for_ever: bool = False) -> Callable[[socket.socket, threading.Event], None]:
    def speak(sock: socket.socket, over: threading.Event) -> None:
        for word in itertools.cycle(words) if for_ever else words:
            sock.sendall(word)
            if over.wait(every_s):
                return
        if words and words[-1] == b"":
            return
        over.wait()

    return speak


BANNER = b"SSH-2.0-OpenSSH_9.9\r\n"
# A packet of the length that it says (RFC 4253, section 6), that is not what it seems.
KEXINIT = struct.pack(">IBB", 20, 4, 20) + bytes(18)


@pytest.mark.parametrize(
    ("speak", "least_s"),
    [
        (saying(), LIMIT_S),
        (saying(b"S", b"S", for_ever=True), LIMIT_S),
        (saying(b"not yet\r\n", for_ever=True), LIMIT_S),
        (saying(BANNER), LIMIT_S),
        (saying(BANNER, *[bytes([byte]) for byte in struct.pack(">I", 30_004)], *[b"\x04"] * 1000), LIMIT_S),
        (saying(BANNER, b""), 0),
        (saying(b""), 0),
        (saying(random.Random(3).randbytes(1000)), 0),
        (saying(BANNER, random.Random(4).randbytes(100_000)), 0),
        (saying(BANNER, KEXINIT), 0),
    ],
    ids=["silent", "drip", "lines", "greeted", "packet", "cut", "cut at once", "garbage", "garbage packet", "empty kexinit"],
)
def test_a_login_ends(speak: Callable[[socket.socket, threading.Event], None], least_s: float) -> None:
    with speaking(speak) as port, within(least_s, LATE_S), pytest.raises(SshError, match="cannot log in to the guest"):
        Connection.connect(port, Identity.new("x"), user="root", deadline=Deadline(LIMIT_S))


def test_a_login_over_a_connection_that_has_begun_ends_too() -> None:
    with (
        speaking(saying(BANNER)) as port,
        within(LIMIT_S, LATE_S),
        pytest.raises(SshError, match="did not let us in within 1 s"),
        Knocked(port, Deadline(LIMIT_S)) as knocked,
    ):
        Connection.connect(port, Identity.new("x"), user="root", deadline=Deadline(LIMIT_S), sock=knocked)


def test_a_key_that_is_never_judged_ends() -> None:
    with Server(before=sick("login")) as server, within(LIMIT_S, LATE_S), pytest.raises(SshError, match="did not let us in within 1 s"):
        server.login(LIMIT_S)


def test_a_greeting_is_waited_for_as_long_as_told() -> None:
    with speaking(saying()) as port, within(LIMIT_S, LATE_S):
        assert not wait_for_banner(port, Deadline(LIMIT_S))
    with speaking(saying(BANNER)) as port:
        assert wait_for_banner(port, Deadline(20))
    with speaking(saying(b"")) as port:
        assert not wait_for_banner(port, Deadline(20))
    assert not wait_for_banner(port, Deadline(20))


# Commands.


@pytest.mark.parametrize("what", ["channel", "exec"])
def test_a_command_that_the_server_does_not_start_ends(what: str) -> None:
    with connected(Server(before=sick(what))) as connection, within(LIMIT_S, LATE_S):
        with pytest.raises(SshError, match=r"cannot start the command echo: the guest did not let it be done within 1 s"):
            connection.execute("echo", deadline=Deadline(LIMIT_S))
        assert connection.alive()


@pytest.mark.parametrize(
    "behaviour", [silent, dripping(b"."), dripping(b"." * 10_000, every_s=0.0), garbage], ids=["silent", "drip", "flood", "garbage"]
)
@pytest.mark.parametrize("stdin_bytes", [0, 1 << 20])
def test_a_command_ends(behaviour: Behaviour, stdin_bytes: int) -> None:
    # (With so much input, the window is closed: nobody reads it.)
    with connected(Server(command=behaviour)) as connection, within(LIMIT_S, LATE_S):
        with pytest.raises(ScriptError, match="it ran longer than its 1 s: sick") as caught:
            connection.execute("sick", stdin=bytes(stdin_bytes), deadline=Deadline(LIMIT_S), output_limit_bytes=1 << 30)
        assert "time_limit_s" in caught.value.hint
        assert caught.value.detail or behaviour is silent


def test_a_command_whose_connection_is_cut_ends_at_once() -> None:
    with connected(Server(command=cutting)) as connection, within(0, LATE_S), pytest.raises(SshError, match="lost during: sick"):
        connection.execute("sick", deadline=Deadline(30))


def test_a_command_is_ended_by_whoever_knows_that_the_guest_is_gone() -> None:
    with connected(Server(command=silent)) as connection, within(0.3, LATE_S), pytest.raises(SshError, match="lost during: sick"):
        threading.Timer(0.3, connection.abort).start()
        connection.execute("sick", deadline=Deadline(30))


@pytest.mark.parametrize("stdin_bytes", [0, 64 << 20])
def test_a_connection_that_takes_nothing_any_more_ends(stdin_bytes: int) -> None:
    # What is to be sent has room in the window, and none on the way.
    with Server(command=silent, window_bytes=1 << 30) as server, Jam(server.port) as jam:
        connection = Connection.connect(jam.port, server.identity, user="root", deadline=Deadline(30))
        jam.jam()
        with within(LIMIT_S, LATE_S), pytest.raises((ScriptError, SshError)):
            connection.execute("sick", stdin=bytes(stdin_bytes), deadline=Deadline(LIMIT_S))
        with within(0, LATE_S):
            connection.close()


def test_input_that_the_connection_does_not_take_ends() -> None:
    with Server(command=silent, window_bytes=1 << 30) as server, Jam(server.port) as jam:
        connection = Connection.connect(jam.port, server.identity, user="root", deadline=Deadline(30))
        with within(LIMIT_S, LATE_S), pytest.raises((ScriptError, SshError), match=r"longer than its 1 s: sick|lost during: sick"):
            threading.Timer(0.3, jam.jam).start()
            connection.execute("sick", stdin=bytes(256 << 20), deadline=Deadline(LIMIT_S))
        with (
            within(0, LATE_S),
        ):
            connection.close()


# Conversations.


@contextlib.contextmanager
def talking(behaviour: Behaviour, deadline_s: float = LIMIT_S) -> Iterator[Conversation]:
    with connected(Server(command=behaviour)) as connection, connection.start("sick", deadline=Deadline(deadline_s)) as talk:
        yield talk


LINES = dripping(b'{"still": "here"}\n')
UNENDING = dripping(b".")
MUCH = {"much": "x" * (1 << 20)}
IT_GOES_ON = r"it did not end within [01] s: sick"
IT_IS_FULL = "it did not take its input within 1 s: sick"


def test_reading_ends_at_its_own_limit_or_the_runs() -> None:
    for behaviour, words in ((silent, "it printed nothing for 1 s: sick"), (UNENDING, "it did not end its line within 1 s: sick")):
        with talking(behaviour, 2) as talk, within(LIMIT_S, LATE_S), pytest.raises(ScriptError, match=words):
            talk.read(LIMIT_S)
        with talking(behaviour) as talk, within(LIMIT_S, LATE_S), pytest.raises(ScriptError, match=words):
            talk.read(60)


def test_a_script_that_says_something_now_and_then_does_not_outlive_the_run() -> None:
    with talking(LINES) as talk, within(LIMIT_S - 0.1, LATE_S), pytest.raises(ScriptError, match=r"sick|no time is left") as caught:
        while True:
            talk.read(60)
    assert '{"still": "here"}' in caught.value.detail
    with (
        talking(LINES) as talk,
        within(LIMIT_S - 0.1, LATE_S),
        pytest.raises(ScriptError, match=IT_GOES_ON) as caught,
    ):
        for record in talk:
            assert record == {"still": "here"}
    assert '{"still": "here"}' in caught.value.detail


@pytest.mark.parametrize(
    "behaviour", [silent, LINES, UNENDING, dripping(b"{}\n" * 1000, every_s=0.0)], ids=["silent", "lines", "drip", "flood"]
)
def test_finishing_ends(behaviour: Behaviour) -> None:
    with talking(behaviour, 2) as talk, within(LIMIT_S - 0.1, LATE_S), pytest.raises(ScriptError, match=IT_GOES_ON):
        talk.finish(LIMIT_S)
    with talking(behaviour) as talk, within(LIMIT_S - 0.1, LATE_S), pytest.raises(ScriptError, match=IT_GOES_ON):
        talk.finish()


def test_a_flood_that_nobody_waits_for_ends_too() -> None:
    with talking(dripping(b"{}\n" * 1000, every_s=0.0)) as talk, within(LIMIT_S - 0.1, LATE_S), pytest.raises(ScriptError):
        for _ in talk:
            pass


def test_sending_to_a_window_that_never_opens_ends() -> None:
    with (
        talking(silent, 30) as talk,
        within(LIMIT_S, LATE_S),
        pytest.raises(ScriptError, match=IT_IS_FULL),
    ):
        talk.send(MUCH, LIMIT_S)
    with talking(silent) as talk, within(LIMIT_S, LATE_S), pytest.raises(ScriptError, match=IT_IS_FULL):
        talk.send(MUCH)


def sipping(server: Server, channel: paramiko.Channel) -> None:
    """Open the window by a little, now and then."""
    with contextlib.suppress(OSError):
        while not server.over.wait(0.05):
            channel.recv(100)


def test_sending_through_a_window_that_opens_a_little_now_and_then_ends() -> None:
    with talking(sipping) as talk, within(LIMIT_S, LATE_S), pytest.raises(ScriptError, match="did not take its input within 1 s"):
        talk.send({"much": "x" * (1 << 24)})


def test_a_conversation_with_garbage_or_over_a_lost_connection_ends_at_once() -> None:
    with talking(garbage, 2) as talk, within(0, LATE_S), pytest.raises(ScriptError, match="not JSON"):
        talk.read()
    with talking(hanging_up, 2) as talk, within(0, LATE_S), pytest.raises(ScriptError, match="ended where another line"):
        talk.read()
    acts: list[Callable[[Conversation], object]] = [Conversation.read, Conversation.finish, list, lambda talk: talk.send(MUCH)]
    for act in acts:
        with talking(cutting, 2) as talk, within(0, LATE_S), pytest.raises(SshError, match="lost during: sick"):
            act(talk)


def test_leaving_a_conversation_with_a_silent_server_ends() -> None:
    with within(0, LATE_S), talking(silent) as talk:
        assert talk
    with within(0.3, 0.3 + 0.5), pytest.raises(ScriptError, match="printed nothing for 0 s"), talking(silent, 30) as talk:
        talk.read(0.3)
    with within(0, 0.5), pytest.raises(KeyboardInterrupt), talking(silent, 30):
        raise KeyboardInterrupt


# Files.


def as_sftp(packet: bytes) -> bytes:
    return struct.pack(">I", len(packet)) + packet


VERSION = as_sftp(b"\x02" + struct.pack(">I", 3))


def answering(answer: Callable[[int], bytes]) -> Behaviour:
    """Agree on the version, and then answer each request by its number."""

    def serve(server: Server, channel: paramiko.Channel) -> None:
        def exactly(size: int) -> bytes:
            data = b""
            while len(data) < size:
                more = channel.recv(size - len(data))
                if not more:
                    raise EOFError
                data += more
            return data

        with contextlib.suppress(OSError, EOFError):
            exactly(struct.unpack(">I", exactly(4))[0])
            channel.sendall(VERSION)
            while True:
                packet = exactly(struct.unpack(">I", exactly(4))[0])
                channel.sendall(answer(struct.unpack(">I", packet[1:5])[0]))

    return serve


def then_silent(answers: int) -> Behaviour:
    """Serve so many requests, and then fall silent."""
    seen = itertools.count()

    def serve(server: Server, channel: paramiko.Channel) -> None:
        original = channel.recv

        def recv(nbytes: int) -> bytes:
            if next(seen) >= answers:
                server.over.wait()
            return original(nbytes)

        channel.recv = recv  # type: ignore[method-assign]
        serve_files(server, channel)

    return serve


Copy = Callable[[Connection, Path, Deadline], None]
COPIES: dict[str, Copy] = {
    "put": lambda connection, file, deadline: connection.put(file, f"{file}.there", deadline=deadline),
    "put_tree": lambda connection, file, deadline: connection.put_tree({"a/b": file}, f"{file}.tree", deadline=deadline),
    "get": lambda connection, file, deadline: connection.get(str(file), file.with_name("got"), deadline=deadline),
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    made = tmp_path / "file"
    made.write_bytes(bytes(1 << 20))
    return made


@pytest.mark.parametrize("copy", COPIES)
@pytest.mark.parametrize("what", ["channel", "subsystem"])
def test_a_copy_that_the_server_does_not_begin_ends(copy: str, what: str, file: Path) -> None:
    with connected(Server(before=sick(what))) as connection, within(LIMIT_S, LATE_S), pytest.raises(SshError, match="within 1 s"):
        COPIES[copy](connection, file, Deadline(LIMIT_S))


@pytest.mark.parametrize("copy", COPIES)
@pytest.mark.parametrize(
    "behaviour",
    [
        silent,
        dripping(b".", first=struct.pack(">I", 1 << 20)),
        dripping(as_sftp(b"\x02" + bytes(4)), every_s=0.0),
        then_silent(3),
        then_silent(8),
        then_silent(20),
    ],
    ids=["silent", "drip", "flood", "silent when opening", "silent when copying", "silent later"],
)
def test_a_copy_ends(copy: str, behaviour: Behaviour, file: Path) -> None:
    with connected(Server(sftp=behaviour)) as connection, within(LIMIT_S, LATE_S):
        with pytest.raises(SshError, match=r"^cannot copy .*file.*: the guest did not let it be done within 1 s") as caught:
            COPIES[copy](connection, file, Deadline(LIMIT_S))
        assert "console" in caught.value.hint
        assert connection.alive()


@pytest.mark.parametrize("copy", COPIES)
def test_a_copy_through_a_window_that_never_opens_ends(copy: str, file: Path) -> None:
    # The answers that a client waits for come, but what it writes has no room.
    file.write_bytes(bytes(8 << 20))
    handle = b"\x66" + struct.pack(">I", 1) + struct.pack(">I", 1) + b"h"

    def half(server: Server, channel: paramiko.Channel) -> None:
        with contextlib.suppress(OSError):
            channel.sendall(VERSION)
            for number in range(1, 5):
                channel.sendall(as_sftp(handle[:1] + struct.pack(">I", number) + handle[5:]))
        server.over.wait()

    with connected(Server(sftp=half)) as connection, within(0, LATE_S), pytest.raises(SshError):
        COPIES[copy](connection, file, Deadline(LIMIT_S))


@pytest.mark.parametrize("copy", COPIES)
@pytest.mark.parametrize(
    "behaviour",
    [
        garbage,
        dripping(b"\xff" * 100),
        dripping(as_sftp(b"")),
        dripping(as_sftp(b"\x02")),
        answering(lambda number: as_sftp(b"\x65")),
        answering(lambda number: as_sftp(b"\x65" + struct.pack(">I", number))),
        answering(lambda number: as_sftp(b"\x65" + struct.pack(">III", number, 4, 1 << 30) + b"\xff\xfe")),
        answering(lambda number: as_sftp(b"\x67" + struct.pack(">II", number, 1 << 31))),
        answering(lambda number: as_sftp(b"\x69" + struct.pack(">II", number, 0xFFFFFFFF))),
        answering(lambda number: as_sftp(b"\xc9" + random.Random(number).randbytes(40))),
        hanging_up,
        cutting,
    ],
)
def test_a_copy_with_garbage_or_over_a_lost_connection_ends_in_an_error(copy: str, behaviour: Behaviour, file: Path) -> None:
    with connected(Server(sftp=behaviour)) as connection, within(0, LATE_S), pytest.raises(SshError) as caught:
        COPIES[copy](connection, file, Deadline(LIMIT_S))
    assert caught.value.message.startswith(("cannot copy", "the connection to the guest was lost"))


def test_a_long_command_goes_by_a_copy_which_ends_too() -> None:
    with connected(Server(sftp=silent)) as connection, within(LIMIT_S, LATE_S), pytest.raises(SshError, match="copy a long command"):
        connection.execute("x" * 20_000, deadline=Deadline(LIMIT_S))


@pytest.mark.parametrize("copy", COPIES)
def test_a_copy_over_a_connection_that_takes_nothing_ends(copy: str, file: Path) -> None:
    file.write_bytes(bytes(64 << 20))
    with Server(window_bytes=1 << 30) as server, Jam(server.port) as jam:
        connection = Connection.connect(jam.port, server.identity, user="root", deadline=Deadline(30))
        with within(LIMIT_S, LATE_S), pytest.raises(SshError):
            threading.Timer(0.2, jam.jam).start()
            COPIES[copy](connection, file, Deadline(LIMIT_S))
        with within(0, LATE_S):
            connection.close()


def test_nothing_goes_on_waiting() -> None:
    """What ends a wait leaves no thread of ours behind when the connection is closed."""
    before = threading.enumerate()
    with connected(Server(command=silent, sftp=silent)) as connection:
        for act in (
            lambda: connection.execute("sick", deadline=Deadline(0.3)),
            lambda: connection.get("/x", Path("/nowhere/x"), deadline=Deadline(0.3)),
        ):
            with pytest.raises(RunError):
                act()
    for thread in threading.enumerate():
        if thread.name.startswith("vmlab-") and thread not in before:
            thread.join(20)
            assert not thread.is_alive(), thread.name


def test_control_the_same_server_serves_who_is_well(file: Path) -> None:
    with connected(Server(command=run, sftp=serve_files)) as connection:
        for copy in COPIES.values():
            copy(connection, file, Deadline(30))
        assert connection.execute("echo", deadline=Deadline(30)).stdout == "\n"
