"""An SSH server in this process, on the loopback address: it runs commands of this machine, or does to a client what a sick guest does."""

from __future__ import annotations

import contextlib
import io
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import paramiko
from paramiko.common import AUTH_FAILED, AUTH_SUCCESSFUL, OPEN_FAILED_RESOURCE_SHORTAGE, OPEN_SUCCEEDED
from paramiko.sftp import SFTP_OK

from vmlab.deadline import Deadline
from vmlab.guest.seed import Identity
from vmlab.guest.ssh import Connection

Behaviour = Callable[["Server", paramiko.Channel], None]

# A client is granted so many bytes before anybody reads them (paramiko grants no less).
WINDOW_BYTES = 1 << 15


class Server:
    """A context manager. What it does with a command, with sftp, a channel and a key is told when it is made; else what a healthy one does.

    ``commands`` are the shell lines that it was sent.
    """

    def __init__(
        self,
        *,
        command: Behaviour | None = None,
        sftp: Behaviour | None = None,
        before: Callable[[Server, str], bool] = lambda _server, _what: True,
        window_bytes: int = WINDOW_BYTES,
    ) -> None:
        self.identity = Identity.new("test")
        self.over = threading.Event()
        self.commands: list[str] = []
        self.processes: list[subprocess.Popen[bytes]] = []
        self.command = command or run
        self.sftp = sftp or serve_files
        self.before = before
        self._window_bytes = window_bytes
        self._transports: list[paramiko.Transport] = []
        self._sock = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._sock.getsockname()[1]

    def __enter__(self) -> Server:
        self.spawn(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self._sock.close()
        self.cut()
        for process in self.processes:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            process.wait()

    def spawn(self, work: Callable[..., object], *args: Any) -> None:
        threading.Thread(target=work, args=args, daemon=True).start()

    def cut(self) -> None:
        """Cut all connections."""
        for transport in self._transports:
            with contextlib.suppress(OSError):
                transport.sock.shutdown(socket.SHUT_RDWR)
            transport.close()

    def login(self, deadline_s: float = 30) -> Connection:
        return Connection.connect(self.port, self.identity, user="root", deadline=Deadline(deadline_s))

    def _accept(self) -> None:
        while not self.over.is_set():
            try:
                sock, _ = self._sock.accept()
            except OSError:
                return
            transport = paramiko.Transport(sock)
            transport.default_window_size = self._window_bytes
            transport.add_server_key(paramiko.Ed25519Key.from_private_key(io.StringIO(self.identity.host.private)))
            transport.set_subsystem_handler("sftp", _Sftp, self)
            self._transports.append(transport)
            with contextlib.suppress(paramiko.SSHException, EOFError, OSError):
                transport.start_server(threading.Event(), _Asked(self))


class _Asked(paramiko.ServerInterface):
    """What paramiko asks a server, on the thread that reads its connection."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        allowed = self._server.before(self._server, "login") and key.get_base64() == self._server.identity.client.public.split()[1]
        return AUTH_SUCCESSFUL if allowed else AUTH_FAILED

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return OPEN_SUCCEEDED if self._server.before(self._server, "channel") else OPEN_FAILED_RESOURCE_SHORTAGE

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        if not self._server.before(self._server, "exec"):
            return False
        self._server.commands.append(command.decode())
        self._server.spawn(self._server.command, self._server, channel)
        return True

    def check_channel_subsystem_request(self, channel: paramiko.Channel, name: str) -> bool:
        return self._server.before(self._server, "subsystem") and super().check_channel_subsystem_request(channel, name)


class _Sftp(paramiko.SubsystemHandler):
    def __init__(self, channel: paramiko.Channel, name: str, asked: paramiko.ServerInterface, server: Server) -> None:
        super().__init__(channel, name, asked)
        self._channel, self._server = channel, server

    def start_subsystem(self, name: str, transport: paramiko.Transport, channel: paramiko.Channel) -> None:
        self._server.sftp(self._server, channel)


# What it may do with a command, or with sftp.


def run(server: Server, channel: paramiko.Channel) -> None:
    """Run the last command by a shell of this machine. Its processes share our session, as those of Dropbear's connections do."""
    process = subprocess.Popen(["sh", "-c", server.commands[-1]], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    server.processes.append(process)
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None

    def pump(read: Callable[[int], bytes], write: Callable[[bytes], object], end: Callable[[], object]) -> None:
        with contextlib.suppress(OSError):
            while data := read(1 << 15):
                write(data)
        with contextlib.suppress(OSError):
            end()

    server.spawn(pump, channel.recv, lambda data: os.write(process.stdin.fileno(), data), process.stdin.close)
    outputs = [
        threading.Thread(target=pump, args=[lambda n, f=file: os.read(f.fileno(), n), write, lambda: None], daemon=True)
        for file, write in ((process.stdout, channel.sendall), (process.stderr, channel.sendall_stderr))
    ]
    for thread in outputs:
        thread.start()
    status = process.wait()
    # As Dropbear does it: what a child prints that outlives its parent is not waited for.
    for thread in outputs:
        thread.join(0.3)
    with contextlib.suppress(OSError, EOFError):
        if status >= 0:
            channel.send_exit_status(status)
        channel.close()


def serve_files(server: Server, channel: paramiko.Channel) -> None:
    """Serve this machine's files."""
    asked = paramiko.ServerInterface()
    paramiko.SFTPServer(channel, "sftp", asked, _Files).start_subsystem("sftp", channel.get_transport(), channel)


class _Files(paramiko.SFTPServerInterface):
    def open(self, path: str, flags: int, attr: paramiko.SFTPAttributes) -> paramiko.SFTPHandle | int:
        try:
            descriptor = os.open(path, flags, 0o600)
        except OSError as exc:
            return paramiko.SFTPServer.convert_errno(exc.errno or 0)
        handle = paramiko.SFTPHandle(flags)
        handle.readfile = handle.writefile = os.fdopen(descriptor, "wb" if flags & os.O_WRONLY else "r+b" if flags & os.O_RDWR else "rb")  # type: ignore[attr-defined]
        return handle

    def stat(self, path: str) -> paramiko.SFTPAttributes | int:
        return paramiko.SFTPAttributes.from_stat(Path(path).stat())

    def chattr(self, path: str, attr: paramiko.SFTPAttributes) -> int:
        Path(path).chmod(attr.st_mode or 0)
        return SFTP_OK

    def mkdir(self, path: str, attr: paramiko.SFTPAttributes) -> int:
        try:
            Path(path).mkdir()
        except OSError as exc:
            return paramiko.SFTPServer.convert_errno(exc.errno or 0)
        return SFTP_OK


def silent(server: Server, channel: paramiko.Channel) -> None:
    """Say nothing and read nothing."""
    server.over.wait()


def dripping(data: bytes, every_s: float = 0.05, first: bytes = b"") -> Behaviour:
    """Say this again and again."""

    def drip(server: Server, channel: paramiko.Channel) -> None:
        with contextlib.suppress(OSError, EOFError):
            channel.sendall(first)
            while not server.over.wait(every_s):
                channel.sendall(data)

    return drip


def cutting(server: Server, channel: paramiko.Channel) -> None:
    """Cut the connection a moment later."""
    time.sleep(0.2)
    server.cut()


def hanging_up(server: Server, channel: paramiko.Channel) -> None:
    """Close the channel without a word, a moment later."""
    time.sleep(0.2)
    channel.close()


class Jam:
    """A way to a server that carries bytes until it is told not to: then it takes none either, as a guest whose processors stand still."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._flows = threading.Event()
        self._flows.set()
        self._sock = socket.create_server(("127.0.0.1", 0))
        # So little is taken before anybody reads it.
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.port: int = self._sock.getsockname()[1]
        self._socks = [self._sock]

    def __enter__(self) -> Jam:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._flows.set()
        for sock in self._socks:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()

    def jam(self) -> None:
        """Carry nothing any more."""
        self._flows.clear()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                here, _ = self._sock.accept()
                there = socket.create_connection(("127.0.0.1", self._to))
                self._socks += [here, there]
                for a, b in ((here, there), (there, here)):
                    threading.Thread(target=self._carry, args=[a, b], daemon=True).start()

    def _carry(self, a: socket.socket, b: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := a.recv(4096):
                self._flows.wait()
                b.sendall(data)
            b.shutdown(socket.SHUT_WR)


def _kept_waiting_s() -> float:
    """How long threads of this process were ready to run and had no processor (Documentation/scheduler/sched-stats.rst), in all."""
    waited_ns = 0
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):
            waited_ns += int((task / "schedstat").read_text().split()[1])
    return waited_ns / 1e9


@contextlib.contextmanager
def within(least_s: float, limit_s: float) -> Iterator[None]:
    """Let a block end between these two; how long the machine was busy with other things decides nothing."""
    began, waited_s = time.monotonic(), _kept_waiting_s()
    yield
    took_s = time.monotonic() - began
    late_s = took_s - limit_s
    assert took_s > least_s - 0.01, f"it ended {least_s - took_s:.2f} s too early"
    assert late_s < 0 or late_s < _kept_waiting_s() - waited_s, f"it ended {late_s:.2f} s too late"
