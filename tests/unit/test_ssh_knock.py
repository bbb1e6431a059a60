"""A connection that is greeted before anybody logs in over it."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import pytest

from vmlab.deadline import Deadline
from vmlab.errors import SshError
from vmlab.guest.ssh import Knocked

GREETING = b"SSH-2.0-vmlab\r\n"


@contextlib.contextmanager
def knocked() -> Iterator[tuple[Knocked, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as server, Knocked(server.getsockname()[1], Deadline(5)) as ours:
        theirs, _ = server.accept()
        with theirs:
            yield ours, theirs


def test_the_server_is_greeted_at_once_and_only_once() -> None:
    with knocked() as (ours, theirs):
        assert theirs.recv(100) == GREETING
        # What an SSH library does next: it greets, in as many pieces as it likes, and goes on.
        assert ours.send(GREETING[:5]) == 5
        assert ours.send(GREETING[5:] + b"rest") == len(GREETING) - 5
        assert ours.send(b"rest") == 4
        assert theirs.recv(100) == b"rest"
        theirs.sendall(b"SSH-2.0-Server\r\n")
        assert ours.recv(100) == b"SSH-2.0-Server\r\n"


def test_a_door_that_nobody_opens_is_an_error_of_ours() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(SshError, match="cannot connect"):
        Knocked(port, Deadline(5))


def test_it_is_closed_when_what_follows_fails() -> None:
    with contextlib.suppress(ZeroDivisionError), knocked() as (ours, theirs):
        theirs.recv(100)
        raise ZeroDivisionError
    assert ours.fileno() == -1
