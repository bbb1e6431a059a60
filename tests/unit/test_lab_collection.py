"""Finding a lab and reading its own Python files."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from vmlab import paths
from vmlab.errors import UsageError
from vmlab.lab import Evidence, judge
from vmlab.lab.collection import Collection, read_lab
from vmlab.lab.lab import Lab
from vmlab.lab.skeleton import create


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with two labs; what ships with vmlab is out of sight."""
    monkeypatch.setattr(paths, "data_dir", lambda name: tmp_path / "shipped" / name)
    for name in ("page_cache", "sockets"):
        create(name, tmp_path / "mine")
    return tmp_path / "mine"


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return read_lab(create("sample", tmp_path))


def refusal(call: Callable[..., object], *arguments: object) -> UsageError:
    with pytest.raises(UsageError) as caught:
        call(*arguments)
    return caught.value


def test_names_are_the_folders_with_a_lab_yaml(shelf: Path) -> None:
    (shelf / "notes").mkdir()
    (shelf / "Bad Name").mkdir()
    (shelf / "Bad Name" / "lab.yaml").touch()
    assert Collection([shelf]).names() == ["page_cache", "sockets"]


def test_what_ships_is_always_there() -> None:
    assert Collection().directories == [paths.data_dir("labs")]


def test_a_later_directory_shadows_an_earlier_one(shelf: Path, tmp_path: Path) -> None:
    other = create("sockets", tmp_path / "other").parent
    assert Collection([shelf, other]).get("sockets").directory == (other / "sockets").resolve()
    assert Collection([other, shelf]).get("sockets").directory == (shelf / "sockets").resolve()
    assert Collection([shelf, other]).names() == ["page_cache", "sockets"]


def test_an_unknown_lab_is_answered_with_the_nearest_name(shelf: Path) -> None:
    error = refusal(Collection([shelf]).get, "page_cach")
    assert error.message == "there is no lab named 'page_cach'; did you mean 'page_cache'?"
    assert error.hint == "labs: page_cache, sockets"
    assert "--labs DIR" in refusal(Collection().get, "anything").hint


def test_a_folder_that_is_no_lab_says_so(shelf: Path) -> None:
    (shelf / "empty").mkdir()
    assert "holds no lab.yaml" in refusal(Collection([shelf]).get, "empty").message
    (shelf / "folder" / "lab.yaml").mkdir(parents=True)
    assert "is not a file" in refusal(Collection([shelf]).get, "folder").message


def test_a_directory_that_is_none_says_so(shelf: Path) -> None:
    assert "is not a directory" in refusal(Collection, [shelf / "missing"]).message
    error = refusal(Collection, [shelf / "sockets"])
    assert "is itself a lab" in error.message
    assert str(shelf) in error.hint


def test_the_parts_of_a_lab(lab: Lab) -> None:
    assert lab.name == "sample"
    assert [each.id for each in lab.load_checks()] == ["mapping_takes_no_frames", "touching_takes_frames"]
    assert [path.name for path in lab.guest_files()] == ["touch.py"]
    assert callable(lab.load_experiment())


def test_the_digest_is_of_what_runs(lab: Lab) -> None:
    first = lab.digest
    assert len(first) == 64
    for ignored in ("tests/test_more.py", "__pycache__/checks.pyc", "guest/__pycache__/touch.pyc", ".checks.py.swp", "checks.py~"):
        (lab.directory / ignored).parent.mkdir(exist_ok=True)
        (lab.directory / ignored).write_text("x")
        assert lab.digest == first
    seen = {first}
    (lab.directory / "guest" / "more.sh").write_text("x")
    seen.add(lab.digest)
    (lab.directory / "guest" / "more.sh").rename(lab.directory / "guest" / "other.sh")
    seen.add(lab.digest)
    (lab.directory / "guest" / "other.sh").write_text("y")
    seen.add(lab.digest)
    (lab.directory / "checks.py").write_text((lab.directory / "checks.py").read_text() + "\n")
    seen.add(lab.digest)
    assert len(seen) == 5


def test_the_digest_does_not_depend_on_where_the_lab_is(lab: Lab, tmp_path: Path) -> None:
    before = lab.digest
    assert read_lab(lab.directory.rename(tmp_path / "elsewhere")).digest == before


def test_loading_leaves_no_traces(lab: Lab) -> None:
    before, names = list(sys.path), set(sys.modules)
    lab.load_checks()
    assert sys.path == before
    assert all(name.startswith("_vmlab_lab_") for name in set(sys.modules) - names)
    assert "checks" not in sys.modules
    assert not list(lab.directory.rglob("__pycache__"))


def test_a_changed_file_is_read_again(lab: Lab) -> None:
    lab.load_checks()
    path = lab.directory / "checks.py"
    path.write_text(path.read_text().replace("size / 10", "size / 1000"))
    samples = [{"touched_kib": i * 1024, "resident_kib": 100} for i in range(3)]
    [first, _] = judge(lab.load_checks(), Evidence({"memory": {"size_kib": 2048, "samples": samples}}))
    assert first.verdict.kind == "fail"


def test_two_labs_never_meet(shelf: Path) -> None:
    first, second = (Collection([shelf]).get(name).load_checks() for name in ("page_cache", "sockets"))
    assert first[0].function is not second[0].function
    assert first[0].function.__module__ != second[0].function.__module__


def test_a_dataclass_works_in_a_lab(lab: Lab) -> None:
    path = lab.directory / "checks.py"
    path.write_text(
        "from __future__ import annotations\nfrom dataclasses import dataclass\n"
        + path.read_text()
        + "\n@dataclass\nclass A:\n    x: int = 1\n"
    )
    assert len(lab.load_checks()) == 2


MORE = """
from vmlab.lab import Evidence, Verdict, check, passed


@check(points=3, claim="L1", after="{after}")
def {name}(evidence: Evidence) -> Verdict:
    \"\"\"There is more.\"\"\"
    return passed("so it is", measured=evidence["memory"].text("x"))
"""


def test_checks_may_stand_in_several_files(lab: Lab) -> None:
    first = [each.id for each in lab.load_checks()]
    digest = lab.digest
    for name, after in (("b_more", "a_more"), ("a_more", first[-1])):
        (lab.directory / f"checks_{name[0]}.py").write_text(MORE.format(name=name, after=after))
    assert [each.id for each in lab.load_checks()] == [*first, "a_more", "b_more"]
    assert lab.digest != digest


@pytest.mark.parametrize(
    ("name", "after", "says"),
    [
        ("more", "nothing", "checks_more.py: check more comes after 'nothing', which does not stand before it"),
        ("{first}", "{first}", "checks_more.py: a check named '{first}' stands in another file already"),
    ],
)
def test_checks_of_several_files_fit_together(lab: Lab, name: str, after: str, says: str) -> None:
    first = lab.load_checks()[0].id
    text = MORE.format(name=name, after=after).replace("{first}", first)
    (lab.directory / "checks_more.py").write_text(text)
    assert says.replace("{first}", first) in refusal(lab.load_checks).message


IMPORT = "from vmlab.lab import check\n"


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("def broken(:\n", r"checks.py:1: invalid syntax"),
        ("x = 1\nimport nothing_of_this_name\n", "checks.py:2: ModuleNotFoundError: No module named 'nothing_of_this_name'"),
        ("x = 1\n\ny = 1 / 0\n", "checks.py:3: ZeroDivisionError"),
        ("raise SystemExit(3)\n", "checks.py:1: SystemExit: 3"),
        ("import guest\n", "checks.py:1: ModuleNotFoundError"),
        ("x = '\x00'\n", "checks.py"),
        ("x = '\xe9'\n".encode("latin-1"), "checks.py"),
        ("", "declares no checks"),
        ("def f(evidence):\n    '''Not decorated.'''\n", "declares no checks"),
        (
            IMPORT + "@check(points=1, claim='L1')\ndef f(evidence):\n    return None\n",
            "checks.py:2: TypeError: the check f needs a docstring",
        ),
        (
            IMPORT + "@check(points=1, claim='L3')\ndef f(evidence):\n    '''T.'''\n",
            "checks.py:2: the check f tests the claim 'L3', which lab.yaml does not",
        ),
        (IMPORT + "@check(points=-1, claim='L1')\ndef f(evidence):\n    '''T.'''\n", "is worth -1.0 points"),
        (IMPORT + "@check(points=float('nan'), claim='L1')\ndef f(evidence):\n    '''T.'''\n", "is worth nan points"),
        (
            IMPORT + "@check(points=1, claim='L1', after='g')\ndef f(evidence):\n    '''T.'''\n",
            "f comes after 'g', which does not stand before it",
        ),
        ("def f():\n    pass\n\ndef f():\n    pass\n", "checks.py:4: the function f stands here twice (first in line 1)"),
    ],
)
def test_what_is_wrong_with_checks_is_told_with_file_and_line(lab: Lab, code: str | bytes, says: str) -> None:
    path = lab.directory / "checks.py"
    path.write_bytes(code if isinstance(code, bytes) else code.encode())
    error = refusal(lab.load_checks)
    assert says in error.message
    assert "\n" not in error.message


def test_a_question_shown_with_an_unknown_check(lab: Lab) -> None:
    path = lab.directory / "lab.yaml"
    path.write_text(path.read_text().replace("check: touching_takes_frames", "check: touching_takes_frame"))
    error = refusal(read_lab(lab.directory).load_checks)
    assert "the question after_half is shown with the check 'touching_takes_frame'" in error.message
    assert "did you mean 'touching_takes_frames'?" in error.message


def test_an_unknown_claim_is_answered_with_the_nearest(lab: Lab) -> None:
    path = lab.directory / "checks.py"
    path.write_text(path.read_text().replace('claim="L2"', 'claim="L22"'))
    error = refusal(lab.load_checks)
    assert "did you mean 'L2'?" in error.message
    assert error.hint == "claims of this lab: L1, L2"


@pytest.mark.parametrize(
    ("code", "says"),
    [
        (None, "experiment.py does not exist"),
        ("x = 1\n", "has no function experiment(bench), and no parts"),
        ("experiment = 3\n", "has no function experiment(bench), and no parts"),
    ],
)
def test_an_experiment_that_is_none(lab: Lab, code: str | None, says: str) -> None:
    path = lab.directory / "experiment.py"
    path.unlink()
    if code is not None:
        path.write_text(code)
    assert says in refusal(lab.load_experiment).message


def test_a_lab_without_checks_py(lab: Lab) -> None:
    (lab.directory / "checks.py").unlink()
    assert "checks.py does not exist" in refusal(lab.load_checks).message


def test_every_lab_that_ships_is_sound() -> None:
    library = Collection()
    for name in library.names():
        lab = library.get(name)
        assert lab.load_checks()
        assert callable(lab.load_experiment())
        assert (lab.directory / "README.md").exists()
