#!/usr/bin/env python3
"""Loads KVM's module anew with one setting, and prints one JSON object: what is loaded then, as the kernel tells it.

usage: kvm_module.py kvm_amd npt=1|npt=0, or kvm_intel ept=1|ept=0
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from vmlab_guest.proc import cpuinfo
from vmlab_guest.say import say

FLAGS = ("svm", "npt", "vmx", "ept", "hypervisor")


def load(module: str, setting: str) -> dict[str, Any]:
    """Unload, load, read back."""
    parameters, parameter = Path("/sys/module", module, "parameters"), setting.partition("=")[0]
    if parameters.exists():
        subprocess.run(["rmmod", module], check=True)
    subprocess.run(["modprobe", module, setting], check=True)
    flags = cpuinfo("flags").split()
    return {
        "module": module,
        "asked": setting,
        parameter: (parameters / parameter).read_text().strip(),
        "cpu_model": cpuinfo("model name"),
        "cpu_flags": [flag for flag in FLAGS if flag in flags],
        "kernel": Path("/proc/sys/kernel/osrelease").read_text().strip(),
        "boot_id": Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
    }


if __name__ == "__main__":
    say(load(sys.argv[1], sys.argv[2]))
