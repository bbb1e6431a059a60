"""A running guest, from the start of QEMU to its end. Reading `boot` from top to bottom is reading the life of a guest."""

from __future__ import annotations

import contextlib
import logging
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import psutil

from runner import process
from runner.deadline import Deadline
from runner.errors import GuestError, GuestExited, GuestPanicked, HostError, RunError, SshError, StrangerError
from runner.guest import qemu, readiness, seed
from runner.guest.console import Console
from runner.guest.image import Image
from runner.guest.qmp import Qmp, QmpError
from runner.guest.ssh import Connection, wait_for_banner
from runner.guest.workdir import WorkDir

log = logging.getLogger(__name__)

# What a guest's disk may need to grow by before it is worth starting at all.
LEAST_FREE_BYTES = 512 << 20

# How long after the first sign of a guest's death its console may still say why.
LAST_WORDS_S = 0.3

# A sign of life on the console: our initrd's first words, or what any kernel, loader or init prints.
_KERNEL_SIGNS = r"vmlab-initrd: up|Linux version |systemd\[1\]|\[ *\d+\.\d+\] |login:"


@dataclass(frozen=True)
class BootRequest:
    """What to boot: an image, and how much of a machine to give it.

    ``own_loader`` boots by the disk's own boot loader (through ``firmware`` if given) instead of the kernel beside the disk.
    """

    name: str
    image: Image
    accelerator: Literal["kvm", "tcg"]
    memory_mib: int = 1024
    cpus: int = 2
    init: str = "systemd"
    kernel_args: str = ""
    internet: bool = False
    own_loader: bool = False
    firmware: Path | None = None
    cloud_init: dict[str, Any] = field(default_factory=dict)


class Machine:
    """A guest that runs. `boot` makes one; everything that can end it early is noticed within a fraction of a second."""

    def __init__(
        self, request: BootRequest, identity: seed.Identity, argv: list[str], child: subprocess.Popen[bytes], output: Path
    ) -> None:
        self.request = request
        self.identity = identity
        self.argv = argv
        self.started = time.monotonic()
        self.reached: list[readiness.Reached] = []
        self.cloud_init: readiness.CloudInitStatus | None = None
        self.qmp: Qmp | None = None
        self.ended_how = ""
        self._child = child
        self._output = output
        self._connection: Connection | None = None
        self._port = 0
        self._console: Console | None = None
        self._death: RunError | None = None
        self._died_at = 0.0
        self._stopping = False
        self._lock = threading.Lock()
        threading.Thread(target=self._watch, name=f"vmlab-watch-{request.name}", daemon=True).start()

    @property
    def pid(self) -> int:
        """The process id of QEMU."""
        return self._child.pid

    @property
    def console(self) -> Console:
        """The serial console."""
        if self._console is None:
            raise GuestError("the guest's console is not connected")
        return self._console

    @property
    def ssh(self) -> Connection:
        """The one connection of this run."""
        if self._connection is None:
            raise SshError("the guest is not logged in yet")
        return self._connection

    @property
    def port(self) -> int:
        """The host's port that leads to the guest's sshd."""
        return self._port

    # What can go wrong while it runs.

    def _on_panic(self, line: str) -> None:
        """The console shows a panic (called on the console's thread)."""
        self._die(GuestPanicked(f"the guest's kernel panicked: {line}", hint="the console's last lines say where"))

    def _on_event(self, event: dict[str, Any]) -> None:
        """QEMU's monitor says something (called on the monitor's thread)."""
        name, data = event.get("event"), event.get("data") or {}
        if name == "GUEST_PANICKED":
            self._on_panic("pvpanic reported it")
        elif name == "BLOCK_IO_ERROR" and data.get("nospace"):
            # QEMU stops a guest whose disk cannot grow (werror=enospc); without this its wait would run into a time-out.
            self._die(HostError("the host's disk is full: the guest's disk cannot grow", hint="free some disk space"))

    def _watch(self) -> None:
        """Wait for QEMU's end on a thread of its own, so that an early exit is noticed whatever the others wait for."""
        status = self._child.wait()
        if self._stopping:
            return
        said = self._said()
        cause = said.splitlines()[-1] if said else f"exit status {status}"
        self._die(GuestExited(f"QEMU ended by itself: {cause}", hint="QEMU's own words are below", detail=said))

    def _die(self, death: RunError) -> None:
        with self._lock:
            if self._death is not None or self._stopping:
                return
            self._death = death
            self._died_at = time.monotonic()
        # Whoever waits on the connection must not wait for a time-out.
        if self._connection is not None:
            self._connection.abort()

    def _said(self) -> str:
        return self._output.read_text(errors="replace")[-4000:].strip()

    def check_alive(self) -> None:
        """Raise what ended the guest (GuestPanicked, GuestExited, HostError), if anything did, with the console's tail."""
        death = self._death
        if death is None:
            return
        # The console's last words (a panic's call trace) come a moment after the first sign.
        time.sleep(max(0.0, self._died_at + LAST_WORDS_S - time.monotonic()))
        tail = self._console.tail() if self._console is not None else ""
        if tail and tail not in death.detail:
            death.detail = f"{death.detail}\n{tail}".strip()
        raise death

    @contextlib.contextmanager
    def attributing(self) -> Iterator[None]:
        """Run a block; when it fails because the guest died, raise the death instead of the lost connection."""
        try:
            yield
        except (SshError, QmpError) as exc:
            for _ in range(10):
                # A connection is often lost a moment before its cause is known.
                if self._death is not None:
                    break
                time.sleep(0.05)
            else:
                raise
            log.debug("the connection was lost because the guest died: %s", exc)
        self.check_alive()

    # Becoming ready.

    def listen(self, sock: socket.socket, log_file: Path) -> None:
        """Read the console from now on."""
        self._console = Console(sock, log_file, on_panic=self._on_panic)

    def connect_monitor(self, sock: socket.socket, deadline: Deadline) -> None:
        """Talk to QEMU's monitor and learn the port of the guest's sshd."""
        with self.attributing():
            self.qmp = Qmp(sock, name=self.request.name, on_event=self._on_event, deadline=deadline)
            self._port = self.qmp.ssh_port(deadline)

    def wait_until_ready(self, deadline: Deadline, waiting: Callable[[str], None]) -> None:
        """Wait for kernel, sshd, login and cloud-init, in this order. Raises BootTimeout, GuestPanicked, GuestExited or SshError."""
        steps = [
            readiness.Step("kernel", "the kernel printed nothing: is the image bootable, has the guest enough memory?", self._kernel_is_up),
            readiness.Step("sshd", "the console says how far user space came: a failed unit, a missing disk?", self._sshd_greets),
            readiness.Step("login", "sshd answers but refuses the key: did cloud-init read its seed?", self._log_in),
            readiness.Step("cloud-init", "cloud-init still works: see /var/log/cloud-init.log in the guest", self._cloud_init_is_done),
        ]
        with self.attributing():
            self.reached += readiness.wait(
                steps,
                deadline,
                started=self.started,
                check_alive=self.check_alive,
                waiting=waiting,
                tail=self.console.tail,
            )
        if self.cloud_init is not None and self.cloud_init.exit_code == 1:
            raise GuestError(
                f"cloud-init failed in the guest: {'; '.join(self.cloud_init.detail)[:300]}",
                hint="see /var/log/cloud-init.log in the guest; the lab's cloud_init section may be at fault",
                detail=self.console.tail(),
            )

    def _kernel_is_up(self, _deadline: Deadline) -> bool:
        return self.console.wait_for(_KERNEL_SIGNS, readiness.POLL_S) is not None

    def _sshd_greets(self, _deadline: Deadline) -> bool:
        return wait_for_banner(self._port, timeout_s=1.0)

    def _log_in(self, deadline: Deadline) -> bool:
        try:
            self._connection = Connection.connect(self._port, self.identity, user="root", deadline=deadline.within(60))
        except StrangerError:
            raise
        except SshError as exc:
            # A banner error can follow a good banner, and keys are installed a moment after sshd starts: ask again.
            log.debug("login: %s", exc)
            return False
        return True

    def _cloud_init_is_done(self, deadline: Deadline) -> bool:
        # /run/cloud-init/result.json is written by cloud-init when its last stage has ended (cloud-init's documentation, "boot status").
        script = "cd /run/cloud-init && for i in 1 2 3 4 5; do [ -e result.json ] && exec cat status.json result.json; sleep 0.2; done"
        text = self.ssh.execute(script, deadline=deadline.within(60)).stdout
        if not text.strip():
            return False
        self.cloud_init = readiness.parse_cloud_init(text)
        return True

    # The look from outside, and the end.

    def outside(self, deadline: Deadline) -> dict[str, Any]:
        """The host's look at the guest: QEMU's word on its state, and the kernel's on QEMU's memory (bytes) and CPU time (s)."""
        with self.attributing():
            if self.qmp is None:
                raise QmpError("QEMU's monitor is not connected")
            status = self.qmp.execute("query-status", deadline)
        try:
            watched = psutil.Process(self.pid)
            times = watched.cpu_times()
            resident = watched.memory_info().rss
        except psutil.Error as exc:
            self.check_alive()
            raise GuestError(f"QEMU's process cannot be read: {exc}") from exc
        return {
            "status": str(status.get("status", "")),
            "resident_bytes": int(resident),
            "cpu_s": round(times.user + times.system, 2),
            "panicked": isinstance(self._death, GuestPanicked),
        }

    def stop(self) -> None:
        """End the guest: QMP ``quit``, then SIGTERM, then SIGKILL. How it ended is kept in ``ended_how``."""
        with self._lock:
            self._stopping = True
        if self._connection is not None:
            self._connection.close()
        if self._child.poll() is None and self.qmp is not None:
            with contextlib.suppress(QmpError):
                self.qmp.execute("quit", Deadline(3))
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._child.wait(3)
                self.ended_how = "quit"
        if self._child.poll() is None:
            self.ended_how = "terminated" if process.stop(self._child) == -signal.SIGTERM else "killed"
        self.ended_how = self.ended_how or "by itself"
        if self.qmp is not None:
            self.qmp.close()
        if self._console is not None:
            self._console.close()


@contextlib.contextmanager
def boot(
    request: BootRequest, work: WorkDir, *, console_log: Path, deadline: Deadline, waiting: Callable[[str], None]
) -> Iterator[Machine]:
    """A guest from its first instruction to a finished cloud-init, ended when the block is left.

    ``waiting`` is told what is waited for. Raises what `Machine.wait_until_ready` raises, and HostError when QEMU cannot be started.
    """
    with contextlib.ExitStack() as stack:
        directory = work.path / request.name
        directory.mkdir(mode=0o700)
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        identity = seed.Identity.new(request.name)
        seed.write_iso(seed.render(identity, user=request.image.default_user, extra=request.cloud_init), directory / "seed.iso")
        disk = _overlay(request.image.disk, directory / "disk.qcow2", deadline)
        # QEMU inherits one end of each pair: no path, no port, nothing that another process could take first.
        qmp_ours, qmp_theirs = socket.socketpair()
        console_ours, console_theirs = socket.socketpair()
        stack.enter_context(qmp_ours)
        argv = qemu.argv(_spec(request, disk, directory / "seed.iso", qmp_theirs.fileno(), console_theirs.fileno()))
        output = directory / "qemu.log"
        with qmp_theirs, console_theirs, output.open("wb") as log_file:
            fds = (qmp_theirs.fileno(), console_theirs.fileno())
            waiting("QEMU")
            child = process.spawn(argv, stdout=log_file, stderr=log_file, pass_fds=fds)
        machine = Machine(request, identity, argv, child, output)
        stack.callback(machine.stop)
        machine.listen(console_ours, console_log)
        work.add_process(child.pid)
        machine.connect_monitor(qmp_ours, deadline)
        machine.wait_until_ready(deadline, waiting)
        yield machine


def _spec(request: BootRequest, disk: Path, seed_iso: Path, qmp_fd: int, console_fd: int) -> qemu.GuestSpec:
    image = request.image
    direct = image.kernel is not None and not request.own_loader
    init = image.inits.get(request.init)
    if direct and init is None:
        raise GuestError(f"the image {image.name} has no init system named {request.init}")
    return qemu.GuestSpec(
        name=request.name,
        accelerator=request.accelerator,
        memory_mib=request.memory_mib,
        cpus=request.cpus,
        disk=disk,
        seed=seed_iso,
        qmp_fd=qmp_fd,
        console_fd=console_fd,
        kernel=image.kernel if direct else None,
        initrd=image.initrd if direct else None,
        # A kernel that goes on after an oops limps into a time-out; a panic is seen at once.
        cmdline=f"{image.cmdline} oops=panic init={init} {request.kernel_args}".strip() if direct else "",
        firmware=request.firmware,
        internet=request.internet,
    )


def is_emulators_fault(death: GuestPanicked, accelerator: str) -> bool:
    """Whether the emulator broke the guest's kernel, so that booting again is right.

    The kernel patches its own code with a breakpoint (int3) in place while it does so (Linux, arch/x86/kernel/alternative.c,
    text_poke_bp). QEMU's multi-threaded TCG can, rarely, run a stale translation of that breakpoint after it is gone, and then the kernel
    meets a breakpoint that it knows nothing of (seen with QEMU 7.2 on a loaded machine). A processor cannot do this.
    """
    return accelerator == "tcg" and re.search(r"int3: 0000 \[#1\]", death.detail) is not None


def _overlay(backing: Path, path: Path, deadline: Deadline) -> Path:
    """A private, empty disk over the image's, which is never written. HostError when the host's disk is almost full."""
    free = shutil.disk_usage(path.parent).free
    if free < LEAST_FREE_BYTES:
        raise HostError(
            f"only {free >> 20} MiB are free in {path.parent}, and a guest's disk needs at least {LEAST_FREE_BYTES >> 20}",
            hint="free some disk space, or set VMLAB_CACHE to a directory on a larger disk",
        )
    process.run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", str(backing), "-F", "qcow2", str(path)], deadline=deadline)
    return path
