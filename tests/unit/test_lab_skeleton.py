"""`vmlab new`: what it writes works as it is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from vmlab.errors import UsageError
from vmlab.lab import skeleton
from vmlab.lab.collection import Collection, read_lab
from vmlab.lab.skeleton import create

ROOT = Path(__file__).resolve().parents[2]


def test_it_is_a_lab(tmp_path: Path) -> None:
    folder = create("page_touch", tmp_path)
    assert folder == tmp_path / "page_touch"
    lab = Collection([tmp_path]).get("page_touch")
    assert len(lab.load_checks()) == 2
    assert len(lab.definition.questions) == len(lab.definition.plots) == len(lab.guest_files()) == 1
    text = "".join(path.read_text() for path in folder.rglob("*") if path.is_file())
    assert "LAB_NAME" not in text
    assert not list(folder.rglob("*.in"))


def test_its_own_tests_pass(tmp_path: Path) -> None:
    folder = create("page_touch", tmp_path)
    argv = [sys.executable, "-m", "pytest", "-q", "-c", str(ROOT / "pyproject.toml"), "--rootdir", str(tmp_path), str(folder / "tests")]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "5 passed" in done.stdout


def test_each_check_has_a_control(tmp_path: Path) -> None:
    lab = read_lab(create("page_touch", tmp_path))
    refuted = {check for control in lab.definition.controls.values() for check in control.fails}
    assert refuted == {check.id for check in lab.load_checks()}


def test_its_code_is_as_clean_as_ours(tmp_path: Path) -> None:
    # (In a folder named labs, so that the rules for labs apply; the settings are this project's.)
    folder = create("page_touch", tmp_path / "labs")
    (tmp_path / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text())
    for command in (["check"], ["format", "--check"]):
        argv = [sys.executable, "-m", "ruff", *command, "--no-cache", str(folder)]
        done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the guest script reads /proc")
@pytest.mark.parametrize("how", ["lazily", "populate", "read"])
def test_its_guest_script_prints_what_its_checks_read(tmp_path: Path, how: str) -> None:
    import json

    from vmlab.lab import Evidence, judge

    folder = create("page_touch", tmp_path)
    done = subprocess.run(
        [sys.executable, str(folder / "guest" / "touch.py"), "16", how], capture_output=True, text=True, check=True, timeout=60
    )
    [line] = done.stdout.splitlines()
    kinds = [str(each.verdict.kind) for each in judge(read_lab(folder).load_checks(), Evidence({"memory": json.loads(line)}))]
    # (A container's kernel may differ; a guest's does not.)
    assert kinds[0] in (("fail",) if how == "populate" else ("pass", "fail"))
    if kinds[0] == "pass":
        assert kinds[1] == ("fail" if how == "read" else "pass")
    assert "error" not in kinds


@pytest.mark.parametrize("name", ["", "Zoo", "9lives", "a-b", "a b", "../up", "a/b", ".hidden", "class", "x" * 41, "a\n", "é"])
def test_a_bad_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="is no name for a lab"):
        create(name, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["json", "statistics", "pytest", "jinja2", "vmlab"])
def test_the_name_of_a_module_is_refused(tmp_path: Path, name: str) -> None:
    """The lab is a package of its name: mypy would take one for the other, and pytest finds no tests in a package of Python's."""
    with pytest.raises(UsageError, match=f"'{name}' is no name for a lab, because Python has a module that is called so") as caught:
        create(name, tmp_path)
    assert f"my_{name}" in caught.value.hint
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["folder", "file", "link"])
def test_what_exists_is_never_touched(tmp_path: Path, kind: str) -> None:
    target = tmp_path / "mine"
    if kind == "folder":
        target.mkdir()
        (target / "lab.yaml").write_text("precious")
    elif kind == "file":
        target.write_text("precious")
    else:
        target.symlink_to(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="exists already; nothing was changed"):
        create("mine", tmp_path)
    if kind == "folder":
        assert [path.name for path in target.iterdir()] == ["lab.yaml"]
    assert not (tmp_path / "nowhere").exists()


def test_a_directory_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot create"):
        create("mine", tmp_path / "file" / "below")


def test_half_a_lab_is_not_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "template"
    broken.mkdir()
    (broken / "a.in").write_text("fine")
    (broken / "b.in").write_bytes(b"\xff\xfe not text")
    monkeypatch.setattr(skeleton, "FILES", broken)
    with pytest.raises(UnicodeDecodeError):
        create("mine", tmp_path)
    assert not (tmp_path / "mine").exists()
