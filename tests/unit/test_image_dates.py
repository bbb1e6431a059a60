"""Dates in an image: none of them tells when it was built."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

from vmlab.image.builder import dates

BUILD_S = 1_700_000_000.5


def system(path: Path, *members: tuple[str, float]) -> Path:
    """A tar of files with dates; what a file holds is its name."""
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for name, date in members:
            info = tarfile.TarInfo(name)
            info.mtime, info.size = date, len(name)  # A fraction is what an extended header is for.
            tar.addfile(info, io.BytesIO(name.encode()))
        link = tarfile.TarInfo("link")
        link.type, link.linkname, link.mtime = tarfile.SYMTYPE, "package", max(int(date) for _, date in members)
        tar.addfile(link)
    return path


def read(path: Path) -> dict[str, tuple[int, bytes]]:
    with tarfile.open(path) as tar:
        return {each.name: (int(each.mtime), tar.extractfile(each).read() if each.isreg() else b"") for each in tar}  # type: ignore[union-attr]


def test_what_the_build_wrote_is_dated_like_the_newest_package(tmp_path: Path) -> None:
    source = system(tmp_path / "a", ("old", 5.25), ("package", 1_600_000_000), ("written", BUILD_S + 3.75), ("at once", BUILD_S))
    dates.clamp(source, tmp_path / "b", build_began_s=BUILD_S)
    assert read(tmp_path / "b") == {
        "old": (5, b"old"),
        "package": (1_600_000_000, b"package"),
        "written": (1_600_000_000, b"written"),
        "at once": (1_600_000_000, b"at once"),
        "link": (1_600_000_000, b""),
    }
    assert dates.newest_s(tmp_path / "b") == 1_600_000_000


def test_two_builds_at_different_times_are_the_same_bytes(tmp_path: Path) -> None:
    for name, later in (("a", 0.0), ("b", 86_400.5)):
        source = system(tmp_path / f"{name}.tar", ("package", 1_600_000_000), ("written", BUILD_S + 2 + later))
        dates.clamp(source, tmp_path / name, build_began_s=BUILD_S + later)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_control_other_packages_are_other_bytes(tmp_path: Path) -> None:
    for name, package in (("a", 1_600_000_000), ("b", 1_600_000_001)):
        dates.clamp(system(tmp_path / f"{name}.tar", ("package", package)), tmp_path / name, build_began_s=BUILD_S)
    assert (tmp_path / "a").read_bytes() != (tmp_path / "b").read_bytes()


def test_tools_are_told(tmp_path: Path) -> None:
    assert dates.environment(7) == {"SOURCE_DATE_EPOCH": "7", "E2FSPROGS_FAKE_TIME": "7", "TZ": "UTC"}
