"""The library for guest scripts, `vmlab_guest`: it lies beside the lab's scripts, and its files count as files of the lab.

Nothing of ours imports it: it runs in guests, with the Python that is there.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from vmlab.paths import guest_library

NAME = "vmlab_guest"


def files() -> dict[str, Path]:
    """Its files, by their names beside a lab's scripts."""
    return {f"{NAME}/{path.name}": path for path in sorted(guest_library().glob("*.py"))}


def digest() -> str:
    """SHA-256 over the names and contents of its files."""
    whole = hashlib.sha256()
    for name, path in files().items():
        whole.update(f"{name}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return whole.hexdigest()
