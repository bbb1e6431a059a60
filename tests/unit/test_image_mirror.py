"""Where packages come from: the machine's own Debian archive is recognised among whatever else apt knows."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest

from vmlab.deadline import Deadline
from vmlab.image.builder import mirror

DEB822 = """# A comment
Types: deb
# http://old.invalid/archive
URIs: http://own.invalid/debian
Suites: bookworm bookworm-updates
Components: main

Types: deb
URIs: http://own.invalid/debian-security/
Suites: bookworm-security
Components: main
"""
ONE_LINE = """deb [arch=amd64 signed-by=/x] http://own.invalid/debian bookworm main contrib
deb http://own.invalid/debian-security bookworm-security main # updates
"""
FOREIGN = """Types: deb
URIs: https://vendor.invalid/node_20.x
Suites: nodistro
Components: main
"""


@pytest.fixture(autouse=True)
def bookworm(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Debian 12 machine, no MIRROR, and archives that hold everything."""
    monkeypatch.delenv("MIRROR", raising=False)
    monkeypatch.setattr(platform, "freedesktop_os_release", lambda: {"ID": "debian", "VERSION_CODENAME": "bookworm"})
    monkeypatch.setattr(mirror, "_has", lambda uri, suite, deadline: True)


def choose(apt: Path, suite: str = "trixie") -> mirror.Mirror:
    return mirror.choose(suite, Deadline(10), apt=apt)


def apt(tmp_path: Path, **files: str) -> Path:
    (tmp_path / "sources.list.d").mkdir()
    for name, text in files.items():
        file = name.replace("_", ".")
        (tmp_path / (file if file == "sources.list" else f"sources.list.d/{file}")).write_text(text)
    return tmp_path


OWN = (
    "deb http://own.invalid/debian trixie main",
    "deb http://own.invalid/debian trixie-updates main",
    "deb http://own.invalid/debian-security trixie-security main",
)


@pytest.mark.parametrize("files", [{"debian_sources": DEB822}, {"sources_list": ONE_LINE}, {"own_list": ONE_LINE}])
def test_the_machines_addresses_are_taken_with_the_images_suite(tmp_path: Path, files: dict[str, str]) -> None:
    assert choose(apt(tmp_path, **files)).lines == OWN


def test_foreign_and_unreadable_sources_do_no_harm(tmp_path: Path) -> None:
    folder = apt(
        tmp_path, a_sources=FOREIGN, b_list="deb\ndeb [x http://y\n\x00", c_list_disabled="deb http://z bookworm main", own_sources=DEB822
    )
    (folder / "sources.list.d/broken.list").write_bytes(b"\xff\xfe deb")
    (folder / "sources.list.d/folder.list").mkdir()
    assert choose(folder).lines == OWN


def test_disabled_stanzas_and_sources_of_source_code_are_left_out(tmp_path: Path) -> None:
    folder = apt(
        tmp_path,
        a_sources=f"Enabled: no\n{DEB822.split(chr(10), 1)[1]}".split("\n\n")[0],
        b_list="deb-src http://s.invalid/debian bookworm main\n",
    )
    assert choose(folder).lines == ()


def test_without_debian_sources_mmdebstraps_default_is_taken(tmp_path: Path) -> None:
    assert choose(apt(tmp_path, a_sources=FOREIGN)).lines == ()


def test_another_distribution_has_no_debian_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "freedesktop_os_release", lambda: {"ID": "ubuntu", "VERSION_CODENAME": "bookworm"})
    assert choose(apt(tmp_path, own_sources=DEB822)).lines == ()


def test_a_mirror_that_lacks_the_suite_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirror, "_has", lambda uri, suite, deadline: "trixie" not in suite)
    assert choose(apt(tmp_path, own_sources=DEB822)).lines == ()


def test_suites_that_the_mirror_lacks_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirror, "_has", lambda uri, suite, deadline: "-" not in suite)
    assert choose(apt(tmp_path, own_sources=DEB822)).lines == OWN[:1]


def test_what_the_user_names_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIRROR", "http://named.invalid/debian/")
    assert choose(apt(tmp_path, own_sources=DEB822)).lines[0] == "deb http://named.invalid/debian trixie main"


def test_an_archive_that_does_not_answer_holds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert not mirror._has("http://127.0.0.1:9/debian", "trixie", Deadline(5))
