"""One SSH connection to one guest, whose host key is known beforehand.

A connection that is lost is an `SshError`, which is ours; what a command does is its `CommandResult`. Output is limited while it is
read, because the guest may send without end.
"""

from __future__ import annotations

import base64
import contextlib
import io
import logging
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import paramiko

from vmlab.deadline import Deadline
from vmlab.errors import RunError, ScriptError, SshError, StrangerError, VmlabError
from vmlab.guest.command import Command, CommandResult, close, short
from vmlab.guest.conversation import Conversation
from vmlab.guest.ending import COMMAND as ENDING
from vmlab.guest.ending import marked, new_mark, program
from vmlab.guest.seed import Identity
from vmlab.guest.watchdog import nothing, watched

log = logging.getLogger(__name__)

# The algorithms that cost the least under emulation and are as strong as any. The guest's processor has AES instructions, which QEMU
# emulates with helpers; GCM also saves the separate MAC.
_CIPHERS = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "aes128-ctr")
_KEX = ("curve25519-sha256", "curve25519-sha256@libssh.org")
# Said first on every connection (RFC 4253, section 4.2).
_CLIENT_VERSION = "SSH-2.0-vmlab"
# How long a guest may take to start a command: seconds on a crowded machine.
_REPLY_LIMIT_S = 120.0

# Dropbear refuses a longer command (its MAX_CMD_LEN is 9000) and hangs up on one that does not fit into a packet of 32 KiB.
_COMMAND_LIMIT_BYTES = 8192

# How long the end of a command may take in a guest; its program takes five seconds at most, and its start seconds on a crowded machine.
ENDING_LIMIT_S = 20.0
# A script may end by itself so long after its input did, before it is made to.
_INPUT_ENDED_S = 0.2

_SILENT_HINT = "the guest hangs, or its sshd does: its console may say why"


class _KnownKeyOnly(paramiko.MissingHostKeyPolicy):
    """Refuses a guest whose key is not the one that we gave it: then something else listens on that port."""

    def missing_host_key(self, _client: paramiko.SSHClient, hostname: str, key: paramiko.PKey) -> None:
        raise StrangerError(f"the machine on {hostname} has the host key {key.fingerprint}, not the one that this guest was given")


class Connection:
    """A logged-in connection. Made by `connect`; `abort` may be called from any thread and ends every wait at once."""

    def __init__(self, client: paramiko.SSHClient, anew: Callable[[Deadline], Connection]) -> None:
        self._client = client
        self._question: _Question | None = None
        self._anew = anew
        self._is_ours_to_end = False
        self._endings: list[threading.Thread] = []

    @classmethod
    def connect(cls, port: int, identity: Identity, *, user: str, deadline: Deadline, sock: Any = None) -> Connection:
        """Log in on the loopback address, or over ``sock``. Raises SshError when the guest does not let us in (or not in time)."""
        deadline = deadline.within(_REPLY_LIMIT_S)
        client = paramiko.SSHClient()
        kind, data = identity.host.public.split()[:2]
        client.get_host_keys().add(f"[127.0.0.1]:{port}", kind, paramiko.PKey.from_type_string(kind, base64.b64decode(data)))
        client.set_missing_host_key_policy(_KnownKeyOnly())
        sock = sock or _dial(port, deadline)
        seconds = max(0.1, deadline.left_s())
        try:
            # Each of paramiko's limits is for one step of many, or for one byte.
            with watched(deadline, partial(_hang_up, sock), nothing):
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
        except VmlabError:
            client.close()
            raise
        except Exception as exc:  # paramiko hands on whatever its thread met in what the guest sent, of whatever type.
            client.close()
            if deadline.expired():
                raise SshError(f"cannot log in to the guest: it did not let us in within {deadline.budget_s:.0f} s") from exc
            raise SshError(f"cannot log in to the guest: {exc or type(exc).__name__}") from exc
        except BaseException:
            client.close()
            raise
        return cls(client, lambda deadline: cls.connect(port, identity, user=user, deadline=deadline))

    def execute(self, command: str, *, deadline: Deadline, stdin: bytes = b"", output_limit_bytes: int = 1 << 20) -> CommandResult:
        """Run one shell line to its end.

        Raises SshError when the connection is lost, ScriptError when the command runs out of time or prints more than
        ``output_limit_bytes`` on its standard output: then it is ended in the guest, with all that it started.
        """
        started = time.monotonic()
        with self.open(command, deadline) as running:
            status = running.finish(stdin, output_limit_bytes)
        out, err = running.out.decode(errors="replace"), running.err.decode(errors="replace")
        return CommandResult(command, status, out, err, time.monotonic() - started)

    def start(self, command: str, *, deadline: Deadline, name: str = "") -> Conversation:
        """Start a command and talk to it line by line, until the deadline at most. ``name`` is what messages call it."""
        return Conversation(self.open(command, deadline), deadline, name)

    def put(self, local: Path, remote: str, *, deadline: Deadline, mode: int = 0o644) -> None:
        """Copy a file into the guest. SshError when that is not done by the deadline, ScriptError for a path that is not there."""
        with self._sftp(f"copy {local.name} to {remote}", deadline) as sftp:
            sftp.put(str(local), remote)
            sftp.chmod(remote, mode)

    def put_tree(self, files: Mapping[str, Path], directory: str, *, deadline: Deadline) -> None:
        """Copy files under a directory of the guest, by relative name; directories are made as needed.

        All may read them, and execute those that their owner may. Raises as `put` does.
        """
        with self._sftp(f"copy {len(files)} files to {directory}", deadline) as sftp:
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
                # (Whoever a lab's script runs as may read it, and execute what its owner may.)
                mode = local.stat().st_mode & 0o777
                sftp.chmod(str(target), mode | 0o444 | (0o111 if mode & 0o100 else 0))

    def write(self, content: bytes, remote: str, *, mode: int, deadline: Deadline) -> None:
        """Write a file of the guest in one step: whoever reads it meanwhile finds the old one or the new one.

        Raises as `put` does, and ScriptError when there is no such directory.
        """
        target = PurePosixPath(remote)
        partial = str(target.with_name(f".{target.name[:100]}.{secrets.token_hex(8)}"))
        with self._sftp(f"write {remote}", deadline) as sftp:
            try:
                with sftp.open(partial, "wb") as file:
                    sftp.chmod(partial, 0o600)
                    file.write(content)
                sftp.chmod(partial, mode)
                sftp.posix_rename(partial, remote)
            except FileNotFoundError as exc:
                where = str(target.parent)
                raise ScriptError(
                    f"{target.name} cannot be written: the guest has no directory {where}", hint=f"make it first: mkdir -p {where}"
                ) from exc
            except OSError:
                with contextlib.suppress(OSError):
                    sftp.remove(partial)
                raise

    def get(self, remote: str, local: Path, *, deadline: Deadline, limit_bytes: int = 64 << 20) -> None:
        """Copy a file out of the guest; raises as `put`, and ScriptError when it is larger than ``limit_bytes``."""
        with self._sftp(f"copy {remote} from the guest", deadline) as sftp, sftp.open(remote, "rb") as source, local.open("wb") as target:
            copied = 0
            while block := source.read(1 << 18):
                copied += len(block)
                if copied > limit_bytes:
                    raise ScriptError(
                        f"{remote} is larger than {limit_bytes} bytes", hint="copy a part of it: head -c, in the guest, first"
                    )
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
        """Cut the connection to a guest that is gone: every wait on it ends at once with an SshError."""
        self._is_ours_to_end = True
        self.cut()

    def cut(self) -> None:
        """Cut the connection: every wait on it ends at once with an SshError."""
        transport = self._client.get_transport()
        if transport is not None:
            _hang_up(transport.sock)

    def close(self) -> None:
        """Close the connection."""
        self._is_ours_to_end = True
        self._client.close()

    def open(self, command: str, deadline: Deadline) -> Command:
        """Start a shell line. Commands that are being ended are waited for, so that nothing of them meets what comes now."""
        for ending in self._endings:
            ending.join(min(deadline.left_s(), ENDING_LIMIT_S))
        self._endings = [ending for ending in self._endings if ending.is_alive()]
        return self._open(command, deadline, new_mark())

    def _open(self, command: str, deadline: Deadline, mark: str) -> Command:
        line = marked(command, mark)
        if len(line.encode()) > _COMMAND_LIMIT_BYTES:
            line = marked(self._left_as_file(command, deadline), mark)
        with self._channel(f"start the command {short(command)}", deadline.within(_REPLY_LIMIT_S)) as channel:
            channel.exec_command(line)
        return Command(self, channel, command, mark=mark, deadline=deadline)

    def _left_as_file(self, command: str, deadline: Deadline) -> str:
        """A short command that does what a long one says: the same shell reads it from a file."""
        remote = str(PurePosixPath("/tmp", f"vmlab-command-{secrets.token_hex(16)}"))  # noqa: S108  (the guest's, by a name that nobody guesses)
        with self._sftp(f"copy a long command to {remote}", deadline) as sftp, sftp.open(remote, "w") as target:
            sftp.chmod(remote, 0o600)
            target.write(command.encode())
        return f"exec 9<{remote}; rm {remote}; . /dev/fd/9"

    def give_up(self, command: Command, wait_s: float) -> None:
        """End a command in the guest, with all that it started; over another connection where this one was lost.

        That is waited for so many seconds at most; the next command waits for the rest.
        """
        ending = threading.Thread(target=self._end, args=[command], name="vmlab-ending", daemon=True)
        ending.start()
        if command.mark:
            self._endings.append(ending)
        ending.join(min(wait_s, ENDING_LIMIT_S))

    def _end(self, command: Command) -> None:
        deadline = Deadline(ENDING_LIMIT_S)
        try:
            # A script that reads its input ends in its own way when that ends.
            command.close_input(deadline)
            command.has_exited(_INPUT_ENDED_S)
            if command.mark and not self._is_ours_to_end:
                with contextlib.ExitStack() as stack:
                    connection = self if self.alive() else stack.enter_context(contextlib.closing(self._anew(deadline)))
                    with connection._open(ENDING, deadline, mark="") as ending:
                        if ending.finish(program(command.mark), output_limit_bytes=1 << 16) != 0:
                            log.warning("something in the guest would not end: %s", command.line)
        except RunError as exc:
            log.info("a command in the guest could not be ended: %s: %s", command.line, exc.message)
        finally:
            command.close()

    @contextlib.contextmanager
    def _sftp(self, what: str, deadline: Deadline) -> Iterator[paramiko.SFTPClient]:
        with self._channel(what, deadline) as channel:
            channel.invoke_subsystem("sftp")
            with paramiko.SFTPClient(channel) as sftp:
                yield sftp

    @contextlib.contextmanager
    def _channel(self, what: str, deadline: Deadline) -> Iterator[paramiko.Channel]:
        """A new channel, closed when the block fails. The block, which is to do ``what``, ends with an SshError at the deadline."""
        transport = self._client.get_transport()
        if transport is None or not transport.is_active():
            raise SshError("the connection to the guest was lost")
        if deadline.expired():
            raise ScriptError(f"no time is left to {what}", hint="the run's time is over (time_limit_s in lab.yaml)")
        opened: list[paramiko.Channel] = []

        def close_it() -> None:
            for channel in opened:
                close(channel)

        try:
            with watched(deadline, close_it, self.cut):
                try:
                    opened.append(transport.open_session(timeout=max(0.1, deadline.left_s())))
                    yield opened[0]
                except BaseException:
                    close_it()
                    raise
        except VmlabError:
            raise
        except Exception as exc:  # paramiko hands on whatever it met in what the guest sent, of whatever type.
            why = str(exc) or type(exc).__name__
            if deadline.expired():
                raise SshError(
                    f"cannot {what}: the guest did not let it be done within {deadline.budget_s:.0f} s", hint=_SILENT_HINT, detail=why
                ) from exc
            if not self.alive():
                raise SshError(f"the connection to the guest was lost: {why}") from exc
            if isinstance(exc, FileNotFoundError | PermissionError | IsADirectoryError | NotADirectoryError):
                # (SFTP says it of a path in the guest, and opening a file of this machine of one here.)
                raise ScriptError(
                    f"cannot {what}: {why}", hint="look at the paths in experiment.py, and at what should have made them"
                ) from exc
            raise SshError(f"cannot {what}: {why}") from exc


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


class Knocked:
    """A connection to the guest's sshd that has begun: it has been greeted, so that it prepares itself, and nothing is agreed on yet.

    An sshd executes one or two programs for each connection before it reads on, which under emulation takes longer than all the
    cryptography after it. A context manager; `Connection.connect` takes it as its socket and takes it over.
    """

    def __init__(self, port: int, deadline: Deadline) -> None:
        self._sock = _dial(port, deadline)
        self._unsaid = f"{_CLIENT_VERSION}\r\n".encode()
        try:
            self._sock.sendall(self._unsaid)
        except OSError as exc:
            self._sock.close()
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


def wait_for_banner(port: int, deadline: Deadline) -> bool:
    """Whether an SSH server greets on the port. QEMU accepts connections before the guest listens, so only the greeting counts."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=max(0.01, deadline.left_s())) as sock:
            sock.settimeout(max(0.01, deadline.left_s()))
            return sock.recv(16).startswith(b"SSH-")
    except OSError:
        return False


def _dial(port: int, deadline: Deadline) -> socket.socket:
    try:
        sock = socket.create_connection(("127.0.0.1", port), timeout=max(0.1, min(deadline.left_s(), 60.0)))
    except OSError as exc:
        raise SshError(f"cannot connect to the guest: {exc}") from exc
    # Small packets that wait for others (Nagle's algorithm) would only wait here.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def _hang_up(sock: socket.socket | paramiko.Channel) -> None:
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)


def _transport(sock: Any, **options: Any) -> paramiko.Transport:
    options.pop("gss_kex", None)
    options.pop("gss_deleg_creds", None)
    transport = paramiko.Transport(sock, **options)
    transport.local_version = _CLIENT_VERSION
    security = transport.get_security_options()
    security.ciphers = tuple(name for name in _CIPHERS if name in security.ciphers)
    security.kex = tuple(name for name in _KEX if name in security.kex)
    return transport
