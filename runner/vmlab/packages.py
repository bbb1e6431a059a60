"""Which program comes from which Debian package: read from ``packages.txt``, which the Makefile reads too."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from vmlab.paths import packages_table


@dataclass(frozen=True)
class Requirement:
    """One row of the table: a program or file that must exist, the Debian package that brings it, and what it is for."""

    probe: str
    package: str
    purpose: str

    def met(self) -> bool:
        """Whether this machine has it; a probe with a slash is a path, any other the name of a program."""
        if self.probe.startswith("/"):
            return Path(self.probe).exists()
        return which(self.probe) is not None


def which(program: str) -> str | None:
    """The path of ``program``, or None. Debian keeps mke2fs and sfdisk in sbin, which an ordinary user's PATH lacks."""
    return shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")


@cache
def requirements() -> tuple[Requirement, ...]:
    """Every row of packages.txt."""
    rows = [line.split(maxsplit=2) for line in packages_table().read_text().splitlines() if line and not line.startswith("#")]
    return tuple(Requirement(*row) for row in rows)


def missing() -> list[Requirement]:
    """The rows that this machine does not meet."""
    return [row for row in requirements() if not row.met()]


def package_of(program: str) -> str:
    """The Debian package that brings ``program``; the program's own name where the table does not know it."""
    return next((row.package for row in requirements() if row.probe == program), program)
