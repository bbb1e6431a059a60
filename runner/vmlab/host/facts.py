"""What this machine is: gathered once, put into every report, and asked before a guest is started.

Numbers are those that count for a guest: CPUs and memory as far as this process may use them (affinity and control groups respected),
not what the hardware has.
"""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vmlab.errors import HostError
from vmlab.host.accelerator import QEMU
from vmlab.host.view import HostView
from vmlab.packages import Requirement
from vmlab.paths import cache_dir

QEMU_AT_LEAST = (7, 0)
GIB = 1 << 30
MIB = 1 << 20
# Where Debian and Ubuntu (4 MiB builds first, the only ones from Debian 13 on), Fedora and Arch keep it.
_UEFI = (
    "/usr/share/OVMF/OVMF_CODE_4M.fd",
    "/usr/share/OVMF/OVMF_CODE.fd",
    "/usr/share/edk2/ovmf/OVMF_CODE.fd",
    "/usr/share/edk2/x64/OVMF_CODE.4m.fd",
)
_INSTALL_QEMU = "sudo apt-get install qemu-system-x86"


@dataclass(frozen=True)
class Qemu:
    """The QEMU that runs the guests."""

    path: str
    version: str
    build: str = ""
    """Its own first line, which also names the distribution's patches."""

    @property
    def number(self) -> tuple[int, ...]:
        """The version as numbers that compare; empty when QEMU printed something else than a version."""
        return tuple(int(part) for part in self.version.split(".")) if re.fullmatch(r"\d+(\.\d+)*", self.version) else ()


@dataclass(frozen=True)
class HostFacts:
    """The machine, as this process may use it."""

    os: str
    kernel: str
    architecture: str
    cpu_model: str
    cpus: int
    memory_bytes: int
    memory_available_bytes: int
    cache_dir: str
    disk_free_bytes: int
    qemu: Qemu | None
    python_version: str
    load_1min: float
    is_root: bool
    unprivileged_builds: str
    """Why an image cannot be built without root here; empty when it can, or when this is root."""
    missing: tuple[Requirement, ...]

    def part(self) -> dict[str, Any]:
        """The fields of a report's ``host``, all but the accelerator, which is chosen for each run."""
        return {
            "os": self.os,
            "kernel": self.kernel,
            "cpu_model": self.cpu_model,
            "cpus": self.cpus,
            "memory_bytes": self.memory_bytes,
            "qemu_version": self.qemu.version if self.qemu else "",
            "python_version": self.python_version,
            "load_1min": self.load_1min,
        }


def gather(view: HostView | None = None, cache: Path | None = None) -> HostFacts:
    """Look at this machine. Missing things are facts too: this raises only when the cache directory cannot be made (HostError)."""
    view = view or HostView()
    cache = cache or cache_dir()
    memory, available = _memory(view)
    return HostFacts(
        os=_os_name(view),
        kernel=view.read("/proc/sys/kernel/osrelease"),
        architecture=platform.machine(),
        cpu_model=view.cpuinfo("model name") or platform.machine(),
        cpus=_cpus(view),
        memory_bytes=memory,
        memory_available_bytes=available,
        cache_dir=str(cache),
        disk_free_bytes=view.disk_free_bytes(cache),
        qemu=find_qemu(view),
        python_version=platform.python_version(),
        load_1min=float((view.read("/proc/loadavg") or "0").split()[0]),
        is_root=view.is_root,
        unprivileged_builds=_unprivileged_builds(view),
        missing=tuple(view.missing()),
    )


def find_qemu(view: HostView | None = None) -> Qemu | None:
    """The QEMU on PATH, or None when there is none or it does not start."""
    view = view or HostView()
    path = view.which(QEMU)
    printed = view.ask([QEMU, "--version"]) if path else None
    if path is None or printed is None:
        return None
    found = re.search(r"version (\d+(?:\.\d+)+)", printed)
    build = printed.strip().partition("\n")[0]
    return Qemu(path, found.group(1) if found else build, build)


def cpu_identity(view: HostView | None = None) -> str:
    """Which processor this is, and what of it the kernel lets programs use: two hosts of one identity run each other's saved guests."""
    view = view or HostView()
    return "; ".join(f"{name} {view.cpuinfo(name)}" for name in ("vendor_id", "cpu family", "model", "stepping", "flags"))


def require_qemu(view: HostView | None = None) -> Qemu:
    """The QEMU on PATH; HostError when it is missing or older than vmlab needs."""
    view = view or HostView()
    qemu = find_qemu(view)
    if qemu is None:
        if view.which(QEMU) is not None:
            raise HostError(f"{QEMU} is installed, but does not start", hint=f"see what it says: {QEMU} --version")
        raise HostError(f"QEMU is missing: there is no {QEMU}", hint=_INSTALL_QEMU)
    problem = too_old(qemu)
    if problem:
        raise HostError(problem, hint="Debian 12 and later and Ubuntu 23.04 and later have a newer one; see https://www.qemu.org/download")
    return qemu


def uefi_firmware() -> Path:
    """A UEFI firmware for QEMU, in one file (no variables are kept: boot loaders that a UEFI finds by itself need none)."""
    for name in _UEFI:
        if Path(name).is_file():
            return Path(name)
    raise HostError("there is no UEFI firmware for guests on this machine", hint="sudo apt-get install ovmf")


def too_old(qemu: Qemu) -> str:
    """What is wrong with this QEMU's version in one line; empty when nothing is."""
    needed = ".".join(map(str, QEMU_AT_LEAST))
    if not qemu.number:
        return f"cannot tell the version of {qemu.path}: it says {qemu.version[:60]!r}; vmlab needs {needed} or newer"
    if qemu.number < QEMU_AT_LEAST:
        return f"QEMU {qemu.version} is too old: vmlab needs {needed} or newer"
    return ""


@dataclass(frozen=True)
class Usable:
    """What this process may use of the machine."""

    cpus: int
    memory_bytes: int
    available_bytes: int
    """What of the memory is free now, or would be as soon as it is asked for."""


def usable(view: HostView | None = None) -> Usable:
    """CPUs and memory as far as affinity and control groups let this process have them."""
    view = view or HostView()
    return Usable(_cpus(view), *_memory(view))


def in_words(size_bytes: int) -> str:
    """A size for people: ``512 MiB``, ``23.4 GiB``."""
    if size_bytes < GIB:
        return f"{size_bytes / MIB:.0f} MiB"
    return f"{size_bytes / GIB:.1f} GiB"


def counted(number: int, noun: str) -> str:
    """``1 CPU``, ``2 CPUs``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _os_name(view: HostView) -> str:
    for line in view.read("/etc/os-release").splitlines():
        key, _, value = line.partition("=")
        if key == "PRETTY_NAME":
            return value.strip("\"'")
    return platform.system()


def _cpus(view: HostView) -> int:
    """CPUs that this process may keep busy: those of its affinity mask, fewer under a quota, never less than one."""
    return max(1, min([view.usable_cpus(), *(int(quota) for quota in _cpu_quotas(view))]))


def _cpu_quotas(view: HostView) -> Iterator[float]:
    """Every CPU quota that applies, in CPUs: of this process's control group and of all groups above it."""
    for group in _groups(view, "cpu"):
        # Version 2 has "max 100000" or "150000 100000" in one file, version 1 one file each and -1 for no limit.
        quota, _, period = view.read(f"{group}/cpu.max").partition(" ")
        if not quota:
            quota, period = view.read(f"{group}/cpu.cfs_quota_us"), view.read(f"{group}/cpu.cfs_period_us")
        if quota.isdecimal() and period.isdecimal() and int(period) > 0:
            yield int(quota) / int(period)


def _memory(view: HostView) -> tuple[int, int]:
    """Memory in bytes that this process may use, and how much of it is free now."""
    info = {line.partition(":")[0]: line for line in view.read("/proc/meminfo").splitlines()}
    total, available = (_kib(info.get(key, "")) for key in ("MemTotal", "MemAvailable"))
    for group in _groups(view, "memory"):
        limit = view.read(f"{group}/memory.max") or view.read(f"{group}/memory.limit_in_bytes")
        used = view.read(f"{group}/memory.current") or view.read(f"{group}/memory.usage_in_bytes")
        # "max" is no limit in version 2; version 1 has a number larger than any machine instead.
        if limit.isdecimal():
            total = min(total, int(limit))
            if used.isdecimal():
                available = min(available, max(0, int(limit) - int(used) + _page_cache(view, group)))
    return total, available


def _kib(line: str) -> int:
    number = re.search(r"(\d+) kB", line)
    return int(number.group(1)) * 1024 if number else 0


def _page_cache(view: HostView, group: str) -> int:
    """Memory that a control group is charged for but that the kernel gives back when it is needed."""
    for line in view.read(f"{group}/memory.stat").splitlines():
        key, _, value = line.partition(" ")
        if key in {"inactive_file", "total_inactive_file"} and value.isdecimal():
            return int(value)
    return 0


def _groups(view: HostView, controller: str) -> Iterator[str]:
    """The directories of this process's control group and of all above it: version 2, and version 1's for ``controller``.

    In a container the path in /proc/self/cgroup may be the host's, of which only the root is mounted: what is not there reads as empty.
    """
    for line in view.read("/proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            mount = "/sys/fs/cgroup"
        elif controller in controllers.split(","):
            mount = (
                f"/sys/fs/cgroup/{controllers}" if view.path(f"/sys/fs/cgroup/{controllers}").is_dir() else f"/sys/fs/cgroup/{controller}"
            )
        else:
            continue
        parts = [part for part in path.split("/") if part not in {"", ".."}]
        for depth in range(len(parts), -1, -1):
            yield "/".join([mount, *parts[:depth]])


def _unprivileged_builds(view: HostView) -> str:
    """Why mmdebstrap cannot work without root here; empty when it can. Tried, not guessed: the trial maps a range of users as it does."""
    if view.is_root:
        return ""
    if view.which("newuidmap") is None:
        return "newuidmap is missing (package uidmap)"
    # The trial's own words would be "Operation not permitted" for all three of these.
    for name, off in (("/proc/sys/kernel/unprivileged_userns_clone", "0"), ("/proc/sys/user/max_user_namespaces", "0")):
        if view.read(name) == off:
            return f"user namespaces are switched off ({name} is {off})"
    for name in ("/etc/subuid", "/etc/subgid"):
        owners = {line.partition(":")[0] for line in view.read(name).splitlines()}
        if not owners & {view.user, str(os.geteuid())}:
            return f"{name} has no line for {view.user}"
    if view.ask(["unshare", "--user", "--map-auto", "--map-root-user", "--", "true"]) is None:
        return "this kernel or container does not let you make a user namespace"
    return ""
