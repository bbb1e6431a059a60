"""One SSH connection to one guest, whose host key is known beforehand.

A connection that is lost is an `SshError`, which is ours; what a command does is its `CommandResult`. Output is limited while it is
read, because the guest may send without end.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import secrets
import select
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import paramiko

from vmlab.deadline import Deadline
from vmlab.errors import ScriptError, SshError, StrangerError
from vmlab.guest.seed import Identity

# The algorithms that cost the least under emulation and are as strong as any. The guest's processor has AES instructions, which QEMU
# emulates with helpers; GCM also saves the separate MAC.
_CIPHERS = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "aes128-ctr")
_KEX = ("curve25519-sha256", "curve25519-sha256@libssh.org")
# Said first on every connection (RFC 4253, section 4.2).
_CLIENT_VERSION = "SSH-2.0-vmlab"
_STDERR_LIMIT_BYTES = 64 << 10
_LINE_LIMIT_BYTES = 1 << 20

# How long a guest may take to start a command: seconds on a crowded machine.
_REPLY_LIMIT_S = 120.0

# Dropbear refuses a longer command (its MAX_CMD_LEN is 9000) and hangs up on one that does not fit into a packet of 32 KiB.
_COMMAND_LIMIT_BYTES = 8192


@dataclass(frozen=True)
class CommandResult:
    """What a command in the guest left."""

    command: str
    status: int
    stdout: str
    stderr: str
    duration_s: float


class _KnownKeyOnly(paramiko.MissingHostKeyPolicy):
    """Refuses a guest whose key is not the one that we gave it: then something else listens on that port."""

    def missing_host_key(self, _client: paramiko.SSHClient, hostname: str, key: paramiko.PKey) -> None:
        raise StrangerError(f"the machine on {hostname} has the host key {key.fingerprint}, not the one that this guest was given")


class Connection:
    """A logged-in connection. Made by `connect`; `abort` may be called from any thread and ends every wait at once."""

    def __init__(self, client: paramiko.SSHClient) -> None:
        self._client = client
        self._question: _Question | None = None

    @classmethod
    def connect(cls, port: int, identity: Identity, *, user: str, deadline: Deadline, sock: Any = None) -> Connection:
        """Log in on the loopback address, or over ``sock``. Raises SshError when the guest does not let us in (or not in time)."""
        client = paramiko.SSHClient()
        kind, data = identity.host.public.split()[:2]
        client.get_host_keys().add(f"[127.0.0.1]:{port}", kind, paramiko.PKey.from_type_string(kind, base64.b64decode(data)))
        client.set_missing_host_key_policy(_KnownKeyOnly())
        seconds = max(0.1, min(deadline.left_s(), 120.0))
        try:
            client.connect(
                "127.0.0.1",
                port,
                username=user,
                pkey=paramiko.Ed25519Key.from_private_key(io.StringIO(identity.client.private)),
                allow_agent=False,
                look_for_keys=False,
                timeout=seconds,
                banner_timeout=seconds,
                auth_timeout=seconds,
                transport_factory=_transport,
                sock=sock,
            )
        except paramiko.BadHostKeyException as exc:
            client.close()
            raise StrangerError(f"the machine on port {port} has another host key than this guest was given") from exc
        except (paramiko.SSHException, OSError, EOFError) as exc:
            client.close()
            raise SshError(f"cannot log in to the guest: {exc or type(exc).__name__}") from exc
        return cls(client)

    def execute(self, command: str, *, deadline: Deadline, stdin: bytes = b"", output_limit_bytes: int = 1 << 20) -> CommandResult:
        """Run one shell line to its end.

        Raises SshError when the connection is lost, ScriptError when the command runs out of time or prints more than
        ``output_limit_bytes`` on its standard output.
        """
        started = time.monotonic()
        channel = self._open(command, deadline)
        out, err = bytearray(), bytearray()
        to_send = memoryview(stdin)
        with contextlib.closing(channel):
            if not stdin:
                channel.shutdown_write()
            while _readable(channel) or (self.alive() and not _is_over(channel)):
                _drain(channel, out, err)
                if len(out) > output_limit_bytes:
                    raise ScriptError(
                        f"it printed more than {output_limit_bytes} bytes: {_short(command)}",
                        hint="print less, or allow more with output_limit_bytes",
                        detail=bytes(out[:500]).decode(errors="replace"),
                    )
                if deadline.expired():
                    raise ScriptError(
                        f"it ran longer than its {deadline.budget_s:.0f} s: {_short(command)}",
                        detail=(bytes(err) or bytes(out))[-2000:].decode(errors="replace"),
                    )
                if to_send and channel.send_ready():
                    to_send = to_send[self._send(channel, to_send) :]
                    if not to_send:
                        channel.shutdown_write()
                _wait(channel, 0.02 if to_send else 0.2, deadline)
            status = self.status(channel, command)
        return CommandResult(command, status, out.decode(errors="replace"), err.decode(errors="replace"), time.monotonic() - started)

    def start(self, command: str, *, deadline: Deadline) -> Conversation:
        """Start a command and talk to it line by line."""
        return Conversation(self, self._open(command, deadline), command)

    def put(self, local: Path, remote: str, *, mode: int = 0o644) -> None:
        """Copy a file into the guest."""
        with self._sftp() as sftp:
            sftp.put(str(local), remote)
            sftp.chmod(remote, mode)

    def put_tree(self, files: Mapping[str, Path], directory: str) -> None:
        """Copy files under a directory of the guest, by relative name and each with its local mode; directories are made as needed."""
        with self._sftp() as sftp:
            made: set[str] = set()
            for name, local in files.items():
                target = PurePosixPath(directory, name)
                for parent in reversed(target.parents):
                    if str(parent) not in made:
                        # It may exist already, which SFTP reports as a plain failure; a missing one shows at the put below.
                        with contextlib.suppress(OSError):
                            sftp.mkdir(str(parent))
                        made.add(str(parent))
                sftp.put(str(local), str(target), confirm=False)
                sftp.chmod(str(target), local.stat().st_mode & 0o777)

    def get(self, remote: str, local: Path, *, limit_bytes: int = 64 << 20) -> None:
        """Copy a file out of the guest; SshError when it is missing, ScriptError when it is larger than ``limit_bytes``."""
        with self._sftp() as sftp, sftp.open(remote, "rb") as source, local.open("wb") as target:
            copied = 0
            while block := source.read(1 << 18):
                copied += len(block)
                if copied > limit_bytes:
                    raise ScriptError(f"{remote} is larger than {limit_bytes} bytes")
                target.write(block)

    def alive(self) -> bool:
        """Whether the transport still runs."""
        transport = self._client.get_transport()
        return transport is not None and transport.is_active()

    def answered_at(self, patience_s: float) -> float:
        """When a question was asked that the server has answered, on the monotonic clock; 0 when no answer comes within ``patience_s``.

        Then the next call waits for the same one. A server answers every global request, if only with a refusal (RFC 4254, section 4),
        and starts nothing for it.
        """
        transport = self._client.get_transport()
        if transport is None or not transport.is_active():
            return 0.0
        question = self._question = self._question or _Question(transport)
        if not question.is_over(patience_s):
            return 0.0
        self._question = None
        return question.asked_at if question.is_answered else 0.0

    def abort(self) -> None:
        """Cut the connection: every wait on it ends at once with an SshError."""
        transport = self._client.get_transport()
        if transport is not None:
            with contextlib.suppress(OSError):
                transport.sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def _open(self, command: str, deadline: Deadline) -> paramiko.Channel:
        transport = self._client.get_transport()
        if transport is None or not transport.is_active():
            raise SshError("the connection to the guest was lost")
        seconds = max(0.1, min(deadline.left_s(), _REPLY_LIMIT_S))
        patience = Deadline(seconds)
        if len(command.encode()) > _COMMAND_LIMIT_BYTES:
            command = self._left_as_file(command)
        try:
            channel = transport.open_session(timeout=seconds)
            # paramiko waits for this reply without an end, and a guest may hang.
            watchdog = threading.Timer(seconds, _close, [channel])
            watchdog.daemon = True
            watchdog.start()
            try:
                channel.exec_command(command)
            finally:
                watchdog.cancel()
        except (paramiko.SSHException, OSError, EOFError) as exc:
            if not self.alive():
                raise SshError(f"the connection to the guest was lost: {exc or type(exc).__name__}") from exc
            if patience.expired():
                raise SshError(f"the guest did not start a command within {seconds:.0f} s: {_short(command)}") from exc
            raise SshError(f"the guest refused to start a command ({exc or type(exc).__name__}): {_short(command)}") from exc
        return channel

    def _left_as_file(self, command: str) -> str:
        """A short command that does what a long one says: the same shell reads it from a file."""
        remote = str(PurePosixPath("/tmp", f"vmlab-command-{secrets.token_hex(16)}"))  # noqa: S108  (the guest's, by a name that nobody guesses)
        with self._sftp() as sftp, sftp.open(remote, "w") as target:
            sftp.chmod(remote, 0o600)
            target.write(command.encode())
        return f"exec 9<{remote}; rm {remote}; . /dev/fd/9"

    def _send(self, channel: paramiko.Channel, data: memoryview) -> int:
        try:
            return channel.send(bytes(data[:32768]))
        except OSError as exc:
            if self.alive():
                # The command closed its standard input: what is left has no reader, as in a shell's pipe.
                return len(data)
            raise SshError("the connection to the guest was lost") from exc

    def status(self, channel: paramiko.Channel, command: str) -> int:
        """The exit status. paramiko gives -1 both for a command that a signal ended and for a connection that was lost."""
        if channel.exit_status < 0:
            # A lost connection closes its channels a moment before it counts as lost.
            end = Deadline(0.5)
            while self.alive() and not end.expired():
                time.sleep(0.02)
            if not self.alive():
                raise SshError(f"the connection to the guest was lost during: {_short(command)}")
        return channel.exit_status

    @contextlib.contextmanager
    def _sftp(self) -> Iterator[paramiko.SFTPClient]:
        try:
            with self._client.open_sftp() as sftp:
                yield sftp
        except (paramiko.SSHException, OSError, EOFError) as exc:
            raise SshError(f"cannot copy a file to or from the guest: {exc or type(exc).__name__}") from exc


class _Question:
    """A question to an SSH server, asked on a thread of its own: paramiko waits for the answer as long as the connection lasts."""

    def __init__(self, transport: paramiko.Transport) -> None:
        self.asked_at = time.monotonic()
        self.is_answered = False
        self._thread = threading.Thread(target=self._ask, args=(transport,), name="vmlab-ssh-question", daemon=True)
        self._thread.start()

    def _ask(self, transport: paramiko.Transport) -> None:
        with contextlib.suppress(paramiko.SSHException, OSError, EOFError):
            transport.global_request("keepalive@openssh.com", wait=True)
            # (A connection that is lost ends the wait too.)
            self.is_answered = transport.is_active()

    def is_over(self, patience_s: float) -> bool:
        """Whether there is nothing more to wait for, now or within so many seconds."""
        self._thread.join(patience_s)
        return not self._thread.is_alive()


class Conversation:
    """A running script that speaks JSON lines. A context manager: leaving it early ends the script's input and forgets it."""

    def __init__(self, connection: Connection, channel: paramiko.Channel, command: str) -> None:
        self._connection = connection
        self._channel = channel
        self._command = command
        self._pending = bytearray()
        self._stderr = bytearray()

    def __enter__(self) -> Conversation:
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.close()

    def send(self, message: Mapping[str, Any]) -> None:
        """Write one JSON line to the script's standard input."""
        try:
            self._channel.sendall(json.dumps(message).encode() + b"\n")
        except OSError as exc:
            raise self._ended("it no longer reads its input") from exc

    def read(self, time_limit_s: float = 60.0) -> dict[str, Any]:
        """The next JSON object that the script prints. ScriptError when it ends, says nothing in time, or prints anything else."""
        record = self._next(Deadline(time_limit_s))
        if record is None:
            raise self._ended("it ended where another line was expected")
        return record

    def __iter__(self) -> Iterator[dict[str, Any]]:
        while (record := self._next(Deadline(600))) is not None:
            yield record

    def finish(self, time_limit_s: float = 60.0) -> None:
        """Close the script's input and wait for its end. ScriptError when it fails or takes longer."""
        self._channel.shutdown_write()
        deadline = Deadline(time_limit_s)
        while self._next(deadline) is not None:
            pass
        if not self._channel.status_event.wait(deadline.left_s()):
            raise ScriptError(f"it did not end within {time_limit_s:.0f} s: {_short(self._command)}")
        status = self._connection.status(self._channel, self._command)
        if status != 0:
            raise self._ended(f"it failed with exit status {status}")

    def _next(self, deadline: Deadline) -> dict[str, Any] | None:
        """The next record, or None at the end of the script's output."""
        while b"\n" not in self._pending:
            if len(self._pending) > _LINE_LIMIT_BYTES:
                raise self._ended(f"it printed a line longer than {_LINE_LIMIT_BYTES} bytes")
            if (self._channel.eof_received or self._channel.closed) and not _readable(self._channel):
                if not self._connection.alive():
                    raise SshError(f"the connection to the guest was lost during: {_short(self._command)}")
                if self._pending.strip():
                    raise self._ended("its last line has no end")
                return None
            if deadline.expired():
                raise self._ended(f"it printed nothing for {deadline.budget_s:.0f} s")
            _wait(self._channel, 0.2, deadline)
            _drain(self._channel, self._pending, self._stderr)
        line, _, rest = bytes(self._pending).partition(b"\n")
        self._pending[:] = rest
        return parse_line(line, self._command)

    def _ended(self, what: str) -> ScriptError | SshError:
        if not self._connection.alive():
            return SshError(f"the connection to the guest was lost during: {_short(self._command)}")
        _drain(self._channel, self._pending, self._stderr)
        return ScriptError(f"{what}: {_short(self._command)}", detail=bytes(self._stderr[-2000:]).decode(errors="replace"))


def parse_line(line: bytes, command: str) -> dict[str, Any]:
    """One line of a guest script's output as a JSON object; ScriptError that shows the line when it is anything else."""
    try:
        value = json.loads(line, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as exc:
        raise ScriptError(
            f"it printed what is not JSON: {_short(command)}",
            hint="a guest script prints one JSON object a line on standard output and everything else on standard error",
            detail=line[:500].decode(errors="replace"),
        ) from exc
    if not isinstance(value, dict):
        raise ScriptError(
            f"it printed JSON that is not an object: {_short(command)}",
            hint="a guest script prints one JSON object a line",
            detail=line[:500].decode(errors="replace"),
        )
    return value


class Knocked:
    """A connection to the guest's sshd that has begun: it has been greeted, so that it prepares itself, and nothing is agreed on yet.

    An sshd executes one or two programs for each connection before it reads on, which under emulation takes longer than all the
    cryptography after it. A context manager; `Connection.connect` takes it as its socket and takes it over.
    """

    def __init__(self, port: int, deadline: Deadline) -> None:
        try:
            self._sock = socket.create_connection(("127.0.0.1", port), timeout=max(0.1, min(deadline.left_s(), 60.0)))
            # Small packets that wait for others (Nagle's algorithm) would only wait here.
            self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._unsaid = f"{_CLIENT_VERSION}\r\n".encode()
            self._sock.sendall(self._unsaid)
        except OSError as exc:
            raise SshError(f"cannot connect to the guest: {exc}") from exc

    def __enter__(self) -> Knocked:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is not None:
            self._sock.close()

    def send(self, data: bytes) -> int:
        """As of a socket; the greeting is not said twice."""
        if self._unsaid and self._unsaid.startswith(data[: len(self._unsaid)]):
            said = min(len(data), len(self._unsaid))
            self._unsaid = self._unsaid[said:]
            return said
        return self._sock.send(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)


def wait_for_banner(port: int, *, timeout_s: float) -> bool:
    """Whether an SSH server greets on the port. QEMU accepts connections before the guest listens, so only the greeting counts."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=timeout_s) as sock:
            sock.settimeout(timeout_s)
            return sock.recv(16).startswith(b"SSH-")
    except OSError:
        return False


def _transport(sock: Any, **options: Any) -> paramiko.Transport:
    options.pop("gss_kex", None)
    options.pop("gss_deleg_creds", None)
    transport = paramiko.Transport(sock, **options)
    transport.local_version = _CLIENT_VERSION
    security = transport.get_security_options()
    security.ciphers = tuple(name for name in _CIPHERS if name in security.ciphers)
    security.kex = tuple(name for name in _KEX if name in security.kex)
    return transport


def _close(channel: paramiko.Channel) -> None:
    """End every wait on a channel. The connection may be gone too, and then there is nobody to tell."""
    with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
        channel.close()


def _readable(channel: paramiko.Channel) -> bool:
    return bool(channel.recv_ready() or channel.recv_stderr_ready())


def _is_over(channel: paramiko.Channel) -> bool:
    """Whether the command has ended and all it printed has arrived."""
    return bool(channel.closed or (channel.eof_received and channel.status_event.is_set()))


def _wait(channel: paramiko.Channel, seconds: float, deadline: Deadline) -> None:
    """Wait until there is anything to read on the channel, or ``seconds`` are over."""
    patience_s = min(seconds, deadline.left_s())
    if channel.eof_received and not _readable(channel):
        # The descriptor stays ready for ever after the end of output; what is still to come is the exit status.
        channel.status_event.wait(patience_s)
        return
    # poll and not select: a run with many files open may have descriptors beyond select's 1024.
    poll = select.poll()
    poll.register(channel.fileno(), select.POLLIN)
    poll.poll(patience_s * 1000)


def _drain(channel: paramiko.Channel, out: bytearray, err: bytearray) -> None:
    """Move what has arrived; standard error is kept up to a limit and the rest dropped."""
    while channel.recv_ready():
        out += channel.recv(1 << 16)
        if len(out) > 64 << 20:
            return
    while channel.recv_stderr_ready():
        err += channel.recv_stderr(1 << 16)
        del err[: max(0, len(err) - _STDERR_LIMIT_BYTES)]


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _short(command: str) -> str:
    return command if len(command) <= 120 else command[:117] + "..."
