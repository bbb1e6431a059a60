"""An image that is built again from the same packages is the same image, to the bit."""

from __future__ import annotations

from pathlib import Path

import pytest

from vmlab.deadline import Deadline
from vmlab.image.image import Image
from vmlab.image.store import ImageStore

pytestmark = [pytest.mark.guest, pytest.mark.xdist_group("build")]


def built(directory: Path) -> Image:
    return ImageStore(directory).build("debian-13", Deadline(1200))


def packages(image: Image) -> str:
    return (image.directory / "packages.txt").read_text()


def test_two_builds_from_the_same_packages_are_the_same_bytes(debian13: Image, tmp_path: Path) -> None:
    again, before = built(tmp_path / "again"), debian13
    if packages(again) != packages(before):
        # The cached one is older than an update of Debian's.
        before = built(tmp_path / "before")
        assert packages(again) == packages(before)
    files = ("disk.qcow2", "vmlinuz", "initrd.img")
    assert [again.manifest["files"][name] for name in files] == [before.manifest["files"][name] for name in files]
