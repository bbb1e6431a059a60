"""Starting a guest: QEMU itself (`launch`), and a boot from the first instruction to a finished cloud-init (`boot`)."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import shutil
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from vmlab import process
from vmlab.deadline import Deadline
from vmlab.errors import GuestError, GuestPanicked, HostError
from vmlab.guest import drive, link, network, qemu, seed
from vmlab.guest.console import PANIC, Console
from vmlab.guest.machine import Birth, BootRequest, Launched, Machine, Sockets
from vmlab.guest.setting import Setting

# What a guest's disk may need to grow by before it is worth starting at all.
LEAST_FREE_BYTES = 512 << 20

# An oops by its number (arch/x86/kernel/dumpstack.c, __die_header), and check_timer's panic (arch/x86/kernel/apic/io_apic.c).
_EMULATORS_FAULT = re.compile(r"\[#\d+\]|Kernel panic - not syncing: IO-APIC \+ timer doesn't work")


@contextlib.contextmanager
def launch(
    request: BootRequest,
    identity: seed.Identity,
    setting: Setting,
    spec: Callable[[Path, qemu.Wires], qemu.GuestSpec],
    *,
    preface: bytes = b"",
) -> Iterator[Machine]:
    """A QEMU whose monitor answers, ended when the block is left.

    ``spec`` says how it is run: it is given the guest's own empty directory, to put files in, and the wires. ``preface`` begins the
    console's log. Raises GuestExited when QEMU ends at once, HostError when it cannot be started.
    """
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        directory = setting.work.path / request.name
        # (After a power cycle it is there, and the guest's disks are in it.)
        directory.mkdir(mode=0o700, exist_ok=True)
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        # Each pair's second end goes to QEMU and is closed here once QEMU has it.
        pairs = [socket.socketpair() for _ in range(3)]
        with contextlib.ExitStack() as theirs:
            fds = qmp, console_fd, identity_fd = [theirs.enter_context(pair[1]).fileno() for pair in pairs]
            cables = [stack.enter_context(network.cable(each.network, request.name, setting.networks)) for each in request.links]
            cable_fds = [theirs.enter_context(cable).fileno() for cable in cables]
            wires = qemu.Wires(qmp, console_fd, identity_fd, tuple(cable_fds))
            guest = dataclasses.replace(spec(directory, wires), drives_in=directory)
            drive.make(guest.drives, directory)
            argv = qemu.argv(guest)
            prepared = time.monotonic()
            output = directory / "qemu.log"
            setting.progress.waiting("QEMU")
            with output.open("wb") as log_file:
                inherited = [*fds, *cable_fds, setting.work.guests_fd]
                child = process.spawn(argv, stdout=log_file, stderr=log_file, pass_fds=inherited, huge_pages=not request.small_pages)
        # (Each may be ended twice: by the machine, and here if there is none.)
        stack.callback(process.stop, child)
        sockets = Sockets(*(pair[0] for pair in pairs))
        stack.callback(sockets.close)
        console = Console(sockets.console, setting.console_log, preface=preface)
        stack.callback(console.close)
        launched = Launched(argv, child, output, sockets, console, guest.disk, guest.seed, began, prepared)
        machine = Machine(request, identity, launched, setting.deadline, setting.progress.notice)
        stack.callback(machine.stop)
        yield machine


@contextlib.contextmanager
def boot(
    request: BootRequest, setting: Setting, *, keep_in: Path | None = None, identity: seed.Identity | None = None, fallback: str = ""
) -> Iterator[Machine]:
    """A guest from its first instruction to a finished cloud-init, ended when the block is left.

    With ``keep_in`` its disk, its seed and its memory (as a file named ``ram``) lie in that directory and outlive it. ``fallback`` is why
    it is not cloned. Raises what `launch` and `Machine.wait_until_ready` raise.
    """
    identity = identity or seed.Identity.new(request.name)

    def spec(directory: Path, wires: qemu.Wires) -> qemu.GuestSpec:
        place = keep_in or directory
        (place / "ram").unlink(missing_ok=True)
        seed.write_iso(seed_files(request, identity), place / "seed.iso")
        overlay(request.image.disk, place / "disk.qcow2", setting.deadline)
        return cold_spec(request, place, wires, ram=qemu.RamFile(keep_in / "ram") if keep_in else None)

    with launch(request, identity, setting, spec) as machine:
        cloud_init = machine.wait_until_ready(setting.deadline, setting.progress)
        machine.be_born(Birth(machine.ask_system(setting.deadline), cloud_init, fallback=fallback))
        yield machine


def seed_files(request: BootRequest, identity: seed.Identity) -> dict[str, str]:
    """The files of the seed of such a guest."""
    idle = [link.placeholder(number) for number, _ in enumerate(request.links, 1)]
    return seed.render(identity, user=request.image.default_user, extra=request.cloud_init, idle=idle)


def cold_spec(request: BootRequest, place: Path, wires: qemu.Wires, *, ram: qemu.RamFile | None = None) -> qemu.GuestSpec:
    """How to run a guest that boots from ``disk.qcow2`` and ``seed.iso`` in ``place``. GuestError when the image has not such an init."""
    image = request.image
    direct = image.kernel is not None and not request.own_loader
    init = image.inits.get(request.init)
    if init is None:
        raise GuestError(f"the image {image.name} has no init system named {request.init}")
    if not direct and request.kernel_args:
        raise GuestError(f"the image {image.name} is started by its own boot loader, which takes no kernel arguments from a lab")
    timer = qemu.SVM_KERNEL_ARGS if request.virtualisation == "svm" else ""
    # A kernel that goes on after an oops limps into a time-out; a panic is seen at once.
    emulated = qemu.TCG_KERNEL_ARGS if request.accelerator == "tcg" else ""
    words = (image.cmdline, "oops=panic", f"init={init}", emulated, timer, request.kernel_args)
    return qemu.GuestSpec(
        name=request.name,
        machine=request.machine_type or "q35",
        accelerator=request.accelerator,
        memory_mib=request.memory_mib,
        cpus=request.cpus,
        virtualisation=request.virtualisation,
        disk=place / "disk.qcow2",
        seed=place / "seed.iso",
        wires=wires,
        generation_id=str(uuid.uuid4()),
        ram=ram,
        kernel=image.kernel if direct else None,
        initrd=image.initrd if direct else None,
        cmdline=" ".join(word for word in words if word) if direct else "",
        firmware=request.firmware,
        internet=request.internet,
        cpu_options=request.processor.options(request.accelerator),
        drives=request.drives,
    )


def boot_into(
    stack: contextlib.ExitStack, request: BootRequest, setting: Setting, *, keep_in: Path | None = None, fallback: str = ""
) -> Machine:
    """`boot` whose end is the stack's, and which is begun once more when the emulator, not the guest, was at fault.

    The console of such a broken boot stays beside the log, as ``*.broken-boot.log``.
    """

    def start() -> Machine:
        return stack.enter_context(boot(request, setting, keep_in=keep_in, fallback=fallback))

    try:
        return start()
    except GuestPanicked as death:
        if not is_emulators_fault(death, request.accelerator):
            raise
        setting.console_log.rename(setting.console_log.with_suffix(".broken-boot.log"))
        with setting.progress.phase("Booting again: the emulator broke the kernel's first start"):
            return start()


def is_emulators_fault(death: GuestPanicked, accelerator: str) -> bool:
    """Whether the emulator must be taken to have broken the guest's kernel, so that booting again is right.

    The kernel patches its own code with a breakpoint (int3) in place while it does so (Linux, arch/x86/kernel/alternative.c,
    text_poke_bp). QEMU's multi-threaded TCG can, rarely, run a stale translation after it is gone, and then the kernel meets a breakpoint
    that it knows nothing of (seen with QEMU 7.2 on a loaded machine). A processor cannot do this. So an oops ("int3: 0000 [#1]") is held
    against the emulator, and so is a panic without a word on the console. So is a timer that seems not to work because QEMU was not let
    run (seen too; an image that boots by its own loader is not told `qemu.TCG_KERNEL_ARGS`). A panic that names another reason is the
    guest's own.
    """
    if accelerator != "tcg":
        return False
    said = f"{death.message}\n{death.detail}"
    return PANIC.search(said.encode()) is None or _EMULATORS_FAULT.search(said) is not None


def require_space(directory: Path, drives_bytes: int = 0) -> None:
    """HostError when the host's disk is almost full: a guest whose disk cannot grow would stop in the middle of a lab.

    ``drives_bytes`` is what the lab's own drives hold when they are full.
    """
    free, needed = shutil.disk_usage(directory).free, LEAST_FREE_BYTES + drives_bytes
    if free < needed:
        drives = f", its drives included ({drives_bytes >> 20})" if drives_bytes else ""
        raise HostError(
            f"only {free >> 20} MiB are free in {directory}, and a guest's disk needs at least {needed >> 20}{drives}",
            hint="free some disk space, or set VMLAB_CACHE to a directory on a larger disk",
        )


def overlay(backing: Path, path: Path, deadline: Deadline) -> None:
    """A private, empty disk over the image's, which is never written."""
    require_space(path.parent)
    process.run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", str(backing), "-F", "qcow2", str(path)], deadline=deadline)
