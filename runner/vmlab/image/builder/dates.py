"""Dates that do not tell when an image was built, so that two builds from the same packages give the same bytes.

Files that come from a package bear the package's date. What the build itself wrote (directories, databases, links) would bear the time of
the build; it is dated like the newest file of any package instead. That date, not a fixed one: Python's compiled files hold the date of
their source, and a source dated otherwise would be compiled again at every start.
"""

from __future__ import annotations

import tarfile
from pathlib import Path


def clamp(source: Path, target: Path, *, build_began_s: float) -> None:
    """Write the tar ``source`` again as ``target``, with no member dated later than the newest that is older than the build."""
    with tarfile.open(source) as tar:
        newest = max((int(member.mtime) for member in tar if member.mtime < int(build_began_s)), default=0)
    with tarfile.open(source) as tar, tarfile.open(target, "w", format=tarfile.PAX_FORMAT) as clamped:
        for member in tar:
            member.mtime = min(int(member.mtime), newest)
            # (An extended header would bring the time back, with its fraction of a second.)
            member.pax_headers = {name: value for name, value in member.pax_headers.items() if name not in ("mtime", "atime", "ctime")}
            clamped.addfile(member, tar.extractfile(member) if member.isreg() else None)


def newest_s(tar_path: Path) -> int:
    """The date of a clamped tar's newest member, seconds since 1970."""
    with tarfile.open(tar_path) as tar:
        return max((int(member.mtime) for member in tar), default=0)


def environment(epoch_s: int) -> dict[str, str]:
    """What tells tools to take ``epoch_s`` for now.

    SOURCE_DATE_EPOCH is reproducible-builds.org's name for it, which mkfs.vfat, mtools and newer versions of mke2fs heed; older ones of
    e2fsprogs have E2FSPROGS_FAKE_TIME. FAT's dates are local time, so that has to be the same everywhere too.
    """
    return {"SOURCE_DATE_EPOCH": str(epoch_s), "E2FSPROGS_FAKE_TIME": str(epoch_s), "TZ": "UTC"}
