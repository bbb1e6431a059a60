#!/usr/bin/env python3
"""Loads kvm_amd anew, with or without nested paging, and prints one JSON object: what is loaded then, as the kernel tells it.

usage: kvm_module.py 1|0
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

PARAMETERS = Path("/sys/module/kvm_amd/parameters")
FLAGS = ("svm", "npt", "vmx", "hypervisor")


def main() -> None:
    """Unload, load, read back."""
    wanted = sys.argv[1]
    if PARAMETERS.exists():
        subprocess.run(["rmmod", "kvm_amd"], check=True)
    subprocess.run(["modprobe", "kvm_amd", f"npt={wanted}"], check=True)
    cpuinfo = dict(line.split(":", 1) for line in Path("/proc/cpuinfo").read_text().splitlines() if ":" in line)
    said = {name.strip(): value.strip() for name, value in cpuinfo.items()}
    print(
        json.dumps(
            {
                "module": "kvm_amd",
                "asked_npt": wanted,
                "npt": (PARAMETERS / "npt").read_text().strip(),
                "cpu_model": said["model name"],
                "cpu_flags": [flag for flag in FLAGS if flag in said["flags"].split()],
                "kernel": Path("/proc/sys/kernel/osrelease").read_text().strip(),
                "boot_id": Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
            }
        )
    )


if __name__ == "__main__":
    main()
