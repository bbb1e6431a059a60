"""A whole lab in a guest that starts as a published image does: fetched, signed, by its own boot loader, by BIOS and by UEFI."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Vmlab
from tests.publisher import Publisher
from vmlab.image.image import Image

pytestmark = [pytest.mark.guest, pytest.mark.timeout(900), pytest.mark.xdist_group("published")]


@pytest.fixture(scope="module")
def publisher(debian13: Image, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Publisher]:
    with Publisher(tmp_path_factory.mktemp("p")) as made:
        made.publish("disk.qcow2", debian13.disk.read_bytes())
        yield made


@pytest.mark.parametrize("firmware", ["bios", "uefi"])
def test_the_zombies_lab_runs_from_a_published_image(publisher: Publisher, tmp_path: Path, vmlab: Vmlab, firmware: str) -> None:
    catalog = publisher.catalog(tmp_path / "config", publisher.entry("theirs", firmware=firmware))
    # The cache is the test's own: templates of 200 MiB that nobody will use again do not belong into the user's.
    env = {"VMLAB_CACHE": str(tmp_path / "cache")}
    done = vmlab(
        *("--catalog", str(catalog), "run", "zombies", "--image", "theirs", "--accel", "tcg", "--reports", str(tmp_path / "reports")),
        env=env,
        timeout_s=800,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    directory = tmp_path / "reports" / "zombies" / "latest"
    report = json.loads((directory / "report.json").read_text())
    assert {check["verdict"] for check in report["checks"]} == {"pass"}
    (guest,) = report["guests"]
    assert guest["image"] == "theirs"
    assert not guest["fallback"]
    console = (directory / "console.log").read_text(errors="replace")
    # The loader's own word for how it was started, before any kernel.
    assert ("UEFI" in console or "EFI" in console) == (firmware == "uefi")
