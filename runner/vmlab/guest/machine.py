"""A running guest: what can be asked of it, what can end it early, and its end. `vmlab.guest.boot` and `clone` start one."""

from __future__ import annotations

import contextlib
import logging
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

from vmlab import process
from vmlab.deadline import Deadline
from vmlab.errors import GuestError, GuestExited, GuestPanicked, HostError, SshError, StrangerError, TemplateError
from vmlab.guest import panic, qemu, readiness, seed
from vmlab.guest.console import Console
from vmlab.guest.drive import Drive
from vmlab.guest.fate import LAST_WORDS_S, TOLD, Fate
from vmlab.guest.link import Link
from vmlab.guest.panic import PanicWatch, Signs
from vmlab.guest.processor import ORDINARY, Processor
from vmlab.guest.qmp import Qmp, QmpError
from vmlab.guest.ssh import Connection, wait_for_banner
from vmlab.image.image import Image
from vmlab.progress import Progress

log = logging.getLogger(__name__)

# How long QEMU's monitor may take to tell the registers: milliseconds, and seconds on a crowded machine.
_LOOK_LIMIT_S = 30.0

# A sign of life on the console: our initrd's first words, or what any kernel, loader or init prints.
_KERNEL_SIGNS = r"vmlab-initrd: up|Linux version |systemd\[1\]|\[ *\d+\.\d+\] |login:"


@dataclass(frozen=True)
class BootRequest:
    """What to boot: an image, and how much of a machine to give it.

    ``machine_type`` is QEMU's, versioned; empty is the newest that it has. ``own_loader`` boots by the disk's own boot loader (through
    ``firmware`` if given) instead of the kernel beside the disk. ``small_pages`` keeps the host from backing its memory with huge pages.
    """

    name: str
    image: Image
    accelerator: Literal["kvm", "tcg"]
    machine_type: str = ""
    memory_mib: int = 1024
    cpus: int = 2
    virtualisation: qemu.Virtualisation = "none"
    init: str = "systemd"
    kernel_args: str = ""
    internet: bool = False
    own_loader: bool = False
    firmware: Path | None = None
    small_pages: bool = False
    processor: Processor = ORDINARY
    drives: tuple[Drive, ...] = ()
    links: tuple[Link, ...] = ()
    cloud_init: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class System:
    """What a guest says it runs."""

    kernel: str
    os: str
    boot_id: str


@dataclass(frozen=True)
class Sockets:
    """Our ends of the wires that QEMU inherited: no path, no port, nothing that another process could take first."""

    qmp: socket.socket
    console: socket.socket
    identity: socket.socket

    def close(self) -> None:
        """Close them all; safe to call more than once."""
        for sock in (self.qmp, self.console, self.identity):
            sock.close()


@dataclass(frozen=True)
class Launched:
    """A QEMU that was just executed, by `vmlab.guest.boot.launch`. Times are on the monotonic clock."""

    argv: list[str]
    child: subprocess.Popen[bytes]
    output: Path
    """What QEMU prints, in the guest's own directory."""
    sockets: Sockets
    console: Console
    disk: Path
    seed_iso: Path
    began: float
    """When the work on the guest began; its steps count from there."""
    executed: float


@dataclass(frozen=True)
class Birth:
    """How a guest became ready, and what was learned of it then: by a boot from the guest itself, by a clone from its template."""

    system: System
    cloud_init: readiness.CloudInitStatus
    template: str = ""
    """The key of the template that it is a clone of; empty when it was booted."""
    fallback: str = ""
    """Why it was booted although it should have been cloned."""
    clock_error_s: float | None = None
    """How far a clone's clock may be from the host's; None when it was booted, and has it from its hardware."""


class Machine:
    """A guest that runs, and whose monitor answers. Everything that can end it early is noticed within a fraction of a second.

    `vmlab.guest.boot.launch` makes one and ends it. Raises GuestExited when QEMU has ended already, QmpError when it does not answer in
    time. ``notice`` is told what is worth a line to the user.
    """

    def __init__(
        self, request: BootRequest, identity: seed.Identity, launched: Launched, deadline: Deadline, notice: Callable[[str], None]
    ) -> None:
        self.request = request
        self.identity = identity
        self.argv = launched.argv
        self.sockets = launched.sockets
        self.console = launched.console
        self.began = launched.began
        self.executed = launched.executed
        self.disk = launched.disk
        self.seed_iso = launched.seed_iso
        self.reached = [readiness.Reached("disk", round(launched.executed - launched.began, 4))]
        self.note("exec")
        self.ended_how = ""
        self._child = launched.child
        self._output = launched.output
        self._birth: Birth | None = None
        self._connection: Connection | None = None
        self._panic = PanicWatch(self, self._on_panic, self._on_mere_words)
        self._notice = notice
        self.fate = Fate(launched.console, self._wake)
        self._migration = ""
        self._migrated = threading.Condition()
        threading.Thread(target=self._watch, name=f"vmlab-watch-{request.name}", daemon=True).start()
        with contextlib.ExitStack() as unless_made:
            # A death that became known meanwhile is raised at the end of the inner block.
            with self.attributing():
                self.monitor = Qmp(self.sockets.qmp, name=request.name, on_event=self._on_event, deadline=deadline)
                unless_made.callback(self.monitor.close)
                self.note("qmp")
                self._ports = self.monitor.forwarded_ports(deadline)
            unless_made.pop_all()
        # From now on the console's words can be looked into.
        self.console.watch(self._panic.hear)

    @property
    def pid(self) -> int:
        """The process id of QEMU."""
        return self._child.pid

    @property
    def directory(self) -> Path:
        """The guest's own private directory, which is gone when the guest is."""
        return self._output.parent

    @property
    def birth(self) -> Birth:
        """How it became ready. GuestError for a guest that has not, or need not (a timed boot of a frozen disk)."""
        if self._birth is None:
            raise GuestError("the guest has not become ready")
        return self._birth

    def be_born(self, birth: Birth) -> None:
        """It is ready: once, and once more after each reset."""
        self._birth = birth

    @property
    def is_clone(self) -> bool:
        """Whether its state was loaded, so that its QEMU has nothing to boot it from but its disk's own loader."""
        return "-incoming" in self.argv

    @property
    def ssh(self) -> Connection:
        """The one connection of this run."""
        if self._connection is None:
            raise SshError(
                "the guest is not logged in to", hint="after a reset or a power cycle: guest.wait_until_ready() boots it and logs in"
            )
        return self._connection

    @property
    def port(self) -> int:
        """The host's port that leads to the guest's sshd."""
        return self._ports[22]

    @property
    def control_port(self) -> int:
        """The host's port that leads to a clone's quick SSH server, if its template has one."""
        return self._ports[qemu.CONTROL_PORT]

    def tail(self) -> str:
        """The console's last lines."""
        return self.console.tail()

    # What can go wrong while it runs.

    @property
    def panic_signs(self) -> Signs:
        """What there is to say about a panic of the guest's kernel: pvpanic's word, the console's, and whether it lives."""
        return self._panic.signs

    def _on_panic(self) -> None:
        """The kernel has panicked (called on whichever thread found that out)."""
        signs = self._panic.signs
        how = signs.words or "pvpanic reported it"
        self.fate.die(GuestPanicked(f"the guest's kernel panicked: {how}", hint="the console's last lines say where"))

    def _on_mere_words(self, words: str) -> None:
        """Somebody in the guest has written to the console what a kernel that panics writes."""
        self._notice(f"the guest {self.request.name} printed {words!r} and lives: that was no panic of its kernel")

    def answered_at(self, patience_s: float) -> float:
        """When the guest was asked something that it has answered (see `vmlab.guest.panic.Probe`): by its connection, else its greeting."""
        connection, asked_at = self._connection, time.monotonic()
        if connection is not None and connection.alive():
            return connection.answered_at(patience_s)
        return asked_at if wait_for_banner(self.port, Deadline(patience_s)) else 0.0

    def cpus(self) -> list[panic.Cpu]:
        """What each of the guest's processors is at."""
        text = self.monitor.execute("human-monitor-command", Deadline(_LOOK_LIMIT_S), **{"command-line": "info registers -a"})
        return panic.cpus_of(str(text).replace("\r", ""))

    def cpu_s(self) -> float:
        """The CPU time that QEMU has used, in seconds. GuestExited when it is gone."""
        try:
            times = psutil.Process(self.pid).cpu_times()
        except psutil.Error as exc:
            raise GuestExited(f"QEMU's process cannot be read: {exc}") from exc
        return float(times.user + times.system)

    def _on_event(self, event: dict[str, Any]) -> None:
        """QEMU's monitor says something (called on the monitor's thread)."""
        name, data = event.get("event"), event.get("data") or {}
        if name in TOLD:
            self.fate.tell(name, data)
        if name == "GUEST_PANICKED":
            self._panic.tell()
        elif name == "MIGRATION":
            with self._migrated:
                self._migration = str(data.get("status"))
                self._migrated.notify_all()
        elif name == "BLOCK_IO_ERROR" and data.get("nospace"):
            # QEMU stops a guest whose disk cannot grow (werror=enospc); without this its wait would run into a time-out.
            self.fate.die(HostError("the host's disk is full: the guest's disk cannot grow", hint="free some disk space"))

    def _watch(self) -> None:
        """Wait for QEMU's end on a thread of its own, so that an early exit is noticed whatever the others wait for."""
        status = self._child.wait()
        if self.fate.stopping or (self.fate.may_end and status == 0):
            return
        if status == 0 and self._panic.signs.doubtful:
            # A kernel with `panic=` on its command line restarts the machine after its words, and ours then ends.
            self._on_panic()
        said = self._said()
        cause = said.splitlines()[-1] if said else f"exit status {status}"
        self.fate.die(GuestExited(f"QEMU ended by itself: {cause}", hint="QEMU's own words are below", detail=said))

    def _wake(self) -> None:
        """The guest has died: whoever waits on a wire of it must not wait for a time-out."""
        if self._connection is not None:
            self._connection.abort()
        with contextlib.suppress(OSError):
            self.sockets.identity.shutdown(socket.SHUT_RDWR)
        with self._migrated:
            self._migrated.notify_all()

    def _said(self) -> str:
        try:
            return self._output.read_text(errors="replace")[-4000:].strip()
        except FileNotFoundError:
            # The run is over and its directory removed.
            return ""

    def check_alive(self) -> None:
        """Raise what ended the guest, if anything did: as `Fate.check`."""
        self.fate.check()

    @contextlib.contextmanager
    def attributing(self) -> Iterator[None]:
        """Run a block; when it fails because the guest died, raise the death instead of the lost connection."""
        try:
            yield
        except (SshError, QmpError, TemplateError) as exc:
            for _ in range(10):
                # A connection is often lost a moment before its cause is known.
                if self.fate.death is not None or self.fate.over:
                    break
                if isinstance(exc, SshError) and self._connection is not None and self._connection.alive():
                    # Nothing was lost: the guest lives, and did not do in time what it was asked for.
                    raise
                time.sleep(0.05)
            else:
                raise
            log.debug("the connection was lost because the guest died: %s", exc)
        self.check_alive()

    # Becoming ready.

    def note(self, step: str) -> None:
        """A step of the start is done now."""
        self.reached.append(readiness.Reached(step, round(time.monotonic() - self.began, 4)))

    def wait_until_migrated(self, deadline: Deadline) -> None:
        """Wait for the end of QEMU's migration, out or in. TemplateError when it failed or the deadline passes; else as `check_alive`."""
        with self._migrated:
            self._migrated.wait_for(
                lambda: self._migration in ("completed", "failed") or self.fate.death is not None, min(deadline.left_s(), 1e6)
            )
        self.check_alive()
        if self._migration != "completed":
            raise TemplateError(f"QEMU did not take over the guest's state: {self._migration or 'it said nothing'}", detail=self._said())

    def talk_over(self, connection: Connection) -> None:
        """Take a connection that was made in another way than by `wait_until_ready`."""
        self._connection = connection

    def hang_up(self) -> None:
        """Close the connection, so that nothing of it is in the guest when that is saved."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def ask_system(self, deadline: Deadline) -> System:
        """Run the first command: what the guest says that it runs."""
        script = '. /etc/os-release; printf \'%s\\n\' "$(uname -r)" "$PRETTY_NAME"; cat /proc/sys/kernel/random/boot_id'
        with self.attributing():
            answer = self.ssh.execute(script, deadline=deadline.within(60), output_limit_bytes=4096).stdout
        kernel, system, boot_id, *_ = [*answer.splitlines(), "", "", ""]
        self.note("first-command")
        return System(kernel[:200], system[:200], boot_id[:64])

    def wait_until_ready(self, deadline: Deadline, progress: Progress) -> readiness.CloudInitStatus:
        """Wait for kernel, sshd, login and cloud-init, in this order; how cloud-init ended.

        Raises BootTimeout, GuestPanicked, GuestExited or SshError, and GuestError when cloud-init failed.
        """
        said: list[str] = []

        def cloud_init_is_done(deadline: Deadline) -> bool:
            said.append(self._cloud_init_says(deadline))
            return bool(said[-1].strip())

        steps = [
            readiness.Step("kernel", "the kernel printed nothing: is the image bootable, has the guest enough memory?", self._kernel_is_up),
            readiness.Step("sshd", "the console says how far user space came: a failed unit, a missing disk?", self._sshd_greets),
            readiness.Step("login", "sshd answers but refuses the key: did cloud-init read its seed?", self._log_in),
            readiness.Step("cloud-init", "cloud-init still works: see /var/log/cloud-init.log in the guest", cloud_init_is_done),
        ]
        with self.attributing():
            self.reached += readiness.wait(steps, self, deadline, progress)
        status = readiness.parse_cloud_init(said[-1])
        if status.exit_code == 1:
            raise GuestError(
                f"cloud-init failed in the guest: {'; '.join(status.detail)[:300]}",
                hint="see /var/log/cloud-init.log in the guest; the lab's cloud_init section may be at fault",
                detail=self.console.tail(),
            )
        return status

    def _kernel_is_up(self, deadline: Deadline) -> bool:
        return self.console.wait_for(_KERNEL_SIGNS, min(readiness.POLL_S, deadline.left_s())) is not None

    def _sshd_greets(self, deadline: Deadline) -> bool:
        return wait_for_banner(self.port, deadline.within(1.0))

    def _log_in(self, deadline: Deadline) -> bool:
        try:
            self._connection = Connection.connect(self.port, self.identity, user="root", deadline=deadline.within(60))
        except StrangerError:
            raise
        except SshError as exc:
            # A banner error can follow a good banner, and keys are installed a moment after sshd starts: ask again.
            log.debug("login: %s", exc)
            return False
        return True

    def _cloud_init_says(self, deadline: Deadline) -> str:
        """Its two files when it has ended; nothing before."""
        # /run/cloud-init/result.json is written by cloud-init when its last stage has ended (cloud-init's documentation, "boot status").
        # What it wrote is made safe first: ext4 gives a new file its blocks up to 30 s later (vm.dirty_expire_centisecs), and a guest that
        # is reset before then would boot with an empty host key.
        ended = "[ -e result.json ] && sync && exec cat status.json result.json"
        script = f"cd /run/cloud-init && for i in 1 2 3 4 5; do {ended}; sleep 0.2; done"
        return self.ssh.execute(script, deadline=deadline.within(60)).stdout

    def prove_name(self, deadline: Deadline) -> None:
        """Run a clone's first command: it says its name, and that must be the one that it was given. GuestError when it is another."""
        with self.attributing():
            said = self.ssh.execute("read -r name </proc/sys/kernel/hostname; echo $name", deadline=deadline.within(60)).stdout.strip()
        if said != self.identity.hostname:
            raise TemplateError(f"the clone was given the name {self.identity.hostname} and says that it is {said[:100]!r}")
        self.note("first-command")

    # The end.

    def may_end(self) -> None:
        """From now on the guest may switch itself off; that is not its death."""
        self.fate.may_end = True

    def qemu_status(self) -> int | None:
        """The exit status of QEMU, a signal's number below 0; None while it runs."""
        return self._child.poll()

    def has_ended(self) -> bool:
        """Whether QEMU has ended, whoever ended it. Raises what `check_alive` raises when that was the guest's death."""
        if self._child.poll() is None:
            self.check_alive()
            return False
        if self._child.returncode != 0:
            # The thread that watches QEMU knows why, a moment later.
            time.sleep(LAST_WORDS_S)
        self.check_alive()
        self.ended_how = "switched off"
        return True

    def cut(self) -> None:
        """Take its power away: QEMU is killed, and has no time to finish anything. Its directory and its disks stay."""
        self.fate.stopping = True
        self.fate.is_over("its power was cut", "guest.power_cycle() starts it again")
        self._child.kill()
        self._child.wait()
        self.stop()

    def stop(self) -> None:
        """End the guest: QMP ``quit``, then SIGTERM, then SIGKILL. How it ended is kept in ``ended_how``."""
        self.fate.stopping = True
        self._panic.close()
        if self._connection is not None:
            self._connection.close()
        if self._child.poll() is None:
            with contextlib.suppress(QmpError):
                self.monitor.execute("quit", Deadline(3))
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._child.wait(3)
                self.ended_how = "quit"
        if self._child.poll() is None:
            self.ended_how = "terminated" if process.stop(self._child) == -signal.SIGTERM else "killed"
        self.ended_how = self.fate.over or self.ended_how or "by itself"
        self.monitor.close()
        self.console.close()
        self.sockets.close()
