"""Where reports are kept, and files that are none."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from vmlab.errors import HostError, UsageError
from vmlab.report import publish, store

NOON = datetime(2026, 11, 23, 20, 15, tzinfo=UTC)


def test_directories_are_named_by_the_start_in_utc(tmp_path: Path) -> None:
    local = NOON.astimezone(timezone(timedelta(hours=-5)))

    assert store.new_directory(tmp_path, "zombies", local) == tmp_path / "zombies" / "20261123T201500Z"
    assert store.new_directory(tmp_path, "zombies", NOON).name == "20261123T201500Z-2"
    assert store.new_directory(tmp_path, "pid1", NOON).name == "20261123T201500Z"


def test_runs_in_one_second_never_share_a_directory(tmp_path: Path) -> None:
    with ThreadPoolExecutor(16) as pool:
        made = list(pool.map(lambda _: store.new_directory(tmp_path, "zombies", NOON), range(32)))

    assert len(set(made)) == 32


def test_saved_reports_come_back(samples: Any, tmp_path: Path) -> None:
    for name in ("report", "passing", "broken", "empty", "nasty"):
        report = getattr(samples, name)()
        directory = store.new_directory(tmp_path, name)
        path = publish.save_report(report, directory)

        assert store.load(path) == store.load(directory) == report
        assert sorted(each.name for each in directory.iterdir()) == ["junit.xml", "report.html", "report.json"]
        assert store.load(tmp_path / name / "latest") == report


def test_the_same_report_gives_the_same_bytes(samples: Any, tmp_path: Path) -> None:
    for directory in (tmp_path / "a", tmp_path / "b"):
        directory.mkdir()
        publish.save_report(samples.report(), directory)

    for name in ("report.json", "report.html", "junit.xml"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_latest_is_the_newest_that_has_a_report(samples: Any, tmp_path: Path) -> None:
    def made(lab: str, moment: datetime, *, finished: bool = True) -> Path:
        directory = store.new_directory(tmp_path, lab, moment)
        if finished:
            store.write_atomically(directory / "report.json", b"{}")
        return directory

    made("zombies", NOON)
    second = [made("zombies", NOON + timedelta(seconds=1)) for _ in range(11)][-1]
    made("zombies", NOON + timedelta(hours=1), finished=False)
    other = made("pid1", NOON + timedelta(minutes=1))
    (tmp_path / "zombies" / "notes").mkdir()
    (tmp_path / "zombies" / "notes" / "report.json").write_text("{}")

    assert store.find_latest(tmp_path, "zombies") == second
    assert second.name.endswith("-11"), "eleventh, which as text would come before the second"
    assert store.find_latest(tmp_path) == other


@pytest.mark.parametrize("lab", ["zombies", None])
def test_no_report_yet(tmp_path: Path, lab: str | None) -> None:
    with pytest.raises(UsageError, match="there is no report") as caught:
        store.find_latest(tmp_path / "nowhere", lab)

    assert "vmlab run" in caught.value.hint


def test_a_write_that_fails_leaves_the_old_file_and_no_litter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "report.json"
    path.write_text("old")
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))

    with pytest.raises(HostError, match="No space left on device") as caught:
        store.write_atomically(path, b"new")

    assert "free some space" in caught.value.hint
    assert [each.name for each in tmp_path.iterdir()] == ["report.json"]
    assert path.read_text() == "old"


def test_a_directory_that_cannot_be_made_is_an_error_of_the_host(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(HostError, match="cannot create"):
        store.new_directory(tmp_path / "file", "zombies")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is not JSON"),
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ('{"schema_version": NaN}', "is not JSON"),
        ('"\\ud800"', "is not JSON"),
        ("[]", "no schema_version"),
        ("{}", "no schema_version"),
        ('{"schema_version": "2.0"}', "version '2.0'"),
        ('{"schema_version": [[[]]]}', "version 'list'"),
        ('{"schema_version": "1.0"}', "lab: Field required"),
    ],
)
def test_what_is_no_report_is_said_in_one_line(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "report.json"
    path.write_text(text)

    with pytest.raises(UsageError) as caught:
        store.load(path)

    assert says in caught.value.message
    assert caught.value.hint
    assert "\n" not in caught.value.message


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_bytes(b'{"a": "\xff\xfe"}')

    with pytest.raises(UsageError, match="is not JSON"):
        store.load(path)


def test_a_mistake_is_named_with_its_place(samples: Any, tmp_path: Path) -> None:
    value = json.loads(samples.report().model_dump_json())
    value["checks"][2]["verdict"] = "brilliant"
    value["run"]["surprise"] = 1
    path = tmp_path / "report.json"
    path.write_text(json.dumps(value))

    with pytest.raises(UsageError) as caught:
        store.load(path)

    assert "checks[2].verdict: Input should be 'pass'" in caught.value.message
    assert "run.surprise: Extra inputs are not permitted" in caught.value.message


def test_nothing_there_and_too_much_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no report at"):
        store.load(tmp_path)
    with (tmp_path / "report.json").open("wb") as file:
        file.truncate(store.SIZE_LIMIT + 1)
    with pytest.raises(UsageError, match="too large"):
        store.load(tmp_path)
