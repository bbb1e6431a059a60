"""A program that stands in for qemu-system-x86_64, so that all around a guest is tested in a second, also where no guest can run.

It is started by vmlab with QEMU's own command line (`tests.stand_in.machine` puts it on the PATH) and answers as QEMU and its guest would:
on the monitor, on the console, on the port by which a clone is told who it is, and by SSH, with the keys of the seed. It emulates no
machine. What is "run in the guest" is answered from a table, or, where a test needs a program to run, by this machine's shell in a
directory of its own; only the few commands named in `ALLOWED` ever reach that shell, because others switch a guest off.

``VMLAB_STAND_IN`` in the environment says what goes wrong, in words; see `trouble`.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import paramiko
import yaml
from paramiko import common, sftp

from tests.stand_in.monitor import Gone, Monitor, Refused
from vmlab.guest import ending
from vmlab.guest.inside import standby

VERSION = "QEMU emulator version 7.2.22 (a stand-in)\n"
KERNEL = b"[    0.000000] Linux version 6.1.0-stand-in\r\n[    0.100000] Run /sbin/init as init process\r\n"
PANIC = b"[    0.200000] Kernel panic - not syncing: VFS: Unable to mount root fs\r\n[    0.200001] ---[ end Kernel panic ]---\r\n"

# The first words of what this machine's shell may run, as vmlab or a test's lab says it in the guest.
ALLOWED = (
    ending.COMMAND,
    "echo ",
    "cat ",
    "mkdir -p ",
    "read -r name ",
    "for program in ",
    ". /etc/os-release;",
    "cd /run/cloud-init && ",
    "cd /run/vmlab/lab && ",
)
# What vmlab puts before each command (`vmlab.guest.ending`).
MARK = re.compile(rf"export {ending.VARIABLE}=[0-9a-f]+; ")
# A guest's path is one of its directory here.
GUEST_PATHS = re.compile(r"(?<![\w.}])/(run|tmp|etc|proc/sys/kernel)/")

CHANNEL_SUCCESS = bytes([99])  # RFC 4254, section 9
STATE = b"the state of a guest that there is not\n" * 10_000


def trouble(word: str) -> bool:
    """What goes wrong, by the words of ``VMLAB_STAND_IN``.

    exits              QEMU ends at once, with a word on its standard error
    hangs              the kernel says nothing
    panics             the kernel panics before there is an sshd
    degraded           cloud-init ends with a warning
    cloud-init-fails   cloud-init ends with an error
    unsaved            QEMU refuses to save its state
    writes             the guest writes to its drive named data while it boots
    clone-exits        a QEMU that is to go on from a state ends at once
    """
    return word in os.environ.get("VMLAB_STAND_IN", "").split()


class Guest:
    """One machine: a directory with what it holds, and the doors to it."""

    def __init__(self, argv: list[str]) -> None:
        self.argv = argv
        # (In the run's own directory, so that it goes with that, however this ends.)
        self.root = Path(self.option("id=disk,if=none,file=", until=",format").replace(",,", ",")).parent / "inside"
        self.root.mkdir()
        self.sshd_is_up = threading.Event()
        self.console, self.identity, self.qmp = (
            socket.socket(fileno=int(self.option(f"socket,id={name},fd="))) for name in ("console", "identity", "qmp")
        )
        config = yaml.safe_load(_user_data(Path(self.option("id=seed,if=none,file=", until=",format").replace(",,", ","))))
        self.host_key = paramiko.Ed25519Key.from_private_key(io.StringIO(config["ssh_keys"]["ed25519_private"]))
        self.users = {user["name"]: [line.split()[1] for line in user["ssh_authorized_keys"]] for user in config["users"]}
        self.listening = {
            int(port): socket.create_server(("127.0.0.1", 0)) for port in re.findall(r"hostfwd=tcp:127\.0\.0\.1:0-:(\d+)", " ".join(argv))
        }
        if "share=on" in " ".join(argv):
            Path(self.option("mem-path=", until=",share")).write_bytes(b"the guest's memory")
        hostname = config["hostname"]
        warning = {"WARNING": ["a warning"]} if trouble("degraded") else {}
        errors = ["no such module"] if trouble("cloud-init-fails") else []
        for name, text in {
            "etc/os-release": 'PRETTY_NAME="A stand-in for Debian"\n',
            "proc/sys/kernel/hostname": hostname + "\n",
            "proc/sys/kernel/random/boot_id": "00000000-0000-4000-8000-000000000000\n",
            "run/cloud-init/status.json": json.dumps({"v1": {"init": {"errors": errors, "recoverable_errors": warning}}}),
            "run/cloud-init/result.json": json.dumps({"v1": {"errors": errors}}),
            "run/vmlab/.keep": "",
            "tmp/.keep": "",
        }.items():
            path = self.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    def option(self, before: str, until: str = " ") -> str:
        """What follows ``before`` on the command line."""
        rest = " ".join(self.argv).partition(before)[2]
        return rest.partition(until)[0].partition(" ")[0] if until == " " else rest.partition(until)[0]

    def here(self, path: str) -> Path:
        """Where a path of the guest lies."""
        return self.root / path.lstrip("/")

    def start_sshd(self) -> None:
        for server in self.listening.values():
            threading.Thread(target=self._accept, args=(server,), daemon=True).start()

    def _accept(self, server: socket.socket) -> None:
        while True:
            connection, _ = server.accept()
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        self.sshd_is_up.wait()
        door = Door(self)
        transport = Transport(connection, door)
        transport.add_server_key(self.host_key)
        transport.set_subsystem_handler("sftp", paramiko.SFTPServer, Files, self)
        with contextlib.suppress(paramiko.SSHException, EOFError, OSError):
            transport.start_server(server=door)

    def end(self, status: int) -> None:
        """QEMU ends, and with it all that runs in it."""
        shutil.rmtree(self.root, ignore_errors=True)
        os._exit(status)

    # The clone's port.

    def wait_to_be_saved(self) -> None:
        """What runner/vmlab/guest/inside/standby.py does in a guest before it is saved: the same code, over this machine's socket."""
        port = Port(self.identity)
        for scene in ("waiting", "rehearsed"):
            port.say({scene: True})
            if scene == "waiting":
                self.be_somebody(port)

    def be_somebody(self, port: Port) -> None:
        standby.be_somebody(port)

    def rename(self, _old: str, new: str) -> None:
        self.here("/proc/sys/kernel/hostname").write_text(new + "\n")


class Port(standby.Port):
    """A serial port that is a socket."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(True)
        self.fd = sock.fileno()
        self._pending = b""


class Transport(paramiko.Transport):
    """A command begins when its acceptance has been sent: one that ends at once must not close its channel before."""

    def __init__(self, connection: socket.socket, door: Door) -> None:
        super().__init__(connection)
        self._door = door

    def _send_user_message(self, message: paramiko.Message) -> None:
        super()._send_user_message(message)  # type: ignore[misc]
        if message.asbytes()[:1] == CHANNEL_SUCCESS and self._door.accepted:
            self._door.accepted.pop(0).start()


class Door(paramiko.ServerInterface):
    """sshd: who may come in, and what is run for them."""

    def __init__(self, guest: Guest) -> None:
        self.guest = guest
        self.accepted: list[threading.Thread] = []

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        return common.AUTH_SUCCESSFUL if key.get_base64() in self.guest.users.get(username, []) else common.AUTH_FAILED

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return common.OPEN_SUCCEEDED if kind == "session" else common.OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        self.accepted.append(threading.Thread(target=self._execute, args=(channel, command.decode()), daemon=True))
        return True

    def _execute(self, channel: paramiko.Channel, command: str) -> None:
        try:
            status = self._answer(channel, command)
        except OSError:
            status = 255
        with contextlib.suppress(OSError, EOFError):
            channel.send_exit_status(status)
            channel.shutdown_write()
            channel.close()

    def _answer(self, channel: paramiko.Channel, command: str) -> int:
        if "poweroff" in command:
            threading.Timer(0.1, self.guest.end, [0]).start()
            return 0
        if "dropbear" in command:
            return 77  # There is none here.
        if "standby.py" in command:
            threading.Thread(target=self.guest.wait_to_be_saved, daemon=True).start()
            return 0
        if "systemctl" in command or "ip -batch" in command:
            return 0
        if not MARK.sub("", command).startswith(ALLOWED):
            channel.sendall_stderr(f"the stand-in runs no such command: {command}\n".encode())
            return 127
        return self._run(channel, GUEST_PATHS.sub(rf"{self.guest.root}/\1/", command))

    def _run(self, channel: paramiko.Channel, command: str) -> int:
        """Run a command by this machine's shell; it ends when the channel does."""
        child = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "sh", "-c", command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=self.guest.root,
            start_new_session=True,
        )
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stderr is not None

        def feed(target: Any) -> None:
            with contextlib.suppress(OSError):
                while data := channel.recv(1 << 15):
                    target.write(data)
                    target.flush()
            with contextlib.suppress(OSError):
                target.close()
            while not channel.closed:
                time.sleep(0.05)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)

        def carry(source: Any, send: Callable[[bytes], object]) -> None:
            with contextlib.suppress(OSError):
                while data := os.read(source.fileno(), 1 << 15):
                    send(data)

        threading.Thread(target=feed, args=(child.stdin,), daemon=True).start()
        streams = [
            threading.Thread(target=carry, args=pair, daemon=True)
            for pair in ((child.stdout, channel.sendall), (child.stderr, channel.sendall_stderr))
        ]
        for each in streams:
            each.start()
        for each in streams:
            each.join()
        return child.wait()


class Files(paramiko.SFTPServerInterface):
    """The guest's files, as far as they are copied to and from it."""

    def __init__(self, server: paramiko.ServerInterface, guest: Guest) -> None:
        super().__init__(server)
        self.guest = guest

    def open(self, path: str, flags: int, attr: paramiko.SFTPAttributes) -> paramiko.SFTPHandle | int:
        try:
            descriptor = os.open(self.guest.here(path), flags, 0o644)
        except OSError as exc:
            return paramiko.SFTPServer.convert_errno(exc.errno or 0)
        handle = paramiko.SFTPHandle(flags)
        handle.filename = path  # type: ignore[attr-defined]
        file = os.fdopen(descriptor, "wb" if flags & os.O_WRONLY else "rb")
        handle.readfile = handle.writefile = file  # type: ignore[attr-defined]
        return handle

    def mkdir(self, path: str, attr: paramiko.SFTPAttributes) -> int:
        try:
            self.guest.here(path).mkdir()
        except OSError as exc:
            return paramiko.SFTPServer.convert_errno(exc.errno or 0)
        return sftp.SFTP_OK

    def posix_rename(self, oldpath: str, newpath: str) -> int:
        try:
            self.guest.here(oldpath).replace(self.guest.here(newpath))
        except OSError as exc:
            return paramiko.SFTPServer.convert_errno(exc.errno or 0)
        return sftp.SFTP_OK

    def remove(self, path: str) -> int:
        try:
            self.guest.here(path).unlink()
        except OSError as exc:
            return paramiko.SFTPServer.convert_errno(exc.errno or 0)
        return sftp.SFTP_OK

    def chattr(self, path: str, attr: paramiko.SFTPAttributes) -> int:
        paramiko.SFTPServer.set_file_attr(str(self.guest.here(path)), attr)
        return sftp.SFTP_OK

    def stat(self, path: str) -> paramiko.SFTPAttributes | int:
        try:
            return paramiko.SFTPAttributes.from_stat(self.guest.here(path).stat())
        except OSError as exc:
            return paramiko.SFTPServer.convert_errno(exc.errno or 0)


class Qemu:
    """The monitor's answers, and what they do to the guest."""

    def __init__(self, guest: Guest) -> None:
        self.guest = guest
        self.descriptor = -1
        self.monitor = Monitor(self.answer, sock=guest.qmp)
        self.monitor.start()

    def answer(self, command: str, arguments: dict[str, Any]) -> object:
        match command:
            case "quit":
                threading.Timer(0.02, self.guest.end, [0]).start()
            case "query-status":
                return {"status": "running", "running": True}
            case "query-stats":
                return [{"provider": "other", "stats": []}]
            case "human-monitor-command" if arguments["command-line"] == "info usernet":
                rows = (
                    f"  TCP[HOST_FORWARD]  12  127.0.0.1 {server.getsockname()[1]}  10.0.2.15 {port}\n"
                    for port, server in self.guest.listening.items()
                )
                return "".join(rows)
            case "human-monitor-command":
                return ""
            case "getfd":
                self.descriptor = self.monitor.descriptors[-1]
            case "migrate":
                if trouble("unsaved"):
                    raise Refused("State blocked by a stand-in")
                threading.Thread(target=self._save, daemon=True).start()
            case "migrate-incoming":
                threading.Thread(target=self._load, daemon=True).start()
            case "cont" if "-incoming" in self.guest.argv:
                threading.Thread(target=self._wake, daemon=True).start()
            case "gone":
                raise Gone
        return {}

    def _save(self) -> None:
        with os.fdopen(self.descriptor, "wb") as file:
            file.write(STATE)
        self.monitor.tell("MIGRATION", status="completed")

    def _load(self) -> None:
        with os.fdopen(self.descriptor, "rb") as file:
            read = file.read()
        self.monitor.tell("MIGRATION", status="completed" if read == STATE else "failed")

    def _wake(self) -> None:
        """A clone goes on where its template was saved: in the program that waits."""
        self.guest.sshd_is_up.set()
        self.guest.be_somebody(Port(self.guest.identity))


def _user_data(seed: Path) -> str:
    """The seed's user-data: a file lies in one piece in an ISO 9660 image, and the rest of its last block is zeros."""
    image = seed.read_bytes()
    return image[image.index(b"#cloud-config") :].partition(b"\0")[0].decode()


def _boot(guest: Guest, qemu: Qemu) -> None:
    """What a guest does by itself after its start."""
    if trouble("hangs"):
        return
    guest.console.sendall(KERNEL)
    if trouble("panics"):
        guest.console.sendall(PANIC)
        qemu.monitor.tell("GUEST_PANICKED", action="run")
        return
    if trouble("writes"):
        with Path(guest.option("id=drive-data,if=none,file=", until=",format").replace(",,", ",")).open("r+b") as drive:
            drive.write(b"by cloud-init, say")
    guest.identity.sendall(b"stand-in: up\n")
    guest.sshd_is_up.set()
    guest.console.sendall(b"guest login: ")


def main(argv: list[str]) -> None:
    """Be QEMU."""
    if argv[1:] == ["--version"]:
        sys.stdout.write(VERSION)
        return
    if "help" in argv:
        sys.stdout.write("Accelerators supported in QEMU binary:\ntcg\n")
        return
    if trouble("exits") or (trouble("clone-exits") and "-incoming" in argv):
        sys.stderr.write("qemu-system-x86_64: a stand-in that was told to end\n")
        raise SystemExit(1)
    # The program that gives a clone its identity runs here as it would there, but for what it does to the machine.
    guest = Guest(argv)
    for name, instead in (("renew_random", lambda _seed: None), ("rename", guest.rename), ("write_machine_id", lambda _id: None)):
        setattr(standby, name, instead)
    standby.time.clock_settime_ns = lambda _clock, _ns: None  # type: ignore[attr-defined]
    signal.signal(signal.SIGTERM, lambda *_: guest.end(143))
    qemu = Qemu(guest)
    guest.start_sshd()
    if "-incoming" not in argv:
        _boot(guest, qemu)
    # As QEMU does, it goes on without anybody at its monitor; it ends when it is told to, and with the runner (`vmlab.process`).
    threading.Event().wait()


if __name__ == "__main__":
    main(sys.argv)
