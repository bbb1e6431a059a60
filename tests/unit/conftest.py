"""Machines that we do not have: each is a small file tree with a program's answers, for tests to break in one way."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from vmlab.host.facts import GIB
from vmlab.host.view import HostView
from vmlab.probes.kvm import KvmRecord, read

INTEL = {"proc/cpuinfo": "processor\t: 0\nmodel name\t: Some Xeon\nflags\t\t: fpu vmx sse2\n", "sys/module/kvm_intel/parameters/ept": "Y\n"}
AMD = {"proc/cpuinfo": "processor\t: 0\nmodel name\t: AMD EPYC\nflags\t\t: fpu svm sse2\n", "sys/module/kvm_amd/parameters/npt": "1\n"}
PLAIN = {"proc/cpuinfo": "processor\t: 0\nmodel name\t: AMD EPYC\nflags\t\t: fpu sse2\n"}
REST = {
    "etc/os-release": 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n',
    "proc/sys/kernel/osrelease": "6.1.0-40-amd64\n",
    "proc/loadavg": "0.25 0.30 0.30 1/200 999\n",
    "proc/meminfo": "MemTotal:       16777216 kB\nMemFree:         1048576 kB\nMemAvailable:    8388608 kB\n",
    "proc/self/cgroup": "0::/user.slice/lab.scope\n",
    "proc/sys/user/max_user_namespaces": "1000\n",
    "etc/subuid": "student:100000:65536\n",
    "etc/subgid": "student:100000:65536\n",
    "etc/group": "root:x:0:\nkvm:x:104:\n",
}
BOTH = "Accelerators supported in QEMU binary:\ntcg\nkvm\n"
RECORDS = Path(__file__).with_name("kvm_records")
ONLY_TCG = "Accelerators supported in QEMU binary:\ntcg\n"


class World:
    """A file tree with a program's answers: the machine that a test describes."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.opened: list[int] = []
        self.answers: dict[str, str | None] = {"--version": "QEMU emulator version 7.2.22 (Debian)\n", "-accel": BOTH, "unshare": ""}
        self.opening: OSError | None = None
        self.asking: OSError | int = 12
        self.programs = {"qemu-system-x86_64", "newuidmap"}
        self.record: dict[str, Any] = json.loads((RECORDS / "npt-6.12.json").read_text())
        self.probed = 0
        self.put(REST)

    def put(self, files: dict[str, str]) -> World:
        for name, text in files.items():
            path = self.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return self

    def _open(self, path: Path) -> int:
        if self.opening is not None:
            raise self.opening
        descriptor = os.open(path, os.O_RDWR)
        self.opened.append(descriptor)
        return descriptor

    def _close(self, descriptor: int) -> None:
        self.opened.remove(descriptor)
        os.close(descriptor)

    def _ioctl(self, descriptor: int, request: int) -> int:
        assert descriptor in self.opened
        assert request == 0xAE00
        if isinstance(self.asking, OSError):
            raise self.asking
        return self.asking

    def _probe(self) -> KvmRecord:
        self.probed += 1
        return read(self.record)

    def _ask(self, argv: Sequence[str]) -> str | None:
        return next((answer for key, answer in self.answers.items() if key in argv), None)

    def view(self, **changes: Any) -> HostView:
        view = HostView(
            root=self.root,
            open_read_write=self._open,
            close=self._close,
            ioctl=self._ioctl,
            ask=self._ask,
            which=lambda name: f"/usr/bin/{name}" if name in self.programs else None,
            usable_cpus=lambda: 8,
            disk_free_bytes=lambda _path: 50 * GIB,
            missing=list,
            probe=self._probe,
            probe_now=self._probe,
            user="student",
            is_root=False,
            in_ci=False,
        )
        return replace(view, **changes)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "root")


@pytest.fixture
def kvm_world(world: World) -> World:
    return world.put(INTEL).put({"dev/kvm": ""})
