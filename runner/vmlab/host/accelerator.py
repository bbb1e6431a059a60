"""Which accelerator runs the guests, decided by evidence and told with its reason.

That /dev/kvm exists proves little: it may be closed to this user, and on some machines it is a software KVM, which answers every
question correctly and still cannot boot a kernel. So the evidence is looked at in a fixed order, and the first thing that is not as
it must be is the reason that the user is told:

    /dev/kvm exists  ->  opens read-write  ->  speaks API version 12  ->  the processor has vmx or svm
    ->  kvm_intel or kvm_amd drives it  ->  the probe's guest gets right results, from the processor itself
    ->  this QEMU was built with KVM

The probe (`vmlab.host.kvm`) is run only where everything before it holds, and once a boot. `look` gathers, `obstacle` judges (a pure
function), `choose` does both and obeys what the user asked for.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any, Literal

from vmlab.errors import HostError
from vmlab.host.kvm import claims
from vmlab.host.view import HostView
from vmlab.probes.kvm import Judgement, judge

Wanted = Literal["auto", "kvm", "tcg"]

QEMU = "qemu-system-x86_64"
DEVICE = "/dev/kvm"
PROBE = "vmlab doctor --probe"
KVM_GET_API_VERSION = 0xAE00
KVM_API_VERSION = 12
"""The only version ever published; the kernel's Documentation/virt/kvm/api.rst tells applications to refuse any other."""

# What GitHub's documentation gives for its hosted runners, whose /dev/kvm belongs to root.
CI_RULE = (
    """echo 'KERNEL=="kvm", GROUP="kvm", MODE="0666", OPTIONS+="static_node=kvm"' | sudo tee /etc/udev/rules.d/99-kvm4all.rules"""
    " && sudo udevadm control --reload-rules && sudo udevadm trigger --name-match=kvm"
)

_ELSEWHERE = "run on a machine with VT-x or AMD-V; labs that need no KVM are only slower here"
_MODULES = {"vmx": "kvm_intel", "svm": "kvm_amd"}
_FOUND = {"nested": "nested paging", "shadow": "shadow paging"}


class Device(StrEnum):
    """How /dev/kvm answered when it was opened for reading and writing."""

    OPEN = "open"
    ABSENT = "absent"
    DENIED = "denied"
    FORBIDDEN = "forbidden"
    DEAD = "dead"


_BY_ERRNO = {errno.ENOENT: Device.ABSENT, errno.EACCES: Device.DENIED, errno.EPERM: Device.FORBIDDEN}


@dataclass(frozen=True)
class KvmEvidence:
    """What this machine shows of KVM. Everything is looked at, whatever fails first, because a report keeps it."""

    device: Device
    device_error: str
    api_version: int | None
    cpu_flag: str
    """``vmx`` (Intel), ``svm`` (AMD) or empty."""
    module: str
    """``kvm_intel`` or ``kvm_amd`` when the kernel has it, else empty."""
    other_modules: tuple[str, ...]
    """Other modules with kvm in their name: a software KVM shows here."""
    nested_paging: str
    """What the module *says*: ``ept=Y``, ``npt=1``, or empty. A claim, not a proof."""
    probe: Judgement | None
    """What the probe *found*; None where it was not run, because something before it fails or KVM is not wanted."""
    qemu_accelerators: tuple[str, ...] | None
    """What ``qemu -accel help`` lists; None when QEMU did not answer."""
    in_kvm_group: bool
    """Whether /etc/group lists the user in group kvm, even if this login is older than that."""
    in_ci: bool
    """Whether this is a CI machine, where nobody can log in again."""


@dataclass(frozen=True)
class Obstacle:
    """Why KVM cannot be used, what helps, and the command for it where there is one."""

    reason: str
    remedy: str = ""
    command: str = ""


@dataclass(frozen=True)
class Accelerator:
    """What will run the guests' instructions, and why."""

    name: Literal["kvm", "tcg"]
    reason: str
    remedy: str
    command: str
    facts: Mapping[str, object]

    def part(self) -> dict[str, Any]:
        """The fields of a report's ``accelerator``."""
        probe = self.facts.get("probe")
        return {
            "name": self.name,
            "reason": self.reason,
            "nested_paging_claimed": self.facts.get("nested_paging", ""),
            "nested_paging_found": probe["kind"] if isinstance(probe, Mapping) else "",
        }

    @property
    def sentence(self) -> str:
        """Name and reason in one line."""
        return f"{self.name.upper()}: {self.reason}"

    @property
    def hint(self) -> str:
        """Remedy and command in one line; empty when there is nothing to remedy."""
        return _hint(self.remedy, self.command)


def choose(wanted: Wanted = "auto", view: HostView | None = None) -> Accelerator:
    """Choose the accelerator. ``kvm`` means "or fail": HostError with the reason and the remedy; so does a QEMU without the wanted one."""
    evidence = look(view or HostView(), measuring=wanted != "tcg")
    facts = asdict(evidence)
    against = obstacle(evidence)
    if wanted == "kvm" and against is not None:
        raise HostError(f"KVM was asked for, but cannot be used: {against.reason}", hint=_hint(against.remedy, against.command))
    if wanted != "tcg" and against is None:
        return Accelerator("kvm", _why_kvm(evidence), "", "", facts)
    if evidence.qemu_accelerators is not None and "tcg" not in evidence.qemu_accelerators:
        raise HostError("this QEMU was built without TCG, its software processor", hint="sudo apt-get install qemu-system-x86")
    if against is None or wanted == "tcg":
        return Accelerator("tcg", "asked for", "", "", facts)
    return Accelerator("tcg", against.reason, against.remedy, against.command, facts)


def look(view: HostView, *, measuring: bool = True) -> KvmEvidence:
    """Gather the evidence; never raises. The probe is part of it when ``measuring``, if there is something to probe."""
    claim = claims.read(view.root)
    device, error, api_version = _open_device(view)
    seen = KvmEvidence(
        device=device,
        device_error=error,
        api_version=api_version,
        cpu_flag=next((flag for flag in _MODULES if flag in claim["flags"]), ""),
        module=claim["module"],
        other_modules=tuple(claim["other_modules"]),
        nested_paging=claim["nested_paging"],
        probe=None,
        qemu_accelerators=_qemu_accelerators(view),
        in_kvm_group=_in_kvm_group(view),
        in_ci=view.in_ci,
    )
    if measuring and _device_obstacle(seen) is None and _hardware_obstacle(seen) is None:
        return replace(seen, probe=judge(view.probe()))
    return seen


def obstacle(seen: KvmEvidence) -> Obstacle | None:
    """The first thing in the way of KVM, or None: a pure function of the evidence."""
    return _device_obstacle(seen) or _hardware_obstacle(seen) or _probe_obstacle(seen) or _qemu_obstacle(seen)


def _device_obstacle(seen: KvmEvidence) -> Obstacle | None:
    match seen.device:
        case Device.ABSENT:
            return _absent(seen)
        case Device.DENIED:
            return _denied(seen)
        case Device.FORBIDDEN:
            return Obstacle(
                f"{DEVICE} exists, but this container may not use it (operation not permitted)",
                "start the container with --device /dev/kvm",
            )
        case Device.DEAD:
            return Obstacle(f"{DEVICE} exists, but does not open ({seen.device_error})", "is the kernel's KVM module loaded?")
        case Device.OPEN if seen.api_version != KVM_API_VERSION:
            told = "does not answer like KVM" if seen.api_version is None else f"speaks API version {seen.api_version}"
            return Obstacle(f"{DEVICE} opens, but {told} (version {KVM_API_VERSION} is the only real one)")
        case Device.OPEN:
            return None


def _absent(seen: KvmEvidence) -> Obstacle:
    if seen.module:
        return Obstacle(f"{DEVICE} does not exist, although {seen.module} is loaded", "in a container, pass --device /dev/kvm")
    if seen.cpu_flag:
        return Obstacle(
            f"{DEVICE} does not exist, although the processor has {seen.cpu_flag}",
            "load the kernel's module; in a container, pass --device /dev/kvm",
            f"sudo modprobe {_MODULES[seen.cpu_flag]}",
        )
    return Obstacle(
        f"{DEVICE} does not exist, and the processor shows neither vmx nor svm",
        "switch on VT-x or AMD-V in the firmware's set-up, or nested virtualisation if this is a virtual machine",
    )


def _denied(seen: KvmEvidence) -> Obstacle:
    denied = f"{DEVICE} exists, but you may not write to it (permission denied)"
    if not seen.cpu_flag:
        # The permission comes first, but mending it alone would only lead to the next disappointment.
        return Obstacle(f"{denied}, and the processor shows neither vmx nor svm", _ELSEWHERE)
    if seen.in_ci:
        return Obstacle(denied, "open it to every job of this CI machine", CI_RULE)
    if seen.in_kvm_group:
        return Obstacle(f"{denied}: this login is older than your place in group kvm", "log out and in again")
    return Obstacle(denied, "join group kvm, then log out and in again", "sudo usermod -aG kvm $USER")


def _hardware_obstacle(seen: KvmEvidence) -> Obstacle | None:
    if not seen.cpu_flag:
        drivers = f" (its driver is {', '.join(seen.other_modules)})" if seen.other_modules else ""
        return Obstacle(
            f"{DEVICE} exists, but the processor shows neither vmx nor svm: not hardware virtualisation{drivers}",
            _ELSEWHERE,
        )
    needed = _MODULES[seen.cpu_flag]
    if seen.module != needed:
        return Obstacle(
            f"{DEVICE} exists and the processor has {seen.cpu_flag}, but {needed} does not drive it: not hardware virtualisation",
            "load the kernel's own module",
            f"sudo modprobe {needed}",
        )
    return None


def _probe_obstacle(seen: KvmEvidence) -> Obstacle | None:
    """Why not to boot a guest on what the probe found; None too where it was not run."""
    found = seen.probe
    if found is None or found.usable:
        return None
    where = f"{DEVICE} opens and {seen.module} drives it, but"
    if found.kind == "broken":
        return Obstacle(f"{where} a guest of a few instructions gets wrong results ({found.why})", _ELSEWHERE)
    if found.kind == "emulated":
        return Obstacle(f"{where} guest code is not run by the processor: {found.why}", _ELSEWHERE)
    return Obstacle(
        f"{where} a guest of a few instructions does not run: {found.why}",
        "end other hypervisors that use the processor, then look again",
        PROBE,
    )


def _qemu_obstacle(seen: KvmEvidence) -> Obstacle | None:
    if seen.qemu_accelerators is None:
        return Obstacle(
            f"{DEVICE} is usable, but {QEMU} is missing or does not start", "install QEMU", "sudo apt-get install qemu-system-x86"
        )
    if "kvm" not in seen.qemu_accelerators:
        return Obstacle(
            f"{DEVICE} is usable, but this QEMU was built without KVM",
            "use the distribution's QEMU",
            "sudo apt-get install qemu-system-x86",
        )
    return None


def _why_kvm(seen: KvmEvidence) -> str:
    claim = f", {seen.nested_paging}" if seen.nested_paging else ""
    found = f", {_FOUND[seen.probe.kind]} measured" if seen.probe is not None and seen.probe.kind in _FOUND else ""
    return f"{DEVICE} opens, API {seen.api_version}, processor has {seen.cpu_flag}, driven by {seen.module}{claim}{found}"


def _hint(remedy: str, command: str) -> str:
    return f"{remedy}: {command}" if remedy and command else remedy or command


def _open_device(view: HostView) -> tuple[Device, str, int | None]:
    try:
        descriptor = view.open_read_write(view.path(DEVICE))
    except OSError as exc:
        return _BY_ERRNO.get(exc.errno or 0, Device.DEAD), os.strerror(exc.errno or 0), None
    try:
        return Device.OPEN, "", view.ioctl(descriptor, KVM_GET_API_VERSION)
    except OSError as exc:
        return Device.OPEN, os.strerror(exc.errno or 0), None
    finally:
        view.close(descriptor)


def _qemu_accelerators(view: HostView) -> tuple[str, ...] | None:
    listed = view.ask([QEMU, "-accel", "help"])
    if listed is None:
        return None
    # The first line is a heading; a name is the first word of each other line.
    return tuple(line.split()[0] for line in listed.splitlines()[1:] if line.split())


def _in_kvm_group(view: HostView) -> bool:
    for line in view.read("/etc/group").splitlines():
        name, _, rest = line.partition(":")
        if name == "kvm":
            return view.user in rest.rpartition(":")[2].split(",")
    return False
