"""The front door: what `make` says and which command it hands on. Nothing is installed or run here (make -n)."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    # An outer make (`make test`) must not reach the one under test.
    env = {key: value for key, value in os.environ.items() if key not in {"MAKEFLAGS", "MAKELEVEL", "MFLAGS", "LAB", "ARGS", "PARAM"}}
    return subprocess.run(
        ["make", "-C", str(ROOT), "--no-print-directory", *arguments], capture_output=True, text=True, check=False, env=env
    )


def handed_on(*arguments: str) -> list[str]:
    """The argument vector that vmlab would get: the last command of the recipe, split as the shell splits it."""
    done = make("-n", *arguments)
    assert done.returncode == 0, done.stderr
    return shlex.split(done.stdout.strip().splitlines()[-1].partition("exec ")[2])


def test_help_is_the_default_and_lists_every_target() -> None:
    told = make()
    assert told.returncode == 0
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert phony is not None
    listed = re.findall(r"^  make ([a-z-]+) +\S", told.stdout, re.MULTILINE)
    assert sorted(listed) == sorted(phony.group(1).split())
    assert make("help").stdout == told.stdout


def test_options_are_handed_on() -> None:
    assert handed_on("lab", "LAB=zombies") == [".venv/bin/vmlab", "run", "zombies", "--reports", "reports"]
    choices = ["IMAGE=debian", "ACCEL=tcg", "PARAM=a=1 b=2", "ANSWERS=my answers.yaml", "STUDENT=s1"]
    expected = "run zombies --answers 'my answers.yaml' --student s1 --accel tcg --image debian --param a=1 --param b=2"
    assert handed_on("lab", "LAB=zombies", *choices)[1:-2] == shlex.split(expected)
    assert handed_on("lab", "LAB=zombies", "REPORTS=/tmp/r", "QUIET=1", "ARGS=--json")[3:] == ["--reports", "/tmp/r", "--quiet", "--json"]
    assert handed_on("lab", "LAB=zombies paging")[1:4] == ["run", "zombies", "paging"]
    assert handed_on("labs", "ACCEL=kvm")[1:5] == ["run", "all", "--accel", "kvm"]
    assert handed_on("labs", "JOBS=3")[1:5] == ["run", "all", "--jobs", "3"]
    assert handed_on("controls", "LAB=zombies boot", "JOBS=2", "ROOM=30", "ARGS=--world sound")[1:] == shlex.split(
        "controls zombies boot --jobs 2 --param ROOM=30 --reports reports --world sound"
    )
    assert handed_on("shell", "LAB=zombies", "ACCEL=tcg")[1:] == ["shell", "zombies", "--accel", "tcg"]
    assert handed_on("predict", "LAB=boot")[1:] == ["predict", "boot", "--output", "answers.yaml"]
    assert handed_on("predict", "LAB=boot", "ANSWERS=it's mine.yaml")[1:] == ["predict", "boot", "--output", "it's mine.yaml"]
    assert handed_on("doctor", "ARGS=--json")[1:] == ["doctor", "--json"]
    assert handed_on("report")[1:] == ["report", "--reports", "reports"]
    assert "not (guest or browser or slow)" in handed_on("test-fast")
    assert "--quiet" not in handed_on("lab", "LAB=zombies", "QUIET=0")
    for door in ("lab", "shell"):
        assert "--cold" in handed_on(door, "LAB=zombies", "COLD=1")
        assert "--cold" not in handed_on(door, "LAB=zombies", "COLD=0")


def test_any_other_variable_is_a_parameter_of_the_lab() -> None:
    given = handed_on("lab", "LAB=boot", "SCALE=0.5", "ARMS=a b", "PARAM=x=1", "MIRROR=http://here", "VMLAB_CACHE=/tmp/c")
    assert given[1:-2] == ["run", "boot", "--param", "x=1", "--param", "ARMS=a b", "--param", "SCALE=0.5"]
    assert handed_on("lab", "LAB=boot", "WHO=it's; $(touch hacked)")[4] == "WHO=it's; $(touch hacked)"
    assert "--param" not in handed_on("shell", "LAB=boot", "SCALE=0.5"), "a shell has no parameters"


@pytest.mark.parametrize("name", ["x;touch${IFS}hacked", "$(touch hacked)", "`touch${IFS}hacked`", "it's", '"', "a&&b"])
def test_what_is_given_never_reaches_a_shell(name: str) -> None:
    # make itself expands a dollar that comes from the command line, so it is doubled, as a user would.
    words = name.split()
    assert handed_on("lab", f"LAB={name}")[1 : 2 + len(words)] == ["run", *words]
    assert handed_on("lab", "LAB=zombies", f"IMAGE={name}")[3:5] == ["--image", name]


@pytest.mark.parametrize("target", ["lab", "shell", "predict"])
def test_without_a_lab_two_lines_and_nothing_else(target: str) -> None:
    done = make(target)
    assert (done.returncode, done.stdout) == (2, "")
    first, second, *rest = done.stderr.splitlines()
    assert first == f"vmlab: which lab? name it: make {target} LAB=zombies"
    assert second.startswith("vmlab: there are:")
    assert all(line.startswith("make: ***") for line in rest)


def test_the_tests_need_their_own_packages_and_the_labs_do_not() -> None:
    assert "install.sh test" in make("-n", "test").stdout
    assert "install.sh run" in make("-n", "lab", "LAB=zombies").stdout
    assert "install.sh python" in make("-n", "doctor").stdout


def test_python_is_asked_for_as_in_pyproject() -> None:
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    asked = re.fullmatch(r">=(\d+)\.(\d+)", wanted)
    assert asked is not None
    major, minor = asked.groups()
    text = (ROOT / "runner/host/install.sh").read_text()
    assert f"({major}, {minor})" in text
    assert f"Python {major}.{minor} or newer" in text


def test_ci_calls_make_test() -> None:
    script = ROOT / ".ci/run"
    assert os.access(script, os.X_OK)
    assert "set -euo pipefail" in script.read_text()
    assert script.read_text().rstrip().endswith("exec make test")


READMES = sorted(ROOT.glob("labs/*/README.md"))


@pytest.mark.parametrize("path", READMES, ids=lambda path: path.parent.name)
def test_what_a_labs_readme_tells_a_student_to_type_can_be_typed(path: Path) -> None:
    """`vmlab` is in .venv/bin and not on the PATH, so a student is told of `make` alone, and of targets that there are."""
    text = path.read_text()
    assert not re.findall(r"^    vmlab .*|`vmlab [^`]*`", text, re.MULTILINE)
    told = set(re.findall(r"(?:^    |`)make ([a-z-]+)", text, re.MULTILINE))
    assert {"predict", "lab"} <= told <= set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
