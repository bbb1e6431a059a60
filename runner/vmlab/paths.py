"""Where things are: data that ships with vmlab, and the directories of the user.

In a clone, ``labs/``, ``images/`` and ``cloud-init/`` stand beside ``runner/``; in an installed wheel they are inside the package.
"""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

from vmlab.errors import HostError

_PACKAGE = Path(__file__).resolve().parent
_IN_WHEEL = _PACKAGE / "_data"
_CHECKOUT = _PACKAGE.parents[1]


def data_dir(name: str) -> Path:
    """The directory ``labs``, ``images`` or ``cloud-init`` that ships with vmlab."""
    return (_IN_WHEEL if _IN_WHEEL.is_dir() else _CHECKOUT) / name


def guest_library() -> Path:
    """The package `vmlab_guest`, which guest scripts import: beside this one, in a clone and in an installed wheel."""
    return _PACKAGE.parent / "vmlab_guest"


def packages_table() -> Path:
    """The table of system packages, which the Makefile's set-up reads too.

    The package has it by a symbolic link, which a wheel carries as a file; a checkout on a file system without links has only its target.
    """
    return (_PACKAGE if _IN_WHEEL.is_dir() else _PACKAGE.parent) / "packages.txt"


def cache_dir() -> Path:
    """Where images and run directories are kept: ``$VMLAB_CACHE`` or the user's cache directory. Created when missing."""
    chosen = os.environ.get("VMLAB_CACHE")
    path = Path(chosen) if chosen else Path(platformdirs.user_cache_dir("vmlab"))
    return ensure_private_dir(path)


def runs_dir() -> Path:
    """Where the private working directories of running guests are."""
    return ensure_private_dir(cache_dir() / "runs")


def ensure_private_dir(path: Path) -> Path:
    """Create ``path`` readable by its owner alone; HostError when that cannot be done."""
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as exc:
        raise HostError(
            f"cannot create {path}: {exc.strerror}",
            hint="give a directory you may write to: VMLAB_CACHE=/some/where",
        ) from exc
    return path.resolve()
