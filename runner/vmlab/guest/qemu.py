"""GuestSpec -> QEMU's argument vector: a pure function, so that what QEMU is asked for can be tested without QEMU."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vmlab.guest import link
from vmlab.guest.drive import Drive

PROGRAM = "qemu-system-x86_64"

# TCG keeps translated code in this buffer. QEMU's default grows with the host's memory to more than 1 GB a guest, for no gain in speed
# that we could measure; 192 MiB holds a booted Debian several times over, and keeps QEMU below 300 MiB beside the guest's memory.
TCG_BUFFER_MIB = 192


# All that QEMU can emulate but AVX: C libraries choose it for copying and comparing where a processor has it, and emulated it is slower
# than what they choose otherwise. No Debian package needs it.
EMULATED_CPU = "max,-avx,-avx2"

# The processor that each accelerator gives a guest which asks for nothing else.
MODELS: dict[Literal["kvm", "tcg"], str] = {"tcg": EMULATED_CPU, "kvm": "host"}

# An emulated processor may be late: on a crowded machine QEMU is not let run while the kernel counts whether its first timer interrupts
# come (Linux, arch/x86/kernel/apic/io_apic.c, timer_irq_works), and the kernel panics over a board that is not broken. It need not count.
TCG_KERNEL_ARGS = "no_timer_check"

# An AMD processor that can run guests: QEMU's TCG emulates SVM and its nested page tables (target/i386/tcg/sysemu/svm_helper.c), but not
# Intel's VMX. An EPYC rather than `max`, which has five-level page tables too: here each walk has four levels in both dimensions. It keeps
# its AVX: without it, signal handlers of its guests do not return ("bad frame in rt_sigreturn"; QEMU 7.2 with Linux 6.12 as both kernels).
SVM_CPU = "EPYC,+svm,+npt"

# And its kernel has a periodic timer. When a guest of its own leaves for it (#VMEXIT), QEMU clears a bit in the word of pending interrupts
# without the lock that its timers and devices hold when they set theirs (do_vmexit in svm_helper.c, until autumn 2025), which can lose one
# of those. Linux sets its timer for one interrupt at a time; with that one lost it would idle until something else wakes it.
SVM_KERNEL_ARGS = "nohz=off highres=off"

Virtualisation = Literal["none", "svm"]

# The guest's second serial port, by which a clone is told who it is. (A virtio-serial port would be quicker, but with QEMU 7.2 and many
# guests at once on few CPUs messages over one stayed unseen until the next came; benchmarks/README.md tells more.)
IDENTITY_DEVICE = "/dev/ttyS1"

# The guest's port of its second, quick SSH server, if it has one (`vmlab.guest.clone.control`): above those that its kernel gives away
# (ip_local_port_range, 32768 to 60999) and that services have names for.
CONTROL_PORT = 61022

# What QEMU calls the interface by which the runner reaches the guest, and the guest the internet if it may.
INTERFACE = "net"


@dataclass(frozen=True)
class Wires:
    """The descriptors that QEMU inherits: one end each of a socket pair whose other end is ours."""

    qmp: int
    console: int
    identity: int
    networks: tuple[int, ...] = ()
    """To a switch of ours: a socket of datagrams, each a frame."""


@dataclass(frozen=True)
class RamFile:
    """The guest's memory as a file of the host.

    ``private`` memory starts with the file's content and keeps its changes to itself (copy-on-write); otherwise the guest writes the file.
    ``read_only`` opens it without the right to write, which QEMU can from version 8.2 on (its documentation of memory-backend-file).
    """

    path: Path
    private: bool = False
    read_only: bool = False


@dataclass(frozen=True)
class GuestSpec:
    """Everything that decides how a guest is run.

    With ``virtualisation`` it can run guests itself, which ``accelerator`` kvm does not give: ValueError.

    ``kernel`` set means direct kernel boot with ``cmdline``; None means the disk's own boot loader (by ``firmware`` when that is given,
    a UEFI image, else by QEMU's BIOS). ``ram`` None is memory that belongs to the process. ``incoming`` makes a QEMU that waits for
    the state of another, instead of one that boots. ``cpu_options`` follow the processor's name; the files of ``drives`` lie in the
    directory ``drives_in``. ``paused`` stops it before its first instruction.
    """

    name: str
    machine: str
    accelerator: Literal["kvm", "tcg"]
    memory_mib: int
    cpus: int
    disk: Path
    seed: Path
    wires: Wires
    generation_id: str
    virtualisation: Virtualisation = "none"
    ram: RamFile | None = None
    incoming: bool = False
    kernel: Path | None = None
    initrd: Path | None = None
    cmdline: str = ""
    firmware: Path | None = None
    internet: bool = False
    cpu_options: str = ""
    drives: tuple[Drive, ...] = ()
    drives_in: Path = Path()
    paused: bool = False


def argv(spec: GuestSpec) -> list[str]:
    """The command that runs the guest.

    The devices are the few that a cloud kernel has drivers for (no AHCI: the seed is a virtio disk too). ``hostfwd`` with port 0 lets
    the kernel choose a free port on the loopback address; the port is read back by QMP, so no two runs race for one.
    """
    accel = f"tcg,thread=multi,tb-size={TCG_BUFFER_MIB}" if spec.accelerator == "tcg" else "kvm"
    command = [
        PROGRAM,
        *("-name", f"vmlab-{spec.name},process=vmlab-{spec.name}"[:200]),
        *("-no-user-config", "-nodefaults"),
        # A guest is a student's to break: QEMU may not start programs or gain rights (seccomp, qemu(1) -sandbox).
        *("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny"),
        *("-machine", spec.machine if spec.ram is None else f"{spec.machine},memory-backend=ram"),
        *("-accel", accel),
        *("-cpu", _cpu(spec)),
        *("-smp", str(spec.cpus)),
        *("-m", f"{spec.memory_mib}M"),
        *(() if spec.ram is None else ("-object", _ram(spec.ram, spec.memory_mib))),
        *("-display", "none"),
        # A reboot ends the guest where we can see it, instead of starting over. A panic is seen too (pvpanic), but the guest goes on: its
        # kernel may not yet have said why, and then stands still by itself.
        *("-no-reboot", "-action", "panic=none"),
        *("-chardev", f"socket,id=qmp,fd={spec.wires.qmp}", "-mon", "chardev=qmp,mode=control"),
        *("-chardev", f"socket,id=console,fd={spec.wires.console}", "-serial", "chardev:console"),
        *("-chardev", f"socket,id=identity,fd={spec.wires.identity}", "-serial", "chardev:identity"),
        *("-object", "rng-random,id=rng,filename=/dev/urandom", "-device", "virtio-rng-pci,rng=rng"),
        *("-device", "pvpanic-pci"),
        # A kernel with a driver for it (Linux from 5.18 on) renews its random numbers when this value is another than it was.
        *("-device", f"vmgenid,guid={spec.generation_id}"),
        # The overlay is thrown away after the run, so nothing is lost by never flushing it to the host's disk.
        *("-drive", f"id=disk,if=none,file={_comma(spec.disk)},format=qcow2,cache=unsafe,discard=unmap"),
        *("-device", "virtio-blk-pci,drive=disk,bootindex=1"),
        *("-drive", f"id=seed,if=none,file={_comma(spec.seed)},format=raw,readonly=on"),
        *("-device", "virtio-blk-pci,drive=seed"),
        *("-netdev", f"user,id={INTERFACE},restrict={'off' if spec.internet else 'on'},{_forward(22)},{_forward(CONTROL_PORT)}"),
        *("-device", f"virtio-net-pci,netdev={INTERFACE},romfile="),
        # What only some guests have comes last: PCI addresses are given in this order, and the others keep theirs.
        *(word for drive in spec.drives for word in _drive(drive, spec.drives_in)),
        *(word for number, descriptor in enumerate(spec.wires.networks, 1) for word in _network(number, descriptor)),
    ]
    if spec.firmware is not None:
        command += ["-drive", f"if=pflash,unit=0,format=raw,readonly=on,file={_comma(spec.firmware)}"]
    if spec.kernel is not None:
        command += ["-kernel", str(spec.kernel), "-append", spec.cmdline]
        if spec.initrd is not None:
            command += ["-initrd", str(spec.initrd)]
    if spec.paused:
        command += ["-S"]
    if spec.incoming:
        command += ["-incoming", "defer"]
    return command


def versioned_machine(version: tuple[int, ...]) -> str:
    """The machine type that means the same hardware for ever: ``q35`` alone is another machine in each version of QEMU."""
    major, minor = (*version, 0, 0)[:2]
    return f"pc-q35-{major}.{minor}"


def _cpu(spec: GuestSpec) -> str:
    if spec.virtualisation == "svm":
        if spec.accelerator != "tcg":
            raise ValueError("a processor with SVM is emulated by TCG, not passed through")
        return SVM_CPU
    return MODELS[spec.accelerator] + spec.cpu_options


def _drive(drive: Drive, directory: Path) -> list[str]:
    # It is as lost after the run as the root disk; a guest that is to meet the host's disk asks for no cache at all.
    cache = "unsafe" if drive.host_cache else "none"
    access = ",readonly=on" if drive.read_only else ""
    file = f"file={_comma(drive.file(directory))},format=raw,cache={cache},discard=unmap{access}"
    return ["-drive", f"id={drive.id},if=none,{file}", "-device", f"virtio-blk-pci,drive={drive.id},serial={drive.name}"]


def network_interface(number: int) -> str:
    """What QEMU calls a guest's first (1), second, ... interface to a network."""
    return f"{INTERFACE}{number}"


def _network(number: int, descriptor: int) -> list[str]:
    name = network_interface(number)
    device = f"virtio-net-pci,netdev={name},mac={link.placeholder(number)},romfile="
    return ["-netdev", f"socket,id={name},fd={descriptor}", "-device", device]


def _ram(ram: RamFile, memory_mib: int) -> str:
    share = "off" if ram.private else "on"
    # Without rom=off, read-only would also forbid the guest to write its own copy.
    access = ",readonly=on,rom=off" if ram.read_only else ""
    return f"memory-backend-file,id=ram,size={memory_mib}M,mem-path={_comma(ram.path)},share={share}{access}"


def _forward(port: int) -> str:
    return f"hostfwd=tcp:127.0.0.1:0-:{port}"


def _comma(path: Path) -> str:
    """A path as QEMU's option parser reads it: a comma is written twice."""
    return str(path).replace(",", ",,")
