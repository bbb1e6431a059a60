"""What the processor and the kernel say of virtualisation: a claim to hold the measurements against, never a proof."""

from __future__ import annotations

from pathlib import Path
from typing import Any

_FLAGS = ("vmx", "svm", "ept", "npt", "hypervisor")
_NESTED_PAGING = {"kvm_intel": "ept", "kvm_amd": "npt"}


def read(root: Path = Path("/")) -> dict[str, Any]:
    """The claims of the machine whose files lie at ``root``; what it does not tell is empty.

    ``flags`` are those of /proc/cpuinfo that concern virtualisation, ``module`` is kvm_intel, kvm_amd or empty, ``nested_paging`` its
    parameter (``ept=Y``, ``npt=1``), ``other_modules`` any others with kvm in their name: a software KVM shows there. ``boot_id`` tells one
    start of the machine from another.
    """
    modules = sorted(path.name for path in (root / "sys/module").glob("kvm*"))
    module = next((name for name in _NESTED_PAGING if name in modules), "")
    parameter = _NESTED_PAGING.get(module, "")
    value = text(root / "sys/module" / module / "parameters" / parameter) if module else ""
    flags = cpuinfo(root, "flags").split()
    return {
        "kernel": text(root / "proc/sys/kernel/osrelease"),
        "boot_id": text(root / "proc/sys/kernel/random/boot_id"),
        "cpu_model": cpuinfo(root, "model name"),
        "flags": [flag for flag in _FLAGS if flag in flags],
        "module": module,
        "nested_paging": f"{parameter}={value}" if value else "",
        "other_modules": [name for name in modules if name not in {"kvm", module}],
    }


def cpuinfo(root: Path, key: str) -> str:
    """The first value of ``key`` in /proc/cpuinfo; empty when there is none."""
    for line in text(root / "proc/cpuinfo").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == key:
            return value.strip()
    return ""


def text(path: Path) -> str:
    """A file's text, stripped; empty when it cannot be read: on Linux both mean that the kernel does not tell."""
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""
